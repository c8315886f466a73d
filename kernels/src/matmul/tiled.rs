//! Many tokens on matrix units: a panel of 32 rows is unpacked into cache once, and tiles of tokens are taken past it, 32 at a
//! time in four tiles of sums (`tiles.rs`).
//!
//! A panel is 32 rows by 640 columns of codes, 20 kB, beside as much of activations and 4 kB of sums in the first cache. The
//! tokens that pass it before the next one are few enough for their activations to stay in the second cache while all
//! rows of a piece of work pass; their sums wait in memory between panels of the same rows.
//!
//! Both remainders are taken by tiles that lie further back. The last 16 tokens are a tile whatever their number, so that some
//! may be computed twice, with the same result; the last 16 quads of a row are one in whose lines those columns that had their
//! turn are zeros. Codes past the end meet activations that are zeros, as everywhere.

use std::marker::PhantomData;
use std::ops::Range;

use super::Task;
use crate::activations::Rounding;
use crate::cpu::{Cpu, TileKernel};
use crate::isa::Isa;
use crate::packing::{Layout, ROWS};
use crate::tiles::{LINES, Line, Rows, SIDE, Sums, TILES, Tiles};

/// Fewest tokens that go by tiles. Measured on a Xeon (Sapphire Rapids) with a prototype: 750 billion multiply-adds a second with
/// 32 tokens, unpacking and scales included, where the dot product's peak is 478. A tile of 16 tokens takes no longer than
/// two, so 16 reach at least 375, where panels have 235; fewer would leave tiles empty. Not measured with this code.
pub(crate) const LEAST: usize = 16;
/// Fewest columns under one scale, on the average, that go by tiles: one step of them.
const SHORTEST: usize = 4 * SIDE;

/// Most quads of columns in a panel: whole blocks of every packing.
const QUADS: usize = LINES;

/// Whether this is the way for a product.
pub(super) fn pays(cpu: Cpu, task: &Task<'_>) -> bool {
    let long = task.segments <= 1 || task.w.cols() / task.segments >= SHORTEST;
    cpu.has_tiles(long && task.x.rows() >= LEAST)
}

pub(super) struct Tiled<'a, L> {
    task: &'a Task<'a>,
    groups: Range<usize>,
    layout: PhantomData<L>,
}

impl<'a, L> Tiled<'a, L> {
    pub(super) fn new(task: &'a Task<'a>, groups: Range<usize>) -> Self {
        Self { task, groups, layout: PhantomData }
    }
}

/// What a panel and the tokens that pass it need, on the stack.
#[repr(align(64))]
struct Room {
    panel: [Line; QUADS],
    sums: [[Sums; 2]; TILES],
    /// Where rows have several scales.
    totals: [[[[f32; ROWS]; SIDE]; 2]; TILES],
}

/// A panel: some quads of a segment.
struct Piece {
    quads: Range<usize>,
    /// Whether it begins and ends its segment.
    begins: bool,
    ends: bool,
    /// Which segment of the row, and which group of the activations.
    nth: usize,
    inputs: usize,
    scales: [[f32; ROWS]; 2],
}

impl Piece {
    /// Quads of whole tiles, and the quad at which the tile of the others begins: within the `all` that a row of activations
    /// has.
    #[inline(always)]
    fn tiles(&self, all: usize) -> (usize, usize) {
        let whole = self.quads.len() / SIDE * SIDE;
        (whole, (self.quads.start + whole).min(all - SIDE))
    }
}

impl<L: Layout> TileKernel for Tiled<'_, L> {
    fn height(&self) -> usize {
        SIDE.min(self.task.x.rows())
    }

    #[inline(always)]
    fn run<I: Isa, T: Tiles>(self, isa: I, mut tiles: T) {
        let mut room = Room {
            panel: [[[0; 64]; 2]; QUADS],
            sums: [[Sums::ZERO; 2]; TILES],
            totals: [[[[0.0; ROWS]; SIDE]; 2]; TILES],
        };
        let count = self.task.x.rows().div_ceil(SIDE);
        let mut first = 0;
        while first < count {
            let block = first..(first + TILES).min(count);
            let mut g = self.groups.start;
            while g < self.groups.end {
                let pair = g..(g + 2).min(self.groups.end);
                self.rows(isa, &mut tiles, pair, block.clone(), &mut room);
                g += 2;
            }
            first = block.end;
        }
    }
}

