//! A model that a server was given: its names, its file, how it is loaded.

use std::sync::Arc;

use serde::Deserialize;
use tern::{Config, Model};

/// The model that an address names behind its question mark.
#[derive(Deserialize)]
pub(crate) struct ByName {
    pub(crate) model: Option<String>,
}

/// Loads a model, each time that it is called.
pub type Load = Arc<dyn Fn() -> tern::Result<Model> + Send + Sync>;

/// A model that is served, loaded or not.
#[derive(Clone)]
pub struct Served {
    /// Its name, as clients see it.
    pub name: String,
    /// Other names for it.
    pub aliases: Vec<String>,
    /// Its file, as it is told to clients.
    pub file: String,
    /// The file's bytes.
    pub file_bytes: u64,
    /// What the head of its file says, for as long as it is not loaded.
    pub config: Option<Config>,
    /// Its chat template, for as long as it is not loaded.
    pub template: Option<String>,
    /// Loads it on first use; without it, it is the one model that the server starts with and keeps.
    pub load: Option<Load>,
}

impl Served {
    /// Whether a client means this model. Ollama's clients put `:latest` behind a name.
    pub(crate) fn is_called(&self, asked: &str) -> bool {
        let plain = asked.strip_suffix(":latest").unwrap_or(asked);
        let names = || std::iter::once(&self.name).chain(&self.aliases);
        names().any(|name| name == asked || name.strip_suffix(":latest").unwrap_or(name) == plain)
    }
}
