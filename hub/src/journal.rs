//! Which bytes of a file have come, kept beside the part that is on the disk, so that a killed download goes on.
//!
//! ```text
//! "tern-part 1\n" size u64, chunk u64 | for each chunk of so many bytes: how many of its first have come, u64
//! ```
//!
//! Numbers are little endian. A count is written after its bytes are, so it never says more than what is there while the
//! system runs; after a power cut the hash of the whole file finds what is missing.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

const MAGIC: &[u8] = b"tern-part 1\n";

pub(crate) struct Journal {
    file: File,
    size: u64,
    /// Bytes of a chunk, but of the last.
    chunk: u64,
    /// Of each chunk, how many of its bytes have come.
    done: Vec<u64>,
}

impl Journal {
    /// Opens the journal of a file of this size in such chunks; an empty one where there is none that fits.
    pub(crate) fn open(path: &Path, size: u64, chunk: u64) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let chunks = size.div_ceil(chunk) as usize;
        let mut bytes = Vec::new();
        (&mut file).take(64 + 8 * chunks as u64).read_to_end(&mut bytes)?;
        let numbers = bytes.strip_prefix(MAGIC).unwrap_or_default();
        let numbers: Vec<u64> = numbers
            .chunks_exact(8)
            .map(|eight| u64::from_le_bytes(eight.try_into().expect("eight")))
            .collect();
        let mut journal = Self { file, size, chunk, done: vec![0; chunks] };
        match &numbers[..] {
            [first, second, done @ ..] if (*first, *second) == (size, chunk) && done.len() == chunks => {
                for (at, done) in done.iter().enumerate() {
                    journal.done[at] = *done.min(&journal.len(at));
                }
            }
            _ => journal.clear()?,
        }
        Ok(journal)
    }

    /// Begins anew.
    pub(crate) fn clear(&mut self) -> io::Result<()> {
        self.done.fill(0);
        let mut bytes = MAGIC.to_vec();
        bytes.extend(self.size.to_le_bytes());
        bytes.extend(self.chunk.to_le_bytes());
        bytes.extend(self.done.iter().flat_map(|done| done.to_le_bytes()));
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.file.write_all(&bytes)
    }

    pub(crate) fn chunks(&self) -> usize {
        self.done.len()
    }

    /// The bytes of a chunk.
    pub(crate) fn len(&self, chunk: usize) -> u64 {
        (self.size - chunk as u64 * self.chunk).min(self.chunk)
    }

    /// How many of a chunk's bytes have come.
    pub(crate) fn done(&self, chunk: usize) -> u64 {
        self.done[chunk]
    }

    /// How many bytes have come in all.
    pub(crate) fn total(&self) -> u64 {
        self.done.iter().sum()
    }

    /// How many bytes have come from the file's beginning on, without a gap.
    pub(crate) fn frontier(&self) -> u64 {
        let mut frontier = 0;
        for (chunk, done) in self.done.iter().enumerate() {
            frontier += done;
            if *done < self.len(chunk) {
                break;
            }
        }
        frontier
    }

    /// Forgets what came behind the first gap: for a server that sends a file in order only.
    pub(crate) fn cut(&mut self) -> io::Result<()> {
        let first = (0..self.chunks()).find(|chunk| self.done(*chunk) < self.len(*chunk));
        for chunk in first.map_or(self.chunks(), |first| first + 1)..self.chunks() {
            self.set(chunk, 0)?;
        }
        Ok(())
    }

    /// So many more bytes of a chunk are in the file.
    pub(crate) fn add(&mut self, chunk: usize, bytes: u64) -> io::Result<()> {
        self.set(chunk, self.done[chunk] + bytes)
    }

    fn set(&mut self, chunk: usize, done: u64) -> io::Result<()> {
        self.done[chunk] = done;
        let at = MAGIC.len() as u64 + 16 + 8 * chunk as u64;
        self.file.seek(SeekFrom::Start(at))?;
        self.file.write_all(&done.to_le_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_tells_what_came_and_forgets_what_does_not_fit() {
        let folder = tempfile::tempdir().unwrap();
        const CHUNK: u64 = 1000;
        let path = folder.path().join("j");
        let size = 2 * CHUNK + 5;
        let mut journal = Journal::open(&path, size, CHUNK).unwrap();
        journal.add(0, CHUNK).unwrap();
        journal.add(2, 3).unwrap();
        journal.add(1, 7).unwrap();
        let mut again = Journal::open(&path, size, CHUNK).unwrap();
        assert_eq!((again.total(), again.frontier(), again.done(2)), (CHUNK + 10, CHUNK + 7, 3));
        again.cut().unwrap();
        assert_eq!(
            Journal::open(&path, size, CHUNK).unwrap().total(),
            CHUNK + 7,
            "without what is behind the gap"
        );
        assert_eq!(Journal::open(&path, size + 1, CHUNK).unwrap().total(), 0, "another size");
        std::fs::write(&path, b"tern-part 1\n123").unwrap();
        assert_eq!(Journal::open(&path, size, CHUNK).unwrap().total(), 0, "cut short");
        let mut lie = MAGIC.to_vec();
        lie.extend(5_u64.to_le_bytes());
        lie.extend(CHUNK.to_le_bytes());
        lie.extend(u64::MAX.to_le_bytes());
        std::fs::write(&path, lie).unwrap();
        assert_eq!(Journal::open(&path, 5, CHUNK).unwrap().total(), 5, "never more than the chunk");
    }
}
