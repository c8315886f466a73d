//! The output head and the cross-entropy: logits `x Eᵀ`, loss `-log softmax(logits)[target]`. Logits exist for a few rows at
//! a time only, and become their own gradient in place.

use tern_kernels::{Matrix, dense_product, exp, transpose};

use super::Machine;

/// Rows whose logits exist together.
const ROWS: usize = 256;
/// The target of a position that counts nothing.
pub const NONE: u32 = u32::MAX;

/// Room for logits.
#[derive(Debug, Default)]
pub struct Room {
    vocab: usize,
    turned: Vec<f32>, // (dim, stride)
    logits: Vec<f32>, // (ROWS, stride)
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
}

impl Room {
    /// Takes the head `e (vocab, dim)` in; to be called when it has changed.
    pub fn prepare(&mut self, on: Machine, e: &[f32], dim: usize) {
        let vocab = e.len() / dim;
        let stride = stride(vocab);
        self.vocab = vocab;
        self.turned.resize(dim * stride, 0.0);
        on.pool.for_chunks(&mut self.turned, 16 * stride, |strip, out| {
            let count = out.len() / stride;
            transpose(on.cpu, Matrix::new(e, dim).columns(16 * strip, count), out, stride);
        });
    }

    /// The loss of each row of `x (rows, dim)`. With `back`, also `dx = factor * (softmax - target) E` and
    /// `dE += factor * (softmax - target)ᵀ x`.
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
        let vocab = self.vocab;
        let stride = stride(vocab);
        let turned = Matrix::new(&self.turned, stride).columns(0, vocab);
        for (chunk, (targets, out)) in targets.chunks(ROWS).zip(out.chunks_mut(ROWS)).enumerate() {
            let rows = targets.len();
            let x = Matrix::new(&x[chunk * ROWS * dim..][..rows * dim], dim);
            self.logits.resize(ROWS * stride, 0.0);
            dense_product(cpu, pool, x, turned, &mut self.logits, stride, false);
            let factor = back.as_ref().map_or(0.0, |back| back.factor);
            let mut pairs: Vec<_> = self.logits.chunks_mut(stride).zip(&mut *out).collect();
            pool.for_chunks(&mut pairs, 1, |row, pair| {
                let (logits, out) = &mut pair[0];
                let (logits, target) = (&mut logits[..vocab], targets[row]);
                **out = cpu.vectorised(
                    #[inline(always)]
                    || row_loss(logits, target, factor),
                );
            });
            if let Some(back) = &mut back {
                let g = Matrix::strided(&self.logits, rows, vocab, stride);
                let dx = &mut back.dx[chunk * ROWS * dim..][..rows * dim];
                dense_product(cpu, pool, g, Matrix::new(back.e, dim), dx, dim, false);
                dense_product(cpu, pool, g.transposed(), x, back.de, dim, true);
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
    /// `(rows, dim)`.
    pub dx: &'a mut [f32],
    /// `(vocab, dim)`.
    pub de: &'a mut [f32],
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
    RowLoss { loss: sum.ln() + top - wanted, top: likeliest }
}
