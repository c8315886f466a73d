//! Files as bytes: a memory map for models, a bounded read for the small JSON files beside them.

use crate::{Error, Result};
use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
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
struct Map(memmap2::Mmap);

impl AsRef<[u8]> for Map {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Memory for Map {
    #[cfg(unix)]
    fn release(&self, part: std::ops::Range<usize>) {
        // SAFETY: `DontNeed` is unchecked because it takes back what was written to private pages. Nobody can write to
        // this read-only map, so the next read finds the file's bytes again.
        let _ = unsafe {
            self.0.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, part.start, part.len())
        };
    }
}

/// Maps a regular, non-empty file into memory.
pub(super) fn map(path: &Path) -> Result<Bytes> {
    let (file, length) = regular(path)?;
    if length == 0 {
        return Err(Error::file(path, "the file is empty"));
    }
    // SAFETY: `Mmap::map` asks that the file is not changed while it is mapped. No system lets a program enforce that,
    // so it is a condition on the user, stated in docs/formats.md: a model file is replaced by renaming (as `tern
    // convert` does, which leaves this mapping on the old file), never written in place. What holds even if it is
    // broken: the map is read-only, lengths and text are checked each time they are read from it, and all else in it
    // is read as integers and floats, for which every bit pattern is a value. So changed bytes give wrong numbers or
    // a failed check, and a file cut short ends the process with a bus error; nothing is written where it should not.
    let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|e| Error::io(path, e))?;
    let length = map.len();
    Ok(Bytes::new(Arc::new(Map(map)), 0..length).expect("the range is the whole map"))
}

/// Reads a regular file of at most `limit` bytes.
pub(super) fn read(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let (file, length) = regular(path)?;
    if length > limit {
        return Err(Error::file(path, format!("expected at most {limit} bytes, found {length}")));
    }
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes).map_err(|e| Error::io(path, e))?;
    Ok(bytes)
}
