//! Products of floats with bytes, for the backward pass of ternary layers: both `g · W` (gradients by trits) and `gᵀ · x`
//! (gradients by int8 activations).
//!
//! The floats are brought to 15-bit fixed point, one step a row, and split into two signed digits: `value = step * (128
//! high + low)`. Then both products are exact sums of byte products, done by the dot-product instructions at twice the speed
//! of float multiplications, and no order of additions matters. What rounding costs is 2^-15 of the largest number of
//! a row; bfloat16 would round each number by 2^-9 of itself.
//!
//! ```text
//! Digits      tiles of 6 rows:      [depth / 4] [6 rows] [high, low] [4]   signed bytes
//! ByteMatrix  panels of 32 columns: [depth / 4] [32 columns]         [4]   bytes, value + 128
//! ```
//!
//! Matrix units (`tiles.rs`) want the digits of a row as two rows that lie by themselves, and whole tiles of depth:
//!
//! ```text
//! Digits      [rows] [high, low] [depth, filled up with zeros to a multiple of 64]   signed bytes
//! ```

use crate::activations::Activations;
use crate::cpu::{Cpu, TileKernel};
use crate::isa::{Block, Isa, Kernel};
use crate::pool::{Disjoint, Pool};
use crate::rounding::round;
use crate::tiles::{self, SIDE, Sums, Tiles};

/// Rows of a tile: 6 rows by 2 digits by 2 vectors of columns are 24 running sums.
pub(crate) const ROWS: usize = 6;
/// Bytes of a tile for four steps of depth.
pub(crate) const STEP: usize = ROWS * 8;
/// Columns of a panel.
pub(crate) const COLS: usize = 32;
/// Largest value of 128 high + low.
const TOP: f32 = 127.0 * 128.0;
/// Most steps of depth: 255 * 127 * 65536 < 2^31.
const MAX_DEPTH: usize = 1 << 16;

/// The float operand `(rows, depth)`.
#[derive(Clone, Debug, Default)]
pub struct Digits {
    rows: usize,
    depth: usize,
    /// Whether they lie as matrix units want them.
    tiled: bool,
    tiles: Vec<u8>, // as many as the largest matrix so far needed
    meta: Vec<Row>,
}

/// Whether so many rows lie as matrix units want them: as many as make a tile.
fn is_tiled(cpu: Cpu, rows: usize) -> bool {
    cpu.has_tiles(2 * rows >= SIDE)
}

/// What belongs to a row.
#[derive(Clone, Copy, Debug, Default)]
struct Row {
    step: f32,
    high: i32,
    low: i32,
}

impl Digits {
    /// Bytes of the tiles and what belongs to rows, for so many of them; and the bytes of a tile.
    fn shape(&mut self, tiled: bool, rows: usize, depth: usize) -> (&mut [u8], Disjoint<'_, Row>, usize) {
        assert!(depth <= MAX_DEPTH, "{depth} steps of depth: expected at most {MAX_DEPTH}");
        (self.tiled, self.rows, self.depth) = (tiled, rows, depth);
        // Old bytes need no clearing: quads are written whole, and rows that fill up the last tile go nowhere.
        let len = self.quads() * STEP;
        let bytes = rows.div_ceil(ROWS) * len;
        if self.tiles.len() < bytes {
            self.tiles.resize(bytes, 0);
        }
        if self.meta.len() < rows.next_multiple_of(ROWS) {
            self.meta.resize(rows.next_multiple_of(ROWS), Row::default());
        }
        (&mut self.tiles[..bytes], Disjoint::new(&mut self.meta), len)
    }

    /// Quads of depth that each row has.
    fn quads(&self) -> usize {
        self.depth.div_ceil(4).next_multiple_of(if self.tiled { SIDE } else { 1 })
    }

