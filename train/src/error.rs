//! Everything that can go wrong in training, one sentence per variant.

use std::fmt;
use std::path::{Path, PathBuf};

/// Why training stopped. Displays as one line without a full stop.
#[derive(Debug)]
#[expect(missing_docs, reason = "the variants' sentences name their fields")]
pub enum Error {
    /// The engine's own, for models and for every other file.
    Engine(tern::Error),
    /// A key of the configuration.
    Key { key: String, what: String },
    /// A line of data.
    Line { path: PathBuf, line: u64, what: String },
    /// The input of this layer was NaN or infinite.
    NotFinite(usize),
    /// The numbers left the range in which training makes sense.
    Diverged(String),
    /// The caller asked for what cannot be.
    Input(String),
}

/// A result whose error is the trainer's.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The system refused a read or a write of this path.
    pub fn io(path: &Path, source: std::io::Error) -> Self {
        tern::Error::io(path, source).into()
    }
    /// A file of the configuration, of data or of a checkpoint is wrong.
    pub fn file(path: &Path, what: impl Into<String>) -> Self {
        tern::Error::file(path, what).into()
    }
    /// An [`Error::Key`].
    pub fn key(key: &str, what: impl Into<String>) -> Self {
        Self::Key { key: key.to_owned(), what: what.into() }
    }
    /// An [`Error::Line`].
    pub fn line(path: &Path, line: u64, what: impl Into<String>) -> Self {
        Self::Line { path: path.to_owned(), line, what: what.into() }
    }
}

impl From<tern::Error> for Error {
    fn from(error: tern::Error) -> Self {
        Self::Engine(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Engine(error) => error.fmt(f),
            Self::Key { key, what } => write!(f, "key `{key}`: {what}"),
            Self::Line { path, line, what } => write!(f, "{}, line {line}: {what}", path.display()),
            Self::NotFinite(layer) => write!(f, "layer {layer}: a value is not a number"),
            Self::Diverged(what) | Self::Input(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for Error {}
