//! `tern._tern`: what the Python package `tern` calls. A model is served in this process without a socket
//! (`tern_serve::Local`); requests and answers are JSON, as they are on the wire, and what no request does (tokens,
//! logits, likelihoods, vectors) is called by itself.

mod convert;
mod engine;
mod errors;
mod find;
mod numbers;
mod open;
mod pieces;
mod tasks;
mod texts;
mod train;
mod wait;

use pyo3::prelude::*;

#[pymodule]
mod _tern {
    #[pymodule_export]
    use super::convert::convert;
    #[pymodule_export]
    use super::engine::Engine;
    #[pymodule_export]
    use super::find::{download, find};
    #[pymodule_export]
    use super::pieces::{Pieces, Task};
    #[pymodule_export]
    use super::texts::Words;
    #[pymodule_export]
    use super::train::{train, train_worker};
    #[pymodule_export]
    use super::try_grammars;
    #[pymodule_export]
    use super::wait::leave;
}

/// Tries the grammars that come on standard input until it ends: the life of the process that `Engine` starts for it.
#[pyfunction]
fn try_grammars() -> PyResult<()> {
    tern_serve::try_grammars().map_err(errors::failed)
}
