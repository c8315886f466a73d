//! T5, 1.6 bits a weight: a byte is `d0 + 3 d1 + 9 d2 + 28 d3 + 84 d4`, digit `dp` being the code of plane `p` (0..5),
//! 20 columns a block. The highest is 250; a remainder of 27 by 28 is never written.
//!
//! Why not plain base 3: 28 and 84 are multiples of 4 and the lower three digits stay below 28, so the upper six bits
//! tell the two upper digits, and a byte permutation of 64 entries finds them (AVX-512 VBMI, NEON).

use super::Layout;
use crate::isa::Isa;

pub(crate) struct T5;

impl Layout for T5 {
    const PLANES: usize = 5;
    const WEIGHTS: [u8; 5] = [1, 3, 9, 28, 84];
    type Planes<B: Copy> = [B; 5];

    #[inline(always)]
    fn split<I: Isa>(isa: I, bytes: I::Bytes) -> [I::Bytes; 5] {
        isa.split5(bytes)
    }
    #[inline(always)]
    fn mask<I: Isa>(isa: I, bytes: I::Bytes) -> [I::Bytes; 5] {
        isa.mask5(bytes)
    }
    #[inline(always)]
    fn masked<I: Isa>() -> [i32; 5] {
        I::MASKED5
    }
    #[inline(always)]
    fn valid(byte: u8) -> bool {
        byte < 251 && byte % 28 != 27
    }
    /// By comparisons, of which compilers make vectors.
    #[inline(always)]
    fn digits(byte: u8) -> [u8; 5] {
        let digit = |v: u8, weight: u8| u8::from(v >= weight) + u8::from(v >= 2 * weight);
        let d4 = digit(byte, 84);
        let v = byte - 84 * d4;
        let d3 = digit(v, 28);
        let v = v - 28 * d3;
        let d2 = digit(v, 9);
        let v = v - 9 * d2;
        let d1 = digit(v, 3);
        [v - 3 * d1, d1, d2, d3, d4]
    }
}
