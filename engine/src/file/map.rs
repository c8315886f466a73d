//! Files as bytes: a memory map for models, a bounded read for the small JSON files beside them.

use crate::{Error, Result};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;
use tern_kernels::{Bytes, Memory};

/// The regular file at `path`, opened for reading, and its length in bytes.
///
/// The type is asked before opening: opening a FIFO would wait for a writer for ever.
pub(crate) fn regular(path: &Path) -> Result<(fs::File, u64)> {
    let kind = fs::metadata(path).map_err(|e| Error::io(path, e))?.file_type();
    if kind.is_dir() {
        return Err(Error::file(path, "expected a file, found a directory"));
    }
    if !kind.is_file() {
        return Err(Error::file(path, "expected a regular file, found a device, pipe or socket"));
    }
    let file = fs::File::open(path).map_err(|e| Error::io(path, e))?;
    let length = file.metadata().map_err(|e| Error::io(path, e))?.len();
    Ok((file, length))
}

/// A mapped file.
struct Map {
    bytes: memmap2::Mmap,
    path: PathBuf,
    /// The file that was mapped: another one that takes its name is no matter.
    file: fs::File,
    /// Its length and the time of its last change when it was mapped.
    stamp: (u64, Option<SystemTime>),
    #[cfg(unix)]
    _cut: Option<cut::Watched>,
}

fn stamp(of: &fs::Metadata) -> (u64, Option<SystemTime>) {
    (of.len(), of.modified().ok())
}

impl AsRef<[u8]> for Map {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Memory for Map {
    fn changed(&self) -> Option<String> {
        match self.file.metadata() {
            Ok(now) if stamp(&now) == self.stamp => None,
            Ok(_) => Some(changed(&self.path)),
            Err(error) => Some(format!("{}: {error}", self.path.display())),
        }
    }

    #[cfg(unix)]
    fn release(&self, part: std::ops::Range<usize>) {
        // SAFETY: `DontNeed` is unchecked because it takes back what was written to private pages. Nobody can write to
        // this read-only map, so the next read finds the file's bytes again.
        let _ = unsafe {
            self.bytes.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, part.start, part.len())
        };
    }
}

/// Maps a regular, non-empty file into memory.
pub(super) fn map(path: &Path) -> Result<Bytes> {
    let (file, length) = regular(path)?;
    let stamp = stamp(&file.metadata().map_err(|e| Error::io(path, e))?);
    if length == 0 {
        return Err(Error::file(path, "the file is empty"));
    }
    // SAFETY: `Mmap::map` asks that the file is not changed while it is mapped. No system lets a program enforce that,
    // so it is a condition on the user, stated in docs/formats.md: a model file is replaced by renaming (as `tern
    // convert` does, which leaves this mapping on the old file), never written in place. What holds even if it is
    // broken: the map is read-only, lengths and text are checked each time they are read from it, and all else in it
    // is read as integers and floats, for which every bit pattern is a value. So changed bytes give wrong numbers or
    // a failed check (`changed` tells, so that they are not used), and a file cut short ends the process with a bus
    // error (`cut` gives it words); nothing is written where it should not.
    let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|e| Error::io(path, e))?;
    let length = map.len();
    #[cfg(unix)]
    let _cut = cut::Watched::new(path, &map);
    let map = Map {
        bytes: map,
        path: path.to_owned(),
        file,
        stamp,
        #[cfg(unix)]
        _cut,
    };
    Ok(Bytes::new(Arc::new(map), 0..length).expect("the range is the whole map"))
}

fn changed(path: &Path) -> String {
    format!(
        "{}: the file was changed while it was in use; a model is replaced by renaming a new file over it, or opened \
         with `--no-mmap`",
        path.display()
    )
}

/// Ends the process with a sentence on standard error and exit code 1 where a mapped file was cut short and its lost
/// part is read, which else is a bus error without a word. `say` lays the sentence out. For programs, which own their
/// signals; it counts for files that are opened afterwards.
pub fn end_in_words(say: fn(&str) -> String) {
    #[cfg(unix)]
    cut::end_in_words(say);
    #[cfg(not(unix))]
    let _ = say;
}

/// Reading a part of a map that the file has no more is the signal SIGBUS.
#[cfg(unix)]
mod cut {
    use std::path::Path;
    use std::ptr;
    use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
    use std::sync::{Mutex, OnceLock, PoisonError};

