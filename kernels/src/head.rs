//! The output head in int8, and a screen of 3 bits in front of it that finds the largest logits at a third of the
//! bytes.
//!
//! A logit is `scale of the row * step of the input * Σ code * input code`, the sum in exact integers. Where only the
//! k largest are wanted, one pass over the screen estimates every sum; the k rows that look best are computed from
//! their codes; then every row whose estimate plus its largest error reaches the worst of those k is computed too. No
//! other row can be among the k largest, except with a chance below 2^-80: docs/screened-head.md has the proof.

mod chance;
mod input;
mod rows;
mod screen;

pub use input::HeadInput;

use crate::cpu::{Cpu, Kernel};
use crate::isa::Isa;
use crate::packing::ROWS;
use crate::pool::{Disjoint, Pool};
use chance::{CELL, Dither, PAD, Reach, UPPER, WEIGHT_DITHER, guess};
use input::Row;
use screen::Scan;
use std::ops::Range;
use std::sync::Mutex;

/// Most columns: their sums fit 32 bits.
const MOST_COLS: usize = 1 << 20;
/// Hidden states that share one pass.
const BATCH: usize = 32;

/// The head of a model: int8 rows with one scale each, and their screen.
#[derive(Debug)]
pub struct OutputHead {
    rows: usize,
    cols: usize,
    /// `cols` filled up to whole pieces of the screen.
    stride: usize,
    /// `(rows, stride)`: `code = round(weight / scale)`, |code| <= 127.
    codes: Vec<i8>,
    /// Groups of 16 rows, see `screen.rs`.
    screen: Vec<u8>,
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

/// Buffers of a product with the head, kept from one to the next, and what the last one cost.
#[derive(Debug, Default)]
pub struct HeadScratch {
    sums: Vec<i32>,                // (screened vectors, rows in whole groups)
    best: Vec<Vec<(f32, u32)>>,    // (threads, screened vectors) of estimates and rows
    exact: Vec<(usize, u32, f32)>, // vector, row and logit of those that look best
    floors: Vec<f32>,              // (vectors)
    rescored: Vec<u64>,            // (threads)
    bytes: u64,
    computed: u64,
}

impl HeadScratch {
    /// Bytes of the head that the last product read: screen, scales, rows.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
    /// Rows that the last product computed from their codes, each counted once for the vectors that share it.
    pub fn computed(&self) -> u64 {
        self.computed
    }
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
        let mut head = Self {
            rows,
            cols,
            stride,
            codes: vec![0; rows * stride],
            screen: vec![0; groups * len],
            scales: vec![0.0; rows],
            norms: vec![0.0; rows],
        };
        let dither = Dither::new(WEIGHT_DITHER).cells(cols);
        let guess = guess(cols);
        let failure = Mutex::new(None);
        let (codes, screen) = (Disjoint::new(&mut head.codes), Disjoint::new(&mut head.screen));
        let (scales, norms) = (Disjoint::new(&mut head.scales), Disjoint::new(&mut head.norms));
        pool.run(|worker| {
            let (mut values, mut digits) = (vec![0f32; cols], vec![0u8; stride]);
            for g in pool.share(groups, worker) {
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
            None => Ok(head),
        }
    }

    /// Rows: the logits.
    pub fn rows(&self) -> usize {
        self.rows
    }
    /// Columns: the width of a hidden state.
    pub fn cols(&self) -> usize {
        self.cols
    }
    /// Bytes of all rows and their scales: what a product without a screen reads.
    pub fn int8_bytes(&self) -> u64 {
        (self.rows * (self.cols + size_of::<f32>())) as u64
    }
    /// Bytes of the screen, the scales and the norms: what every screened product reads.
    pub fn screen_bytes(&self) -> u64 {
        (self.screen.len() + self.rows * 2 * size_of::<f32>()) as u64
    }

    /// `out[v][r]` = logit of row `r` for hidden state `v`, `(x.rows(), self.rows())`. `tops[v]` says how many of the
    /// largest are wanted, 0 for all: every logit that is among those (the lower row first among equals) is the same as
    /// with 0, and each other is the same or minus infinity.
    pub fn product(
        &self,
        cpu: Cpu,
        pool: &Pool,
        x: &HeadInput,
        tops: &[usize],
        scratch: &mut HeadScratch,
        out: &mut [f32],
    ) {
        assert_eq!(x.cols(), self.cols, "columns of the head");
        assert_eq!((tops.len(), out.len()), (x.rows(), x.rows() * self.rows), "outputs of the head");
        (scratch.bytes, scratch.computed) = (0, 0);
        let mut first = 0;
        for (tops, out) in tops.chunks(BATCH).zip(out.chunks_mut(BATCH * self.rows.max(1))) {
            self.batch(cpu, pool, x, first, tops, scratch, out);
            first += tops.len();
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn batch(
        &self,
        cpu: Cpu,
        pool: &Pool,
        x: &HeadInput,
        first: usize,
        tops: &[usize],
        s: &mut HeadScratch,
        out: &mut [f32],
    ) {
        let groups = self.rows.div_ceil(ROWS);
        // A sixteenth of all rows is more than anybody samples from, and too many to look for.
        let screened: Vec<usize> =
            (0..tops.len()).filter(|&v| tops[v] > 0 && tops[v] <= self.rows / 16).collect();
        s.floors.clear();
        s.floors.resize(tops.len(), f32::NEG_INFINITY);
        if !screened.is_empty() {
            self.screen(cpu, pool, x, first, tops, &screened, s);
            s.bytes += self.screen_bytes();
        }
        s.rescored.clear();
        s.rescored.resize(pool.threads(), 0);
        let (out, rescored) = (Disjoint::new(out), Disjoint::new(&mut s.rescored));
        pool.run(|worker| {
            let finish = Finish {
                head: self,
                x,
                first,
                tops,
                screened: &screened,
                floors: &s.floors,
                sums: &s.sums,
                groups: pool.share(groups, worker),
                out: &out,
            };
            let count = cpu.run(finish);
            // SAFETY: each worker has its own element.
            let own = unsafe { rescored.slice(worker..worker + 1) };
            own[0] = count;
        });
        let computed: u64 = s.rescored.iter().sum();
        s.computed += computed;
        s.bytes += computed * self.stride as u64;
        if screened.is_empty() {
            s.bytes += (self.rows * size_of::<f32>()) as u64;
        }
    }

    /// Estimates all rows and finds for each screened vector the floor: a logit that its k-th largest reaches.
    #[allow(clippy::too_many_arguments)]
    fn screen(
        &self,
        cpu: Cpu,
        pool: &Pool,
        x: &HeadInput,
        first: usize,
        tops: &[usize],
        screened: &[usize],
        s: &mut HeadScratch,
    ) {
        let groups = self.rows.div_ceil(ROWS);
        let padded_rows = groups * ROWS;
        s.sums.resize(screened.len() * padded_rows, 0);
        s.best.resize(pool.threads() * screened.len(), Vec::new());
        let vectors: Vec<usize> = screened.iter().map(|v| first + v).collect();
        let (sums, best) = (Disjoint::new(&mut s.sums), Disjoint::new(&mut s.best));
        pool.run(|worker| {
            let groups = pool.share(groups, worker);
            let share = groups.start * ROWS..self.rows.min(groups.end * ROWS);
            cpu.run(Scan { blocks: &self.screen, x, vectors: &vectors, groups, sums: &sums, padded_rows });
            // SAFETY: each worker has its own lists.
            let lists = unsafe { best.slice(worker * vectors.len()..(worker + 1) * vectors.len()) };
            for (n, list) in lists.iter_mut().enumerate() {
                let at = n * padded_rows;
                // SAFETY: these are sums of this worker's row groups, which nobody writes any more.
                let sums = unsafe { sums.slice(at + share.start..at + share.end) };
                let (row, k) = (x.row(vectors[n]), trials(tops[screened[n]]));
                cpu.run(Best { head: self, sums, row, first: share.start, k, list });
            }
        });
        s.exact.clear();
        for (n, &v) in screened.iter().enumerate() {
            let (mine, others) = s.best.split_at_mut(screened.len());
            let mine = &mut mine[n];
            for others in others.chunks(screened.len()) {
                mine.extend_from_slice(&others[n]);
            }
            keep_best(mine, trials(tops[v]));
            s.exact.extend(mine.iter().map(|&(_, row)| (v, row, 0.0)));
        }
        pool.for_chunks(&mut s.exact, 4, |_, chunk| {
            for (v, row, logit) in chunk {
                *logit = cpu.run(One { head: self, x, vector: first + *v, row: *row as usize });
            }
        });
        let mut rest = &mut s.exact[..];
        for &v in screened {
            let (mine, others) = rest.split_at_mut(trials(tops[v]).min(self.rows));
            let (_, worst, _) = mine.select_nth_unstable_by(tops[v] - 1, |a, b| b.2.total_cmp(&a.2));
            s.floors[v] = worst.2;
            rest = others;
        }
    }

    /// The one definition of a logit.
    #[inline(always)]
    fn logit(&self, row: usize, x: &HeadInput, vector: usize) -> f32 {
        let sum = rows::product(&self.codes[row * self.stride..][..self.stride], x.codes(vector));
        (sum as f64 * self.unit(row, x.row(vector))) as f32
    }

    /// What a product of codes is worth.
    #[inline(always)]
    fn unit(&self, row: usize, x: Row) -> f64 {
        f64::from(self.scales[row]) * f64::from(x.step)
    }
}

/// Rows that are computed to find the floor of the `k` largest: some more than `k`, because the best estimate seldom
/// belongs to the largest logit, and a higher floor saves more rows than these are.
fn trials(k: usize) -> usize {
    k + k.min(32) + 15
}

/// Falling estimates, equal ones by rising row: the order in which rows are chosen, on any number of threads.
fn keep_best(list: &mut Vec<(f32, u32)>, k: usize) {
    if list.len() > k {
        list.select_nth_unstable_by(k - 1, |a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        list.truncate(k);
    }
}

/// One row of the head in codes, digits and their numbers.
struct Encode<'a> {
    values: &'a [f32],
    dither: &'a [u8],
    guess: &'a [i16],
    codes: &'a mut [i8],
    digits: &'a mut [u8],
    group: &'a mut [u8],
    row: usize,
}

impl Kernel for Encode<'_> {
    /// Scale and norm; `None` where a value is not finite.
    type Output = Option<(f32, f32)>;

    #[inline(always)]
    fn run<I: Isa>(self, _: I) -> Option<(f32, f32)> {
        const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23, see activations.rs
        let top = self.values.iter().fold(0u32, |top, x| top.max(x.to_bits() & 0x7fff_ffff));
        if top >= f32::INFINITY.to_bits() {
            return None;
        }
        let scale = 127.0 / f32::from_bits(top).max(1e-30);
        for (code, x) in self.codes.iter_mut().zip(self.values) {
            *code = (x * scale + ROUND).to_bits() as u8 as i8;
        }
        for ((digit, &code), &dither) in self.digits.iter_mut().zip(&*self.codes).zip(self.dither) {
            let at = (i16::from(code) + 127) as u16 + u16::from(dither);
            *digit = ((at * 222) >> 13) as u8; // at / CELL, right for at <= 290
        }
        let mut squares = 0i64;
        for (digits, guess) in self.digits.chunks(256).zip(self.guess.chunks(256)) {
            let mut part = 0i32; // 256 * 163² < 2^23
            for (&digit, &guess) in digits.iter().zip(guess) {
                let code = CELL as i16 * i16::from(digit) + guess;
                part += i32::from(code) * i32::from(code);
            }
            squares += i64::from(part);
        }
        screen::write_row(self.digits, self.row, self.group);
        Some((1.0 / scale, ((squares as f64).sqrt() * (1.0 + 1e-6)) as f32))
    }
}

/// The `k` rows of a share with the largest estimates.
struct Best<'a> {
    head: &'a OutputHead,
    /// Of the rows of the share.
    sums: &'a [i32],
    row: Row,
    /// The first row of the share.
    first: usize,
    k: usize,
    list: &'a mut Vec<(f32, u32)>,
}

impl Kernel for Best<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        self.list.clear();
        let (cell, shift) = (CELL as f32, self.row.shift as f32);
        let scales = &self.head.scales[self.first..][..self.sums.len()];
        let mut bound = f32::NEG_INFINITY;
        for (block, (sums, scales)) in self.sums.chunks(ROWS).zip(scales.chunks(ROWS)).enumerate() {
            let mut estimates = [f32::NEG_INFINITY; ROWS];
            let mut above = false;
            for ((estimate, &sum), &scale) in estimates.iter_mut().zip(sums).zip(scales) {
                *estimate = (cell * sum as f32 + shift) * scale;
                above |= *estimate > bound;
            }
            if !above {
                continue;
            }
            for (at, &estimate) in estimates[..sums.len()].iter().enumerate() {
                if estimate > bound {
                    self.list.push((estimate, (self.first + block * ROWS + at) as u32));
                    if self.list.len() >= 2 * self.k {
                        keep_best(self.list, self.k);
                        bound =
                            self.list.iter().fold(f32::INFINITY, |least, (estimate, _)| least.min(*estimate));
                    }
                }
            }
        }
        keep_best(self.list, self.k);
    }
}

