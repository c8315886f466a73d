//! The product with the head: all logits, or the search for the largest ones.

use std::ops::Range;

use super::OutputHead;
use super::chance::{CELL, Reach, UPPER};
use super::input::{HeadInput, Row};
use super::screen::Scan;
use super::whole::Whole;
use crate::cpu::Cpu;
use crate::isa::{Isa, Kernel};
use crate::packing::ROWS;
use crate::pool::{Disjoint, Pool, Shares};

/// Hidden states that share one pass.
const BATCH: usize = 32;

/// Hidden states that share one tile of exact products.
const TILE: usize = 4;
/// Products that do without the screen after one where it spared less than half of the rows.
const PAUSE: u32 = 31;

/// Buffers of a product with the head, kept from one to the next, and what the last one cost.
#[derive(Debug, Default)]
pub struct HeadScratch {
    screened: Vec<usize>,          // the vectors of which only the largest logits are wanted
    sums: Vec<i32>,                // (screened vectors, rows in whole groups)
    best: Vec<Vec<(f32, u32)>>,    // (threads, screened vectors) of estimates and rows
    exact: Vec<(usize, u32, f32)>, // vector, row and logit of those that look best
    found: Vec<usize>,             // (screened vectors), how many of `exact` are its
    floors: Vec<f32>,              // (vectors)
    counts: Vec<Computed>,         // (threads)
    whole: Whole,
    pause: u32, // products until the screen is tried again
    bytes: u64,
    computed: u64,
}

/// What is wanted of the logits of each hidden state.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// How many of the largest, 0 for all.
    pub tops: &'a [usize],
    /// Rows among which those are: bit `row % 32` of word `row / 32`, as many words as the rows take for each hidden
    /// state. Empty where all rows may be. Nothing to hidden states that want all logits.
    pub allowed: &'a [u32],
}

impl<'a> Wanted<'a> {
    /// These many of all rows.
    pub fn of(tops: &'a [usize]) -> Self {
        Self { tops, allowed: &[] }
    }
}

/// Rows that a thread computed.
#[derive(Clone, Copy, Debug, Default)]
struct Computed {
    /// Each once.
    rows: u64,
    /// Once for every screened vector.
    screened: u64,
}

impl HeadScratch {
    /// Bytes of the head that the last product read: screen, scales, norms, rows.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
    /// Rows that the last product computed from their codes, each counted once for the vectors that share it, and those
    /// that were computed for a floor.
    pub fn computed(&self) -> u64 {
        self.computed
    }
}

impl OutputHead {
    /// `out[v][r]` = logit of row `r` for hidden state `v`, `(x.rows(), self.rows())`. Every logit that is among those
    /// wanted (the lower row first among equals) is the same as where all are, each other is the same or minus infinity.
    pub fn product(
        &self,
        cpu: Cpu,
        pool: &Pool,
        x: &HeadInput,
        wanted: Wanted<'_>,
        scratch: &mut HeadScratch,
        out: &mut [f32],
    ) {
        let Wanted { tops, mut allowed } = wanted;
        assert_eq!(x.cols(), self.cols, "columns of the head");
        assert_eq!((tops.len(), out.len()), (x.rows(), x.rows() * self.rows), "outputs of the head");
        assert!(allowed.is_empty() || allowed.len() == tops.len() * self.words(), "rows that are allowed");
        (scratch.bytes, scratch.computed) = (0, 0);
        if tops.iter().all(|k| *k == 0) && Whole::pays(cpu, x) {
            scratch.whole.product(cpu, pool, self, x, out);
            scratch.bytes = (self.rows * (self.stride + size_of::<f32>())) as u64;
            scratch.computed = self.rows as u64;
            return;
        }
        let mut first = 0;
        for (tops, out) in tops.chunks(BATCH).zip(out.chunks_mut(BATCH * self.rows.max(1))) {
            let own;
            (own, allowed) = allowed.split_at(allowed.len().min(tops.len() * self.words()));
            Batch { head: self, cpu, pool, x, first, tops, allowed: own }.run(scratch, out);
            first += tops.len();
        }
    }

    /// Words of a bit for each row.
    fn words(&self) -> usize {
        self.rows.div_ceil(u32::BITS as usize)
    }

