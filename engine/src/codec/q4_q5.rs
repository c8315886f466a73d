//! Q4_1, Q5_0 and Q5_1: blocks of 32 weights with a scale `d`, some with a smallest value `m`, both f16.
//!
//! ```text
//! Q4_1  d  m          qs[16]     value = d * q + m           5 bits a weight
//! Q5_0  d     qh u32  qs[16]     value = d * (q - 16)        5.5
//! Q5_1  d  m  qh u32  qs[16]     value = d * q + m           6
//! ```
//!
//! The low four bits of weight `j` are the low nibble of `qs[j]`, those of weight `j + 16` the high one; the fifth bit
//! of weight `j` is bit `j` of `qh`. Read only.

use super::{Codec, Read, Write, blocks, f16};

const WEIGHTS: usize = 32;

pub(super) static Q4_1: Codec = Codec {
    name: "Q4_1",
    gguf: Some(3),
    len: |rows, cols| blocks(rows, cols, WEIGHTS as u64, 20, 0),
    read: Read::Floats(|bytes, out| {
        for (block, out) in bytes.as_chunks::<20>().0.iter().zip(out.as_chunks_mut().0) {
            let (d, m) = (f16(&block[0..]), f16(&block[2..]));
            numbers(&block[4..], 0, out, |q| d * q + m);
        }
    }),
    write: Write::No,
};

pub(super) static Q5_0: Codec = Codec {
    name: "Q5_0",
    gguf: Some(6),
    len: |rows, cols| blocks(rows, cols, WEIGHTS as u64, 22, 0),
    read: Read::Floats(|bytes, out| {
        for (block, out) in bytes.as_chunks::<22>().0.iter().zip(out.as_chunks_mut().0) {
            let d = f16(&block[0..]);
            numbers(&block[6..], word(&block[2..]), out, |q| d * (q - 16.0));
        }
    }),
    write: Write::No,
};

pub(super) static Q5_1: Codec = Codec {
    name: "Q5_1",
    gguf: Some(7),
    len: |rows, cols| blocks(rows, cols, WEIGHTS as u64, 24, 0),
    read: Read::Floats(|bytes, out| {
        for (block, out) in bytes.as_chunks::<24>().0.iter().zip(out.as_chunks_mut().0) {
            let (d, m) = (f16(&block[0..]), f16(&block[2..]));
            numbers(&block[8..], word(&block[4..]), out, |q| d * q + m);
        }
    }),
    write: Write::No,
};

fn word(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// The numbers of a block from its nibbles and fifth bits.
fn numbers(qs: &[u8], high: u32, out: &mut [f32; WEIGHTS], value: impl Fn(f32) -> f32) {
    for (j, &byte) in qs.iter().enumerate() {
        let fifth = |at: usize| (high >> at & 1) as u8 * 16;
        out[j] = value(f32::from(byte & 15 | fifth(j)));
        out[j + 16] = value(f32::from(byte >> 4 | fifth(j + 16)));
    }
}
