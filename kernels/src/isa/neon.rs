//! NEON: a block is four 16-byte registers, 4 rows each. There is no dot product of bytes in the base of Armv8: products
//! are summed in 16 bits, one running sum for each byte of a block (128 steps of at most 2·127 fit: 32512), and the four
//! of a row are added up when they are widened.

use std::arch::aarch64::*;
use std::arch::is_aarch64_feature_detected;

use super::{Block, Isa, Kernel, THREE_DIGITS};

/// Proof that the CPU has NEON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Neon(());

impl Neon {
    /// The proof, if the CPU has it.
    pub(crate) fn new() -> Option<Self> {
        is_aarch64_feature_detected!("neon").then_some(Self(()))
    }
}

impl Isa for Neon {
    const NAME: &'static str = "neon";
    const DOTS: usize = 128;
    const PANEL: (usize, usize) = (1, 2);
    const SCALED: bool = false;
    const OFFSET8: i32 = 0;
    type Bytes = [uint8x16_t; 4];
    type Sums = [int32x4_t; 4];
    /// Two registers for each of `Bytes`, a lane for each byte.
    type Part = [int16x8_t; 8];

    #[inline]
    fn frame<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "neon")]
        #[inline(never)]
        fn inner<K: Kernel>(isa: Neon, kernel: K) -> K::Output {
            kernel.run(isa)
        }
        // SAFETY: `self` was made by `new`, which saw that the CPU has NEON.
        unsafe { inner(self, kernel) }
    }

    #[inline(always)]
    fn load(self, block: &Block) -> Self::Bytes {
        let at = block.as_ptr();
        // SAFETY: NEON by `self`; the four quarters lie inside the 64 bytes, unaligned loads are allowed.
        unsafe { [vld1q_u8(at), vld1q_u8(at.add(16)), vld1q_u8(at.add(32)), vld1q_u8(at.add(48))] }
    }
    #[inline(always)]
    fn bytes(self, bytes: Self::Bytes) -> Block {
        let mut block = [0; 64];
        for (bytes, quarter) in bytes.into_iter().zip(block.as_chunks_mut::<16>().0) {
            // SAFETY: NEON by `self`; the quarter is the 16 bytes written, an unaligned store is allowed.
            unsafe { vst1q_u8(quarter.as_mut_ptr(), bytes) };
        }
        block
    }
    #[inline(always)]
    fn splat(self, byte: u8) -> Self::Bytes {
        // SAFETY: NEON by `self`.
        unsafe { [vdupq_n_u8(byte); 4] }
    }
    #[inline(always)]
    fn and(self, mut a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
        for i in 0..4 {
            // SAFETY: NEON by `self`.
            a[i] = unsafe { vandq_u8(a[i], b[i]) };
        }
        a
    }
    #[inline(always)]
    fn add(self, mut a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
        for i in 0..4 {
            // SAFETY: NEON by `self`.
            a[i] = unsafe { vaddq_u8(a[i], b[i]) };
        }
        a
    }
    #[inline(always)]
    fn shift2(self, mut a: Self::Bytes) -> Self::Bytes {
        for i in 0..4 {
            // SAFETY: NEON by `self`.
            a[i] = unsafe { vshrq_n_u8::<2>(a[i]) };
        }
        a
    }
    #[inline(always)]
    fn take(self, mut v: Self::Bytes, k: u8) -> (Self::Bytes, Self::Bytes) {
        let mut taken = v;
        for i in 0..4 {
            // SAFETY: NEON by `self`.
            unsafe {
                let above = vcgeq_u8(v[i], vdupq_n_u8(k));
                v[i] = vsubq_u8(v[i], vandq_u8(above, vdupq_n_u8(k)));
                taken[i] = vandq_u8(above, vdupq_n_u8(1));
            }
        }
        (v, taken)
    }
    /// Two compares give minus the digit; one multiplication takes it off.
    #[inline(always)]
    fn digit(self, mut v: Self::Bytes, weight: u8) -> (Self::Bytes, Self::Bytes) {
        let mut digit = v;
        for i in 0..4 {
            // SAFETY: NEON by `self`.
            unsafe {
                let (one, two) = (vcgeq_u8(v[i], vdupq_n_u8(weight)), vcgeq_u8(v[i], vdupq_n_u8(2 * weight)));
                let minus = vaddq_u8(one, two);
                v[i] = vmlaq_u8(v[i], minus, vdupq_n_u8(weight));
                digit[i] = vreinterpretq_u8_s8(vnegq_s8(vreinterpretq_s8_u8(minus)));
            }
        }
        (v, digit)
    }
    /// The upper two digits by compares, the lower three by a table of two registers: 15 instructions a register.
    #[inline(always)]
    fn split5(self, bytes: Self::Bytes) -> [Self::Bytes; 5] {
        let (rest, d4) = self.digit(bytes, 84);
        let (mut codes, d3) = self.digit(rest, 28);
        for i in 0..4 {
            // SAFETY: NEON by `self`; the table is the 32 bytes read.
            codes[i] = unsafe { vqtbl2q_u8(vld1q_u8_x2(THREE_DIGITS.as_ptr()), codes[i]) };
        }
        let mask = self.splat(3);
        let b1 = self.shift2(codes);
        [self.and(codes, mask), self.and(b1, mask), self.shift2(b1), d3, d4]
    }
    #[inline(always)]
    fn sums(self) -> Self::Sums {
        // SAFETY: NEON by `self`.
        unsafe { [vdupq_n_s32(0); 4] }
    }
    #[inline(always)]
    fn part(self) -> Self::Part {
        // SAFETY: NEON by `self`.
        unsafe { [vdupq_n_s16(0); 8] }
    }
    #[inline(always)]
    fn dot(self, mut part: Self::Part, codes: Self::Bytes, activations: [i8; 4]) -> Self::Part {
        for i in 0..4 {
            // SAFETY: NEON by `self`.
            unsafe {
                let x = vreinterpretq_s8_s32(vdupq_n_s32(Self::lane(activations)));
                let codes = vreinterpretq_s8_u8(codes[i]);
                part[2 * i] = vmlal_s8(part[2 * i], vget_low_s8(codes), vget_low_s8(x));
                part[2 * i + 1] = vmlal_high_s8(part[2 * i + 1], codes, x);
            }
        }
        part
    }
    #[inline(always)]
    fn dot_lanes(self, mut part: Self::Part, codes: Self::Bytes, activations: &[i8; 64]) -> Self::Part {
        for i in 0..4 {
            // SAFETY: NEON by `self`; the quarter lies inside the 64 bytes.
            unsafe {
                let x = vld1q_s8(activations.as_ptr().add(16 * i));
                let codes = vreinterpretq_s8_u8(codes[i]);
                part[2 * i] = vmlal_s8(part[2 * i], vget_low_s8(codes), vget_low_s8(x));
                part[2 * i + 1] = vmlal_high_s8(part[2 * i + 1], codes, x);
            }
        }
        part
    }
    #[inline(always)]
    fn interleave(self, [a, b, c, d]: [Self::Bytes; 4]) -> [Self::Bytes; 4] {
        let mut out = [a, b, c, d];
        for q in 0..4 {
            // SAFETY: NEON by `self`.
            unsafe {
                let words = |bytes| vreinterpretq_u16_u8(bytes);
                let (low, high) = (words(vzip1q_u8(a[q], b[q])), words(vzip2q_u8(a[q], b[q])));
                let (low2, high2) = (words(vzip1q_u8(c[q], d[q])), words(vzip2q_u8(c[q], d[q])));
                out[0][q] = vreinterpretq_u8_u16(vzip1q_u16(low, low2));
                out[1][q] = vreinterpretq_u8_u16(vzip2q_u16(low, low2));
                out[2][q] = vreinterpretq_u8_u16(vzip1q_u16(high, high2));
                out[3][q] = vreinterpretq_u8_u16(vzip2q_u16(high, high2));
            }
        }
        out
    }
    /// Products of whole bytes fit 16 bits, their sums do not: pairs are added in 32 bits.
    #[inline(always)]
    fn dot8(self, mut sums: Self::Sums, bytes: Self::Bytes, activations: [i8; 4]) -> Self::Sums {
        for i in 0..4 {
            // SAFETY: NEON by `self`.
            sums[i] = unsafe {
                let x = vreinterpretq_s8_s32(vdupq_n_s32(Self::lane(activations)));
                let signed = vreinterpretq_s8_u8(veorq_u8(bytes[i], vdupq_n_u8(128)));
                let low = vpaddlq_s16(vmull_s8(vget_low_s8(signed), vget_low_s8(x)));
                let high = vpaddlq_s16(vmull_high_s8(signed, x));
                vaddq_s32(sums[i], vpaddq_s32(low, high))
            };
        }
        sums
    }
    #[inline(always)]
    fn widen(self, mut sums: Self::Sums, part: Self::Part) -> Self::Sums {
        for i in 0..4 {
            // SAFETY: NEON by `self`.
            sums[i] = unsafe {
                let (low, high) = (vpaddlq_s16(part[2 * i]), vpaddlq_s16(part[2 * i + 1]));
                vaddq_s32(sums[i], vpaddq_s32(low, high))
            };
        }
        sums
    }
    #[inline(always)]
    fn store(self, sums: Self::Sums) -> [i32; 16] {
        let mut out = [0; 16];
        for (i, out) in out.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            // SAFETY: NEON by `self`; `out` is the 16 bytes written.
            unsafe { vst1q_s32(out.as_mut_ptr(), sums[i]) };
        }
        out
    }
}
