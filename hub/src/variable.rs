//! Variables of the environment; an empty one counts as unset.

use std::ffi::OsString;
use std::path::PathBuf;

/// A variable that holds a path.
pub(crate) fn path(key: &str) -> Option<PathBuf> {
    std::env::var_os(key).filter(|value: &OsString| !value.is_empty()).map(PathBuf::from)
}

/// A variable that holds a word.
pub(crate) fn word(key: &str) -> Option<String> {
    std::env::var(key).ok().filter(|value| !value.trim().is_empty())
}
