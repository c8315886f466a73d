//! Hugging Face's packed `uint8`: 2 bits a weight. The tensor `[R][K]` holds `4R` rows: bits `2i+1:2i` of byte `[r][k]`
//! are the code `trit + 1` of row `i * R + r`, so the four rows of a byte are a quarter of the matrix apart.
//!
//! The scale is another tensor, and whether it multiplies or divides is up to the configuration; `file/safetensors.rs`
//! settles that and leaves the multiplier in [`Tensor::scale`].

use super::{Codec, EncodeError, Read, Source, Write, check_scale};
use crate::tensor::Tensor;
use std::io;
use tern_kernels::Scales;

pub(super) static CODEC: Codec = Codec {
    name: "packed uint8",
    gguf: None,
    len: |rows, cols| match rows % 4 {
        0 => Ok(rows / 4 * cols),
        _ => Err(format!("expected a multiple of 4 rows for packed uint8, found {rows}")),
    },
    read: Read::Trits { scales: |tensor, _| scales(tensor), row },
    write: Write::Trits(encode),
};

fn scales(tensor: &Tensor) -> Result<Scales, String> {
    let scale = tensor.scale.ok_or("expected a `weight_scale` beside the packed weights, found none")?;
    Ok(Scales::One(check_scale(check_scale(scale)? * tensor.factor)?))
}

fn row(tensor: &Tensor, row: usize, out: &mut [i8]) -> Result<(), String> {
    let quarter = tensor.rows() / 4;
    let bytes = &tensor.bytes[row % quarter * out.len()..][..out.len()];
    let bad = match row / quarter {
        0 => unpack::<0>(bytes, out),
        1 => unpack::<2>(bytes, out),
        2 => unpack::<4>(bytes, out),
        _ => unpack::<6>(bytes, out),
    };
    if bad != 0 {
        return Err(format!("expected codes of 0, 1 or 2, found a 3 in row {row}"));
    }
    Ok(())
}

/// The trits of one row; not 0 if a code is 3. The shift is a constant so that the loop vectorises.
fn unpack<const SHIFT: usize>(bytes: &[u8], out: &mut [i8]) -> u8 {
    let mut bad = 0;
    for (trit, byte) in out.iter_mut().zip(bytes) {
        let code = (byte >> SHIFT) & 3;
        bad |= code & (code >> 1);
        *trit = code as i8 - 1;
    }
    bad
}

/// Asks for rows r, R + r, 2R + r, 3R + r in turn.
fn encode(source: &mut Source, out: &mut dyn io::Write) -> Result<(), EncodeError> {
    source.one_scale("packed uint8")?;
    let quarter = source.rows / 4;
    let mut trits = vec![0; source.cols];
    let mut bytes = vec![0; source.cols];
    for r in 0..quarter {
        bytes.fill(0);
        for i in 0..4 {
            (source.row)(i * quarter + r, &mut trits)?;
            for (byte, trit) in bytes.iter_mut().zip(&trits) {
                *byte |= ((trit + 1) as u8) << (2 * i);
            }
        }
        out.write_all(&bytes)?;
    }
    Ok(())
}