impl<L: Layout> Tiled<'_, L> {
    /// One or two row groups past a block of tiles of tokens.
    #[inline(always)]
    fn rows<I: Isa, T: Tiles>(
        &self,
        isa: I,
        tiles: &mut T,
        pair: Range<usize>,
        block: Range<usize>,
        room: &mut Room,
    ) {
        let lanes = self.task.w.lanes();
        let all = self.task.w.cols().div_ceil(4 * L::PLANES) * L::PLANES;
        let several = self.several();
        if several {
            room.totals[..block.len()].as_flattened_mut().as_flattened_mut().fill([0.0; ROWS]);
        }
        for (nth, segment) in self.task.segments().enumerate() {
            let mut scales = [[0.0; ROWS]; 2];
            for (g, scales) in pair.clone().zip(&mut scales) {
                *scales = lanes.at(isa, g * self.task.scales_per_row() + segment.weights);
            }
            let quads = segment.quads(all);
            let mut start = quads.start;
            while start < quads.end {
                let end = (start + QUADS).min(quads.end);
                let (begins, ends) = (start == quads.start, end == quads.end);
                let piece = Piece { quads: start..end, begins, ends, nth, inputs: segment.inputs, scales };
                self.unpack(isa, pair.clone(), &piece, &mut room.panel);
                let mut at = 0;
                while at < block.len() {
                    at += match block.len() - at {
                        2.. => self.pass::<I, T, 2>(isa, tiles, &pair, &piece, block.start, at, room),
                        _ => self.pass::<I, T, 1>(isa, tiles, &pair, &piece, block.start, at, room),
                    };
                }
                start = end;
            }
        }
        for at in 0..if several { block.len() } else { 0 } {
            let Rows { first, again } = Rows::of(block.start + at, self.task.x.rows());
            for row in again..tiles.height() {
                for (i, g) in pair.clone().enumerate() {
                    // SAFETY: `g` is one of the groups that were given to this thread.
                    unsafe { self.task.write_totals(g, first + row, &room.totals[at][i][row]) };
                }
            }
        }
    }

    /// Whether scaled sums are added up, in place of one sum for each row.
    #[inline(always)]
    fn several(&self) -> bool {
        self.task.segments > 1 || self.task.x.rounding() == Rounding::Group
    }

    /// The codes of one or two row groups in the quads of a piece, which may begin and end inside blocks.
    #[inline(always)]
    fn unpack<I: Isa>(&self, isa: I, pair: Range<usize>, piece: &Piece, panel: &mut [Line; QUADS]) {
        let Range { start, end } = piece.quads;
        let (whole, rest) = piece.tiles(self.task.x.stride() / 4);
        if start + whole < end {
            panel[whole..whole + SIDE].fill([[0; 64]; 2]);
        }
        // Blocks that belong to whole tiles with all their planes, of which there are most.
        let inner = start.div_ceil(L::PLANES)..((start + whole) / L::PLANES).max(start.div_ceil(L::PLANES));
        for (i, g) in pair.enumerate() {
            let blocks = self.task.blocks(g);
            for b in inner.clone() {
                isa.prefetch(blocks, b + QUADS / L::PLANES);
                let planes = L::split(isa, isa.load(&blocks[b]));
                let lines = &mut panel[b * L::PLANES - start..][..L::PLANES];
                for p in 0..L::PLANES {
                    lines[p][i] = isa.bytes(planes.as_ref()[p]);
                }
            }
            let before = start / L::PLANES..inner.start.min(end.div_ceil(L::PLANES));
            for b in before.chain(inner.end..end.div_ceil(L::PLANES)) {
                let planes = L::split(isa, isa.load(&blocks[b]));
                for p in 0..L::PLANES {
                    let quad = b * L::PLANES + p;
                    if !(start..end).contains(&quad) {
                        continue;
                    }
                    let line = if quad < start + whole { quad - start } else { whole + quad - rest };
                    panel[line][i] = isa.bytes(planes.as_ref()[p]);
                }
            }
        }
    }

    /// `N` tiles of tokens past a panel: those at place `at` of the block that begins with tile `block`.
    #[allow(clippy::too_many_arguments)] // a tile's place in panel, tokens and rows
    #[inline(always)]
    fn pass<I: Isa, T: Tiles, const N: usize>(
        &self,
        isa: I,
        tiles: &mut T,
        pair: &Range<usize>,
        piece: &Piece,
        block: usize,
        at: usize,
        room: &mut Room,
    ) -> usize {
        let x = self.task.x;
        let rows: [Rows; N] = std::array::from_fn(|n| Rows::of(block + at + n, x.rows()));
        let (whole, rest) = piece.tiles(x.stride() / 4);
        let Range { start, end } = piece.quads;
        let Room { panel, sums, totals } = room;
        let (sums, _) = sums[at..].as_chunks_mut::<N>();
        let sums = &mut sums[0];
        let inputs = |quad: usize| rows.map(|rows| x.rows_from(rows.first, quad));
        if start + whole == end || start + whole == rest {
            let lines = &panel[..(end - start).next_multiple_of(SIDE)];
            tiles.multiply(inputs(start), x.stride(), lines, sums, piece.begins);
        } else {
            if whole > 0 {
                tiles.multiply(inputs(start), x.stride(), &panel[..whole], sums, piece.begins);
            }
            let lines = &panel[whole..whole + SIDE];
            tiles.multiply(inputs(rest), x.stride(), lines, sums, piece.begins && whole == 0);
        }
        if !piece.ends {
            return N;
        }
        let several = self.several();
        for n in 0..N {
            for row in rows[n].again..tiles.height() {
                let token = rows[n].first + row;
                for (i, g) in pair.clone().enumerate() {
                    let sums = sums[n][i].0[row];
                    let scales = &piece.scales[i];
                    if several {
                        let minus = self.task.segment_sum(token, piece.nth);
                        let totals = &mut totals[at + n][i][row];
                        *totals = isa.add_sums(*totals, sums, minus, scales, x.factor(token, piece.inputs));
                        continue;
                    }
                    // SAFETY: `g` is one of the groups that were given to this thread.
                    unsafe { self.task.write(g, token, &sums, scales) };
                }
            }
        }
        N
    }
}

#[cfg(test)]
mod tests;
