//! What the head is multiplied with: hidden states in 16 bits, and in 8 for the screen.

use super::chance::{ACTIVATION_DITHER, Dither, PAD, guess};
use crate::activations::NotFinite;
use crate::cpu::Cpu;
use crate::float::magnitude;
use crate::isa::{Isa, Kernel};
use crate::rounding::round;

/// Largest code: 127 * 256, so that the upper byte stays an i8 after dithering.
const TOP: f32 = 32_512.0;

/// Quantised hidden states, each filled up with zeros to a multiple of 32 columns.
#[derive(Clone, Debug, Default)]
pub struct HeadInput {
    cols: usize,
    stride: usize,
    /// `(rows, stride)`: `code = round(x / step)`, |code| <= 32512.
    codes: Vec<i16>,
    /// `(rows, stride)`: `floor((code + dither) / 256)`, so that `256 * upper` is `code` in the mean over the dither.
    uppers: Vec<i8>,
    rows: Vec<Row>,
    dither: Vec<u8>,
    weight_guess: Vec<i16>,
}

/// The numbers of one hidden state.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    /// What a code is worth.
    pub step: f32,
    /// Euclidean norm of the codes.
    pub norm: f64,
    /// What the screen adds to `CELL * Σ digit * upper` to get `Σ (estimated weight code) * upper`.
    pub shift: i64,
}

impl Row {
    /// What a product of its codes and those of a row of the head with this scale is worth.
    #[inline(always)]
    pub(super) fn unit(&self, scale: f32) -> f64 {
        f64::from(scale) * f64::from(self.step)
    }
}

impl HeadInput {
    /// Quantises `x`, rows of `cols` values.
    pub fn quantise(&mut self, cpu: Cpu, x: &[f32], cols: usize) -> Result<(), NotFinite> {
        assert!(cols > 0 && x.len().is_multiple_of(cols), "{} values are no rows of {cols}", x.len());
        let rows = x.len() / cols;
        if self.cols != cols {
            self.cols = cols;
            self.stride = cols.next_multiple_of(PAD);
            self.dither = Dither::new(ACTIVATION_DITHER).take(cols);
            self.weight_guess = guess(cols);
        }
        self.codes.clear();
        self.codes.resize(rows * self.stride, 0);
        self.uppers.clear();
        self.uppers.resize(rows * self.stride, 0);
        self.rows.clear();
        for (row, x) in x.chunks_exact(cols).enumerate() {
            let at = row * self.stride..row * self.stride + cols;
            let quantise = Quantise {
                x,
                codes: &mut self.codes[at.clone()],
                uppers: &mut self.uppers[at],
                dither: &self.dither,
                guess: &self.weight_guess,
            };
            self.rows.push(cpu.run(quantise).ok_or(NotFinite(row))?);
        }
        Ok(())
    }

    /// Number of hidden states.
    pub fn rows(&self) -> usize {
        self.rows.len()
    }
    pub(super) fn cols(&self) -> usize {
        self.cols
    }
    pub(super) fn row(&self, row: usize) -> Row {
        self.rows[row]
    }
    pub(super) fn codes(&self, row: usize) -> &[i16] {
        &self.codes[row * self.stride..][..self.stride]
    }
    pub(super) fn uppers(&self, row: usize) -> &[i8] {
        &self.uppers[row * self.stride..][..self.stride]
    }
}

struct Quantise<'a> {
    x: &'a [f32],
    codes: &'a mut [i16],
    uppers: &'a mut [i8],
    dither: &'a [u8],
    guess: &'a [i16],
}

impl Kernel for Quantise<'_> {
    type Output = Option<Row>;

    #[inline(always)]
    fn run<I: Isa>(self, _: I) -> Option<Row> {
        let top = magnitude(self.x.iter().copied());
        if top == f32::INFINITY {
            return None;
        }
        let scale = TOP / top.max(1e-30);
        for (code, x) in self.codes.iter_mut().zip(self.x) {
            *code = round(x * scale) as i16;
        }
        for ((upper, &code), &dither) in self.uppers.iter_mut().zip(&*self.codes).zip(self.dither) {
            *upper = ((i32::from(code) + i32::from(dither)) >> 8) as i8;
        }
        let square = |code: &i16| i64::from(*code) * i64::from(*code);
        let squares: i64 = self.codes.iter().map(square).sum();
        let product = |(&upper, &guess): (&i8, &i16)| i64::from(upper) * i64::from(guess);
        let shift = self.uppers.iter().zip(self.guess).map(product).sum();
        Some(Row { step: 1.0 / scale, norm: (squares as f64).sqrt(), shift })
    }
}
