//! The output head in int8, and a screen of 3 bits in front of it that finds the largest logits at a third of the
//! bytes.
//!
//! A logit is `scale of the row * step of the input * Σ code * input code`, the sum in exact integers. Where only the
//! k largest are wanted, one pass over the screen estimates every sum; the k rows that look best are computed from
//! their codes; then every row whose estimate plus its largest error reaches the worst of those k is computed too. No
//! other row can be among the k largest, except with a chance below 2^-80: docs/screened-head.md has the proof.

mod chance;
mod input;
mod parts;
mod screen;
mod search;
mod whole;

pub use input::HeadInput;
pub use search::{HeadScratch, Wanted};

use std::sync::Mutex;

use crate::buffer::Buffer;
use crate::bytes::Bytes;
use crate::cpu::Cpu;
use crate::float::magnitude;
use crate::isa::{Isa, Kernel};
use crate::packing::ROWS;
use crate::pool::{Disjoint, Pool, Shares};
use crate::rounding::round;
use chance::{CELL, Dither, PAD, WEIGHT_DITHER, guess};

/// Most columns: their sums fit 32 bits.
const MOST_COLS: usize = 1 << 20;

/// The head of a model: int8 rows with one scale each, and their screen.
#[derive(Debug)]
pub struct OutputHead {
    rows: usize,
    cols: usize,
    /// `cols` filled up to whole pieces of the screen.
    stride: usize,
    /// `(rows, stride)`, signed: `code = round(weight / scale)`, |code| <= 127.
    codes: Bytes,
    /// Groups of 16 rows, see `screen.rs`.
    screen: Bytes,
    /// `(rows)`: absmax / 127.
    scales: Vec<f32>,
    /// `(rows)`: Euclidean norm of the codes that the screen stands for, rounded up.
    norms: Vec<f32>,
}

/// Why a head cannot be built.
#[derive(Clone, Debug, PartialEq)]
pub enum BadHead<E> {
    /// A row could not be read.
    Row(E),
    /// This row holds a NaN or an infinity.
    NotFinite(usize),
}

impl OutputHead {
    /// Quantises a matrix whose rows are produced one by one, on all threads: `row(r, out)` fills `cols` values.
    pub fn build<E: Send>(
        cpu: Cpu,
        pool: &Pool,
        rows: usize,
        cols: usize,
        row: impl Fn(usize, &mut [f32]) -> Result<(), E> + Sync,
    ) -> Result<Self, BadHead<E>> {
        assert!(cols <= MOST_COLS && u32::try_from(rows).is_ok(), "a head of {rows} rows of {cols}");
        let (stride, groups) = (cols.next_multiple_of(PAD), rows.div_ceil(ROWS));
        let len = screen::group_len(cols);
        let (mut all_codes, mut all_screen) = (Buffer::zeroed(rows * stride), Buffer::zeroed(groups * len));
        let (mut all_scales, mut all_norms) = (vec![0f32; rows], vec![0f32; rows]);
        let dither = Dither::new(WEIGHT_DITHER).cells(cols);
        let guess = guess(cols);
        let failure = Mutex::new(None);
        let (codes, screen) = (Disjoint::new(&mut all_codes), Disjoint::new(&mut all_screen));
        let (scales, norms) = (Disjoint::new(&mut all_scales), Disjoint::new(&mut all_norms));
        let shares = Shares::new(groups, pool.threads());
        pool.run(|_| {
            let (mut values, mut digits) = (vec![0f32; cols], vec![0u8; stride]);
            for g in std::iter::from_fn(|| shares.take()).flatten() {
                let own = g * ROWS..rows.min((g + 1) * ROWS);
                // SAFETY: each row group, and so each of its rows, belongs to one worker.
                let (codes, group, scales, norms) = unsafe {
                    (
                        codes.slice(own.start * stride..own.end * stride),
                        screen.slice(g * len..(g + 1) * len),
                        scales.slice(own.clone()),
                        norms.slice(own.clone()),
                    )
                };
                for (at, codes) in codes.chunks_exact_mut(stride).enumerate() {
                    let number = own.start + at;
                    let read = row(number, &mut values).map_err(BadHead::Row);
                    let encode = Encode {
                        values: &values,
                        dither: &dither,
                        guess: &guess,
                        codes,
                        digits: &mut digits,
                        group: &mut *group,
                        row: at,
                    };
                    match read.and_then(|()| cpu.run(encode).ok_or(BadHead::NotFinite(number))) {
                        Ok((scale, norm)) => (scales[at], norms[at]) = (scale, norm),
                        Err(bad) => {
                            failure.lock().expect("no panic under this lock").get_or_insert(bad);
                            return;
                        }
                    }
                }
            }
        });
        match failure.into_inner().expect("no panic under this lock") {
            Some(bad) => Err(bad),
            None => {
                let (codes, screen) = (all_codes.into(), all_screen.into());
                Ok(Self { rows, cols, stride, codes, screen, scales: all_scales, norms: all_norms })
            }
        }
    }

