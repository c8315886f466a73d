//! Which model a word names, and getting it where it is not on this machine.

use std::path::{Path, PathBuf};

use pyo3::exceptions::PyFileNotFoundError;
use pyo3::prelude::*;
use tern::STORY;
use tern_hub::{Cache, Hub, Limits, Name, Plan, known};

use crate::errors::{failed, wrong};

/// The name of a model on the Hub that a word is, if it is one.
fn name(word: &str) -> Option<Name> {
    known(word).map(|known| known.full()).or_else(|| word.parse().ok())
}

/// The path of the model that a word names: `story`, a path that is there, or a name whose model was downloaded.
#[pyfunction]
pub(crate) fn find(word: &str) -> PyResult<String> {
    if word == STORY || Path::new(word).exists() {
        return Ok(word.to_owned());
    }
    let cached = |name: Name| Cache::from_env().ok()?.find(&name);
    let found: Option<PathBuf> = name(word).and_then(cached);
    found.map(|path| path.to_string_lossy().into_owned()).ok_or_else(|| {
        let what = match name(word) {
            Some(_) => "not on this machine: `Llama.from_pretrained` or `tern pull` downloads it",
            None => "no such file or directory",
        };
        PyFileNotFoundError::new_err(format!("{}: {what}", word.escape_debug()))
    })
}

/// Downloads the model of this name where it is not there; the path. `folder` is the cache to use, else the usual one.
#[pyfunction]
#[pyo3(signature = (word, folder=None))]
pub(crate) fn download(py: Python<'_>, word: &str, folder: Option<PathBuf>) -> PyResult<String> {
    let name: Name = match known(word) {
        Some(known) => known.full(),
        None => word.parse().map_err(|error: tern_hub::Error| wrong(error))?,
    };
    let told = |error: tern_hub::Error| match error.hint() {
        Some(hint) => failed(format!("{error}; {hint}")),
        None => failed(error),
    };
    let path = py.detach(|| {
        let cache = match folder {
            Some(folder) => Cache::new(folder),
            None => Cache::from_env().map_err(told)?,
        };
        if let Some(path) = cache.find(&name) {
            return Ok(path);
        }
        if Hub::is_offline() {
            return Err(failed(format!("{name}: not on this machine, and HF_HUB_OFFLINE is set")));
        }
        let hub = Hub::from_env(Limits::default()).map_err(told)?;
        let plan = Plan::new(&hub, &cache, &name).map_err(told)?;
        let mut heard = Ok(());
        let path = plan.run(&hub, &cache, &mut |_| {
            heard = Python::attach(|py| py.check_signals());
            heard.is_ok()
        });
        heard?;
        path.map_err(told)
    })?;
    Ok(path.to_string_lossy().into_owned())
}
