//! Q2_0 and PQ2_0: 2.25 and 2.125 bits a weight. Blocks of 64 (Q2_0) or 128 (PQ2_0): the scale, then bytes whose bits
//! `2i+1:2i` are the code `trit + 1` of weight `4j + i`.
//!
//! Code 3 would be twice the scale. It is legal in these formats and occurs in no ternary model, so it is refused: a matrix that
//! holds it is an ordinary 2-bit quantisation, for which neither packing of the kernels has a code.

use super::trit_blocks::{self, Block, Pack, same_codes};
use super::{Codec, Read, Write};

/// llama.cpp's, type 42.
pub(super) static Q2_0: Codec = Codec {
    name: "Q2_0",
    gguf: Some(42),
    len: trit_blocks::len::<64, 18>,
    read: Read::Trits { scales: trit_blocks::scales::<Q2, 64, 18>, row: trit_blocks::row::<Q2, 64, 18> },
    write: Write::Trits(trit_blocks::encode::<Q2, 64, 18>),
};

/// PrismML's, type 142 and in files of spring 2026 42.
pub(super) static PQ2_0: Codec = Codec {
    name: "PQ2_0",
    gguf: Some(142),
    len: trit_blocks::len::<128, 34>,
    read: Read::Trits { scales: trit_blocks::scales::<Pq2, 128, 34>, row: trit_blocks::row::<Pq2, 128, 34> },
    write: Write::Trits(trit_blocks::encode::<Pq2, 128, 34>),
};

/// Four codes of 1.
pub(super) const ZEROS: u8 = 0x55;

/// The trits of bytes that hold four neighbours each, low bits first; if a code is 3, where the first is.
pub(super) fn unpack(bytes: &[u8], trits: &mut [i8]) -> Result<(), usize> {
    let mut bad = 0;
    for (trits, &byte) in trits.as_chunks_mut::<4>().0.iter_mut().zip(bytes) {
        bad |= byte & byte >> 1 & ZEROS;
        *trits = [0, 2, 4, 6].map(|shift| (byte >> shift & 3) as i8 - 1);
    }
    if bad == 0 { Ok(()) } else { Err(trits.iter().position(|trit| *trit > 1).unwrap_or(0)) }
}

fn pack(trits: &[i8], bytes: &mut [u8]) {
    for (trits, byte) in trits.as_chunks::<4>().0.iter().zip(bytes) {
        *byte = trits.iter().rev().fold(0, |byte, trit| byte << 2 | (trit + 1) as u8);
    }
}

/// A block of zero weights and a scale of 0.
const fn zero<const BYTES: usize>() -> [u8; BYTES] {
    let mut block = [ZEROS; BYTES];
    (block[0], block[1]) = (0, 0);
    block
}

/// A block type of `WEIGHTS` trits in `BYTES` bytes.
macro_rules! codes {
    ($type:ident, $name:literal, $weights:literal, $bytes:literal) => {
        struct $type;

        impl Block<$weights, $bytes> for $type {
            const NAME: &'static str = $name;
            const SCALE: usize = 0;

            fn unpack(block: &[u8; $bytes], trits: &mut [i8; $weights]) -> Result<(), usize> {
                unpack(&block[2..], trits)
            }
            fn is_zero(block: &[u8; $bytes]) -> bool {
                same_codes(block, &Self::ZERO, Self::SCALE)
            }
        }

        impl Pack<$weights, $bytes> for $type {
            const ZERO: [u8; $bytes] = zero();

            fn pack(trits: &[i8; $weights], block: &mut [u8; $bytes]) {
                pack(trits, &mut block[2..]);
            }
        }
    };
}

codes!(Q2, "Q2_0", 64, 18);
codes!(Pq2, "PQ2_0", 128, 34);
