//! Errors as Python's exceptions, with the words that the command line says.

use std::io::ErrorKind;

use pyo3::PyErr;
use pyo3::exceptions::{PyFileNotFoundError, PyRuntimeError, PyValueError};

/// What the caller gave was wrong.
pub(crate) fn wrong(what: impl ToString) -> PyErr {
    PyValueError::new_err(what.to_string())
}

/// Something else went wrong.
pub(crate) fn failed(what: impl ToString) -> PyErr {
    PyRuntimeError::new_err(what.to_string())
}

/// An error of the engine.
pub(crate) fn engine(error: tern::Error) -> PyErr {
    let what = error.to_string();
    match &error {
        tern::Error::Io { source, .. } if source.kind() == ErrorKind::NotFound => {
            PyFileNotFoundError::new_err(what)
        }
        tern::Error::Io { .. } | tern::Error::Changed(_) | tern::Error::Numeric(_) => failed(what),
        _ => wrong(what),
    }
}
