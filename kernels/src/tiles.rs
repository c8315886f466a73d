//! Matrix units: registers that hold tiles, and an instruction that multiplies two of them.
//!
//! A tile is up to 16 rows of 64 bytes. The product of a tile of signed bytes with one of unsigned bytes adds 16 by 16 sums of
//! 64 products each, in 32 bits that wrap around, to a third. No layout of its own is needed: lines of the right operand are
//! quads of columns of 16 rows of a matrix, as every packing unpacks them, and rows of the left one are rows of inputs where
//! they lie.
//!
//! ```text
//! left    up to 16 rows of inputs, any distance apart   [64 columns]                 signed bytes
//! right   16 quads of columns                           [16 rows of the matrix] [4]  unsigned bytes
//! sums    up to 16 rows of inputs                       [16 rows of the matrix]      i32
//! ```
//!
//! Eight registers hold four tiles of sums, two of inputs and two of the matrix: 32 inputs by 32 rows of the matrix, in which
//! four loads go with four products.

use std::ops::Range;

use crate::isa::Block;

/// Rows of a tile, lanes of 32 bits in each of them, and quads of columns that one product takes.
pub(crate) const SIDE: usize = 16;

/// What is multiplied with inputs: for each quad of columns those of 32 rows of a matrix.
pub(crate) type Line = [Block; 2];

/// Sums of 16 inputs with 16 rows of a matrix, input by input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub(crate) struct Sums(pub(crate) [[i32; SIDE]; SIDE]);

impl Sums {
    /// All zero.
    pub(crate) const ZERO: Self = Self([[0; SIDE]; SIDE]);
}

/// Some of the rows of inputs as a tile: its first row, and how many of its rows the tile before has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows {
    pub(crate) first: usize,
    pub(crate) again: usize,
}

impl Rows {
    /// Rows `16 nth..` of so many. The last 16 are a tile whatever their number, so some may be computed twice, to the same
    /// result: no tile reaches beyond the last row.
    #[inline(always)]
    pub(crate) fn of(nth: usize, count: usize) -> Self {
        let first = (SIDE * nth).min(count.saturating_sub(SIDE));
        Self { first, again: SIDE * nth - first }
    }
}

/// Tiles of inputs that pass some lines before the next do: 128 rows, whose sums stay near.
pub(crate) const TILES: usize = 8;
/// Most lines that tiles of inputs pass together, 640 columns: beside as many of the inputs they stay in the first cache.
pub(crate) const LINES: usize = 160;

/// `sums[..][half] = inputs · lines[..][half]` for tiles `nth` of `count` rows of inputs, at most `TILES` of them. As many
/// columns as there are lines are read of each row.
#[inline(always)]
pub(crate) fn product<T: Tiles>(
    tiles: &mut T,
    inputs: &[i8],
    (stride, count): (usize, usize),
    nth: Range<usize>,
    lines: &[Line],
    sums: &mut [[Sums; 2]; TILES],
) {
    for (pass, lines) in lines.chunks(LINES).enumerate() {
        let rows = |nth: usize| &inputs[Rows::of(nth, count).first * stride + 4 * LINES * pass..];
        let mut at = nth.clone();
        let (pairs, last) = sums[..nth.len()].as_chunks_mut::<2>();
        for sums in pairs {
            tiles.multiply([rows(at.start), rows(at.start + 1)], stride, lines, sums, pass == 0);
            at.start += 2;
        }
        if let Ok(sums) = last.try_into() {
            let sums: &mut [[Sums; 2]; 1] = sums;
            tiles.multiply([rows(at.start)], stride, lines, sums, pass == 0);
        }
    }
}

/// Registers for tiles of inputs of some height, which a job configured and gives back when it drops them.
pub(crate) trait Tiles {
    /// Rows of the tiles of inputs and of sums, 1..=16.
    fn height(&self) -> usize;