    /// The logits of row `row` for `V` vectors: the one definition.
    #[inline(always)]
    fn logits<I: Isa, const V: usize>(&self, isa: I, row: usize, x: &HeadInput, vector: usize) -> [f32; V] {
        let mut codes: [&[i16]; V] = [&[]; V];
        for v in 0..V {
            codes[v] = x.codes(vector + v);
        }
        let sums = isa.row_products(&self.codes[row * self.stride..][..self.stride], codes);
        let mut logits = [0f32; V];
        for v in 0..V {
            logits[v] = (sums[v] as f64 * x.row(vector + v).unit(self.scales[row])) as f32;
        }
        logits
    }
}

/// Up to `BATCH` hidden states on their way through the head.
#[derive(Clone, Copy)]
struct Batch<'a> {
    head: &'a OutputHead,
    cpu: Cpu,
    pool: &'a Pool,
    x: &'a HeadInput,
    /// The vector in `x` of the first of this batch.
    first: usize,
    tops: &'a [usize],
    allowed: &'a [u32],
}

impl<'a> Batch<'a> {
    /// The words of this vector's rows; none where all are allowed.
    #[inline(always)]
    fn allowed(self, v: usize) -> Option<&'a [u32]> {
        let words = self.head.words();
        (self.tops[v] > 0 && !self.allowed.is_empty()).then(|| &self.allowed[v * words..][..words])
    }

    fn run(self, s: &mut HeadScratch, out: &mut [f32]) {
        let head = self.head;
        // A sixteenth of all rows is more than anybody samples from, and too many to look for.
        let screened = |v: &usize| self.tops[*v] > 0 && self.tops[*v] <= head.rows / 16;
        s.screened.clear();
        if s.pause == 0 {
            s.screened.extend((0..self.tops.len()).filter(screened));
        }
        s.pause = s.pause.saturating_sub(1);
        s.floors.clear();
        s.floors.resize(self.tops.len(), f32::NEG_INFINITY);
        s.bytes += (head.rows * size_of::<f32>()) as u64;
        if !s.screened.is_empty() {
            self.screen(s);
            self.find_floors(s);
            s.computed += s.exact.len() as u64;
            s.bytes += (s.exact.len() * head.stride) as u64;
            s.bytes += (head.screen.len() + head.rows * size_of::<f32>()) as u64;
        }
        s.counts.clear();
        s.counts.resize(self.pool.threads(), Computed::default());
        let (out, counts) = (Disjoint::new(out), Disjoint::new(&mut s.counts));
        let shares = Shares::new(head.groups(), self.pool.threads());
        self.pool.run(|worker| {
            let (screened, floors, sums) = (&s.screened, &s.floors, &s.sums);
            // SAFETY: each worker has its own element.
            let own = unsafe { counts.slice(worker..worker + 1) };
            while let Some(groups) = shares.take() {
                let count = self.cpu.run(Finish { batch: self, screened, floors, sums, groups, out: &out });
                own[0].rows += count.rows;
                own[0].screened += count.screened;
            }
        });
        let computed: u64 = s.counts.iter().map(|count| count.rows).sum();
        s.computed += computed;
        s.bytes += computed * head.stride as u64;
        let screened: u64 = s.counts.iter().map(|count| count.screened).sum();
        if 2 * screened > (s.screened.len() * head.rows) as u64 {
            s.pause = PAUSE;
        }
    }

    /// Estimates all rows, and lists for each thread and vector those that look best.
    fn screen(self, s: &mut HeadScratch) {
        let Self { head, cpu, pool, x, first, tops, .. } = self;
        let (screened, padded_rows) = (&s.screened, head.groups() * ROWS);
        s.sums.resize(screened.len() * padded_rows, 0);
        let lists = pool.threads() * screened.len();
        s.best.resize_with(s.best.len().max(lists), Vec::new);
        // Those of workers that do not come stay empty.
        s.best[..lists].iter_mut().for_each(Vec::clear);
        let (sums, best) = (Disjoint::new(&mut s.sums), Disjoint::new(&mut s.best));
        let shares = Shares::new(head.groups(), pool.threads());
        pool.run(|worker| {
            // SAFETY: each worker has its own lists.
            let lists = unsafe { best.slice(worker * screened.len()..(worker + 1) * screened.len()) };
            while let Some(groups) = shares.take() {
                let rows = groups.start * ROWS..head.rows.min(groups.end * ROWS);
                let blocks = &head.screen;
                cpu.run(Scan { blocks, x, first, vectors: screened, groups, sums: &sums, padded_rows });
                for (n, (list, &v)) in lists.iter_mut().zip(screened).enumerate() {
                    let at = n * padded_rows;
                    // SAFETY: these are sums of row groups that this worker took, which nobody writes any more.
                    let sums = unsafe { sums.slice(at + rows.start..at + rows.end) };
                    cpu.run(Best {
                        head,
                        sums,
                        row: x.row(first + v),
                        first: rows.start,
                        k: trials(tops[v]),
                        allowed: self.allowed(v),
                        list,
                    });
                }
            }
        });
    }

    /// Computes those that look best of all: the k-th largest of their logits is a floor under the k largest.
    fn find_floors(self, s: &mut HeadScratch) {
        let Self { head, cpu, pool, x, first, tops, .. } = self;
        let count = s.screened.len();
        s.exact.clear();
        s.found.clear();
        for (n, &v) in s.screened.iter().enumerate() {
            let (mine, others) = s.best.split_at_mut(count);
            let mine = &mut mine[n];
            for others in others.chunks(count).take(pool.threads() - 1) {
                mine.extend_from_slice(&others[n]);
            }
            keep_best(mine, trials(tops[v]));
            s.found.push(mine.len());
            s.exact.extend(mine.iter().map(|&(_, row)| (v, row, 0.0)));
        }
        pool.for_chunks(&mut s.exact, 4, |_, chunk| {
            for (v, row, logit) in chunk {
                *logit = cpu.run(One { head, x, vector: first + *v, row: *row as usize });
            }
        });
        let mut rest = &mut s.exact[..];
        for (&v, &found) in s.screened.iter().zip(&s.found) {
            let (mine, others) = rest.split_at_mut(found);
            // Where fewer rows are allowed than wanted, there is no floor: all of them are computed.
            if found >= tops[v] {
                let (_, last, _) = mine.select_nth_unstable_by(tops[v] - 1, |a, b| b.2.total_cmp(&a.2));
                s.floors[v] = last.2;
            }
            rest = others;
        }
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

/// The least estimate of a list.
#[inline(always)]
fn least(list: &[(f32, u32)]) -> f32 {
    list.iter().fold(f32::INFINITY, |least, (estimate, _)| least.min(*estimate))
}

/// Keeps the `k` rows with the largest estimates, those of one more piece among them.
struct Best<'a> {
    head: &'a OutputHead,
    /// Of the rows of the piece.
    sums: &'a [i32],
    row: Row,
    /// The first row of the piece; pieces come in rising order.
    first: usize,
    k: usize,
    allowed: Option<&'a [u32]>,
    list: &'a mut Vec<(f32, u32)>,
}

