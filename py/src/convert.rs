//! `tern.convert`.

use std::path::PathBuf;

use pyo3::prelude::*;
use tern_convert::{ConvertOptions, Engine, Floats, Target};

use crate::errors::{engine, wrong};

/// Converts a model; the family, the tensors, the bytes written, and what the user should know.
#[pyfunction]
#[pyo3(signature = (input, output, *, to, lossy=false, i2s_arm=false, embedding="keep", head="keep", engine=None))]
#[expect(clippy::too_many_arguments, reason = "keywords")]
pub(crate) fn convert(
    py: Python<'_>,
    input: PathBuf,
    output: PathBuf,
    to: &str,
    lossy: bool,
    i2s_arm: bool,
    embedding: &str,
    head: &str,
    engine: Option<&str>,
) -> PyResult<(String, usize, u64, Vec<String>)> {
    let unknown = |what: &str, name: &str| wrong(format!("{what} `{}`: no such one", name.escape_debug()));
    let floats = |what: &str, name: &str| Floats::from_name(name).ok_or_else(|| unknown(what, name));
    let mut options = ConvertOptions::new(Target::from_name(to).ok_or_else(|| unknown("format", to))?);
    (options.lossy, options.i2s_arm) = (lossy, i2s_arm);
    (options.embedding, options.head) = (floats("embedding", embedding)?, floats("head", head)?);
    options.engine = match engine {
        Some(name) => Some(Engine::from_name(name).ok_or_else(|| unknown("engine", name))?),
        None => None,
    };
    let done = py.detach(|| tern_convert::convert(&input, &output, &options, &mut |_, _| {}));
    let summary = done.map_err(self::engine)?;
    Ok((summary.family.to_owned(), summary.tensors, summary.bytes, summary.notes))
}
