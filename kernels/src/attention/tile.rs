//! Some queries of one key-value head on their way over the chunks of a sequence.

use super::COLUMNS;
use super::format::{CHUNK, GROUP, LANES};
use super::softmax::{Lanes, Sum};
use crate::isa::Isa;
use crate::pool::Disjoint;

/// Positions of a chunk as groups of lanes.
pub(super) type Codes = [[[i8; LANES]; CHUNK / LANES]; 2];

/// A query rounded to integers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Query {
    /// What 1 is worth.
    pub(super) step: f32,
    /// The sums of its elements, 32 by 32.
    pub(super) sums: [i32; super::MAX_HEAD_DIM / GROUP],
}

/// For each column what its sum so far and that of the present chunk are multiplied with when they are added.
pub(super) type Factors = [(f32, f32); COLUMNS];

/// The queries of a forward pass, rotated and scaled: query `row * heads + head`.
#[derive(Clone, Copy)]
pub(super) struct Queries<'a> {
    /// `(queries, dim)`.
    pub(super) floats: &'a [f32],
    /// `(queries, parts, padded)`; none where the keys are floats.
    pub(super) codes: &'a [i8],
    /// How many parts there are, and how many times four elements in one.
    pub(super) parts: (usize, usize),
    pub(super) rounded: &'a [Query],
}

impl<'a> Queries<'a> {
    /// A part of one query, four elements at a time.
    #[inline(always)]
    pub(super) fn part(&self, query: usize, part: usize) -> &'a [[i8; 4]] {
        let (parts, quads) = self.parts;
        &self.codes.as_chunks().0[(query * parts + part) * quads..][..quads]
    }
}

/// Queries whose sums of floats run together.
pub(super) const QUERIES: usize = 4;
/// Steps of a float product whose right operand is turned into f32 at a time: with four vectors to a step 16 KB, which
/// stay in the first cache.
pub(super) const DEPTH: usize = 64;

/// A worker's scratch memory.
pub(super) struct Buffers {
    pub(super) scores: [Lanes; COLUMNS],
    pub(super) codes: [Codes; COLUMNS],
    /// The queries of a tile, one after another.
    pub(super) queries: Vec<f32>,
    /// Keys or values as f32, step after step; made when it is first used, which decode never does.
    pub(super) floats: Option<Box<Floats>>,
}

/// Whole cache lines: a load of 64 bytes that crosses one counts twice.
#[repr(align(64))]
pub(super) struct Floats(pub(super) [[f32; LANES]; 4 * DEPTH]);

impl Floats {
    pub(super) fn boxed() -> Box<Self> {
        Box::new(Self([[0.0; LANES]; 4 * DEPTH]))
    }
}

impl Buffers {
    pub(super) fn new() -> Self {
        Self {
            scores: [[[0.0; LANES]; CHUNK / LANES]; COLUMNS],
            codes: [[[[0; LANES]; CHUNK / LANES]; 2]; COLUMNS],
            queries: Vec::new(),
            floats: None,
        }
    }
}

/// Some queries, at most [`COLUMNS`], their positions ascending.
pub(super) struct Tile<'a> {
    pub(super) dim: usize,
    pub(super) columns: usize,
    pub(super) queries: Queries<'a>,
    /// For each column which query it is, and its position.
    pub(super) query: [usize; COLUMNS],
    pub(super) position: [usize; COLUMNS],
    /// How many positions a column sees at most.
    pub(super) window: usize,
    /// For each column, the first position of the present chunk that it sees and the first after it that it does not.
    pub(super) seen: [(usize, usize); COLUMNS],
    pub(super) sums: [Sum; COLUMNS],
    /// For each column, where in `out` its weighted sum of values is.
    pub(super) at: [usize; COLUMNS],
    pub(super) out: &'a Disjoint<'a, f32>,
    pub(super) buffers: &'a mut Buffers,
    /// The keys that will be wanted after the present chunk, and their scales.
    pub(super) next: (&'a [u8], &'a [u8]),
}

impl<'a> Tile<'a> {
    /// Asks for bytes that will be wanted soon and are few.
    #[inline(always)]
    pub(super) fn ask<I: Isa>(isa: I, bytes: &[u8]) {
        for at in (0..bytes.len()).step_by(64) {
            isa.prefetch_l2(bytes, at);
        }
    }

    /// The first position that a column sees.
    #[inline(always)]
    pub(super) fn begin(&self, c: usize) -> usize {
        (self.position[c] + 1).saturating_sub(self.window)
    }

    /// Gives positions that a column does not see a score of minus infinity: their weights are zeros, which add exactly
    /// nothing.
    #[inline(always)]
    pub(super) fn hide(&mut self, c: usize, groups: usize) {
        let (begin, end) = self.seen[c];
        let scores = &mut self.buffers.scores[c].as_flattened_mut()[..groups * LANES];
        scores[end..].fill(f32::NEG_INFINITY);
        scores[..begin].fill(f32::NEG_INFINITY);
    }

    /// `out = out * mine + values * theirs` for elements `16 * d..` of a column.
    #[inline(always)]
    pub(super) fn add<I: Isa>(
        &mut self,
        isa: I,
        c: usize,
        d: usize,
        values: &[f32; LANES],
        mine: f32,
        theirs: f32,
    ) {
        let out = &mut self.out(c)[d * LANES..];
        match out.first_chunk_mut::<LANES>() {
            Some(out) => *out = isa.mixed(out, mine, values, theirs),
            None => {
                for (out, value) in out.iter_mut().zip(values) {
                    *out = *out * mine + value * theirs;
                }
            }
        }
    }

    /// The weighted sum of a column.
    #[inline(always)]
    pub(super) fn out(&mut self, c: usize) -> &mut [f32] {
        // SAFETY: a query and a chunk belong to one item of the plan, an item to one worker, and columns of a tile are
        // different queries; `&mut self` keeps this worker from taking a second part while this one lives.
        unsafe { self.out.slice(self.at[c]..self.at[c] + self.dim) }
    }
}
