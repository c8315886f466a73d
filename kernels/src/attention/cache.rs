//! Where the keys and values of a sequence are kept: chunks of 256 positions, allocated as the sequence grows.
//!
//! A chunk holds, layer after layer and in a layer head after head, one part of fixed size (`format.rs` counts it):
//!
//! ```text
//! keys          16 positions at a time, so that one register holds the same elements of 16 positions
//!   f32, f16      for each element of the head: its 16 values, position by position
//!   int8, q8      for each 4 elements a 64-byte block: 16 lanes of 4 bytes, position by position
//!   q4, q3        such blocks packed, 2 or 8 of them in 1 or 3 (`packed.rs`)
//! values        16 elements of the head at a time, so that one register holds them
//!   f32, f16      for each position: its values, filled up with zeros to a multiple of 16
//!   int8, q8      for each 4 positions and 16 elements a block: 16 lanes of 4 bytes, element by element
//!   q4, q3        such blocks packed, of as many times 4 positions
//! scales        of the keys, then of the values
//!   int8          f32 for each position
//!   q8, q4, q3    f16 for each position and 128 elements: keys 16 positions at a time, values 128 elements at a time
//! first         q4, q3: the key, then the value of the text's first token in 8 bits (`write.rs`), in the first chunk
//! ```
//!
//! Chunks can be shared: a cache that is cloned, or that takes over another's chunks, holds the same memory until one of the
//! two writes there; who writes then copies.
//!
//! An int8 or q8 byte is `code + 128`; code times scale is the value. No sum over a head or over positions ever crosses lanes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::format::{CHUNK, KvFormat, Sizes};
use super::write::Writer;
use crate::Buffer;

/// Keys (rotated) and values of one sequence, all layers. A clone shares its chunks until one of the two writes.
#[derive(Clone, Debug)]
pub struct Cache {
    format: KvFormat,
    layers: usize,
    heads: usize,
    dim: usize,
    chunks: Vec<Chunk>,
    count: ChunkCount,
}

/// The keys and values of 256 positions, in all layers; clones are the same memory.
#[derive(Clone, Debug)]
pub struct Chunk(Arc<Counted>);

