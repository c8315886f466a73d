//! Products of one token that leave out hidden units: in a feed-forward layer with ReLU² most units are closed, and what is
//! multiplied with their zeros need not be read.
//!
//! Blocks hold 16 rows by a few columns (`packing.rs`), so that hardly any of them belongs to closed units alone. So a second
//! copy of the two matrices behind the gate lies by unit: a unit is a row of `up` ([`ByRow`]) and a column of `down`
//! ([`ByColumn`]), and all that belongs to it is one run of bytes. They are the bytes of the same packings, and their products
//! are the same exact integers: what is left out is zero.

mod columns;
mod rows;

pub use columns::ByColumn;
pub use rows::ByRow;

use crate::activations::{Activations, Rounding};
use crate::pool::Shares;
use crate::ternary::Ternary;

/// Units of the smallest piece of work given to a thread: as many as are looked at in a fraction of a microsecond.
const PIECE: usize = 64;

/// Whether a matrix has one scale a row at most, as these products want it.
fn has_whole_rows(matrix: &Ternary) -> bool {
    matrix.lanes().size() >= matrix.cols()
}

/// Says what a product of these activations would be, where it is none of ours.
fn check(x: &Activations, cols: usize) {
    assert!(x.rows() == 1 && x.rounding() == Rounding::Token, "one token with one step");
    assert_eq!(x.cols(), cols, "columns of the product");
}

/// The units of a thread that are not left out, as many ahead as are worth prefetching. Closed ones cost a look.
struct Open<'a, F> {
    shares: &'a Shares,
    /// Of how many.
    units: usize,
    is_open: F,
    list: Vec<u32>,
    /// Those of the list that were taken.
    taken: usize,
}

impl<'a, F: Fn(usize) -> bool> Open<'a, F> {
    fn new(shares: &'a Shares, units: usize, is_open: F) -> Self {
        Self { shares, units, is_open, list: Vec::new(), taken: 0 }
    }

    /// Those to come, `wanted` at least where there are so many.
    #[inline(always)]
    fn ahead(&mut self, wanted: usize) -> &[u32] {
        while self.list.len() - self.taken < wanted {
            let Some(piece) = self.shares.take() else { break };
            self.list.drain(..self.taken);
            self.taken = 0;
            let units = piece.start * PIECE..(piece.end * PIECE).min(self.units);
            // Without a branch: which are open cannot be guessed.
            let mut end = self.list.len();
            self.list.resize(end + units.len(), 0);
            for unit in units {
                self.list[end] = unit as u32;
                end += usize::from((self.is_open)(unit));
            }
            self.list.truncate(end);
        }
        &self.list[self.taken..]
    }

    /// Goes on past `count` of them.
    fn take(&mut self, count: usize) {
        self.taken += count;
    }
}
