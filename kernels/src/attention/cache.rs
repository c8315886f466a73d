//! Where the keys and values of a sequence are kept: chunks of 256 positions, allocated as the sequence grows.
//!
//! A chunk holds, layer after layer and in a layer head after head, one part of fixed size:
//!
//! ```text
//! keys          16 positions at a time, so that one register holds the same elements of 16 positions
//!   f32, f16      for each element of the head: its 16 values, position by position
//!   int8          for each 4 elements a 64-byte block: 16 lanes of 4 bytes, position by position
//! values        16 elements of the head at a time, so that one register holds them
//!   f32, f16      for each position: its values, filled up with zeros to a multiple of 16
//!   int8          for each 4 positions and 16 elements a block: 16 lanes of 4 bytes, element by element
//! scales        int8 only: f32 for each position, those of the keys and then those of the values
//! ```
//!
//! Chunks can be shared: a cache that is cloned, or that takes over another's chunks, holds the same memory until one of the
//! two writes there; who writes then copies.
//!
//! An int8 byte is `code + 128`; code times scale is the value. No sum over a head or over positions ever crosses lanes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::Buffer;
use crate::half::f32_to_f16;
use crate::rounding::round;

/// Positions of a chunk. Attention combines chunk by chunk, so this number decides the order of its additions.
pub(super) const CHUNK: usize = 256;
/// Positions, or elements of a head, that lie side by side.
pub(super) const LANES: usize = 16;

/// How keys and values are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KvFormat {
    /// As they are computed.
    F32,
    /// Rounded to IEEE binary16.
    #[default]
    F16,
    /// Codes of 8 bits with one scale for each position and head: its largest magnitude / 127.
    Int8,
}

impl KvFormat {
    /// Every one, the most exact first.
    pub const ALL: [KvFormat; 3] = [KvFormat::F32, KvFormat::F16, KvFormat::Int8];

    /// The name used in `--kv`, logs and tables.
    pub fn name(self) -> &'static str {
        match self {
            KvFormat::F32 => "f32",
            KvFormat::F16 => "f16",
            KvFormat::Int8 => "int8",
        }
    }

    /// The one of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// Bytes that one position of one head of width `dim` takes, key and value.
    pub fn bytes(self, dim: usize) -> usize {
        Sizes::new(self, dim).part() / CHUNK
    }
}

/// A key or value that the cache cannot hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unstorable {
    /// A NaN or an infinity.
    NotFinite,
    /// Beyond 65504, the largest f16.
    BeyondF16,
}

/// The bytes of one head in a chunk.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    keys: usize,
    values: usize,
    scales: usize,
}

impl Sizes {
    fn new(format: KvFormat, dim: usize) -> Self {
        let (wide, scales) = (dim.next_multiple_of(LANES), CHUNK * size_of::<f32>());
        match format {
            KvFormat::F32 => Self { keys: 4 * dim * CHUNK, values: 4 * wide * CHUNK, scales: 0 },
            KvFormat::F16 => Self { keys: 2 * dim * CHUNK, values: 2 * wide * CHUNK, scales: 0 },
            KvFormat::Int8 => Self { keys: dim.next_multiple_of(4) * CHUNK, values: wide * CHUNK, scales },
        }
    }

    fn part(self) -> usize {
        self.keys + self.values + 2 * self.scales
    }
}

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

/// Chunks that are alive: all caches that were given clones of one count add to it.
#[derive(Clone, Debug, Default)]
pub struct ChunkCount(Arc<AtomicUsize>);

