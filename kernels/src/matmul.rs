//! The ternary product: `y[t][r] = step[t] * Σ_groups scale * Σ_c code[t][c] * trit[r][c]`, the inner sum in exact i32.
//!
//! Kernels work on codes `trit + 1`, unsigned as the dot-product instructions want them, and take the row-independent
//! sum of the activations off at the end: `Σ x·trit = Σ x·(trit+1) − Σ x`. With |code| ≤ 127 nothing overflows in `MAX_COLS`
//! columns.
//!
//! Two kernels: `column` streams a matrix past one token, at the memory's speed; `panel` unpacks a piece of the matrix
//! once into cache and takes any number of tokens past it, at the speed of the dot-product instructions.

mod column;
mod panel;

use std::ops::Range;

use crate::activations::Activations;
use crate::cpu::Cpu;
use crate::isa::Block;
use crate::packing::{ROWS, with_layout};
use crate::pool::{Disjoint, Pool, Shares};
use crate::ternary::{Scales, Ternary};

use column::Column;
use panel::Panel;

/// One of several products of the same activations.
#[derive(Debug)]
pub struct Product<'a> {
    /// The matrix.
    pub matrix: &'a Ternary,
    /// `(x.rows(), matrix.rows())`.
    pub out: &'a mut [f32],
}

/// Row groups that a kernel takes at once, and the smallest piece of work given to a thread.
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
        if let Scales::Groups { size, .. } = matrix.scales() {
            x.sum_groups(*size);
        }
        total += matrix.rows().div_ceil(ROWS).div_ceil(UNIT);
        *end = total;
    }
    let x = &*x;
    let tasks = products.map(|Product { matrix, out }| Task { w: matrix, x, out: Disjoint::new(out) });
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
    out: Disjoint<'a, f32>,
}

impl Task<'_> {
    /// Does the row groups in `groups`; no other thread has them.
    fn run(&self, cpu: Cpu, groups: Range<usize>) {
        let one_sum = match self.w.scales() {
            Scales::One(_) => true,
            Scales::Groups { size, .. } => *size >= self.w.cols(),
        };
        with_layout!(self.w.packing(), L => {
            if self.x.rows() == 1 && one_sum {
                cpu.run(Column::<L>::new(self, groups));
            } else {
                cpu.run(Panel::<L>::new(self, groups));
            }
        });
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
}
