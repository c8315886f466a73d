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

use super::OutputHead;
use super::input::HeadInput;
use crate::cpu::{Cpu, Kernel};
use crate::digits::{COLS as ROWS, ROWS as STATES, STEP, tile_sums};
use crate::isa::Isa;
use crate::pool::{Disjoint, Pool, Shares};

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
        let quads = head.stride / 4;
        self.digits(cpu, pool, x, quads);
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
                cpu.run(Panel { head, x, inputs: self, panel: &panel, first, out: &out });
            }
        });
    }

    /// Splits the codes into digits. States that fill up the last tile are zeros.
    fn digits(&mut self, cpu: Cpu, pool: &Pool, x: &HeadInput, quads: usize) {
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
                    || sums[m] = split(codes, m, out),
                );
            }
        });
    }
}

/// One state's codes into its place `m` of a tile; gives the sums of the digits.
#[inline(always)]
fn split(codes: &[i16], m: usize, tile: &mut [u8]) -> [i32; 2] {
    let mut sums = [0; 2];
    for (codes, step) in codes.as_chunks::<4>().0.iter().zip(tile.as_chunks_mut::<STEP>().0) {
        for j in 0..4 {
            let code = i32::from(codes[j]);
            // |code| <= 127 * 256, so the upper digit is an i8 too.
            let high = (code + 128) >> 8;
            let low = code - (high << 8);
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
        let Panel { head, x, inputs, first, .. } = self;
        let (panel, _) = self.panel.as_chunks::<QUAD>();
        let count = ROWS.min(head.rows - first);
        let mut scales = [0f32; ROWS];
        scales[..count].copy_from_slice(&head.scales[first..first + count]);
        for (tile, steps) in inputs.tiles.chunks_exact(panel.len() * STEP).enumerate() {
            let (steps, _) = steps.as_chunks::<STEP>();
            let sums = tile_sums(isa, panel, steps);
            for m in 0..STATES {
                let state = tile * STATES + m;
                if state >= x.rows() {
                    break;
                }
                let [high_off, low_off] = inputs.sums[state].map(|sum| I::OFFSET8.wrapping_mul(sum));
                let x = x.row(state);
                let mut logits = [[0f32; 16]; 2];
                for half in 0..2 {
                    let (high, low) = (isa.store(sums[m][0][half]), isa.store(sums[m][1][half]));
                    for i in 0..16 {
                        let (high, low) = (high[i].wrapping_sub(high_off), low[i].wrapping_sub(low_off));
                        // Below 2^53, so exact.
                        let sum = f64::from(high) * 256.0 + f64::from(low);
                        logits[half][i] = (sum * x.unit(scales[16 * half + i])) as f32;
                    }
                }
                let at = state * head.rows + first;
                // SAFETY: each panel belongs to one thread, so no other writes these rows of any state.
                let out = unsafe { self.out.slice(at..at + count) };
                if let Ok(out) = <&mut [f32; ROWS]>::try_from(&mut *out) {
                    out.copy_from_slice(logits.as_flattened());
                } else {
                    out.copy_from_slice(&logits.as_flattened()[..count]);
                }
            }
        }
    }
}
