//! Softmax in one pass over chunks of positions (online softmax, Milakov and Gimelshein 2018): each chunk is summed
//! against its own largest score, and chunks are joined in the order of positions. What a chunk gives does not depend on
//! the chunks before it, so they can be computed anywhere and joined later with the same bits.

use super::format::{CHUNK, LANES};
use super::write::TINY;
use crate::exponential::exp;
use crate::isa::Isa;
use crate::rounding::round;

/// One number for each position of a chunk.
pub(super) type Lanes = [[f32; LANES]; CHUNK / LANES];

/// `Σ weight * value` over some positions, as a multiple of `e^top`.
#[derive(Clone, Copy)]
pub(super) struct Sum {
    pub(super) top: f32,
    pub(super) total: f32,
}

impl Sum {
    /// Of no positions.
    pub(super) const EMPTY: Self = Self { top: f32::NEG_INFINITY, total: 0.0 };

    /// Takes in later positions; returns what the two weighted sums of values are to be multiplied with.
    #[inline(always)]
    pub(super) fn join(&mut self, later: Sum) -> (f32, f32) {
        // A window may begin after the first chunks.
        if self.total == 0.0 && later.total == 0.0 {
            return (1.0, 0.0);
        }
        let top = if later.top > self.top { later.top } else { self.top };
        let (mine, theirs) = (exp(self.top - top), exp(later.top - top));
        *self = Self { top, total: self.total * mine + later.total * theirs };
        (mine, theirs)
    }
}

/// The largest lane, a NaN left out.
#[inline(always)]
pub(super) fn largest(lanes: [f32; LANES]) -> f32 {
    let mut top = lanes[0];
    for lane in lanes {
        top = if lane > top { lane } else { top };
    }
    top
}

/// Scores become weights `e^(score - top)`.
#[inline(always)]
pub(super) fn weigh<I: Isa>(isa: I, scores: &mut [[f32; LANES]]) -> Sum {
    let mut tops = [f32::NEG_INFINITY; LANES];
    for scores in scores.iter() {
        for i in 0..LANES {
            tops[i] = if scores[i] > tops[i] { scores[i] } else { tops[i] };
        }
    }
    let top = largest(tops);
    isa.exps(scores, top);
    let mut totals = [0f32; LANES];
    for scores in scores.iter() {
        // The product with 1 changes nothing: this is an addition of whole registers, whatever the compiler would choose.
        totals = isa.add_scaled(totals, scores, 1.0);
    }
    Sum { top, total: crate::float::sum(totals) }
}

/// A number in two signed parts, `128 * high + low`: both within ±64, so that pairs of their products with bytes fit
/// 16 bits ([`crate::isa::Isa::dot7`]).
pub(super) const LEVELS: f32 = 8191.0;

/// The parts of an integer within ±8191.
#[inline(always)]
pub(super) fn parts(n: i32) -> (i8, i8) {
    let high = n.wrapping_add(64) >> 7;
    (high as i8, n.wrapping_sub(high << 7) as i8)
}

/// `value` in steps of `1 / scale`, rounded half to even.
#[inline(always)]
pub(super) fn level(value: f32, scale: f32) -> i32 {
    round(value * scale)
}

/// Weights times the scales of the values, as integers against the largest; returns what one is worth and their sum.
#[inline(always)]
pub(super) fn quantise(
    weights: &[[f32; LANES]],
    scales: &Lanes,
    high: &mut [[i8; LANES]],
    low: &mut [[i8; LANES]],
) -> (f32, i32) {
    // Flat loops and a maximum of integers, which compilers turn into vectors: as integers, the magnitudes of numbers are in
    // the floats' order.
    let mut scaled = [[0f32; LANES]; CHUNK / LANES];
    let scaled = &mut scaled[..weights.len()];
    let mut top = 0u32;
    let factors = weights.as_flattened().iter().zip(scales.as_flattened());
    for (scaled, (weight, scale)) in scaled.as_flattened_mut().iter_mut().zip(factors) {
        *scaled = weight * scale;
        top = top.max(scaled.to_bits() & 0x7fff_ffff);
    }
    let top = f32::from_bits(top);
    let top = if top > TINY { top } else { TINY };
    let scale = LEVELS / top;
    let mut sum = 0i32;
    let codes = high.as_flattened_mut().iter_mut().zip(low.as_flattened_mut());
    for (scaled, (high, low)) in scaled.as_flattened().iter().zip(codes) {
        let n = level(*scaled, scale);
        sum = sum.wrapping_add(n);
        (*high, *low) = parts(n);
    }
    (top / LEVELS, sum)
}
