//! A bias on every row: `y = x + b`.

use super::Machine;
use super::norm::sum_partials;

/// Rows that one thread takes. The order of sums depends on it, and on nothing else.
const ROWS: usize = 32;

/// `x (rows, cols) += b`.
pub fn forward(on: Machine, b: &[f32], x: &mut [f32]) {
    on.pool.for_chunks(x, ROWS * b.len(), |_, x| {
        on.cpu.vectorised(
            #[inline(always)]
            || {
                for x in x.chunks_exact_mut(b.len()) {
                    x.iter_mut().zip(b).for_each(|(x, b)| *x += b);
                }
            },
        );
    });
}

/// `db += Σ_rows g`; `dx` is `g`. `partial` is scratch.
pub fn backward(on: Machine, g: &[f32], db: &mut [f32], partial: &mut Vec<f32>) {
    let (cols, len) = (db.len(), ROWS * db.len());
    partial.clear();
    partial.resize(g.len().div_ceil(len) * cols, 0.0);
    on.pool.for_chunks(partial, cols, |index, db| {
        let g = &g[index * len..((index + 1) * len).min(g.len())];
        on.cpu.vectorised(
            #[inline(always)]
            || {
                for g in g.chunks_exact(cols) {
                    db.iter_mut().zip(g).for_each(|(db, g)| *db += g);
                }
            },
        );
    });
    sum_partials(partial, db);
}
