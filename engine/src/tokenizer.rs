//! Text to token ids and back.
//!
//! A text goes through four steps, each in a file of its own: added tokens are taken out (`added`), the rest is
//! normalised (`normal`), cut into pieces (`cut`), and each piece becomes ids (`bpe`). The files that a tokenizer
//! comes in — `json`, `tiktoken`, `sentencepiece`, `gguf` — only fill in these four.

mod added;
mod alphabet;
mod beside;
mod bpe;
mod chat;
mod cut;
mod gguf;
mod json;
mod normal;
mod pre;
mod sentencepiece;
mod stream;
mod tiktoken;
mod vocabulary;

use std::borrow::Cow;
use std::path::Path;

use self::added::{Added, Part};
use self::bpe::{Bpe, Scratch};
use self::cut::{Clock, Cut};
use self::normal::Normal;
use self::stream::Script;
use crate::file::{self, File, Metadata};
use crate::{Error, Result, Template};

pub use self::added::AddedToken;
pub use self::beside::{added_beside, template as template_beside};
pub use self::gguf::{cutting, template_of};
pub use self::pre::{Pre, name_of as pre_name};
pub use self::sentencepiece::{Kind, Piece, Pieces, parse as pieces};
pub use self::stream::Decoder;
pub use self::vocabulary::MAX_IDS;

/// What a special token's name in a text is.
///
/// Special tokens are those that steer the model: `special` in a tokenizer.json, control or unknown in a GGUF. Other
/// added tokens (`special: false`, user-defined) are ordinary text that has an id of its own: they are recognised
/// either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Specials {
    /// Plain text, letter by letter: for whatever a user typed.
    Text,
    /// The token: for text whose author may steer the model.
    Parse,
}

/// A tokenizer turns text into token ids and ids into text. It also knows what the model's files say around that: the token
/// that begins a text, the tokens that stop one, and the chat template.
///
/// ```
/// use tern::{Model, Options, Specials};
///
/// # fn main() -> tern::Result<()> {
/// let model = Model::story(&Options::default())?; // or `Tokenizer::open(path)` without a model
/// let tokenizer = model.tokenizer()?;
/// let ids = tokenizer.encode("The cat sat.", false, Specials::Text)?;
/// assert_eq!(tokenizer.decode(&ids, false), "The cat sat.");
/// # Ok(())
/// # }
/// ```
pub struct Tokenizer {
    bpe: Bpe,
    added: Added,
    normal: Normal,
    cut: Cut,
    script: Script,
    /// What stands before every text: the BOS token, or nothing.
    before: Vec<u32>,
    /// What stands after a text that is whole.
    after: Vec<u32>,
    bos: Option<u32>,
    stops: Vec<u32>,
    template: Option<Template>,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokenizer({} ids)", self.size())
    }
}

/// Names under which models know the token that ends a turn or a text; they count where they are special.
const STOP_NAMES: [&str; 13] = [
    "</s>",
    "<eos>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|eot|>",
    "<|return|>",
    "<end_of_turn>",
    "<|end_of_turn|>",
    "<｜end▁of▁sentence｜>",
];

impl Tokenizer {
    /// Reads the tokenizer of an opened model: from a GGUF's metadata, or from the files beside a safetensors checkpoint.
    /// `None` if there is none.
    pub fn from_file(file: &File) -> Result<Option<Self>> {
        match &file.metadata {
            Metadata::Gguf(pairs) => gguf::read(pairs),
            Metadata::Hf { dir, config, tokenizer_config, generation_config } => {
                let configs = beside::Configs {
                    model: config.clone(),
                    tokenizer: tokenizer_config.clone().unwrap_or_default(),
                    generation: generation_config.clone().unwrap_or_default(),
                };
                beside::of_dir(dir, &configs)
            }
        }
    }

    /// Opens a tokenizer: a `tokenizer.json`, a `tokenizer.model` (tiktoken or SentencePiece), a GGUF, or a model directory.
    pub fn open(path: &Path) -> Result<Self> {
        let meta = std::fs::metadata(path).map_err(|e| Error::io(path, e))?;
        let found = if meta.is_dir() {
            beside::of_dir(path, &beside::Configs::of(path)?)?
        } else if beside::is_gguf(path)? {
            Self::from_file(&file::open(path, file::OpenOptions::default())?)?
        } else {
            Some(beside::of_file(path, Vec::new())?)
        };
        found.ok_or_else(|| Error::file(path, "expected a tokenizer, found none"))
    }

