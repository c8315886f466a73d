//! T5, 1.6 bits a weight: a byte is `d0 + 3 d1 + 9 d2 + 27 d3 + 81 d4`, digit `dp` being the code of plane `p` (0..5),
//! 20 columns a block. Values above 242 are never written.

use super::Layout;
use crate::isa::Isa;

pub(crate) struct T5;

impl Layout for T5 {
    const PLANES: usize = 5;
    const WEIGHTS: [u8; 5] = [1, 3, 9, 27, 81];
    const RADIX: u8 = 3;
    type Planes<B: Copy> = [B; 5];

    #[inline(always)]
    fn split<I: Isa>(isa: I, bytes: I::Bytes) -> [I::Bytes; 5] {
        isa.split5(bytes)
    }
    #[inline(always)]
    fn valid(byte: u8) -> bool {
        byte < 243
    }
}
