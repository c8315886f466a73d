//! TQ1_0 and PTQ1_0: 1.6875 and 1.75 bits a weight, the trits as digits of base 3. Blocks of 256 (TQ1_0: `qs[48]`, `qh[4]`)
//! or 128 (PTQ1_0: `qs[24]`, `qh[2]`), then the scale.
//!
//! A byte holds the codes `trit + 1` of five weights (four in `qh`), the first in the highest base-3 digit:
//!
//! ```text
//! TQ1_0   qs[0..32]   byte j: weights       32i + j, i = 0..5      digits 81 27 9 3 1
//!         qs[32..48]  byte j: weights 160 + 16i + j, i = 0..5      digits 81 27 9 3 1
//!         qh[0..4]    byte j: weights 240 +  4i + j, i = 0..4      digits 81 27 9 3 (and a 0)
//! PTQ1_0  qs[0..16]   byte j: weights       16i + j, i = 0..5      digits 81 27 9 3 1
//!         qs[16..24]  byte j: weights  80 +  8i + j, i = 0..5      digits 81 27 9 3 1
//!         qh[0..2]    byte j: weights 120 +  2i + j, i = 0..4      digits 81 27 9 3 (and a 0)
//! ```
//!
//! The number v (0..=242) is stored as the fixed-point fraction ceil(256 v / 243), so that digit `i` comes out by
//! multiplication alone: drop the digits before it (times 3^i, modulo 256), then the whole part of 3/256 of the rest.
//! Every byte decodes to digits of 0 to 2.

use super::trit_blocks::{self, Block, Pack, same_codes};
use super::{Codec, Read, Write};

const POWERS: [u8; 5] = [1, 3, 9, 27, 81];

pub(super) static TQ1_0: Codec = Codec {
    name: "TQ1_0",
    gguf: Some(34),
    len: trit_blocks::len::<256, 54>,
    read: Read::Trits { scales: trit_blocks::scales::<Tq1, 256, 54>, row: trit_blocks::row::<Tq1, 256, 54> },
    write: Write::Trits(trit_blocks::encode::<Tq1, 256, 54>),
};

pub(super) static PTQ1_0: Codec = Codec {
    name: "PTQ1_0",
    gguf: Some(143),
    len: trit_blocks::len::<128, 28>,
    read: Read::Trits {
        scales: trit_blocks::scales::<Ptq1, 128, 28>,
        row: trit_blocks::row::<Ptq1, 128, 28>,
    },
    write: Write::Trits(trit_blocks::encode::<Ptq1, 128, 28>),
};

/// Where the three parts of a block lie: first byte, bytes, first weight, weights in a byte.
type Parts = [(usize, usize, usize, usize); 3];

/// The fixed-point fraction of a number of 0..=242.
const fn stored(number: u16) -> u8 {
    (number as u32 * 256).div_ceil(243) as u8
}

/// A block of zero weights and a scale of 0.
const fn zero<const BYTES: usize>(parts: Parts) -> [u8; BYTES] {
    let mut block = [stored(81 + 27 + 9 + 3 + 1); BYTES];
    let mut at = parts[2].0;
    while at < BYTES {
        block[at] = if at < BYTES - 2 { stored(81 + 27 + 9 + 3) } else { 0 };
        at += 1;
    }
    block
}

#[inline(always)]
fn unpack(parts: Parts, block: &[u8], trits: &mut [i8]) {
    for (at, bytes, weight, digits) in parts {
        let out = trits[weight..].chunks_exact_mut(bytes);
        for (power, out) in POWERS[..digits].iter().zip(out) {
            for (trit, byte) in out.iter_mut().zip(&block[at..]) {
                *trit = ((u16::from(byte.wrapping_mul(*power)) * 3) >> 8) as i8 - 1;
            }
        }
    }
}

#[inline(always)]
fn pack(parts: Parts, trits: &[i8], block: &mut [u8]) {
    for (at, bytes, weight, digits) in parts {
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

/// A block type of `WEIGHTS` trits in `BYTES` bytes, the scale last, whose parts are `PARTS`.
macro_rules! digits {
    ($type:ident, $name:literal, $weights:literal, $bytes:literal, $parts:expr) => {
        struct $type;

        impl $type {
            const PARTS: Parts = $parts;
        }

        impl Block<$weights, $bytes> for $type {
            const NAME: &'static str = $name;
            const SCALE: usize = $bytes - 2;

            fn unpack(block: &[u8; $bytes], trits: &mut [i8; $weights]) -> Result<(), usize> {
                unpack(Self::PARTS, block, trits);
                Ok(())
            }
            fn is_zero(block: &[u8; $bytes]) -> bool {
                same_codes(block, &Self::ZERO, Self::SCALE)
            }
        }

        impl Pack<$weights, $bytes> for $type {
            const ZERO: [u8; $bytes] = zero(Self::PARTS);

            fn pack(trits: &[i8; $weights], block: &mut [u8; $bytes]) {
                pack(Self::PARTS, trits, block);
            }
        }
    };
}

digits!(Tq1, "TQ1_0", 256, 54, [(0, 32, 0, 5), (32, 16, 160, 5), (48, 4, 240, 4)]);
digits!(Ptq1, "PTQ1_0", 128, 28, [(0, 16, 0, 5), (16, 8, 80, 5), (24, 2, 120, 4)]);