    /// From the metadata of a GGUF; `None` if it has no vocabulary.
    pub fn from_keys(pairs: &file::gguf::Pairs) -> Result<Option<Self>> {
        gguf::read(pairs)
    }

    /// What stands before every text.
    pub fn before(&self) -> &[u32] {
        &self.before
    }

    /// Reads a tokenizer from the metadata of a GGUF.
    pub fn from_gguf(pairs: &file::gguf::Pairs) -> Result<Self> {
        let what = "expected the kind of vocabulary, found no such key";
        gguf::read(pairs)?.ok_or_else(|| pairs.error("tokenizer.ggml.model", what))
    }

    /// Reads the bytes of a SentencePiece `tokenizer.model`, as Llama-2 has it.
    pub fn from_sentencepiece(file: &[u8]) -> Result<Self> {
        sentencepiece::read(file, Vec::new()).map_err(Error::Tokenizer)
    }

    /// Reads the bytes of a Hugging Face `tokenizer.json`.
    pub fn from_json(json: &[u8]) -> Result<Self> {
        json::read(json).map_err(Error::Tokenizer)
    }

    /// Reads the bytes of a tiktoken rank file: Llama-3's `tokenizer.model`, or OpenAI's cl100k.
    pub fn from_tiktoken(file: &[u8]) -> Result<Self> {
        tiktoken::read(file).map_err(Error::Tokenizer)
    }

    /// Returns the ids of a text. With `bos`, what the model's files put before a text comes first, and never twice: not
    /// when the text begins with it and [`Specials::Parse`] reads it there.
    pub fn encode(&self, text: &str, bos: bool, specials: Specials) -> Result<Vec<u32>> {
        let mut ids = if bos { self.before.clone() } else { Vec::new() };
        let len = ids.len();
        self.encode_marked(text, specials == Specials::Parse, None, &mut ids)?;
        if len > 0 && ids[len..].starts_with(&self.before) && specials == Specials::Parse {
            ids.drain(..len);
        }
        Ok(ids)
    }

