//! Rotary positions, and the two layouts of queries, keys and values: rows of tokens `(rows, heads * head_dim)` as the
//! products have them, and `(sequence, head, position, head_dim)` as attention wants them.

use tern::{Pairing, Rope};

use super::Machine;

/// Cosines and sines of every position.
#[derive(Clone, Debug)]
pub struct Angles {
    /// `(positions, head_dim / 2)`.
    cos: Vec<f32>,
    sin: Vec<f32>,
    half: usize,
    pairing: Pairing,
}

impl Angles {
    /// The angle is rounded to f32 before its cosine is taken, as the engine does.
    pub fn new(rope: &Rope, head_dim: usize, positions: usize) -> Self {
        Self::turned(&rope.frequencies(head_dim), rope.magnitude(), rope.pairing, positions)
    }

    /// By what a position turns each pair, and what cosines and sines are multiplied by.
    pub fn turned(frequencies: &[f32], magnitude: f32, pairing: Pairing, positions: usize) -> Self {
        let half = frequencies.len();
        let angles = (0..positions * half).map(|i| f64::from((i / half) as f32 * frequencies[i % half]));
        let (sin, cos) =
            angles.map(|angle| (angle.sin() as f32 * magnitude, angle.cos() as f32 * magnitude)).unzip();
        Self { cos, sin, half, pairing }
    }

    /// How many positions there are.
    pub fn positions(&self) -> usize {
        self.cos.len() / self.half
    }

    /// Turns one head at a position, forwards or (`sign` = -1) back.
    #[inline(always)]
    fn turn(&self, position: usize, sign: f32, x: &[f32], out: &mut [f32]) {
        let half = self.half;
        let (cos, sin) = (&self.cos[position * half..][..half], &self.sin[position * half..][..half]);
        let (x, out) = (&x[..2 * half], &mut out[..2 * half]);
        match self.pairing {
            Pairing::Halves => {
                let ((xa, xb), (a, b)) = (x.split_at(half), out.split_at_mut(half));
                for j in 0..half {
                    a[j] = xa[j] * cos[j] - sign * xb[j] * sin[j];
                    b[j] = xb[j] * cos[j] + sign * xa[j] * sin[j];
                }
            }
            Pairing::Neighbours => {
                for j in 0..half {
                    let (a, b) = (x[2 * j], x[2 * j + 1]);
                    out[2 * j] = a * cos[j] - sign * b * sin[j];
                    out[2 * j + 1] = b * cos[j] + sign * a * sin[j];
                }
            }
        }
    }
}

/// The numbers of heads and positions of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    /// Heads of this tensor.
    pub count: usize,
    /// Width of one.
    pub dim: usize,
    /// Positions of a sequence.
    pub positions: usize,
}

/// `x (rows, heads * dim)` into `out (sequence, head, position, dim)`, turned where `angles` are given.
pub fn forward(on: Machine, heads: Heads, angles: Option<&Angles>, x: &[f32], out: &mut [f32]) {
    let Heads { count, dim, positions } = heads;
    assert_eq!(x.len(), out.len(), "numbers of heads");
    on.pool.for_chunks(out, positions * dim, |index, out| {
        let (sequence, head) = (index / count, index % count);
        let x = &x[(sequence * positions * count + head) * dim..];
        on.cpu.vectorised(
            #[inline(always)]
            || {
                for (position, out) in out.chunks_exact_mut(dim).enumerate() {
                    let x = &x[position * count * dim..][..dim];
                    match angles {
                        Some(angles) => angles.turn(position, 1.0, x, out),
                        None => out.copy_from_slice(x),
                    }
                }
            },
        );
    });
}

/// The way back: `g (sequence, head, position, dim)` into `dx (rows, heads * dim)`, turned back. Without angles it also
/// brings attention's output into rows.
pub fn backward(on: Machine, heads: Heads, angles: Option<&Angles>, g: &[f32], dx: &mut [f32]) {
    let Heads { count, dim, positions } = heads;
    assert_eq!(g.len(), dx.len(), "numbers of heads");
    on.pool.for_chunks(dx, 16 * count * dim, |index, dx| {
        on.cpu.vectorised(
            #[inline(always)]
            || {
                for (at, dx) in dx.chunks_exact_mut(count * dim).enumerate() {
                    let row = 16 * index + at;
                    let (sequence, position) = (row / positions, row % positions);
                    for (head, dx) in dx.chunks_exact_mut(dim).enumerate() {
                        let g = &g[((sequence * count + head) * positions + position) * dim..][..dim];
                        match angles {
                            Some(angles) => angles.turn(position, -1.0, g, dx),
                            None => dx.copy_from_slice(g),
                        }
                    }
                }
            },
        );
    });
}
