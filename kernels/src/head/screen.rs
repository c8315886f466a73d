//! The screen: 3 bits of every weight, in the order in which one pass over all rows reads them.
//!
//! Rows are taken 16 at a time, columns 32 at a time. Such a piece is three 64-byte blocks A, B, C; bytes `4r..4r+4` of
//! each belong to row `r`, and byte `j` of them holds digits 0..8 of columns `4p + j` for eight planes `p`:
//!
//! ```text
//! bit   7  6  5  4  3  2  1  0
//! A    [p6 low] [  p1  ] [ p0 ]       p1, p3, p5 and p7 come out of the shift doubled (only even shifts are
//! B    [  p3  ] [p7 l.]  [ p2 ]       wanted of an instruction set), so they are summed apart and their sum
//! C    p7 p6 high [p5  ] [ p4 ]       is halved
//! ```

use std::ops::Range;

use super::input::HeadInput;
use crate::isa::{Block, Isa, Kernel};
use crate::packing::ROWS;
use crate::pool::Disjoint;

/// Columns of a piece.
pub(super) const COLS: usize = 32;
/// Planes of a piece.
const PLANES: usize = COLS / 4;
/// Blocks of a piece.
const BLOCKS: usize = 3;

/// Pieces by which one vector's pass asks for memory before it needs it: 3 KB.
const AHEAD: usize = 16;

/// Bytes of a group of 16 rows.
pub(super) fn group_len(cols: usize) -> usize {
    cols.div_ceil(COLS) * BLOCKS * size_of::<Block>()
}

/// Writes the digits (0..8) of row `row` of a group; there are whole pieces of them.
#[inline(always)]
pub(super) fn write_row(digits: &[u8], row: usize, group: &mut [u8]) {
    let (digits, _) = digits.as_chunks::<4>();
    let (words, _) = group.as_chunks_mut::<4>();
    for piece in 0..digits.len() / PLANES {
        let mut p = [0u32; PLANES];
        for i in 0..PLANES {
            p[i] = u32::from_le_bytes(digits[piece * PLANES + i]);
        }
        // All four bytes of a lane at once; no digit reaches into the next byte.
        let at = piece * BLOCKS * ROWS + row;
        words[at] = (p[0] | p[1] << 3 | (p[6] & 0x0303_0303) << 6).to_le_bytes();
        words[at + ROWS] = (p[2] | (p[7] & 0x0303_0303) << 3 | p[3] << 5).to_le_bytes();
        let high = (p[6] & 0x0404_0404) << 4 | (p[7] & 0x0404_0404) << 5;
        words[at + 2 * ROWS] = (p[4] | p[5] << 3 | high).to_le_bytes();
    }
}

/// `sums[vector][row] = Σ digit * upper`, for row groups of one worker.
pub(super) struct Scan<'a> {
    /// All groups.
    pub blocks: &'a [u8],
    pub x: &'a HeadInput,
    /// The hidden states in question, counted from `first`.
    pub vectors: &'a [usize],
    pub first: usize,
    pub groups: Range<usize>,
    /// `(vectors, padded rows)`.
    pub sums: &'a Disjoint<'a, i32>,
    pub padded_rows: usize,
}

impl Kernel for Scan<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let len = group_len(self.x.cols());
        for g in self.groups.clone() {
            let (blocks, _) = self.blocks[g * len..][..len].as_chunks::<64>();
            let mut v = 0;
            while v < self.vectors.len() {
                let left = self.vectors.len() - v;
                if left >= 8 && I::PANEL.1 >= 4 {
                    self.tile::<I, 8>(isa, blocks, g, v);
                    v += 8;
                } else if left >= 4 && I::PANEL.1 >= 4 {
                    self.tile::<I, 4>(isa, blocks, g, v);
                    v += 4;
                } else if left >= 2 && I::PANEL.1 >= 2 {
                    self.tile::<I, 2>(isa, blocks, g, v);
                    v += 2;
                } else {
                    self.tile::<I, 1>(isa, blocks, g, v);
                    v += 1;
                }
            }
        }
    }
}

impl Scan<'_> {
    /// One row group times `C` vectors: two registers of sums each, and one for each plane of a piece.
    #[inline(always)]
    fn tile<I: Isa, const C: usize>(&self, isa: I, blocks: &[Block], g: usize, v: usize) {
        let pieces = blocks.len() / BLOCKS;
        let (blocks, _) = blocks.as_chunks::<BLOCKS>();
        let mut x: [&[[[i8; 4]; PLANES]]; C] = [&[]; C];
        for j in 0..C {
            let (quads, _) = self.x.uppers(self.first + self.vectors[v + j]).as_chunks::<4>();
            x[j] = &quads.as_chunks::<PLANES>().0[..pieces];
        }
        let (mut singles, mut doubles) = ([isa.sums(); C], [isa.sums(); C]);
        // A doubled digit is at most 14 where a `dot` counts on 2: a `Part` takes a seventh of the steps, and a piece
        // has four.
        let step = (I::DOTS / 7 / 4).max(1);
        let mut start = 0;
        while start < pieces {
            let end = start.saturating_add(step).min(pieces);
            let (mut single, mut double) = ([isa.part(); C], [isa.part(); C]);
            for piece in start..end {
                if C == 1 {
                    for i in 0..BLOCKS {
                        isa.prefetch(blocks.as_flattened(), BLOCKS * (piece + AHEAD) + i);
                    }
                }
                let planes = split(isa, &blocks[piece]);
                for p in 0..PLANES / 2 {
                    for j in 0..C {
                        let quads = &x[j][piece];
                        single[j] = isa.dot(single[j], planes[2 * p], quads[2 * p]);
                        double[j] = isa.dot(double[j], planes[2 * p + 1], quads[2 * p + 1]);
                    }
                }
            }
            for j in 0..C {
                singles[j] = isa.widen(singles[j], single[j]);
                doubles[j] = isa.widen(doubles[j], double[j]);
            }
            start = end;
        }
        for j in 0..C {
            let (single, double) = (isa.store(singles[j]), isa.store(doubles[j]));
            let at = (v + j) * self.padded_rows + g * ROWS;
            // SAFETY: every row group belongs to one worker, so no other touches these rows of any vector.
            let out = unsafe { self.sums.slice(at..at + ROWS) };
            for row in 0..ROWS {
                out[row] = single[row] + double[row] / 2;
            }
        }
    }
}

/// The digits of the eight planes, those of odd planes doubled.
#[inline(always)]
fn split<I: Isa>(isa: I, piece: &[Block; BLOCKS]) -> [I::Bytes; PLANES] {
    let [a0, b0, c0] = [isa.load(&piece[0]), isa.load(&piece[1]), isa.load(&piece[2])];
    let (a2, b2, c2) = (isa.shift2(a0), isa.shift2(b0), isa.shift2(c0));
    let (a4, b4, c4) = (isa.shift2(a2), isa.shift2(b2), isa.shift2(c2));
    let a6 = isa.shift2(a4);
    let (single, double) = (isa.splat(7), isa.splat(14));
    [
        isa.and(a0, single),
        isa.and(a2, double),
        isa.and(b0, single),
        isa.and(b4, double),
        isa.and(c0, single),
        isa.and(c2, double),
        isa.add(isa.and(a6, isa.splat(3)), isa.and(c4, isa.splat(4))),
        isa.add(isa.and(b2, isa.splat(6)), isa.and(c4, isa.splat(8))),
    ]
}