    /// Returns the text of these ids; `specials` shows special tokens by their names. Ids without a piece print nothing,
    /// bytes that are no UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[u32], specials: bool) -> String {
        let mut text = String::new();
        let mut decoder = Decoder::new(self, specials);
        for &id in ids {
            decoder.push_to(id, &mut text);
        }
        text + &decoder.finish()
    }

    /// Returns a decoder for a new text, which takes ids one by one.
    pub fn decoder(&self) -> Decoder<'_> {
        Decoder::new(self, false)
    }

    /// Returns a decoder for what comes after these ids: a space at the start of the first word is kept, and a character
    /// that began before is finished.
    pub fn decoder_after(&self, ids: &[u32]) -> Decoder<'_> {
        let mut decoder = self.decoder();
        let mut before = String::new();
        for &id in ids {
            decoder.push_to(id, &mut before);
            before.clear();
        }
        decoder
    }

    /// Returns how this token is written in the vocabulary: `Ġthe`, `▁the`, `<|eot_id|>`. `None` for an id without a piece.
    pub fn token_text(&self, id: u32) -> Option<String> {
        if let Some(token) = self.added.get(id) {
            return Some(token.content.clone());
        }
        let piece = self.bpe.vocabulary.piece(id)?;
        Some(match self.script {
            Script::Bytes => alphabet::text(piece),
            Script::Spaces { .. } => String::from_utf8_lossy(piece).into_owned(),
        })
    }

    /// Returns the bytes of text that this token stands for (its name, for a special one) and whether it is special. `None`
    /// for an id without a piece.
    pub fn token_bytes(&self, id: u32) -> Option<(Vec<u8>, bool)> {
        let spaces = |piece: &[u8]| String::from_utf8_lossy(piece).replace('▁', " ").into_bytes();
        if let Some(token) = self.added.get(id) {
            return Some((token.content.clone().into_bytes(), token.special));
        }
        let piece = self.bpe.vocabulary.piece(id)?;
        let bytes = match (self.script, bpe::byte_of(piece)) {
            (Script::Bytes, _) => piece.to_vec(),
            (Script::Spaces { .. }, Some(byte)) => vec![byte],
            (Script::Spaces { .. }, None) => spaces(piece),
        };
        Some((bytes, false))
    }

    /// Finds the token that is written so.
    pub fn token_id(&self, text: &str) -> Option<u32> {
        self.added.find(text).or_else(|| match self.script {
            Script::Bytes => self.bpe.vocabulary.find(&alphabet::bytes(text)?),
            Script::Spaces { .. } => self.bpe.vocabulary.find(text.as_bytes()),
        })
    }

    /// Returns one more than the largest id.
    pub fn size(&self) -> usize {
        self.bpe.vocabulary.len().max(self.added.len())
    }

    /// Returns the token that begins a text, if the model's files name one.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// Tells whether the model wants a token (BOS) before every text.
    pub fn adds_bos(&self) -> bool {
        !self.before.is_empty()
    }

    /// Returns the tokens that the model's files put after a text which is whole, as one is that becomes a vector.
    pub fn after(&self) -> &[u32] {
        &self.after
    }

    /// Returns the tokens that end a turn or a text, in rising order: those that the model's files name and those special
    /// tokens whose names are known to end one.
    pub fn stops(&self) -> &[u32] {
        &self.stops
    }

    /// Returns the chat template, if the model has one.
    pub fn template(&self) -> Option<&Template> {
        self.template.as_ref()
    }

    fn new(bpe: Bpe, added: Added, normal: Normal, cut: Cut, script: Script) -> Self {
        let stops =
            added.specials().filter(|t| STOP_NAMES.contains(&t.content.as_str())).map(|t| t.id).collect();
        let mut tokenizer = Self {
            bpe,
            added,
            normal,
            cut,
            script,
            before: Vec::new(),
            after: Vec::new(),
            bos: None,
            stops,
            template: None,
        };
        tokenizer.stop_at([]);
        tokenizer
    }

    fn beginning_with(mut self, before: Vec<u32>) -> Self {
        self.bos = before.first().copied().or(self.bos);
        self.before = before;
        self
    }

    /// Adds stop tokens; ids outside the vocabulary are left out.
    fn stop_at(&mut self, ids: impl IntoIterator<Item = u32>) {
        self.stops.extend(ids);
        let size = self.size();
        self.stops.retain(|&id| (id as usize) < size);
        self.stops.sort_unstable();
        self.stops.dedup();
    }

    /// Appends the ids of a text. `mark` is a character that keeps special tokens from being seen and is no part
    /// of the text.
    fn encode_marked(
        &self,
        text: &str,
        specials: bool,
        mark: Option<char>,
        ids: &mut Vec<u32>,
    ) -> Result<()> {
        let clock = Clock::new(text);
        let mut scratch = Scratch::default();
        for part in self.added.split(text, specials) {
            let range = match part {
                Part::Token(id) => {
                    ids.push(id);
                    continue;
                }
                Part::Text(range) => range,
            };
            let at_start = range.start == 0;
            let normal = self.normal.apply(&text[range]).map_err(Error::Tokenizer)?;
            for part in self.added.split_normalized(&normal, specials) {
                match part {
                    Part::Token(id) => ids.push(id),
                    Part::Text(range) => {
                        let first = at_start && range.start == 0;
                        let mut piece = Cow::Borrowed(&normal[range]);
                        if let Some(mark) = mark.filter(|&mark| piece.contains(mark)) {
                            piece = piece.replace(mark, "").into();
                        }
                        self.encode_part(&piece, first, &clock, &mut scratch, ids)
                            .map_err(Error::Tokenizer)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn encode_part(
        &self,
        text: &str,
        first: bool,
        clock: &Clock,
        scratch: &mut Scratch,
        ids: &mut Vec<u32>,
    ) -> Result<(), String> {
        self.cut.apply(text, first, clock, |piece| {
            if self.cut.printable {
                let raw = alphabet::bytes(piece).ok_or("a pre-tokenizer left the byte alphabet")?;
                return self.bpe.encode(&raw, scratch, ids);
            }
            self.bpe.encode(piece.as_bytes(), scratch, ids)
        })
    }
}

/// A template that may name the texts of these tokens.
fn template_with(
    tokenizer: &Tokenizer,
    source: &str,
    bos: Option<u32>,
    eos: Option<u32>,
) -> Result<Template> {
    let text = |id: Option<u32>| id.and_then(|id| tokenizer.token_text(id)).unwrap_or_default();
    Template::new(source, &text(bos), &text(eos))
}
