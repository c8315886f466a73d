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
#[cfg(any(test, all(target_arch = "x86_64", target_os = "linux")))]
#[derive(Debug)]
pub(crate) struct Software {
    height: usize,
}

#[cfg(any(test, all(target_arch = "x86_64", target_os = "linux")))]
impl Software {
    /// For inputs of this many rows, 1..=16.
    pub(crate) fn new(height: usize) -> Self {
        assert!((1..=SIDE).contains(&height), "tiles of {height} rows");
        Self { height }
    }
}

#[cfg(any(test, all(target_arch = "x86_64", target_os = "linux")))]
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
}
