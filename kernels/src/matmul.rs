//! The ternary product: `y[t][r] = step[t] * Σ_groups scale * Σ_c code[t][c] * trit[r][c]`, the inner sum in exact i32.
//!
//! Kernels work on codes `trit + 1`, unsigned as the dot-product instructions want them, and take the row-independent
//! sum of the activations off at the end: `Σ x·trit = Σ x·(trit+1) − Σ x`. With |code| ≤ 127 nothing overflows below
//! 8 million columns.

use std::marker::PhantomData;
use std::ops::Range;

use crate::activations::Activations;
use crate::cpu::{Cpu, Kernel};
use crate::isa::{Block, Isa};
use crate::packing::{Layout, ROWS, with_layout};
use crate::pool::{Disjoint, Pool};
use crate::ternary::{Scales, Ternary};

impl Ternary {
    /// `out[t][r]` = row `r` times activation row `t`; `out` is `(x.rows(), self.rows())`. Each output element has one
    /// owner and one order of additions: neither threads nor the instruction set nor the packing change a bit of it.
    pub fn matmul(&self, cpu: Cpu, pool: &Pool, x: &Activations, out: &mut [f32]) {
        assert_eq!(x.cols(), self.cols(), "columns of the product");
        assert_eq!(out.len(), x.rows() * self.rows(), "outputs of the product");
        let groups = self.rows().div_ceil(ROWS);
        let out = Disjoint::new(out);
        pool.run(|worker| {
            let share = pool.share(groups, worker);
            with_layout!(self.packing(), L => cpu.run(Product::<L> { w: self, x, out: &out, groups: share, layout: PhantomData }));
        });
    }
}

struct Product<'a, L> {
    w: &'a Ternary,
    x: &'a Activations,
    out: &'a Disjoint<'a, f32>,
    groups: Range<usize>,
    layout: PhantomData<L>,
}

impl<L: Layout> Kernel for Product<'_, L> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        match self.w.scales() {
            Scales::One(scale) => self.one_scale(isa, *scale),
            Scales::Groups { size, values } => self.grouped(isa, *size, values),
        }
    }
}

