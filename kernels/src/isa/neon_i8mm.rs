//! NEON with FEAT_I8MM (Armv8.6: Neoverse V1 and N2, Apple M2 and later): `usdot`, the dot product of unsigned with signed
//! bytes, takes weights as they lie.

use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};

use super::{Block, Isa, Kernel, Neon, extend};

/// Proof that the CPU has NEON and the 8-bit matrix instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NeonI8mm(Neon);

impl NeonI8mm {
    /// The proof, if the CPU has it.
    pub(crate) fn new() -> Option<Self> {
        Neon::new().filter(|_| is_aarch64_feature_detected!("i8mm")).map(Self)
    }

    /// Adds to each 32-bit lane the products of its four bytes, unsigned with signed. The intrinsic is not stable yet.
    #[inline(always)]
    fn usdot(self, mut sum: int32x4_t, a: uint8x16_t, b: int8x16_t) -> int32x4_t {
        // SAFETY: the CPU has the instruction by `self`; it touches these three registers and nothing else. The directive
        // is for the assembler, where the caller was not inlined into the frame.
        unsafe {
            asm!(".arch_extension i8mm", "usdot {0:v}.4s, {1:v}.16b, {2:v}.16b",
                inout(vreg) sum, in(vreg) a, in(vreg) b, options(pure, nomem, nostack, preserves_flags));
        }
        sum
    }
}

impl Isa for NeonI8mm {
    const NAME: &'static str = "neon-i8mm";
    const DOTS: usize = usize::MAX;
    const PANEL: (usize, usize) = (1, 4);
    const SCALED: bool = true;
    const OFFSET8: i32 = 128;
    extend!(Neon);

    #[inline]
    fn frame<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "neon,i8mm")]
        #[inline(never)]
        fn inner<K: Kernel>(isa: NeonI8mm, kernel: K) -> K::Output {
            kernel.run(isa)
        }
        // SAFETY: `self` was made by `new`, which saw that the CPU has every feature enabled here.
        unsafe { inner(self, kernel) }
    }

    #[inline(always)]
    fn dot(self, mut part: Self::Part, codes: Self::Bytes, activations: [i8; 4]) -> Self::Part {
        for i in 0..4 {
            // SAFETY: NEON by `self`.
            let x = unsafe { vreinterpretq_s8_s32(vdupq_n_s32(Self::lane(activations))) };
            part[i] = self.usdot(part[i], codes[i], x);
        }
        part
    }
    #[inline(always)]
    fn dot_lanes(self, mut part: Self::Part, codes: Self::Bytes, activations: &[i8; 64]) -> Self::Part {
        for i in 0..4 {
            // SAFETY: NEON by `self`; the quarter lies inside the 64 bytes.
            let x = unsafe { vld1q_s8(activations.as_ptr().add(16 * i)) };
            part[i] = self.usdot(part[i], codes[i], x);
        }
        part
    }
    #[inline(always)]
    fn dot8(self, sums: Self::Sums, bytes: Self::Bytes, activations: [i8; 4]) -> Self::Sums {
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
