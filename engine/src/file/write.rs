//! Files appear whole or not at all: a [`Draft`] is written under a temporary name beside its final one, synced,
//! and renamed.
//!
//! A draft is `.NAME.tern-PID-N.part`, a file or a directory. While its writer lives it holds a lock (on the file
//! itself, or on `.lock` inside the directory), so the next writer of NAME can tell a draft in use from what a
//! killed process left behind, and removes the latter.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};
use crate::tensor::Encoding;
use faults::fault;

/// One tensor of a file to be written.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The name in the file.
    pub name: String,
    /// The sizes, outermost first.
    pub dims: Vec<usize>,
    /// How the numbers are written.
    pub encoding: Encoding,
    /// The bytes it takes, without padding.
    pub bytes: u64,
}

/// Bytes gathered before a write reaches the system.
const BUFFER: usize = 1 << 20;

/// The same where faults are injected: few, so that small models have many writes to fail.
const SMALL_BUFFER: usize = 4 << 10;

/// What keeps others from removing a draft directory, by its lock.
const LOCK: &str = ".lock";

/// The drafts of this process, and whether they are directories.
static DRAFTS: Mutex<Vec<(PathBuf, bool)>> = Mutex::new(Vec::new());

/// Removes what is half written, for a program that is about to end in the middle of it. What a killed one leaves is
/// removed when the same name is written again.
pub fn discard_drafts() {
    for (path, is_dir) in drafts().drain(..) {
        remove(&path, is_dir);
    }
}

fn drafts() -> MutexGuard<'static, Vec<(PathBuf, bool)>> {
    DRAFTS.lock().unwrap_or_else(PoisonError::into_inner) // a list of paths cannot be left half changed
}

/// A file or directory in the making; dropped without [`Draft::publish`] it leaves nothing behind.
#[derive(Debug)]
pub struct Draft {
    path: PathBuf,
    temporary: PathBuf,
    /// Locked for as long as this draft is one.
    lock: Option<File>,
    is_dir: bool,
    published: bool,
}

impl Draft {
    /// Starts the file that will replace whatever file `path` is.
    pub fn file(path: &Path) -> Result<(Self, Out)> {
        if path.is_dir() {
            return Err(Error::file(path, "is a directory, expected the name of a file to write"));
        }
        // Renaming would put a file in the place of /dev/null.
        if fs::metadata(path).is_ok_and(|about| !about.is_file()) {
            return Err(Error::file(
                path,
                "is a device, pipe or socket, expected the name of a file to write",
            ));
        }
        let draft = Self::begin(path, false, |temporary| {
            OpenOptions::new().read(true).write(true).create_new(true).open(temporary)
        })?;
        let file = draft.lock.as_ref().expect("a new draft holds its lock").try_clone();
        let out = Out::new(file.map_err(|e| Error::io(path, e))?);
        Ok((draft, out))
    }

    /// Starts the directory that will become `path`, which must be new or empty.
    pub fn directory(path: &Path) -> Result<Self> {
        match fs::read_dir(path).map(|mut entries| entries.next().is_some()) {
            Ok(true) => {
                return Err(Error::file(path, "exists and is not empty; remove it or choose another name"));
            }
            Err(e) if e.kind() == io::ErrorKind::NotADirectory => {
                return Err(Error::file(path, "is a file, expected the name of a directory to write"));
            }
            _ => {}
        }
        Self::begin(path, true, |temporary| {
            fs::create_dir(temporary)?;
            OpenOptions::new().write(true).create_new(true).open(temporary.join(LOCK))
        })
    }

    /// A file inside a draft directory.
    pub fn create(&self, name: &str) -> Result<Out> {
        assert!(self.is_dir, "only a draft directory holds files");
        let file =
            File::create_new(self.temporary.join(name)).map_err(|e| Error::io(&self.path.join(name), e))?;
        Ok(Out::new(file))
    }

    /// Where the draft will be when it is published.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn begin(path: &Path, is_dir: bool, create: impl Fn(&Path) -> io::Result<File>) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let io = |e| Error::io(path, e);
        let (folder, name) = split(path)?;
        remove_stale(&folder, &name);
        loop {
            let mut temporary = prefix(&name);
            temporary.push(format!(
                "{}-{}{SUFFIX}",
                std::process::id(),
                COUNT.fetch_add(1, Ordering::Relaxed)
            ));
            let temporary = folder.join(temporary);
            fault().map_err(io)?;
            let lock = match create(&temporary) {
                Ok(lock) => lock,
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => continue,
                // Somebody cleaned the new directory away before the lock was in it.
                Err(e) if is_dir && e.kind() == io::ErrorKind::NotFound && folder.is_dir() => continue,
                Err(e) => {
                    remove(&temporary, is_dir);
                    return Err(io(e));
                }
            };
            // A file system that knows no locks only loses the cleaning: an unlockable draft is never removed.
            let _ = lock.lock();
            // Between its creation and its lock somebody may have taken it for a leftover.
            if temporary.exists() {
                drafts().push((temporary.clone(), is_dir));
                return Ok(Self {
                    path: path.to_owned(),
                    temporary,
                    lock: Some(lock),
                    is_dir,
                    published: false,
                });
            }
        }
    }

    /// Gives the finished draft its name. Everything written to it must have been [finished](Out::finish).
    pub fn publish(mut self) -> Result<()> {
        self.rename().map_err(|e| Error::io(&self.path, e))?;
        self.published = true;
        Ok(())
    }

    fn rename(&mut self) -> io::Result<()> {
        fault()?;
        if self.is_dir {
            self.lock = None; // not every system removes or renames around an open file
            fs::remove_file(self.temporary.join(LOCK))?;
            sync_directory(&self.temporary)?;
            // Succeeds only on an empty directory, which not every system renames over.
            let _ = fs::remove_dir(&self.path);
        }
        fs::rename(&self.temporary, &self.path)?;
        // The new name is in place; that it may not survive a power cut is no reason to call this a failure.
        let (folder, _) = split(&self.path).expect("it had a name when the draft began");
        let _ = sync_directory(&folder);
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        drafts().retain(|(path, _)| *path != self.temporary);
        if !self.published {
            remove(&self.temporary, self.is_dir);
        }
    }
}

