//! AVX-512 with VNNI (a 4-way dot product of bytes into 32 bits) and VBMI (a permutation of 64 bytes, which
//! reads digits of base 3 from a table): Ice Lake, Zen 4 and later.

use std::arch::x86_64::*;

use super::{Block, Isa, Kernel, Strided, divisor_of};
use crate::exponential::{EXP_LEAST, EXP_MOST, EXP_TAYLOR, LN2_HIGH, LN2_LOW};
use crate::rounding::SHIFT;

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
}

/// Tables by the upper six bits of a byte of T5 and by the lower three digits as a number (`packing/t5.rs`).
struct Tables {
    /// Digit 3.
    third: Block,
    /// Digit 4.
    fourth: Block,
    /// 28 times digit 3.
    third28: Block,
    /// 84 times digit 4.
    fourth84: Block,
    /// By `d0 + 3 d1 + 9 d2`: the codes `d0 | d1 << 2 | d2 << 4`.
    codes: Block,
}

const TABLES: Tables = {
    let mut t =
        Tables { third: [0; 64], fourth: [0; 64], third28: [0; 64], fourth84: [0; 64], codes: [0; 64] };
    let mut i = 0;
    while i < 64 {
        t.fourth[i] = (i / 21) as u8;
        t.third[i] = (i % 21 / 7) as u8;
        t.fourth84[i] = 84 * t.fourth[i];
        t.third28[i] = 28 * t.third[i];
        t.codes[i] = ((i % 3) | ((i / 3 % 3) << 2) | ((i / 9 % 3) << 4)) as u8;
        i += 1;
    }
    t
};

impl Isa for Avx512 {
    const NAME: &'static str = "avx512";
    const DOTS: usize = usize::MAX;
    const PANEL: (usize, usize) = (4, 6);
    const SCALED: bool = true;
    const MASKED5: [i32; 5] = [1, 4, 16, 28, 84];
    const OFFSET8: i32 = 128;
    const UNPACKS_T5: bool = true;
    type Bytes = __m512i;
    type Sums = __m512i;
    type Part = __m512i;