    /// The rows of `x`, `depth` numbers each.
    pub fn set_rows(&mut self, cpu: Cpu, pool: &Pool, x: &[f32], depth: usize) {
        assert!(depth > 0 && x.len().is_multiple_of(depth), "{} values are no rows of {depth}", x.len());
        let rows = x.len() / depth;
        let tiled = is_tiled(cpu, rows);
        let (tiles, meta, len) = self.shape(tiled, rows, depth);
        pool.for_chunks(tiles, len, |tile, out| {
            // SAFETY: a tile has its own six rows and belongs to one thread.
            let meta = unsafe { meta.slice(tile * ROWS..(tile + 1) * ROWS) };
            for m in 0..ROWS.min(rows - tile * ROWS) {
                let x = &x[(tile * ROWS + m) * depth..][..depth];
                meta[m] = cpu.vectorised(
                    #[inline(always)]
                    || set_row(x, m, out, tiled),
                );
            }
        });
    }

    /// The columns of `x` as rows: `x` is `(depth, cols)`, and row `t` of it counts `factor(t)` times.
    pub fn set_columns(&mut self, cpu: Cpu, pool: &Pool, x: &[f32], cols: usize, factors: &[f32]) {
        assert!(cols > 0 && x.len() == cols * factors.len(), "{} values are no rows of {cols}", x.len());
        let tiled = is_tiled(cpu, cols);
        let (tiles, meta, len) = self.shape(tiled, cols, factors.len());
        pool.for_chunks(tiles, STRIP * len, |strip, out| {
            let first = strip * STRIP * ROWS;
            let tiles = out.len() / len;
            // SAFETY: a strip has its own rows and belongs to one thread.
            let meta = unsafe { meta.slice(first..first + tiles * ROWS) };
            let width = (tiles * ROWS).min(cols - first);
            cpu.vectorised(
                #[inline(always)]
                || set_strip(x, (cols, first, width), factors, out, (len / STEP, tiled), meta),
            );
        });
    }
}

/// One row into its place `m` in a tile, or among the rows that a tile would have.
#[inline(always)]
fn set_row(x: &[f32], m: usize, out: &mut [u8], tiled: bool) -> Row {
    // As integers the magnitudes of floats are in the floats' order, and their largest is found in vectors.
    let top = x.iter().fold(0u32, |top, x| top.max(x.to_bits() & 0x7fff_ffff));
    let top = f32::from_bits(top);
    let scale = if top > 0.0 { TOP / top } else { 0.0 };
    let (mut high_sum, mut low_sum) = (0, 0);
    let row = out.len() / (2 * ROWS);
    for (nth, x) in x.chunks(SPAN).enumerate() {
        let mut values = [0f32; SPAN];
        match <&[f32; SPAN]>::try_from(x) {
            Ok(x) => values = *x,
            Err(_) => values[..x.len()].copy_from_slice(x),
        }
        // Digits first, in whole vectors; then each four of them to their place.
        let (mut high, mut low) = ([0u8; SPAN], [0u8; SPAN]);
        for i in 0..SPAN {
            let (h, l) = digits(values[i], scale);
            high_sum += h;
            low_sum += l;
            (high[i], low[i]) = (h as u8, l as u8);
        }
        if tiled {
            // A span is a tile wide, so rows of tiles are whole spans.
            out[2 * m * row + nth * SPAN..][..SPAN].copy_from_slice(&high);
            out[(2 * m + 1) * row + nth * SPAN..][..SPAN].copy_from_slice(&low);
            continue;
        }
        let quads = high.as_chunks::<4>().0.iter().zip(low.as_chunks::<4>().0);
        for ((high, low), out) in quads.zip(out[nth * SPAN / 4 * STEP..].chunks_exact_mut(STEP)) {
            out[8 * m..8 * m + 4].copy_from_slice(high);
            out[8 * m + 4..8 * m + 8].copy_from_slice(low);
        }
    }
    Row { step: top / TOP, high: high_sum, low: low_sum }
}

/// Numbers that `set_row` takes at a time.
const SPAN: usize = 64;

