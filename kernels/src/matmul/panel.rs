//! Several tokens: a panel of the matrix is unpacked into cache once, and tiles of
//! tokens are taken past it.
//!
//! A panel is `G` row groups by `QUADS` quads of columns, one register's worth of codes for each group and quad: with four
//! groups and 60 quads 15 kB, so that it stays in the first cache while a block of tokens passes. A tile is `G` groups by
//! `C` tokens of running sums in registers: with AVX-512 4 * 6 = 24 of 32, four for codes, the rest for activations.

mod segmented;

pub(super) use segmented::Segmented;

use std::marker::PhantomData;
use std::ops::Range;

use super::{Task, UNIT};
use crate::isa::{Block, Isa, Kernel};
use crate::packing::{Layout, ROWS};

/// Quads of columns in a panel: a multiple of the planes of every packing, and within every set's `DOTS`.
const QUADS: usize = 60;
/// Tokens that pass a panel before the next: their sums (32 kB) stay in the second cache.
const TOKENS: usize = 128;

pub(super) struct Panel<'a, L> {
    task: &'a Task<'a>,
    groups: Range<usize>,
    layout: PhantomData<L>,
}

impl<'a, L> Panel<'a, L> {
    pub(super) fn new(task: &'a Task<'a>, groups: Range<usize>) -> Self {
        Self { task, groups, layout: PhantomData }
    }
}

impl<L: Layout> Kernel for Panel<'_, L> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let mut g = self.groups.start;
        if I::PANEL.0 == UNIT {
            let mut room = Room::<I, UNIT>::new(isa);
            while self.groups.end - g >= UNIT {
                self.rows(isa, g, &mut room);
                g += UNIT;
            }
        }
        let mut room = Room::<I, 1>::new(isa);
        while g < self.groups.end {
            self.rows(isa, g, &mut room);
            g += 1;
        }
    }
}

/// What a panel and the tokens that pass it need, on the stack.
struct Room<I: Isa, const G: usize> {
    panel: [[I::Bytes; G]; QUADS],
    sums: [[I::Sums; G]; TOKENS],
}

impl<I: Isa, const G: usize> Room<I, G> {
    #[inline(always)]
    fn new(isa: I) -> Self {
        Self { panel: [[isa.splat(0); G]; QUADS], sums: [[isa.sums(); G]; TOKENS] }
    }
}

