//! The ternary product: `y[t][r] = step[t] * Σ_groups scale * Σ_c code[t][c] * trit[r][c]`, the inner sum in exact i32; with
//! activations by group, `Σ_groups scale * step * Σ_c …`.
//!
//! Kernels work on codes `trit + 1`, unsigned as the dot-product instructions want them, and take the row-independent
//! sum of the activations off at the end: `Σ x·trit = Σ x·(trit+1) − Σ x`. With |code| ≤ 127 nothing overflows in `MAX_COLS`
//! columns.
//!
//! Four kernels: `column` streams a matrix past one token, at the memory's speed; `few` does so past up to eight; `panel`
//! unpacks a piece of the matrix once into cache and takes any number of tokens past it, at the speed of the dot-product
//! instructions; `tiled` does that on matrix units, where the set has them. `column` and `panel` have a second form for rows with
//! several scales (`segmented`).

mod column;
mod few;
mod floats;
mod panel;
mod tiled;

use std::ops::Range;

use crate::activations::{Activations, Rounding};
use crate::cpu::Cpu;
use crate::isa::Block;
use crate::packing::{ROWS, with_layout};
use crate::pool::{Disjoint, Pool, Shares};
use crate::segments::Segments;
use crate::ternary::Ternary;

use column::Column;
use few::{FEW, Few};
use floats::Floats;
use panel::Panel;
use tiled::Tiled;

pub(crate) use tiled::LEAST as LEAST_TILED;

/// One of several products of the same activations.
#[derive(Debug)]
pub struct Product<'a> {
    /// The matrix.
    pub matrix: &'a Ternary,
    /// `(x.rows(), matrix.rows())`.
    pub out: &'a mut [f32],
}

/// Row groups that a panel takes at once, and the smallest piece of work given to a thread.
const UNIT: usize = 4;

/// `out[t][r]` = row `r` times activation row `t`, for several matrices in one pass over the threads. Each output element
/// has one owner and one order of additions: neither threads nor the instruction set nor the packing change a bit of it.
pub fn products<const N: usize>(cpu: Cpu, pool: &Pool, x: &mut Activations, products: [Product<'_>; N]) {
    let mut ends = [0; N];
    let mut total = 0;
    for (product, end) in products.iter().zip(&mut ends) {
        let matrix = product.matrix;
        assert_eq!(x.cols(), matrix.cols(), "columns of the product");
        assert_eq!(product.out.len(), x.rows() * matrix.rows(), "outputs of the product");
        x.sum_segments(pool, matrix.lanes().size());
        total += matrix.rows().div_ceil(ROWS).div_ceil(UNIT);
        *end = total;
    }
    let x = &*x;
    let tasks = products.map(|Product { matrix, out }| {
        let sums = x.segment_sums(matrix.lanes().size());
        let segments = Segments::new(x.cols(), matrix.lanes().size(), x.group());
        let blocks = matrix.packing().group_len(matrix.cols()) / size_of::<Block>();
        let steps = match x.rows() {
            1 if !sums.is_empty() => {
                with_layout!(matrix.packing(), L => column::steps::<L>(x, blocks, segments, sums))
            }
            _ => Vec::new(),
        };
        Task { w: matrix, x, sums, segments: segments.count(), steps, out: Disjoint::new(out) }
    });
    let shares = Shares::new(total, pool.threads());
    pool.run(|_| {
        while let Some(piece) = shares.take() {
            let mut start = 0;
            for (task, &end) in tasks.iter().zip(&ends) {
                let (from, to) = (piece.start.max(start), piece.end.min(end));
                if from < to {
                    let groups = task.w.rows().div_ceil(ROWS);
                    task.run(cpu, (from - start) * UNIT..((to - start) * UNIT).min(groups));
                }
                start = end;
            }
        }
    });
}

impl Ternary {
    /// [`products`] of one matrix.
    pub fn matmul(&self, cpu: Cpu, pool: &Pool, x: &mut Activations, out: &mut [f32]) {
        products(cpu, pool, x, [Product { matrix: self, out }]);
    }
}

/// A product as the kernels see it.
struct Task<'a> {
    w: &'a Ternary,
    x: &'a Activations,
    /// `(x.rows(), segments)`, the sum of the activations of each; empty where there is one segment and one step.
    sums: &'a [i32],
    segments: usize,
    /// The same for the kernel of one token, if that is wanted.
    steps: Vec<column::Step>,
    out: Disjoint<'a, f32>,
}

