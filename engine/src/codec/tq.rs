//! What TQ1_0 and TQ2_0 share: blocks of 256 weights that end in an f16 scale `d`.
//!
//! A model trained with one scale for a matrix has the same `d` in all blocks but those without a weight, which have 0.
//! Then the matrix has one scale again: the exact f32 that Tern writes into the metadata, if it rounds to `d`, else `d`.

use super::{EncodeError, Source, blocks, check_scale};
use crate::tensor::Tensor;
use std::io;
use std::ops::Range;
use tern_kernels::{Scales, half};

/// Weights in a block.
pub(super) const WEIGHTS: usize = 256;

/// The codes of a block of `BYTES` bytes, without its scale.
pub(super) trait Block<const BYTES: usize> {
    const NAME: &'static str;
    /// A block of zero weights, but for the scale.
    const ZERO: [u8; BYTES];
    /// The trits of a block; false if a code has no meaning.
    fn unpack(block: &[u8; BYTES], trits: &mut [i8; WEIGHTS]) -> bool;
    /// Writes the codes of a block.
    fn pack(trits: &[i8; WEIGHTS], block: &mut [u8; BYTES]);
}

pub(super) fn len<const BYTES: usize>(rows: u64, cols: u64) -> Result<u64, String> {
    blocks(rows, cols, WEIGHTS as u64, BYTES as u64, 0)
}

fn scale_bits<const BYTES: usize>(block: &[u8; BYTES]) -> u16 {
    u16::from_le_bytes([block[BYTES - 2], block[BYTES - 1]])
}

/// A scale too small for f16 is a `d` of 0 over codes that count all the same.
fn is_tiny(tensor: &Tensor) -> bool {
    tensor.scale.is_some_and(|scale| half::f32_to_f16(scale) == 0)
}

fn blocks_of<const BYTES: usize>(tensor: &Tensor, rows: Range<usize>) -> &[[u8; BYTES]] {
    let per_row = tensor.cols() / WEIGHTS;
    &tensor.bytes.as_chunks().0[rows.start * per_row..rows.end * per_row]
}

pub(super) fn scales<B: Block<BYTES>, const BYTES: usize>(
    tensor: &Tensor,
    rows: Range<usize>,
) -> Result<Scales, String> {
    let blocks = blocks_of::<BYTES>(tensor, rows);
    let tiny = is_tiny(tensor);
    let (mut shared, mut several) = (None, false);
    for block in blocks {
        let bits = scale_bits(block);
        check_scale(half::f16_to_f32(bits))?;
        let is_zero = block[..BYTES - 2] == B::ZERO[..BYTES - 2] || bits == 0 && !tiny;
        if !is_zero {
            several |= *shared.get_or_insert(bits) != bits;
        }
    }
    if several {
        let values =
            blocks.iter().map(|block| check_scale(half::f16_to_f32(scale_bits(block)) * tensor.factor));
        return Ok(Scales::Groups { size: WEIGHTS, values: values.collect::<Result<_, _>>()? });
    }
    let exact = tensor.scale.filter(|&scale| shared.is_none_or(|bits| half::f32_to_f16(scale) == bits));
    let scale = exact.unwrap_or(shared.map_or(0.0, half::f16_to_f32));
    Ok(Scales::One(check_scale(check_scale(scale)? * tensor.factor)?))
}

pub(super) fn row<B: Block<BYTES>, const BYTES: usize>(
    tensor: &Tensor,
    row: usize,
    out: &mut [i8],
) -> Result<(), String> {
    let tiny = is_tiny(tensor);
    for (block, out) in blocks_of(tensor, row..row + 1).iter().zip(out.as_chunks_mut().0) {
        if !B::unpack(block, out) {
            return Err(format!("expected codes of 0, 1 or 2, found a 3 in row {row}"));
        }
        if scale_bits(block) == 0 && !tiny {
            out.fill(0);
        }
    }
    Ok(())
}

pub(super) fn encode<B: Block<BYTES>, const BYTES: usize>(
    source: &mut Source,
    out: &mut dyn io::Write,
) -> Result<(), EncodeError> {
    if let Scales::Groups { size, .. } = source.scales
        && size % WEIGHTS != 0
        && *size < source.cols
    {
        return Err(format!("{} holds a scale for {WEIGHTS} weights, found one for {size}", B::NAME).into());
    }
    let mut trits = vec![0; source.cols];
    let mut bytes = Vec::new();
    for row in 0..source.rows {
        (source.row)(row, &mut trits)?;
        bytes.clear();
        for (nth, trits) in trits.as_chunks().0.iter().enumerate() {
            let mut block = B::ZERO;
            if trits.iter().any(|&trit| trit != 0) {
                B::pack(trits, &mut block);
                let scale = source.scales.at(row, nth * WEIGHTS, source.cols);
                block[BYTES - 2..].copy_from_slice(&to_f16::<B, BYTES>(source.scales, scale)?.to_le_bytes());
            }
            bytes.extend_from_slice(&block);
        }
        out.write_all(&bytes)?;
    }
    Ok(())
}

/// The scale as f16. One for the whole matrix may be rounded, as the exact one goes into the metadata; others may not.
fn to_f16<B: Block<BYTES>, const BYTES: usize>(scales: &Scales, scale: f32) -> Result<u16, String> {
    let bits = half::f32_to_f16(check_scale(scale)?);
    let rounded = half::f16_to_f32(bits);
    if !rounded.is_finite() || rounded != scale && !matches!(scales, Scales::One(_)) {
        return Err(format!("{} holds scales as f16, found {scale:?}", B::NAME));
    }
    Ok(bits)
}
