//! Trits from floats. Floats that are ternary already are taken as they are: those of a matrix, a row, or groups of 256, 128,
//! 64 or 32 columns in which every number is 0 or has the same magnitude, to the last bit. Any other matrix is rounded
//! as in training (absmean): m = max(mean |w|, 1e-5), t = clamp(round_half_even(w * (1 / m)), -1, 1), where the mean is summed
//! in f64.

use super::{Codec, check_scale, coarsest};
use crate::tensor::Tensor;
use tern_kernels::Scales;

/// Floats decoded at a time: whole blocks of every float encoding.
const PIECE: usize = 256;

/// The smallest group that is looked for. Rows that are shorter count as a matrix only: a few numbers are soon alike.
const SMALLEST: usize = coarsest::SIZES[coarsest::SIZES.len() - 1];

/// Bytes of a mapped tensor that are read before the map may forget them.
const HELD: usize = 16 << 20;

/// How the floats of one matrix become trits.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) scales: Scales,
    /// Whether the matrix is ternary already, so that nothing is rounded.
    pub(super) exact: bool,
    /// t = 1 where w * inverse > 0.5, which is what rounding half to even and clamping come to. Infinite for what is exact:
    /// there all that is not 0 counts.
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

/// The magnitudes of small groups, as long as each group has but one.
#[derive(Default)]
struct Magnitudes {
    values: Vec<f32>,
    /// Whether a group had two.
    failed: bool,
}

impl Magnitudes {
    fn add(&mut self, floats: &[f32]) {
        for group in floats.chunks(SMALLEST) {
            if self.failed {
                return;
            }
            // Magnitudes as bits, which are in the order of the numbers. `least` is less 1, so that 0 is the largest.
            let bits = group.iter().map(|value| value.to_bits() & 0x7fff_ffff);
            let least = bits.clone().fold(u32::MAX, |least, bits| least.min(bits.wrapping_sub(1)));
            let most = bits.fold(0, u32::max);
            match most == 0 || least.wrapping_add(1) == most {
                true => self.values.push(if most == 0 { coarsest::ANY } else { f32::from_bits(most) }),
                false => *self = Self { values: Vec::new(), failed: true },
            }
        }
    }

    /// The scales of a matrix that is ternary already.
    fn scales(self, rows: usize, cols: usize) -> Option<Scales> {
        if self.failed || self.values.iter().all(|value| *value == coarsest::ANY) {
            return None;
        }
        let scales = coarsest::scales(rows, cols, SMALLEST, self.values);
        (cols >= SMALLEST || matches!(scales, Scales::One(_))).then_some(scales)
    }
}

/// Whether the floats are ternary already; a matrix that is not ends the search with its first row as a rule.
pub(super) fn is_exact(tensor: &Tensor, codec: &Codec, decode: Decode) -> bool {
    let mut magnitudes = Magnitudes::default();
    let mut held = 0;
    for row in 0..tensor.rows() {
        held += tensor.bytes.len() / tensor.rows();
        if held >= HELD {
            tensor.bytes.release();
            held = 0;
        }
        pieces(tensor, codec, decode, row, |floats| magnitudes.add(floats));
        if magnitudes.failed {
            return false;
        }
    }
    magnitudes.scales(tensor.rows(), tensor.cols()).is_some()
}

impl Rule {
    pub(super) fn of(tensor: &Tensor, codec: &Codec, decode: Decode) -> Result<Self, String> {
        let (mut sum, mut magnitudes, mut held) = (0.0, Magnitudes::default(), 0);
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
                magnitudes.add(floats);
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
        if let Some(scales) = magnitudes.scales(tensor.rows(), tensor.cols()) {
            return Ok(Self { scales: times(scales, tensor.factor)?, exact: true, inverse: f32::INFINITY });
        }
        let weights = tensor.rows() as f64 * tensor.cols() as f64;
        // A matrix of zeros is rounded, but nothing is lost by it.
        let scale = ((sum / weights) as f32).max(1e-5);
        let scales = times(Scales::One(scale), tensor.factor)?;
        Ok(Self { scales, exact: sum == 0.0, inverse: 1.0 / scale })
    }

    pub(super) fn row(&self, tensor: &Tensor, codec: &Codec, decode: Decode, row: usize, out: &mut [i8]) {
        let mut rest = out;
        pieces(tensor, codec, decode, row, |floats| {
            let (piece, after) = std::mem::take(&mut rest).split_at_mut(floats.len());
            for (trit, value) in piece.iter_mut().zip(floats) {
                let ratio = value * self.inverse; // of 0 and infinity NaN, which is neither above nor below
                *trit = i8::from(ratio > 0.5) - i8::from(ratio < -0.5);
            }
            rest = after;
        });
    }
}

/// The scales times the factor of the tensor.
fn times(scales: Scales, factor: f32) -> Result<Scales, String> {
    let factor = check_scale(factor)?;
    let times = |scale: f32| check_scale(scale * factor);
    Ok(match scales {
        Scales::One(scale) => Scales::One(times(scale)?),
        Scales::Groups { size, values } => {
            Scales::Groups { size, values: values.into_iter().map(times).collect::<Result<_, _>>()? }
        }
    })
}
