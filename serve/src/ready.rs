//! A loaded model, and the states of the server around it.

use std::sync::{Arc, OnceLock, mpsc};
use std::time::{SystemTime, UNIX_EPOCH};

use tern::{Message as Turn, Model, Sampling};

use crate::error::Refusal;
use crate::guide::Guides;
use crate::worker::Message;

/// The server's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Loading,
    Serving,
    /// Told to end: what runs may finish, nothing new begins.
    Draining,
}

/// A loaded model and the way to its worker.
pub(crate) struct Ready {
    pub(crate) model: Arc<Model>,
    /// Tokens of one sequence.
    pub(crate) context: usize,
    pub(crate) sampling: Sampling,
    pub(crate) seed: Option<u64>,
    pub(crate) loaded: u64,
    pub(crate) worker: mpsc::Sender<Message>,
    pub(crate) guides: OnceLock<Option<Guides>>,
    pub(crate) keeps_system: OnceLock<bool>,
}

impl Ready {
    /// Whether the model's template shows system messages to the model. Some drop them, some refuse them.
    pub(crate) fn keeps_system(&self) -> bool {
        let look = || {
            let turn = |role: &str| Turn { role: role.to_owned(), content: "x".to_owned() };
            let tokenizer = self.model.tokenizer().ok()?;
            let without = tokenizer.encode_chat(&[turn("user")], false).ok()?;
            let with = tokenizer.encode_chat(&[turn("system"), turn("user")], false).ok()?;
            Some(with != without)
        };
        *self.keeps_system.get_or_init(|| look().unwrap_or(false))
    }

    /// What compiles grammars, made when it is first needed.
    pub(crate) fn guides(&self) -> Result<&Guides, Refusal> {
        let make = || Guides::new(self.model.tokenizer().ok()?, self.model.config().vocab);
        let guides = self.guides.get_or_init(make).as_ref();
        guides.ok_or_else(|| {
            Refusal::bad("this model cannot follow a grammar: it has no tokenizer or no stop token")
        })
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
