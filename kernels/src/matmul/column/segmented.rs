//! One token, and several scales a row: as `column`, but at every border between scales the integers so far become floats.
//!
//! A block of T5 may have a border inside. Then it is read for both sides, each time with zeros in place of the activations of
//! the other: that is one more block for about six, and no branch for each plane.

use std::ops::Range;

use super::{Column, ahead};
use crate::cpu::Kernel;
use crate::isa::{Block, Isa};
use crate::matmul::Task;
use crate::packing::{Layout, ROWS};

pub(in crate::matmul) struct Segmented<'a, L>(Column<'a, L>);

impl<'a, L> Segmented<'a, L> {
    pub(in crate::matmul) fn new(task: &'a Task<'a>, groups: Range<usize>) -> Self {
        Self(Column::new(task, groups))
    }
}

impl<L: Layout> Kernel for Segmented<'_, L> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let mut g = self.0.groups.start;
        while g < self.0.groups.end {
            let left = self.0.groups.end - g;
            g += match I::STREAMS.min(left) {
                4.. => self.rows::<I, 4, 2, 2>(isa, g),
                2.. => self.rows::<I, 2, 2, 1>(isa, g),
                _ => self.rows::<I, 1, 1, 1>(isa, g),
            };
        }
    }
}

/// The activations of a block, all or those of one side of a border.
type Quads = [[i8; 4]; 5];

impl<L: Layout> Segmented<'_, L> {
    /// `G` = `W * N` row groups, `W` of them at a time: their sums fit the registers.
    #[inline(always)]
    fn rows<I: Isa, const G: usize, const W: usize, const N: usize>(&self, isa: I, g: usize) -> usize {
        let task = self.0.task;
        let (weights, x) = self.0.operands::<G>(g);
        let (lanes, per_row) = (task.w.lanes(), task.scales_per_row());
        let mut totals = [[[0f32; ROWS]; W]; N];
        for (nth, segment) in task.segments().enumerate() {
            let (minus, factor) = (task.segment_sum(0, nth), task.x.factor(0, segment.inputs));
            let quads = segment.quads(x.len());
            for n in 0..N {
                let mut some: [&[Block]; W] = [&[]; W];
                some.copy_from_slice(&weights[n * W..(n + 1) * W]);
                let sums = match I::SCALED {
                    true => self.scaled(isa, some, x, quads.clone(), G),
                    false => self.plain(isa, some, x, quads.clone(), G),
                };
                for w in 0..W {
                    let lane = (g + n * W + w) * per_row + segment.weights;
                    // Of the rows after these: their own come a line at a time, too slowly to be waited for.
                    lanes.prefetch(isa, lane + G * per_row);
                    let scales = lanes.at(isa, lane);
                    totals[n][w] = isa.add_sums(totals[n][w], sums[w], minus, &scales, factor);
                }
            }
        }
        let step = task.x.last_step(0);
        for n in 0..N {
            for w in 0..W {
                // SAFETY: this is one of the groups that were given to this thread, and the slice ends here.
                let out = unsafe { task.outputs(g + n * W + w, 0) };
                for (out, total) in out.iter_mut().zip(totals[n][w]) {
                    *out = total * step;
                }
            }
        }
        G
    }

    /// The activations of block `b` that lie in some quads of the row.
    #[inline(always)]
    fn part(x: &[[i8; 4]], b: usize, quads: &Range<usize>) -> Quads {
        let mut part = [[0; 4]; 5];
        for p in 0..L::PLANES {
            let quad = b * L::PLANES + p;
            if quads.contains(&quad) {
                part[p] = x[quad];
            }
        }
        part
    }

    /// Planes masked in place, a sum for each.
    #[inline(always)]
    fn scaled<I: Isa, const W: usize>(
        &self,
        isa: I,
        weights: [&[Block]; W],
        x: &[[i8; 4]],
        quads: Range<usize>,
        side_by_side: usize,
    ) -> [[i32; ROWS]; W] {
        let mut sums = [[isa.part(); 5]; W];
        let mut whole = quads.start.div_ceil(L::PLANES)..quads.end / L::PLANES;
        if whole.start * L::PLANES != quads.start {
            let part = Self::part(x, whole.start - 1, &quads);
            sums = self.masked(isa, sums, weights, whole.start - 1, &part[..L::PLANES]);
        }
        let last = whole.end;
        whole.start = whole.start.min(last);
        sums = self.0.run_of(isa, sums, weights, x, whole, side_by_side);
        if last * L::PLANES != quads.end && last * L::PLANES >= quads.start {
            let part = Self::part(x, last, &quads);
            sums = self.masked(isa, sums, weights, last, &part[..L::PLANES]);
        }
        let mut totals = [[0; ROWS]; W];
        for w in 0..W {
            totals[w] = isa.fold(sums[w], &L::masked::<I>()[..L::PLANES]);
        }
        totals
    }

    /// One block.
    #[inline(always)]
    fn masked<I: Isa, const W: usize>(
        &self,
        isa: I,
        mut sums: [[I::Part; 5]; W],
        weights: [&[Block]; W],
        b: usize,
        quads: &[[i8; 4]],
    ) -> [[I::Part; 5]; W] {
        for w in 0..W {
            let planes = L::mask(isa, isa.load(&weights[w][b]));
            for p in 0..L::PLANES {
                sums[w][p] = isa.dot(sums[w][p], planes.as_ref()[p], quads[p]);
            }
        }
        sums
    }

    /// Planes shifted down to codes, one sum for all.
    #[inline(always)]
    fn plain<I: Isa, const W: usize>(
        &self,
        isa: I,
        weights: [&[Block]; W],
        x: &[[i8; 4]],
        quads: Range<usize>,
        side_by_side: usize,
    ) -> [[i32; ROWS]; W] {
        let mut sums = [isa.sums(); W];
        let blocks = quads.start / L::PLANES..quads.end.div_ceil(L::PLANES);
        let step = I::DOTS / L::PLANES;
        let mut start = blocks.start;
        while start < blocks.end {
            let end = start.saturating_add(step).min(blocks.end);
            let mut part = [isa.part(); W];
            for b in start..end {
                let ahead = ahead(b, weights[0].len(), side_by_side);
                let mut here: &[[i8; 4]] = &x[b * L::PLANES..][..L::PLANES];
                let masked;
                if b * L::PLANES < quads.start || (b + 1) * L::PLANES > quads.end {
                    masked = Self::part(x, b, &quads);
                    here = &masked[..L::PLANES];
                }
                for w in 0..W {
                    isa.prefetch(weights[w], ahead);
                    let planes = L::split(isa, isa.load(&weights[w][b]));
                    for p in 0..L::PLANES {
                        part[w] = isa.dot(part[w], planes.as_ref()[p], here[p]);
                    }
                }
            }
            for w in 0..W {
                sums[w] = isa.widen(sums[w], part[w]);
            }
            start = end;
        }
        let mut totals = [[0; ROWS]; W];
        for w in 0..W {
            totals[w] = isa.store(sums[w]);
        }
        totals
    }
}