/// The digits of a number that `scale` brings to at most `TOP`.
#[inline(always)]
fn digits(x: f32, scale: f32) -> (i32, i32) {
    let value = round(x * scale);
    let high = (value + 64) >> 7;
    (high, value - (high << 7))
}

/// Tiles that `set_columns` fills together, so that it reads whole cache lines: 48 columns are 192 bytes.
const STRIP: usize = 8;
const WIDE: usize = STRIP * ROWS;

/// `width` columns of `x` from `first` on as rows of the tiles in `out`, which have `quads` quads each.
#[inline(always)]
fn set_strip(
    x: &[f32],
    (cols, first, width): (usize, usize, usize),
    factors: &[f32],
    out: &mut [u8],
    (quads, tiled): (usize, bool),
    meta: &mut [Row],
) {
    let mut top = [0u32; WIDE];
    for (x, factor) in x.chunks_exact(cols).zip(factors) {
        // As integers, see `set_row`.
        let from = &x[first..first + width];
        if let Ok(from) = <&[f32; WIDE]>::try_from(from) {
            for c in 0..WIDE {
                top[c] = top[c].max((from[c] * factor).to_bits() & 0x7fff_ffff);
            }
        } else {
            for (top, x) in top.iter_mut().zip(from) {
                *top = (*top).max((x * factor).to_bits() & 0x7fff_ffff);
            }
        }
    }
    let top = top.map(f32::from_bits);
    let mut scale = [0f32; WIDE];
    for c in 0..WIDE {
        scale[c] = if top[c] > 0.0 { TOP / top[c] } else { 0.0 };
    }
    let (mut high_sums, mut low_sums) = ([0i32; WIDE], [0i32; WIDE]);
    for quad in 0..quads {
        // Four steps of depth, a byte of the lane each.
        let (mut high, mut low) = ([0u32; WIDE], [0u32; WIDE]);
        for j in 0..4.min(factors.len().saturating_sub(4 * quad)) {
            let t = 4 * quad + j;
            let from = &x[t * cols + first..][..width];
            // Of a known length in the common case: a copy of registers, not a call.
            let row = match <&[f32; WIDE]>::try_from(from) {
                Ok(row) => *row,
                Err(_) => {
                    let mut row = [0f32; WIDE];
                    row[..width].copy_from_slice(from);
                    row
                }
            };
            let factor = factors[t];
            for c in 0..WIDE {
                let (h, l) = digits(row[c] * factor, scale[c]);
                high_sums[c] += h;
                low_sums[c] += l;
                high[c] |= (h as u32 & 255) << (8 * j);
                low[c] |= (l as u32 & 255) << (8 * j);
            }
        }
        if tiled {
            let rows = out.chunks_exact_mut(8 * quads).zip(high.iter().zip(&low));
            for (rows, (high, low)) in rows {
                let (high_row, low_row) = rows.split_at_mut(4 * quads);
                high_row[4 * quad..4 * quad + 4].copy_from_slice(&high.to_le_bytes());
                low_row[4 * quad..4 * quad + 4].copy_from_slice(&low.to_le_bytes());
            }
            continue;
        }
        for (tile, out) in out.chunks_exact_mut(quads * STEP).enumerate() {
            let (pairs, _) = out[quad * STEP..][..STEP].as_chunks_mut::<8>();
            for m in 0..ROWS {
                let c = tile * ROWS + m;
                pairs[m] = (u64::from(high[c]) | u64::from(low[c]) << 32).to_le_bytes();
            }
        }
    }
    for (c, meta) in meta.iter_mut().enumerate() {
        *meta = Row { step: top[c] / TOP, high: high_sums[c], low: low_sums[c] };
    }
}

/// The operand of bytes `(depth, cols)`.
#[derive(Clone, Debug, Default)]
pub struct ByteMatrix {
    depth: usize,
    cols: usize,
    /// Quads of depth in a panel: whole tiles for matrix units, whose digits are zeros beyond the depth.
    quads: usize,
    panels: Vec<u8>,
}

