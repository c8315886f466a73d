//! A matrix by its columns, for a product in which many activations are 0.
//!
//! A column is packed as a row of a packing would be, but for the order of the outputs: byte `16 q + 4 v + k` of a block holds,
//! for each plane `p`, the trit of output `16 (PLANES v + p) + 4 q + k`, counted from the block's first. Where four columns are
//! interleaved byte by byte, each 32-bit lane then holds one output of all four, as dot products want it, and the sums come out
//! in their order.

use std::marker::PhantomData;
use std::sync::{Mutex, PoisonError};

use super::{Open, PIECE, check, has_whole_rows};
use crate::Buffer;
use crate::activations::Activations;
use crate::cpu::Cpu;
use crate::isa::{Block, Isa, Kernel, divisor_of};
use crate::packing::{Layout, Packing, ROWS, with_layout};
use crate::pool::{Pool, Shares};
use crate::scales::Lanes;
use crate::ternary::Ternary;

/// A matrix of which single columns can be multiplied.
#[derive(Debug)]
pub struct ByColumn {
    rows: usize,
    cols: usize,
    packing: Packing,
    scales: Lanes,
    /// `(columns, filled up to whole blocks of the packing; blocks of a column)`.
    bytes: Buffer,
}

/// Most columns: an output's masked codes count up to 2 * 84 each, against activations up to 127, and all sums fit an i32.
const MAX_UNITS: usize = 1 << 16;

impl ByColumn {
    /// A copy of `matrix`; `None` where its rows have several scales or too many columns, or the system does not give the
    /// memory.
    pub fn of(cpu: Cpu, pool: &Pool, matrix: &Ternary) -> Option<Self> {
        let (rows, cols, packing) = (matrix.rows(), matrix.cols(), matrix.packing());
        if !has_whole_rows(matrix) || cols > MAX_UNITS {
            return None;
        }
        let units = packing.block_cols();
        let len = rows.div_ceil(16 * units) * size_of::<Block>();
        let mut bytes = Buffer::try_for_weights(cols.next_multiple_of(units).checked_mul(len)?)?;
        pool.for_chunks(&mut bytes, units * len, |nth, out| {
            with_layout!(packing, L => cpu.run(Turn::<L> { matrix, nth, out, len, layout: PhantomData }));
        });
        Some(Self { rows, cols, packing, scales: matrix.lanes().clone(), bytes })
    }

    /// Bytes of one column.
    pub fn column_bytes(&self) -> usize {
        self.rows.div_ceil(16 * self.packing.block_cols()) * size_of::<Block>()
    }

    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// `out[r]` = row `r` times the only row of `x`, whose zeros are left out.
    pub fn matmul(&self, cpu: Cpu, pool: &Pool, x: &Activations, out: &mut [f32]) {
        check(x, self.cols);
        assert_eq!(out.len(), self.rows, "outputs of the product");
        let codes = x.codes(0);
        let shares = Shares::new(self.cols.div_ceil(PIECE), pool.threads());
        let totals: Mutex<Vec<[i32; 16]>> = Mutex::default();
        with_layout!(self.packing, L => {
            pool.run(|_| {
                let open = Open::new(&shares, self.cols, |unit| codes[unit] != 0);
                cpu.run(Columns::<L, _> { w: self, codes, open, totals: &totals, layout: PhantomData });
            });
            let totals = totals.into_inner().unwrap_or_else(PoisonError::into_inner);
            cpu.run(Finish::<L> { w: self, x, totals: &totals, out, layout: PhantomData });
        });
    }
}

/// Packs the columns of the `nth` block of all row groups by themselves.
struct Turn<'a, L> {
    matrix: &'a Ternary,
    nth: usize,
    out: &'a mut [u8],
    len: usize,
    layout: PhantomData<L>,
}

impl<L: Layout> Kernel for Turn<'_, L> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        let per_group = self.matrix.packing().group_len(self.matrix.cols()) / size_of::<Block>();
        let (blocks, _) = self.matrix.blocks().as_chunks::<64>();
        let groups = self.matrix.rows().div_ceil(ROWS);
        for b in 0..self.len / size_of::<Block>() {
            for v in 0..4 {
                // Of each plane of the columns, lane by lane: one byte for each output and column.
                let mut columns = [[0u8; 64]; 5];
                for p in 0..L::PLANES {
                    let g = (4 * b + v) * L::PLANES + p;
                    if g >= groups {
                        break;
                    }
                    let block = &blocks[g * per_group + self.nth];
                    for i in 0..64 {
                        let digits = L::digits(block[i]);
                        for (column, digit) in columns.iter_mut().zip(digits) {
                            column[i] += digit * L::WEIGHTS[p];
                        }
                    }
                }
                for (plane, column) in columns[..L::PLANES].iter().enumerate() {
                    for (j, out) in
                        self.out[4 * plane * self.len..].chunks_exact_mut(self.len).take(4).enumerate()
                    {
                        let out = &mut out[b * size_of::<Block>()..][..size_of::<Block>()];
                        for lane in 0..16 {
                            out[lane / 4 * 16 + 4 * v + lane % 4] = column[4 * lane + j];
                        }
                    }
                }
            }
        }
    }
}

