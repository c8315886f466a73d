//! From a row of floats to codes and the step that they are worth. Which codes come out depends on no instruction set: largest
//! numbers and magnitudes are found by comparing, and means are summed in f64 in one order.

use super::Row;
use crate::float::magnitude;
use crate::rounding::round;

/// The least that a scale is made of, so that a row of zeros has one: that of the published code for int8.
const LEAST: f32 = 1e-5;
/// A value was not finite.
const BROKEN: Row = Row { step: f32::NAN, sum: 0 };

/// int8 by the largest magnitude: `s = 127 / max(|x|max, 1e-5)`, `code = round_half_even(x * s)`. Goes through the values
/// twice: for the largest, then for the codes.
#[inline(always)]
pub(super) fn absmax(values: impl Iterator<Item = f32> + Clone, codes: &mut [i8]) -> Row {
    let top = magnitude(values.clone());
    if top == f32::INFINITY {
        return BROKEN;
    }
    let scale = 127.0 / top.max(LEAST);
    let mut sum = 0;
    for (code, x) in codes.iter_mut().zip(values) {
        // |x * scale| <= 127 up to rounding.
        *code = round(x * scale) as i8;
        sum += i32::from(*code);
    }
    Row { step: 1.0 / scale, sum }
}

/// int4 by the mean magnitude: `s = sqrt(7) / max(mean |x|, 1e-5)`, `code = clamp(round_half_even(x * s), -8, 7)`.
#[inline(always)]
pub(super) fn absmean(x: &[f32], codes: &mut [i8]) -> Row {
    if magnitude(x.iter().copied()) == f32::INFINITY {
        return BROKEN;
    }
    let mut lanes = [0f64; 8];
    let (whole, rest) = x.as_chunks::<8>();
    for eight in whole {
        for i in 0..8 {
            lanes[i] += f64::from(eight[i].abs());
        }
    }
    let sum = lanes.iter().sum::<f64>() + rest.iter().map(|x| f64::from(x.abs())).sum::<f64>();
    let mean = (sum / x.len() as f64) as f32;
    let scale = 7f32.sqrt() / mean.max(LEAST);
    let mut sum = 0;
    for (code, x) in codes.iter_mut().zip(x) {
        *code = round((x * scale).clamp(-8.0, 7.0)) as i8;
        sum += i32::from(*code);
    }
    Row { step: 1.0 / scale, sum }
}

/// [`absmax`] of the half of the values with the larger magnitudes, rounded up; the others are zero. Of equal magnitudes the
/// first are taken.
#[inline(always)]
pub(super) fn top_half(x: &[f32], codes: &mut [i8]) -> Row {
    let top = magnitude(x.iter().copied());
    if top == f32::INFINITY {
        return BROKEN;
    }
    // Magnitudes as integers, which are in the floats' order.
    let bits = |x: &f32| x.abs().to_bits();
    let reach = |least: u32| -> u32 { x.iter().map(|x| u32::from(bits(x) >= least)).sum() };
    let keep = x.len().div_ceil(2) as u32;
    // The largest magnitude that so many reach, bit by bit.
    let mut least = 0;
    for bit in (0..31).rev() {
        let higher = least | 1 << bit;
        if reach(higher) >= keep {
            least = higher;
        }
    }
    let scale = 127.0 / top.max(LEAST);
    let (mut sum, mut equal) = (0, keep - reach(least + 1));
    for (code, x) in codes.iter_mut().zip(x) {
        let magnitude = bits(x);
        let is_equal = magnitude == least;
        let is_kept = magnitude > least || is_equal && equal > 0;
        equal -= u32::from(is_equal && is_kept);
        *code = if is_kept { round(x * scale) as i8 } else { 0 };
        sum += i32::from(*code);
    }
    Row { step: 1.0 / scale, sum }
}
