//! All logits of many hidden states: a product of matrices, without a screen.
//!
//! A code of a hidden state is two signed digits, `256 high + low`, so the sum is `256 Σ code * high + Σ code * low`: two byte
//! products in place of one of 16 bits, which instructions for bytes do in the same time and broadcast as they come. It
//! is the same integer that [`super::search`] has, and so the same logit. Tiles and panels are those of [`crate::digits`].
//!
//! ```text
//! inputs   tiles of 6 hidden states: [stride / 4] [6 states] [high, low] [4]   signed bytes
//! panel    32 rows of the head:      [stride / 4] [32 rows]              [4]   bytes, code + 128
//! ```
//!
//! Matrix units (`tiles.rs`) want the digits of a state as two rows that lie by themselves, and whole tiles of columns:
//!
//! ```text
//! inputs   [states] [high, low] [stride, filled up with zeros to a multiple of 64]   signed bytes
//! ```

use super::OutputHead;
use super::input::HeadInput;
use crate::cpu::{Cpu, TileKernel};
use crate::digits::{COLS as ROWS, ROWS as STATES, STEP, stored, tile_sums};
use crate::isa::{Isa, Kernel};
use crate::pool::{Disjoint, Pool, Shares};
use crate::tiles::{self, Rows, SIDE, Sums, TILES, Tiles};

/// Bytes of a panel for four columns.
const QUAD: usize = ROWS * 4;
/// Fewer hidden states than these do not make up for laying the panels out.
const LEAST: usize = 12;
/// Most columns: 127 * 128 * 2^17 < 2^31.
const MOST_COLS: usize = 1 << 17;

/// Scratch memory for the digits of hidden states.
#[derive(Debug, Default)]
pub(super) struct Whole {
    tiles: Vec<u8>,
    /// Sums of each state's digits, high and low.
    sums: Vec<[i32; 2]>,
}

/// Whether an instruction set multiplies bytes faster than 16-bit numbers.
struct HasBytes;

impl Kernel for HasBytes {
    type Output = bool;

    #[inline(always)]
    fn run<I: Isa>(self, _: I) -> bool {
        I::SCALED
    }
}

impl Whole {
    /// Whether this is the way for these hidden states.
    pub(super) fn pays(cpu: Cpu, x: &HeadInput) -> bool {
        x.rows() >= LEAST && x.cols() <= MOST_COLS && cpu.run(HasBytes)
    }

    /// `out[state][row]`, `(x.rows(), head.rows())`.
    pub(super) fn product(
        &mut self,
        cpu: Cpu,
        pool: &Pool,
        head: &OutputHead,
        x: &HeadInput,
        out: &mut [f32],
    ) {
        let tiled = cpu.has_tiles(true);
        let quads = (head.stride / 4).next_multiple_of(if tiled { SIDE } else { 1 });
        self.digits(cpu, pool, x, quads, tiled);
        let out = Disjoint::new(out);
        let shares = Shares::new(head.rows.div_ceil(ROWS), pool.threads());
        pool.run(|_| {
            let mut panel = vec![0u8; quads * QUAD];
            for index in std::iter::from_fn(|| shares.take()).flatten() {
                let first = index * ROWS;
                cpu.vectorised(
                    #[inline(always)]
                    || lay_out(head, first, &mut panel),
                );
                let panel = Panel { head, x, inputs: self, panel: &panel, first, out: &out };
                if tiled { cpu.run_tiled(panel) } else { cpu.run(panel) }
            }
        });
    }

    /// Splits the codes into digits. States that fill up the last tile are zeros.
    fn digits(&mut self, cpu: Cpu, pool: &Pool, x: &HeadInput, quads: usize, tiled: bool) {
        let tiles = x.rows().div_ceil(STATES);
        self.tiles.clear();
        self.tiles.resize(tiles * quads * STEP, 0);
        self.sums.clear();
        self.sums.resize(tiles * STATES, [0; 2]);
        let sums = Disjoint::new(&mut self.sums);
        pool.for_chunks(&mut self.tiles, quads * STEP, |tile, out| {
            // SAFETY: a tile's states belong to one thread.
            let sums = unsafe { sums.slice(tile * STATES..(tile + 1) * STATES) };
            for m in 0..STATES.min(x.rows() - tile * STATES) {
                let codes = x.codes(tile * STATES + m);
                cpu.vectorised(
                    #[inline(always)]
                    || sums[m] = if tiled { split_rows(codes, m, out) } else { split(codes, m, out) },
                );
            }
        });
    }
}

