//! Dot products of rows of floats with many others, each with the bits of [`dot`](crate::dot): 16 sums of every sixteenth number,
//! added up by pairs.
//!
//! One dot product by itself waits for its own additions. Here a vector holds one of the 16 sums of 16 products, so that nothing waits
//! and nothing is added up across a vector. For that the right side is turned: a panel has 64 of its rows, and in it the numbers `i`,
//! `i + 16`, `i + 32` and so on of all of them lie together.

use crate::cpu::Cpu;
use crate::isa::{Isa, Kernel, Strided};
use crate::pool::Pool;

const LANES: usize = 16;
/// Rows of the left side that are taken together, and vectors of rows of the right side.
const TILE: (usize, usize) = (4, 4);
/// Rows of the right side in a panel.
const WIDTH: usize = LANES * TILE.1;

/// The right side of products, turned.
#[derive(Debug, Default)]
pub struct Panels {
    data: Vec<f32>, // (panels, 16 sums, steps, rows of a panel)
    count: usize,
    cols: usize,
}

impl Panels {
    /// Takes rows of `cols` numbers in.
    pub fn set(&mut self, pool: &Pool, x: &[f32], cols: usize) {
        assert!(cols > 0 && x.len().is_multiple_of(cols), "rows of {cols} in {}", x.len());
        (self.count, self.cols) = (x.len() / cols, cols);
        let (len, steps) = (self.panel(), self.steps());
        self.data.resize(self.count.div_ceil(WIDTH) * len, 0.0);
        pool.for_chunks(&mut self.data, len, |panel, out| {
            for (t, x) in x.chunks_exact(cols).skip(WIDTH * panel).take(WIDTH).enumerate() {
                for (step, x) in x.chunks(LANES).enumerate() {
                    for (lane, x) in x.iter().enumerate() {
                        out[(lane * steps + step) * WIDTH + t] = *x;
                    }
                }
            }
        });
    }

    /// Numbers of each sum.
    fn steps(&self) -> usize {
        self.cols.div_ceil(LANES)
    }

    /// Numbers of a panel.
    fn panel(&self) -> usize {
        LANES * self.steps() * WIDTH
    }

    /// `out[r, t] = rows[r] · x[t]`, on the calling thread.
    pub fn product(&self, cpu: Cpu, rows: &[f32], out: &mut [f32]) {
        assert!(rows.len().is_multiple_of(self.cols), "rows of {}", self.cols);
        assert_eq!(out.len(), rows.len() / self.cols * self.count, "outputs");
        if out.is_empty() {
            return;
        }
        let whole = rows.len() / self.cols / TILE.0 * TILE.0;
        let ((rows, few), (out, rest)) =
            (rows.split_at(whole * self.cols), out.split_at_mut(whole * self.count));
        cpu.run(Product { panels: self, rows, out });
        if !few.is_empty() {
            let mut rows = few.to_vec();
            rows.resize(TILE.0 * self.cols, 0.0);
            cpu.run(Product { panels: self, rows: &rows, out: rest });
        }
    }
}

/// Whole groups of rows; `out` may have fewer.
struct Product<'a> {
    panels: &'a Panels,
    rows: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let (count, cols, steps) = (self.panels.count, self.panels.cols, self.panels.steps());
        for (at, panel) in self.panels.data.chunks_exact(self.panels.panel()).enumerate() {
            let groups = self.rows.chunks_exact(TILE.0 * cols).zip(self.out.chunks_mut(TILE.0 * count));
            for (rows, out) in groups {
                let mut sums = [[[[0f32; LANES]; TILE.1]; TILE.0]; LANES];
                for (lane, sums) in sums.iter_mut().enumerate().take(cols) {
                    let left = Strided { data: &rows[lane..], row: cols, col: LANES };
                    let right = Strided { data: &panel[lane * steps * WIDTH..], row: WIDTH, col: 1 };
                    let depth = (cols - lane).div_ceil(LANES);
                    isa.float_tile::<false, { TILE.0 }, { TILE.1 }>(
                        depth,
                        left,
                        right,
                        sums.each_mut(),
                        false,
                    );
                }
                let mut half = LANES / 2;
                while half > 0 {
                    let (low, high) = sums.split_at_mut(half);
                    for (low, high) in low.iter_mut().zip(high) {
                        for m in 0..TILE.0 {
                            for v in 0..TILE.1 {
                                for i in 0..LANES {
                                    low[m][v][i] += high[m][v][i];
                                }
                            }
                        }
                    }
                    half /= 2;
                }
                for (out, sums) in out.chunks_exact_mut(count).zip(&sums[0]) {
                    let (out, sums) = (&mut out[WIDTH * at..], sums.as_flattened());
                    let some = out.len().min(WIDTH);
                    out[..some].copy_from_slice(&sums[..some]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dot;

    #[test]
    fn products_beside_others_are_those_alone() {
        let value = |i: usize| ((i * 7919 % 1013) as f32 - 506.0) / 97.0;
        let pool = Pool::new(2);
        for (rows, count, cols) in [
            (1, 1, 1),
            (3, 4, 16),
            (16, 9, 17),
            (5, 64, 100),
            (2, 70, 15),
            (7, 130, 48),
            (4, 33, 33),
            (0, 4, 8),
        ] {
            let a: Vec<f32> = (0..rows * cols).map(value).collect();
            let x: Vec<f32> = (0..count * cols).map(|i| value(i + 77)).collect();
            let mut panels = Panels::default();
            // What was there before leaves nothing.
            panels.set(&pool, &vec![f32::NAN; 3 * cols * count], cols);
            panels.set(&pool, &x, cols);
            for cpu in Cpu::available() {
                let mut out = vec![f32::NAN; rows * count];
                panels.product(cpu, &a, &mut out);
                for (r, row) in a.chunks_exact(cols).enumerate() {
                    for (t, x) in x.chunks_exact(cols).enumerate() {
                        let want = dot(cpu, row, x);
                        assert_eq!(
                            out[r * count + t].to_bits(),
                            want.to_bits(),
                            "{rows} {count} {cols}: {r} {t}"
                        );
                    }
                }
            }
        }
    }
}
