//! The Hub's shared cache on the disk:
//!
//! ```text
//! models--ORG--REPO/
//!   refs/main                        the commit that `main` was when it was last asked for
//!   blobs/HASH                       a file's bytes
//!   snapshots/COMMIT/path/to/file    a link to its blob
//! .locks/models--ORG--REPO/HASH.lock held while HASH is being downloaded
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::api::Hash;
use crate::choice::{Choice, choose};
use crate::error::{Error, Result};
use crate::name::{Name, is_commit};
use crate::variable;

/// The folder that holds all repositories.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
}

/// A repository of which something is on the disk.
#[derive(Clone, Debug)]
pub struct Cached {
    /// `ORG/REPO`.
    pub repo: String,
    /// The commit of the snapshot.
    pub commit: String,
    /// The snapshot's folder.
    pub folder: PathBuf,
    /// Its files, relative to the folder, with their sizes.
    pub files: Vec<(String, u64)>,
}

impl Cache {
    /// The cache in this folder.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The cache where the Hub's own tools look: `HF_HUB_CACHE`, `HF_HOME/hub`, `XDG_CACHE_HOME/huggingface/hub`, or
    /// `.cache/huggingface/hub` in the home folder.
    pub fn from_env() -> Result<Self> {
        let root = variable::path("HF_HUB_CACHE")
            .or_else(|| variable::path("HUGGINGFACE_HUB_CACHE"))
            .or_else(|| Some(home()?.join("hub")))
            .ok_or_else(|| {
                Error::Name("no home folder: set HF_HUB_CACHE to a folder for models".to_owned())
            })?;
        Ok(Self::new(root))
    }

    /// The folder that holds all repositories.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of a repository.
    pub(crate) fn repo(&self, repo: &str) -> PathBuf {
        self.root.join(format!("models--{}", repo.replace('/', "--")))
    }

    pub(crate) fn blob(&self, repo: &str, hash: &Hash) -> PathBuf {
        self.repo(repo).join("blobs").join(hash.to_string())
    }

    pub(crate) fn snapshot(&self, repo: &str, commit: &str) -> PathBuf {
        self.repo(repo).join("snapshots").join(commit)
    }

    pub(crate) fn lock(&self, repo: &str, hash: &Hash) -> PathBuf {
        let folder = self.root.join(".locks").join(format!("models--{}", repo.replace('/', "--")));
        folder.join(format!("{hash}.lock"))
    }

    /// The commit that a revision was when it was last asked for.
    fn commit(&self, name: &Name) -> Option<String> {
        let repo = self.repo(&name.repo);
        let read = fs::read_to_string(repo.join("refs").join(&name.revision));
        let commit = read.map_or_else(|_| name.revision.clone(), |text| text.trim().to_owned());
        is_commit(&commit).then_some(commit)
    }

    /// What is on the disk of this repository at this revision.
    pub fn look(&self, name: &Name) -> Option<Cached> {
        let commit = self.commit(name)?;
        let folder = self.snapshot(&name.repo, &commit);
        let files = files(&folder);
        (!files.is_empty()).then(|| Cached { repo: name.repo.clone(), commit, folder, files })
    }

    /// The path of this model if all of it is on the disk: a file, or the folder of a checkpoint. No network is used.
    pub fn find(&self, name: &Name) -> Option<PathBuf> {
        let cached = self.look(name)?;
        let paths = cached.files.iter().map(|(path, _)| path.as_str());
        match choose(paths, name.variant.as_deref()).ok()? {
            Choice::File(path) => Some(cached.folder.join(path)),
            Choice::Folder(_) if !is_whole(&cached.folder) => None,
            Choice::Folder(_) => Some(cached.folder),
        }
    }

    /// Writes what a revision is now.
    pub(crate) fn write_ref(&self, name: &Name, commit: &str) -> Result<()> {
        if name.revision == commit {
            return Ok(());
        }
        let path = self.repo(&name.repo).join("refs").join(&name.revision);
        make_parent(&path)?;
        // A reader sees the old commit or the new one.
        let draft = draft(&path)?;
        fs::write(&draft, commit).map_err(Error::io(&draft))?;
        fs::rename(&draft, &path).map_err(Error::io(&path))
    }

    /// Links a file of a snapshot to its blob; where the system has no links, copies it.
    pub(crate) fn link(&self, repo: &str, commit: &str, path: &str, hash: &Hash) -> Result<PathBuf> {
        let link = self.snapshot(repo, commit).join(path);
        let blob = self.blob(repo, hash);
        if fs::canonicalize(&link).ok().is_some_and(|there| Some(there) == fs::canonicalize(&blob).ok()) {
            return Ok(link);
        }
        make_parent(&link)?;
        let draft = draft(&link)?;
        let up = "../".repeat(2 + path.matches('/').count());
        symlink(&format!("{up}blobs/{hash}"), &draft)
            .or_else(|_| fs::copy(&blob, &draft).map(drop))
            .map_err(Error::io(&draft))?;
        fs::rename(&draft, &link).map_err(Error::io(&link))?;
        Ok(link)
    }

    /// Every repository of which a snapshot is on the disk, by name.
    pub fn list(&self) -> Vec<Cached> {
        let mut all = Vec::new();
        for entry in entries(&self.root) {
            let folder = entry.file_name().to_string_lossy().into_owned();
            let Some(repo) = folder.strip_prefix("models--").and_then(|name| name.split_once("--")) else {
                continue;
            };
            let repo = format!("{}/{}", repo.0, repo.1);
            for snapshot in entries(&entry.path().join("snapshots")) {
                let commit = snapshot.file_name().to_string_lossy().into_owned();
                let files = files(&snapshot.path());
                if is_commit(&commit) && !files.is_empty() {
                    all.push(Cached { repo: repo.clone(), commit, folder: snapshot.path(), files });
                }
            }
        }
        all.sort_by(|a, b| (&a.repo, &a.commit).cmp(&(&b.repo, &b.commit)));
        all
    }