impl<L: Layout> Panel<'_, L> {
    /// `G` row groups past all tokens.
    #[inline(always)]
    fn rows<I: Isa, const G: usize>(&self, isa: I, g: usize, room: &mut Room<I, G>) {
        let tokens = self.task.x.rows();
        let mut first = 0;
        while first < tokens {
            let count = TOKENS.min(tokens - first);
            for sums in &mut room.sums[..count] {
                *sums = [isa.sums(); G];
            }
            let mut scales = [[0.0; ROWS]; G];
            for i in 0..G {
                scales[i] = self.task.w.lanes().at(isa, g + i);
            }
            self.whole(isa, g, first, count, &scales, room);
            first += count;
        }
    }

    /// One sum for the whole of each row.
    #[inline(always)]
    fn whole<I: Isa, const G: usize>(
        &self,
        isa: I,
        g: usize,
        first: usize,
        count: usize,
        scales: &[[f32; ROWS]; G],
        room: &mut Room<I, G>,
    ) {
        let quads = self.task.w.cols().div_ceil(4 * L::PLANES) * L::PLANES;
        let mut start = 0;
        while start < quads {
            let end = (start + QUADS).min(quads);
            self.unpack(isa, g, start..end, &mut room.panel);
            self.pass(isa, g, room, first, count, start, 0..end - start);
            start = end;
        }
        for t in 0..count {
            for i in 0..G {
                // SAFETY: `g + i` is one of the groups that were given to this thread.
                unsafe { self.task.write(g + i, first + t, &isa.store(room.sums[t][i]), &scales[i]) };
            }
        }
    }

    /// The codes of `G` row groups in some quads, which begin and end with a block.
    #[inline(always)]
    fn unpack<I: Isa, const G: usize>(
        &self,
        isa: I,
        g: usize,
        quads: Range<usize>,
        panel: &mut [[I::Bytes; G]; QUADS],
    ) {
        let blocks = quads.start / L::PLANES..quads.end / L::PLANES;
        for i in 0..G {
            for (b, block) in self.task.blocks(g + i)[blocks.clone()].iter().enumerate() {
                let planes = L::split(isa, isa.load(block));
                for p in 0..L::PLANES {
                    panel[b * L::PLANES + p][i] = planes.as_ref()[p];
                }
            }
        }
    }

    /// Takes all tokens of the block past some quads of the panel, which begins with quad `start` of the row.
    #[allow(clippy::too_many_arguments)] // the three loop ranges of a blocked product
    #[inline(always)]
    fn pass<I: Isa, const G: usize>(
        &self,
        isa: I,
        g: usize,
        room: &mut Room<I, G>,
        first: usize,
        count: usize,
        start: usize,
        quads: Range<usize>,
    ) {
        let Room { panel, sums } = room;
        let panel = &panel[quads.clone()];
        let at = start + quads.start;
        let mut weights: [&[Block]; G] = [&[]; G];
        for i in 0..G {
            weights[i] = self.task.blocks(g + i);
        }
        // While the first tile passes a panel, the next one's bytes are asked for: those of the same rows, or past their
        // end those of the `G` groups after these, which follow in memory.
        let next = (start + QUADS) / L::PLANES;
        let next = if next < weights[0].len() { next } else { next + (G - 1) * weights[0].len() };
        let mut ahead = (quads.start == 0).then_some((weights, next));
        let mut t = 0;
        while t < count {
            let sums = &mut sums[t..count];
            let first = first + t;
            let ahead = ahead.take();
            t += match (I::PANEL.1, sums.len()) {
                (6.., 6 | 9..) => self.tile::<I, G, 6>(isa, panel, sums, first, at, ahead),
                (4.., 4 | 6..) => self.tile::<I, G, 4>(isa, panel, sums, first, at, ahead),
                (3.., 3..) => self.tile::<I, G, 3>(isa, panel, sums, first, at, ahead),
                (2.., 2..) => self.tile::<I, G, 2>(isa, panel, sums, first, at, ahead),
                _ => self.tile::<I, G, 1>(isa, panel, sums, first, at, ahead),
            };
        }
    }

    /// `G` row groups by `C` tokens in registers.
    #[allow(clippy::too_many_arguments)] // a tile's place in panel, sums and activations
    #[inline(always)]
    fn tile<I: Isa, const G: usize, const C: usize>(
        &self,
        isa: I,
        panel: &[[I::Bytes; G]],
        sums: &mut [[I::Sums; G]],
        first: usize,
        at: usize,
        ahead: Option<([&[Block]; G], usize)>,
    ) -> usize {
        let mut x: [&[[i8; 4]]; C] = [&[]; C];
        for j in 0..C {
            x[j] = &self.task.x.padded(first + j).as_chunks().0[at..at + panel.len()];
        }
        let stride = self.task.x.padded(first).len();
        let mut part = [[isa.part(); G]; C];
        for (q, codes) in panel.iter().enumerate() {
            if let Some((weights, next)) = ahead {
                isa.prefetch(weights[q % G], next + q / G);
            }
            // What the next tile wants of its activations: four lines a token, 240 bytes and their place in a line.
            if q < 4 * C {
                isa.prefetch(self.task.x.padded(first), (C + q / 4) * stride + 4 * at + 64 * (q % 4));
            }
            for j in 0..C {
                for i in 0..G {
                    part[j][i] = isa.dot(part[j][i], codes[i], x[j][q]);
                }
            }
        }
        for j in 0..C {
            for i in 0..G {
                sums[j][i] = isa.widen(sums[j][i], part[j][i]);
            }
        }
        C
    }
}
