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
    /// What a [`crate::Library`] removes to delete it, such as its repository; other models may lie in the same.
    /// `None` where it is a file of the owner's, which no client deletes.
    pub kept_in: Option<String>,
    /// Loads it.
    pub load: Load,
}

impl Served {
    /// A model of which nothing is told before it is loaded.
    pub fn new(name: impl Into<String>, load: Load) -> Self {
        let (aliases, file) = (Vec::new(), String::new());
        let (config, template, kept_in) = (None, None, None);
        Self { name: name.into(), aliases, file, file_bytes: 0, config, template, kept_in, load }
    }
}

/// What a server serves.
pub enum Serving {
    /// One model, which is loaded at the start, stays, and answers to every name.
    One(Box<Served>),
    /// Several, each chosen by its name: loaded on its first use, and unloaded when it was not used for a while or others
    /// need its memory.
    Several(Vec<Served>),
}
