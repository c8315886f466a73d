//! The float arithmetic around the products. Every reduction runs over 16 lanes in one fixed order and nothing is
//! contracted to a fused multiply-add, so that each instruction set gives the same bits.

use crate::cpu::Cpu;
use crate::exponential::exp;
use crate::half::{bf16_to_f32, f16_to_f32};
use crate::isa::{Isa, Kernel};

const LANES: usize = 16;

/// Sums the lanes pairwise: 8 apart, 4 apart, 2 apart, neighbours.
#[inline(always)]
pub(crate) fn sum(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// `Σ a·b` in the fixed order: element `i` belongs to lane `i % 16`.
#[inline(always)]
pub(crate) fn dot_lanes(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0f32; LANES];
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    for (a, b) in a.iter().zip(b) {
        for i in 0..LANES {
            lanes[i] += a[i] * b[i];
        }
    }
    for (i, (a, b)) in a_rest.iter().zip(b_rest).enumerate() {
        lanes[i] += a * b;
    }
    sum(lanes)
}

/// The largest magnitude; infinite where a value is not finite.
#[inline(always)]
pub(crate) fn magnitude(values: impl Iterator<Item = f32>) -> f32 {
    // As integers the magnitudes of floats are in the floats' order, with infinity and NaN on top.
    let top = values.fold(0u32, |top, value| top.max(value.to_bits() & 0x7fff_ffff));
    f32::from_bits(top.min(f32::INFINITY.to_bits()))
}

/// How the elements of a row of floats are stored, little endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FloatFormat {
    /// IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// The upper half of a binary32.
    Bf16,
}

impl FloatFormat {
    /// Bytes of an element.
    pub fn size(self) -> usize {
        match self {
            FloatFormat::F32 => 4,
            FloatFormat::F16 | FloatFormat::Bf16 => 2,
        }
    }
}

struct Dots<'a> {
    format: FloatFormat,
    rows: &'a [u8],
    x: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for Dots<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        let len = self.x.len() * self.format.size();
        for (row, out) in self.rows.chunks_exact(len).zip(self.out) {
            *out = match self.format {
                FloatFormat::F32 => stored_dot(row, self.x, f32::from_le_bytes),
                FloatFormat::F16 => stored_dot(row, self.x, |b| f16_to_f32(u16::from_le_bytes(b))),
                FloatFormat::Bf16 => stored_dot(row, self.x, |b| bf16_to_f32(u16::from_le_bytes(b))),
            };
        }
    }
}

/// [`dot_lanes`] with `row` decoded on the way.
#[inline(always)]
fn stored_dot<const N: usize>(row: &[u8], x: &[f32], decode: impl Fn([u8; N]) -> f32) -> f32 {
    let mut lanes = [0f32; LANES];
    let (row, _) = row.as_chunks::<N>();
    let ((row, row_rest), (x, x_rest)) = (row.as_chunks::<LANES>(), x.as_chunks::<LANES>());
    for (row, x) in row.iter().zip(x) {
        for i in 0..LANES {
            lanes[i] += decode(row[i]) * x[i];
        }
    }
    for (i, (&row, x)) in row_rest.iter().zip(x_rest).enumerate() {
        lanes[i] += decode(row) * x;
    }
    sum(lanes)
}

/// `out[r] = rows[r] · x`, the rows stored one after another in `format`.
pub fn dots(cpu: Cpu, format: FloatFormat, rows: &[u8], x: &[f32], out: &mut [f32]) {
    assert_eq!(rows.len(), out.len() * x.len() * format.size(), "bytes of {} rows of {}", out.len(), x.len());
    cpu.run(Dots { format, rows, x, out });
}

struct Decode<'a> {
    format: FloatFormat,
    bytes: &'a [u8],
    out: &'a mut [f32],
}

impl Kernel for Decode<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        match self.format {
            FloatFormat::F32 => decode_with(self.bytes, self.out, f32::from_le_bytes),
            FloatFormat::F16 => decode_with(self.bytes, self.out, |b| f16_to_f32(u16::from_le_bytes(b))),
            FloatFormat::Bf16 => decode_with(self.bytes, self.out, |b| bf16_to_f32(u16::from_le_bytes(b))),
        }
    }
}

#[inline(always)]
fn decode_with<const N: usize>(bytes: &[u8], out: &mut [f32], decode: impl Fn([u8; N]) -> f32) {
    for (out, &bytes) in out.iter_mut().zip(bytes.as_chunks::<N>().0) {
        *out = decode(bytes);
    }
}

/// The numbers stored in `bytes`.
pub fn decode(cpu: Cpu, format: FloatFormat, bytes: &[u8], out: &mut [f32]) {
    assert_eq!(bytes.len(), out.len() * format.size(), "bytes of {} floats", out.len());
    cpu.run(Decode { format, bytes, out });
}

struct Dot<'a>(&'a [f32], &'a [f32]);

impl Kernel for Dot<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<I: Isa>(self, _: I) -> f32 {
        dot_lanes(self.0, self.1)
    }
}

/// `Σ a·b`, with the same bits as [`dots`] over the same numbers.
pub fn dot(cpu: Cpu, a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len(), "lengths of a dot product");
    cpu.run(Dot(a, b))
}

