//! From floats to trits, as the engine reads them afterwards: which weights share a scale, the scale, and where a weight
//! becomes -1 or 1.

use tern_kernels::{Scales, half};

use super::{Machine, PIECE};

/// Which weights of a matrix share a scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantiser {
    /// None: the float twin.
    Float,
    /// All of them, and activations are int8: BitNet b1.58.
    Matrix,
    /// Those of a row; activations are floats (BitCPM).
    Row,
    /// So many in a row; activations are floats (Bonsai with 128).
    Group(usize),
}

/// The least scale, of the engine's rule for masters (`tern::codec`).
const LEAST: f32 = 1e-5;

impl Quantiser {
    /// Whether activations stay floats, so that a step multiplies floats alone.
    pub fn floats(self) -> bool {
        self != Quantiser::Matrix
    }

    /// Whether weights become trits.
    pub fn rounds(self) -> bool {
        self != Quantiser::Float
    }

    /// Whether weights become trits while activations stay floats.
    pub fn is_weight_only(self) -> bool {
        matches!(self, Quantiser::Row | Quantiser::Group(_))
    }

    /// The weights that share a scale in rows of `inputs`; `None` where all of the matrix do.
    fn size(self, inputs: usize) -> Option<usize> {
        match self {
            Quantiser::Float | Quantiser::Matrix => None,
            Quantiser::Row => Some(inputs),
            Quantiser::Group(size) => Some(size),
        }
    }

    /// The trits of `w (outputs, inputs)` and its scales; those of the float twin are by matrix.
    ///
    /// A scale for a row or a group is an f16: the encodings of such models hold no other. That of a matrix is an f32, as a
    /// BitNet's.
    pub fn trits(self, on: Machine, w: &[f32], inputs: usize, out: &mut [i8]) -> Scales {
        assert_eq!(w.len(), out.len(), "trits of a matrix");
        let Some(size) = self.size(inputs) else {
            let scale = absmean(on, w);
            on.pool.for_chunks(out, PIECE, |index, out| {
                trits(on, &w[index * PIECE..][..out.len()], scale, out);
            });
            return Scales::One(scale);
        };
        assert!(inputs.is_multiple_of(size), "groups of {size} in rows of {inputs}");
        let mut values = vec![0f32; w.len() / size];
        let groups = PIECE.div_ceil(size);
        on.pool.for_chunks(&mut values, groups, |index, values| {
            for (value, w) in values.iter_mut().zip(w[index * groups * size..].chunks_exact(size)) {
                let mean = (on.sum_of(w, f64::abs) / size as f64) as f32;
                *value = to_f16(at_least(mean));
            }
        });
        on.pool.for_chunks(out, groups * size, |index, out| {
            let w = w[index * groups * size..].chunks_exact(size);
            for ((out, w), scale) in out.chunks_exact_mut(size).zip(w).zip(&values[index * groups..]) {
                trits(on, w, *scale, out);
            }
        });
        Scales::Groups { size, values }
    }

    /// What `w (outputs, inputs)` is taken for by a product of floats: trits times scales. False where a scale is no number.
    pub fn round(
        self,
        on: Machine,
        w: &[f32],
        inputs: usize,
        room: &mut Vec<i8>,
        out: &mut Vec<f32>,
    ) -> bool {
        room.resize(w.len(), 0);
        let scales = self.trits(on, w, inputs, room);
        let (size, values) = match &scales {
            Scales::One(scale) => (w.len(), std::slice::from_ref(scale)),
            Scales::Groups { size, values } => (*size, &values[..]),
        };
        if !values.iter().all(|scale| scale.is_finite()) {
            return false;
        }
        out.resize(w.len(), 0.0);
        on.pool.for_chunks(out, size, |index, out| {
            let (trits, scale) = (&room[index * size..][..out.len()], values[index]);
            for (out, trit) in out.iter_mut().zip(trits) {
                *out = f32::from(*trit) * scale;
            }
        });
        true
    }
}

/// The nearest number that f16 holds.
pub fn to_f16(value: f32) -> f32 {
    half::f16_to_f32(half::f32_to_f16(value))
}

/// The scale of a matrix, `max(mean |w|, 1e-5)`: the engine's rule for masters (`tern::codec`), summed in f64.
pub fn absmean(on: Machine, w: &[f32]) -> f32 {
    /// Numbers that are summed by one thread.
    const PIECE: usize = 4096;
    at_least((on.sum_of_pieces(w, PIECE, f64::abs) / w.len() as f64) as f32)
}

/// A mean as a scale; one that is no number stays so, and is seen.
fn at_least(mean: f32) -> f32 {
    if mean < LEAST { LEAST } else { mean }
}

/// Trits of weights that share a scale `m`: -1 below `-m/2`, 1 above `m/2`, as the engine rounds masters.
fn trits(on: Machine, w: &[f32], scale: f32, out: &mut [i8]) {
    let inverse = 1.0 / scale;
    on.cpu.vectorised(
        #[inline(always)]
        || {
            for (trit, w) in out.iter_mut().zip(w) {
                let ratio = w * inverse;
                *trit = i8::from(ratio > 0.5) - i8::from(ratio < -0.5);
            }
        },
    );
}
