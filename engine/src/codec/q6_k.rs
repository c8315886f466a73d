//! Q6_K: 6.5625 bits a weight, used for embeddings and heads. Blocks of 256:
//!
//! ```text
//! ql[128]  low 4 bits       qh[64]  high 2 bits       scales[16]  i8, one for 16 weights       d  f16
//! ```
//!
//! The block is two halves of 128 weights with 64 bytes of `ql` and 32 of `qh` each. In a half, quarter `k` holds weights
//! `32k..32k+32`: low bits in the low (k < 2) or high nibble of `ql[32 * (k % 2) + l]`, high bits in bits `2k+1:2k` of
//! `qh[l]`. value = d * scale * (q - 32). Read only.

use super::{Codec, Read, Write, blocks, f16};

const WEIGHTS: usize = 256;
const BYTES: usize = 128 + 64 + 16 + 2;

pub(super) static CODEC: Codec = Codec {
    name: "Q6_K",
    gguf: Some(14),
    len: |rows, cols| blocks(rows, cols, WEIGHTS as u64, BYTES as u64, 0),
    read: Read::Floats(decode),
    write: Write::No,
};

fn decode(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<BYTES>().0.iter().zip(out.as_chunks_mut::<WEIGHTS>().0) {
        let (ql, rest) = block.split_at(128);
        let (qh, rest) = rest.split_at(64);
        let (scales, d) = rest.split_at(16);
        let d = f16(d);
        // Quarter `q` of the block: half q / 4, quarter k = q % 4 of the half; it has two scales.
        for (q, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let (h, k) = (q / 4, q % 4);
            let low = &ql[64 * h + 32 * (k % 2)..][..32];
            let high = &qh[32 * h..][..32];
            for l in 0..32 {
                let code = (low[l] >> (4 * (k / 2)) & 15) | ((high[l] >> (2 * k) & 3) << 4);
                let scale = d * f32::from(scales[2 * q + l / 16] as i8);
                out[l] = scale * (f32::from(code) - 32.0);
            }
        }
    }
}
