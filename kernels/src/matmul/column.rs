//! One token: the matrix streams by once, so every instruction saved a block counts until memory is the limit.
//!
//! `UNIT` row groups are read side by side, four streams that keep the memory busy. Where the set's products allow it,
//! planes are masked but not shifted (`Isa::SCALED`): plane `p` then counts `Layout::masked` times, has sums of its
//! own, and is divided once at the end of the row, exactly.

mod segmented;

pub(super) use segmented::{Segmented, Step, steps};

use std::marker::PhantomData;
use std::ops::Range;

use super::Task;
use crate::isa::{Block, Isa, Kernel};
use crate::packing::{Layout, ROWS};

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
        let mut g = self.groups.start;
        while g < self.groups.end {
            let left = self.groups.end - g;
            g += match I::STREAMS.min(left) {
                4.. => self.rows::<I, 4>(isa, g),
                2.. => self.rows::<I, 2>(isa, g),
                _ => self.rows::<I, 1>(isa, g),
            };
        }
    }
}

/// Blocks that two of the rows go on for before the other two have their turn: the sums of two fit the registers, and
/// four streams keep the memory busier than two.
const RUN: usize = 8;

/// Blocks that are written out one after the other.
const UNROLLED: usize = 4;

/// Blocks ahead of the one in use that are asked for: 1 kB a stream.
const AHEAD: usize = 16;

/// The block to ask for while block `b` of the rows is in use: past their end it is one of the groups after these,
/// which follow in memory.
#[inline(always)]
pub(super) fn ahead(b: usize, blocks: usize, side_by_side: usize) -> usize {
    if b + AHEAD < blocks { b + AHEAD } else { b + AHEAD + (side_by_side - 1) * blocks }
}

