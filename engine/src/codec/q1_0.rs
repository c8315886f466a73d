//! Q1_0: 1.125 bits a weight. Blocks of 128: the scale `d`, then 16 bytes; bit `i` of byte `j` is weight `8j + i`, -d if it is 0
//! and d if it is 1. To the kernels that is a ternary matrix without zeros. Read only.

use super::trit_blocks::{self, Block};
use super::{Codec, Read, Write};

const WEIGHTS: usize = 128;
const BYTES: usize = 2 + WEIGHTS / 8;

pub(super) static CODEC: Codec = Codec {
    name: "Q1_0",
    gguf: Some(41),
    len: trit_blocks::len::<WEIGHTS, BYTES>,
    read: Read::Trits {
        scales: trit_blocks::scales::<Q1, WEIGHTS, BYTES>,
        row: trit_blocks::row::<Q1, WEIGHTS, BYTES>,
    },
    write: Write::No,
};

struct Q1;

impl Block<WEIGHTS, BYTES> for Q1 {
    const NAME: &'static str = "Q1_0";
    const SCALE: usize = 0;

    fn unpack(block: &[u8; BYTES], trits: &mut [i8; WEIGHTS]) -> Result<(), usize> {
        for (trits, &byte) in trits.as_chunks_mut::<8>().0.iter_mut().zip(&block[2..]) {
            *trits = [0, 1, 2, 3, 4, 5, 6, 7].map(|bit| (byte >> bit & 1) as i8 * 2 - 1);
        }
        Ok(())
    }
    fn is_zero(_: &[u8; BYTES]) -> bool {
        false
    }
}
