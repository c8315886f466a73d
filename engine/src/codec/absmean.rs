//! Trits from floats. A matrix of -m, 0 and m is taken as it is. Any other is rounded as in training (absmean):
//! m = max(mean |w|, 1e-5), t = clamp(round_half_even(w * (1 / m)), -1, 1), where the mean is summed in f64.

use super::Codec;
use crate::file::Tensor;

/// Floats decoded at a time: whole blocks of every float encoding.
const PIECE: usize = 256;

/// How the floats of one matrix become trits.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) scale: f32,
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
        let mut sum = 0.0;
        // Magnitudes as bits: those of finite floats are in the order of the numbers. `least` is of those above 0.
        let (mut least, mut most) = (u32::MAX, 0);
        for row in 0..tensor.rows() {
            pieces(tensor, codec, decode, row, |floats| {
                let mut lanes = [0.0; 8];
                for floats in floats.chunks(8) {
                    for (lane, value) in lanes.iter_mut().zip(floats) {
                        *lane += f64::from(value.abs());
                    }
                }
                sum += lanes.iter().sum::<f64>();
                for value in floats {
                    let bits = value.abs().to_bits();
                    most = most.max(bits);
                    least = least.min(bits.wrapping_sub(1)); // 0 becomes the largest
                }
            });
            if most >= f32::INFINITY.to_bits() {
                let found = f32::from_bits(most);
                return Err(format!("expected finite weights, found {found} in row {row}"));
            }
        }
        let weights = tensor.rows() as f64 * tensor.cols() as f64;
        let scale = match least.wrapping_add(1) == most && most > 0 {
            true => f32::from_bits(most),
            false => ((sum / weights) as f32).max(1e-5),
        };
        Ok(Self { scale, inverse: 1.0 / scale })
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
