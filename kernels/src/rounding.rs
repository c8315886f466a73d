//! Rounding to whole numbers, half to even, by one addition: the same on every instruction set, and as fast as it gets.

/// 1.5 * 2^23. Where a number below 2^22 in magnitude is added to it, the sum has no bits below one, so the addition rounds,
/// and the low bits of the mantissa are the whole number in two's complement.
pub(crate) const SHIFT: f32 = 12_582_912.0;

/// `x` as a whole number, for |x| < 2^22.
#[inline(always)]
pub(crate) fn round(x: f32) -> i32 {
    (x + SHIFT).to_bits().wrapping_sub(SHIFT.to_bits()) as i32
}

/// `x` rounded, as a float, for |x| < 2^22.
#[inline(always)]
pub(crate) fn round_float(x: f32) -> f32 {
    (x + SHIFT) - SHIFT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_go_to_the_even_neighbour() {
        for (x, whole) in [(0.5, 0), (1.5, 2), (2.5, 2), (-0.5, 0), (-1.5, -2), (126.5, 126), (0.49, 0)] {
            assert_eq!((round(x), round_float(x)), (whole, whole as f32), "{x}");
        }
        for whole in [1 - (1 << 22), -32_512, -128, -1, 0, 1, 127, 32_512, (1 << 22) - 1] {
            assert_eq!((round(whole as f32), round_float(whole as f32)), (whole, whole as f32));
        }
    }
}