impl Chunk {
    /// Whether this is the only reference to it.
    pub fn is_unshared(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

/// Counts the chunks that are alive: all caches that were given clones of one count add to it. It can keep the memory of chunks that were
/// dropped for the next ones: the system takes longer to clear fresh pages than a short text takes to fill them.
#[derive(Clone, Debug, Default)]
pub struct ChunkCount(Arc<Chunks>);

#[derive(Debug, Default)]
struct Chunks {
    alive: AtomicUsize,
    /// Most chunks in all, alive and spare.
    most: usize,
    spare: Mutex<Vec<Buffer>>,
}

impl ChunkCount {
    /// A count that keeps the memory of dropped chunks as long as there are not more than `most`, those that are alive included.
    pub fn keeping(most: usize) -> Self {
        Self(Arc::new(Chunks { most, ..Chunks::default() }))
    }

    /// How many there are.
    pub fn get(&self) -> usize {
        // Relaxed: the thread that decides by it also allocates and drops the chunks.
        self.0.alive.load(Ordering::Relaxed)
    }

    /// How many could be made of memory that is kept.
    pub fn spare(&self) -> usize {
        self.kept().len()
    }

    /// Memory for a chunk: zeros, or what an earlier one left there.
    fn take(&self, len: usize) -> Result<Buffer, OutOfMemory> {
        if let Some(buffer) = self.kept().pop() {
            // Chunks of another length would be those of another model.
            if buffer.len() == len {
                return Ok(buffer);
            }
        }
        Buffer::try_zeroed(len).ok_or(OutOfMemory)
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Buffer>> {
        self.0.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A chunk's memory, counted while it lives.
#[derive(Debug)]
struct Counted {
    bytes: Buffer,
    count: ChunkCount,
}

impl Counted {
    fn new(bytes: Buffer, count: &ChunkCount) -> Self {
        count.0.alive.fetch_add(1, Ordering::Relaxed);
        Self { bytes, count: count.clone() }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let left = self.count.0.alive.fetch_sub(1, Ordering::Relaxed) - 1;
        let mut spare = self.count.kept();
        if left + spare.len() < self.count.0.most {
            spare.push(std::mem::replace(&mut self.bytes, Buffer::zeroed(0)));
        }
    }
}

/// The allocation of more positions failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory;

impl Cache {
    /// Positions of a chunk.
    pub const CHUNK: usize = CHUNK;

    /// An empty cache; `heads` counts those of keys and values, `dim` is their width.
    pub fn new(format: KvFormat, layers: usize, heads: usize, dim: usize) -> Self {
        Self { format, layers, heads, dim, chunks: Vec::new(), count: ChunkCount::default() }
    }

    /// Adds the chunks that it will make to this count.
    pub fn counted(mut self, count: &ChunkCount) -> Self {
        self.count = count.clone();
        self
    }

    /// Reserves the positions `written..end`; a chunk that is shared is copied before it is written. What was written
    /// before stays where it is.
    pub fn reserve(&mut self, written: usize, end: usize) -> Result<(), OutOfMemory> {
        let more = end.div_ceil(CHUNK).saturating_sub(self.chunks.len());
        self.chunks.try_reserve(more).map_err(|_| OutOfMemory)?;
        let len = self.part().checked_mul(self.heads * self.layers).ok_or(OutOfMemory)?;
        let first = (written / CHUNK).min(self.chunks.len());
        for chunk in self.chunks[first..].iter_mut().filter(|chunk| !chunk.is_unshared()) {
            let mut own = self.count.take(len)?;
            own.copy_from_slice(&chunk.0.bytes);
            *chunk = Chunk(Arc::new(Counted::new(own, &self.count)));
        }
        for _ in 0..more {
            self.chunks.push(Chunk(Arc::new(Counted::new(self.count.take(len)?, &self.count))));
        }
        Ok(())
    }

    /// How many chunks `reserve` would allocate, new ones and copies.
    pub fn missing(&self, written: usize, end: usize) -> usize {
        let first = (written / CHUNK).min(self.chunks.len());
        let shared = self.chunks[first..].iter().filter(|chunk| !chunk.is_unshared()).count();
        shared + end.div_ceil(CHUNK).saturating_sub(self.chunks.len())
    }

    /// Its chunks, in the order of their positions.
    pub fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// Replaces its chunks by those of another cache of the same format and sizes.
    pub fn adopt(&mut self, chunks: impl IntoIterator<Item = Chunk>) {
        self.chunks.clear();
        self.chunks.extend(chunks);
        let len = self.chunk_bytes();
        assert!(self.chunks.iter().all(|chunk| chunk.0.bytes.len() == len), "a chunk of another shape");
    }

    /// Frees the chunks past the first `positions`.
    pub fn shrink(&mut self, positions: usize) {
        self.chunks.truncate(positions.div_ceil(CHUNK));
    }

    /// Bytes of a chunk.
    pub fn chunk_bytes(&self) -> usize {
        self.part() * self.heads * self.layers
    }

    /// The positions that are allocated.
    pub fn positions(&self) -> usize {
        self.chunks.len() * CHUNK
    }

    /// The format of its keys and values.
    pub fn format(&self) -> KvFormat {
        self.format
    }

    /// Whether it has this format and these sizes.
    pub fn fits(&self, format: KvFormat, layers: usize, heads: usize, dim: usize) -> bool {
        (self.format, self.layers, self.heads, self.dim) == (format, layers, heads, dim)
    }

    fn part(&self) -> usize {
        Sizes::new(self.format, self.dim).part()
    }

    /// Keys and values of one head in one chunk.
    pub(super) fn head(&self, layer: usize, head: usize, chunk: usize) -> Part<'_> {
        let (sizes, len) = (Sizes::new(self.format, self.dim), self.part());
        let bytes = &self.chunks[chunk].0.bytes[(layer * self.heads + head) * len..][..len];
        let (keys, rest) = bytes.split_at(sizes.keys.codes);
        let (values, rest) = rest.split_at(sizes.values.codes);
        let (key_scales, rest) = rest.split_at(sizes.keys.scales);
        let (value_scales, rest) = rest.split_at(sizes.values.scales);
        let (first_key, first_value) =
            if chunk == 0 { rest.split_at(sizes.keys.first) } else { (&[][..], &[][..]) };
        Part { keys, values, key_scales, value_scales, first_key, first_value }
    }

    /// The parts of all heads of a layer in one chunk, and the length of one.
    pub(super) fn layer_mut(&mut self, layer: usize, chunk: usize) -> (&mut [u8], usize) {
        let len = self.part();
        let range = layer * self.heads * len..(layer + 1) * self.heads * len;
        let own =
            Arc::get_mut(&mut self.chunks[chunk].0).expect("`reserve` left no shared chunk to write to");
        (&mut own.bytes[range], len)
    }

    /// Who writes into a part.
    pub(super) fn writer(&self) -> Writer {
        Writer::new(self.format, self.dim)
    }
}

impl AsRef<Cache> for Cache {
    fn as_ref(&self) -> &Cache {
        self
    }
}

impl AsMut<Cache> for Cache {
    fn as_mut(&mut self) -> &mut Cache {
        self
    }
}

impl<'a> Part<'a> {
    /// What is read first: the keys and their scales.
    #[inline(always)]
    pub(super) fn beginning(&self) -> (&'a [u8], &'a [u8]) {
        (self.keys, self.key_scales)
    }
}

/// One head in one chunk.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
    pub(super) keys: &'a [u8],
    pub(super) values: &'a [u8],
    pub(super) key_scales: &'a [u8],
    pub(super) value_scales: &'a [u8],
    /// The first token's in 8 bits; empty in other chunks and where the format has none.
    pub(super) first_key: &'a [u8],
    pub(super) first_value: &'a [u8],
}
