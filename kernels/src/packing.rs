//! How trits lie in memory, and the list of the ways.
//!
//! Rows are taken 16 at a time (the last group is filled up with zero rows). For a group, the columns are taken
//! `4 * PLANES` at a time, and each such piece is one 64-byte block: byte `4 * r + j` belongs to row `r` of the group
//! and holds, for each plane `p`, the trit of column `4 * p + j` of the piece. Columns past the end are zero trits.
//! A 16-, 32- or 64-byte register thus holds 4, 8 or 16 rows with four consecutive columns in each 32-bit lane, the
//! operand of a 4-way dot product: no sum ever crosses lanes, and one layout serves every instruction set and batch.
//!
//! ```text
//!            lane of row 0          lane of row 1              lane of row 15
//! bytes   0    1    2    3       4    5    6    7    ...    60   61   62   63
//! plane 0 c0   c1   c2   c3      c0   c1   c2   c3          c0   c1   c2   c3
//! plane 1 c4   c5   c6   c7      c4   c5   c6   c7          c4   c5   c6   c7
//! ```

mod i2;
mod t5;

pub(crate) use i2::I2;
pub(crate) use t5::T5;

use crate::cpu::Cpu;
use crate::isa::{Block, Isa, Kernel};

/// Rows of a group.
pub(crate) const ROWS: usize = 16;

/// How one byte holds the codes `trit + 1` of its planes.
pub(crate) trait Layout {
    /// Trits in a byte.
    const PLANES: usize;
    /// One value for each plane.
    type Planes<B: Copy>: AsRef<[B]> + AsMut<[B]> + Copy;
    /// The codes of every plane of a block.
    fn split<I: Isa>(isa: I, bytes: I::Bytes) -> Self::Planes<I::Bytes>;
    /// The codes of every plane of a block, as cheaply as they can be had: those of plane `p` count `masked::<I>()[p]`.
    fn mask<I: Isa>(isa: I, bytes: I::Bytes) -> Self::Planes<I::Bytes>;
    /// See `mask`.
    fn masked<I: Isa>() -> [i32; 5];
    /// What a code of each plane counts in a byte; `PLANES` of them are used. The largest sum of 2 × these fits a byte.
    const WEIGHTS: [u8; 5];
    /// Whether a byte can have been written by `pack_group`.
    fn valid(byte: u8) -> bool;
    /// The codes in a byte, one for each plane.
    fn digits(byte: u8) -> [u8; 5];
}

/// A way to pack trits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Packing {
    /// Four 2-bit codes in a byte: 2 bits a weight.
    I2,
    /// Five base-3 digits in a byte: 1.6 bits a weight.
    T5,
}

/// `match` on a packing: binds `$layout` to its type.
macro_rules! with_layout {
    ($packing:expr, $layout:ident => $body:expr) => {
        match $packing {
            $crate::packing::Packing::I2 => {
                type $layout = $crate::packing::I2;
                $body
            }
            $crate::packing::Packing::T5 => {
                type $layout = $crate::packing::T5;
                $body
            }
        }
    };
}
pub(crate) use with_layout;

impl Packing {
    /// Every packing.
    pub const ALL: [Packing; 2] = [Packing::I2, Packing::T5];

    /// The packing that decodes fastest from memory with these instructions: T5 reads a fifth less than I2, which pays where
    /// its digits are unpacked nearly as quickly.
    pub fn quickest(cpu: Cpu) -> Packing {
        struct Quickest;
        impl Kernel for Quickest {
            type Output = Packing;
            #[inline(always)]
            fn run<I: Isa>(self, _: I) -> Packing {
                if I::UNPACKS_T5 { Packing::T5 } else { Packing::I2 }
            }
        }
        cpu.run(Quickest)
    }