/// The digits of a code, |code| <= 127 * 256, so that the upper one is an i8 too.
#[inline(always)]
fn digits(code: i16) -> (i32, i32) {
    let code = i32::from(code);
    let high = (code + 128) >> 8;
    (high, code - (high << 8))
}

/// One state's codes into its two rows among those of a tile's states; gives the sums of the digits.
#[inline(always)]
fn split_rows(codes: &[i16], m: usize, tile: &mut [u8]) -> [i32; 2] {
    let row = tile.len() / (2 * STATES);
    let (highs, lows) = tile[2 * m * row..][..2 * row].split_at_mut(row);
    let mut sums = [0; 2];
    for ((&code, to_high), to_low) in codes.iter().zip(highs).zip(lows) {
        let (high, low) = digits(code);
        sums[0] += high;
        sums[1] += low;
        (*to_high, *to_low) = (high as u8, low as u8);
    }
    sums
}

/// One state's codes into its place `m` of a tile; gives the sums of the digits.
#[inline(always)]
fn split(codes: &[i16], m: usize, tile: &mut [u8]) -> [i32; 2] {
    let mut sums = [0; 2];
    for (codes, step) in codes.as_chunks::<4>().0.iter().zip(tile.as_chunks_mut::<STEP>().0) {
        for j in 0..4 {
            let (high, low) = digits(codes[j]);
            sums[0] += high;
            sums[1] += low;
            (step[8 * m + j], step[8 * m + 4 + j]) = (high as u8, low as u8);
        }
    }
    sums
}

/// The rows from `first` on as a panel; past the last row it keeps what is there.
#[inline(always)]
fn lay_out(head: &OutputHead, first: usize, panel: &mut [u8]) {
    let (panel, _) = panel.as_chunks_mut::<QUAD>();
    let count = ROWS.min(head.rows - first);
    let rows = &head.codes[first * head.stride..(first + count) * head.stride];
    let row = |at: usize| rows[at * head.stride..(at + 1) * head.stride].as_chunks::<16>().0;
    let mut at = 0;
    while at + 4 <= count {
        // Squares of four rows by four words.
        let (a, b, c, d) = (row(at), row(at + 1), row(at + 2), row(at + 3));
        for ((((a, b), c), d), panel) in a.iter().zip(b).zip(c).zip(d).zip(panel.as_chunks_mut::<4>().0) {
            let square = [a, b, c, d].map(words);
            for j in 0..4 {
                let (out, _) = panel[j][4 * at..4 * at + 16].as_chunks_mut::<4>();
                for i in 0..4 {
                    out[i] = square[i][j].to_le_bytes();
                }
            }
        }
        at += 4;
    }
    for at in at..count {
        for (codes, panel) in row(at).iter().zip(panel.as_chunks_mut::<4>().0) {
            for (word, quad) in words(codes).iter().zip(panel) {
                quad[4 * at..4 * at + 4].copy_from_slice(&word.to_le_bytes());
            }
        }
    }
}

/// Sixteen codes as words of four, 128 added to each.
#[inline(always)]
fn words(codes: &[u8; 16]) -> [u32; 4] {
    let mut words = [0; 4];
    for (word, codes) in words.iter_mut().zip(codes.as_chunks::<4>().0) {
        *word = u32::from_le_bytes(*codes) ^ 0x8080_8080;
    }
    words
}

/// The logits of 32 rows for all hidden states.
struct Panel<'a> {
    head: &'a OutputHead,
    x: &'a HeadInput,
    inputs: &'a Whole,
    panel: &'a [u8],
    first: usize,
    out: &'a Disjoint<'a, f32>,
}

impl Kernel for Panel<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let (panel, _) = self.panel.as_chunks::<QUAD>();
        let scales = self.scales();
        for (tile, steps) in self.inputs.tiles.chunks_exact(panel.len() * STEP).enumerate() {
            let (steps, _) = steps.as_chunks::<STEP>();
            let sums = tile_sums(isa, panel, steps);
            for m in 0..STATES.min(self.x.rows() - tile * STATES) {
                self.write(tile * STATES + m, &scales, stored(isa, sums[m]), I::OFFSET8);
            }
        }
    }
}

