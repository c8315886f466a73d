//! AVX-512 with VNNI (a 4-way dot product of bytes into 32 bits) and VBMI (a permutation of 128 bytes, which turns
//! a number of four base-3 digits into four 2-bit codes in one step): Ice Lake, Zen 4 and later.

use std::arch::x86_64::*;

use super::{Block, Isa};
use crate::cpu::Kernel;

/// Proof that the CPU has AVX-512 F, BW, VNNI and VBMI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Avx512(());

impl Avx512 {
    /// The proof, if the CPU has them all.
    pub(crate) fn new() -> Option<Self> {
        let has = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni")
            && is_x86_feature_detected!("avx512vbmi");
        has.then_some(Self(()))
    }

    /// Runs `kernel` compiled for these instructions.
    #[inline]
    pub(crate) fn frame<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx512vbmi")]
        fn inner<K: Kernel>(isa: Avx512, kernel: K) -> K::Output {
            kernel.run(isa)
        }
        // SAFETY: `self` was made by `new`, which saw that the CPU has every feature enabled here.
        unsafe { inner(self, kernel) }
    }
}

/// For `v` in 0..=80 the base-3 digits d0..d3 as 2-bit codes: `d0 | d1 << 2 | d2 << 4 | d3 << 6`.
const CODES: [Block; 2] = {
    let mut table = [[0; 64]; 2];
    let mut v = 0;
    while v < 81 {
        table[v / 64][v % 64] = ((v % 3) | ((v / 3 % 3) << 2) | ((v / 9 % 3) << 4) | ((v / 27) << 6)) as u8;
        v += 1;
    }
    table
};

impl Isa for Avx512 {
    const NAME: &'static str = "avx512";
    const DOTS: usize = usize::MAX;
    const TILE: (usize, usize) = (4, 4);
    const OFFSET8: i32 = 128;
    type Bytes = __m512i;
    type Sums = __m512i;
    type Part = __m512i;

    #[inline(always)]
    fn load(self, block: &Block) -> __m512i {
        // SAFETY: AVX-512F by `self`; the reference covers the 64 bytes, an unaligned load is allowed.
        unsafe { _mm512_loadu_si512(block.as_ptr().cast()) }
    }
    #[inline(always)]
    fn splat(self, byte: u8) -> __m512i {
        // SAFETY: AVX-512F by `self`.
        unsafe { _mm512_set1_epi8(byte as i8) }
    }
    #[inline(always)]
    fn and(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: AVX-512F by `self`.
        unsafe { _mm512_and_si512(a, b) }
    }
    #[inline(always)]
    fn add(self, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: AVX-512BW by `self`.
        unsafe { _mm512_add_epi8(a, b) }
    }
    #[inline(always)]
    fn shift2(self, a: __m512i) -> __m512i {
        // SAFETY: AVX-512BW by `self`.
        unsafe { _mm512_srli_epi16::<2>(a) }
    }
    #[inline(always)]
    fn take(self, v: __m512i, k: u8) -> (__m512i, __m512i) {
        // SAFETY: AVX-512BW by `self`.
        unsafe {
            let bound = _mm512_set1_epi8(k as i8);
            let above = _mm512_cmpge_epu8_mask(v, bound);
            (_mm512_mask_sub_epi8(v, above, v, bound), _mm512_maskz_set1_epi8(above, 1))
        }
    }
    #[inline(always)]
    fn sums(self) -> __m512i {
        // SAFETY: AVX-512F by `self`.
        unsafe { _mm512_setzero_si512() }
    }
    #[inline(always)]
    fn part(self) -> __m512i {
        self.sums()
    }
    #[inline(always)]
    fn dot(self, part: __m512i, codes: __m512i, activations: [i8; 4]) -> __m512i {
        // SAFETY: AVX-512 VNNI by `self`.
        unsafe {
            let x = _mm512_set1_epi32(Self::lane(activations));
            _mm512_dpbusd_epi32(part, codes, x)
        }
    }
    #[inline(always)]
    fn dot8(self, sums: __m512i, bytes: __m512i, activations: [i8; 4]) -> __m512i {
        self.dot(sums, bytes, activations)
    }
    #[inline(always)]
    fn widen(self, sums: __m512i, part: __m512i) -> __m512i {
        // SAFETY: AVX-512F by `self`.
        unsafe { _mm512_add_epi32(sums, part) }
    }
    #[inline(always)]
    fn store(self, sums: __m512i) -> [i32; 16] {
        let mut out = [0; 16];
        // SAFETY: AVX-512F by `self`; `out` is the 64 bytes written.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), sums) };
        out
    }

    /// The fifth digit by two compares and masked subtractions of 81, the other four by one permutation.
    #[inline(always)]
    fn split5(self, bytes: __m512i) -> [__m512i; 5] {
        let (v, a) = self.take(bytes, 81);
        let (v, b) = self.take(v, 81);
        let (low, high) = (self.load(&CODES[0]), self.load(&CODES[1]));
        // SAFETY: AVX-512 VBMI by `self`.
        let codes = unsafe { _mm512_permutex2var_epi8(low, v, high) };
        let [d0, d1, d2, d3] = self.split2(codes);
        [d0, d1, d2, d3, self.add(a, b)]
    }
}
