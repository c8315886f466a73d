//! A few tokens, as a text that is guessed ahead brings them: the matrix streams by once as past one token
//! (`column`), and every block meets all of them while it is in registers.
//!
//! Unpacking into a panel would cost as much as the products of a token or two. Planes stay masked and not shifted, each token
//! has a sum for each plane: those of `TOGETHER` tokens fit the registers, those of the others wait on the stack for a run of
//! blocks. It is for sets whose products allow that (`Isa::SCALED`); the others take panels.

use std::marker::PhantomData;
use std::ops::Range;

use super::Task;
use super::column::AHEAD;
use super::panel::Panel;
use crate::isa::{Block, Isa, Kernel};
use crate::packing::Layout;

/// Most tokens that are few: beyond them a panel is quicker.
pub(super) const FEW: usize = 8;

/// Tokens whose sums fit the registers together.
const TOGETHER: usize = 4;

/// Blocks of a row group that all tokens meet before the next blocks have their turn.
const RUN: usize = 16;

pub(super) struct Few<'a, L> {
    task: &'a Task<'a>,
    groups: Range<usize>,
    layout: PhantomData<L>,
}

impl<'a, L> Few<'a, L> {
    pub(super) fn new(task: &'a Task<'a>, groups: Range<usize>) -> Self {
        Self { task, groups, layout: PhantomData }
    }
}

impl<L: Layout> Kernel for Few<'_, L> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        if !I::SCALED {
            return Panel::<L>::new(self.task, self.groups).run(isa);
        }
        for g in self.groups.clone() {
            self.row_group(isa, g);
        }
    }
}

/// The running sums of one token in one row group, one for each plane.
type Sums<I> = [<I as Isa>::Part; 5];

impl<L: Layout> Few<'_, L> {
    /// A row group past all tokens.
    #[inline(always)]
    fn row_group<I: Isa>(&self, isa: I, g: usize) {
        let tokens = self.task.x.rows();
        let mut sums = [[isa.part(); 5]; FEW];
        self.task.w.lanes().prefetch(isa, g + 1);
        let weights = self.task.blocks(g);
        let mut start = 0;
        while start < weights.len() {
            let run = start..(start + RUN).min(weights.len());
            let mut t = 0;
            while t < tokens {
                let sums = &mut sums[t..tokens];
                t += match sums.len() {
                    4.. => self.pass::<I, TOGETHER>(isa, sums, weights, t, run.clone()),
                    3 => self.pass::<I, 3>(isa, sums, weights, t, run.clone()),
                    2 => self.pass::<I, 2>(isa, sums, weights, t, run.clone()),
                    _ => self.pass::<I, 1>(isa, sums, weights, t, run.clone()),
                };
            }
            start = run.end;
        }
        let scales = self.task.w.lanes().at(isa, g);
        for t in 0..tokens {
            let total = isa.fold(sums[t], &L::masked::<I>()[..L::PLANES]);
            // SAFETY: `g` is one of the groups that were given to this thread.
            unsafe { self.task.write(g, t, &total, &scales) };
        }
    }

    /// `C` tokens past some blocks of a row group, with their sums in registers.
    #[inline(always)]
    fn pass<I: Isa, const C: usize>(
        &self,
        isa: I,
        sums: &mut [Sums<I>],
        weights: &[Block],
        first: usize,
        blocks: Range<usize>,
    ) -> usize {
        let mut x: [&[[i8; 4]]; C] = [&[]; C];
        let mut own = [[isa.part(); 5]; C];
        for j in 0..C {
            let quads = self.task.x.padded(first + j).as_chunks().0;
            x[j] = &quads[blocks.start * L::PLANES..blocks.end * L::PLANES];
            own[j] = sums[j];
        }
        for (n, block) in weights[blocks.clone()].iter().enumerate() {
            if first == 0 {
                isa.prefetch(weights, blocks.start + n + AHEAD);
            }
            let planes = L::mask(isa, isa.load(block));
            for j in 0..C {
                for p in 0..L::PLANES {
                    own[j][p] = isa.dot(own[j][p], planes.as_ref()[p], x[j][n * L::PLANES + p]);
                }
            }
        }
        sums[..C].copy_from_slice(&own);
        C
    }
}
