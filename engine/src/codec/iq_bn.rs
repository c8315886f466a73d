//! ik_llama.cpp's IQ1_BN, IQ2_BN and IQ2_BN_R4: one scale for each row (f16 in IQ1_BN, f32 in the others), which stands
//! before the codes `trit + 1` of the row, 64 weights a block. Derived from ik_llama.cpp's sources. Read only.
//!
//! ```text
//! IQ2_BN     16 bytes a block: byte j holds weights 16l + j in bits 2l+1:2l, l = 0..4
//! IQ2_BN_R4  four rows together, their four scales first; 64 bytes a block: byte 16l + 4k + i holds, of row k,
//!            weights 16l + i + 4q in bits 2q+1:2q, q = 0..4
//! IQ1_BN     13 bytes a block: bytes 3g..3g+3 hold 15 weights of group g = 0..4, five base-3 digits each, the first
//!            weight in the lowest; the 16th weights of the four groups are the digits of byte 12
//! ```
//!
//! The digits are stored as in TQ1_0, as ceil(256 v / 243), so the digit of weight `3^j` comes out after times `3^(4-j)`.

use super::{Codec, Read, Write, blocks, check_scale, f16};
use crate::tensor::Tensor;
use std::ops::Range;
use tern_kernels::Scales;

const WEIGHTS: usize = 64;

pub(super) static IQ1_BN: Codec = Codec {
    name: "IQ1_BN",
    gguf: Some(134),
    len: |rows, cols| blocks(rows, cols, 64, 13, 2),
    read: Read::Trits {
        scales: |tensor, rows| scales(tensor, rows, iq1_scale),
        row: |tensor, row, out| {
            let codes = &row_bytes(tensor, row)[2..];
            codes
                .as_chunks()
                .0
                .iter()
                .zip(out.as_chunks_mut().0)
                .for_each(|(block, out)| unpack_iq1(block, out));
            finish(row, iq1_scale(tensor, row), 0, out)
        },
    },
    write: Write::No,
};

pub(super) static IQ2_BN: Codec = Codec {
    name: "IQ2_BN",
    gguf: Some(135),
    len: |rows, cols| blocks(rows, cols, 64, 16, 4),
    read: Read::Trits {
        scales: |tensor, rows| scales(tensor, rows, iq2_scale),
        row: |tensor, row, out| {
            let codes = &row_bytes(tensor, row)[4..];
            for (block, out) in codes.as_chunks::<16>().0.iter().zip(out.as_chunks_mut::<WEIGHTS>().0) {
                for (l, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
                    for (trit, code) in out.iter_mut().zip(block) {
                        *trit = ((code >> (2 * l)) & 3) as i8 - 1;
                    }
                }
            }
            let bad = codes.iter().fold(0, |bad, code| bad | (code & (code >> 1) & 0x55));
            finish(row, iq2_scale(tensor, row), bad, out)
        },
    },
    write: Write::No,
};

pub(super) static IQ2_BN_R4: Codec = Codec {
    name: "IQ2_BN_R4",
    gguf: Some(335),
    len: |rows, cols| match rows % 4 {
        0 => blocks(rows, cols, 64, 16, 4),
        _ => Err(format!("expected a multiple of 4 rows for IQ2_BN_R4, found {rows}")),
    },
    read: Read::Trits {
        scales: |tensor, rows| scales(tensor, rows, r4_scale),
        row: |tensor, row, out| {
            let (four, k) = (four_rows(tensor, row), row % 4);
            let mut bad = 0;
            for (block, out) in four[16..].as_chunks::<64>().0.iter().zip(out.as_chunks_mut::<WEIGHTS>().0) {
                for (byte, codes) in
                    block.as_chunks::<4>().0.iter().skip(k).step_by(4).zip(out.as_chunks_mut::<16>().0)
                {
                    for (e, trit) in codes.iter_mut().enumerate() {
                        let code = (byte[e % 4] >> (2 * (e / 4))) & 3;
                        bad |= code & (code >> 1);
                        *trit = code as i8 - 1;
                    }
                }
            }
            finish(row, r4_scale(tensor, row), bad, out)
        },
    },
    write: Write::No,
};

fn row_bytes(tensor: &Tensor, row: usize) -> &[u8] {
    let length = tensor.bytes.len() / tensor.rows();
    &tensor.bytes[row * length..][..length]
}

/// The four rows that `row` is stored with.
fn four_rows(tensor: &Tensor, row: usize) -> &[u8] {
    let length = tensor.bytes.len() / tensor.rows() * 4;
    &tensor.bytes[row / 4 * length..][..length]
}

fn iq1_scale(tensor: &Tensor, row: usize) -> f32 {
    f16(row_bytes(tensor, row))
}

fn iq2_scale(tensor: &Tensor, row: usize) -> f32 {
    f32::from_le_bytes(*row_bytes(tensor, row).first_chunk().expect("a row begins with its scale"))
}

fn r4_scale(tensor: &Tensor, row: usize) -> f32 {
    f32::from_le_bytes(four_rows(tensor, row).as_chunks().0[row % 4])
}

/// One scale if all rows agree, rows of zeros (scale 0) aside.
fn scales(tensor: &Tensor, rows: Range<usize>, scale: fn(&Tensor, usize) -> f32) -> Result<Scales, String> {
    let scales: Vec<f32> = rows
        .map(|row| check_scale(check_scale(scale(tensor, row))? * tensor.factor))
        .collect::<Result<_, _>>()?;
    let mut distinct = scales.iter().filter(|&&scale| scale != 0.0);
    let first = distinct.next().copied().unwrap_or(0.0);
    Ok(match distinct.all(|&scale| scale == first) {
        true => Scales::One(first),
        false => Scales::rows(tensor.cols(), scales),
    })
}

/// The end of every row: complains of a code 3, and drops the codes of a row whose scale is 0.
fn finish(row: usize, scale: f32, bad: u8, out: &mut [i8]) -> Result<(), String> {
    if bad != 0 {
        return Err(format!("expected codes of 0, 1 or 2, found a 3 in row {row}"));
    }
    if scale == 0.0 {
        out.fill(0);
    }
    Ok(())
}

fn unpack_iq1(block: &[u8; 13], out: &mut [i8; WEIGHTS]) {
    const POWERS: [u8; 5] = [81, 27, 9, 3, 1];
    let digit = |byte: u8, j: usize| ((u16::from(byte.wrapping_mul(POWERS[j])) * 3) >> 8) as i8 - 1;
    for (g, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        for (e, trit) in out[..15].iter_mut().enumerate() {
            *trit = digit(block[3 * g + e / 5], e % 5);
        }
        out[15] = digit(block[12], g);
    }
}
