//! Why a model could not be found or downloaded.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::size::size;

/// Why something failed. Displays as one line without a full stop; [`Error::hint`] says what to do.
#[derive(Debug)]
pub enum Error {
    /// A name that cannot be one of a model.
    Name(String),
    /// The repository, revision or file is not there, or may not be seen without a token.
    Missing {
        /// What was asked for.
        what: String,
        /// Whether a token was sent.
        token: bool,
    },
    /// The server wants a token, or another one (401).
    Unauthorized {
        /// What was asked for.
        what: String,
        /// Whether a token was sent.
        token: bool,
    },
    /// The repository is gated: its terms must be accepted first (403).
    Gated {
        /// The page where they are.
        page: String,
    },
    /// The network or the server failed, after some tries.
    Network(String),
    /// The server's answer is not what its protocol says.
    Protocol(String),
    /// The bytes that came are not those that the repository names.
    Corrupt(String),
    /// There is not enough space on the disk.
    Space {
        /// The folder of the cache.
        folder: PathBuf,
        /// Bytes that are needed.
        need: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// The system refused a read or a write of this path.
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// It is not on the disk, and the network may not be used.
    Offline(String),
    /// The caller's progress function asked to stop.
    Interrupted,
}

/// A result whose error is this crate's.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { path: path.to_owned(), source }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Missing { token: false, .. } => {
                "check the name; a private repository needs a token: set HF_TOKEN, or `hf auth login`".to_owned()
            }
            Self::Missing { token: true, .. } => {
                "check the name, and that the token may read this repository".to_owned()
            }
            Self::Unauthorized { token: false, .. } => {
                "set HF_TOKEN to a token from https://huggingface.co/settings/tokens, or `hf auth login`".to_owned()
            }
            Self::Unauthorized { token: true, .. } => {
                "the token was refused: it may have expired; HF_TOKEN, or the file that `hf auth login` wrote, holds it".to_owned()
            }
            Self::Gated { page } => {
                format!("accept the terms at {page}, then set HF_TOKEN to a token of that account")
            }
            Self::Network(_) => "run the same command again: it goes on where this one stopped".to_owned(),
            Self::Corrupt(_) => "nothing was kept; run the same command again".to_owned(),
            Self::Space { .. } => "free some space, or set HF_HUB_CACHE to a folder on another disk".to_owned(),
            Self::Io { source, .. } if is_full(source) => {
                "free some space and run the same command again: it goes on where this one stopped; or set HF_HUB_CACHE to a folder on another disk".to_owned()
            }
            Self::Offline(_) => "HF_HUB_OFFLINE or --offline forbids the network".to_owned(),
            Self::Name(_) | Self::Protocol(_) | Self::Io { .. } | Self::Interrupted => return None,
        })
    }
}

/// Whether the disk, or what this user may have of it, is full.
fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(what)
            | Self::Network(what)
            | Self::Protocol(what)
            | Self::Corrupt(what)
            | Self::Offline(what) => f.write_str(what),
            Self::Missing { what, .. } => write!(f, "{what}: not found on the Hub"),
            Self::Unauthorized { what, .. } => write!(f, "{what}: the Hub asks for a token"),
            Self::Gated { page } => write!(f, "{page}: this repository is gated"),
            Self::Space { folder, need, free } => {
                write!(f, "{}: {} are needed and {} are free", folder.display(), size(*need), size(*free))
            }
            Self::Io { path, source } => write!(f, "{}: {source}", path.display()),
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

impl std::error::Error for Error {}
