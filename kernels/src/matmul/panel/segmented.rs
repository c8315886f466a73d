//! Several tokens, and several scales a row: as `panel`, but a panel is a segment of the row, and a tile adds its scaled sums to
//! float totals as soon as the segment ends, while they are in registers.

use std::marker::PhantomData;
use std::ops::Range;

use crate::isa::{Isa, Kernel};
use crate::matmul::{Task, UNIT};
use crate::packing::{Layout, ROWS};

/// Most quads of columns in a panel: 256 columns, within every set's `DOTS`.
const QUADS: usize = 64;
/// Tokens that pass a panel before the next: their totals (16 kB) and the panel stay near.
const TOKENS: usize = 64;

pub(in crate::matmul) struct Segmented<'a, L> {
    task: &'a Task<'a>,
    groups: Range<usize>,
    layout: PhantomData<L>,
}

impl<'a, L> Segmented<'a, L> {
    pub(in crate::matmul) fn new(task: &'a Task<'a>, groups: Range<usize>) -> Self {
        Self { task, groups, layout: PhantomData }
    }
}

impl<L: Layout> Kernel for Segmented<'_, L> {
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
    /// Of a segment that is longer than a panel.
    sums: [[I::Sums; G]; TOKENS],
    totals: [[[f32; ROWS]; G]; TOKENS],
}

impl<I: Isa, const G: usize> Room<I, G> {
    #[inline(always)]
    fn new(isa: I) -> Self {
        Self {
            panel: [[isa.splat(0); G]; QUADS],
            sums: [[isa.sums(); G]; TOKENS],
            totals: [[[0.0; ROWS]; G]; TOKENS],
        }
    }
}

/// A panel: some quads of a segment.
struct Piece<const G: usize> {
    quads: Range<usize>,
    /// Whether it begins and ends its segment.
    begins: bool,
    ends: bool,
    /// Which segment of the row, and which group of the activations.
    nth: usize,
    inputs: usize,
    scales: [[f32; ROWS]; G],
}

impl<L: Layout> Segmented<'_, L> {
    /// `G` row groups past all tokens.
    #[inline(always)]
    fn rows<I: Isa, const G: usize>(&self, isa: I, g: usize, room: &mut Room<I, G>) {
        let (tokens, lanes) = (self.task.x.rows(), self.task.w.lanes());
        let all = self.task.w.cols().div_ceil(4 * L::PLANES) * L::PLANES;
        let mut first = 0;
        while first < tokens {
            let count = TOKENS.min(tokens - first);
            for totals in &mut room.totals[..count] {
                *totals = [[0.0; ROWS]; G];
            }
            for (nth, segment) in self.task.segments().enumerate() {
                let mut scales = [[0.0; ROWS]; G];
                for i in 0..G {
                    scales[i] = lanes.at(isa, (g + i) * self.task.scales_per_row() + segment.weights);
                }
                let quads = segment.quads(all);
                let mut start = quads.start;
                while start < quads.end {
                    let end = (start + QUADS).min(quads.end);
                    let (begins, ends) = (start == quads.start, end == quads.end);
                    let piece =
                        Piece { quads: start..end, begins, ends, nth, inputs: segment.inputs, scales };
                    self.unpack(isa, g, &piece, &mut room.panel);
                    self.pass(isa, &piece, first, count, room);
                    start = end;
                }
            }
            for t in 0..count {
                for i in 0..G {
                    // SAFETY: `g + i` is one of the groups that were given to this thread.
                    unsafe { self.task.write_totals(g + i, first + t, &room.totals[t][i]) };
                }
            }
            first += count;
        }
    }

    /// The codes of `G` row groups in the quads of a piece, which may begin and end inside blocks.
    #[inline(always)]
    fn unpack<I: Isa, const G: usize>(
        &self,
        isa: I,
        g: usize,
        piece: &Piece<G>,
        panel: &mut [[I::Bytes; G]; QUADS],
    ) {
        let Range { start, end } = piece.quads;
        for i in 0..G {
            let blocks = self.task.blocks(g + i);
            for b in start / L::PLANES..end.div_ceil(L::PLANES) {
                isa.prefetch(blocks, b + QUADS / L::PLANES);
                let planes = L::split(isa, isa.load(&blocks[b]));
                for p in 0..L::PLANES {
                    let quad = b * L::PLANES + p;
                    if (start..end).contains(&quad) {
                        panel[quad - start][i] = planes.as_ref()[p];
                    }
                }
            }
        }
    }

    /// Takes all tokens of the block past a piece.
    #[inline(always)]
    fn pass<I: Isa, const G: usize>(
        &self,
        isa: I,
        piece: &Piece<G>,
        first: usize,
        count: usize,
        room: &mut Room<I, G>,
    ) {
        let mut t = 0;
        while t < count {
            t += match (I::PANEL.1, count - t) {
                (6.., 6 | 9..) => self.tile::<I, G, 6>(isa, piece, first, t, room),
                (4.., 4 | 6..) => self.tile::<I, G, 4>(isa, piece, first, t, room),
                (3.., 3..) => self.tile::<I, G, 3>(isa, piece, first, t, room),
                (2.., 2..) => self.tile::<I, G, 2>(isa, piece, first, t, room),
                _ => self.tile::<I, G, 1>(isa, piece, first, t, room),
            };
        }
    }

    /// `G` row groups by `C` tokens in registers; token `t` of the block and those after it.
    #[inline(always)]
    fn tile<I: Isa, const G: usize, const C: usize>(
        &self,
        isa: I,
        piece: &Piece<G>,
        first: usize,
        t: usize,
        room: &mut Room<I, G>,
    ) -> usize {
        let panel = &room.panel[..piece.quads.len()];
        let mut x: [&[[i8; 4]]; C] = [&[]; C];
        for j in 0..C {
            let quads = self.task.x.padded(first + t + j).as_chunks().0;
            x[j] = &quads[piece.quads.start..][..panel.len()];
        }
        let mut part = [[isa.part(); G]; C];
        for (q, codes) in panel.iter().enumerate() {
            for j in 0..C {
                for i in 0..G {
                    part[j][i] = isa.dot(part[j][i], codes[i], x[j][q]);
                }
            }
        }
        for j in 0..C {
            let token = first + t + j;
            let (minus, factor) =
                (self.task.segment_sum(token, piece.nth), self.task.x.factor(token, piece.inputs));
            for i in 0..G {
                let before = if piece.begins { isa.sums() } else { room.sums[t + j][i] };
                let sums = isa.widen(before, part[j][i]);
                if piece.ends {
                    let totals = &mut room.totals[t + j][i];
                    *totals = isa.add_sums(*totals, isa.store(sums), minus, &piece.scales[i], factor);
                } else {
                    room.sums[t + j][i] = sums;
                }
            }
        }
        C
    }
}
