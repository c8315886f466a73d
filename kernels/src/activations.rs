//! The other operand: rows of activations in int8, one scale a row (absmax, as BitNet b1.58 was trained).

use crate::cpu::{Cpu, Kernel};
use crate::isa::Isa;

/// A row held a NaN or an infinity: the index of the first such row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotFinite(pub usize);

/// Quantised rows. Each row is filled up with zeros to whole blocks of every packing (multiples of 16 and of 20).
#[derive(Clone, Debug, Default)]
pub struct Activations {
    cols: usize,
    stride: usize,
    /// `(rows, stride)`.
    codes: Vec<i8>,
    /// For each row, what a code is worth: absmax / 127.
    steps: Vec<f32>,
    /// For each row, the sum of its codes.
    sums: Vec<i32>,
}

/// Least common multiple of the columns in a block of any packing.
const PAD: usize = 80;

impl Activations {
    /// Quantises `x`, rows of `cols` values: `s = 127 / max(|x|max, 1e-5)`, `code = round_half_even(x * s)`.
    pub fn quantise(&mut self, cpu: Cpu, x: &[f32], cols: usize) -> Result<(), NotFinite> {
        assert!(cols > 0 && x.len().is_multiple_of(cols), "{} values are no rows of {cols}", x.len());
        let rows = x.len() / cols;
        self.cols = cols;
        self.stride = cols.next_multiple_of(PAD);
        self.codes.clear();
        self.codes.resize(rows * self.stride, 0);
        self.steps.clear();
        self.sums.clear();
        for (row, x) in x.chunks_exact(cols).enumerate() {
            let codes = &mut self.codes[row * self.stride..][..cols];
            let (step, sum) = cpu.run(Quantise { x, codes }).ok_or(NotFinite(row))?;
            self.steps.push(step);
            self.sums.push(sum);
        }
        Ok(())
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.steps.len()
    }
    /// Values in a row.
    pub fn cols(&self) -> usize {
        self.cols
    }
    /// The codes of a row.
    pub fn codes(&self, row: usize) -> &[i8] {
        &self.codes[row * self.stride..][..self.cols]
    }
    /// The codes of a row and the zeros that fill it up.
    pub(crate) fn padded(&self, row: usize) -> &[i8] {
        &self.codes[row * self.stride..][..self.stride]
    }
    /// What a code of this row is worth.
    pub fn step(&self, row: usize) -> f32 {
        self.steps[row]
    }
    /// The sum of a row's codes.
    pub fn sum(&self, row: usize) -> i32 {
        self.sums[row]
    }
}

struct Quantise<'a> {
    x: &'a [f32],
    codes: &'a mut [i8],
}

/// Adding it to a number below 2^22 leaves that number, rounded half to even, in the low bits of the mantissa.
const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23

impl Kernel for Quantise<'_> {
    /// The step and the sum of the codes; `None` where a value is not finite.
    type Output = Option<(f32, i32)>;

    #[inline(always)]
    fn run<I: Isa>(self, _: I) -> Option<(f32, i32)> {
        // As integers the magnitudes of floats are in the floats' order, with infinity and NaN on top.
        let top = self.x.iter().fold(0u32, |top, x| top.max(x.to_bits() & 0x7fff_ffff));
        if top >= f32::INFINITY.to_bits() {
            return None;
        }
        let scale = 127.0 / f32::from_bits(top).max(1e-5);
        let mut sum = 0;
        for (code, x) in self.codes.iter_mut().zip(self.x) {
            // |x * scale| <= 127 up to rounding, so the low byte of the shifted mantissa is the code.
            *code = (x * scale + ROUND).to_bits() as u8 as i8;
            sum += i32::from(*code);
        }
        Some((1.0 / scale, sum))
    }
}
