//! Writing keys and values into a chunk.

use super::format::{CHUNK, GROUP, Kept, KvFormat, LANES, Sizes};
use super::packed::{Packed, Q3, Q4, Q8};
use crate::float::magnitude;
use crate::hadamard::{hadamard_block, transform};
use crate::half::{f16_to_f32, f32_to_f16};
use crate::isa::{Block, Isa, Scalar};
use crate::rounding::{round, round_float};

/// A key or value that the cache cannot hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unstorable {
    /// A NaN or an infinity.
    NotFinite,
    /// Beyond 65504, the largest f16: itself, or the scale that it needs.
    BeyondF16,
}

/// Writes one position's key and value into a part.
#[derive(Clone, Copy)]
pub(super) struct Writer {
    pub(super) format: KvFormat,
    dim: usize,
    sizes: Sizes,
}

impl Writer {
    pub(super) fn new(format: KvFormat, dim: usize) -> Self {
        Self { format, dim, sizes: Sizes::new(format, dim) }
    }

    /// `at` is the position in the chunk, `first` whether it is the first of the text; key and value are rotated as the format
    /// wants them. On an error nothing was written that a later reading would notice: keys and values of positions past the
    /// end are never weighed, but they must be finite.
    #[inline(always)]
    pub(super) fn write(
        self,
        part: &mut [u8],
        at: usize,
        first: bool,
        key: &[f32],
        value: &[f32],
    ) -> Result<(), Unstorable> {
        let Sizes { keys: key_size, values: value_size } = self.sizes;
        let (keys, rest) = part.split_at_mut(key_size.codes);
        let (values, rest) = rest.split_at_mut(value_size.codes);
        let (key_scales, rest) = rest.split_at_mut(key_size.scales);
        let (value_scales, rest) = rest.split_at_mut(value_size.scales);
        let (first_key, first_value) = rest.split_at_mut(key_size.first);
        self.format.keys.check(key)?;
        self.format.values.check(value)?;
        self.key(keys, key_scales, at, key);
        self.value(values, value_scales, at, value);
        if first {
            write_first(first_key, key);
            write_first(first_value, value);
        }
        Ok(())
    }

    #[inline(always)]
    fn key(self, keys: &mut [u8], scales: &mut [u8], at: usize, key: &[f32]) {
        let (group, lane) = (at / LANES, at % LANES);
        match self.format.keys {
            Kept::F32 => {
                let keys = &mut keys.as_chunks_mut::<4>().0[group * LANES * self.dim..];
                for (to, key) in keys.chunks_exact_mut(LANES).zip(key) {
                    to[lane] = key.to_le_bytes();
                }
            }
            Kept::F16 => {
                let keys = &mut keys.as_chunks_mut::<2>().0[group * LANES * self.dim..];
                for (to, key) in keys.chunks_exact_mut(LANES).zip(key) {
                    to[lane] = f32_to_f16(*key).to_le_bytes();
                }
            }
            Kept::Int8 => {
                let mut codes = [0u8; super::MAX_HEAD_DIM];
                scales.as_chunks_mut::<4>().0[at] = codes_of(key, &mut codes).to_le_bytes();
                let quads = self.dim.div_ceil(4);
                let blocks = &mut keys.as_chunks_mut::<64>().0[group * quads..][..quads];
                for (block, quad) in blocks.iter_mut().zip(codes.as_chunks::<4>().0) {
                    block.as_chunks_mut::<4>().0[lane] = *quad;
                }
            }
            Kept::Q8 => self.packed_key::<Q8>(keys, scales, at, key),
            Kept::Q4 => self.packed_key::<Q4>(keys, scales, at, key),
            Kept::Q3 => self.packed_key::<Q3>(keys, scales, at, key),
        }
    }

    #[inline(always)]
    fn value(self, values: &mut [u8], scales: &mut [u8], at: usize, value: &[f32]) {
        match self.format.values {
            Kept::F32 => {
                let values = &mut values.as_chunks_mut::<4>().0[at * self.dim.next_multiple_of(LANES)..];
                for (to, value) in values.iter_mut().zip(value) {
                    *to = value.to_le_bytes();
                }
            }
            Kept::F16 => {
                let values = &mut values.as_chunks_mut::<2>().0[at * self.dim.next_multiple_of(LANES)..];
                for (to, value) in values.iter_mut().zip(value) {
                    *to = f32_to_f16(*value).to_le_bytes();
                }
            }
            Kept::Int8 => {
                let mut codes = [0u8; super::MAX_HEAD_DIM];
                scales.as_chunks_mut::<4>().0[at] = codes_of(value, &mut codes).to_le_bytes();
                let wide = self.dim.div_ceil(LANES);
                let blocks = &mut values.as_chunks_mut::<64>().0[at / 4 * wide..][..wide];
                for (block, codes) in blocks.iter_mut().zip(codes.as_chunks::<LANES>().0) {
                    for (quad, code) in block.as_chunks_mut::<4>().0.iter_mut().zip(codes) {
                        quad[at % 4] = *code;
                    }
                }
            }
            Kept::Q8 => self.packed_value::<Q8>(values, scales, at, value),
            Kept::Q4 => self.packed_value::<Q4>(values, scales, at, value),
            Kept::Q3 => self.packed_value::<Q3>(values, scales, at, value),
        }
    }

