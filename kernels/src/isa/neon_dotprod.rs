//! NEON with the dot product of signed bytes (`sdot`): Armv8.2 with FEAT_DotProd, which is most CPUs since 2018.

use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};

use super::{Block, Isa, Kernel, Neon, extend};

/// Proof that the CPU has NEON and dot products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NeonDotprod(Neon);

impl NeonDotprod {
    /// The proof, if the CPU has it.
    pub(crate) fn new() -> Option<Self> {
        Neon::new().filter(|_| is_aarch64_feature_detected!("dotprod")).map(Self)
    }

    /// Adds to each 32-bit lane the products of its four signed bytes. The intrinsic is not stable yet.
    #[inline(always)]
    fn sdot(self, mut sum: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
        // SAFETY: the CPU has the instruction by `self`; it touches these three registers and nothing else. The directive
        // is for the assembler, where the caller was not inlined into the frame.
        unsafe {
            asm!(".arch_extension dotprod", "sdot {0:v}.4s, {1:v}.16b, {2:v}.16b",
                inout(vreg) sum, in(vreg) a, in(vreg) b, options(pure, nomem, nostack, preserves_flags));
        }
        sum
    }
}

impl Isa for NeonDotprod {
    const NAME: &'static str = "neon-dotprod";
    const DOTS: usize = usize::MAX;
    const PANEL: (usize, usize) = (1, 4);
    const SCALED: bool = false;
    const OFFSET8: i32 = 0;
    extend!(Neon);

    #[inline]
    fn frame<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "neon,dotprod")]
        #[inline(never)]
        fn inner<K: Kernel>(isa: NeonDotprod, kernel: K) -> K::Output {
            kernel.run(isa)
        }
        // SAFETY: `self` was made by `new`, which saw that the CPU has every feature enabled here.
        unsafe { inner(self, kernel) }
    }

    /// Codes are below 128: as signed bytes they are what they were.
    #[inline(always)]
    fn dot(self, mut part: Self::Part, codes: Self::Bytes, activations: [i8; 4]) -> Self::Part {
        for i in 0..4 {
            // SAFETY: NEON by `self`.
            let (codes, x) = unsafe {
                (vreinterpretq_s8_u8(codes[i]), vreinterpretq_s8_s32(vdupq_n_s32(Self::lane(activations))))
            };
            part[i] = self.sdot(part[i], codes, x);
        }
        part
    }
    #[inline(always)]
    fn dot_lanes(self, mut part: Self::Part, codes: Self::Bytes, activations: &[i8; 64]) -> Self::Part {
        for i in 0..4 {
            // SAFETY: NEON by `self`; the quarter lies inside the 64 bytes.
            let (codes, x) =
                unsafe { (vreinterpretq_s8_u8(codes[i]), vld1q_s8(activations.as_ptr().add(16 * i))) };
            part[i] = self.sdot(part[i], codes, x);
        }
        part
    }
    /// With the highest bit flipped, `b` is the signed byte `b - 128`.
    #[inline(always)]
    fn dot8(self, sums: Self::Sums, mut bytes: Self::Bytes, activations: [i8; 4]) -> Self::Sums {
        for i in 0..4 {
            // SAFETY: NEON by `self`.
            bytes[i] = unsafe { veorq_u8(bytes[i], vdupq_n_u8(128)) };
        }
        self.dot(sums, bytes, activations)
    }
    #[inline(always)]
    fn widen(self, mut sums: Self::Sums, part: Self::Part) -> Self::Sums {
        for i in 0..4 {
            // SAFETY: NEON by `self`.
            sums[i] = unsafe { vaddq_s32(sums[i], part[i]) };
        }
        sums
    }
}
