//! Models by name: which repository a name means, what of it is on the disk, and downloading the rest.
//!
//! ```text
//! bitnet-2b                            a short name, from `zoo.json`
//! microsoft/bitnet-b1.58-2B-4T-gguf    a repository on the Hugging Face Hub
//! ORG/REPO:file.gguf                   one file of it; `:Q2_0` is the one file whose name holds that
//! ORG/REPO@v1                          at a branch, tag or commit
//! ```
//!
//! Files lie in the Hub's shared cache (`blobs`, `snapshots`, `refs`), so that no tool downloads what another has:
//! <https://huggingface.co/docs/hub/local-cache>. A blob appears under its final name when it is whole and its hash is
//! that of the repository; until then it is a `.tern-part` with a journal of what has come.

mod api;
mod cache;
mod choice;
mod elsewhere;
mod error;
mod fetch;
mod http;
mod journal;
mod name;
mod pull;
mod release;
mod size;
mod variable;
mod zoo;

pub use api::{Entry, Hash, Listing};
pub use cache::{Cache, Cached};
pub use choice::{Choice, choose};
pub use elsewhere::{Found, elsewhere};
pub use error::{Error, Result};
pub use http::{Hub, Limits};
pub use name::Name;
pub use pull::{Plan, Progress};
pub use release::{RELEASES, Version, latest_release};
pub use size::size;
pub use zoo::{Known, known, zoo};