impl ByteMatrix {
    /// The signed bytes that `row(i)` gives, `cols` each, for `i` in `0..depth`.
    pub fn set<'a>(
        &mut self,
        cpu: Cpu,
        pool: &Pool,
        depth: usize,
        cols: usize,
        row: impl Fn(usize) -> &'a [i8] + Sync,
    ) {
        (self.depth, self.cols) = (depth, cols);
        self.quads = depth.div_ceil(4).next_multiple_of(if cpu.has_tiles(true) { SIDE } else { 1 });
        let len = self.quads * COLS * 4;
        self.panels.resize(cols.div_ceil(COLS) * len, 0);
        // Two panels are a cache line of each row.
        pool.for_chunks(&mut self.panels, 2 * len, |pair, out| {
            cpu.vectorised(
                #[inline(always)]
                || {
                    for quad in 0..depth.div_ceil(4) {
                        let mut rows: [&[i8]; 4] = [&[]; 4];
                        for (j, slot) in rows.iter_mut().enumerate() {
                            if 4 * quad + j < depth {
                                *slot = row(4 * quad + j);
                            }
                        }
                        for (panel, out) in out.chunks_exact_mut(len).enumerate() {
                            let first = (2 * pair + panel) * COLS;
                            let width = COLS.min(cols - first);
                            let mut bytes = [[0i8; COLS]; 4];
                            for j in 0..4 {
                                if !rows[j].is_empty() {
                                    bytes[j][..width].copy_from_slice(&rows[j][first..first + width]);
                                }
                            }
                            let (out, _) = out[quad * COLS * 4..][..COLS * 4].as_chunks_mut::<4>();
                            for c in 0..COLS {
                                let word = u32::from(bytes[0][c] as u8)
                                    | u32::from(bytes[1][c] as u8) << 8
                                    | u32::from(bytes[2][c] as u8) << 16
                                    | u32::from(bytes[3][c] as u8) << 24;
                                // Adds 128 to every byte.
                                out[c] = (word ^ 0x8080_8080).to_le_bytes();
                            }
                        }
                    }
                },
            );
        });
    }

    /// The codes of activations, a row a token; they count in [`Digits::set_columns`] by their steps.
    pub fn set_codes(&mut self, cpu: Cpu, pool: &Pool, x: &Activations) {
        self.set(cpu, pool, x.rows(), x.cols(), |row| x.codes(row));
    }
}

/// Sums of the products of a tile with a panel: for each row its two digits, for each of them 2 by 16 columns.
#[inline(always)]
pub(crate) fn tile_sums<I: Isa>(
    isa: I,
    panel: &[[u8; 4 * COLS]],
    tile: &[[u8; STEP]],
) -> [[[I::Sums; 2]; 2]; ROWS] {
    let mut sums = [[[isa.sums(); 2]; 2]; ROWS];
    for (bytes, step) in panel.iter().zip(tile) {
        let (blocks, _): (&[Block], _) = bytes.as_chunks::<64>();
        let left = isa.load(&blocks[0]);
        let right = isa.load(&blocks[1]);
        let (quads, _) = step.as_chunks::<4>();
        for m in 0..ROWS {
            for digit in 0..2 {
                let [x0, x1, x2, x3] = quads[2 * m + digit];
                let x = [x0 as i8, x1 as i8, x2 as i8, x3 as i8];
                sums[m][digit][0] = isa.dot8(sums[m][digit][0], left, x);
                sums[m][digit][1] = isa.dot8(sums[m][digit][1], right, x);
            }
        }
    }
    sums
}

