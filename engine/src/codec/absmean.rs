//! Trits from floats. A matrix of -m, 0 and m is taken as it is. Any other is rounded as in training (absmean):
//! m = max(mean |w|, 1e-5), t = clamp(round_half_even(w * (1 / m)), -1, 1), where the mean is summed in f64.

use super::Codec;
use crate::tensor::Tensor;

/// Floats decoded at a time: whole blocks of every float encoding.
const PIECE: usize = 256;

/// Bytes of a mapped tensor that are read before the map may forget them.
const HELD: usize = 16 << 20;

/// How the floats of one matrix become trits.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) scale: f32,
    /// Whether the matrix holds one magnitude beside 0, so that nothing is rounded.
    pub(super) exact: bool,
    /// t = 1 where w * inverse > 0.5, which is what rounding half to even and clamping come to.
    inverse: f32,
}

type Decode = fn(&[u8], &mut [f32]);

/// Calls `each` with the numbers of a row, a piece at a time.
fn pieces(tensor: &Tensor, codec: &Codec, decode: Decode, row: usize, mut each: impl FnMut(&[f32])) {
    let cols = tensor.cols();
    let length = tensor.bytes.len() / tensor.rows();
    let bytes = &tensor.bytes[row * length..][..length];
    let piece = (codec.len)(1, PIECE as u64).expect("a piece is whole blocks") as usize;
    let mut floats = [0.0; PIECE];
    for (nth, bytes) in bytes.chunks(piece).enumerate() {
        let floats = &mut floats[..PIECE.min(cols - nth * PIECE)];
        decode(bytes, floats);
        each(floats);
    }
}

impl Rule {
    pub(super) fn of(tensor: &Tensor, codec: &Codec, decode: Decode) -> Result<Self, String> {
        // Magnitudes as bits, which are in the order of the numbers. `least` is less 1, so that 0 is the largest.
        let (mut sum, mut least, mut most, mut held) = (0.0, u32::MAX, 0u32, 0);
        for row in 0..tensor.rows() {
            held += tensor.bytes.len() / tensor.rows();
            if held >= HELD {
                tensor.bytes.release();
                held = 0;
            }
            pieces(tensor, codec, decode, row, |floats| {
                let (whole, rest) = floats.as_chunks::<8>();
                let mut sums = [0.0; 8];
                for eight in whole {
                    for lane in 0..8 {
                        sums[lane] += f64::from(eight[lane].abs());
                    }
                }
                sum +=
                    sums.iter().sum::<f64>() + rest.iter().map(|value| f64::from(value.abs())).sum::<f64>();
                let bits = floats.iter().map(|value| value.abs().to_bits().wrapping_sub(1));
                least = bits.clone().fold(least, u32::min);
                most = bits.map(|bits| bits.wrapping_add(1)).fold(most, u32::max);
            });
            // Finite floats cannot add up to infinity in f64.
            if !f64::is_finite(sum) {
                let mut found = None;
                let mut search = |floats: &[f32]| {
                    found = found.or(floats.iter().copied().find(|value| !value.is_finite()));
                };
                pieces(tensor, codec, decode, row, &mut search);
                let found = found.expect("a sum of finite numbers is finite");
                return Err(format!("expected finite weights, found {found} in row {row}"));
            }
        }
        let weights = tensor.rows() as f64 * tensor.cols() as f64;
        let exact = least.wrapping_add(1) == most;
        let scale = match exact && most > 0 {
            true => f32::from_bits(most),
            false => ((sum / weights) as f32).max(1e-5),
        };
        Ok(Self { scale, exact, inverse: 1.0 / scale })
    }

    pub(super) fn row(&self, tensor: &Tensor, codec: &Codec, decode: Decode, row: usize, out: &mut [i8]) {
        let mut rest = out;
        pieces(tensor, codec, decode, row, |floats| {
            let (piece, after) = std::mem::take(&mut rest).split_at_mut(floats.len());
            for (trit, value) in piece.iter_mut().zip(floats) {
                let ratio = value * self.inverse;
                *trit = i8::from(ratio > 0.5) - i8::from(ratio < -0.5);
            }
            rest = after;
        });
    }
}
