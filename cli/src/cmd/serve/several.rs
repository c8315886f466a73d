//! The models of a server that has several.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tern::Config;
use tern_serve::Served;

use super::{file_of, name_of};
use crate::failure::{Failure, Outcome};
use crate::model::{self, MachineArgs};

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

/// These models, each with what the head of its file says.
pub(super) fn served(
    models: &[PathBuf],
    machine: &MachineArgs,
    threads: Option<usize>,
) -> Outcome<Vec<Served>> {
    let mut all: Vec<Served> = Vec::new();
    for word in models {
        let served = one(word, machine, threads)?;
        if all.iter().any(|other| other.name == served.name) {
            let what = format!("{}: another model is called `{}` already", word.display(), served.name);
            return Err(
                Failure::failed(what).hint("clients choose by the file's name: rename one of the files")
            );
        }
        all.push(served);
    }
    Ok(all)
}

fn one(word: &Path, machine: &MachineArgs, threads: Option<usize>) -> Outcome<Served> {
    let named = model::find(word)?;
    let (file, file_bytes) = file_of(&named);
    let opened = named.clone().file(machine.file())?;
    let template = model::template_of(&opened);
    let config = Some(Config::of(&opened)?);
    let machine = machine.clone();
    let load = Arc::new(move || model::open_for_server(&named, &machine, threads));
    Ok(Served {
        name: name_of(word),
        aliases: Vec::new(),
        file,
        file_bytes,
        config,
        template,
        load: Some(load),
    })
}