/// The sums of a row's digits, out of registers.
#[inline(always)]
pub(crate) fn stored<I: Isa>(isa: I, sums: [[I::Sums; 2]; 2]) -> [[[i32; 16]; 2]; 2] {
    let mut stored = [[[0; 16]; 2]; 2];
    for digit in 0..2 {
        for half in 0..2 {
            stored[digit][half] = isa.store(sums[digit][half]);
        }
    }
    stored
}

/// Tiles below each other that make a piece of work.
const TILES: usize = 16;

struct Piece<'a, 'b> {
    a: &'a Digits,
    b: &'a ByteMatrix,
    factor: f32,
    add: bool,
    out: &'b Disjoint<'a, f32>,
    tiles: (usize, usize),
    panel: usize,
}

impl Kernel for Piece<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let Piece { a, b, .. } = self;
        let quads = a.depth.div_ceil(4);
        let (panel, _) = b.panels[self.panel * b.quads * COLS * 4..][..quads * COLS * 4].as_chunks();
        for tile in self.tiles.0..self.tiles.1 {
            let (steps, _) = a.tiles[tile * quads * STEP..][..quads * STEP].as_chunks::<STEP>();
            let sums = tile_sums(isa, panel, steps);
            for m in 0..ROWS.min(a.rows - tile * ROWS) {
                self.write(tile * ROWS + m, stored(isa, sums[m]), I::OFFSET8);
            }
        }
    }
}

impl TileKernel for Piece<'_, '_> {
    fn height(&self) -> usize {
        SIDE.min(2 * self.a.rows)
    }

    #[inline(always)]
    fn run<I: Isa, T: Tiles>(self, _: I, mut tiles: T) {
        let Piece { a, b, .. } = self;
        let panel = &b.panels[self.panel * b.quads * COLS * 4..][..b.quads * COLS * 4];
        let (lines, _) = panel.as_chunks::<64>().0.as_chunks::<2>();
        let (stride, count) = (4 * b.quads, 2 * a.rows);
        let mut sums = [[Sums::ZERO; 2]; tiles::TILES];
        let nth = self.tiles.0..self.tiles.1;
        tiles::product(&mut tiles, tiles::signed(&a.tiles), (stride, count), nth.clone(), lines, &mut sums);
        for (nth, [left, right]) in nth.zip(&sums) {
            let tiles::Rows { first, again } = tiles::Rows::of(nth, count);
            // All of these are even.
            let mut row = again;
            while row < tiles.height() {
                let stored = [row, row + 1].map(|row| [left.0[row], right.0[row]]);
                // The bytes are 128 more than the values.
                self.write((first + row) / 2, stored, 128);
                row += 2;
            }
        }
    }
}

impl Piece<'_, '_> {
    /// A row's products by the sums of its digits, high and low, with bytes that were larger by `offset`.
    #[inline(always)]
    fn write(&self, row: usize, [highs, lows]: [[[i32; 16]; 2]; 2], offset: i32) {
        let meta = self.a.meta[row];
        let factor = meta.step * self.factor;
        let (high_off, low_off) = (offset.wrapping_mul(meta.high), offset.wrapping_mul(meta.low));
        let mut values = [[0f32; 16]; 2];
        for half in 0..2 {
            for i in 0..16 {
                let (high, low) =
                    (highs[half][i].wrapping_sub(high_off), lows[half][i].wrapping_sub(low_off));
                values[half][i] = (high as f32 * 128.0 + low as f32) * factor;
            }
        }
        let first = self.panel * COLS;
        let width = COLS.min(self.b.cols - first);
        let at = row * self.b.cols + first;
        // SAFETY: this piece of rows and columns is one thread's alone.
        let out = unsafe { self.out.slice(at..at + width) };
        let values = values.as_flattened();
        if self.add {
            out.iter_mut().zip(values).for_each(|(out, value)| *out += value);
        } else if let Ok(out) = <&mut [f32; COLS]>::try_from(&mut *out) {
            // Of a known length: registers, not a call.
            out.copy_from_slice(values);
        } else {
            out.copy_from_slice(&values[..width]);
        }
    }
}

