//! The models of a server that has several.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tern::Config;
use tern_serve::{Load, Served};

use super::{file_of, name_of};
use crate::failure::{Failure, Outcome};
use crate::hub;
use crate::model::{self, MachineArgs, Named};

/// These words, with its models in the place of each folder.
pub(super) fn each(words: &[PathBuf]) -> Vec<PathBuf> {
    words.iter().flat_map(|word| folder(word).unwrap_or_else(|| vec![word.clone()])).collect()
}

/// The models in a folder that is none itself, in the order of their names.
fn folder(word: &Path) -> Option<Vec<PathBuf>> {
    if word == Path::new(tern::STORY) || !word.is_dir() || model::is_model(&word.to_string_lossy()) {
        return None;
    }
    let entries = std::fs::read_dir(word).ok()?.flatten().map(|entry| entry.path());
    let mut models: Vec<PathBuf> = entries.filter(|path| model::is_model(&path.to_string_lossy())).collect();
    models.sort();
    Some(models).filter(|models| !models.is_empty())
}

/// The name by which a model of the Hub is served.
pub(super) fn served_as(name: &tern_hub::Name) -> String {
    hub::of(name).map_or_else(|| name.to_string(), |known| known.name.clone())
}

/// A model that a word on the command line names; where that is a name, clients may use it in full and delete it.
fn kept(served: Served, word: &Path) -> Served {
    let Some(name) = hub::name(word).filter(|_| !word.exists()) else { return served };
    let full = served_as(&name);
    let aliases = (full != served.name).then_some(full).into_iter().collect();
    Served { aliases, kept_in: Some(name.repo), ..served }
}

/// How the models of a server are opened.
pub(super) struct Maker {
    pub(super) machine: MachineArgs,
    pub(super) threads: Option<usize>,
}

impl Maker {
    /// Loads a model, each time that it is called.
    pub(super) fn load(&self, named: Named) -> Load {
        let (machine, threads) = (self.machine.clone(), self.threads);
        Arc::new(move || model::open_for_server(&named, &machine, threads))
    }

    /// A model with what the head of its file says.
    pub(super) fn one(&self, name: String, named: Named) -> Outcome<Served> {
        let (file, file_bytes) = file_of(&named);
        let opened = named.clone().file(self.machine.file())?;
        let template = model::template_of(&opened);
        let config = Some(Config::of(&opened)?);
        Ok(Served { file, file_bytes, config, template, ..Served::new(name, self.load(named)) })
    }

    /// The models that these words name.
    pub(super) fn served(&self, models: &[PathBuf]) -> Outcome<Vec<Served>> {
        let mut all: Vec<Served> = Vec::new();
        for word in models {
            let served = self.one(name_of(word), model::find(word)?)?;
            if all.iter().any(|other| other.name == served.name) {
                let what = format!("{}: another model is called `{}` already", word.display(), served.name);
                return Err(
                    Failure::failed(what).hint("clients choose by the file's name: rename one of the files")
                );
            }
            all.push(kept(served, word));
        }
        Ok(all)
    }
}
