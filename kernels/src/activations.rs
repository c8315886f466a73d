//! The other operand: rows of activations in int8, one scale a row (absmax, as BitNet b1.58 was trained).

use crate::cpu::{Cpu, Kernel};
use crate::float::rms;
use crate::isa::Isa;
use crate::pool::{Disjoint, Pool};
use crate::rounding::round;

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
    rows: Vec<Row>,
    /// For each row, the sum of every `group` codes, where a matrix asked for them; `group` is 0 before that.
    group_sums: Vec<i32>,
    group: usize,
}

/// What belongs to a row besides its codes.
#[derive(Clone, Copy, Debug)]
struct Row {
    /// What a code is worth: absmax / 127; NaN where a value was not finite.
    step: f32,
    /// The sum of the codes.
    sum: i32,
}

/// Least common multiple of the columns in a block of any packing.
const PAD: usize = 80;

impl Activations {
    /// Quantises `x`, rows of `cols` values, each first brought to unit mean square where a norm is given:
    /// `s = 127 / max(|x|max, 1e-5)`, `code = round_half_even(x * s)`.
    pub fn quantise(
        &mut self,
        cpu: Cpu,
        pool: &Pool,
        x: &[f32],
        cols: usize,
        norm: Option<Norm<'_>>,
    ) -> Result<(), NotFinite> {
        assert!(cols > 0 && x.len().is_multiple_of(cols), "{} values are no rows of {cols}", x.len());
        assert!(norm.is_none_or(|norm| norm.weight.len() == cols), "weights of the norm");
        let rows = x.len() / cols;
        let stride = cols.next_multiple_of(PAD);
        if (self.cols, self.stride) != (cols, stride) {
            self.codes.clear(); // the zeros that fill up rows lie elsewhere now
        }
        (self.cols, self.stride, self.group) = (cols, stride, 0);
        self.codes.resize(rows * stride, 0);
        self.rows.resize(rows, Row { step: 0.0, sum: 0 });
        let (codes, meta) = (Disjoint::new(&mut self.codes), Disjoint::new(&mut self.rows));
        pool.for_each(rows, |row| {
            // SAFETY: `for_each` gives a row to one thread, and rows do not overlap.
            let (codes, meta) =
                unsafe { (codes.slice(row * stride..row * stride + cols), meta.slice(row..row + 1)) };
            meta[0] = cpu.run(Quantise { x: &x[row * cols..][..cols], norm, codes });
        });
        match self.rows.iter().position(|row| row.step.is_nan()) {
            Some(row) => Err(NotFinite(row)),
            None => Ok(()),
        }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows.len()
    }
    /// Values in a row.
    pub fn cols(&self) -> usize {
        self.cols
    }
    /// The codes of a row.
    pub fn codes(&self, row: usize) -> &[i8] {
        &self.codes[row * self.stride..][..self.cols]
    }
    /// Sums up every `size` codes, for [`Activations::group_sum`].
    pub(crate) fn sum_groups(&mut self, size: usize) {
        if self.group == size {
            return;
        }
        self.group = size;
        self.group_sums.clear();
        for row in self.codes.chunks_exact(self.stride) {
            let groups = row[..self.cols].chunks(size);
            self.group_sums
                .extend(groups.map(|codes| codes.iter().map(|&code| i32::from(code)).sum::<i32>()));
        }
    }
    /// The sum of group `group` of a row's codes.
    pub(crate) fn group_sum(&self, row: usize, group: usize) -> i32 {
        self.group_sums[row * self.cols.div_ceil(self.group) + group]
    }
    /// The codes of a row and the zeros that fill it up.
    pub(crate) fn padded(&self, row: usize) -> &[i8] {
        &self.codes[row * self.stride..][..self.stride]
    }
    /// What a code of this row is worth.
    pub fn step(&self, row: usize) -> f32 {
        self.rows[row].step
    }
    /// The sum of a row's codes.
    pub fn sum(&self, row: usize) -> i32 {
        self.rows[row].sum
    }
}

/// The norm before a product: `weight * x / sqrt(mean(x²) + eps)`.
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a> {
    /// One for each column.
    pub weight: &'a [f32],
    /// Keeps the root from zero.
    pub eps: f32,
}

struct Quantise<'a> {
    x: &'a [f32],
    norm: Option<Norm<'a>>,
    codes: &'a mut [i8],
}

impl Kernel for Quantise<'_> {
    type Output = Row;

    #[inline(always)]
    fn run<I: Isa>(self, _: I) -> Row {
        match self.norm {
            Some(Norm { weight, eps }) => {
                let root = rms(self.x, eps);
                quantise(self.x.iter().zip(weight).map(|(x, weight)| x * root * weight), self.codes)
            }
            None => quantise(self.x.iter().copied(), self.codes),
        }
    }
}

/// Goes through the values twice: for the largest, then for the codes.
#[inline(always)]
fn quantise(values: impl Iterator<Item = f32> + Clone, codes: &mut [i8]) -> Row {
    // As integers the magnitudes of floats are in the floats' order, with infinity and NaN on top.
    let mut top = 0u32;
    for x in values.clone() {
        top = top.max(x.to_bits() & 0x7fff_ffff);
    }
    if top >= f32::INFINITY.to_bits() {
        return Row { step: f32::NAN, sum: 0 };
    }
    let scale = 127.0 / f32::from_bits(top).max(1e-5);
    let mut sum = 0;
    for (code, x) in codes.iter_mut().zip(values) {
        // |x * scale| <= 127 up to rounding.
        *code = round(x * scale) as i8;
        sum += i32::from(*code);
    }
    Row { step: 1.0 / scale, sum }
}
