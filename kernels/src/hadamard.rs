//! The Hadamard transform: blocks of a row times the normalised matrix `H_2m = [[H_m, H_m], [H_m, -H_m]] / sqrt(2)`, in the
//! natural order. It is symmetric and its own inverse, so what is forward is also backward.
//!
//! It spreads what stands out over its block, so that four bits are enough for what had outliers (BitNet v2).

use crate::cpu::Cpu;
use crate::isa::{Isa, Kernel};
use crate::pool::Pool;

/// The largest power of two that divides `width` and is at most `most`: the length of a row's blocks.
pub fn hadamard_block(width: usize, most: usize) -> usize {
    let most = most.max(1);
    (1 << width.trailing_zeros().min(most.ilog2())).max(1)
}

/// Transforms the blocks of `x`, rows of `cols` values.
pub fn hadamard(cpu: Cpu, pool: &Pool, x: &mut [f32], cols: usize, block: usize) {
    assert!(block.is_power_of_two() && cols.is_multiple_of(block), "blocks of {block} in rows of {cols}");
    pool.for_chunks(x, cols, |_, x| cpu.run(Transform { x, block }));
}

struct Transform<'a> {
    x: &'a mut [f32],
    block: usize,
}

impl Kernel for Transform<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        transform(isa, self.x, self.block);
    }
}

/// Sums and differences of neighbours first, then of pairs, and so on; the factor comes last. Each number is one sum of one
/// order, whatever the instruction set.
#[inline(always)]
pub(crate) fn transform<I: Isa>(isa: I, x: &mut [f32], block: usize) {
    if block < 2 {
        return;
    }
    let factor = 1.0 / (block as f32).sqrt();
    for x in x.chunks_exact_mut(block) {
        let mut half = 1;
        while half < block {
            if half < 16 && block >= 16 {
                // Within a register, where loops of 1, 2, 4 and 8 would be slow.
                for x in x.as_chunks_mut::<16>().0 {
                    *x = isa.butterflies(x);
                }
                half = 16;
                continue;
            }
            for pair in x.chunks_exact_mut(2 * half) {
                let (a, b) = pair.split_at_mut(half);
                for (a, b) in a.iter_mut().zip(b) {
                    (*a, *b) = (*a + *b, *a - *b);
                }
            }
            half *= 2;
        }
        x.iter_mut().for_each(|x| *x *= factor);
    }
}
