//! How the work of a forward pass is cut. No cut changes a bit of a result.

use std::ops::Range;

use super::format::CHUNK;
use super::{COLUMNS, Heads};

/// Where a row stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which of the sequences it belongs to.
    pub sequence: usize,
    /// Tokens before it.
    pub position: usize,
}

/// A tile over some chunks. Its columns are queries of the rows `order[first_row..]` and of key-value head `head`:
/// column `c` is query head `c % group` of the head, of row `c / group`.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) first_row: usize,
    pub(super) head: usize,
    pub(super) columns: Range<usize>,
    pub(super) chunks: Range<usize>,
    /// Whether the sums of single chunks are kept, to be joined later.
    pub(super) split: bool,
}

#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Row by row.
    pub(super) places: Vec<Place>,
    /// Rows sorted by sequence and position.
    pub(super) order: Vec<usize>,
    /// For each sequence that has rows, where they are in `order`; the longest sequences first.
    pub(super) runs: Vec<Range<usize>>,
    pub(super) items: Vec<Item>,
    /// For each row the first of its `(heads, chunks)` slots for sums of single chunks.
    first_slots: Vec<Option<usize>>,
    /// How many there are.
    pub(super) slots: usize,
}

impl Plan {
    pub(super) fn make(&mut self, heads: Heads, threads: usize, places: impl Iterator<Item = Place>) {
        /// Tiles for each thread from which they are not cut into chunks.
        const ENOUGH: usize = 8;
        self.places.clear();
        self.places.extend(places);
        let places = &self.places;
        self.order.clear();
        self.order.extend(0..places.len());
        // By row last: no two keys are equal, and an unstable sort needs no memory.
        self.order.sort_unstable_by_key(|&row| (places[row].sequence, row));
        self.runs.clear();
        let mut start = 0;
        for run in self.order.chunk_by(|&a, &b| places[a].sequence == places[b].sequence) {
            assert!(
                run.windows(2).all(|pair| places[pair[0]].position < places[pair[1]].position),
                "positions ascend"
            );
            self.runs.push(start..start + run.len());
            start += run.len();
        }
        let last = |run: &Range<usize>| places[self.order[run.end - 1]].position;
        self.runs.sort_unstable_by_key(|run| (std::cmp::Reverse(last(run)), run.start));

        let group = heads.query / heads.kv;
        let tiles: usize = self.runs.iter().map(|run| heads.kv * (run.len() * group).div_ceil(COLUMNS)).sum();
        let split = threads > 1 && tiles < ENOUGH * threads;
        self.first_slots.clear();
        self.first_slots.resize(places.len(), None);
        self.slots = 0;
        self.items.clear();
        for run in &self.runs {
            if split && last(run) >= CHUNK {
                for &row in &self.order[run.clone()] {
                    self.first_slots[row] = Some(self.slots);
                    self.slots += heads.query * (places[row].position / CHUNK + 1);
                }
            }
        }
        for head in 0..heads.kv {
            for run in &self.runs {
                let columns = run.len() * group;
                // The longest first, so that threads end together.
                for first in (0..columns).step_by(COLUMNS).rev() {
                    let columns = first..columns.min(first + COLUMNS);
                    let row = |column: usize| self.order[run.start + column / group];
                    let chunks = places[row(columns.end - 1)].position / CHUNK + 1;
                    if self.first_slots[row(first)].is_none() {
                        let chunks = 0..chunks;
                        self.items.push(Item { first_row: run.start, head, columns, chunks, split: false });
                        continue;
                    }
                    for chunk in 0..chunks {
                        // Columns that end before this chunk are left out.
                        let reaches = |&c: &usize| places[row(c)].position >= chunk * CHUNK;
                        let first = columns.clone().find(reaches).expect("the last column reaches it");
                        let (columns, chunks) = (first..columns.end, chunk..chunk + 1);
                        self.items.push(Item { first_row: run.start, head, columns, chunks, split: true });
                    }
                }
            }
        }
    }

    /// Rows of one sequence.
    pub(super) fn run(&self, index: usize) -> &[usize] {
        &self.order[self.runs[index].clone()]
    }

    pub(super) fn runs(&self) -> impl Iterator<Item = &[usize]> {
        self.runs.iter().map(|run| &self.order[run.clone()])
    }

    /// The slots of a query, chunk after chunk.
    #[inline(always)]
    pub(super) fn slots_of(&self, row: usize, head: usize) -> Option<Range<usize>> {
        let chunks = self.places[row].position / CHUNK + 1;
        let first = self.first_slots[row]? + head * chunks;
        Some(first..first + chunks)
    }
}