    /// Whether something of a repository is on the disk, be it a part.
    pub fn holds(&self, repo: &str) -> bool {
        self.repo(repo).exists()
    }

    /// Removes a repository from the disk, with every revision and what was downloaded in part; gives the bytes freed.
    pub fn remove(&self, repo: &str) -> Result<u64> {
        let folder = self.repo(repo);
        let size = entries(&folder.join("blobs"))
            .iter()
            .filter_map(|entry| Some(entry.metadata().ok()?.len()))
            .sum();
        fs::remove_dir_all(&folder).map_err(Error::io(&folder))?;
        let _ = fs::remove_dir_all(self.root.join(".locks").join(folder.file_name().expect("it has a name")));
        Ok(size)
    }
}

/// The Hub's home folder.
pub(crate) fn home() -> Option<PathBuf> {
    variable::path("HF_HOME")
        .or_else(|| Some(variable::path("XDG_CACHE_HOME")?.join("huggingface")))
        .or_else(|| Some(std::env::home_dir()?.join(".cache").join("huggingface")))
}

pub(crate) fn make_parent(path: &Path) -> Result<()> {
    let parent = path.parent().expect("a path inside a folder");
    fs::create_dir_all(parent).map_err(Error::io(parent))
}

fn entries(folder: &Path) -> Vec<fs::DirEntry> {
    fs::read_dir(folder).into_iter().flatten().flatten().collect()
}

/// Files of a snapshot whose blobs are there.
fn files(folder: &Path) -> Vec<(String, u64)> {
    fn walk(folder: &Path, inside: &str, depth: usize, into: &mut Vec<(String, u64)>) {
        for entry in entries(folder) {
            let path = format!("{inside}{}", entry.file_name().to_string_lossy());
            // Of the blob: a link to nothing is a file that is not there.
            match fs::metadata(entry.path()) {
                Ok(data) if data.is_dir() && depth < 4 => {
                    walk(&entry.path(), &format!("{path}/"), depth + 1, into);
                }
                Ok(data) if data.is_file() && !path.starts_with(".tern-") => into.push((path, data.len())),
                _ => {}
            }
        }
    }
    let mut all = Vec::new();
    walk(folder, "", 0, &mut all);
    all.sort();
    all
}

/// Whether a checkpoint has all the shards that its index names.
fn is_whole(folder: &Path) -> bool {
    let Ok(index) = fs::read(folder.join("model.safetensors.index.json")) else { return true };
    let Ok(index) = serde_json::from_slice::<serde_json::Value>(&index) else { return false };
    let shards = index["weight_map"].as_object();
    shards.is_some_and(|map| {
        map.values().all(|shard| shard.as_str().is_some_and(|shard| folder.join(shard).is_file()))
    })
}

/// Where a file is made that is then renamed to `path`: a name that no other thread and no other process has. What a killed
/// process of the same number left there is removed: it may be a link, through which a blob would be overwritten.
fn draft(path: &Path) -> Result<PathBuf> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let (process, nth) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let draft = path.with_file_name(format!(".tern-{process}-{nth}"));
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io(&draft)(error)),
        _ => Ok(draft),
    }
}

#[cfg(unix)]
fn symlink(target: &str, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(not(unix))]
fn symlink(_: &str, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server downloads on several threads of one process.
    #[test]
    fn threads_that_write_the_same_do_not_meet() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::new(root.path());
        let name: Name = "org/model".parse().unwrap();
        let (hash, commit) = (Hash::Git("b10b".to_owned()), "c0ffee");
        let blob = cache.blob(&name.repo, &hash);
        make_parent(&blob).unwrap();
        fs::write(&blob, "the bytes").unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for nth in 0..100 {
                        cache.write_ref(&name, commit).unwrap();
                        // Each path is linked by all of them at about the same time.
                        cache.link(&name.repo, commit, &format!("{nth}/model.gguf"), &hash).unwrap();
                    }
                });
            }
        });
        assert_eq!(fs::read_to_string(&blob).unwrap(), "the bytes");
        let refs = blob.parent().unwrap().with_file_name("refs");
        assert_eq!(fs::read_to_string(refs.join("main")).unwrap(), commit);
        assert_eq!(fs::read_dir(refs).unwrap().count(), 1, "drafts are left");
    }

    #[test]
    fn a_draft_that_a_killed_process_left_is_not_written_through() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::new(root.path());
        let hash = Hash::Git("b10b".to_owned());
        let blob = cache.blob("org/model", &hash);
        make_parent(&blob).unwrap();
        fs::write(&blob, "the bytes").unwrap();
        let folder = cache.snapshot("org/model", "c0ffee");
        fs::create_dir_all(&folder).unwrap();
        // Whatever its name is: the next drafts have the next names.
        for nth in 0..10_000 {
            let left = folder.join(format!(".tern-{}-{nth}", std::process::id()));
            let _ = symlink("../../blobs/b10b", &left);
        }
        cache.link("org/model", "c0ffee", "model.gguf", &hash).unwrap();
        assert_eq!(fs::read_to_string(&blob).unwrap(), "the bytes");
    }
}
