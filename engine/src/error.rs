//! Everything that can go wrong, one sentence per variant; the caller adds context, never the library.

use std::fmt;
use std::path::{Path, PathBuf};

/// Why an operation of the engine failed. Displays as one line without a full stop.
#[derive(Debug)]
#[expect(missing_docs, reason = "the variants' sentences name their fields")]
pub enum Error {
    /// The system refused a read or a write of this path.
    Io { path: PathBuf, source: std::io::Error },
    /// A file is not what its format says: the sentence names what was expected and what was found.
    File { path: PathBuf, what: String },
    /// One tensor of a file is wrong or cannot be used.
    Tensor { path: PathBuf, tensor: String, what: String },
    /// One key of a configuration or of a file's metadata is missing, wrong or unknown.
    Key { path: PathBuf, key: String, what: String },
    /// A tokenizer or vocabulary cannot be used.
    Tokenizer(String),
    /// A chat template does not compile or does not render.
    Template(String),
    /// What the caller asked for is impossible: a prompt too long, a token id too large, ...
    Input(String),
    /// The arithmetic of a model left the numbers: NaN or infinity.
    Numeric(String),
    /// A file that holds a model's weights was changed while they were in use.
    Changed(String),
}

/// A result whose error is the engine's.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An [`Error::Io`] for this path.
    pub fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }
    /// An [`Error::File`] for this path.
    pub fn file(path: &Path, what: impl Into<String>) -> Self {
        Self::File { path: path.to_owned(), what: what.into() }
    }
    /// An [`Error::Tensor`] for this path.
    pub fn tensor(path: &Path, tensor: &str, what: impl Into<String>) -> Self {
        Self::Tensor { path: path.to_owned(), tensor: tensor.to_owned(), what: what.into() }
    }
    /// An [`Error::Key`] for this path.
    pub fn key(path: &Path, key: &str, what: impl Into<String>) -> Self {
        Self::Key { path: path.to_owned(), key: key.to_owned(), what: what.into() }
    }
}

/// A string of a hostile file, short and on one line.
pub fn quoted(text: &str) -> String {
    let escaped = |c: char| match c {
        // Messages put strings between backticks: their quotation marks are no danger.
        '"' | '\'' => c.to_string(),
        c => c.escape_debug().to_string(),
    };
    let mut short: String = text.chars().take(80).map(escaped).collect();
    if text.chars().nth(80).is_some() {
        short.push('…');
    }
    short
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { path, source } => write!(f, "{}: {source}", path.display()),
            Self::File { path, what } => write!(f, "{}: {what}", path.display()),
            Self::Tensor { path, tensor, what } => {
                write!(f, "{}: tensor `{}`: {what}", path.display(), quoted(tensor))
            }
            Self::Key { path, key, what } => write!(f, "{}: key `{}`: {what}", path.display(), quoted(key)),
            Self::Tokenizer(what) => write!(f, "tokenizer: {what}"),
            Self::Template(what) => write!(f, "chat template: {what}"),
            Self::Input(what) | Self::Numeric(what) | Self::Changed(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