    /// Units of blocks lie along the elements.
    #[inline(always)]
    fn packed_key<P: Packed>(self, keys: &mut [u8], scales: &mut [u8], at: usize, key: &[f32]) {
        let (group, lane) = (at / LANES, at % LANES);
        let units = self.dim.div_ceil(4 * P::QUADS);
        let blocks: &mut [Block] =
            &mut keys.as_chunks_mut().0[group * units * P::BLOCKS..][..units * P::BLOCKS];
        let groups = self.dim.div_ceil(GROUP);
        let scales = &mut scales.as_chunks_mut::<2>().0[group * groups * LANES..];
        for (g, elements) in key.chunks(GROUP).enumerate() {
            let mut codes = [P::ZERO; GROUP];
            scales[g * LANES + lane] = quantise::<P>(elements, &mut codes).to_le_bytes();
            for (q, quad) in codes.as_chunks::<4>().0.iter().enumerate() {
                let (unit, q) = ((g * (GROUP / 4) + q) / P::QUADS, q % P::QUADS);
                if unit < units {
                    let blocks = &mut blocks[unit * P::BLOCKS..][..P::BLOCKS];
                    for (j, code) in quad.iter().enumerate() {
                        P::put(blocks, q, 4 * lane + j, *code);
                    }
                }
            }
        }
    }

    /// Units of blocks lie along the positions.
    #[inline(always)]
    fn packed_value<P: Packed>(self, values: &mut [u8], scales: &mut [u8], at: usize, value: &[f32]) {
        let wide = self.dim.div_ceil(LANES);
        let (unit, q) = (at / 4 / P::QUADS, at / 4 % P::QUADS);
        let blocks: &mut [Block] =
            &mut values.as_chunks_mut().0[unit * wide * P::BLOCKS..][..wide * P::BLOCKS];
        let scales = scales.as_chunks_mut::<2>().0;
        for (g, elements) in value.chunks(GROUP).enumerate() {
            let mut codes = [P::ZERO; GROUP];
            scales[g * CHUNK + at] = quantise::<P>(elements, &mut codes).to_le_bytes();
            for (d, codes) in codes.as_chunks::<LANES>().0.iter().enumerate() {
                let d = g * (GROUP / LANES) + d;
                if d < wide {
                    let blocks = &mut blocks[d * P::BLOCKS..][..P::BLOCKS];
                    for (lane, code) in codes.iter().enumerate() {
                        P::put(blocks, q, 4 * lane + at % 4, *code);
                    }
                }
            }
        }
    }
}

impl Kept {
    /// Turns one head's key (after its rotary positions) or value into what a cache gives back, where it is the first token's of
    /// a text or another's.
    pub fn round_trip(self, first: bool, row: &mut [f32]) -> Result<(), Unstorable> {
        assert!(row.len() <= super::MAX_HEAD_DIM && row.len().is_multiple_of(2), "a head of {}", row.len());
        if self.is_rotated() {
            even_out(Scalar, row);
        }
        self.check(row)?;
        match self {
            Kept::F32 => {}
            Kept::F16 => row.iter_mut().for_each(|x| *x = f16_to_f32(f32_to_f16(*x))),
            Kept::Int8 => {
                let mut codes = [0; super::MAX_HEAD_DIM];
                let step = codes_of(row, &mut codes);
                row.iter_mut().zip(codes).for_each(|(x, code)| *x = (i32::from(code) - 128) as f32 * step);
            }
            Kept::Q8 => there_and_back::<Q8>(row),
            Kept::Q4 if !first => there_and_back::<Q4>(row),
            Kept::Q3 if !first => there_and_back::<Q3>(row),
            Kept::Q4 | Kept::Q3 => there_and_back::<Q8>(row),
        }
        if self.is_rotated() {
            even_out(Scalar, row);
        }
        Ok(())
    }

    /// Whether it can hold a row.
    #[inline(always)]
    fn check(self, row: &[f32]) -> Result<(), Unstorable> {
        let top = magnitude(row.iter().copied());
        if top >= f32::INFINITY {
            return Err(Unstorable::NotFinite);
        }
        // Below these the f16 that is kept is finite: the value itself, or the scale of its group.
        let bound = match self {
            Kept::F32 | Kept::Int8 => f32::INFINITY,
            Kept::F16 => 65520.0,
            Kept::Q8 => 65520.0 * Q8::LEVELS,
            Kept::Q4 => 65520.0 * Q4::LEVELS,
            Kept::Q3 => 65520.0 * Q3::LEVELS,
        };
        if top >= bound { Err(Unstorable::BeyondF16) } else { Ok(()) }
    }
}

