//! The other operand: rows of activations in int8 with one scale a row (absmax, as BitNet b1.58 was trained), or one for every
//! 128 values, or floats as they are, for families that were trained with float activations. BitNet a4.8 and v2 round to four
//! bits, leave out the smaller half, and transform rows before: `quantisers.rs`.

use crate::cpu::Cpu;
use crate::float::rms;
use crate::hadamard::transform;
use crate::isa::{Isa, Kernel};
use crate::pool::{Disjoint, Pool};
use crate::scales::MAX_COLS;
use crate::segments::Segments;

mod quantisers;

use self::quantisers::{absmax, absmean, top_half};

/// A row held a NaN or an infinity: the index of the first such row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotFinite(pub usize);

/// How activations are rounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Rounding {
    /// int8, one scale for a row.
    #[default]
    Token,
    /// int8, one scale for every 128 values of a row.
    Group,
    /// Not at all: f32.
    None,
    /// int4, one scale for a row by the mean of its magnitudes (BitNet a4.8 and v2).
    Int4,
    /// int8, one scale for a row, of which the half with the smaller magnitudes is zero (BitNet a4.8).
    TopHalf,
}

impl Rounding {
    /// Every way.
    pub const ALL: [Rounding; 5] =
        [Rounding::Token, Rounding::Group, Rounding::None, Rounding::Int4, Rounding::TopHalf];

    /// The name used in logs and options.
    pub fn name(self) -> &'static str {
        match self {
            Rounding::Token => "int8-token",
            Rounding::Group => "int8-group",
            Rounding::None => "f32",
            Rounding::Int4 => "int4-token",
            Rounding::TopHalf => "int8-top-half",
        }
    }

    /// The way of this name.
    pub fn from_name(name: &str) -> Option<Rounding> {
        Self::ALL.into_iter().find(|rounding| rounding.name() == name)
    }
}

/// What is done to a row before its product, behind its norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intake {
    /// How it is rounded.
    pub rounding: Rounding,
    /// The length of the blocks that a Hadamard transform takes before that; 1 for none.
    pub block: usize,
}

impl From<Rounding> for Intake {
    fn from(rounding: Rounding) -> Self {
        Self { rounding, block: 1 }
    }
}

/// Values that share a scale with [`Rounding::Group`].
const GROUP: usize = 128;

