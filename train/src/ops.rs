//! The operations of the transformer, each forward followed by its backward. None of them keeps anything: what a
//! backward needs is handed to it by `step`.
//!
//! Names: `g` is the gradient of the loss by an operation's output; `dx` by its input `x`. Shapes are in comments:
//! `rows` are tokens.

pub mod attention;
pub mod gate;
pub mod linear;
pub mod loss;
pub mod norm;
pub mod quantiser;
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
}