/// Whether a row's bit is set.
#[inline(always)]
fn has(allowed: Option<&[u32]>, row: usize) -> bool {
    allowed.is_none_or(|words| words[row / 32] >> (row % 32) & 1 == 1)
}

impl Kernel for Best<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        let (cell, shift) = (CELL as f32, self.row.shift as f32);
        let scales = &self.head.scales[self.first..][..self.sums.len()];
        let mut bound = if self.list.len() < self.k { f32::NEG_INFINITY } else { least(self.list) };
        let ((sums, last_sums), (scales, last_scales)) = (self.sums.as_chunks(), scales.as_chunks());
        // The rows past the last whole group, filled up.
        let (mut rest_sums, mut rest_scales) = ([0; ROWS], [0f32; ROWS]);
        for (i, (&sum, &scale)) in last_sums.iter().zip(last_scales).enumerate() {
            (rest_sums[i], rest_scales[i]) = (sum, scale);
        }
        for block in 0..sums.len() + 1 {
            let (sums, scales, count) = match sums.get(block) {
                Some(sums) => (sums, &scales[block], ROWS),
                None => (&rest_sums, &rest_scales, last_sums.len()),
            };
            let mut estimates = [0f32; ROWS];
            let mut above = false;
            for i in 0..ROWS {
                estimates[i] = (cell * sums[i] as f32 + shift) * scales[i];
                above |= estimates[i] > bound;
            }
            if !above {
                continue;
            }
            for (at, &estimate) in estimates[..count].iter().enumerate() {
                let row = self.first + block * ROWS + at;
                if estimate > bound && has(self.allowed, row) {
                    self.list.push((estimate, row as u32));
                    if self.list.len() >= 2 * self.k {
                        keep_best(self.list, self.k);
                        bound = least(self.list);
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
    fn run<I: Isa>(self, isa: I) -> f32 {
        let [logit] = self.head.logits(isa, self.row, self.x, self.vector);
        logit
    }
}

/// Writes the logits of some row groups: those that can reach the floor, minus infinity for the others.
struct Finish<'a> {
    batch: Batch<'a>,
    screened: &'a [usize],
    floors: &'a [f32],
    sums: &'a [i32],
    groups: Range<usize>,
    out: &'a Disjoint<'a, f32>,
}

impl Kernel for Finish<'_> {
    type Output = Computed;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Computed {
        let Batch { head, tops, .. } = self.batch;
        let mut reaches = [Reach { weights: 0.0, inputs: 0.0 }; BATCH];
        for &v in self.screened {
            reaches[v] = Reach::of(tops[v]);
        }
        let mut computed = Computed::default();
        for g in self.groups.clone() {
            let rows = g * ROWS..head.rows.min((g + 1) * ROWS);
            let all = (1u32 << rows.len()) - 1;
            // One bit for each row that is to be computed.
            let mut masks = [all; BATCH];
            if !self.batch.allowed.is_empty() {
                // The 16 rows of a group are half of a word.
                for (v, mask) in masks[..tops.len()].iter_mut().enumerate() {
                    *mask &= self.batch.allowed(v).map_or(all, |words| words[g / 2] >> (g % 2 * ROWS));
                }
            }
            for (n, &v) in self.screened.iter().enumerate() {
                let sums = &self.sums[n * head.groups() * ROWS + rows.start..][..rows.len()];
                masks[v] &= self.reaching(sums, rows.clone(), v, reaches[v]);
                computed.screened += u64::from(masks[v].count_ones());
            }
            let (mut v, mut any) = (0, 0);
            while v < tops.len() {
                if tops.len() - v >= TILE && masks[v..v + TILE] == [all; TILE] {
                    self.write::<I, TILE>(isa, rows.clone(), v, all);
                    (v, any) = (v + TILE, all);
                } else {
                    self.write::<I, 1>(isa, rows.clone(), v, masks[v]);
                    (v, any) = (v + 1, any | masks[v]);
                }
            }
            computed.rows += u64::from(any.count_ones());
        }
        computed
    }
}

impl Finish<'_> {
    /// The rows of a group for `V` vectors, those without a bit minus infinity.
    #[inline(always)]
    fn write<I: Isa, const V: usize>(&self, isa: I, rows: Range<usize>, v: usize, mask: u32) {
        let Batch { head, x, first, .. } = self.batch;
        let mut block = [[f32::NEG_INFINITY; ROWS]; V];
        for at in 0..rows.len() {
            if (mask >> at) & 1 == 1 {
                let logits = head.logits::<I, V>(isa, rows.start + at, x, first + v);
                for n in 0..V {
                    block[n][at] = logits[n];
                }
            }
        }
        for n in 0..V {
            let start = (v + n) * head.rows + rows.start;
            // SAFETY: each row group belongs to one worker, so no other writes these rows of any vector.
            let out = unsafe { self.out.slice(start..start + rows.len()) };
            for (out, logit) in out.iter_mut().zip(&block[n]) {
                *out = *logit;
            }
        }
    }

    /// One bit for each row whose logit can reach the floor.
    #[inline(always)]
    fn reaching(&self, sums: &[i32], rows: Range<usize>, v: usize, reach: Reach) -> u32 {
        let Batch { head, x, first, .. } = self.batch;
        let x = x.row(first + v);
        let (base, floor) = (f64::from(UPPER) * x.shift as f64 + reach.weights * x.norm, self.floors[v]);
        let per_sum = f64::from(UPPER * CELL);
        let (scales, norms) = (&head.scales[rows.clone()], &head.norms[rows]);
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
