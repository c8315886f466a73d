//! The output head and the cross-entropy: logits `x Eᵀ`, loss `-log softmax(logits)[target]`. Logits exist for a few rows at
//! a time only, and become their own gradient in place.

pub mod divergence;

use tern_kernels::{Matrix, dense_product, exp, transpose};

use self::divergence::{Tops, Weight, row, row_of_tops};
use super::Machine;

/// Rows whose logits exist together.
const ROWS: usize = 256;
/// The target of a position that counts nothing.
pub const NONE: u32 = u32::MAX;

/// An output head as products want it.
#[derive(Debug, Default)]
pub struct Head {
    vocab: usize,
    turned: Vec<f32>, // (dim, stride)
}

impl Head {
    /// Takes `e (vocab, dim)` in; to be called when it has changed.
    pub fn set(&mut self, on: Machine, e: &[f32], dim: usize) {
        let vocab = e.len() / dim;
        let stride = stride(vocab);
        self.vocab = vocab;
        self.turned.resize(dim * stride, 0.0);
        on.pool.for_chunks(&mut self.turned, 16 * stride, |strip, out| {
            let count = out.len() / stride;
            transpose(on.cpu, Matrix::new(e, dim).columns(16 * strip, count), out, stride);
        });
    }

    /// Numbers from a row of logits to the next.
    pub fn stride(&self) -> usize {
        stride(self.vocab)
    }

    /// The logits of rows `x (rows, dim)`, `(rows, stride)`.
    pub fn logits(&self, on: Machine, x: Matrix, out: &mut Vec<f32>) {
        let stride = self.stride();
        let count = x.row_count();
        if out.len() < count * stride {
            out.resize(count * stride, 0.0);
        }
        let turned = Matrix::new(&self.turned, stride).columns(0, self.vocab);
        dense_product(on.cpu, on.pool, x, turned, out, stride, false);
    }
}

/// Room for logits.
#[derive(Debug, Default)]
pub struct Room {
    head: Head,
    logits: Vec<f32>,  // (ROWS, stride)
    teacher: Vec<f32>, // (ROWS, stride)
}

/// What a teacher says of the rows of a batch.
#[derive(Clone, Copy, Debug)]
pub enum Says<'a> {
    /// Its last hidden states, normed, `(rows, its dim)`, and its head.
    Hidden {
        /// The states.
        x: &'a [f32],
        /// `(vocab, its dim)`.
        head: &'a Head,
    },
    /// Its likeliest tokens.
    Tops(&'a Tops),
}

/// Numbers from a row of logits to the next, 16 more than needed: columns of a power of two would all fall into one set of
/// the cache.
fn stride(vocab: usize) -> usize {
    vocab.next_multiple_of(16) + 16
}

/// What a row of logits amounts to.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RowLoss {
    /// In nats; 0 where there is no target.
    pub loss: f32,
    /// The token with the largest logit, the first of them; 0 where there is no target.
    pub top: u32,
    /// `τ²` times the divergence from the teacher, in nats; 0 without one.
    pub divergence: f32,
}

impl Room {
    /// Takes the head `e (vocab, dim)` in; to be called when it has changed.
    pub fn prepare(&mut self, on: Machine, e: &[f32], dim: usize) {
        self.head.set(on, e, dim);
    }