    /// Rows: the logits.
    pub fn rows(&self) -> usize {
        self.rows
    }
    /// Groups of 16 rows, the last filled up.
    fn groups(&self) -> usize {
        self.rows.div_ceil(ROWS)
    }
    /// Columns: the width of a hidden state.
    pub fn cols(&self) -> usize {
        self.cols
    }
    /// Bytes of all rows and their scales: what a product without a screen reads.
    pub fn int8_bytes(&self) -> u64 {
        (self.rows * (self.cols + size_of::<f32>())) as u64
    }
    /// Bytes that it holds: rows, screen and the numbers of each row.
    pub fn held_bytes(&self) -> u64 {
        (self.codes.len() + self.screen.len() + size_of_val(&*self.scales) + size_of_val(&*self.norms)) as u64
    }
}

/// One row of the head in codes, digits and their numbers.
struct Encode<'a> {
    values: &'a [f32],
    dither: &'a [u8],
    guess: &'a [i16],
    codes: &'a mut [u8],
    digits: &'a mut [u8],
    group: &'a mut [u8],
    row: usize,
}

impl Kernel for Encode<'_> {
    /// Scale and norm; `None` where a value is not finite.
    type Output = Option<(f32, f32)>;

    #[inline(always)]
    fn run<I: Isa>(self, _: I) -> Option<(f32, f32)> {
        let top = magnitude(self.values.iter().copied());
        if top == f32::INFINITY {
            return None;
        }
        let scale = 127.0 / top.max(1e-30);
        for (code, x) in self.codes.iter_mut().zip(self.values) {
            *code = round(x * scale) as u8;
        }
        let Self { codes, dither, guess, digits, group, row, .. } = self;
        Some((1.0 / scale, screened(codes, dither, guess, digits, group, row)))
    }
}

/// Writes one row of the screen from its codes, each -127..=127, and tells its norm; padding gets the digits that it had.
#[inline(always)]
fn screened(
    codes: &[u8],
    dither: &[u8],
    guess: &[i16],
    digits: &mut [u8],
    group: &mut [u8],
    row: usize,
) -> f32 {
    for ((digit, &code), &dither) in digits.iter_mut().zip(codes).zip(dither) {
        let at = (i16::from(code as i8) + 127) as u16 + u16::from(dither);
        *digit = ((at * 222) >> 13) as u8; // at / CELL, right for at <= 290
    }
    let mut squares = 0i64;
    for (digits, guess) in digits.chunks(256).zip(guess.chunks(256)) {
        let mut part = 0i32; // 256 * 163² < 2^23
        for (&digit, &guess) in digits.iter().zip(guess) {
            let code = CELL as i16 * i16::from(digit) + guess;
            part += i32::from(code) * i32::from(code);
        }
        squares += i64::from(part);
    }
    screen::write_row(digits, row, group);
    ((squares as f64).sqrt() * (1.0 + 1e-6)) as f32
}
