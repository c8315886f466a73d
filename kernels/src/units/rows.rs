//! A matrix by its rows, for a product in which only some of them are wanted.
//!
//! A row holds the lanes that are its own in the blocks of its group, one after the other, filled up to whole blocks of 64
//! bytes: no byte is packed anew. Lane `l` of a row's block then meets the activations of 4 columns in each plane, and a
//! register holds 16 different lanes, whose sums are added up at the end of the row.

use std::marker::PhantomData;

use super::{Open, PIECE, check, has_whole_rows};
use crate::Buffer;
use crate::activations::Activations;
use crate::cpu::Cpu;
use crate::isa::{Block, Isa, Kernel};
use crate::packing::{Layout, Packing, ROWS, with_layout};
use crate::pool::{Disjoint, Pool, Shares};
use crate::scales::{Lanes, Scales};
use crate::ternary::Ternary;

/// A matrix of which single rows can be multiplied.
#[derive(Debug)]
pub struct ByRow {
    rows: usize,
    cols: usize,
    packing: Packing,
    scales: Lanes,
    /// The largest scale.
    largest: f32,
    /// `(rows, blocks of a row)`.
    bytes: Buffer,
}

/// Lanes of a block.
const LANES: usize = 16;

impl ByRow {
    /// A copy of `matrix`; `None` where its rows have several scales, or the system does not give the memory.
    pub fn of(pool: &Pool, matrix: &Ternary) -> Option<Self> {
        let (rows, cols, packing) = (matrix.rows(), matrix.cols(), matrix.packing());
        if !has_whole_rows(matrix) {
            return None;
        }
        let lanes = cols.div_ceil(packing.block_cols());
        let len = lanes.next_multiple_of(LANES) * 4;
        let mut bytes = Buffer::try_for_weights(rows.checked_mul(len)?)?;
        let group = packing.group_len(cols);
        pool.for_chunks(&mut bytes, ROWS * len, |g, out| {
            let (blocks, _) = matrix.blocks()[g * group..][..group].as_chunks::<64>();
            for (r, out) in out.chunks_exact_mut(len).enumerate() {
                for (block, out) in blocks.iter().zip(out.as_chunks_mut::<4>().0) {
                    out.copy_from_slice(&block[4 * r..4 * r + 4]);
                }
            }
        });
        let largest = match matrix.scales() {
            Scales::One(scale) => scale,
            Scales::Groups { values, .. } => values.into_iter().fold(0.0, f32::max),
        };
        Some(Self { rows, cols, packing, scales: matrix.lanes().clone(), largest, bytes })
    }

    /// Bytes of one row.
    pub fn row_bytes(&self) -> usize {
        self.bytes.len() / self.rows
    }

    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Whether every output of a product with `x` is a number, whatever the codes are. Where one could be infinite, it makes
    /// a difference whether it is multiplied with 0 or left out.
    pub fn is_finite(&self, x: &Activations) -> bool {
        ((127 * self.cols) as f32 * self.largest * x.step(0)).is_finite()
    }

    /// `out[r]` = row `r` times the only row of `x`, for the rows for which `wanted` holds; the others are left as they are.
    pub fn matmul(
        &self,
        cpu: Cpu,
        pool: &Pool,
        x: &Activations,
        wanted: impl Fn(usize) -> bool + Sync,
        out: &mut [f32],
    ) {
        check(x, self.cols);
        assert_eq!(out.len(), self.rows, "outputs of the product");
        let shares = Shares::new(self.rows.div_ceil(PIECE), pool.threads());
        let out = Disjoint::new(out);
        with_layout!(self.packing, L => {
            let lanes = spread::<L>(x.padded(0));
            pool.run(|_| {
                let open = Open::new(&shares, self.rows, &wanted);
                cpu.run(Rows::<L, _> { w: self, x, lanes: &lanes, open, out: &out, layout: PhantomData });
            });
        });
    }
}

/// The activations that the lanes of a row's blocks meet, block after block and plane after plane.
fn spread<L: Layout>(x: &[i8]) -> Vec<[i8; 64]> {
    let (quads, _) = x.as_chunks::<4>();
    let blocks = quads.len().div_ceil(L::PLANES * LANES);
    let mut spread = vec![[0; 64]; blocks * L::PLANES];
    for (nth, lane) in quads.chunks_exact(L::PLANES).enumerate() {
        for (p, quad) in lane.iter().enumerate() {
            let at = nth % LANES * 4;
            spread[nth / LANES * L::PLANES + p][at..at + 4].copy_from_slice(quad);
        }
    }
    spread
}