impl ChunkCount {
    /// How many there are.
    pub fn get(&self) -> usize {
        // Relaxed: the thread that decides by it also allocates and drops the chunks.
        self.0.load(Ordering::Relaxed)
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
        count.0.fetch_add(1, Ordering::Relaxed);
        Self { bytes, count: count.clone() }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.count.0.fetch_sub(1, Ordering::Relaxed);
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
        let zeroed = || Buffer::try_zeroed(len).ok_or(OutOfMemory);
        let first = (written / CHUNK).min(self.chunks.len());
        for chunk in self.chunks[first..].iter_mut().filter(|chunk| !chunk.is_unshared()) {
            let mut own = zeroed()?;
            own.copy_from_slice(&chunk.0.bytes);
            *chunk = Chunk(Arc::new(Counted::new(own, &self.count)));
        }
        for _ in 0..more {
            self.chunks.push(Chunk(Arc::new(Counted::new(zeroed()?, &self.count))));
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
        let (keys, rest) = bytes.split_at(sizes.keys);
        let (values, scales) = rest.split_at(sizes.values);
        let (key_scales, value_scales) = scales.split_at(sizes.scales);
        Part { keys, values, key_scales, value_scales }
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
        Writer { format: self.format, dim: self.dim, sizes: Sizes::new(self.format, self.dim) }
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

/// One head in one chunk.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
    pub(super) keys: &'a [u8],
    pub(super) values: &'a [u8],
    pub(super) key_scales: &'a [u8],
    pub(super) value_scales: &'a [u8],
}

/// Writes one position's key and value into a part.
#[derive(Clone, Copy)]
pub(super) struct Writer {
    format: KvFormat,
    dim: usize,
    sizes: Sizes,
}

impl Writer {
    /// `at` is the position in the chunk. On an error nothing was written that a later reading would notice: keys and
    /// values of positions past the end are never weighed, but they must be finite.
    #[inline(always)]
    pub(super) fn write(
        self,
        part: &mut [u8],
        at: usize,
        key: &[f32],
        value: &[f32],
    ) -> Result<(), Unstorable> {
        let top = magnitude(key).max(magnitude(value));
        if top >= f32::INFINITY {
            return Err(Unstorable::NotFinite);
        }
        let (keys, rest) = part.split_at_mut(self.sizes.keys);
        let (values, scales) = rest.split_at_mut(self.sizes.values);
        let (group, lane) = (at / LANES, at % LANES);
        match self.format {
            KvFormat::F32 => {
                let keys = &mut keys.as_chunks_mut::<4>().0[group * LANES * self.dim..];
                for (to, key) in keys.chunks_exact_mut(LANES).zip(key) {
                    to[lane] = key.to_le_bytes();
                }
                let values = &mut values.as_chunks_mut::<4>().0[at * self.dim.next_multiple_of(LANES)..];
                for (to, value) in values.iter_mut().zip(value) {
                    *to = value.to_le_bytes();
                }
            }
            KvFormat::F16 => {
                if top >= 65520.0 {
                    return Err(Unstorable::BeyondF16);
                }
                let keys = &mut keys.as_chunks_mut::<2>().0[group * LANES * self.dim..];
                for (to, key) in keys.chunks_exact_mut(LANES).zip(key) {
                    to[lane] = f32_to_f16(*key).to_le_bytes();
                }
                let values = &mut values.as_chunks_mut::<2>().0[at * self.dim.next_multiple_of(LANES)..];
                for (to, value) in values.iter_mut().zip(value) {
                    *to = f32_to_f16(*value).to_le_bytes();
                }
            }
            KvFormat::Int8 => {
                let mut codes = [0u8; super::MAX_HEAD_DIM];
                let (key_scales, value_scales) = scales.split_at_mut(self.sizes.scales);
                let step = codes_of(key, &mut codes);
                key_scales.as_chunks_mut::<4>().0[at] = step.to_le_bytes();
                let quads = self.dim.div_ceil(4);
                let blocks = &mut keys.as_chunks_mut::<64>().0[group * quads..][..quads];
                for (block, quad) in blocks.iter_mut().zip(codes.as_chunks::<4>().0) {
                    block.as_chunks_mut::<4>().0[lane] = *quad;
                }
                let step = codes_of(value, &mut codes);
                value_scales.as_chunks_mut::<4>().0[at] = step.to_le_bytes();
                let wide = self.dim.div_ceil(LANES);
                let blocks = &mut values.as_chunks_mut::<64>().0[at / 4 * wide..][..wide];
                for (block, codes) in blocks.iter_mut().zip(codes.as_chunks::<LANES>().0) {
                    for (quad, code) in block.as_chunks_mut::<4>().0.iter_mut().zip(codes) {
                        quad[at % 4] = *code;
                    }
                }
            }
        }
        Ok(())
    }
}

/// The largest magnitude; infinite where a value is not finite.
#[inline(always)]
fn magnitude(values: &[f32]) -> f32 {
    // As integers the magnitudes of floats are in the floats' order, with infinity and NaN on top.
    let top = values.iter().fold(0u32, |top, value| top.max(value.to_bits() & 0x7fff_ffff));
    f32::from_bits(top.min(f32::INFINITY.to_bits()))
}

/// Below it a row counts as zeros: its reciprocal times 127 must stay finite.
pub(super) const TINY: f32 = 1e-30;

/// The bytes of a row; returns what a code is worth. What fills up the row is the byte of zero.
#[inline(always)]
fn codes_of(values: &[f32], bytes: &mut [u8; super::MAX_HEAD_DIM]) -> f32 {
    let top = magnitude(values).max(TINY);
    let scale = 127.0 / top;
    bytes.fill(128);
    for (byte, value) in bytes.iter_mut().zip(values) {
        *byte = (round(value * scale) as u8).wrapping_add(128);
    }
    top / 127.0
}
