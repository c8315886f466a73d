//! I2_S: 2 bits a weight and one f32 scale, bitnet.cpp's own format and that of most published ternary GGUF files.
//!
//! The tensor is one flat row-major array, cut in blocks of 4 * G weights in G bytes (G = 32; 16 in the ARM order); a
//! row may begin in the middle of a block. Weight `e` of a block has the code `trit + 1` in byte `e % G`:
//!
//! ```text
//! bits of byte j      7:6      5:4        3:2         1:0
//! weight              j        G + j      2G + j      3G + j
//! ```
//!
//! After the codes come 32 bytes of which the first four are the scale; the others are zeros, copies of it or junk.

use super::{Codec, EncodeError, Read, Source, Write, check_scale};
use crate::tensor::Tensor;
use std::io;
use tern_kernels::Scales;

const TAIL: usize = 32;

pub(super) static X86: Codec = Codec {
    name: "I2_S",
    gguf: Some(36),
    len: len::<32>,
    read: Read::Trits { scales: |tensor, _| scales(tensor), row: row::<32> },
    write: Write::Trits(encode::<32>),
};

pub(super) static ARM: Codec = Codec {
    name: "I2_S (ARM order)",
    gguf: Some(36),
    len: len::<16>,
    read: Read::Trits { scales: |tensor, _| scales(tensor), row: row::<16> },
    write: Write::Trits(encode::<16>),
};

fn len<const G: usize>(rows: u64, cols: u64) -> Result<u64, String> {
    let weights = rows * cols; // checked when the sizes were read
    if !weights.is_multiple_of(4 * G as u64) {
        let block = 4 * G;
        return Err(format!(
            "expected a multiple of {block} weights for the blocks of I2_S, found {rows} x {cols}"
        ));
    }
    Ok(weights / 4 + TAIL as u64)
}

fn scales(tensor: &Tensor) -> Result<Scales, String> {
    let tail = &tensor.bytes[tensor.bytes.len() - TAIL..];
    let scale = check_scale(f32::from_le_bytes(*tail.first_chunk().expect("a tail is 32 bytes")))?;
    Ok(Scales::One(check_scale(scale * tensor.factor)?))
}

fn row<const G: usize>(tensor: &Tensor, row: usize, out: &mut [i8]) -> Result<(), String> {
    let mut at = row * out.len(); // in the flat array
    let mut rest = out;
    let mut bad = 0;
    while !rest.is_empty() {
        let codes =
            tensor.bytes[at / (4 * G) * G..].first_chunk::<G>().expect("a row lies inside the blocks");
        let skip = at % (4 * G);
        let (piece, after) = rest.split_at_mut(rest.len().min(4 * G - skip));
        if piece.len() == 4 * G {
            bad |= unpack(codes, piece);
        } else {
            let mut whole = [0; 128];
            bad |= unpack(codes, &mut whole[..4 * G]);
            piece.copy_from_slice(&whole[skip..][..piece.len()]);
        }
        at += piece.len();
        rest = after;
    }
    if bad != 0 {
        return Err(format!("expected codes of 0, 1 or 2, found a 3 in row {row}"));
    }
    Ok(())
}

/// The trits of one block; not 0 if a code is 3.
#[inline]
fn unpack<const G: usize>(codes: &[u8; G], out: &mut [i8]) -> u8 {
    for (plane, out) in out.as_chunks_mut::<G>().0.iter_mut().enumerate() {
        for (trit, code) in out.iter_mut().zip(codes) {
            *trit = ((code >> (6 - 2 * plane)) & 3) as i8 - 1;
        }
    }
    codes.iter().fold(0, |bad, code| bad | (code & (code >> 1) & 0x55))
}

fn encode<const G: usize>(source: &mut Source, out: &mut dyn io::Write) -> Result<(), EncodeError> {
    let scale = source.one_scale("I2_S")?;
    // The row at hand behind what is left of the row before it: less than a block.
    let mut flat: Vec<i8> = Vec::new();
    let mut bytes = Vec::new();
    for row in 0..source.rows {
        let left = flat.len();
        flat.resize(left + source.cols, 0);
        (source.row)(row, &mut flat[left..])?;
        let blocks = flat.chunks_exact(4 * G);
        let left = blocks.remainder().len();
        bytes.resize(blocks.len() * G, 0);
        for (block, bytes) in blocks.zip(bytes.as_chunks_mut::<G>().0) {
            *bytes = [0; G];
            for plane in block.as_chunks::<G>().0 {
                for (byte, trit) in bytes.iter_mut().zip(plane) {
                    *byte = *byte << 2 | (trit + 1) as u8;
                }
            }
        }
        flat.drain(..flat.len() - left);
        out.write_all(&bytes)?;
    }
    let mut tail = [0; TAIL];
    tail[..4].copy_from_slice(&scale.to_le_bytes());
    Ok(out.write_all(&tail)?)
}
