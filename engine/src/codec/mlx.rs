//! MLX's affine 2-bit matrices: a `u32` tensor `[rows, cols / 16]` whose bits `2j+1:2j` are the code of weight `j` of 16, so that
//! four neighbours share a byte, low bits first; and beside it a scale and a bias for every group of a row.
//! value = scale * code + bias, which is `scale * trit` with code `trit + 1` where the bias is minus the scale: anything
//! else is refused, and so is code 3.
//!
//! `file/hf.rs` finds the three tensors and leaves two of them in [`Tensor::affine`].

use super::{Codec, Read, Write, check_scale, coarsest, floats, q2_0};
use crate::tensor::{Affine, Tensor};
use std::ops::Range;
use tern_kernels::Scales;

pub(super) static CODEC: Codec = Codec {
    name: "MLX 2-bit",
    gguf: None,
    len: |rows, cols| match cols % 16 {
        0 => Ok(rows * (cols / 4)),
        _ => Err(format!("expected a multiple of 16 columns for MLX 2-bit, found {cols}")),
    },
    read: Read::Trits { scales, row },
    write: Write::No,
};

fn affine(tensor: &Tensor) -> Result<(&Affine, usize), String> {
    let affine = tensor.affine.as_deref().ok_or("expected `scales` and `biases` beside it, found none")?;
    Ok((affine, tensor.cols() / affine.scales.cols()))
}

/// The bytes of a row.
fn codes(tensor: &Tensor, row: usize) -> &[u8] {
    let length = tensor.cols() / 4;
    &tensor.bytes[row * length..][..length]
}

fn scales(tensor: &Tensor, rows: Range<usize>) -> Result<Scales, String> {
    let (affine, size) = affine(tensor)?;
    let per_row = affine.scales.cols();
    let (mut scales, mut biases) = (vec![0.0; per_row], vec![0.0; per_row]);
    let (mut values, count) = (Vec::new(), rows.len());
    for row in rows {
        floats(&affine.scales, row, &mut scales)?;
        floats(&affine.biases, row, &mut biases)?;
        for ((scale, bias), codes) in scales.iter().zip(&biases).zip(codes(tensor, row).chunks(size / 4)) {
            let scale = check_scale(*scale)?;
            if *bias != -scale {
                return Err(format!(
                    "expected a bias of minus the scale, as ternary weights have it, found {bias:?} beside {scale:?} in row {row}"
                ));
            }
            let is_zero = scale == 0.0 || codes.iter().all(|byte| *byte == q2_0::ZEROS);
            values.push(if is_zero { coarsest::ANY } else { check_scale(scale * tensor.factor)? });
        }
    }
    Ok(coarsest::scales(count, tensor.cols(), size, values))
}

fn row(tensor: &Tensor, row: usize, out: &mut [i8]) -> Result<(), String> {
    let (affine, size) = affine(tensor)?;
    q2_0::unpack(codes(tensor, row), out)
        .map_err(|at| format!("expected codes of 0, 1 or 2, found a 3 in row {row} at element {at}"))?;
    let mut scales = vec![0.0; affine.scales.cols()];
    floats(&affine.scales, row, &mut scales)?;
    for (out, _) in out.chunks_mut(size).zip(scales).filter(|(_, scale)| *scale == 0.0) {
        out.fill(0);
    }
    Ok(())
}
