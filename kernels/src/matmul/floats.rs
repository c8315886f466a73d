//! Activations that are not rounded: each row of the matrix becomes floats once, and all tokens pass it. For reference and for
//! families that lose too much otherwise; nothing here is quick.

use std::ops::Range;

use super::Task;
use crate::float::dot_lanes;
use crate::isa::{Isa, Kernel};
use crate::packing::ROWS;

pub(super) struct Floats<'a> {
    task: &'a Task<'a>,
    groups: Range<usize>,
}

impl<'a> Floats<'a> {
    pub(super) fn new(task: &'a Task<'a>, groups: Range<usize>) -> Self {
        Self { task, groups }
    }
}

impl Kernel for Floats<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let (w, x) = (self.task.w, self.task.x);
        let size = w.lanes().size();
        let (mut trits, mut row) = (vec![0i8; w.cols()], vec![0f32; w.cols()]);
        for g in self.groups {
            for lane in 0..ROWS.min(w.rows() - g * ROWS) {
                w.unpack_row(g * ROWS + lane, &mut trits);
                let groups = row.chunks_mut(size).zip(trits.chunks(size)).enumerate();
                for (nth, (row, trits)) in groups {
                    let scale = w.lanes().at(isa, g * self.task.scales_per_row() + nth)[lane];
                    for (weight, trit) in row.iter_mut().zip(trits) {
                        *weight = f32::from(*trit) * scale;
                    }
                }
                for t in 0..x.rows() {
                    // SAFETY: `g` is one of the groups that were given to this thread, and the slice ends here.
                    let out = unsafe { self.task.outputs(g, t) };
                    out[lane] = dot_lanes(&row, x.floats(t));
                }
            }
        }
    }
}