impl<L: Layout> Column<'_, L> {
    #[inline(always)]
    fn rows<I: Isa, const G: usize>(&self, isa: I, g: usize) -> usize {
        // Of the rows after these; a scale for each row is too little to be noticed as a stream.
        (0..G).for_each(|i| self.task.w.lanes().prefetch(isa, g + G + i));
        if I::SCALED {
            self.scaled::<I, G>(isa, g)
        } else {
            self.plain::<I, G>(isa, g)
        }
        G
    }

    /// Planes masked in place, a sum for each.
    #[inline(always)]
    fn scaled<I: Isa, const G: usize>(&self, isa: I, g: usize) {
        let (weights, x) = self.operands::<G>(g);
        let blocks = weights[0].len();
        let mut sums = [[isa.part(); 5]; G];
        let mut start = 0;
        while start < blocks {
            let end = (start + RUN).min(blocks);
            for pair in sums.chunks_mut(2).zip(weights.chunks(2)) {
                let (sums, weights) = pair;
                if let (&[first, second], &[one, two]) = (&*sums, weights) {
                    let [first, second] = self.run_of(isa, [first, second], [one, two], x, start..end, G);
                    (sums[0], sums[1]) = (first, second);
                } else if let (&[only], &[one]) = (&*sums, weights) {
                    [sums[0]] = self.run_of(isa, [only], [one], x, start..end, G);
                }
            }
            start = end;
        }
        for i in 0..G {
            let total = isa.fold(sums[i], &L::masked::<I>()[..L::PLANES]);
            self.finish(isa, g + i, total);
        }
    }

    /// Some blocks of `W` of the rows, with their sums in registers.
    #[inline(always)]
    pub(super) fn run_of<I: Isa, const W: usize>(
        &self,
        isa: I,
        mut sums: [[I::Part; 5]; W],
        weights: [&[Block]; W],
        x: &[[i8; 4]],
        blocks: Range<usize>,
        side_by_side: usize,
    ) -> [[I::Part; 5]; W] {
        let mut b = blocks.start;
        while b < blocks.end {
            // Unrolled: between two scales there are few blocks, and a loop's end that is guessed wrong costs as many.
            if blocks.end - b >= UNROLLED {
                sums = self.step_of::<I, W, UNROLLED>(isa, sums, weights, x, b, side_by_side);
                b += UNROLLED;
            } else {
                sums = self.step_of::<I, W, 1>(isa, sums, weights, x, b, side_by_side);
                b += 1;
            }
        }
        sums
    }

    /// `N` blocks of `W` of the rows.
    #[inline(always)]
    fn step_of<I: Isa, const W: usize, const N: usize>(
        &self,
        isa: I,
        mut sums: [[I::Part; 5]; W],
        weights: [&[Block]; W],
        x: &[[i8; 4]],
        b: usize,
        side_by_side: usize,
    ) -> [[I::Part; 5]; W] {
        let ahead = ahead(b, weights[0].len(), side_by_side);
        let quads = &x[b * L::PLANES..][..N * L::PLANES];
        let weights = weights.map(|weights| (weights, &weights[b..][..N]));
        for n in 0..N {
            for i in 0..W {
                isa.prefetch(weights[i].0, ahead + n);
                let planes = L::mask(isa, isa.load(&weights[i].1[n]));
                for p in 0..L::PLANES {
                    sums[i][p] = isa.dot(sums[i][p], planes.as_ref()[p], quads[n * L::PLANES + p]);
                }
            }
        }
        sums
    }

    /// Planes shifted down to codes, one sum for all.
    #[inline(always)]
    fn plain<I: Isa, const G: usize>(&self, isa: I, g: usize) {
        let (weights, x) = self.operands::<G>(g);
        let sums = self.shifted::<I, G>(isa, weights, x, 0..weights[0].len(), G);
        for i in 0..G {
            self.finish(isa, g + i, isa.store(sums[i]));
        }
    }

    /// The sums of some blocks of `W` of the rows.
    #[inline(always)]
    pub(super) fn shifted<I: Isa, const W: usize>(
        &self,
        isa: I,
        weights: [&[Block]; W],
        x: &[[i8; 4]],
        blocks: Range<usize>,
        side_by_side: usize,
    ) -> [I::Sums; W] {
        let mut sums = [isa.sums(); W];
        let most = I::DOTS / L::PLANES;
        let mut start = blocks.start;
        while start < blocks.end {
            let end = start.saturating_add(most).min(blocks.end);
            let mut part = [isa.part(); W];
            for b in start..end {
                let ahead = ahead(b, weights[0].len(), side_by_side);
                weights.iter().for_each(|weights| isa.prefetch(weights, ahead));
                part = Self::split(isa, part, weights, b, &x[b * L::PLANES..][..L::PLANES]);
            }
            for w in 0..W {
                sums[w] = isa.widen(sums[w], part[w]);
            }
            start = end;
        }
        sums
    }

    /// One block of them.
    #[inline(always)]
    pub(super) fn split<I: Isa, const W: usize>(
        isa: I,
        mut part: [I::Part; W],
        weights: [&[Block]; W],
        b: usize,
        quads: &[[i8; 4]],
    ) -> [I::Part; W] {
        for w in 0..W {
            let planes = L::split(isa, isa.load(&weights[w][b]));
            for p in 0..L::PLANES {
                part[w] = isa.dot(part[w], planes.as_ref()[p], quads[p]);
            }
        }
        part
    }

    /// The blocks of `G` row groups and the quads of activations that they meet.
    #[inline(always)]
    pub(super) fn operands<const G: usize>(&self, g: usize) -> ([&[Block]; G], &[[i8; 4]]) {
        let mut weights: [&[Block]; G] = [&[]; G];
        for i in 0..G {
            weights[i] = self.task.blocks(g + i);
        }
        let blocks = weights[0].len();
        for i in 0..G {
            weights[i] = &weights[i][..blocks]; // one length for all: the loops need one bounds check
        }
        (weights, &self.task.x.padded(0).as_chunks().0[..blocks * L::PLANES])
    }

    #[inline(always)]
    fn finish<I: Isa>(&self, isa: I, g: usize, sums: [i32; ROWS]) {
        // SAFETY: `g` is one of the groups that were given to this thread.
        unsafe { self.task.write(g, 0, &sums, &self.task.w.lanes().at(isa, g)) };
    }
}
