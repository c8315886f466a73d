//! I2, 2 bits a weight: bits `2p+1:2p` of a byte hold the code of plane `p` (0..4), 16 columns a block. Code 3 is
//! never written.

use super::Layout;
use crate::isa::Isa;

pub(crate) struct I2;

impl Layout for I2 {
    const PLANES: usize = 4;
    const WEIGHTS: [u8; 5] = [1, 4, 16, 64, 0];
    type Planes<B: Copy> = [B; 4];

    #[inline(always)]
    fn split<I: Isa>(isa: I, bytes: I::Bytes) -> [I::Bytes; 4] {
        isa.split2(bytes)
    }
    #[inline(always)]
    fn mask<I: Isa>(isa: I, bytes: I::Bytes) -> [I::Bytes; 4] {
        isa.mask2(bytes)
    }
    #[inline(always)]
    fn masked<I: Isa>() -> [i32; 5] {
        [1, 4, 16, 64, 1]
    }
    #[inline(always)]
    fn valid(byte: u8) -> bool {
        byte & byte >> 1 & 0x55 == 0
    }
    #[inline(always)]
    fn digits(byte: u8) -> [u8; 5] {
        [byte & 3, byte >> 2 & 3, byte >> 4 & 3, byte >> 6, 0]
    }
}
