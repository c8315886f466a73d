//! What becomes known of a request while it is answered: for its line in the log, for the header of its answer.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use crate::budget::Hold;
use crate::error::Refusal;

/// What becomes known of a request on its way; the model's thread adds to it.
#[derive(Debug)]
pub(crate) struct Note(Mutex<Known>);

/// What is known so far.
#[derive(Debug)]
pub(crate) struct Known {
    memory: Hold,
    /// Bytes of its body.
    body: usize,
    /// Whether a text was asked for; only then are there tokens.
    pub(crate) text: bool,
    /// The model that was asked.
    pub(crate) model: Option<String>,
    pub(crate) prompt: usize,
    pub(crate) cached: usize,
    pub(crate) tokens: usize,
    pub(crate) first: Option<Duration>,
    pub(crate) end: Option<End>,
    /// What the client should know about its answer.
    pub(crate) warnings: Vec<String>,
}

/// How a text ended. Of several texts the last of these counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    Stop,
    Length,
    Cancelled,
    Timeout,
    Error,
}

impl End {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Cancelled => "cancelled",
            Self::Timeout => "timeout",
            Self::Error => "error",
        }
    }
}

impl Note {
    pub(crate) fn new(memory: Hold) -> Self {
        let (text, body, prompt, cached, tokens, warnings) = (false, 0, 0, 0, 0, Vec::new());
        Self(Mutex::new(Known {
            memory,
            body,
            text,
            model: None,
            prompt,
            cached,
            tokens,
            first: None,
            end: None,
            warnings,
        }))
    }

    /// The request takes so many bytes of memory now, if there is room.
    pub(crate) fn holds(&self, bytes: usize) -> Result<(), Refusal> {
        self.known().memory.set(bytes)
    }

    /// It takes so many bytes more.
    pub(crate) fn takes(&self, bytes: usize) -> Result<(), Refusal> {
        self.known().memory.grow(bytes)
    }

    /// Its body has so many bytes, read into values that take this many.
    pub(crate) fn body(&self, bytes: usize, values: usize) -> Result<(), Refusal> {
        let mut known = self.known();
        known.body = bytes;
        known.memory.set(bytes + values)
    }

    /// Its texts become tokens, which takes memory for a while: a tokenizer holds its merges for each byte of a word, and
    /// a body can be one word.
    pub(crate) fn encodes(&self) -> Result<(), Refusal> {
        const PER_BYTE: usize = 64;
        let mut known = self.known();
        let bytes = known.body * PER_BYTE;
        known.memory.grow(bytes)
    }

    /// Tells the client something about its answer, in the header `x-tern-warning`.
    pub(crate) fn warn(&self, warning: impl Into<String>) {
        self.known().warnings.push(warning.into());
    }

    pub(crate) fn warnings(&self) -> String {
        self.known().warnings.join("; ")
    }

    /// All that is known.
    pub(crate) fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// This model answers.
    pub(crate) fn answered_by(&self, model: &str) {
        self.known().model = Some(model.to_owned());
    }

    /// A text was asked for, whose prompts have so many tokens.
    pub(crate) fn asked(&self, prompt: usize) {
        let mut known = self.known();
        (known.text, known.prompt) = (true, prompt);
    }

    /// So many tokens of a prompt were there already.
    pub(crate) fn cached(&self, tokens: usize) {
        self.known().cached += tokens;
    }

    /// Another token of an answer, so long after the request.
    pub(crate) fn token(&self, after: Duration) {
        let mut known = self.known();
        known.tokens += 1;
        known.first.get_or_insert(after);
    }

    /// One of the answers ended.
    pub(crate) fn ended(&self, end: End) {
        let mut known = self.known();
        known.end = known.end.max(Some(end));
    }
}
