//! A text that a model writes: begun, streamed to a callback, cancelled from elsewhere, gone on with.

use std::ffi::{c_char, c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, TryLockError};

use tern::{CHUNK, Result, Sampling, Stop};

use crate::border::{array, guarded, lend, object, wrong};
use crate::model::{Model, optional};
use crate::settings::{self, Settings};

/// The call failed: see `tern_last_error`.
pub const TERN_ERROR: c_int = -1;
/// The model ended the text.
pub const TERN_STOP: c_int = 0;
/// `max_tokens` were written.
pub const TERN_LENGTH: c_int = 1;
/// The context is full.
pub const TERN_CONTEXT: c_int = 2;
/// The callback or `tern_cancel` ended the text.
pub const TERN_CANCELLED: c_int = 3;

/// In place of an id, where the last letters of a text come without a token of their own.
pub const TERN_NO_TOKEN: u32 = u32::MAX;

/// Takes a text as it comes: a token and the letters that are whole with it, `length` bytes of UTF-8 (none where a letter
/// needs more tokens) and a NUL behind them, which last until it returns. Anything but 0 ends the text. It runs on the thread that
/// called `tern_generate`, may call everything here but for that generation, and must not leave by `longjmp` or an exception.
pub type Callback =
    Option<unsafe extern "C" fn(user: *mut c_void, token: u32, text: *const c_char, length: usize) -> c_int>;

/// A text of one model: what it has read, and how it goes on. One thread at a time may use it; `tern_cancel` is for all.
pub struct Generation {
    cancelled: AtomicBool,
    writer: Mutex<Writer>,
}

struct Writer {
    /// It borrows from `model`, so that it goes before it: fields go in their order.
    generation: tern::Generation<'static>,
    model: Arc<tern::Model>,
    sampling: Sampling,
    most: usize,
}

/// Makes a text without a token. `settings` is NULL or a JSON object with any of `temperature`, `top_k`, `typical_p`, `top_p`,
/// `min_p`, `repeat_penalty`, `presence_penalty`, `frequency_penalty`, `dry_multiplier`, `dry_base`, `dry_allowed`, `dry_range`,
/// `seed` (0), `max_tokens` (until the context is full) and `context` (the model's). NULL where it fails.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tern_generation_new(
    model: *const Model,
    settings: *const c_char,
) -> *mut Generation {
    guarded(ptr::null_mut(), || {
        // SAFETY: a model and a text, by the rules of the header.
        let (model, settings) =
            unsafe { (Arc::clone(&object("model", model)?.0), optional("settings", settings)?) };
        let settings: Settings = settings::read("settings", settings)?;
        let sampling = settings.sampling(model.tokenizer().ok())?;
        // SAFETY: the model lies in memory of its own, which the `Writer` holds for as long as it holds what borrows from it.
        let forever: &'static tern::Model = unsafe { &*Arc::as_ptr(&model) };
        let context = settings.context(model.config().context);
        // A model that would say nothing at all says its likeliest token that does not end the text, as in `tern run`.
        let generation = tern::Generation::new(forever, context, sampling.clone())?.with_least(1);
        let writer = Writer { generation, model, sampling, most: settings.most() };
        let generation = Generation { cancelled: AtomicBool::new(false), writer: Mutex::new(writer) };
        Ok(Box::into_raw(Box::new(generation)))
    })
}

/// Gives a text back, when no call with it runs any more. NULL is nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tern_generation_free(generation: *mut Generation) {
    guarded((), || {
        if !generation.is_null() {
            // SAFETY: it came from `tern_generation_new` and was not given back before, by the rules of the header.
            drop(unsafe { Box::from_raw(generation) });
        }
        Ok(())
    });
}

/// Writes what comes after these ids, which are the whole text so far; with how many of them the text of the call before began, is
/// seen and not read again. Every call begins with the seed anew. Returns `TERN_STOP`, `TERN_LENGTH`, `TERN_CONTEXT`,
/// `TERN_CANCELLED` or `TERN_ERROR`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tern_generate(
    generation: *mut Generation,
    ids: *const u32,
    count: usize,
    callback: Callback,
    user: *mut c_void,
) -> c_int {
    guarded(TERN_ERROR, || {
        // SAFETY: a generation and so many ids, by the rules of the header.
        let (generation, ids) =
            unsafe { (object("generation", generation.cast_const())?, array("ids", ids, count)?) };
        let Some(callback) = callback else { return wrong("callback: expected a function, found NULL") };
        let mut writer = match generation.writer.try_lock() {
            Ok(writer) => writer,
            Err(TryLockError::WouldBlock) => return wrong("generation: another call uses it"),
            Err(TryLockError::Poisoned(_)) => {
                return wrong("generation: a call with it ended in an internal error: make another");
            }
        };
        generation.cancelled.store(false, Ordering::Relaxed);
        let cancelled = || generation.cancelled.load(Ordering::Relaxed);
        writer.write(ids, cancelled, |token, text| {
            // SAFETY: the callback takes these, by the rules of the header.
            lend(text, |text, length| unsafe { callback(user, token, text, length) }) != 0
        })
    })
}

/// Ends the `tern_generate` of this text that runs, from any thread: within a token, or within 256 tokens of a beginning that is being
/// read. Where none runs, it does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tern_cancel(generation: *const Generation) {
    guarded((), || {
        // SAFETY: a generation, by the rules of the header.
        unsafe { object("generation", generation) }?.cancelled.store(true, Ordering::Relaxed);
        Ok(())
    });
}

impl Writer {
    fn write(
        &mut self,
        ids: &[u32],
        cancelled: impl Fn() -> bool,
        mut piece: impl FnMut(u32, &str) -> bool,
    ) -> Result<c_int> {
        if ids.is_empty() {
            return wrong("ids: expected at least one");
        }
        let vocab = self.model.config().vocab;
        if let Some(id) = ids.iter().find(|id| **id as usize >= vocab) {
            return wrong(format!("ids: expected ids below {vocab}, the model's vocabulary, found {id}"));
        }
        // One id at least is read, so that something is chosen after it.
        let before = self.generation.tokens();
        let same = before.iter().zip(ids).take_while(|(a, b)| a == b).count().min(ids.len() - 1);
        self.generation.truncate(same);
        self.generation.set_sampling(self.sampling.clone())?;
        for chunk in ids[same..].chunks(CHUNK) {
            if cancelled() {
                return Ok(TERN_CANCELLED);
            }
            self.generation.prompt(chunk)?;
        }
        let mut decoder = self.model.tokenizer().ok().map(|tokenizer| tokenizer.decoder_after(ids));
        let mut end = TERN_LENGTH;
        for _ in 0..self.most {
            if cancelled() {
                return Ok(TERN_CANCELLED);
            }
            let Some(token) = self.generation.next()? else {
                end = match self.generation.stopped() {
                    Some(Stop::Token(_)) => TERN_STOP,
                    _ => TERN_CONTEXT,
                };
                break;
            };
            let text = decoder.as_mut().and_then(|decoder| decoder.push(token.id)).unwrap_or_default();
            if piece(token.id, &text) {
                return Ok(TERN_CANCELLED);
            }
        }
        let rest = decoder.map(tern::Decoder::finish).unwrap_or_default();
        if !rest.is_empty() && piece(TERN_NO_TOKEN, &rest) {
            return Ok(TERN_CANCELLED);
        }
        Ok(end)
    }
}