struct Rows<'a, L, F> {
    w: &'a ByRow,
    x: &'a Activations,
    lanes: &'a [[i8; 64]],
    open: Open<'a, F>,
    out: &'a Disjoint<'a, f32>,
    layout: PhantomData<L>,
}

/// Rows whose sums fit the registers together.
const TOGETHER: usize = 4;
/// Rows that are asked for before they are needed.
const AHEAD: usize = 8;

impl<L: Layout, F: Fn(usize) -> bool> Kernel for Rows<'_, L, F> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        let blocks = self.w.row_bytes() / size_of::<Block>();
        let (all, _) = self.w.bytes.as_chunks::<64>();
        loop {
            let list = self.open.ahead(TOGETHER + AHEAD);
            let count = list.len().min(TOGETHER);
            if count == 0 {
                return;
            }
            let mut rows = [0; TOGETHER];
            let mut next = [0; TOGETHER];
            for i in 0..TOGETHER {
                rows[i] = list[i.min(count - 1)] as usize;
                next[i] = list.get(AHEAD + i).map_or(rows[i], |&row| row as usize);
            }
            if count == TOGETHER {
                let sums = sums::<I, L, TOGETHER>(isa, all, blocks, self.lanes, rows, next);
                for i in 0..TOGETHER {
                    self.finish(isa, rows[i], sums[i]);
                }
            } else {
                for &row in &rows[..count] {
                    let [sum] = sums::<I, L, 1>(isa, all, blocks, self.lanes, [row], [row]);
                    self.finish(isa, row, sum);
                }
            }
            self.open.take(count);
        }
    }
}

impl<L, F> Rows<'_, L, F> {
    #[inline(always)]
    fn finish<I: Isa>(&self, isa: I, row: usize, sum: i32) {
        let scale = match &self.w.scales {
            Lanes::One(scale) => *scale,
            lanes => lanes.at(isa, row / ROWS)[row % ROWS],
        };
        // SAFETY: `shares` gives a row to one thread, and the slice ends here.
        let out = unsafe { self.out.slice(row..row + 1) };
        out[0] = ((sum - self.x.sum(0)) as f32 * scale) * self.x.step(0);
    }
}

/// The products of codes and activations of some rows, and a request for some others.
#[inline(always)]
fn sums<I: Isa, L: Layout, const R: usize>(
    isa: I,
    all: &[Block],
    blocks: usize,
    lanes: &[[i8; 64]],
    rows: [usize; R],
    next: [usize; R],
) -> [i32; R] {
    let mut weights: [&[Block]; R] = [&[]; R];
    for i in 0..R {
        weights[i] = &all[rows[i] * blocks..][..blocks];
    }
    let lanes = &lanes[..blocks * L::PLANES];
    let mut out = [0; R];
    if I::SCALED {
        let mut parts = [[isa.part(); 5]; R];
        for b in 0..blocks {
            let x = &lanes[b * L::PLANES..][..L::PLANES];
            for i in 0..R {
                isa.prefetch_l2(all, next[i] * blocks + b);
                let planes = L::mask(isa, isa.load(&weights[i][b]));
                for p in 0..L::PLANES {
                    parts[i][p] = isa.dot_lanes(parts[i][p], planes.as_ref()[p], &x[p]);
                }
            }
        }
        for i in 0..R {
            out[i] = isa.fold(parts[i], &L::masked::<I>()[..L::PLANES]).iter().sum();
        }
    } else {
        let mut totals = [isa.sums(); R];
        let mut start = 0;
        while start < blocks {
            let end = start.saturating_add(I::DOTS / L::PLANES).min(blocks);
            let mut parts = [isa.part(); R];
            for b in start..end {
                let x = &lanes[b * L::PLANES..][..L::PLANES];
                for i in 0..R {
                    isa.prefetch_l2(all, next[i] * blocks + b);
                    let planes = L::split(isa, isa.load(&weights[i][b]));
                    for p in 0..L::PLANES {
                        parts[i] = isa.dot_lanes(parts[i], planes.as_ref()[p], &x[p]);
                    }
                }
            }
            for i in 0..R {
                totals[i] = isa.widen(totals[i], parts[i]);
            }
            start = end;
        }
        for i in 0..R {
            out[i] = isa.store(totals[i]).iter().sum();
        }
    }
    out
}