    #[inline]
    fn frame<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx512vbmi")]
        #[inline(never)]
        fn inner<K: Kernel>(isa: Avx512, kernel: K) -> K::Output {
            kernel.run(isa)
        }
        // SAFETY: `self` was made by `new`, which saw that the CPU has every feature enabled here.
        unsafe { inner(self, kernel) }
    }

    #[inline(always)]
    fn load(self, block: &Block) -> __m512i {
        // SAFETY: AVX-512F by `self`; the reference covers the 64 bytes, an unaligned load is allowed.
        unsafe { _mm512_loadu_si512(block.as_ptr().cast()) }
    }
    #[inline(always)]
    fn bytes(self, bytes: __m512i) -> Block {
        let mut block = [0; 64];
        // SAFETY: AVX-512F by `self`; `block` is the 64 bytes written, an unaligned store is allowed.
        unsafe { _mm512_storeu_si512(block.as_mut_ptr().cast(), bytes) };
        block
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
    fn dot_lanes(self, part: __m512i, codes: __m512i, activations: &[i8; 64]) -> __m512i {
        // SAFETY: AVX-512 VNNI by `self`; the reference covers the 64 bytes, an unaligned load is allowed.
        unsafe { _mm512_dpbusd_epi32(part, codes, _mm512_loadu_si512(activations.as_ptr().cast())) }
    }
    #[inline(always)]
    fn interleave(self, [a, b, c, d]: [__m512i; 4]) -> [__m512i; 4] {
        // SAFETY: AVX-512BW by `self`.
        unsafe {
            let (low, high) = (_mm512_unpacklo_epi8(a, b), _mm512_unpackhi_epi8(a, b));
            let (low2, high2) = (_mm512_unpacklo_epi8(c, d), _mm512_unpackhi_epi8(c, d));
            [
                _mm512_unpacklo_epi16(low, low2),
                _mm512_unpackhi_epi16(low, low2),
                _mm512_unpacklo_epi16(high, high2),
                _mm512_unpackhi_epi16(high, high2),
            ]
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

    #[inline(always)]
    fn halves(self, bytes: &[u8; 32]) -> [f32; 16] {
        let mut values = [0f32; 16];
        // SAFETY: AVX-512F by `self`; 32 bytes are read and 64 written, all of both arrays.
        unsafe {
            let halves = _mm256_loadu_si256(bytes.as_ptr().cast());
            _mm512_storeu_ps(values.as_mut_ptr(), _mm512_cvtph_ps(halves));
        }
        values
    }
    #[inline(always)]
    fn add_scaled(self, sums: [f32; 16], x: &[f32; 16], factor: f32) -> [f32; 16] {
        let mut sums = sums;
        // SAFETY: AVX-512F by `self`; both arrays are the 64 bytes of a register.
        unsafe {
            let product = _mm512_mul_ps(_mm512_loadu_ps(x.as_ptr()), _mm512_set1_ps(factor));
            let sum = _mm512_add_ps(_mm512_loadu_ps(sums.as_ptr()), product);
            _mm512_storeu_ps(sums.as_mut_ptr(), sum);
        }
        sums
    }

    /// Four vectors together: the steps of one wait for each other.
    #[inline(always)]
    fn exps(self, x: &mut [[f32; 16]], top: f32) {
        let (fours, ones) = x.as_chunks_mut::<4>();
        for four in fours {
            self.exps_of(four, top);
        }
        for one in ones {
            self.exps_of(std::array::from_mut(one), top);
        }
    }
    #[inline(always)]
    fn butterflies(self, x: &[f32; 16]) -> [f32; 16] {
        let mut out = [0f32; 16];
        // SAFETY: AVX-512F by `self`; both arrays are the 64 bytes of a register.
        unsafe {
            let mut x = _mm512_loadu_ps(x.as_ptr());
            let other = _mm512_permute_ps::<0b10_11_00_01>(x);
            x = _mm512_mask_sub_ps(_mm512_add_ps(x, other), 0xaaaa, other, x);
            let other = _mm512_permute_ps::<0b01_00_11_10>(x);
            x = _mm512_mask_sub_ps(_mm512_add_ps(x, other), 0xcccc, other, x);
            let other = _mm512_shuffle_f32x4::<0b10_11_00_01>(x, x);
            x = _mm512_mask_sub_ps(_mm512_add_ps(x, other), 0xf0f0, other, x);
            let other = _mm512_shuffle_f32x4::<0b01_00_11_10>(x, x);
            x = _mm512_mask_sub_ps(_mm512_add_ps(x, other), 0xff00, other, x);
            _mm512_storeu_ps(out.as_mut_ptr(), x);
        }
        out
    }
    #[inline(always)]
    fn whole(self, high: __m512i, low: __m512i) -> [i32; 16] {
        // SAFETY: AVX-512F by `self`.
        self.store(unsafe { _mm512_add_epi32(_mm512_slli_epi32::<7>(high), low) })
    }
    #[inline(always)]
    fn scaled_sums(self, sums: [i32; 16], minus: i32, scales: &[f32; 16], factor: f32) -> [f32; 16] {
        let mut out = [0f32; 16];
        // SAFETY: AVX-512F by `self`; all arrays are the 64 bytes of a register.
        unsafe {
            let sums = _mm512_sub_epi32(_mm512_loadu_si512(sums.as_ptr().cast()), _mm512_set1_epi32(minus));
            let scales = _mm512_mul_ps(_mm512_loadu_ps(scales.as_ptr()), _mm512_set1_ps(factor));
            _mm512_storeu_ps(out.as_mut_ptr(), _mm512_mul_ps(_mm512_cvtepi32_ps(sums), scales));
        }
        out
    }
    #[inline(always)]
    fn mixed(self, x: &[f32; 16], a: f32, y: &[f32; 16], b: f32) -> [f32; 16] {
        let mut out = [0f32; 16];
        // SAFETY: AVX-512F by `self`; all arrays are the 64 bytes of a register.
        unsafe {
            let x = _mm512_mul_ps(_mm512_loadu_ps(x.as_ptr()), _mm512_set1_ps(a));
            let y = _mm512_mul_ps(_mm512_loadu_ps(y.as_ptr()), _mm512_set1_ps(b));
            _mm512_storeu_ps(out.as_mut_ptr(), _mm512_add_ps(x, y));
        }
        out
    }

    #[inline(always)]
    fn fold(self, parts: [__m512i; 5], counts: &[i32]) -> [i32; 16] {
        let mut total = self.sums();
        for (part, &count) in parts.iter().zip(counts) {
            let (shift, inverse) = divisor_of(count);
            // SAFETY: AVX-512F by `self`.
            unsafe {
                let mut sum = _mm512_sra_epi32(*part, _mm_cvtsi32_si128(shift as i32));
                if inverse != 1 {
                    sum = _mm512_mullo_epi32(sum, _mm512_set1_epi32(inverse));
                }
                total = _mm512_add_epi32(total, sum);
            }
        }
        self.store(total)
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
        // SAFETY: AVX-512F by `self`; all arrays are the 64 bytes of a register.
        unsafe {
            let sums = _mm512_sub_epi32(_mm512_loadu_si512(sums.as_ptr().cast()), _mm512_set1_epi32(minus));
            let scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(sums), _mm512_loadu_ps(scales.as_ptr()));
            let scaled = _mm512_mul_ps(scaled, _mm512_set1_ps(factor));
            let at = totals.as_mut_ptr();
            _mm512_storeu_ps(at, _mm512_add_ps(_mm512_loadu_ps(at), scaled));
        }
        totals
    }

    /// `M * V` sums stay in registers (24 of 32 for 6 by 4); each step loads `V` vectors of `b` and broadcasts `M` numbers
    /// of `a`, so that 10 loads go with 24 multiplications.
    #[inline(always)]
    fn float_tile<const FUSED: bool, const M: usize, const V: usize>(
        self,
        depth: usize,
        a: Strided,
        b: Strided,
        out: [&mut [[f32; 16]; V]; M],
        add: bool,
    ) {
        if depth > 0 {
            assert!(a.has(M - 1, depth - 1), "rows of a tile");
            assert!(b.col == 1 && b.has(depth - 1, 16 * V - 1), "columns of a tile");
        }
        // SAFETY: AVX-512F by `self`. The indices into `a` and `b` grow with m, i and v, and the largest ones are in
        // bounds by the assertions: each pointer moves on `depth` times and is read before it does. Loads and stores of
        // `out` are of whole rows of 16.
        unsafe {
            let mut sums = [[_mm512_setzero_ps(); V]; M];
            if add {
                for m in 0..M {
                    for v in 0..V {
                        sums[m][v] = _mm512_loadu_ps(out[m][v].as_ptr());
                    }
                }
            }
            let (mut a_at, mut b_at) = (a.data.as_ptr(), b.data.as_ptr());
            for _ in 0..depth {
                let mut row = [_mm512_setzero_ps(); V];
                for v in 0..V {
                    row[v] = _mm512_loadu_ps(b_at.add(16 * v));
                }
                for m in 0..M {
                    let factor = _mm512_set1_ps(*a_at.add(m * a.row));
                    for v in 0..V {
                        sums[m][v] = if FUSED {
                            _mm512_fmadd_ps(factor, row[v], sums[m][v])
                        } else {
                            _mm512_add_ps(sums[m][v], _mm512_mul_ps(row[v], factor))
                        };
                    }
                }
                // May point beyond the data after the last step, where it is not read.
                a_at = a_at.wrapping_add(a.col);
                b_at = b_at.wrapping_add(b.row);
            }
            for m in 0..M {
                for v in 0..V {
                    _mm512_storeu_ps(out[m][v].as_mut_ptr(), sums[m][v]);
                }
            }
        }
    }

    /// 32 columns a step for all inputs, two steps apart in two registers each, so that no sum waits for itself.
    #[inline(always)]
    fn row_products<const V: usize>(self, codes: &[u8], x: [&[i16]; V]) -> [i64; V] {
        /// Pieces of 32 that one register of sums takes, two products to a lane: 128 * 2 * 128 * 32512 < 2^31.
        const SPAN: usize = 128;
        let (codes, _) = codes.as_chunks::<32>();
        let mut pieces: [&[[i16; 32]]; V] = [&[]; V];
        for v in 0..V {
            pieces[v] = &x[v].as_chunks().0[..codes.len()];
        }
        let mut totals = [0i64; V];
        let mut start = 0;
        while start < codes.len() {
            let end = (start + 2 * SPAN).min(codes.len());
            // SAFETY: AVX-512 F, BW and VNNI by `self`; every load is of one whole piece behind a reference.
            unsafe {
                let mut sums = [[_mm512_setzero_si512(); 2]; V];
                for i in start..end {
                    if V == 1 {
                        // 2 KB on, in the next row as a rule; a prefetch reads nothing, any address is allowed.
                        _mm_prefetch::<_MM_HINT_T0>(codes.as_ptr().wrapping_add(i + 64).cast());
                    }
                    let wide = _mm512_cvtepi8_epi16(_mm256_loadu_si256(codes[i].as_ptr().cast()));
                    for v in 0..V {
                        let x = _mm512_loadu_si512(pieces[v][i].as_ptr().cast());
                        let [even, odd] = sums[v];
                        // The two swap places, so that each takes every other step.
                        sums[v] = [odd, _mm512_dpwssd_epi32(even, wide, x)];
                    }
                }
                for v in 0..V {
                    for sums in sums[v] {
                        let low = _mm512_cvtepi32_epi64(_mm512_castsi512_si256(sums));
                        let high = _mm512_cvtepi32_epi64(_mm512_extracti64x4_epi64::<1>(sums));
                        totals[v] += _mm512_reduce_add_epi64(_mm512_add_epi64(low, high));
                    }
                }
            }
            start = end;
        }
        totals
    }

    /// Both upper digits by permutations over the upper six bits, the lower three by one over what is left.
    #[inline(always)]
    fn split5(self, bytes: __m512i) -> [__m512i; 5] {
        let (upper, third28, fourth84) = self.upper(bytes);
        let codes = self.lower(bytes, third28, fourth84);
        let mask = self.splat(3);
        let b1 = self.shift2(codes);
        let b2 = self.shift2(b1);
        let (third, fourth) = (self.look_up(&TABLES.third, upper), self.look_up(&TABLES.fourth, upper));
        [self.and(codes, mask), self.and(b1, mask), self.and(b2, mask), third, fourth]
    }

    /// As `split5`, the digits left where they are: 14 instructions for 320 weights, the dot products counted in.
    #[inline(always)]
    fn mask5(self, bytes: __m512i) -> [__m512i; 5] {
        let (_, third28, fourth84) = self.upper(bytes);
        let [d0, d1, d2, _] = self.mask2(self.lower(bytes, third28, fourth84));
        [d0, d1, d2, third28, fourth84]
    }
}

impl Avx512 {
    /// `e^(x - top)`, every step as in [`crate::exponential::exp`].
    #[inline(always)]
    fn exps_of<const N: usize>(self, x: &mut [[f32; 16]; N], top: f32) {
        // SAFETY: AVX-512F by `self`; every load and store is of the 64 bytes of a row.
        unsafe {
            let set = |value: f32| _mm512_set1_ps(value);
            let (top, shift, log2_e) = (set(top), set(SHIFT), set(std::f32::consts::LOG2_E));
            let (mut r, mut whole, mut low) = ([top; N], [_mm512_setzero_si512(); N], [0u16; N]);
            for i in 0..N {
                let x = _mm512_sub_ps(_mm512_loadu_ps(x[i].as_ptr()), top);
                // Of a NaN the second operand is kept, which is the NaN.
                let x = _mm512_min_ps(set(EXP_MOST), x);
                low[i] = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(x, set(EXP_LEAST));
                let shifted = _mm512_add_ps(_mm512_mul_ps(x, log2_e), shift);
                whole[i] = _mm512_sub_epi32(_mm512_castps_si512(shifted), _mm512_castps_si512(shift));
                let n = _mm512_sub_ps(shifted, shift);
                let first = _mm512_sub_ps(x, _mm512_mul_ps(n, set(LN2_HIGH)));
                r[i] = _mm512_sub_ps(first, _mm512_mul_ps(n, set(LN2_LOW)));
            }
            let mut p = [set(EXP_TAYLOR[0]); N];
            for coefficient in &EXP_TAYLOR[1..] {
                for i in 0..N {
                    p[i] = _mm512_add_ps(_mm512_mul_ps(p[i], r[i]), set(*coefficient));
                }
            }
            let bias = _mm512_set1_epi32(127);
            for i in 0..N {
                let half = _mm512_srai_epi32::<1>(whole[i]);
                let rest = _mm512_sub_epi32(whole[i], half);
                let half = _mm512_slli_epi32::<23>(_mm512_add_epi32(half, bias));
                let rest = _mm512_slli_epi32::<23>(_mm512_add_epi32(rest, bias));
                let value = _mm512_mul_ps(p[i], _mm512_castsi512_ps(half));
                let value = _mm512_maskz_mul_ps(!low[i], value, _mm512_castsi512_ps(rest));
                _mm512_storeu_ps(x[i].as_mut_ptr(), value);
            }
        }
    }

    /// The byte of `table` that the low six bits of each byte name.
    #[inline(always)]
    fn look_up(self, table: &Block, at: __m512i) -> __m512i {
        // SAFETY: AVX-512 VBMI by `self`.
        unsafe { _mm512_permutexvar_epi8(at, self.load(table)) }
    }

    /// For bytes of T5: the upper six bits in the low ones (the rest is noise), 28 times digit 3, 84 times digit 4.
    #[inline(always)]
    fn upper(self, bytes: __m512i) -> (__m512i, __m512i, __m512i) {
        let upper = self.shift2(bytes);
        (upper, self.look_up(&TABLES.third28, upper), self.look_up(&TABLES.fourth84, upper))
    }

    /// The lower three digits as 2-bit codes.
    #[inline(always)]
    fn lower(self, bytes: __m512i, third28: __m512i, fourth84: __m512i) -> __m512i {
        // SAFETY: AVX-512BW by `self`.
        let rest = unsafe { _mm512_sub_epi8(_mm512_sub_epi8(bytes, third28), fourth84) };
        self.look_up(&TABLES.codes, rest)
    }
}
