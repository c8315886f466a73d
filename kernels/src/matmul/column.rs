//! One token: the matrix streams by once, so every instruction saved a block counts until memory is the limit.
//!
//! A thread reads its row groups from end to end, one stream that the hardware's prefetcher follows far ahead: several at
//! once fill the first cache's queue with misses of their own and were 0.65 to 0.85 times as fast (`bench/2026-11-29-streams.md`). Where
//! the set's products allow it, planes are masked but not shifted (`Isa::SCALED`): plane `p` then counts `Layout::masked`
//! times, has sums of its own, and is divided once at the end of the row, exactly.

mod segmented;

pub(super) use segmented::{Segmented, Step, steps};

use std::marker::PhantomData;
use std::ops::Range;

use super::Task;
use crate::isa::{Block, Isa, Kernel};
use crate::packing::Layout;

pub(super) struct Column<'a, L> {
    task: &'a Task<'a>,
    groups: Range<usize>,
    layout: PhantomData<L>,
}

impl<'a, L> Column<'a, L> {
    pub(super) fn new(task: &'a Task<'a>, groups: Range<usize>) -> Self {
        Self { task, groups, layout: PhantomData }
    }
}

impl<L: Layout> Kernel for Column<'_, L> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        for g in self.groups.clone() {
            // Of the row group after this one; a scale for each row is too little to be noticed as a stream.
            self.task.w.lanes().prefetch(isa, g + 1);
            let (weights, x) = self.operands(g);
            let sums = match I::SCALED {
                true => {
                    isa.fold(self.masked(isa, weights, x, 0..weights.len()), &L::masked::<I>()[..L::PLANES])
                }
                false => isa.store(self.shifted(isa, weights, x, 0..weights.len())),
            };
            // SAFETY: `g` is one of the groups that were given to this thread.
            unsafe { self.task.write(g, 0, &sums, &self.task.w.lanes().at(isa, g)) };
        }
    }
}

/// Blocks that are written out one after the other.
const UNROLLED: usize = 4;

/// Blocks ahead of the one in use that are prefetched: 2 kB. Past the end of a row group the next one follows in memory.
pub(super) const AHEAD: usize = 32;

impl<L: Layout> Column<'_, L> {
    /// The sums of some blocks, planes masked in place: one for each plane.
    #[inline(always)]
    pub(super) fn masked<I: Isa>(
        &self,
        isa: I,
        weights: &[Block],
        x: &[[i8; 4]],
        blocks: Range<usize>,
    ) -> [I::Part; 5] {
        let mut sums = [isa.part(); 5];
        let mut b = blocks.start;
        while b < blocks.end {
            // Unrolled: between two scales there are few blocks, and a loop's end that is guessed wrong costs as many.
            if blocks.end - b >= UNROLLED {
                sums = self.step::<I, UNROLLED>(isa, sums, weights, x, b);
                b += UNROLLED;
            } else {
                sums = self.step::<I, 1>(isa, sums, weights, x, b);
                b += 1;
            }
        }
        sums
    }

    /// `N` blocks of them.
    #[inline(always)]
    fn step<I: Isa, const N: usize>(
        &self,
        isa: I,
        mut sums: [I::Part; 5],
        weights: &[Block],
        x: &[[i8; 4]],
        b: usize,
    ) -> [I::Part; 5] {
        let quads = &x[b * L::PLANES..][..N * L::PLANES];
        let blocks = &weights[b..][..N];
        for n in 0..N {
            isa.prefetch(weights, b + n + AHEAD);
            sums = Self::mask(isa, sums, &blocks[n], &quads[n * L::PLANES..][..L::PLANES]);
        }
        sums
    }

    /// One block of them.
    #[inline(always)]
    pub(super) fn mask<I: Isa>(
        isa: I,
        mut sums: [I::Part; 5],
        block: &Block,
        quads: &[[i8; 4]],
    ) -> [I::Part; 5] {
        let planes = L::mask(isa, isa.load(block));
        for p in 0..L::PLANES {
            sums[p] = isa.dot(sums[p], planes.as_ref()[p], quads[p]);
        }
        sums
    }

    /// The sum of some blocks, planes shifted down to codes.
    #[inline(always)]
    pub(super) fn shifted<I: Isa>(
        &self,
        isa: I,
        weights: &[Block],
        x: &[[i8; 4]],
        blocks: Range<usize>,
    ) -> I::Sums {
        let mut sums = isa.sums();
        let most = I::DOTS / L::PLANES;
        let mut start = blocks.start;
        while start < blocks.end {
            let end = start.saturating_add(most).min(blocks.end);
            let mut part = isa.part();
            for b in start..end {
                isa.prefetch(weights, b + AHEAD);
                part = Self::split(isa, part, &weights[b], &x[b * L::PLANES..][..L::PLANES]);
            }
            sums = isa.widen(sums, part);
            start = end;
        }
        sums
    }

    /// One block of them.
    #[inline(always)]
    pub(super) fn split<I: Isa>(isa: I, mut part: I::Part, block: &Block, quads: &[[i8; 4]]) -> I::Part {
        let planes = L::split(isa, isa.load(block));
        for p in 0..L::PLANES {
            part = isa.dot(part, planes.as_ref()[p], quads[p]);
        }
        part
    }

    /// The blocks of a row group and the quads of activations that they meet.
    #[inline(always)]
    pub(super) fn operands(&self, g: usize) -> (&[Block], &[[i8; 4]]) {
        let weights = self.task.blocks(g);
        (weights, &self.task.x.padded(0).as_chunks().0[..weights.len() * L::PLANES])
    }
}
