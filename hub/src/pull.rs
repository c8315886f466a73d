//! Downloading a model: what is missing of it, whether there is space, one file after the other, then the links.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::api::{Entry, Listing};
use crate::cache::{Cache, make_parent};
use crate::choice::{Choice, choose};
use crate::error::{Error, Result};
use crate::fetch::Fetch;
use crate::http::{Hub, encode};
use crate::journal::Journal;
use crate::name::Name;

/// How far a download is.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// Bytes of the model that are on the disk.
    pub done: u64,
    /// All its bytes.
    pub total: u64,
    /// The file that is being downloaded.
    pub entry: &'a Entry,
    /// Bytes of it that are on the disk.
    pub entry_done: u64,
    /// Another process is downloading it; this one waits.
    pub waits: bool,
}

/// What there is to download of a model.
pub struct Plan {
    name: Name,
    commit: String,
    choice: Choice,
    entries: Vec<Entry>,
    /// Its licence, where its card names one.
    pub licence: Option<String>,
    /// All bytes of the model.
    pub total: u64,
    /// Bytes that are not on the disk yet.
    pub missing: u64,
}

impl Plan {
    /// Asks the Hub what a name means and looks what of it is on the disk.
    pub fn new(hub: &Hub, cache: &Cache, name: &Name) -> Result<Self> {
        let Listing { commit, files, licence } = hub.list(name)?;
        let choice = choose(files.iter().map(|file| file.path.as_str()), name.variant.as_deref())
            .map_err(|error| Error::Name(format!("{name}: {error}")))?;
        let wanted = choice.files();
        let mut entries: Vec<Entry> =
            files.iter().filter(|file| wanted.contains(&file.path.as_str())).cloned().collect();
        // Small ones first: what is wrong with a repository shows early.
        entries.sort_by_key(|entry| entry.size);
        let total = entries.iter().map(|entry| entry.size).sum();
        let mut missing = 0;
        for entry in &entries {
            let blob = cache.blob(&name.repo, &entry.hash);
            if !blob.exists() {
                let part = part(&blob);
                let journal = Fetch::journal(&part);
                let there = match journal.exists() && part.exists() {
                    true => Journal::open(&journal, entry.size, hub.limits.chunk)
                        .map_err(Error::io(&journal))?
                        .total(),
                    false => 0,
                };
                missing += entry.size - there;
            }
        }
        Ok(Self { name: name.clone(), commit, choice, entries, licence, total, missing })
    }

    /// Downloads what is missing and gives the path of the model. `progress` stops it by `false`.
    pub fn run(
        &self,
        hub: &Hub,
        cache: &Cache,
        progress: &mut dyn FnMut(Progress<'_>) -> bool,
    ) -> Result<PathBuf> {
        fs::create_dir_all(cache.root()).map_err(Error::io(cache.root()))?;
        if let Some(free) = free(cache.root())
            && free < self.missing
        {
            return Err(Error::Space { folder: cache.root().to_owned(), need: self.missing, free });
        }
        let repo = &self.name.repo;
        let mut before = 0;
        for entry in &self.entries {
            let blob = cache.blob(repo, &entry.hash);
            let mut tell = |done: u64, waits: bool| {
                let (done, entry_done) = (before + done, done);
                progress(Progress { done, total: self.total, entry, entry_done, waits })
            };
            if !blob.exists() {
                make_parent(&blob)?;
                let _lock = locked(&cache.lock(repo, &entry.hash), &mut || tell(0, true))?;
                // Whoever held the lock may have downloaded it.
                if !blob.exists() {
                    let fetch = Fetch {
                        hub,
                        what: format!("{repo}/{}", entry.path),
                        path: format!("{repo}/resolve/{}/{}", self.commit, encode(&entry.path, false)),
                        entry,
                        part: part(&blob),
                    };
                    fetch.run(&mut |done| tell(done, false))?;
                    fs::rename(&fetch.part, &blob).map_err(Error::io(&blob))?;
                    let _ = fs::remove_file(Fetch::journal(&fetch.part));
                    sync(&blob);
                }
            }
            before += entry.size;
            cache.link(repo, &self.commit, &entry.path, &entry.hash)?;
        }
        // Last: the name means this commit when all of it is there.
        cache.write_ref(&self.name, &self.commit)?;
        let folder = cache.snapshot(repo, &self.commit);
        Ok(match &self.choice {
            Choice::File(path) => folder.join(path),
            Choice::Folder(_) => folder,
        })
    }

    /// The commit that the name means.
    pub fn commit(&self) -> &str {
        &self.commit
    }

    /// Files of the model, with their sizes.
    pub fn files(&self) -> impl Iterator<Item = (&str, u64)> {
        self.entries.iter().map(|entry| (entry.path.as_str(), entry.size))
    }
}

/// Where a blob grows.
fn part(blob: &Path) -> PathBuf {
    blob.with_extension("tern-part")
}

/// Takes a lock that only one process has; asks `goes_on` while it waits.
fn locked(path: &Path, goes_on: &mut dyn FnMut() -> bool) -> Result<File> {
    make_parent(path)?;
    let file = File::create(path).map_err(Error::io(path))?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if !goes_on() => return Err(Error::Interrupted),
            Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(100)),
            Err(TryLockError::Error(error)) => return Err(Error::io(path)(error)),
        }
    }
}

/// Brings a new name in a folder to the disk, where the system can.
fn sync(path: &Path) {
    if cfg!(unix)
        && let Some(folder) = path.parent()
        && let Ok(folder) = File::open(folder)
    {
        let _ = folder.sync_all();
    }
}

/// Bytes that are free for this user where `path` lies.
#[cfg(unix)]
fn free(path: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(path).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

#[cfg(not(unix))]
fn free(_: &Path) -> Option<u64> {
    None
}