impl TileKernel for Panel<'_> {
    fn height(&self) -> usize {
        SIDE.min(2 * self.x.rows())
    }

    #[inline(always)]
    fn run<I: Isa, T: Tiles>(self, _: I, mut tiles: T) {
        let (lines, _) = self.panel.as_chunks::<64>().0.as_chunks::<2>();
        let (inputs, scales) = (tiles::signed(&self.inputs.tiles), self.scales());
        let (stride, count) = (4 * lines.len(), 2 * self.x.rows());
        let mut sums = [[Sums::ZERO; 2]; TILES];
        let mut start = 0;
        while start < count.div_ceil(SIDE) {
            let end = (start + TILES).min(count.div_ceil(SIDE));
            tiles::product(&mut tiles, inputs, (stride, count), start..end, lines, &mut sums);
            for (nth, [left, right]) in (start..end).zip(&sums) {
                let Rows { first, again } = Rows::of(nth, count);
                // All of these are even.
                let mut row = again;
                while row < tiles.height() {
                    let stored = [row, row + 1].map(|row| [left.0[row], right.0[row]]);
                    // The bytes are 128 more than the codes.
                    self.write((first + row) / 2, &scales, stored, 128);
                    row += 2;
                }
            }
            start = end;
        }
    }
}

impl Panel<'_> {
    /// The scales of its rows; past the last row zeros.
    #[inline(always)]
    fn scales(&self) -> [f32; ROWS] {
        let count = ROWS.min(self.head.rows - self.first);
        let mut scales = [0f32; ROWS];
        scales[..count].copy_from_slice(&self.head.scales[self.first..self.first + count]);
        scales
    }

    /// The logits of a state by the sums of its digits, high and low, with codes that were larger by `offset`.
    #[inline(always)]
    fn write(&self, state: usize, scales: &[f32; ROWS], [highs, lows]: [[[i32; 16]; 2]; 2], offset: i32) {
        let [high_off, low_off] = self.inputs.sums[state].map(|sum| offset.wrapping_mul(sum));
        let x = self.x.row(state);
        let mut logits = [[0f32; 16]; 2];
        for half in 0..2 {
            for i in 0..16 {
                let (high, low) =
                    (highs[half][i].wrapping_sub(high_off), lows[half][i].wrapping_sub(low_off));
                // Below 2^53, so exact.
                let sum = f64::from(high) * 256.0 + f64::from(low);
                logits[half][i] = (sum * x.unit(scales[16 * half + i])) as f32;
            }
        }
        let count = ROWS.min(self.head.rows - self.first);
        let at = state * self.head.rows + self.first;
        // SAFETY: each panel belongs to one thread, so no other writes these rows of any state.
        let out = unsafe { self.out.slice(at..at + count) };
        if let Ok(out) = <&mut [f32; ROWS]>::try_from(&mut *out) {
            out.copy_from_slice(logits.as_flattened());
        } else {
            out.copy_from_slice(&logits.as_flattened()[..count]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::{HeadScratch, Wanted};

    #[test]
    fn tiles_give_the_logits_of_the_other_sets() {
        let pool = Pool::new(2);
        for (rows, cols, states) in [(32, 64, 12), (70, 33, 13), (33, 700, 24), (100, 1300, 70), (5, 100, 31)]
        {
            let value = |i: usize| ((i * 7919 % 10007) as f32 / 5000.0 - 1.0) * [1.0, 0.1, 30.0][i % 3];
            let head = OutputHead::build(Cpu::best(), &pool, rows, cols, |row, out| {
                out.iter_mut().enumerate().for_each(|(col, out)| *out = value(row * cols + col));
                Ok::<(), ()>(())
            });
            let (head, mut x) = (head.unwrap(), HeadInput::default());
            let values: Vec<f32> = (0..states * cols).map(|i| value(3 * i + 1)).collect();
            x.quantise(Cpu::best(), &values, cols).unwrap();
            let logits = |cpu: Cpu| {
                let mut out = vec![f32::NAN; states * rows];
                head.product(
                    cpu,
                    &pool,
                    &x,
                    Wanted::of(&vec![0; states]),
                    &mut HeadScratch::default(),
                    &mut out,
                );
                out
            };
            let expected = logits(Cpu::available()[0]);
            for cpu in Cpu::with_tiles() {
                assert!(logits(cpu) == expected, "{}: {states} states, {rows} rows of {cols}", cpu.name());
            }
        }
    }
}