impl<L: Layout> Product<'_, L> {
    /// Walks tiles of row groups by tokens; the weights of a tile stay in cache while all tokens pass.
    #[inline(always)]
    fn one_scale<I: Isa>(&self, isa: I, scale: f32) {
        let tokens = self.x.rows();
        let mut g = self.groups.start;
        while g < self.groups.end {
            let wide = I::TILE.0 >= 4 && self.groups.end - g >= 4;
            let mut t = 0;
            while t < tokens {
                let left = tokens - t;
                let columns = if left >= 4 && I::TILE.1 >= 4 {
                    4
                } else if left >= 2 && I::TILE.1 >= 2 {
                    2
                } else {
                    1
                };
                match (wide, columns) {
                    (true, 4) => self.tile::<I, 4, 4>(isa, g, t, scale),
                    (true, 2) => self.tile::<I, 4, 2>(isa, g, t, scale),
                    (true, _) => self.tile::<I, 4, 1>(isa, g, t, scale),
                    (false, 4) => self.tile::<I, 1, 4>(isa, g, t, scale),
                    (false, 2) => self.tile::<I, 1, 2>(isa, g, t, scale),
                    (false, _) => self.tile::<I, 1, 1>(isa, g, t, scale),
                }
                t += columns;
            }
            g += if wide { 4 } else { 1 };
        }
    }

    /// `G` row groups times `C` tokens: `G * C` registers of sums, each weight block unpacked once for all tokens.
    #[inline(always)]
    fn tile<I: Isa, const G: usize, const C: usize>(&self, isa: I, g: usize, t: usize, scale: f32) {
        let mut weights: [&[Block]; G] = [&[]; G];
        for i in 0..G {
            weights[i] = self.group(g + i);
        }
        let blocks = weights[0].len();
        let mut x: [&[[i8; 4]]; C] = [&[]; C];
        for j in 0..C {
            x[j] = &self.x.padded(t + j).as_chunks().0[..blocks * L::PLANES];
        }
        let mut sums = [[isa.sums(); C]; G];
        let step = I::DOTS / L::PLANES;
        let mut start = 0;
        while start < blocks {
            let end = start.saturating_add(step).min(blocks);
            let mut part = [[isa.part(); C]; G];
            for b in start..end {
                let mut planes = [L::split(isa, isa.load(&weights[0][b])); G];
                for i in 1..G {
                    planes[i] = L::split(isa, isa.load(&weights[i][b]));
                }
                for p in 0..L::PLANES {
                    for j in 0..C {
                        let quad = x[j][b * L::PLANES + p];
                        for i in 0..G {
                            part[i][j] = isa.dot(part[i][j], planes[i].as_ref()[p], quad);
                        }
                    }
                }
            }
            for i in 0..G {
                for j in 0..C {
                    sums[i][j] = isa.widen(sums[i][j], part[i][j]);
                }
            }
            start = end;
        }
        for j in 0..C {
            let (step, sum) = (self.x.step(t + j), self.x.sum(t + j));
            for i in 0..G {
                let sums = isa.store(sums[i][j]);
                self.finish(g + i, t + j, |row| ((sums[row] - sum) as f32 * scale) * step);
            }
        }
    }

    /// One row group and one token at a time, with the float sum moved on at every border between scale groups.
    #[inline(always)]
    fn grouped<I: Isa>(&self, isa: I, size: usize, values: &[f32]) {
        let per_row = self.w.cols().div_ceil(size);
        let quads_per_group = size.div_ceil(4);
        for t in 0..self.x.rows() {
            let (x, _) = self.x.padded(t).as_chunks::<4>();
            for g in self.groups.clone() {
                let weights = self.group(g);
                let rows = ROWS.min(self.w.rows() - g * ROWS);
                let mut total = [0f32; ROWS];
                for group in 0..per_row {
                    let first = group * quads_per_group;
                    let last = (first + quads_per_group).min(weights.len() * L::PLANES);
                    let (mut sums, mut part, mut taken) = (isa.sums(), isa.part(), 0);
                    for (q, quad) in x.iter().enumerate().take(last).skip(first) {
                        let planes = L::split(isa, isa.load(&weights[q / L::PLANES]));
                        part = isa.dot(part, planes.as_ref()[q % L::PLANES], *quad);
                        taken += 1;
                        if taken == I::DOTS {
                            (sums, part, taken) = (isa.widen(sums, part), isa.part(), 0);
                        }
                    }
                    let sums = isa.store(isa.widen(sums, part));
                    let sum: i32 = x[first..last].as_flattened().iter().map(|&code| i32::from(code)).sum();
                    for row in 0..rows {
                        total[row] += (sums[row] - sum) as f32 * values[(g * ROWS + row) * per_row + group];
                    }
                }
                let step = self.x.step(t);
                self.finish(g, t, |row| total[row] * step);
            }
        }
    }

    /// The blocks of one row group.
    #[inline(always)]
    fn group(&self, g: usize) -> &[Block] {
        let len = self.w.packing().group_len(self.w.cols());
        self.w.blocks()[g * len..(g + 1) * len].as_chunks().0
    }

    /// Writes the outputs of row group `g` for token `t`, the rows that fill up the last group left out.
    #[inline(always)]
    fn finish(&self, g: usize, t: usize, value: impl Fn(usize) -> f32) {
        let first = g * ROWS;
        let rows = ROWS.min(self.w.rows() - first);
        let at = t * self.w.rows() + first;
        // SAFETY: `share` gives every row group to one worker, so no other worker touches these rows of any token.
        let out = unsafe { self.out.slice(at..at + rows) };
        for (row, out) in out.iter_mut().enumerate() {
            *out = value(row);
        }
    }
}
