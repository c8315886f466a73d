//! Grammars that answers must follow: JSON schemas, Lark, GBNF, regular expressions, calls of tools.
//!
//! The `llguidance` crate does the work and has no bounds of its own, so a grammar goes through four gates: it is counted
//! (`bounds`), a process apart compiles it and is killed if that takes too much (`trial`, `judge`), the server compiles
//! what that process could and keeps it (`compile`, `kept`), and each step of an answer is
//! weighed and timed (`follow`, `watch`).

mod bounds;
mod compile;
mod follow;
mod gbnf;
mod judge;
mod kept;
mod lark;
mod regex;
#[cfg(test)]
mod tests;
mod trial;
mod watch;

use std::sync::{Arc, Mutex, MutexGuard};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tern::{Guide, Tokenizer};

pub(crate) use compile::Compiled;
pub(crate) use compile::laid_out;
use compile::{Compiler, Words};
use follow::{Followed, Room};
use judge::{Fault, Judge};
use kept::Kept;

pub use judge::Start;

use crate::error::Refusal;
use crate::limits::{GRAMMAR, GRAMMAR_STACK, at_most};

/// What an answer must be a text of.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) enum Grammar {
    Schema(Value, Layout),
    Lark(String),
    Regex(String),
}

/// What happens to keywords of a schema that cannot be kept.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) enum Layout {
    /// They are refused.
    Strict,
    /// They are left out, which the answer's head says.
    Lenient,
}

impl Grammar {
    /// Any JSON object.
    pub(crate) fn object() -> Self {
        Self::Schema(json!({"type": "object"}), Layout::Strict)
    }

    /// A text of a client: Lark, or GBNF as llama.cpp reads it.
    pub(crate) fn text(text: &str) -> Result<Self, Refusal> {
        if gbnf::is(text) {
            return gbnf::to_lark(text).map(Self::Lark).map_err(|what| refused(&what));
        }
        Ok(Self::Lark(text.to_owned()))
    }
}

/// The life of the process in which grammars are tried before the server compiles them; it ends with its input. See
/// [`Options::try_grammars`](crate::Options::try_grammars).
pub fn try_grammars() -> std::io::Result<()> {
    trial::serve()
}

/// A grammar that was counted.
pub(crate) enum Found {
    Known(Arc<Compiled>),
    New(New),
}

/// One that was not compiled before.
pub(crate) struct New {
    grammar: Grammar,
    /// What it is known by.
    text: Vec<u8>,
}

/// Makes grammars that can be followed, for one model.
pub(crate) struct Grammars {
    compiler: Compiler,
    judge: Option<Judge>,
    kept: Mutex<Kept>,
    room: Arc<Room>,
}

/// What is wrong with a grammar by its mere size.
fn count(grammar: &Grammar) -> Result<(), String> {
    match grammar {
        Grammar::Schema(schema, _) => {
            if !matches!(schema, Value::Object(_) | Value::Bool(_)) {
                return Err("expected an object".to_owned());
            }
            bounds::schema(schema)
        }
        Grammar::Lark(text) => {
            at_most(GRAMMAR, text.len(), "bytes")?;
            lark::check(text)
        }
        Grammar::Regex(text) => {
            at_most(GRAMMAR, text.len(), "bytes")?;
            regex::check(text)
        }
    }
}

impl Grammars {
    /// `None` for a model that has no stop token: then no grammar could end.
    pub(crate) fn new(tokenizer: &Tokenizer, vocab: usize, start: Option<Start>) -> Option<Self> {
        Self::with(Words::new(tokenizer, vocab)?, start)
    }

    fn with(words: Words, start: Option<Start>) -> Option<Self> {
        Some(Self {
            compiler: Compiler::new(&words)?,
            judge: start.map(|start| Judge::new(start, &words)),
            kept: Mutex::default(),
            room: Arc::default(),
        })
    }

    /// Counts a grammar, and looks whether it is known.
    pub(crate) fn find(&self, grammar: Grammar) -> Result<Found, Refusal> {
        count(&grammar).map_err(|what| refused(&what))?;
        let text = serde_json::to_vec(&grammar).map_err(|error| refused(&error.to_string()))?;
        match self.kept().get(&text) {
            Some(known) => known.map(Found::Known).map_err(|what| refused(&what)),
            None => Ok(Found::New(New { grammar, text })),
        }
    }

    /// Compiles a grammar within the bounds of time, memory and stack.
    pub(crate) fn compile(&self, New { grammar, text }: New) -> Result<Arc<Compiled>, Refusal> {
        // It may have become known while this one waited.
        if let Some(known) = self.kept().get(&text) {
            return known.map_err(|what| refused(&what));
        }
        let tried = self.judge.as_ref().map_or(Ok(()), |judge| judge.ask(&text));
        let compiled = match tried {
            Ok(()) => self.compile_here(&grammar),
            Err(Fault::Grammar(what)) => Err(what),
            Err(Fault::Server(what)) => return Err(Refusal::unavailable(what)),
        };
        self.kept().put(text, compiled.clone());
        compiled.map_err(|what| refused(&what))
    }

    /// On a stack of its own, with more room than it was tried with.
    fn compile_here(&self, grammar: &Grammar) -> Result<Arc<Compiled>, String> {
        let compiled = std::thread::scope(|scope| {
            let thread =
                std::thread::Builder::new().name("tern-grammar".to_owned()).stack_size(GRAMMAR_STACK);
            let thread = thread.spawn_scoped(scope, || self.compiler.compile(grammar));
            thread
                .map_err(|error| error.to_string())?
                .join()
                .unwrap_or_else(|_| Err("it cannot be compiled".to_owned()))
        });
        compiled.map(Arc::new)
    }

    /// What guides one answer along a grammar.
    pub(crate) fn follow(&self, compiled: &Compiled) -> Box<dyn Guide> {
        Box::new(Followed::new(compiled, &self.room))
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(|error| error.into_inner())
    }
}

fn refused(what: &str) -> Refusal {
    Refusal::bad(format!("the grammar or schema of the answer: {what}"))
}
