//! AVX2: a block is two 32-byte registers, 8 rows each. There is no 4-way dot product: pairs of products are summed
//! in 16 bits, where 64 steps of at most 2·2·127 = 508 fit (32512), and widened to 32 bits after that.

use std::arch::x86_64::*;

use super::{Block, Isa, Kernel};

/// Proof that the CPU has AVX2 and F16C (every CPU with AVX2 so far does).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Avx2(());

impl Avx2 {
    /// The proof, if the CPU has both.
    pub(crate) fn new() -> Option<Self> {
        (is_x86_feature_detected!("avx2") && is_x86_feature_detected!("f16c")).then_some(Self(()))
    }
}

impl Isa for Avx2 {
    const NAME: &'static str = "avx2";
    const DOTS: usize = 64;
    const PANEL: (usize, usize) = (1, 4);
    const SCALED: bool = false;
    const OFFSET8: i32 = 128;
    type Bytes = [__m256i; 2];
    type Sums = [__m256i; 2];
    type Part = [__m256i; 2];

    #[inline]
    fn frame<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,f16c")]
        #[inline(never)]
        fn inner<K: Kernel>(isa: Avx2, kernel: K) -> K::Output {
            kernel.run(isa)
        }
        // SAFETY: `self` was made by `new`, which saw that the CPU has AVX2.
        unsafe { inner(self, kernel) }
    }

    #[inline(always)]
    fn load(self, block: &Block) -> Self::Bytes {
        let at = block.as_ptr().cast::<__m256i>();
        // SAFETY: AVX2 by `self`; both halves lie inside the 64 bytes, unaligned loads are allowed.
        unsafe { [_mm256_loadu_si256(at), _mm256_loadu_si256(at.add(1))] }
    }
    #[inline(always)]
    fn bytes(self, bytes: Self::Bytes) -> Block {
        let mut block = [0; 64];
        let at = block.as_mut_ptr().cast::<__m256i>();
        // SAFETY: AVX2 by `self`; both halves lie inside the 64 bytes, unaligned stores are allowed.
        unsafe {
            _mm256_storeu_si256(at, bytes[0]);
            _mm256_storeu_si256(at.add(1), bytes[1]);
        }
        block
    }
    #[inline(always)]
    fn splat(self, byte: u8) -> Self::Bytes {
        // SAFETY: AVX2 by `self`.
        unsafe { [_mm256_set1_epi8(byte as i8); 2] }
    }
    #[inline(always)]
    fn and(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
        // SAFETY: AVX2 by `self`.
        unsafe { [_mm256_and_si256(a[0], b[0]), _mm256_and_si256(a[1], b[1])] }
    }
    #[inline(always)]
    fn add(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
        // SAFETY: AVX2 by `self`.
        unsafe { [_mm256_add_epi8(a[0], b[0]), _mm256_add_epi8(a[1], b[1])] }
    }
    #[inline(always)]
    fn shift2(self, a: Self::Bytes) -> Self::Bytes {
        // SAFETY: AVX2 by `self`.
        unsafe { [_mm256_srli_epi16::<2>(a[0]), _mm256_srli_epi16::<2>(a[1])] }
    }
    #[inline(always)]
    fn take(self, v: Self::Bytes, k: u8) -> (Self::Bytes, Self::Bytes) {
        // SAFETY: AVX2 by `self`.
        unsafe {
            let (bound, one) = (_mm256_set1_epi8(k as i8), _mm256_set1_epi8(1));
            let above = [
                _mm256_cmpeq_epi8(_mm256_max_epu8(v[0], bound), v[0]),
                _mm256_cmpeq_epi8(_mm256_max_epu8(v[1], bound), v[1]),
            ];
            let rest = [
                _mm256_sub_epi8(v[0], _mm256_and_si256(above[0], bound)),
                _mm256_sub_epi8(v[1], _mm256_and_si256(above[1], bound)),
            ];
            (rest, [_mm256_and_si256(above[0], one), _mm256_and_si256(above[1], one)])
        }
    }
    #[inline(always)]
    fn prefetch<T>(self, data: &[T], at: usize) {
        // SAFETY: a prefetch reads nothing; any address is allowed.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(data.as_ptr().wrapping_add(at).cast()) }
    }
    #[inline(always)]
    fn prefetch_l2<T>(self, data: &[T], at: usize) {
        // SAFETY: as above.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(data.as_ptr().wrapping_add(at).cast()) }
    }
    #[inline(always)]
    fn sums(self) -> Self::Sums {
        // SAFETY: AVX2 by `self`.
        unsafe { [_mm256_setzero_si256(); 2] }
    }
    #[inline(always)]
    fn part(self) -> Self::Part {
        self.sums()
    }
    #[inline(always)]
    fn dot(self, part: Self::Part, codes: Self::Bytes, activations: [i8; 4]) -> Self::Part {
        // SAFETY: AVX2 by `self`.
        unsafe {
            let x = _mm256_set1_epi32(Self::lane(activations));
            let products = [_mm256_maddubs_epi16(codes[0], x), _mm256_maddubs_epi16(codes[1], x)];
            [_mm256_add_epi16(part[0], products[0]), _mm256_add_epi16(part[1], products[1])]
        }
    }
    #[inline(always)]
    fn dot_lanes(self, part: Self::Part, codes: Self::Bytes, activations: &[i8; 64]) -> Self::Part {
        let at = activations.as_ptr().cast::<__m256i>();
        // SAFETY: AVX2 by `self`; both halves lie inside the 64 bytes, unaligned loads are allowed.
        unsafe {
            let x = [_mm256_loadu_si256(at), _mm256_loadu_si256(at.add(1))];
            let products = [_mm256_maddubs_epi16(codes[0], x[0]), _mm256_maddubs_epi16(codes[1], x[1])];
            [_mm256_add_epi16(part[0], products[0]), _mm256_add_epi16(part[1], products[1])]
        }
    }
    #[inline(always)]
    fn interleave(self, [a, b, c, d]: [Self::Bytes; 4]) -> [Self::Bytes; 4] {
        let mut out = [a, b, c, d];
        for half in 0..2 {
            // SAFETY: AVX2 by `self`.
            unsafe {
                let (low, high) =
                    (_mm256_unpacklo_epi8(a[half], b[half]), _mm256_unpackhi_epi8(a[half], b[half]));
                let (low2, high2) =
                    (_mm256_unpacklo_epi8(c[half], d[half]), _mm256_unpackhi_epi8(c[half], d[half]));
                out[0][half] = _mm256_unpacklo_epi16(low, low2);
                out[1][half] = _mm256_unpackhi_epi16(low, low2);
                out[2][half] = _mm256_unpacklo_epi16(high, high2);
                out[3][half] = _mm256_unpackhi_epi16(high, high2);
            }
        }
        out
    }
    /// A pair of products of whole bytes does not fit 16 bits, so a byte goes in as `2 * (b >> 1) + (b & 1)`.
    #[inline(always)]
    fn dot8(self, sums: Self::Sums, bytes: Self::Bytes, activations: [i8; 4]) -> Self::Sums {
        let mut sums = sums;
        for half in 0..2 {
            // SAFETY: AVX2 by `self`.
            sums[half] = unsafe {
                let x = _mm256_set1_epi32(Self::lane(activations));
                let high = _mm256_and_si256(_mm256_srli_epi16::<1>(bytes[half]), _mm256_set1_epi8(127));
                let low = _mm256_and_si256(bytes[half], _mm256_set1_epi8(1));
                // |high pair| <= 2 * 127 * 128 = 32512, |low pair| <= 256.
                let high = _mm256_madd_epi16(_mm256_maddubs_epi16(high, x), _mm256_set1_epi16(2));
                let low = _mm256_madd_epi16(_mm256_maddubs_epi16(low, x), _mm256_set1_epi16(1));
                _mm256_add_epi32(sums[half], _mm256_add_epi32(high, low))
            };
        }
        sums
    }
    #[inline(always)]
    fn dot7(self, sums: Self::Sums, bytes: Self::Bytes, activations: [i8; 4]) -> Self::Sums {
        let mut sums = sums;
        for half in 0..2 {
            // SAFETY: AVX2 by `self`.
            sums[half] = unsafe {
                let x = _mm256_set1_epi32(Self::lane(activations));
                // |pair| <= 2 * 255 * 64 = 32640.
                let pairs = _mm256_maddubs_epi16(bytes[half], x);
                _mm256_add_epi32(sums[half], _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
            };
        }
        sums
    }
    #[inline(always)]
    fn halves(self, bytes: &[u8; 32]) -> [f32; 16] {
        let mut values = [0f32; 16];
        for half in 0..2 {
            // SAFETY: AVX2 and F16C by `self`; each half is 16 of the bytes and 8 of the values.
            unsafe {
                let halves = _mm_loadu_si128(bytes.as_ptr().cast::<__m128i>().add(half));
                _mm256_storeu_ps(values.as_mut_ptr().add(8 * half), _mm256_cvtph_ps(halves));
            }
        }
        values
    }
    #[inline(always)]
    fn add_scaled(self, sums: [f32; 16], x: &[f32; 16], factor: f32) -> [f32; 16] {
        let mut sums = sums;
        for half in [0, 8] {
            // SAFETY: AVX2 by `self`; each half is 8 of the 16 values of both arrays.
            unsafe {
                let product = _mm256_mul_ps(_mm256_loadu_ps(x.as_ptr().add(half)), _mm256_set1_ps(factor));
                let at = sums.as_mut_ptr().add(half);
                _mm256_storeu_ps(at, _mm256_add_ps(_mm256_loadu_ps(at), product));
            }
        }
        sums
    }
    #[inline(always)]
    fn add_sums(
        self,
        totals: [f32; 16],
        sums: [i32; 16],
        minus: i32,
        scales: &[f32; 16],
        factor: f32,
    ) -> [f32; 16] {
        let mut totals = totals;
        for half in [0, 8] {
            // SAFETY: AVX2 by `self`; each half is 8 of the 16 values of all arrays.
            unsafe {
                let sums = _mm256_loadu_si256(sums.as_ptr().add(half).cast());
                let sums = _mm256_cvtepi32_ps(_mm256_sub_epi32(sums, _mm256_set1_epi32(minus)));
                let scaled = _mm256_mul_ps(sums, _mm256_loadu_ps(scales.as_ptr().add(half)));
                let scaled = _mm256_mul_ps(scaled, _mm256_set1_ps(factor));
                let at = totals.as_mut_ptr().add(half);
                _mm256_storeu_ps(at, _mm256_add_ps(_mm256_loadu_ps(at), scaled));
            }
        }
        totals
    }
    #[inline(always)]
    fn widen(self, sums: Self::Sums, part: Self::Part) -> Self::Sums {
        // SAFETY: AVX2 by `self`.
        unsafe {
            let one = _mm256_set1_epi16(1);
            let wide = [_mm256_madd_epi16(part[0], one), _mm256_madd_epi16(part[1], one)];
            [_mm256_add_epi32(sums[0], wide[0]), _mm256_add_epi32(sums[1], wide[1])]
        }
    }
    #[inline(always)]
    fn store(self, sums: Self::Sums) -> [i32; 16] {
        let mut out = [0; 16];
        let at = out.as_mut_ptr().cast::<__m256i>();
        // SAFETY: AVX2 by `self`; both halves lie inside the 64 bytes of `out`.
        unsafe {
            _mm256_storeu_si256(at, sums[0]);
            _mm256_storeu_si256(at.add(1), sums[1]);
        }
        out
    }
}
