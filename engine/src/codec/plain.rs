//! F32, F16 and BF16: one number after another, little endian.

use super::{Codec, Read, Write, blocks};
use tern_kernels::half;

pub(super) static F32: Codec = Codec {
    name: "F32",
    gguf: Some(0),
    len: |rows, cols| blocks(rows, cols, 1, 4, 0),
    read: Read::Floats(|bytes, out| {
        for (value, &bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
            *value = f32::from_le_bytes(bytes);
        }
    }),
    write: Write::Floats(|row, out| {
        append(row, out, f32::to_le_bytes);
        Ok(())
    }),
};

pub(super) static F16: Codec = Codec {
    name: "F16",
    gguf: Some(1),
    len: |rows, cols| blocks(rows, cols, 1, 2, 0),
    read: Read::Floats(|bytes, out| {
        for (value, &bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
            *value = half::f16_to_f32(u16::from_le_bytes(bytes));
        }
    }),
    write: Write::Floats(|row, out| {
        append(row, out, |value| half::f32_to_f16(value).to_le_bytes());
        match row.iter().find(|value| value.is_finite() && value.abs() >= 65520.0) {
            Some(value) => Err(format!("expected numbers that F16 can hold, found {value}")),
            None => Ok(()),
        }
    }),
};

pub(super) static BF16: Codec = Codec {
    name: "BF16",
    gguf: Some(30),
    len: |rows, cols| blocks(rows, cols, 1, 2, 0),
    read: Read::Floats(|bytes, out| {
        for (value, &bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
            *value = half::bf16_to_f32(u16::from_le_bytes(bytes));
        }
    }),
    write: Write::Floats(|row, out| {
        append(row, out, |value| half::f32_to_bf16(value).to_le_bytes());
        Ok(())
    }),
};

fn append<const N: usize>(row: &[f32], out: &mut Vec<u8>, bytes: impl Fn(f32) -> [u8; N]) {
    let start = out.len();
    out.resize(start + N * row.len(), 0);
    for (out, &value) in out[start..].as_chunks_mut().0.iter_mut().zip(row) {
        *out = bytes(value);
    }
}
