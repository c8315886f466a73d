//! Keys and values as a cache keeps them, so that a model learns to do with one of few bits. Rounding passes gradients as they
//! are, so there is no backward: that of attention meets the rounded numbers.

use std::sync::atomic::{AtomicBool, Ordering};

use tern_kernels::Kept;

use super::Machine;
use super::linear::NotFinite;
use super::rope::Heads;

/// Replaces keys behind their rotary positions, or values, by what a cache gives back of them: `x` is `(sequence, head, position,
/// dim)`, and `starts` has for each row of a sequence where its document begins.
pub fn forward(
    on: Machine,
    kept: Kept,
    heads: Heads,
    starts: &[u32],
    x: &mut [f32],
) -> Result<(), NotFinite> {
    if kept == Kept::F32 {
        return Ok(());
    }
    let Heads { count, dim, positions } = heads;
    let is_bad = AtomicBool::new(false);
    on.pool.for_chunks(x, positions * dim, |index, head| {
        let starts = &starts[index / count * positions..][..positions];
        for ((position, row), start) in head.chunks_exact_mut(dim).enumerate().zip(starts) {
            if kept.round_trip(*start as usize == position, row).is_err() {
                // Relaxed: it is read when all are done.
                is_bad.store(true, Ordering::Relaxed);
            }
        }
    });
    if is_bad.into_inner() { Err(NotFinite) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tern_kernels::{Cpu, Pool};

    #[test]
    fn the_first_token_of_each_document_keeps_eight_bits_and_others_four() {
        let heads = Heads { count: 2, dim: 8, positions: 3 };
        // Two sequences; the second has two documents.
        let starts = [0, 0, 0, 0, 0, 2];
        let before: Vec<f32> = (0..2 * 2 * 3 * 8).map(|i| ((i * 37 % 101) as f32 - 50.0) / 7.0).collect();
        let mut after = before.clone();
        let pool = Pool::new(2);
        let on = Machine { cpu: Cpu::best(), pool: &pool };
        forward(on, Kept::Q4, heads, &starts, &mut after).unwrap();
        let is_first = |row: usize| [0, 3, 6, 8, 9, 11].contains(&row);
        for (row, (before, after)) in before.chunks(8).zip(after.chunks(8)).enumerate() {
            let mut want = before.to_vec();
            Kept::Q4.round_trip(is_first(row), &mut want).unwrap();
            assert_eq!(after, want, "row {row}");
            let mut other = before.to_vec();
            Kept::Q4.round_trip(!is_first(row), &mut other).unwrap();
            assert_ne!(after, other, "row {row}");
        }
        let mut same = before.clone();
        forward(on, Kept::F32, heads, &starts, &mut same).unwrap();
        assert_eq!(same, before);
        after[5] = f32::NAN;
        assert!(forward(on, Kept::Q8, heads, &starts, &mut after).is_err());
    }
}
