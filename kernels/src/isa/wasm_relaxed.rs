//! WebAssembly's relaxed SIMD: a dot product of bytes that engines turn into `sdot`, `vpdpbusd` or `pmaddubsw`. What is
//! relaxed about it is the sign of a second operand of 128 and more, and whether the sum of two products saturates at
//! 16 bits. Neither can be seen here: second operands are at most 127, and 2 · 127 · 128 = 32512 is no more than 32767.
//!
//! V8's baseline compiler lost the third operand until 2024 (Node 20, where a flag turns relaxed SIMD on): the engine is
//! asked for one product before the set is used.

use std::arch::wasm32::*;
use std::hint::black_box;

use super::{Block, Isa, Kernel, WasmSimd128, extend};

/// Proof that this was compiled with `-C target-feature=+simd128,+relaxed-simd`, for an engine that adds right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WasmRelaxed(WasmSimd128);

impl WasmRelaxed {
    /// The proof, if the engine's dot product is right.
    pub(crate) fn new() -> Option<Self> {
        let (a, b, sum) =
            (black_box(i8x16_splat(-3)), black_box(i8x16_splat(2)), black_box(i32x4_splat(1000)));
        let right = i32x4_extract_lane::<3>(i32x4_relaxed_dot_i8x16_i7x16_add(a, b, sum)) == 1000 - 4 * 3 * 2;
        WasmSimd128::new().filter(|_| right).map(Self)
    }
}

impl Isa for WasmRelaxed {
    const NAME: &'static str = "wasm-relaxed";
    const DOTS: usize = usize::MAX;
    const PANEL: (usize, usize) = (1, 3);
    const SCALED: bool = false;
    const OFFSET8: i32 = 128;
    extend!(WasmSimd128);

    #[inline(never)]
    fn frame<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }

    /// Codes are below 128, so each engine gives the same.
    #[inline(always)]
    fn dot(self, mut part: Self::Part, codes: Self::Bytes, activations: [i8; 4]) -> Self::Part {
        let x = i32x4_splat(Self::lane(activations));
        for i in 0..4 {
            part[i] = i32x4_relaxed_dot_i8x16_i7x16_add(x, codes[i], part[i]);
        }
        part
    }
    #[inline(always)]
    fn dot_lanes(self, mut part: Self::Part, codes: Self::Bytes, activations: &[i8; 64]) -> Self::Part {
        let (quarters, _) = activations.as_chunks::<16>();
        for i in 0..4 {
            // SAFETY: the quarter is the 16 bytes read, an unaligned load is allowed.
            let x = unsafe { v128_load(quarters[i].as_ptr().cast()) };
            part[i] = i32x4_relaxed_dot_i8x16_i7x16_add(x, codes[i], part[i]);
        }
        part
    }
    /// A whole byte is no second operand; it goes in as `2 * (b >> 1) + (b & 1)`, each below 128.
    #[inline(always)]
    fn dot8(self, mut sums: Self::Sums, bytes: Self::Bytes, activations: [i8; 4]) -> Self::Sums {
        let x = i32x4_splat(Self::lane(activations));
        for i in 0..4 {
            let half = v128_and(u16x8_shr(bytes[i], 1), u8x16_splat(127));
            let rest = v128_and(bytes[i], u8x16_splat(1));
            let halves = i32x4_relaxed_dot_i8x16_i7x16_add(x, half, i32x4_splat(0));
            let sum = i32x4_relaxed_dot_i8x16_i7x16_add(x, rest, sums[i]);
            sums[i] = i32x4_add(sum, i32x4_add(halves, halves));
        }
        sums
    }
    #[inline(always)]
    fn widen(self, mut sums: Self::Sums, part: Self::Part) -> Self::Sums {
        for i in 0..4 {
            sums[i] = i32x4_add(sums[i], part[i]);
        }
        sums
    }
}
