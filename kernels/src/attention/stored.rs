//! Floats as a cache keeps them.

use super::format::LANES;
use crate::isa::Isa;

/// How a cache keeps floats.
pub(super) trait Stored {
    /// Whether reading them costs more than a load.
    const CONVERTED: bool;
    /// The bytes of 16 of them.
    type Bytes: Copy;
    /// Cuts bytes into those of 16 floats each.
    fn cut(bytes: &[u8]) -> &[Self::Bytes];
    /// Their values.
    fn read<I: Isa>(isa: I, bytes: &Self::Bytes) -> [f32; LANES];
}

/// As f32.
pub(super) struct F32;
/// As f16.
pub(super) struct F16;

impl Stored for F32 {
    const CONVERTED: bool = false;
    type Bytes = [u8; 64];

    #[inline(always)]
    fn cut(bytes: &[u8]) -> &[[u8; 64]] {
        bytes.as_chunks().0
    }
    #[inline(always)]
    fn read<I: Isa>(_: I, bytes: &[u8; 64]) -> [f32; LANES] {
        let mut values = [0f32; LANES];
        for (value, bytes) in values.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *value = f32::from_le_bytes(*bytes);
        }
        values
    }
}

impl Stored for F16 {
    const CONVERTED: bool = true;
    type Bytes = [u8; 32];

    #[inline(always)]
    fn cut(bytes: &[u8]) -> &[[u8; 32]] {
        bytes.as_chunks().0
    }
    #[inline(always)]
    fn read<I: Isa>(isa: I, bytes: &[u8; 32]) -> [f32; LANES] {
        isa.halves(bytes)
    }
}
