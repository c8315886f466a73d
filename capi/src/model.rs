//! A model, and what is asked of it at once: ids, texts, vectors.

use std::ffi::c_char;
use std::path::Path;
use std::ptr;
use std::sync::Arc;

use tern::{Embedder, Message, Result, STORY, Specials};

use crate::border::{Count, array, give, guarded, object, text, wrong};
use crate::settings::{self, Options};

/// A model in memory. All threads may use one at once.
pub struct Model(pub(crate) Arc<tern::Model>);

/// One message of a conversation.
#[repr(C)]
#[derive(Debug)]
pub struct MessageView {
    /// `system`, `user` or `assistant`.
    pub role: *const c_char,
    /// What it says.
    pub content: *const c_char,
}

/// # Safety
/// As [`text`]; null is none.
pub(crate) unsafe fn optional<'a>(name: &str, pointer: *const c_char) -> Result<Option<&'a str>> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: a text, by this function's own condition.
    unsafe { text(name, pointer) }.map(Some)
}

/// Loads a model: a GGUF file, a safetensors file, a folder of a checkpoint, or "story", which is inside the library. `options` is
/// NULL or a JSON object with any of `threads`, `cpu`, `packing`, `head`, `kv`, `activations`, `zeros`, `floats`, `i2s_arm` and `no_mmap`, which are
/// the flags of `tern run`. NULL where it fails.
///
/// A file is mapped: whoever changes it while it is in use ends the program, unless `no_mmap` is true.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tern_model_load(path: *const c_char, options: *const c_char) -> *mut Model {
    guarded(ptr::null_mut(), || {
        // SAFETY: texts, by the rules of the header.
        let (path, options) = unsafe { (text("path", path)?, optional("options", options)?) };
        let options = settings::read::<Options>("options", options)?.options()?;
        let model = match path {
            STORY => tern::Model::story(&options)?,
            path => tern::Model::open(Path::new(path), &options)?,
        };
        Ok(Box::into_raw(Box::new(Model(Arc::new(model)))))
    })
}

/// Gives a model back. Generations that were made of it go on. NULL is nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tern_model_free(model: *mut Model) {
    guarded((), || {
        if !model.is_null() {
            // SAFETY: it came from `tern_model_load` and was not given back before, by the rules of the header.
            drop(unsafe { Box::from_raw(model) });
        }
        Ok(())
    });
}

/// The most tokens that a text of this model has, beginning and answer together; 0 where it fails.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tern_model_context(model: *const Model) -> usize {
    // SAFETY: a model, by the rules of the header.
    guarded(0, || Ok(unsafe { object("model", model) }?.0.config().context))
}

/// The ids of a text, with what the model puts before every text; `*count` of them, for `tern_free`. NULL where it fails.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tern_tokenize(
    model: *const Model,
    text: *const c_char,
    count: *mut usize,
) -> *mut u32 {
    guarded(ptr::null_mut(), || {
        // SAFETY: a model, a text and a place for a number, by the rules of the header.
        let (count, model, text) =
            unsafe { (Count::new(count)?, object("model", model)?, crate::border::text("text", text)?) };
        let tokenizer = model.0.tokenizer()?;
        Ok(give(&tokenizer.encode(text, tokenizer.adds_bos(), Specials::Text)?, &count))
    })
}

/// The ids of a conversation in the model's own format, up to where the answer begins. It fails where the model has no chat
/// template. Otherwise as `tern_tokenize`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tern_tokenize_chat(
    model: *const Model,
    messages: *const MessageView,
    message_count: usize,
    count: *mut usize,
) -> *mut u32 {
    guarded(ptr::null_mut(), || {
        // SAFETY: a model, so many messages and a place for a number, by the rules of the header.
        let (count, model, messages) = unsafe {
            (Count::new(count)?, object("model", model)?, array("messages", messages, message_count)?)
        };
        let message = |message: &MessageView| {
            // SAFETY: texts, by the rules of the header.
            let (role, content) = unsafe { (text("role", message.role)?, text("content", message.content)?) };
            Ok(Message { role: role.to_owned(), content: content.to_owned() })
        };
        let messages = messages.iter().map(message).collect::<Result<Vec<_>>>()?;
        Ok(give(&model.0.tokenizer()?.encode_chat(&messages, false)?, &count))
    })
}

/// The text of these ids, without special tokens: `*length` bytes and a NUL behind them, for `tern_free`. NULL where it fails.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tern_detokenize(
    model: *const Model,
    ids: *const u32,
    count: usize,
    length: *mut usize,
) -> *mut c_char {
    guarded(ptr::null_mut(), || {
        // SAFETY: a model, so many ids and a place for a number, by the rules of the header.
        let (length, model, ids) =
            unsafe { (Count::new(length)?, object("model", model)?, array("ids", ids, count)?) };
        let text = model.0.tokenizer()?.decode(ids, false);
        Ok(give(text.as_bytes(), &length).cast())
    })
}

/// The vectors of texts, by an embedding model: `text_count` times `*dimensions` floats, each vector of length 1, for `tern_free`.
/// NULL where it fails.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tern_embed(
    model: *const Model,
    texts: *const *const c_char,
    text_count: usize,
    dimensions: *mut usize,
) -> *mut f32 {
    guarded(ptr::null_mut(), || {
        // SAFETY: a model, so many texts and a place for a number, by the rules of the header.
        let (dimensions, model, texts) =
            unsafe { (Count::new(dimensions)?, object("model", model)?, array("texts", texts, text_count)?) };
        if texts.is_empty() {
            return wrong("texts: expected at least one");
        }
        let mut embedder = Embedder::new(&model.0, None)?;
        // SAFETY: texts, by the rules of the header.
        let tokens = |at: &*const c_char| Embedder::tokens(&model.0, unsafe { text("texts", *at) }?);
        let tokens = texts.iter().map(tokens).collect::<Result<Vec<_>>>()?;
        let vectors = embedder.embed(&tokens, |_| {})?.concat();
        let given = give(&vectors, &dimensions);
        dimensions.set(vectors.len() / texts.len());
        Ok(given)
    })
}
