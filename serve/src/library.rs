//! Where a server's models come from that clients ask for by name. The server knows no network: whoever starts it brings
//! this.

use axum::http::StatusCode;

use crate::error::Refusal;
use crate::served::Served;

/// Models that can be downloaded and deleted.
pub trait Library: Send + Sync {
    /// The model that a client's words mean. Asks no network and touches no file: whatever a client sends comes here.
    fn find(&self, asked: &str) -> Result<Named, Wrong>;

    /// Sees that a model is on the disk, and gives it. `progress` is called many times a second, and stops it by `false`.
    fn pull(&self, named: &Named, progress: &mut dyn FnMut(Arriving) -> bool) -> Result<Served, Wrong>;

    /// Removes from the disk what is kept in this place; gives the bytes that are free again.
    fn remove(&self, kept_in: &str) -> Result<u64, Wrong>;
}

/// A model's name, without what a client may leave out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The name by which it is then served.
    pub name: String,
    /// See [`Served::kept_in`].
    pub kept_in: String,
}

/// How far a download is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arriving {
    /// The hash of the file that comes, behind its kind: `sha256:...`.
    pub digest: String,
    /// The file's bytes.
    pub total: u64,
    /// Those that are there.
    pub done: u64,
    /// Another process downloads it, and this one waits.
    pub waits: bool,
}

/// Why it could not be done, for a client.
#[derive(Clone, Debug)]
pub struct Wrong {
    /// The status of HTTP that says so.
    pub status: u16,
    /// One line.
    pub message: String,
}

impl From<Wrong> for Refusal {
    fn from(wrong: Wrong) -> Self {
        let status = StatusCode::from_u16(wrong.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, ..Self::bad(wrong.message) }
    }
}
