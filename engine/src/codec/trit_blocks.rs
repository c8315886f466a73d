//! What all encodings of trits in blocks under one f16 scale `d` share: TQ1_0 and TQ2_0, Q2_0 and PQ2_0, PTQ1_0, Q1_0, STQ1_0.
//!
//! A model that was trained with one scale for a matrix or a row has the same `d` in all of its blocks but those without a
//! weight, which have 0. Then the scales are those that it was trained with again (`coarsest.rs`), and one for the whole
//! matrix is the exact f32 that Tern writes into the metadata, if it rounds to `d`.

use super::{EncodeError, Source, blocks, check_scale, coarsest};
use crate::tensor::Tensor;
use std::io;
use std::ops::Range;
use tern_kernels::{Scales, half};

/// The codes of a block of `WEIGHTS` trits in `BYTES` bytes.
pub(super) trait Block<const WEIGHTS: usize, const BYTES: usize> {
    const NAME: &'static str;
    /// Where the two bytes of the scale are.
    const SCALE: usize;
    /// The trits of a block, or the first of them whose code has no meaning.
    fn unpack(block: &[u8; BYTES], trits: &mut [i8; WEIGHTS]) -> Result<(), usize>;
    /// Whether all weights are 0 whatever the scale is.
    fn is_zero(block: &[u8; BYTES]) -> bool;
}

/// An encoding that Tern writes.
pub(super) trait Pack<const WEIGHTS: usize, const BYTES: usize>: Block<WEIGHTS, BYTES> {
    /// A block of zero weights with a scale of 0.
    const ZERO: [u8; BYTES];
    /// Writes the codes of a block.
    fn pack(trits: &[i8; WEIGHTS], block: &mut [u8; BYTES]);
}

/// Whether two blocks are the same but for their scales at `at`.
pub(super) fn same_codes<const BYTES: usize>(a: &[u8; BYTES], b: &[u8; BYTES], at: usize) -> bool {
    a[..at] == b[..at] && a[at + 2..] == b[at + 2..]
}

pub(super) fn len<const WEIGHTS: usize, const BYTES: usize>(rows: u64, cols: u64) -> Result<u64, String> {
    blocks(rows, cols, WEIGHTS as u64, BYTES as u64, 0)
}

fn scale_bits<const BYTES: usize>(block: &[u8; BYTES], at: usize) -> u16 {
    u16::from_le_bytes([block[at], block[at + 1]])
}

/// A scale too small for f16 is a `d` of 0 over codes that count all the same.
fn is_tiny(tensor: &Tensor) -> bool {
    tensor.scale.is_some_and(|scale| half::f32_to_f16(scale) == 0)
}

fn blocks_of<const WEIGHTS: usize, const BYTES: usize>(
    tensor: &Tensor,
    rows: Range<usize>,
) -> &[[u8; BYTES]] {
    let per_row = tensor.cols() / WEIGHTS;
    &tensor.bytes.as_chunks().0[rows.start * per_row..rows.end * per_row]
}

pub(super) fn scales<B: Block<WEIGHTS, BYTES>, const WEIGHTS: usize, const BYTES: usize>(
    tensor: &Tensor,
    rows: Range<usize>,
) -> Result<Scales, String> {
    let tiny = is_tiny(tensor);
    let exact = tensor.scale.map(|scale| (scale, half::f32_to_f16(scale)));
    let (mut values, mut is_exact, count) = (Vec::new(), true, rows.len());
    for block in blocks_of::<WEIGHTS, BYTES>(tensor, rows) {
        let bits = scale_bits(block, B::SCALE);
        let scale = check_scale(check_scale(half::f16_to_f32(bits))? * tensor.factor)?;
        let is_zero = B::is_zero(block) || bits == 0 && !tiny;
        is_exact &= is_zero || exact.is_some_and(|(_, exact)| exact == bits);
        values.push(if is_zero { coarsest::ANY } else { scale });
    }
    match exact.filter(|_| is_exact) {
        Some((scale, _)) => Ok(Scales::One(check_scale(check_scale(scale)? * tensor.factor)?)),
        None => Ok(coarsest::scales(count, tensor.cols(), WEIGHTS, values)),
    }
}

pub(super) fn row<B: Block<WEIGHTS, BYTES>, const WEIGHTS: usize, const BYTES: usize>(
    tensor: &Tensor,
    row: usize,
    out: &mut [i8],
) -> Result<(), String> {
    let tiny = is_tiny(tensor);
    let blocks = blocks_of::<WEIGHTS, BYTES>(tensor, row..row + 1);
    for (nth, (block, out)) in blocks.iter().zip(out.as_chunks_mut().0).enumerate() {
        B::unpack(block, out).map_err(|at| {
            format!("expected codes of 0, 1 or 2, found a 3 in row {row} at element {}", nth * WEIGHTS + at)
        })?;
        if scale_bits(block, B::SCALE) == 0 && !tiny {
            out.fill(0);
        }
    }
    Ok(())
}

pub(super) fn encode<B: Pack<WEIGHTS, BYTES>, const WEIGHTS: usize, const BYTES: usize>(
    source: &mut Source,
    out: &mut dyn io::Write,
) -> Result<(), EncodeError> {
    let mut trits = vec![0; source.cols];
    let mut bytes = Vec::new();
    for row in 0..source.rows {
        (source.row)(row, &mut trits)?;
        bytes.clear();
        for (nth, trits) in trits.as_chunks().0.iter().enumerate() {
            let mut block = B::ZERO;
            if let Some(scale) = scale_of::<B, WEIGHTS, BYTES>(source, row, nth, trits)? {
                B::pack(trits, &mut block);
                let scale = to_f16(B::NAME, source.scales, scale)?;
                block[B::SCALE..B::SCALE + 2].copy_from_slice(&scale.to_le_bytes());
            }
            bytes.extend_from_slice(&block);
        }
        out.write_all(&bytes)?;
    }
    Ok(())
}

/// The one scale of the weights of a block; none if all are 0.
fn scale_of<B: Block<WEIGHTS, BYTES>, const WEIGHTS: usize, const BYTES: usize>(
    source: &Source,
    row: usize,
    nth: usize,
    trits: &[i8; WEIGHTS],
) -> Result<Option<f32>, String> {
    let size = match source.scales {
        Scales::One(_) => source.cols,
        Scales::Groups { size, .. } => *size,
    };
    let (first, mut found, mut at) = (nth * WEIGHTS, None, 0);
    while at < WEIGHTS {
        let end = WEIGHTS.min(((first + at) / size + 1) * size - first);
        if trits[at..end].iter().any(|&trit| trit != 0) {
            let scale = source.scales.at(row, first + at, source.cols);
            if *found.get_or_insert(scale) != scale {
                return Err(format!("{} holds a scale for {WEIGHTS} weights, found one for {size}", B::NAME));
            }
        }
        at = end;
    }
    Ok(found)
}

/// The scale as f16. One for the whole matrix may be rounded, as the exact one goes into the metadata; others may not.
fn to_f16(encoding: &str, scales: &Scales, scale: f32) -> Result<u16, String> {
    let bits = half::f32_to_f16(check_scale(scale)?);
    let rounded = half::f16_to_f32(bits);
    if !rounded.is_finite() || rounded != scale && !matches!(scales, Scales::One(_)) {
        return Err(format!("{encoding} holds scales as f16, found {scale:?}"));
    }
    Ok(bits)
}
