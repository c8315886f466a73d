//! Q8_0: 8.5 bits a weight. Blocks of 32: `d` f16, then 32 signed bytes `q`; value = d * q.

use super::{Codec, Read, Write, blocks, f16};
use tern_kernels::half;

const WEIGHTS: usize = 32;
const BYTES: usize = 2 + WEIGHTS;

pub(super) static CODEC: Codec = Codec {
    name: "Q8_0",
    gguf: Some(8),
    len: |rows, cols| blocks(rows, cols, WEIGHTS as u64, BYTES as u64, 0),
    read: Read::Floats(decode),
    write: Write::Floats(encode),
};

fn decode(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<BYTES>().0.iter().zip(out.as_chunks_mut::<WEIGHTS>().0) {
        let d = f16(block);
        for (value, &q) in out.iter_mut().zip(&block[2..]) {
            *value = d * f32::from(q as i8);
        }
    }
}

/// The codes are made with the scale before it is rounded to f16, as llama.cpp's are.
fn encode(row: &[f32], out: &mut Vec<u8>) -> Result<(), String> {
    for block in row.as_chunks::<WEIGHTS>().0 {
        if let Some(value) = block.iter().find(|value| !value.is_finite()) {
            return Err(format!("expected finite numbers for Q8_0, found {value}"));
        }
        let most = block.iter().fold(0f32, |most, value| most.max(value.abs()));
        let d = most / 127.0;
        let bits = half::f32_to_f16(d);
        if !half::f16_to_f32(bits).is_finite() {
            return Err(format!("expected numbers that Q8_0 can hold, found {most}"));
        }
        let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
        out.extend_from_slice(&bits.to_le_bytes());
        out.extend(block.map(|value| round(value * inverse) as u8));
    }
    Ok(())
}

/// To the nearest integer, halves away from zero; `f32::round` is a function call on most CPUs. The sum is exact in f64.
fn round(value: f32) -> i8 {
    (f64::from(value) + 0.5f64.copysign(f64::from(value))) as i32 as i8
}