/// The rotation of keys, values, queries and outputs, over blocks of the largest power of two that divides the head. It is its
/// own inverse and keeps every product of two vectors, so attention over rotated keys and values, with queries rotated and
/// outputs rotated back, is the same attention; but no element stands out any more.
#[inline(always)]
pub(super) fn even_out<I: Isa>(isa: I, head: &mut [f32]) {
    transform(isa, head, hadamard_block(head.len(), head.len()));
}

/// Below it a row counts as zeros: its reciprocal times 127 must stay finite.
pub(super) const TINY: f32 = 1e-30;

/// The bytes of a row; returns what a code is worth. What fills up the row is the byte of zero.
#[inline(always)]
fn codes_of(values: &[f32], bytes: &mut [u8; super::MAX_HEAD_DIM]) -> f32 {
    let top = magnitude(values.iter().copied()).max(TINY);
    let scale = 127.0 / top;
    bytes.fill(128);
    for (byte, value) in bytes.iter_mut().zip(values) {
        *byte = (round(value * scale) as u8).wrapping_add(128);
    }
    top / 127.0
}

/// Codes of a group of values; returns the f16 scale. The value of the largest magnitude decides it: by the first scale it becomes
/// the lowest code exactly, so that the scale is negative where that value is positive. Of two as large the negative one decides.
/// Smaller scales cut it off and are finer for the others: the one of the least squared error is taken, of equal ones the first.
#[inline(always)]
fn quantise<P: Packed>(values: &[f32], codes: &mut [u8; GROUP]) -> u16 {
    let (mut least, mut most) = (0f32, 0f32);
    for &value in values {
        least = if value < least { value } else { least };
        most = if value > most { value } else { most };
    }
    let extreme = if -least >= most { least } else { most };
    let (mut bits, mut smallest) = (f32_to_f16(extreme / -P::LEVELS), f32::INFINITY);
    if P::FACTORS.len() > 1 {
        for factor in P::FACTORS {
            let candidate = f32_to_f16(extreme * factor / -P::LEVELS);
            let error = squared_error::<P>(values, f16_to_f32(candidate));
            if error < smallest {
                (bits, smallest) = (candidate, error);
            }
        }
    }
    let scale = f16_to_f32(bits);
    let inverse = inverse(scale);
    for (code, value) in codes.iter_mut().zip(values) {
        *code = (round(level::<P>(*value, inverse)) + i32::from(P::ZERO)) as u8;
    }
    bits
}

#[inline(always)]
fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

/// A value in steps of a scale. A scale among the smallest f16 may be off by half of itself: what then is beyond the codes is cut.
#[inline(always)]
fn level<P: Packed>(value: f32, inverse: f32) -> f32 {
    (value * inverse).clamp(-P::LEVELS, P::LEVELS - 1.0)
}

/// What rounding to steps of `scale` costs: element `i` is added in lane `i % 16`.
#[inline(always)]
fn squared_error<P: Packed>(values: &[f32], scale: f32) -> f32 {
    let inverse = inverse(scale);
    let mut lanes = [0f32; LANES];
    for values in values.chunks(LANES) {
        for (lane, value) in lanes.iter_mut().zip(values) {
            let off = round_float(level::<P>(*value, inverse)) * scale - value;
            *lane += off * off;
        }
    }
    crate::float::sum(lanes)
}

/// Replaces values by what their codes stand for.
fn there_and_back<P: Packed>(row: &mut [f32]) {
    for values in row.chunks_mut(GROUP) {
        let mut codes = [P::ZERO; GROUP];
        let scale = f16_to_f32(quantise::<P>(values, &mut codes));
        for (value, code) in values.iter_mut().zip(codes) {
            *value = (i32::from(code) - i32::from(P::ZERO)) as f32 * scale;
        }
    }
}

/// A row in 8 bits: a byte for each value, then the f16 scales of its groups. Does nothing where there is no room for one.
#[inline(always)]
fn write_first(to: &mut [u8], row: &[f32]) {
    if to.is_empty() {
        return;
    }
    let (bytes, scales) = to.split_at_mut(row.len());
    let groups = bytes.chunks_mut(GROUP).zip(row.chunks(GROUP));
    for ((bytes, values), scale) in groups.zip(scales.as_chunks_mut::<2>().0) {
        let mut codes = [0; GROUP];
        *scale = quantise::<Q8>(values, &mut codes).to_le_bytes();
        bytes.copy_from_slice(&codes[..values.len()]);
    }
}

/// What [`write_first`] wrote.
#[inline(always)]
pub(super) fn read_first(from: &[u8], row: &mut [f32]) {
    let (bytes, scales) = from.split_at(row.len());
    let groups = row.chunks_mut(GROUP).zip(bytes.chunks(GROUP));
    for ((row, bytes), scale) in groups.zip(scales.as_chunks::<2>().0) {
        let scale = f16_to_f32(u16::from_le_bytes(*scale));
        for (value, byte) in row.iter_mut().zip(bytes) {
            *value = (i32::from(*byte) - 128) as f32 * scale;
        }
    }
}
