//! Matrices to measure with.

use tern_kernels::{Packing, Pool, Scales, Ternary};

/// A matrix of trits in no order.
pub(crate) fn matrix(packing: Packing, rows: usize, cols: usize, scales: Scales, pool: &Pool) -> Ternary {
    Ternary::pack(packing, rows, cols, scales, pool, |row, out| {
        let mut state = row as u32 * 2 + 1;
        for trit in out {
            state = state.wrapping_mul(1664525).wrapping_add(1013904223);
            *trit = ((state >> 16) % 3) as i8 - 1;
        }
        Ok::<(), ()>(())
    })
    .expect("packing cannot fail")
}
