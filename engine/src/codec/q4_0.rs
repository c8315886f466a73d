//! Q4_0: 4.5 bits a weight. Blocks of 32: `d` f16, then 16 bytes; the low nibble of byte `j` is weight `j`, the high one
//! weight `j + 16`; value = d * (nibble - 8). Read only.

use super::{Codec, Read, Write, blocks, f16};

const WEIGHTS: usize = 32;
const BYTES: usize = 2 + WEIGHTS / 2;

pub(super) static CODEC: Codec = Codec {
    name: "Q4_0",
    gguf: Some(2),
    len: |rows, cols| blocks(rows, cols, WEIGHTS as u64, BYTES as u64, 0),
    read: Read::Floats(decode),
    write: Write::No,
};

fn decode(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<BYTES>().0.iter().zip(out.as_chunks_mut::<WEIGHTS>().0) {
        let d = f16(block);
        let (low, high) = out.split_at_mut(WEIGHTS / 2);
        for ((low, high), &byte) in low.iter_mut().zip(high).zip(&block[2..]) {
            *low = d * (f32::from(byte & 15) - 8.0);
            *high = d * (f32::from(byte >> 4) - 8.0);
        }
    }
}