/// One logit.
struct One<'a> {
    head: &'a OutputHead,
    x: &'a HeadInput,
    vector: usize,
    row: usize,
}

impl Kernel for One<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<I: Isa>(self, _: I) -> f32 {
        self.head.logit(self.row, self.x, self.vector)
    }
}

/// Writes the logits of a share of the row groups: those that can reach the floor, minus infinity for the others.
struct Finish<'a> {
    head: &'a OutputHead,
    x: &'a HeadInput,
    /// The vector in `x` of the first of this batch.
    first: usize,
    tops: &'a [usize],
    screened: &'a [usize],
    floors: &'a [f32],
    sums: &'a [i32],
    groups: Range<usize>,
    out: &'a Disjoint<'a, f32>,
}

impl Kernel for Finish<'_> {
    /// Rows that were computed.
    type Output = u64;

    #[inline(always)]
    fn run<I: Isa>(self, _: I) -> u64 {
        let head = self.head;
        let padded_rows = head.rows.div_ceil(ROWS) * ROWS;
        let mut reaches = [Reach { weights: 0.0, inputs: 0.0 }; BATCH];
        for &v in self.screened {
            reaches[v] = Reach::of(self.tops[v]);
        }
        let mut computed = 0;
        for g in self.groups.clone() {
            let rows = g * ROWS..head.rows.min((g + 1) * ROWS);
            let (mut any, mut n) = (0u32, 0);
            for v in 0..self.tops.len() {
                let mut mask = (1u32 << rows.len()) - 1;
                if self.screened.get(n) == Some(&v) {
                    let sums = &self.sums[n * padded_rows + rows.start..][..rows.len()];
                    mask = self.reaching(sums, rows.clone(), v, reaches[v]);
                    n += 1;
                }
                any |= mask;
                // SAFETY: each row group belongs to one worker, so no other writes these rows of any vector.
                let out = unsafe { self.out.slice(v * head.rows + rows.start..v * head.rows + rows.end) };
                for (at, logit) in out.iter_mut().enumerate() {
                    *logit = match mask >> at & 1 {
                        0 => f32::NEG_INFINITY,
                        _ => head.logit(rows.start + at, self.x, self.first + v),
                    };
                }
            }
            computed += u64::from(any.count_ones());
        }
        computed
    }
}

impl Finish<'_> {
    /// One bit for each row whose logit can reach the floor.
    #[inline(always)]
    fn reaching(&self, sums: &[i32], rows: Range<usize>, v: usize, reach: Reach) -> u32 {
        let x = self.x.row(self.first + v);
        let (base, floor) = (f64::from(UPPER) * x.shift as f64 + reach.weights * x.norm, self.floors[v]);
        let per_sum = f64::from(UPPER * CELL);
        let (scales, norms) = (&self.head.scales[rows.clone()], &self.head.norms[rows]);
        let mut mask = 0;
        for (at, ((&sum, &scale), &norm)) in sums.iter().zip(scales).zip(norms).enumerate() {
            let most = per_sum * f64::from(sum) + base + reach.inputs * f64::from(norm);
            // Rounded to f32 as logits are: rounding keeps the order.
            let most = (most * (f64::from(scale) * f64::from(x.step))) as f32;
            mask |= u32::from(most >= floor) << at;
        }
        mask
    }
}