    /// The name used in logs, files and options.
    pub fn name(self) -> &'static str {
        match self {
            Packing::I2 => "i2",
            Packing::T5 => "t5",
        }
    }

    /// The packing of this name.
    pub fn from_name(name: &str) -> Option<Packing> {
        Self::ALL.into_iter().find(|packing| packing.name() == name)
    }

    /// Columns of one 64-byte block.
    pub fn block_cols(self) -> usize {
        4 * with_layout!(self, L => L::PLANES)
    }

    /// Bytes of one group of 16 rows.
    pub fn group_len(self, cols: usize) -> usize {
        cols.div_ceil(self.block_cols()) * size_of::<Block>()
    }

    /// Bytes of a matrix; `None` if they cannot be counted.
    pub fn blocks_len(self, rows: usize, cols: usize) -> Option<usize> {
        let blocks = cols.div_ceil(self.block_cols()).checked_mul(size_of::<Block>())?;
        rows.div_ceil(ROWS).checked_mul(blocks)
    }

    /// Packs up to 16 rows of trits (row-major, `cols` each) into the bytes of one group.
    ///
    /// # Panics
    /// If `trits` is not a whole number of rows up to 16, or `out` is not [`Packing::group_len`] long.
    pub fn pack_group(self, trits: &[i8], cols: usize, out: &mut [u8]) {
        let rows = trits.len().checked_div(cols).unwrap_or(0);
        assert!(rows <= ROWS && rows * cols == trits.len(), "{} trits are no rows of {cols}", trits.len());
        assert_eq!(out.len(), self.group_len(cols), "length of a group");
        with_layout!(self, L => pack_group::<L>(trits, rows, cols, out));
    }

    /// Unpacks row `row` (0..16) of a group.
    ///
    /// # Panics
    /// If `group` is not [`Packing::group_len`] of `out`'s columns long.
    pub fn unpack_row(self, group: &[u8], row: usize, out: &mut [i8]) {
        assert!(row < ROWS, "row {row} of a group of 16");
        assert_eq!(group.len(), self.group_len(out.len()), "length of a group");
        with_layout!(self, L => unpack_row::<L>(group, row, out));
    }

    /// The first byte that no packing writes, if any: it would stand for a weight outside -1..=1.
    pub fn invalid_byte(self, blocks: &[u8]) -> Option<usize> {
        with_layout!(self, L => {
            // Whole blocks first, so that the common case is a vectorised scan.
            blocks.chunks(4096).position(|chunk| !chunk.iter().fold(true, |ok, &b| ok & L::valid(b)))
                .and_then(|chunk| (chunk * 4096..blocks.len()).find(|&at| !L::valid(blocks[at])))
        })
    }
}

fn pack_group<L: Layout>(trits: &[i8], rows: usize, cols: usize, out: &mut [u8]) {
    /// The codes of four zero trits.
    const ZEROS: u32 = 0x0101_0101;
    let (blocks, _) = out.as_chunks_mut::<64>();
    let empty: u32 = (0..L::PLANES).map(|p| ZEROS * u32::from(L::WEIGHTS[p])).sum();
    for row in 0..ROWS {
        let mut pieces = trits[(row.min(rows) * cols)..].get(..cols).unwrap_or(&[]).chunks(4 * L::PLANES);
        for block in &mut *blocks {
            let word = pieces.next().map_or(empty, |piece| join::<L>(piece));
            block[4 * row..4 * row + 4].copy_from_slice(&word.to_le_bytes());
        }
    }
}

/// The four bytes of one row in a block: its trits (at most `4 * PLANES`), a quad for each plane, all four lanes of a
/// u32 at once; no lane carries into the next.
#[inline(always)]
fn join<L: Layout>(piece: &[i8]) -> u32 {
    let mut trits = [0i8; 20];
    trits[..piece.len()].copy_from_slice(piece);
    let (quads, _) = trits.as_chunks::<4>();
    (0..L::PLANES)
        .map(|p| u32::from_le_bytes(quads[p].map(|trit| (trit + 1) as u8)) * u32::from(L::WEIGHTS[p]))
        .sum()
}

fn unpack_row<L: Layout>(group: &[u8], row: usize, out: &mut [i8]) {
    let (blocks, _) = group.as_chunks::<64>();
    for (block, out) in blocks.iter().zip(out.chunks_mut(4 * L::PLANES)) {
        for (at, trit) in out.iter_mut().enumerate() {
            let (byte, plane) = (block[4 * row + at % 4], at / 4);
            let below =
                L::WEIGHTS[plane + 1..L::PLANES].iter().rev().fold(byte, |byte, weight| byte % weight);
            *trit = (below / L::WEIGHTS[plane]) as i8 - 1;
        }
    }
}
