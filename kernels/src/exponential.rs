//! An exponential of our own: the same bits on every instruction set.

use crate::rounding::{round, round_float};

/// Where [`exp`] is largest, and below which it is 0.
pub(crate) const EXP_MOST: f32 = 88.7;
pub(crate) const EXP_LEAST: f32 = -87.3;
/// ln2 in two parts, so that a whole number times the first is exact.
pub(crate) const LN2_HIGH: f32 = 0.693_359_4;
pub(crate) const LN2_LOW: f32 = -2.121_944_4e-4;
/// Taylor to degree 7, the highest first: the remainder is below 2^-27 within ln2 / 2.
pub(crate) const EXP_TAYLOR: [f32; 8] =
    [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];

/// e^x, within 2 units of the last place; 0 below -87.3, and largest at 88.7.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    let x = if x > EXP_MOST { EXP_MOST } else { x };
    // x = n ln2 + r, |r| <= ln2 / 2.
    let n = round_float(x * std::f32::consts::LOG2_E);
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    let mut p = EXP_TAYLOR[0];
    for c in &EXP_TAYLOR[1..] {
        p = p * r + c;
    }
    // 2^n in two factors, so that the largest and smallest results stay in range.
    let power = round(x * std::f32::consts::LOG2_E);
    let half = power >> 1;
    let scale = |n: i32| f32::from_bits((n.wrapping_add(127) as u32) << 23);
    let value = p * scale(half) * scale(power.wrapping_sub(half));
    if x < EXP_LEAST { 0.0 } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_to_the_true_value_everywhere() {
        let mut worst = 0f64;
        for i in -87_000..88_000 {
            let x = i as f32 / 1000.0;
            let (got, want) = (f64::from(exp(x)), f64::from(x).exp());
            worst = worst.max(((got - want) / want).abs());
        }
        assert!(worst < 2e-7, "{worst}");
        assert_eq!((exp(0.0), exp(-1e9), exp(f32::NEG_INFINITY)), (1.0, 0.0, 0.0));
        assert!(exp(1e9).is_finite() && exp(f32::NAN).is_nan());
    }
}
