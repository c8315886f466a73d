//! TQ1_0: 1.6875 bits a weight. Blocks of 256: `qs[48]`, `qh[4]`, then the scale.
//!
//! A byte holds the codes `trit + 1` of five weights (four in `qh`), the first in the highest base-3 digit:
//!
//! ```text
//! qs[0..32]   byte j: weights       32i + j, i = 0..5      digits 81 27 9 3 1
//! qs[32..48]  byte j: weights 160 + 16i + j, i = 0..5      digits 81 27 9 3 1
//! qh[0..4]    byte j: weights 240 +  4i + j, i = 0..4      digits 81 27 9 3 (and a 0)
//! ```
//!
//! The number v (0..=242) is stored as the fixed-point fraction ceil(256 v / 243), so that digit `i` comes out by
//! multiplication alone: drop the digits before it (times 3^i, modulo 256), then the whole part of 3/256 of the rest.
//! Every byte decodes to digits of 0 to 2.

use super::tq::{self, Block, WEIGHTS};
use super::{Codec, Read, Write};

const BYTES: usize = 48 + 4 + 2;
const POWERS: [u8; 5] = [1, 3, 9, 27, 81];

pub(super) static CODEC: Codec = Codec {
    name: "TQ1_0",
    gguf: Some(34),
    len: tq::len::<BYTES>,
    read: Read::Trits { scales: tq::scales::<Tq1, BYTES>, row: tq::row::<Tq1, BYTES> },
    write: Write::Trits(tq::encode::<Tq1, BYTES>),
};

/// Where the three parts of a block lie: first byte, bytes, first weight, weights in a byte.
const PARTS: [(usize, usize, usize, usize); 3] = [(0, 32, 0, 5), (32, 16, 160, 5), (48, 4, 240, 4)];

/// The fixed-point fraction of a number of 0..=242.
const fn stored(number: u16) -> u8 {
    (number as u32 * 256).div_ceil(243) as u8
}

struct Tq1;

impl Block<BYTES> for Tq1 {
    const NAME: &'static str = "TQ1_0";
    const ZERO: [u8; BYTES] = {
        let mut block = [stored(81 + 27 + 9 + 3 + 1); BYTES];
        let mut at = 48;
        while at < BYTES {
            block[at] = if at < 52 { stored(81 + 27 + 9 + 3) } else { 0 };
            at += 1;
        }
        block
    };

    fn unpack(block: &[u8; BYTES], trits: &mut [i8; WEIGHTS]) -> bool {
        for (at, bytes, weight, digits) in PARTS {
            let out = trits[weight..].chunks_exact_mut(bytes);
            for (power, out) in POWERS[..digits].iter().zip(out) {
                for (trit, byte) in out.iter_mut().zip(&block[at..]) {
                    *trit = ((u16::from(byte.wrapping_mul(*power)) * 3) >> 8) as i8 - 1;
                }
            }
        }
        true
    }

    fn pack(trits: &[i8; WEIGHTS], block: &mut [u8; BYTES]) {
        for (at, bytes, weight, digits) in PARTS {
            let mut numbers = [0u16; 32];
            for (power, trits) in POWERS[5 - digits..].iter().rev().zip(trits[weight..].chunks_exact(bytes)) {
                for (number, trit) in numbers.iter_mut().zip(trits) {
                    *number += (trit + 1) as u16 * u16::from(*power);
                }
            }
            for (byte, &number) in block[at..][..bytes].iter_mut().zip(&numbers) {
                *byte = stored(number);
            }
        }
    }
}
