//! The operations of the transformer, each forward followed by its backward. None of them keeps anything: what a
//! backward needs is handed to it by `step`.
//!
//! Names: `g` is the gradient of the loss by an operation's output; `dx` by its input `x`. Shapes are in comments:
//! `rows` are tokens.

pub mod attention;
pub mod bias;
pub mod cache;
pub mod gate;
pub mod linear;
pub mod lora;
pub mod loss;
pub mod norm;
pub mod quantiser;
pub mod relation;
pub mod rope;

use tern_kernels::{Cpu, Pool};

/// What everything runs on.
#[derive(Clone, Copy, Debug)]
pub struct Machine<'a> {
    /// The instruction set.
    pub cpu: Cpu,
    /// The threads.
    pub pool: &'a Pool,
}

/// Numbers that a thread takes at a time in passes that go number by number.
pub(crate) const PIECE: usize = 1 << 14;

impl Machine<'_> {
    /// `x += y`.
    pub fn add(self, x: &mut [f32], y: &[f32]) {
        assert_eq!(x.len(), y.len(), "lengths of a sum");
        self.pool.for_chunks(x, PIECE, |index, x| {
            let y = &y[index * PIECE..][..x.len()];
            self.cpu.vectorised(
                #[inline(always)]
                || x.iter_mut().zip(y).for_each(|(x, y)| *x += y),
            );
        });
    }

    /// `x = y + share (x - y)`.
    pub fn blend(self, x: &mut [f32], y: &[f32], share: f32) {
        assert_eq!(x.len(), y.len(), "lengths of a blend");
        self.pool.for_chunks(x, PIECE, |index, x| {
            let y = &y[index * PIECE..][..x.len()];
            self.cpu.vectorised(
                #[inline(always)]
                || x.iter_mut().zip(y).for_each(|(x, y)| *x = y + share * (*x - y)),
            );
        });
    }

    /// The Hadamard transform of the blocks of rows, which takes a gradient back as it takes numbers there.
    pub fn hadamard(self, x: &mut [f32], cols: usize, block: usize) {
        if block > 1 {
            tern_kernels::hadamard(self.cpu, self.pool, x, cols, block);
        }
    }

    /// The sum of what `each` makes of the numbers, in f64, on the caller's thread.
    pub(crate) fn sum_of(self, x: &[f32], each: impl Fn(f64) -> f64) -> f64 {
        self.cpu.vectorised(
            #[inline(always)]
            || {
                let mut lanes = [0f64; 8];
                let (whole, rest) = x.as_chunks::<8>();
                for eight in whole {
                    for i in 0..8 {
                        lanes[i] += each(f64::from(eight[i]));
                    }
                }
                lanes.iter().sum::<f64>() + rest.iter().map(|x| each(f64::from(*x))).sum::<f64>()
            },
        )
    }

    /// The same on all threads: pieces by themselves, then in order.
    pub(crate) fn sum_of_pieces(self, x: &[f32], piece: usize, each: impl Fn(f64) -> f64 + Sync) -> f64 {
        let mut sums = vec![0f64; x.len().div_ceil(piece)];
        self.pool.for_chunks(&mut sums, 1, |index, sum| {
            sum[0] = self.sum_of(&x[index * piece..((index + 1) * piece).min(x.len())], &each);
        });
        sums.iter().sum()
    }
}