    /// The loss of each row of `x (rows, dim)`. With `back`, also `dx = factor * (softmax - target) E` and
    /// `dE += factor * (softmax - target)ᵀ x`; a teacher's part is added to both.
    pub fn run(
        &mut self,
        on: Machine,
        x: &[f32],
        dim: usize,
        targets: &[u32],
        out: &mut [RowLoss],
        mut back: Option<Back>,
    ) {
        let Machine { cpu, pool } = on;
        let vocab = self.head.vocab;
        let stride = stride(vocab);
        let lesson = back.as_ref().and_then(|back| back.lesson);
        for (chunk, (targets, out)) in targets.chunks(ROWS).zip(out.chunks_mut(ROWS)).enumerate() {
            let rows = targets.len();
            let x = Matrix::new(&x[chunk * ROWS * dim..][..rows * dim], dim);
            self.logits.resize(ROWS * stride, 0.0);
            self.head.logits(on, x, &mut self.logits);
            if lesson.is_some() {
                self.teacher.resize(ROWS * stride, 0.0);
            }
            if let Some((Says::Hidden { x, head }, _)) = lesson {
                assert_eq!(head.vocab, vocab, "tokens of a teacher");
                let dim = head.turned.len() / stride;
                let x = Matrix::new(&x[chunk * ROWS * dim..][..rows * dim], dim);
                head.logits(on, x, &mut self.teacher);
            }
            let factor = back.as_ref().map_or(0.0, |back| back.factor);
            let weights = back.as_ref().and_then(|back| back.weights).map(|weights| &weights[chunk * ROWS..]);
            let mut pairs: Vec<_> = self.logits.chunks_mut(stride).zip(&mut *out).collect();
            match lesson {
                None => pool.for_chunks(&mut pairs, 1, |row, pair| {
                    let (logits, out) = &mut pair[0];
                    let (logits, target) = (&mut logits[..vocab], targets[row]);
                    let factor = weights.map_or(factor, |weights| factor * weights[row]);
                    **out = cpu.vectorised(
                        #[inline(always)]
                        || row_loss(logits, target, factor),
                    );
                }),
                Some((says, weight)) => {
                    let mut all: Vec<_> = pairs.into_iter().zip(self.teacher.chunks_mut(stride)).collect();
                    pool.for_chunks(&mut all, 1, |nth, one| {
                        let ((logits, out), theirs) = &mut one[0];
                        let (logits, target) = (&mut logits[..vocab], targets[nth]);
                        let theirs = &mut theirs[..vocab];
                        **out = cpu.vectorised(
                            #[inline(always)]
                            || match says {
                                Says::Hidden { .. } => row(logits, theirs, target, factor, weight),
                                Says::Tops(tops) => {
                                    let of = tops.row(chunk * ROWS + nth);
                                    row_of_tops(logits, theirs, of, target, factor, weight)
                                }
                            },
                        );
                    });
                }
            }
            if let Some(back) = &mut back {
                let g = Matrix::strided(&self.logits, rows, vocab, stride);
                let dx = &mut back.dx[chunk * ROWS * dim..][..rows * dim];
                dense_product(cpu, pool, g, Matrix::new(back.e, dim), dx, dim, false);
                if let Some(de) = &mut back.de {
                    dense_product(cpu, pool, g.transposed(), x, de, dim, true);
                }
            }
        }
    }
}

/// What the backward pass of the head reads and writes.
#[derive(Debug)]
pub struct Back<'a> {
    /// The head, `(vocab, dim)`.
    pub e: &'a [f32],
    /// What a row's loss counts: one over the number of targets of the step.
    pub factor: f32,
    /// What each row counts times that, where they differ; less than nothing where a row is to become less likely.
    pub weights: Option<&'a [f32]>,
    /// `(rows, dim)`.
    pub dx: &'a mut [f32],
    /// `(vocab, dim)`; none where the head is not trained.
    pub de: Option<&'a mut [f32]>,
    /// What a teacher says of these rows, and how much it counts.
    pub lesson: Option<(Says<'a>, Weight)>,
}

/// The loss and the likeliest token; logits become `factor * (softmax - target)`, or zeros without a target.
#[inline(always)]
fn row_loss(logits: &mut [f32], target: u32, factor: f32) -> RowLoss {
    if target == NONE {
        logits.fill(0.0);
        return RowLoss::default();
    }
    let mut tops = [f32::NEG_INFINITY; 16];
    let (chunks, rest) = logits.as_chunks::<16>();
    for chunk in chunks {
        for i in 0..16 {
            tops[i] = tops[i].max(chunk[i]);
        }
    }
    let top = rest.iter().chain(&tops).fold(f32::NEG_INFINITY, |top, x| top.max(*x));
    let wanted = logits[target as usize];
    let likeliest = logits.iter().position(|x| *x == top).unwrap_or_default() as u32;
    let mut sums = [0f32; 16];
    let (chunks, rest) = logits.as_chunks_mut::<16>();
    for chunk in chunks {
        for i in 0..16 {
            chunk[i] = exp(chunk[i] - top);
            sums[i] += chunk[i];
        }
    }
    let mut sum = 0.0;
    for x in rest {
        *x = exp(*x - top);
        sum += *x;
    }
    let sum = sums.iter().sum::<f32>() + sum;
    let scale = factor / sum;
    logits.iter_mut().for_each(|x| *x *= scale);
    logits[target as usize] -= factor;
    RowLoss { loss: sum.ln() + top - wanted, top: likeliest, divergence: 0.0 }
}