/// A file that is begun now, so that it is known whether it can be, and written later, whole or not at all.
#[derive(Debug)]
pub struct Whole {
    draft: Draft,
    out: Out,
}

impl Whole {
    /// Begins the file that will replace whatever file `path` is.
    pub fn begin(path: &Path) -> Result<Self> {
        let (draft, out) = Draft::file(path)?;
        Ok(Self { draft, out })
    }

    /// Writes it, and gives it its name.
    pub fn publish(self, bytes: &[u8]) -> Result<()> {
        let Self { draft, mut out } = self;
        let written = out.write_all(bytes).and_then(|()| out.finish());
        written.map_err(|e| Error::io(draft.path(), e))?;
        draft.publish()
    }
}

/// A buffered file that must be finished to count; errors carry no path, the caller has it.
#[derive(Debug)]
pub struct Out {
    file: BufWriter<Raw>,
    written: u64,
}

impl Out {
    fn new(file: File) -> Self {
        let buffer = if faults::counted() { SMALL_BUFFER } else { BUFFER };
        Self { file: BufWriter::with_capacity(buffer, Raw(file)), written: 0 }
    }

    /// Bytes written so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Writes zeros until the length is a multiple of `alignment`.
    pub fn pad_to(&mut self, alignment: u64) -> io::Result<()> {
        const ZEROS: [u8; 256] = [0; 256];
        let mut left = self.written.next_multiple_of(alignment) - self.written;
        while left > 0 {
            let n = left.min(ZEROS.len() as u64);
            self.write_all(&ZEROS[..n as usize])?;
            left -= n;
        }
        Ok(())
    }

    /// Brings everything to the disk.
    pub fn finish(mut self) -> io::Result<()> {
        self.file.flush()?;
        fault()?;
        self.file.get_ref().0.sync_all()
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.written += n as u64;
        Ok(n)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The file under the buffer: where faults strike in tests.
#[derive(Debug)]
struct Raw(File);

impl Write for Raw {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        fault()?;
        self.0.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const SUFFIX: &str = ".part";

/// What the drafts of `name` begin with.
fn prefix(name: &OsString) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(name);
    prefix.push(".tern-");
    prefix
}

/// The folder a path is in and its last name.
fn split(path: &Path) -> Result<(PathBuf, OsString)> {
    let name = path.file_name().ok_or_else(|| Error::file(path, "is not the name of a file to write"))?;
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    Ok((folder, name.to_owned()))
}

/// Removes drafts of `name` whose writers are gone. What cannot be told or removed stays.
fn remove_stale(folder: &Path, name: &OsString) {
    let prefix = prefix(name);
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let (path, found) = (entry.path(), entry.file_name());
        let ours = found.as_encoded_bytes().strip_prefix(prefix.as_encoded_bytes());
        if !ours.is_some_and(|rest| rest.ends_with(SUFFIX.as_bytes())) {
            continue;
        }
        let is_dir = entry.file_type().is_ok_and(|t| t.is_dir());
        let lock = if is_dir { path.join(LOCK) } else { path.clone() };
        match OpenOptions::new().write(true).open(lock) {
            // Held until after the removal, so that its writer, should it just be starting, sees it gone.
            Ok(lock) => match lock.try_lock() {
                Ok(()) => remove(&path, is_dir),
                Err(TryLockError::WouldBlock | TryLockError::Error(_)) => {}
            },
            // Killed between making the directory and its lock, or between removing the lock and renaming.
            Err(e) if is_dir && e.kind() == io::ErrorKind::NotFound => remove(&path, is_dir),
            Err(_) => {}
        }
    }
}

fn remove(path: &Path, is_dir: bool) {
    let _ = if is_dir { fs::remove_dir_all(path) } else { fs::remove_file(path) };
}

#[cfg(unix)]
fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(not(unix))]
fn sync_directory(_: &Path) -> io::Result<()> {
    Ok(()) // directories cannot be opened as files there
}

/// A disk that fails when a test says so: of the crates that write files through this module, too, which is why it is not
/// compiled for this crate's tests alone. Where no test speaks, a write costs a look at one variable of its thread.
#[doc(hidden)]
pub mod faults {
    use std::cell::Cell;
    use std::io;

    thread_local! {
        static LEFT: Cell<Option<usize>> = const { Cell::new(None) };
    }

    /// The next `n` operations of this thread succeed, all later ones fail; `None` ends that.
    pub fn fail_after(n: Option<usize>) {
        LEFT.set(n);
    }

    /// Whether operations are counted.
    pub(super) fn counted() -> bool {
        LEFT.get().is_some()
    }

    /// One more operation on the disk.
    pub(super) fn fault() -> io::Result<()> {
        match LEFT.get() {
            None => Ok(()),
            Some(0) => Err(io::Error::other("injected fault")),
            Some(n) => {
                LEFT.set(Some(n - 1));
                Ok(())
            }
        }
    }
}
