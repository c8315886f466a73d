//! STQ1_0: 1.3125 bits a weight for matrices in which one of four weights is 0 and the others are not. Blocks of 256: `qs[32]`,
//! `sign[8]`, then the scale.
//!
//! Group `g` of a block (0..64) is four weights, 16 apart: `64 * (g / 16) + g % 16 + 16 * p`, p = 0..4. Its number is the
//! nibble `g % 2` of `qs[g / 2]` (the low one first), and bit `g % 8` of `sign[g / 8]` above it. For each number `TRITS`
//! has the codes `trit + 1` of the four weights, two bits each, low bits first. Read only.

use super::trit_blocks::{self, Block};
use super::{Codec, Read, Write};

const WEIGHTS: usize = 256;
const BYTES: usize = 32 + 8 + 2;

pub(super) static CODEC: Codec = Codec {
    name: "STQ1_0",
    gguf: Some(43),
    len: trit_blocks::len::<WEIGHTS, BYTES>,
    read: Read::Trits {
        scales: trit_blocks::scales::<Stq1, WEIGHTS, BYTES>,
        row: trit_blocks::row::<Stq1, WEIGHTS, BYTES>,
    },
    write: Write::No,
};

/// The second half has every sign of the first turned round.
const TRITS: [u8; 32] = [
    0xA9, 0x89, 0x29, 0x09, 0xA6, 0x86, 0x26, 0x06, 0x9A, 0x92, 0x1A, 0x12, 0x6A, 0x62, 0x4A, 0x42, //
    0x01, 0x21, 0x81, 0xA1, 0x04, 0x24, 0x84, 0xA4, 0x10, 0x18, 0x90, 0x98, 0x40, 0x48, 0x60, 0x68,
];

struct Stq1;

impl Block<WEIGHTS, BYTES> for Stq1 {
    const NAME: &'static str = "STQ1_0";
    const SCALE: usize = 40;

    fn unpack(block: &[u8; BYTES], trits: &mut [i8; WEIGHTS]) -> Result<(), usize> {
        for g in 0..WEIGHTS / 4 {
            let low = block[g / 2] >> (4 * (g % 2)) & 15;
            let sign = block[32 + g / 8] >> (g % 8) & 1;
            let codes = TRITS[usize::from(sign << 4 | low)];
            for p in 0..4 {
                trits[64 * (g / 16) + g % 16 + 16 * p] = (codes >> (2 * p) & 3) as i8 - 1;
            }
        }
        Ok(())
    }
    fn is_zero(_: &[u8; BYTES]) -> bool {
        false
    }
}