/// What brings `x` to unit mean square.
#[inline(always)]
pub(crate) fn rms(x: &[f32], eps: f32) -> f32 {
    1.0 / (dot_lanes(x, x) / x.len() as f32 + eps).sqrt()
}

struct RmsNorm<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    eps: f32,
    out: &'a mut [f32],
}

impl Kernel for RmsNorm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        let width = self.weight.len();
        for (x, out) in self.x.chunks_exact(width).zip(self.out.chunks_exact_mut(width)) {
            let scale = rms(x, self.eps);
            for ((out, x), weight) in out.iter_mut().zip(x).zip(self.weight) {
                *out = x * scale * weight;
            }
        }
    }
}

/// For each row of `x` (as wide as `weight`): `out = weight * x / sqrt(mean(x²) + eps)`.
pub fn rms_norm(cpu: Cpu, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    assert!(
        x.len() == out.len() && x.len().is_multiple_of(weight.len()),
        "rows of {} in {}",
        weight.len(),
        x.len()
    );
    cpu.run(RmsNorm { x, weight, eps, out });
}

struct RmsNormHere<'a> {
    x: &'a mut [f32],
    weight: &'a [f32],
    eps: f32,
}

impl Kernel for RmsNormHere<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        for x in self.x.chunks_exact_mut(self.weight.len()) {
            let scale = rms(x, self.eps);
            for (x, weight) in x.iter_mut().zip(self.weight) {
                *x = *x * scale * weight;
            }
        }
    }
}

/// [`rms_norm`] where `x` lies.
pub fn rms_norm_here(cpu: Cpu, x: &mut [f32], weight: &[f32], eps: f32) {
    assert!(x.len().is_multiple_of(weight.len()), "rows of {} in {}", weight.len(), x.len());
    cpu.run(RmsNormHere { x, weight, eps });
}

/// The function between the two halves of a feed-forward layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `max(0, x)²`.
    Relu2,
    /// `x / (1 + e^-x)`.
    Silu,
    /// GELU by its tanh: `x / (1 + e^-2u)`, `u = sqrt(2 / pi) * (x + 0.044715 x³)`.
    GeluTanh,
}

struct Gate<'a> {
    activation: Activation,
    gate: &'a mut [f32],
    up: &'a [f32],
}

impl Kernel for Gate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, _: I) {
        let pairs = self.gate.iter_mut().zip(self.up);
        match self.activation {
            Activation::Relu2 => pairs.for_each(|(gate, up)| {
                let positive = gate.max(0.0);
                *gate = positive * positive * up;
            }),
            Activation::Silu => pairs.for_each(|(gate, up)| *gate = *gate / (1.0 + exp(-*gate)) * up),
            Activation::GeluTanh => pairs.for_each(|(gate, up)| {
                let x = *gate;
                // sqrt(2 / pi), twice: tanh(u) = 2 / (1 + e^-2u) - 1.
                let twice = 1.595_769 * (x + 0.044_715 * (x * x * x));
                *gate = x / (1.0 + exp(-twice)) * up;
            }),
        }
    }
}

/// `gate = activation(gate) * up`.
pub fn gate(cpu: Cpu, activation: Activation, gate: &mut [f32], up: &[f32]) {
    assert_eq!(gate.len(), up.len(), "gate and up");
    cpu.run(Gate { activation, gate, up });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gelu_is_the_formula_with_tanh() {
        for i in -400..400 {
            let x = i as f32 / 20.0;
            let mut out = [x];
            gate(Cpu::best(), Activation::GeluTanh, &mut out, &[1.0]);
            let x = f64::from(x);
            let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
            let want = 0.5 * x * (1.0 + u.tanh());
            assert!((f64::from(out[0]) - want).abs() < 1e-6 * x.abs().max(1.0), "{x}: {} {want}", out[0]);
        }
    }

    #[test]
    fn every_instruction_set_gives_the_same_floats() {
        let value = |i: usize| ((i * 7919 % 1013) as f32 - 506.0) / 97.0;
        for len in [1, 15, 16, 17, 100, 128] {
            let x: Vec<f32> = (0..len).map(value).collect();
            let weight: Vec<f32> = (0..len).map(|i| value(i + 31)).collect();
            let bytes: Vec<u8> = (0..len * 3).flat_map(|i| value(i + 7).to_le_bytes()).collect();
            let results: Vec<Vec<u32>> = Cpu::available()
                .into_iter()
                .map(|cpu| {
                    let mut all = vec![0f32; len * 3 + 3];
                    let (norm, rest) = all.split_at_mut(len);
                    let (gated, rest) = rest.split_at_mut(len);
                    let (gelu, rest) = rest.split_at_mut(len);
                    rms_norm(cpu, &x, &weight, 1e-5, norm);
                    let mut here = x.clone();
                    rms_norm_here(cpu, &mut here, &weight, 1e-5);
                    assert_eq!(here, norm);
                    gated.copy_from_slice(&x);
                    gate(cpu, Activation::Silu, gated, &weight);
                    gelu.copy_from_slice(&x);
                    gate(cpu, Activation::GeluTanh, gelu, &weight);
                    dots(cpu, FloatFormat::F32, &bytes, &x, rest);
                    all.iter().map(|v| v.to_bits()).collect()
                })
                .collect();
            assert!(results.windows(2).all(|pair| pair[0] == pair[1]), "length {len}");
        }
    }
}
