//! One token, and several scales a row: as `column`, but at every border between scales the integers so far become floats.
//!
//! A block of T5 may have a border inside. Then it is read for both sides, each time with zeros in place of the activations of
//! the other: that is one more block for about six, and no branch for each plane.

use std::ops::Range;

use super::Column;
use crate::activations::Activations;
use crate::isa::{Block, Isa, Kernel};
use crate::matmul::Task;
use crate::packing::{Layout, ROWS};
use crate::segments::{Segment, Segments};

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
        for g in self.0.groups.clone() {
            self.row_group(isa, g);
        }
    }
}

/// The activations of a block, all or those of one side of a border.
type Quads = [[i8; 4]; 5];

/// What every row does between two borders; worked out once a product, since it costs as much as some blocks do.
pub(in crate::matmul) struct Step {
    /// The sum of the activations.
    minus: i32,
    factor: f32,
    /// Which of a row's scales.
    scale: usize,
    /// The blocks without a border inside.
    whole: Range<usize>,
    /// The blocks before and after them that other segments have a part of, with zeros for those parts.
    edges: [Option<(usize, Quads)>; 2],
}

/// The steps of a product of one token with rows of so many blocks, `sums` being those of its segments.
pub(in crate::matmul) fn steps<L: Layout>(
    x: &Activations,
    blocks: usize,
    segments: Segments,
    sums: &[i32],
) -> Vec<Step> {
    let quads = &x.padded(0).as_chunks().0[..blocks * L::PLANES];
    let step = |(segment, &minus): (Segment, &i32)| {
        let range = segment.quads(quads.len());
        let (first, last) = (range.start.div_ceil(L::PLANES), range.end / L::PLANES);
        let edge = |b: usize| (b, part::<L>(quads, b, &range));
        let before = (first * L::PLANES != range.start).then(|| edge(first - 1));
        // A segment within one block ends before it begins.
        let after = (last * L::PLANES != range.end && last >= first).then(|| edge(last));
        let whole = first..last.max(first);
        let factor = x.factor(0, segment.inputs);
        Step { minus, factor, scale: segment.weights, whole, edges: [before, after] }
    };
    segments.zip(sums).map(step).collect()
}

/// The activations of block `b` that lie in some quads of the row.
fn part<L: Layout>(x: &[[i8; 4]], b: usize, quads: &Range<usize>) -> Quads {
    let mut part = [[0; 4]; 5];
    for p in 0..L::PLANES {
        let quad = b * L::PLANES + p;
        if quads.contains(&quad) {
            part[p] = x[quad];
        }
    }
    part
}

impl<L: Layout> Segmented<'_, L> {
    #[inline(always)]
    fn row_group<I: Isa>(&self, isa: I, g: usize) {
        let task = self.0.task;
        let (weights, x) = self.0.operands(g);
        let (lanes, per_row) = (task.w.lanes(), task.scales_per_row());
        let mut totals = [0f32; ROWS];
        for step in &task.steps {
            let sums = match I::SCALED {
                true => self.scaled(isa, weights, x, step),
                false => self.plain(isa, weights, x, step),
            };
            let lane = g * per_row + step.scale;
            // Of the row group after this one: its own come a line at a time, too slowly to be waited for.
            lanes.prefetch(isa, lane + per_row);
            totals = isa.add_sums(totals, sums, step.minus, &lanes.at(isa, lane), step.factor);
        }
        // SAFETY: this is one of the groups that were given to this thread.
        unsafe { task.write_totals(g, 0, &totals) };
    }

    /// Planes masked in place, a sum for each.
    #[inline(always)]
    fn scaled<I: Isa>(&self, isa: I, weights: &[Block], x: &[[i8; 4]], step: &Step) -> [i32; ROWS] {
        let mut sums = self.0.masked(isa, weights, x, step.whole.clone());
        for (b, quads) in step.edges.iter().flatten() {
            sums = Column::<L>::mask(isa, sums, &weights[*b], &quads[..L::PLANES]);
        }
        isa.fold(sums, &L::masked::<I>()[..L::PLANES])
    }

    /// Planes shifted down to codes, one sum for all.
    #[inline(always)]
    fn plain<I: Isa>(&self, isa: I, weights: &[Block], x: &[[i8; 4]], step: &Step) -> [i32; ROWS] {
        let mut sums = self.0.shifted(isa, weights, x, step.whole.clone());
        for (b, quads) in step.edges.iter().flatten() {
            let part = Column::<L>::split(isa, isa.part(), &weights[*b], &quads[..L::PLANES]);
            sums = isa.widen(sums, part);
        }
        isa.store(sums)
    }
}
