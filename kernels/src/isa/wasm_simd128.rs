//! WebAssembly's 128-bit vectors: a block is four registers, 4 rows each. As with NEON there is no dot product of bytes:
//! products are summed in 16 bits, one running sum for each byte of a block (128 steps of at most 2·127 fit: 32512), and
//! the four of a row are added up when they are widened.
//!
//! Intrinsics are safe here: a module that holds an instruction the engine lacks is refused as a whole.

use std::arch::wasm32::*;

use super::{Block, Isa, Kernel, THREE_DIGITS};

/// Proof that this was compiled with `-C target-feature=+simd128`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WasmSimd128(());

impl WasmSimd128 {
    /// The proof.
    pub(crate) fn new() -> Option<Self> {
        Some(Self(()))
    }
}

impl Isa for WasmSimd128 {
    const NAME: &'static str = "wasm-simd128";
    const DOTS: usize = 128;
    const PANEL: (usize, usize) = (1, 2);
    const SCALED: bool = false;
    const OFFSET8: i32 = 0;
    type Bytes = [v128; 4];
    type Sums = [v128; 4];
    /// Two registers for each of `Bytes`, a lane for each byte.
    type Part = [v128; 8];

    #[inline(never)]
    fn frame<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }

    #[inline(always)]
    fn load(self, block: &Block) -> Self::Bytes {
        let (quarters, _) = block.as_chunks::<16>();
        let mut bytes = self.splat(0);
        for i in 0..4 {
            // SAFETY: the quarter is the 16 bytes read, an unaligned load is allowed.
            bytes[i] = unsafe { v128_load(quarters[i].as_ptr().cast()) };
        }
        bytes
    }
    #[inline(always)]
    fn bytes(self, bytes: Self::Bytes) -> Block {
        let mut block = [0; 64];
        for (bytes, quarter) in bytes.into_iter().zip(block.as_chunks_mut::<16>().0) {
            // SAFETY: the quarter is the 16 bytes written, an unaligned store is allowed.
            unsafe { v128_store(quarter.as_mut_ptr().cast(), bytes) };
        }
        block
    }
    #[inline(always)]
    fn splat(self, byte: u8) -> Self::Bytes {
        [u8x16_splat(byte); 4]
    }
    #[inline(always)]
    fn and(self, mut a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
        for i in 0..4 {
            a[i] = v128_and(a[i], b[i]);
        }
        a
    }
    #[inline(always)]
    fn add(self, mut a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
        for i in 0..4 {
            a[i] = u8x16_add(a[i], b[i]);
        }
        a
    }
    /// In 16-bit lanes: x86 has no shift of bytes, and engines would make three instructions of it.
    #[inline(always)]
    fn shift2(self, mut a: Self::Bytes) -> Self::Bytes {
        for i in 0..4 {
            a[i] = u16x8_shr(a[i], 2);
        }
        a
    }
    #[inline(always)]
    fn take(self, mut v: Self::Bytes, k: u8) -> (Self::Bytes, Self::Bytes) {
        let mut taken = v;
        for i in 0..4 {
            let above = u8x16_ge(v[i], u8x16_splat(k));
            v[i] = u8x16_sub(v[i], v128_and(above, u8x16_splat(k)));
            taken[i] = v128_and(above, u8x16_splat(1));
        }
        (v, taken)
    }
    /// The upper two digits by compares, the lower three by a table, of which a swizzle reads one half and gives 0 for
    /// the other.
    #[inline(always)]
    fn split5(self, bytes: Self::Bytes) -> [Self::Bytes; 5] {
        let (rest, d4) = self.digit(bytes, 84);
        let (mut codes, d3) = self.digit(rest, 28);
        let (halves, _) = THREE_DIGITS.as_chunks::<16>();
        // SAFETY: each half is the 16 bytes read, an unaligned load is allowed.
        let (low, high) =
            unsafe { (v128_load(halves[0].as_ptr().cast()), v128_load(halves[1].as_ptr().cast())) };
        for i in 0..4 {
            let above = u8x16_swizzle(high, u8x16_sub(codes[i], u8x16_splat(16)));
            codes[i] = v128_or(u8x16_swizzle(low, codes[i]), above);
        }
        let [d0, d1, d2, _] = self.split2(codes);
        [d0, d1, d2, d3, d4]
    }
    #[inline(always)]
    fn sums(self) -> Self::Sums {
        [i32x4_splat(0); 4]
    }
    #[inline(always)]
    fn part(self) -> Self::Part {
        [i16x8_splat(0); 8]
    }
    /// By widening and multiplying: x86 needs three to five instructions for each `extmul`, and here both halves of the
    /// activations are the same. In Node on x86-64 this is 1.3 to 1.4 times as fast.
    #[inline(always)]
    fn dot(self, mut part: Self::Part, codes: Self::Bytes, activations: [i8; 4]) -> Self::Part {
        let x = i16x8_extend_low_i8x16(i32x4_splat(Self::lane(activations)));
        for i in 0..4 {
            part[2 * i] = i16x8_add(part[2 * i], i16x8_mul(i16x8_extend_low_u8x16(codes[i]), x));
            part[2 * i + 1] = i16x8_add(part[2 * i + 1], i16x8_mul(i16x8_extend_high_u8x16(codes[i]), x));
        }
        part
    }
    #[inline(always)]
    fn dot_lanes(self, mut part: Self::Part, codes: Self::Bytes, activations: &[i8; 64]) -> Self::Part {
        let (quarters, _) = activations.as_chunks::<16>();
        for i in 0..4 {
            // SAFETY: the quarter is the 16 bytes read, an unaligned load is allowed.
            let x = unsafe { v128_load(quarters[i].as_ptr().cast()) };
            let (low, high) = (i16x8_extend_low_i8x16(x), i16x8_extend_high_i8x16(x));
            part[2 * i] = i16x8_add(part[2 * i], i16x8_mul(i16x8_extend_low_u8x16(codes[i]), low));
            part[2 * i + 1] = i16x8_add(part[2 * i + 1], i16x8_mul(i16x8_extend_high_u8x16(codes[i]), high));
        }
        part
    }
    #[inline(always)]
    fn interleave(self, [a, b, c, d]: [Self::Bytes; 4]) -> [Self::Bytes; 4] {
        let mut out = [a, b, c, d];
        for q in 0..4 {
            let (low, high) = (zip_low(a[q], b[q]), zip_high(a[q], b[q]));
            let (low2, high2) = (zip_low(c[q], d[q]), zip_high(c[q], d[q]));
            out[0][q] = i16x8_shuffle::<0, 8, 1, 9, 2, 10, 3, 11>(low, low2);
            out[1][q] = i16x8_shuffle::<4, 12, 5, 13, 6, 14, 7, 15>(low, low2);
            out[2][q] = i16x8_shuffle::<0, 8, 1, 9, 2, 10, 3, 11>(high, high2);
            out[3][q] = i16x8_shuffle::<4, 12, 5, 13, 6, 14, 7, 15>(high, high2);
        }
        out
    }
    /// Products of whole bytes fit 16 bits, their sums do not: pairs are added in 32 bits.
    #[inline(always)]
    fn dot8(self, mut sums: Self::Sums, bytes: Self::Bytes, activations: [i8; 4]) -> Self::Sums {
        let x = i32x4_splat(Self::lane(activations));
        for i in 0..4 {
            let signed = v128_xor(bytes[i], u8x16_splat(128));
            let low = i32x4_extadd_pairwise_i16x8(i16x8_extmul_low_i8x16(signed, x));
            let high = i32x4_extadd_pairwise_i16x8(i16x8_extmul_high_i8x16(signed, x));
            sums[i] = i32x4_add(sums[i], add_pairs(low, high));
        }
        sums
    }
    #[inline(always)]
    fn widen(self, mut sums: Self::Sums, part: Self::Part) -> Self::Sums {
        for i in 0..4 {
            let low = i32x4_extadd_pairwise_i16x8(part[2 * i]);
            let high = i32x4_extadd_pairwise_i16x8(part[2 * i + 1]);
            sums[i] = i32x4_add(sums[i], add_pairs(low, high));
        }
        sums
    }
    #[inline(always)]
    fn store(self, sums: Self::Sums) -> [i32; 16] {
        let mut out = [0; 16];
        for (i, out) in out.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            // SAFETY: `out` is the 16 bytes written, an unaligned store is allowed.
            unsafe { v128_store(out.as_mut_ptr().cast(), sums[i]) };
        }
        out
    }
}

/// The sums of neighbours: first the two of `a`, then the two of `b`.
#[inline(always)]
fn add_pairs(a: v128, b: v128) -> v128 {
    i32x4_add(i32x4_shuffle::<0, 2, 4, 6>(a, b), i32x4_shuffle::<1, 3, 5, 7>(a, b))
}

/// The lower eight bytes of both, one after the other by turns.
#[inline(always)]
fn zip_low(a: v128, b: v128) -> v128 {
    i8x16_shuffle::<0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23>(a, b)
}

/// The upper eight likewise.
#[inline(always)]
fn zip_high(a: v128, b: v128) -> v128 {
    i8x16_shuffle::<8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31>(a, b)
}
