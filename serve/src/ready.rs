//! A loaded model, and the states of the server around it.

use std::sync::{Arc, OnceLock, mpsc};

use tern::{Adapter, Model, Sampling};

use crate::error::{Refusal, short};
use crate::grammar::Grammars;
use crate::served::Served;
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
    pub(crate) served: Arc<Served>,
    pub(crate) model: Arc<Model>,
    /// What can take part beside it, by its name.
    pub(crate) adapters: Vec<(String, Arc<Adapter>)>,
    /// Tokens of one sequence.
    pub(crate) context: usize,
    pub(crate) sampling: Sampling,
    pub(crate) seed: Option<u64>,
    pub(crate) loaded: u64,
    pub(crate) worker: mpsc::Sender<Message>,
    /// How the process is started that tries grammars.
    pub(crate) try_grammars: Option<crate::grammar::Start>,
    pub(crate) grammars: OnceLock<Option<Grammars>>,
    /// Whether the chat template shows system messages to the model; asked once.
    pub(crate) reads_system: OnceLock<bool>,
}

impl Ready {
    /// The names under which clients get the model with one of its adapters.
    pub(crate) fn adapted(&self) -> impl Iterator<Item = String> {
        self.adapters.iter().map(|(name, _)| format!("{}:{name}", self.served.name))
    }

    /// The name under which a request is answered, and the adapter that it asks for.
    pub(crate) fn meant(&self, asked: Option<&str>) -> Result<(String, Option<Arc<Adapter>>), Refusal> {
        let base = || Ok((self.served.name.clone(), None));
        let Some((model, name)) = asked.and_then(|asked| asked.rsplit_once(':')) else { return base() };
        let mut names = std::iter::once(&self.served.name).chain(&self.served.aliases);
        if self.adapters.is_empty() || !names.any(|name| name == model) {
            return base();
        }
        match self.adapters.iter().position(|(adapter, _)| adapter == name) {
            Some(at) => {
                let (name, adapter) = &self.adapters[at];
                Ok((format!("{}:{name}", self.served.name), Some(adapter.clone())))
            }
            // Ollama's clients put this behind every name.
            None if name == "latest" => base(),
            None => {
                let names: Vec<_> = self.adapted().map(|name| format!("`{name}`")).collect();
                let names = format!("`{}`, {}", self.served.name, names.join(", "));
                Err(Refusal::no_model(&short(asked.unwrap_or_default()), &names))
            }
        }
    }

    /// Whether the model has a template and that shows system messages to the model. Some drop them, some refuse them.
    pub(crate) fn keeps_system(&self) -> bool {
        let template = self.model.tokenizer().ok().and_then(|tokenizer| tokenizer.template());
        template.is_some_and(|template| *self.reads_system.get_or_init(|| template.reads_system()))
    }

    /// The source of the chat template; empty where there is none.
    pub(crate) fn template(&self) -> &str {
        let template = self.model.tokenizer().ok().and_then(|tokenizer| tokenizer.template());
        template.map_or("", |template| template.source())
    }

    /// What compiles grammars, made when it is first needed.
    pub(crate) fn grammars(&self) -> Result<&Grammars, Refusal> {
        let vocab = self.model.config().vocab;
        let make = || Grammars::new(self.model.tokenizer().ok()?, vocab, self.try_grammars.clone());
        let grammars = self.grammars.get_or_init(make).as_ref();
        grammars.ok_or_else(|| {
            Refusal::bad("this model cannot follow a grammar: it has no tokenizer or no stop token")
        })
    }
}
