//! Q2_K to Q5_K: blocks of 256 weights with small scales under one or two f16, used for embeddings and heads.
//!
//! ```text
//! Q2_K  scales[16]  qs[64]  d  dmin                     value = d * s * q - dmin * m          2.625 bits a weight
//! Q3_K  high[32]  qs[64]  scales[12]  d                 value = d * (s - 32) * (q - 4)        3.4375
//! Q4_K  d  dmin  scales[12]  qs[128]                    value = d * s * q - dmin * m          4.5
//! Q5_K  d  dmin  scales[12]  high[32]  qs[128]          value = d * s * q - dmin * m          5.5
//! ```
//!
//! Two bits (Q2_K, Q3_K): a half `h` of the block is `qs[32h..32h+32]`, and bits `2j+1:2j` of byte `l` belong to weight
//! `128h + 32j + l`. 16 weights share a scale: `s` in the low nibble, `m` in the high one (Q2_K), or six bits (Q3_K) whose low
//! four are a nibble of `scales[i % 8]` and whose high two are bits `2k+1:2k` of `scales[8 + i % 4]`, k = i / 4. The third
//! bit of a weight of Q3_K is bit `4h + j` of `high[l]`.
//!
//! Four bits (Q4_K, Q5_K): `qs[32p..32p+32]` holds weights `64p + l` in low nibbles and `64p + 32 + l` in high ones. 32
//! weights share `s` and `m` of six bits each: the first four in the low six bits of `scales[i]` and `scales[i + 4]`, the
//! other four with their low bits in the nibbles of `scales[i + 4]` and their high ones in the upper two bits of
//! `scales[i - 4]` and `scales[i]`. The fifth bit of a weight of Q5_K is bit `i` of `high[l]`. Read only.

use super::{Codec, Read, Write, blocks, f16};

const WEIGHTS: usize = 256;

pub(super) static Q2_K: Codec = Codec {
    name: "Q2_K",
    gguf: Some(10),
    len: |rows, cols| blocks(rows, cols, WEIGHTS as u64, 84, 0),
    read: Read::Floats(|bytes, out| each::<84>(bytes, out, q2_k)),
    write: Write::No,
};

pub(super) static Q3_K: Codec = Codec {
    name: "Q3_K",
    gguf: Some(11),
    len: |rows, cols| blocks(rows, cols, WEIGHTS as u64, 110, 0),
    read: Read::Floats(|bytes, out| each::<110>(bytes, out, q3_k)),
    write: Write::No,
};

pub(super) static Q4_K: Codec = Codec {
    name: "Q4_K",
    gguf: Some(12),
    len: |rows, cols| blocks(rows, cols, WEIGHTS as u64, 144, 0),
    read: Read::Floats(|bytes, out| {
        each::<144>(bytes, out, |block, out| four_bits(block, &block[4..16], None, &block[16..], out));
    }),
    write: Write::No,
};

pub(super) static Q5_K: Codec = Codec {
    name: "Q5_K",
    gguf: Some(13),
    len: |rows, cols| blocks(rows, cols, WEIGHTS as u64, 176, 0),
    read: Read::Floats(|bytes, out| {
        each::<176>(bytes, out, |block, out| {
            four_bits(block, &block[4..16], Some(&block[16..48]), &block[48..], out);
        });
    }),
    write: Write::No,
};

fn each<const BYTES: usize>(
    bytes: &[u8],
    out: &mut [f32],
    decode: impl Fn(&[u8; BYTES], &mut [f32; WEIGHTS]),
) {
    for (block, out) in bytes.as_chunks::<BYTES>().0.iter().zip(out.as_chunks_mut().0) {
        decode(block, out);
    }
}

fn q2_k(block: &[u8; 84], out: &mut [f32; WEIGHTS]) {
    let (d, least) = (f16(&block[80..]), f16(&block[82..]));
    for (i, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let (h, j, first) = (i / 8, i / 2 % 4, i % 2 * 16);
        let (s, m) = (d * f32::from(block[i] & 15), least * f32::from(block[i] >> 4));
        for (value, byte) in out.iter_mut().zip(&block[16 + 32 * h + first..]) {
            *value = s * f32::from(byte >> (2 * j) & 3) - m;
        }
    }
}

fn q3_k(block: &[u8; 110], out: &mut [f32; WEIGHTS]) {
    let (high, qs, scales) = (&block[..32], &block[32..96], &block[96..108]);
    let d = f16(&block[108..]);
    for (i, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
        let (h, j, first) = (i / 8, i / 2 % 4, i % 2 * 16);
        let scale = scales[i % 8] >> (4 * (i / 8)) & 15 | (scales[8 + i % 4] >> (2 * (i / 4)) & 3) << 4;
        let scale = d * (f32::from(scale) - 32.0);
        for (l, value) in out.iter_mut().enumerate() {
            let third = high[first + l] >> (4 * h + j) & 1;
            *value = scale * (f32::from(qs[32 * h + first + l] >> (2 * j) & 3 | third << 2) - 4.0);
        }
    }
}

fn four_bits(block: &[u8], scales: &[u8], high: Option<&[u8]>, qs: &[u8], out: &mut [f32; WEIGHTS]) {
    let (d, least) = (f16(block), f16(&block[2..]));
    for (i, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (s, m) = match i {
            0..4 => (scales[i] & 63, scales[i + 4] & 63),
            _ => (scales[i + 4] & 15 | scales[i - 4] >> 6 << 4, scales[i + 4] >> 4 | scales[i] >> 6 << 4),
        };
        let (s, m) = (d * f32::from(s), least * f32::from(m));
        for (l, value) in out.iter_mut().enumerate() {
            let low = qs[i / 2 * 32 + l] >> (4 * (i % 2)) & 15;
            let fifth = high.map_or(0, |high| high[l] >> i & 1);
            *value = s * f32::from(low | fifth << 4) - m;
        }
    }
}
