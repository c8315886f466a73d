//! What the Hub tells of a repository: its commit and its files with sizes and hashes.

use std::fmt;
use std::io::Read;
use std::thread;

use serde_json::Value;
use sha2::Digest;

use crate::error::{Error, Result};
use crate::http::{Hub, Try, encode};
use crate::name::{Name, is_commit, is_path};

/// The largest listing that is read: a repository of some ten thousand files.
const LISTING_BYTES: u64 = 16 << 20;

/// A file's hash, which names its blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hash {
    /// Of a large file: SHA-256 of its bytes.
    Sha256(String),
    /// Of a small one: git's, SHA-1 of a header and its bytes.
    Git(String),
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Sha256(text) | Self::Git(text)) = self;
        f.write_str(text)
    }
}

/// Computes a hash while bytes come.
pub(crate) enum Hasher {
    Sha256(sha2::Sha256),
    Git(sha1::Sha1),
}

impl Hash {
    pub(crate) fn hasher(&self, size: u64) -> Hasher {
        match self {
            Self::Sha256(_) => Hasher::Sha256(sha2::Sha256::new()),
            Self::Git(_) => Hasher::Git(sha1::Sha1::new_with_prefix(format!("blob {size}\0"))),
        }
    }
}

impl Hasher {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Git(hasher) => hasher.update(bytes),
        }
    }

    pub(crate) fn finish(self) -> String {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        match self {
            Self::Sha256(hasher) => hex(&hasher.finalize()),
            Self::Git(hasher) => hex(&hasher.finalize()),
        }
    }
}

/// A file of a repository.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its path inside the repository.
    pub path: String,
    /// Its bytes.
    pub size: u64,
    /// Its hash.
    pub hash: Hash,
}

/// What a repository holds at one commit.
#[derive(Clone, Debug)]
pub struct Listing {
    /// The commit.
    pub commit: String,
    /// Its files.
    pub files: Vec<Entry>,
    /// Its licence, where its card names one.
    pub licence: Option<String>,
}

impl Hub {
    /// Asks for a repository's files; tries again where the network fails.
    pub fn list(&self, name: &Name) -> Result<Listing> {
        // The slash of a branch such as `refs/pr/1` is no separator here.
        let path = format!("api/models/{}/revision/{}?blobs=true", name.repo, encode(&name.revision, true));
        let what = name.to_string();
        let mut pause = self.limits.pause;
        for tried in 1.. {
            let error = match self.get(&what, &path, None) {
                Ok(response) => {
                    let mut body = Vec::new();
                    let read =
                        response.into_body().into_reader().take(LISTING_BYTES + 1).read_to_end(&mut body);
                    match read {
                        Ok(_) if body.len() as u64 > LISTING_BYTES => {
                            return Err(Error::Protocol(format!("{what}: its list of files is over 16 MiB")));
                        }
                        Ok(_) => return read_listing(&what, &body),
                        Err(error) => Error::Network(format!("{what}: {}: {error}", self.host())),
                    }
                }
                Err(Try::Give(error)) => return Err(error),
                Err(Try::Again(error)) => error,
            };
            if tried >= self.limits.tries {
                return Err(error);
            }
            thread::sleep(pause);
            pause *= 2;
        }
        unreachable!("the loop returns")
    }
}

fn read_listing(what: &str, body: &[u8]) -> Result<Listing> {
    let bad = |why: &str| Error::Protocol(format!("{what}: the Hub's list of files: {why}"));
    let listing: Value = serde_json::from_slice(body).map_err(|_| bad("expected JSON"))?;
    let commit = listing["sha"].as_str().filter(|sha| is_commit(sha));
    let commit = commit.ok_or_else(|| bad("expected a commit in `sha`"))?.to_owned();
    let licence = listing["cardData"]["license"].as_str().map(str::to_owned);
    let mut files = Vec::new();
    for entry in listing["siblings"].as_array().ok_or_else(|| bad("expected `siblings`"))? {
        let path = entry["rfilename"].as_str().ok_or_else(|| bad("expected `rfilename`"))?;
        if !is_path(path) {
            return Err(bad(&format!("the file name `{}` would leave its folder", path.escape_debug())));
        }
        let hex = |value: &Value, digits: usize| {
            let text = value.as_str().filter(|text| text.len() == digits)?;
            text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')).then(|| text.to_owned())
        };
        let hash = match hex(&entry["lfs"]["sha256"], 64) {
            Some(sha256) => Hash::Sha256(sha256),
            None => match hex(&entry["blobId"], 40) {
                Some(id) if entry["lfs"].is_null() => Hash::Git(id),
                _ => return Err(bad(&format!("expected a hash for {path}"))),
            },
        };
        let size = match &entry["lfs"] {
            Value::Null => entry["size"].as_u64(),
            lfs => lfs["size"].as_u64(),
        };
        let size = size.ok_or_else(|| bad(&format!("expected a size for {path}")))?;
        files.push(Entry { path: path.to_owned(), size, hash });
    }
    Ok(Listing { commit, files, licence })
}