struct Columns<'a, L, F> {
    w: &'a ByColumn,
    codes: &'a [i8],
    open: Open<'a, F>,
    totals: &'a Mutex<Vec<[i32; 16]>>,
    layout: PhantomData<L>,
}

/// Columns interleaved.
const QUAD: usize = 4;
/// Columns that are added to the outputs' sums at once.
const TOGETHER: usize = 16;

impl<L: Layout, F: Fn(usize) -> bool> Kernel for Columns<'_, L, F> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(mut self, isa: I) {
        let blocks = self.w.column_bytes() / size_of::<Block>();
        let (all, _) = self.w.bytes.as_chunks::<64>();
        let mut sums = vec![[0i32; 16]; blocks * QUAD * L::PLANES];
        loop {
            let list = self.open.ahead(2 * TOGETHER);
            let count = list.len().min(TOGETHER);
            if count == 0 {
                break;
            }
            // What is missing is a column that is there already, times 0.
            let mut columns = [0; TOGETHER];
            let mut next = [0; TOGETHER];
            let mut codes = [[0; QUAD]; TOGETHER / QUAD];
            for i in 0..TOGETHER {
                columns[i] = list[i.min(count - 1)] as usize * blocks;
                next[i] = list.get(TOGETHER + i).map_or(columns[i], |&column| column as usize * blocks);
                if i < count {
                    codes[i / QUAD][i % QUAD] = self.codes[list[i] as usize];
                }
            }
            let quads = count.div_ceil(QUAD);
            for (b, sums) in sums.chunks_exact_mut(QUAD * L::PLANES).enumerate() {
                add::<I, L>(isa, all, &columns, &next, &codes[..quads], b, sums);
            }
            self.open.take(count);
        }
        // Sums are whole numbers: no order of adding them changes one.
        let mut totals = self.totals.lock().unwrap_or_else(PoisonError::into_inner);
        if totals.is_empty() {
            *totals = sums;
        } else {
            for (total, sum) in totals.iter_mut().zip(&sums) {
                for i in 0..16 {
                    total[i] += sum[i];
                }
            }
        }
    }
}

/// Adds block `b` of some columns to the sums of its outputs, and asks for that of the next ones.
#[inline(always)]
fn add<I: Isa, L: Layout>(
    isa: I,
    all: &[Block],
    columns: &[usize; TOGETHER],
    next: &[usize; TOGETHER],
    codes: &[[i8; QUAD]],
    b: usize,
    sums: &mut [[i32; 16]],
) {
    let mut parts = [[isa.part(); 5]; QUAD];
    for (q, codes) in codes.iter().enumerate() {
        let mut lines = [isa.splat(0); QUAD];
        for i in 0..QUAD {
            lines[i] = isa.load(&all[columns[q * QUAD + i] + b]);
            isa.prefetch_l2(all, next[q * QUAD + i] + b);
        }
        let lines = isa.interleave(lines);
        for v in 0..QUAD {
            let planes = if I::SCALED { L::mask(isa, lines[v]) } else { L::split(isa, lines[v]) };
            for p in 0..L::PLANES {
                parts[v][p] = isa.dot(parts[v][p], planes.as_ref()[p], *codes);
            }
        }
    }
    for v in 0..QUAD {
        for p in 0..L::PLANES {
            let part = isa.store(isa.widen(isa.sums(), parts[v][p]));
            let sum = &mut sums[v * L::PLANES + p];
            for i in 0..16 {
                sum[i] += part[i];
            }
        }
    }
}

/// From sums to outputs.
struct Finish<'a, L> {
    w: &'a ByColumn,
    x: &'a Activations,
    totals: &'a [[i32; 16]],
    out: &'a mut [f32],
    layout: PhantomData<L>,
}

impl<L: Layout> Kernel for Finish<'_, L> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let (step, sum) = (self.x.step(0), self.x.sum(0));
        for (g, out) in self.out.chunks_mut(ROWS).enumerate() {
            let scales = self.w.scales.at(isa, g);
            let count = if I::SCALED { L::masked::<I>()[g % L::PLANES] } else { 1 };
            let (shift, inverse) = divisor_of(count);
            for (row, out) in out.iter_mut().enumerate() {
                let total = (self.totals[g][row] >> shift).wrapping_mul(inverse);
                *out = ((total - sum) as f32 * scales[row]) * step;
            }
        }
    }
}
