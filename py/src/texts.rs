//! Texts to tokens and back: of a loaded model, or of a tokenizer by itself.

use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use tern::{STORY, Specials, Tokenizer};

use crate::engine::Engine;
use crate::errors::{engine, wrong};

/// A tokenizer; of a model, it lives as long as that is open.
fn encode(tokenizer: &Tokenizer, text: &str, bos: bool, special: bool) -> PyResult<Vec<u32>> {
    let specials = if special { Specials::Parse } else { Specials::Text };
    tokenizer.encode(text, bos, specials).map_err(engine)
}

/// The bytes of a text: of what is no whole character, too.
fn decode(tokenizer: &Tokenizer, ids: &[u32], special: bool) -> PyResult<Vec<u8>> {
    let size = tokenizer.size();
    if let Some(id) = ids.iter().find(|id| **id as usize >= size) {
        return Err(wrong(format!("token {id}: expected ids below {size}")));
    }
    let pieces = ids.iter().filter_map(|id| tokenizer.token_bytes(*id));
    let mut bytes: Vec<u8> =
        pieces.filter(|(_, named)| special || !named).flat_map(|(bytes, _)| bytes).collect();
    // The space that a vocabulary puts before a text's first word is none of the text.
    if bytes.first() == Some(&b' ') && !tokenizer.decode(ids, special).starts_with(' ') {
        bytes.remove(0);
    }
    Ok(bytes)
}

/// What is known of a vocabulary: its size, BOS, whether texts begin with it, the tokens that end one, the template.
type About = (usize, Option<u32>, bool, Vec<u32>, Option<String>);

fn about(tokenizer: &Tokenizer) -> About {
    let template = tokenizer.template().map(|template| template.source().to_owned());
    (tokenizer.size(), tokenizer.bos(), tokenizer.adds_bos(), tokenizer.stops().to_vec(), template)
}

/// The tokenizer of a file or directory, without a model.
#[pyclass(frozen, module = "tern._tern")]
pub(crate) struct Words(Tokenizer);

#[pymethods]
impl Words {
    #[new]
    fn new(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        let open = || match path.as_os_str() == STORY {
            true => Tokenizer::from_file(&tern::story_file()?)?
                .ok_or_else(|| tern::Error::Tokenizer("the built-in model has none".to_owned())),
            false => Tokenizer::open(&path),
        };
        py.detach(open).map(Self).map_err(engine)
    }

    fn encode(&self, py: Python<'_>, text: &str, bos: bool, special: bool) -> PyResult<Vec<u32>> {
        py.detach(|| encode(&self.0, text, bos, special))
    }

    fn decode<'py>(&self, py: Python<'py>, ids: Vec<u32>, special: bool) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &decode(&self.0, &ids, special)?))
    }

    fn about(&self) -> About {
        about(&self.0)
    }

    /// The token that is written so.
    fn id(&self, text: &str) -> Option<u32> {
        self.0.token_id(text)
    }

    /// How a token is written.
    fn text(&self, id: u32) -> Option<String> {
        self.0.token_text(id)
    }

    /// The ids of a conversation of `(role, content)`, in the model's own format.
    fn chat(&self, messages: Vec<(String, String)>, go_on: bool) -> PyResult<Vec<u32>> {
        chat(&self.0, messages, go_on)
    }
}

fn chat(tokenizer: &Tokenizer, messages: Vec<(String, String)>, go_on: bool) -> PyResult<Vec<u32>> {
    if messages.is_empty() {
        return Err(wrong("messages: expected at least one"));
    }
    let messages: Vec<tern::Message> =
        messages.into_iter().map(|(role, content)| tern::Message { role, content }).collect();
    tokenizer.encode_chat(&messages, go_on).map_err(engine)
}

#[pymethods]
impl Engine {
    fn encode(&self, py: Python<'_>, text: &str, bos: bool, special: bool) -> PyResult<Vec<u32>> {
        let open = self.opened()?;
        let model = open.model();
        py.detach(|| encode(model.tokenizer().map_err(engine)?, text, bos, special))
    }

    fn decode<'py>(&self, py: Python<'py>, ids: Vec<u32>, special: bool) -> PyResult<Bound<'py, PyBytes>> {
        let open = self.opened()?;
        let model = open.model();
        Ok(PyBytes::new(py, &decode(model.tokenizer().map_err(engine)?, &ids, special)?))
    }

    fn about(&self) -> PyResult<About> {
        let open = self.opened()?;
        let model = open.model();
        Ok(about(model.tokenizer().map_err(engine)?))
    }
}