    /// `sums[n][half] (+)= inputs[n] · lines[..][half]` for `N` (1 or 2) tiles of inputs, whose rows begin `stride` bytes apart,
    /// over as many columns as there are lines, a multiple of 16 lines. With `fresh` the sums before are not looked at.
    /// Rows of sums from `height` on keep what they hold.
    ///
    /// # Panics
    /// If inputs are too short for that, or lines are no whole tiles.
    fn multiply<const N: usize>(
        &mut self,
        inputs: [&[i8]; N],
        stride: usize,
        lines: &[Line],
        sums: &mut [[Sums; 2]; N],
        fresh: bool,
    );

    /// So many times four products of what the registers hold then, for measuring.
    fn repeat(&mut self, inputs: &[Block; SIDE], times: usize);
}

/// Multiply-adds of the four products of [`Tiles::repeat`] with whole tiles.
pub(crate) const FOUR: usize = 4 * SIDE * SIDE * 64;

/// Signed bytes that were kept as plain ones.
pub(crate) fn signed(bytes: &[u8]) -> &[i8] {
    // SAFETY: both are single bytes, of which every value is valid; the length is the slice's own.
    unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len()) }
}

/// Asserts what [`Tiles::multiply`] demands: that all bytes it reads lie inside the slices.
#[inline(always)]
pub(crate) fn check<const N: usize>(height: usize, inputs: [&[i8]; N], stride: usize, lines: &[Line]) {
    assert!(lines.len().is_multiple_of(SIDE), "{} lines are no whole tiles", lines.len());
    // Neither overflows: lines lie in memory, and a stride is the length of rows that do.
    let needed = (height - 1).checked_mul(stride).and_then(|rows| rows.checked_add(4 * lines.len()));
    for inputs in inputs {
        assert!(needed.is_some_and(|needed| needed <= inputs.len()), "inputs of a tile");
    }
}

/// Tiles in plain Rust: the definition, which hardware must equal.
#[derive(Debug)]
pub(crate) struct Software {
    height: usize,
}

impl Software {
    /// For inputs of this many rows, 1..=16.
    pub(crate) fn new(height: usize) -> Self {
        assert!((1..=SIDE).contains(&height), "tiles of {height} rows");
        Self { height }
    }
}

impl Tiles for Software {
    fn height(&self) -> usize {
        self.height
    }

    fn multiply<const N: usize>(
        &mut self,
        inputs: [&[i8]; N],
        stride: usize,
        lines: &[Line],
        sums: &mut [[Sums; 2]; N],
        fresh: bool,
    ) {
        check(self.height, inputs, stride, lines);
        for (inputs, sums) in inputs.iter().zip(sums) {
            for (half, Sums(sums)) in sums.iter_mut().enumerate() {
                for (row, sums) in sums[..self.height].iter_mut().enumerate() {
                    if fresh {
                        *sums = [0; SIDE];
                    }
                    let quads = inputs[row * stride..][..4 * lines.len()].as_chunks::<4>().0;
                    for (line, quad) in lines.iter().zip(quads) {
                        for (sum, bytes) in sums.iter_mut().zip(line[half].as_chunks::<4>().0) {
                            for (byte, input) in bytes.iter().zip(quad) {
                                *sum = sum.wrapping_add(i32::from(*byte) * i32::from(*input));
                            }
                        }
                    }
                }
            }
        }
    }

    fn repeat(&mut self, inputs: &[Block; SIDE], times: usize) {
        let bytes = inputs.as_flattened();
        let lines = inputs.map(|line| [line; 2]);
        let mut sums = [[Sums::ZERO; 2]; 2];
        for _ in 0..times {
            let signed: [i8; 64 * SIDE] = std::array::from_fn(|i| std::hint::black_box(bytes)[i] as i8);
            self.multiply([&signed; 2], 64, &lines, &mut sums, false);
        }
        std::hint::black_box(sums);
    }
}