impl Task<'_> {
    /// Does the row groups in `groups`; no other thread has them.
    fn run(&self, cpu: Cpu, groups: Range<usize>) {
        with_layout!(self.w.packing(), L => match (self.x.rounding(), self.x.rows(), self.segments) {
            (Rounding::None, ..) => cpu.run(Floats::new(self, groups)),
            _ if tiled::pays(cpu, self) => cpu.run_tiled(Tiled::<L>::new(self, groups)),
            (Rounding::Token, 1, 0 | 1) => cpu.run(Column::<L>::new(self, groups)),
            (Rounding::Token, 2..=FEW, 0 | 1) => cpu.run(Few::<L>::new(self, groups)),
            (Rounding::Token, _, 0 | 1) => cpu.run(Panel::<L>::new(self, groups)),
            (_, 1, _) => cpu.run(column::Segmented::<L>::new(self, groups)),
            _ => cpu.run(panel::Segmented::<L>::new(self, groups)),
        });
    }

    /// The runs of columns under one scale.
    #[inline(always)]
    fn segments(&self) -> Segments {
        Segments::new(self.w.cols(), self.w.lanes().size(), self.x.group())
    }

    /// The sum of the activations of a token in its segment `nth`.
    #[inline(always)]
    fn segment_sum(&self, t: usize, nth: usize) -> i32 {
        self.sums[t * self.segments + nth]
    }

    /// Scales of a row of the matrix.
    #[inline(always)]
    fn scales_per_row(&self) -> usize {
        match self.w.lanes().size() {
            size if size < self.w.cols() => self.w.cols().div_ceil(size),
            _ => 1,
        }
    }

    /// The blocks of one row group.
    #[inline(always)]
    fn blocks(&self, g: usize) -> &[Block] {
        let len = self.w.packing().group_len(self.w.cols());
        self.w.blocks()[g * len..(g + 1) * len].as_chunks().0
    }

    /// The outputs of row group `g` for token `t`, without the rows that fill up the last group.
    ///
    /// # Safety
    /// * The caller's thread is the only one that was given row group `g`, and holds no other such slice.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)] // parts of a `Disjoint`
    unsafe fn outputs(&self, g: usize, t: usize) -> &mut [f32] {
        let first = g * ROWS;
        let rows = ROWS.min(self.w.rows() - first);
        let at = t * self.w.rows() + first;
        // SAFETY: outputs of different row groups do not overlap, and the caller alone has this group.
        unsafe { self.out.slice(at..at + rows) }
    }

    /// Writes those outputs where rows have one sum: without the activations' own, scaled.
    ///
    /// # Safety
    /// As for [`Task::outputs`].
    #[inline(always)]
    unsafe fn write(&self, g: usize, t: usize, sums: &[i32; ROWS], scales: &[f32; ROWS]) {
        let (step, sum) = (self.x.step(t), self.x.sum(t));
        // SAFETY: what the caller promises; the slice ends here.
        let out = unsafe { self.outputs(g, t) };
        // Of a known length in the common case.
        if let Ok(out) = <&mut [f32; ROWS]>::try_from(&mut *out) {
            for row in 0..ROWS {
                out[row] = ((sums[row] - sum) as f32 * scales[row]) * step;
            }
        } else {
            for (row, out) in out.iter_mut().enumerate() {
                *out = ((sums[row] - sum) as f32 * scales[row]) * step;
            }
        }
    }

    /// Writes those outputs where sums were scaled and added up by segments.
    ///
    /// # Safety
    /// As for [`Task::outputs`].
    #[inline(always)]
    unsafe fn write_totals(&self, g: usize, t: usize, totals: &[f32; ROWS]) {
        let step = self.x.last_step(t);
        // SAFETY: what the caller promises; the slice ends here.
        let out = unsafe { self.outputs(g, t) };
        for (out, total) in out.iter_mut().zip(totals) {
            *out = total * step;
        }
    }
}
