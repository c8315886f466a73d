//! AVX2 with VNNI, the 4-way dot product of bytes into 32 bits: Alder Lake, Zen 5 and later have it in the encoding of
//! AVX, Cascade Lake and later servers in that of AVX-512 VL. The arithmetic is the same, so both are this file.

use std::arch::x86_64::*;

use super::{Avx2, Block, Isa, Kernel, extend};

/// Proof that the CPU has AVX2 and 256-bit VNNI, in the encoding of AVX-512 (`EVEX`) or of AVX.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Vnni<const EVEX: bool>(Avx2);

/// VNNI in the encoding of AVX.
pub(crate) type AvxVnni = Vnni<false>;
/// VNNI in the encoding of AVX-512.
pub(crate) type Avx512Vl = Vnni<true>;

impl<const EVEX: bool> Vnni<EVEX> {
    /// The proof, if the CPU has it.
    pub(crate) fn new() -> Option<Self> {
        let has = if EVEX {
            is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512vnni")
        } else {
            is_x86_feature_detected!("avxvnni")
        };
        Avx2::new().filter(|_| has).map(Self)
    }
}

impl<const EVEX: bool> Isa for Vnni<EVEX> {
    const NAME: &'static str = if EVEX { "avx512vl" } else { "avxvnni" };
    const DOTS: usize = usize::MAX;
    /// 12 registers of sums: two dot products a cycle, five cycles each, need ten.
    const PANEL: (usize, usize) = (1, 6);
    const SCALED: bool = true;
    const OFFSET8: i32 = 128;
    extend!(Avx2);

    #[inline]
    fn frame<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,f16c,avxvnni")]
        #[inline(never)]
        fn vex<K: Kernel>(isa: AvxVnni, kernel: K) -> K::Output {
            kernel.run(isa)
        }
        #[target_feature(enable = "avx2,f16c,avx512f,avx512vl,avx512vnni")]
        #[inline(never)]
        fn evex<K: Kernel>(isa: Avx512Vl, kernel: K) -> K::Output {
            kernel.run(isa)
        }
        // SAFETY: `self` was made by `new`, which saw that the CPU has the features of its encoding.
        unsafe { if EVEX { evex(Vnni(self.0), kernel) } else { vex(Vnni(self.0), kernel) } }
    }

    #[inline(always)]
    fn dot(self, part: Self::Part, codes: Self::Bytes, activations: [i8; 4]) -> Self::Part {
        // SAFETY: AVX2 and the encoding's VNNI by `self`.
        unsafe {
            let x = _mm256_set1_epi32(Self::lane(activations));
            if EVEX {
                [_mm256_dpbusd_epi32(part[0], codes[0], x), _mm256_dpbusd_epi32(part[1], codes[1], x)]
            } else {
                [_mm256_dpbusd_avx_epi32(part[0], codes[0], x), _mm256_dpbusd_avx_epi32(part[1], codes[1], x)]
            }
        }
    }
    #[inline(always)]
    fn dot_lanes(self, part: Self::Part, codes: Self::Bytes, activations: &[i8; 64]) -> Self::Part {
        let at = activations.as_ptr().cast::<__m256i>();
        // SAFETY: AVX2 and the encoding's VNNI by `self`; both halves lie inside the 64 bytes.
        unsafe {
            let (low, high) = (_mm256_loadu_si256(at), _mm256_loadu_si256(at.add(1)));
            if EVEX {
                [_mm256_dpbusd_epi32(part[0], codes[0], low), _mm256_dpbusd_epi32(part[1], codes[1], high)]
            } else {
                [
                    _mm256_dpbusd_avx_epi32(part[0], codes[0], low),
                    _mm256_dpbusd_avx_epi32(part[1], codes[1], high),
                ]
            }
        }
    }
    #[inline(always)]
    fn dot8(self, sums: Self::Sums, bytes: Self::Bytes, activations: [i8; 4]) -> Self::Sums {
        self.dot(sums, bytes, activations)
    }
    #[inline(always)]
    fn widen(self, sums: Self::Sums, part: Self::Part) -> Self::Sums {
        // SAFETY: AVX2 by `self`.
        unsafe { [_mm256_add_epi32(sums[0], part[0]), _mm256_add_epi32(sums[1], part[1])] }
    }
}
