//! TQ2_0: 2.0625 bits a weight. Blocks of 256: `qs[64]`, then the scale.
//!
//! Half `h` of a block is `qs[32h..32h+32]`; byte `j` of it holds the codes `trit + 1` of weights `128h + 32l + j` in
//! bits `2l+1:2l`, l = 0..4.

use super::trit_blocks::{self, Block, Pack, same_codes};
use super::{Codec, Read, Write};

const WEIGHTS: usize = 256;
const BYTES: usize = 64 + 2;

pub(super) static CODEC: Codec = Codec {
    name: "TQ2_0",
    gguf: Some(35),
    len: trit_blocks::len::<WEIGHTS, BYTES>,
    read: Read::Trits {
        scales: trit_blocks::scales::<Tq2, WEIGHTS, BYTES>,
        row: trit_blocks::row::<Tq2, WEIGHTS, BYTES>,
    },
    write: Write::Trits(trit_blocks::encode::<Tq2, WEIGHTS, BYTES>),
};

struct Tq2;

impl Block<WEIGHTS, BYTES> for Tq2 {
    const NAME: &'static str = "TQ2_0";
    const SCALE: usize = 64;

    fn unpack(block: &[u8; BYTES], trits: &mut [i8; WEIGHTS]) -> Result<(), usize> {
        let mut bad = 0;
        for (codes, trits) in block.as_chunks::<32>().0.iter().zip(trits.as_chunks_mut::<128>().0) {
            for (l, trits) in trits.as_chunks_mut::<32>().0.iter_mut().enumerate() {
                for (trit, code) in trits.iter_mut().zip(codes) {
                    *trit = ((code >> (2 * l)) & 3) as i8 - 1;
                }
            }
            bad |= codes.iter().fold(0, |bad, code| bad | (code & (code >> 1) & 0x55));
        }
        if bad == 0 { Ok(()) } else { Err(trits.iter().position(|trit| *trit > 1).unwrap_or(0)) }
    }
    fn is_zero(block: &[u8; BYTES]) -> bool {
        same_codes(block, &Self::ZERO, Self::SCALE)
    }
}

impl Pack<WEIGHTS, BYTES> for Tq2 {
    const ZERO: [u8; BYTES] = {
        let mut block = [0x55; BYTES]; // four codes of 1
        block[BYTES - 2] = 0;
        block[BYTES - 1] = 0;
        block
    };

    fn pack(trits: &[i8; WEIGHTS], block: &mut [u8; BYTES]) {
        for (trits, codes) in trits.as_chunks::<128>().0.iter().zip(block.as_chunks_mut::<32>().0) {
            *codes = [0; 32];
            for (l, trits) in trits.as_chunks::<32>().0.iter().enumerate() {
                for (byte, trit) in codes.iter_mut().zip(trits) {
                    *byte |= ((trit + 1) as u8) << (2 * l);
                }
            }
        }
    }
}