    use libc::{c_int, c_void, siginfo_t};

    /// A map, and what to say when it is cut. They are never freed: the signal may come at any time.
    struct Entry {
        start: usize,
        /// 0 when it is mapped no more.
        end: AtomicUsize,
        words: Vec<u8>,
        next: Option<&'static Entry>,
    }

    static ENTRIES: AtomicPtr<Entry> = AtomicPtr::new(ptr::null_mut());
    /// Lays the sentence out.
    type Say = fn(&str) -> String;

    static SAY: Mutex<Option<Say>> = Mutex::new(None);
    /// What was done at the signal before.
    static OLD: OnceLock<libc::sigaction> = OnceLock::new();

    /// Keeps an entry while its map is there.
    pub(super) struct Watched(&'static Entry);

    impl Watched {
        /// Nothing where the program did not ask for words.
        pub(super) fn new(path: &Path, map: &[u8]) -> Option<Self> {
            // Held to the end: one entry at a time comes into the list.
            let say = SAY.lock().unwrap_or_else(PoisonError::into_inner);
            let words = (*say)?(&super::changed(path)).into_bytes();
            let start = map.as_ptr().addr();
            let end = AtomicUsize::new(start + map.len());
            let entry = Box::leak(Box::new(Entry { start, end, words, next: entries() }));
            ENTRIES.store(entry, Ordering::Release);
            Some(Self(entry))
        }
    }

    /// The entry that came last.
    fn entries() -> Option<&'static Entry> {
        // SAFETY: null, or an entry that was leaked: it is never freed, and never written to but for the atomic `end`.
        unsafe { ENTRIES.load(Ordering::Acquire).as_ref() }
    }

    impl Drop for Watched {
        fn drop(&mut self) {
            self.0.end.store(0, Ordering::Release);
        }
    }

    pub(super) fn end_in_words(say: fn(&str) -> String) {
        *SAY.lock().unwrap_or_else(PoisonError::into_inner) = Some(say);
        // SAFETY: a zeroed `sigaction` is a valid value of plain integers and no handler. `sigaction` gets pointers to
        // two of them that live through the call, and a handler of the form that SA_SIGINFO asks for.
        unsafe {
            let mut new: libc::sigaction = std::mem::zeroed();
            let mut old: libc::sigaction = std::mem::zeroed();
            new.sa_sigaction = on_bus_error as extern "C" fn(c_int, *mut siginfo_t, *mut c_void) as usize;
            // The stack of a thread that overflowed is told by this signal, too, on some systems.
            new.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            if OLD.get().is_none() && libc::sigaction(libc::SIGBUS, &new, &mut old) == 0 {
                let _ = OLD.set(old);
            }
        }
    }

    /// Only what may be done in a signal's handler: atomic reads, `poll`, `write`, `_exit`, `sigaction`.
    extern "C" fn on_bus_error(_: c_int, info: *mut siginfo_t, _: *mut c_void) {
        // SAFETY: the system gives a valid `info` to a handler with SA_SIGINFO, and SIGBUS has an address in it.
        let address = unsafe { (*info).si_addr() }.addr();
        let mut at = entries();
        while let Some(entry) = at {
            if (entry.start..entry.end.load(Ordering::Acquire)).contains(&address) {
                let mut out = libc::pollfd { fd: 2, events: libc::POLLOUT, revents: 0 };
                // SAFETY: one `pollfd` that lives through the call; bytes of a vector that is never freed; `_exit`
                // does not return. A reader of standard error that stands still must not keep the process alive.
                unsafe {
                    if libc::poll(&mut out, 1, 1000) == 1 {
                        libc::write(2, entry.words.as_ptr().cast(), entry.words.len());
                    }
                    libc::_exit(1);
                }
            }
            at = entry.next;
        }
        if let Some(old) = OLD.get() {
            // SAFETY: `old` is what `sigaction` gave. The access is repeated after this and ends as it would have.
            unsafe { libc::sigaction(libc::SIGBUS, old, ptr::null_mut()) };
        }
    }
}

/// Reads a regular file of at most `limit` bytes.
pub(super) fn read(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let (file, length) = regular(path)?;
    if length > limit {
        let what = format!("expected a file of at most {} MiB, found {length} bytes", limit >> 20);
        return Err(Error::file(path, what));
    }
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes).map_err(|e| Error::io(path, e))?;
    Ok(bytes)
}