/// Quantised rows. Each row is filled up with zeros to whole blocks of every packing (multiples of 16 and of 20).
#[derive(Clone, Debug, Default)]
pub struct Activations {
    cols: usize,
    stride: usize,
    /// `(rows, stride)`.
    codes: Vec<i8>,
    rows: Vec<Row>,
    /// How the numbers are kept: those of [`Rounding::Int4`] and [`Rounding::TopHalf`] as [`Rounding::Token`].
    rounding: Rounding,
    /// `(rows, groups)` of [`Rounding::Group`]: what a code is worth.
    steps: Vec<f32>,
    /// `(rows, cols)` of [`Rounding::None`].
    floats: Vec<f32>,
    /// The sums of the codes between the borders of scales, for each size of groups of weights that a matrix has: the size and,
    /// for each row, its sums. `used` of them belong to these rows, the others are memory for those to come.
    sums: Vec<(usize, Vec<i32>)>,
    used: usize,
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
        self.set(Rounding::Token, cpu, pool, x, cols, norm)
    }

    /// As [`Activations::quantise`], rounded in another way, and transformed before where that is wanted.
    pub fn set(
        &mut self,
        intake: impl Into<Intake>,
        cpu: Cpu,
        pool: &Pool,
        x: &[f32],
        cols: usize,
        norm: Option<Norm<'_>>,
    ) -> Result<(), NotFinite> {
        assert!(cols > 0 && x.len().is_multiple_of(cols), "{} values are no rows of {cols}", x.len());
        assert!(norm.is_none_or(|norm| norm.weight.len() == cols), "weights of the norm");
        let intake = intake.into();
        assert!(cols.is_multiple_of(intake.block), "blocks of {} in rows of {cols}", intake.block);
        let rows = x.len() / cols;
        let stride = cols.next_multiple_of(PAD);
        if (self.cols, self.stride) != (cols, stride) {
            self.codes.clear(); // the zeros that fill up rows lie elsewhere now
        }
        let rounding = match intake.rounding {
            Rounding::Int4 | Rounding::TopHalf => Rounding::Token,
            kept => kept,
        };
        (self.cols, self.stride, self.rounding, self.used) = (cols, stride, rounding, 0);
        self.rows.resize(rows, Row { step: 0.0, sum: 0 });
        let (groups, width) = match rounding {
            Rounding::Group => (cols.div_ceil(GROUP), 0),
            Rounding::None => (0, cols),
            _ => (0, 0),
        };
        self.steps.resize(rows * groups, 0.0);
        self.floats.resize(rows * width, 0.0);
        self.codes.resize(if width == 0 { rows * stride } else { 0 }, 0);
        let (codes, meta) = (Disjoint::new(&mut self.codes), Disjoint::new(&mut self.rows));
        let (steps, floats) = (Disjoint::new(&mut self.steps), Disjoint::new(&mut self.floats));
        pool.for_each(rows, |row| {
            let used = if width == 0 { row * stride..row * stride + cols } else { 0..0 };
            // SAFETY: `for_each` gives a row to one thread, and rows do not overlap.
            let (codes, meta, steps, floats) = unsafe {
                (
                    codes.slice(used),
                    meta.slice(row..row + 1),
                    steps.slice(row * groups..(row + 1) * groups),
                    floats.slice(row * width..(row + 1) * width),
                )
            };
            thread_local! {
                /// A row, where it is looked at more than twice.
                static ROOM: std::cell::RefCell<Vec<f32>> = const { std::cell::RefCell::new(Vec::new()) };
            }
            let x = &x[row * cols..][..cols];
            meta[0] = ROOM
                .with_borrow_mut(|room| cpu.run(Quantise { x, norm, intake, room, codes, steps, floats }));
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
    /// How many values of a row are zero.
    pub fn zeros(&self, row: usize) -> usize {
        match self.rounding {
            Rounding::None => self.floats(row).iter().filter(|value| **value == 0.0).count(),
            _ => self.codes(row).iter().filter(|code| **code == 0).count(),
        }
    }
    /// How the rows are rounded.
    pub fn rounding(&self) -> Rounding {
        self.rounding
    }
    /// Values that share a step; as many as there can be where a row has one.
    #[inline(always)]
    pub(crate) fn group(&self) -> usize {
        if self.rounding == Rounding::Group { GROUP } else { MAX_COLS }
    }
    /// A row that was not rounded.
    pub(crate) fn floats(&self, row: usize) -> &[f32] {
        &self.floats[row * self.cols..][..self.cols]
    }
    /// Sums up the codes between the borders of scales, for a matrix in whose rows `size` columns share one.
    pub(crate) fn sum_segments(&mut self, pool: &Pool, size: usize) {
        let segments = Segments::new(self.cols, size, self.group());
        let count = segments.count();
        let is_there = self.sums[..self.used].iter().any(|sums| sums.0 == size);
        if is_there || self.rounding == Rounding::None || count < 2 && self.rounding == Rounding::Token {
            return;
        }
        if self.used == self.sums.len() {
            self.sums.push((0, Vec::new()));
        }
        let (of, sums) = &mut self.sums[self.used];
        *of = size;
        self.used += 1;
        sums.resize(self.rows.len() * count, 0);
        let (codes, stride) = (&self.codes, self.stride);
        pool.for_chunks(sums, count, |row, sums| {
            let row = &codes[row * stride..];
            for (sum, segment) in sums.iter_mut().zip(segments) {
                *sum = row[segment.columns()].iter().map(|&code| i32::from(code)).sum();
            }
        });
    }
    /// What [`Activations::sum_segments`] found for this size, row after row; empty where a row is one segment and
    /// has one step.
    pub(crate) fn segment_sums(&self, size: usize) -> &[i32] {
        self.sums[..self.used].iter().find(|sums| sums.0 == size).map_or(&[], |sums| &sums.1)
    }
    /// What a code of group `group` of a row is worth, where groups have a step each; else 1, and the row's step comes last.
    #[inline(always)]
    pub(crate) fn factor(&self, row: usize, group: usize) -> f32 {
        match self.rounding {
            Rounding::Group => self.steps[row * self.cols.div_ceil(GROUP) + group],
            _ => 1.0,
        }
    }
    /// What the sum over all groups is to be multiplied by.
    #[inline(always)]
    pub(crate) fn last_step(&self, row: usize) -> f32 {
        if self.rounding == Rounding::Group { 1.0 } else { self.rows[row].step }
    }
    /// What a code is worth in column `col` of a row.
    pub fn step_at(&self, row: usize, col: usize) -> f32 {
        self.factor(row, col / GROUP) * self.last_step(row)
    }
    /// The codes of a row and the zeros that fill it up.
    pub(crate) fn padded(&self, row: usize) -> &[i8] {
        &self.codes[row * self.stride..][..self.stride]
    }
    /// The codes of a row from quad `quad` on and those of the rows after it, [`Activations::stride`] bytes apart.
    #[inline(always)]
    pub(crate) fn rows_from(&self, row: usize, quad: usize) -> &[i8] {
        &self.codes[row * self.stride + 4 * quad..]
    }
    /// Bytes from a row's codes to the next row's.
    #[inline(always)]
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }
    /// What a code of this row is worth, if all are worth the same.
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
    intake: Intake,
    room: &'a mut Vec<f32>,
    /// Empty where the values stay as they are.
    codes: &'a mut [i8],
    /// Empty where the row has one step.
    steps: &'a mut [f32],
    floats: &'a mut [f32],
}

impl Kernel for Quantise<'_> {
    type Output = Row;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Row {
        let Self { x, norm, intake: Intake { rounding, block }, room, codes, steps, floats } = self;
        let in_two_passes = block == 1 && !matches!(rounding, Rounding::Int4 | Rounding::TopHalf);
        match norm {
            Some(Norm { weight, eps }) => {
                let root = rms(x, eps);
                let values = x.iter().zip(weight).map(|(x, weight)| x * root * weight);
                if in_two_passes {
                    return round_all(values, codes, steps, floats);
                }
                room.clear();
                room.extend(values);
            }
            None if in_two_passes => return round_all(x.iter().copied(), codes, steps, floats),
            None => {
                room.clear();
                room.extend_from_slice(x);
            }
        }
        transform(isa, room, block);
        match rounding {
            Rounding::Int4 => absmean(room, codes),
            Rounding::TopHalf => top_half(room, codes),
            _ => round_all(room.iter().copied(), codes, steps, floats),
        }
    }
}

/// One row by what is to be filled; a NaN as its step says that a value was not finite.
#[inline(always)]
fn round_all(
    values: impl Iterator<Item = f32> + Clone,
    codes: &mut [i8],
    steps: &mut [f32],
    floats: &mut [f32],
) -> Row {
    if !floats.is_empty() {
        let mut finite = true;
        for (float, x) in floats.iter_mut().zip(values) {
            *float = x;
            finite &= x.is_finite();
        }
        return Row { step: if finite { 1.0 } else { f32::NAN }, sum: 0 };
    }
    if steps.is_empty() {
        return absmax(values, codes);
    }
    let mut all = Row { step: 1.0, sum: 0 };
    let mut values = values;
    for (codes, step) in codes.chunks_mut(GROUP).zip(steps) {
        let row = absmax(values.clone().take(codes.len()), codes);
        *step = row.step;
        all.sum += row.sum;
        if row.step.is_nan() {
            all.step = f32::NAN;
        }
        for _ in 0..codes.len() {
            values.next();
        }
    }
    all
}