/// `out (a.rows, b.cols) = factor * a · b`, or `+=` with `add`.
pub fn digit_product(
    cpu: Cpu,
    pool: &Pool,
    a: &Digits,
    b: &ByteMatrix,
    factor: f32,
    out: &mut [f32],
    add: bool,
) {
    assert_eq!(a.depth, b.depth, "depth of a product");
    assert_eq!(out.len(), a.rows * b.cols, "outputs of the product");
    assert!(!a.tiled || a.quads() == b.quads, "digits as matrix units want them, bytes as others do");
    let (tiles, together) = match a.tiled {
        true => ((2 * a.rows).div_ceil(SIDE), tiles::TILES),
        false => (a.rows.div_ceil(ROWS), TILES),
    };
    let panels = b.cols.div_ceil(COLS);
    let out = Disjoint::new(out);
    pool.for_each(tiles.div_ceil(together) * panels, |index| {
        let first = index / panels * together;
        let tiles = (first, (first + together).min(tiles));
        let piece = Piece { a, b, factor, add, out: &out, tiles, panel: index % panels };
        if a.tiled { cpu.run_tiled(piece) } else { cpu.run(piece) }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(i: usize) -> f32 {
        ((i * 7919 % 1013) as f32 - 506.0) / 512.0 * if i.is_multiple_of(7) { 4.0 } else { 0.5 }
    }

    #[test]
    fn every_shape_and_set_equals_the_plain_sum_and_each_other() {
        for (m, n, k) in [(1, 1, 1), (6, 32, 4), (7, 33, 5), (9, 40, 700), (49, 64, 130), (100, 31, 9)] {
            let x: Vec<f32> = (0..m * k).map(value).collect();
            let bytes: Vec<i8> = (0..k * n).map(|i| (i * 37 % 255) as u8 as i8).collect();
            let factors: Vec<f32> = (0..k).map(|t| 0.25 + t as f32 / 8.0).collect();
            // The same operand by columns: element (t, row) = x[row][t] / factor.
            let flipped: Vec<f32> = (0..k * m).map(|i| x[i % m * k + i / m] / factors[i / m]).collect();
            let mut all = Vec::new();
            for cpu in Cpu::available().into_iter().chain(Cpu::with_tiles()) {
                for threads in [1, 3] {
                    let pool = Pool::new(threads);
                    let (mut a, mut b) = (Digits::default(), ByteMatrix::default());
                    b.set(cpu, &pool, k, n, |row| &bytes[row * n..][..n]);
                    let mut outs = [vec![0f32; m * n], vec![1f32; m * n]];
                    a.set_rows(cpu, &pool, &x, k);
                    digit_product(cpu, &pool, &a, &b, 0.5, &mut outs[0], false);
                    a.set_columns(cpu, &pool, &flipped, m, &factors);
                    digit_product(cpu, &pool, &a, &b, 0.5, &mut outs[1], true);
                    for row in 0..m {
                        let top = x[row * k..][..k].iter().fold(0f32, |top, x| top.max(x.abs()));
                        let slack = f64::from(top) / 16256.0 * 127.0 * k as f64 * 0.5 + 1e-4;
                        for col in 0..n {
                            let terms =
                                (0..k).map(|t| f64::from(x[row * k + t]) * f64::from(bytes[t * n + col]));
                            let want = 0.5 * terms.sum::<f64>();
                            let got = outs[0][row * n + col];
                            assert!((f64::from(got) - want).abs() <= slack, "{m} {n} {k}: {got} {want}");
                            let got = outs[1][row * n + col] - 1.0;
                            assert!(
                                (f64::from(got) - want).abs() <= slack + 1e-3,
                                "{m} {n} {k}: {got} {want}"
                            );
                        }
                    }
                    all.push(outs);
                }
            }
            assert!(all.windows(2).all(|pair| pair[0] == pair[1]), "{m} {n} {k}");
        }
    }
}
