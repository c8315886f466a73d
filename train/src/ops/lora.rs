//! LoRA beside a projection: `y += s B (A x)` with `x` the projection's input as floats, normed and not rounded. Products of
//! floats, one after another by rising depth, so that the number of threads changes no bit.
//!
//! `x` is not kept: a norm is cheap to compute again, and would be a third of what a layer keeps.

use std::ops::Range;

use tern_kernels::{Matrix, Norm, dense_product, transpose};

use super::{Machine, norm};

/// Where the two matrices of an adapter lie among the parameters.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// `A (rank, inputs)`.
    pub a: Range<usize>,
    /// `B (outputs, rank)`.
    pub b: Range<usize>,
    /// What their product is multiplied by.
    pub scale: f32,
}

/// The input of one or more projections: rows of `cols`, normed first where there is a norm.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// `(rows, cols)`.
    pub x: &'a [f32],
    /// In a row.
    pub cols: usize,
    /// What norms it.
    pub norm: Option<Norm<'a>>,
}

/// Room for what is between the matrices.
#[derive(Debug, Default)]
pub struct Room {
    x: Vec<f32>,      // (rows, inputs), normed
    low: Vec<f32>,    // (rows, rank)
    back: Vec<f32>,   // (rows, rank)
    turned: Vec<f32>, // a matrix on its side
}

impl Room {
    /// The input as the adapters see it.
    fn take(&mut self, on: Machine, source: Source) {
        self.x.resize(source.x.len(), 0.0);
        match source.norm {
            Some(Norm { weight, eps }) => norm::forward(on, source.x, weight, eps, &mut self.x),
            None => self.x.copy_from_slice(source.x),
        }
    }

    /// `low = s x Aᵀ`.
    fn narrow(&mut self, on: Machine, a: &[f32], cols: usize, scale: f32) {
        let (rank, rows) = (a.len() / cols, self.x.len() / cols);
        turn(on, a, cols, &mut self.turned);
        self.low.resize(rows * rank, 0.0);
        let (x, turned) = (Matrix::new(&self.x, cols), Matrix::new(&self.turned, rank));
        dense_product(on.cpu, on.pool, x, turned, &mut self.low, rank, false);
        self.low.iter_mut().for_each(|low| *low *= scale);
    }
}

/// `x (rows, cols)` on its side.
fn turn(on: Machine, x: &[f32], cols: usize, out: &mut Vec<f32>) {
    out.resize(x.len(), 0.0);
    transpose(on.cpu, Matrix::new(x, cols), out, x.len() / cols);
}

/// Adds to each of the outputs, `(rows, outputs)`, what its adapter says, where it has one.
pub fn forward<const N: usize>(
    on: Machine,
    params: &[f32],
    pairs: [Option<&Pair>; N],
    source: Source,
    outs: [&mut [f32]; N],
    room: &mut Room,
) {
    if pairs.iter().all(Option::is_none) {
        return;
    }
    room.take(on, source);
    for (pair, out) in pairs.into_iter().zip(outs) {
        let Some(Pair { a, b, scale }) = pair else { continue };
        let (a, b) = (&params[a.clone()], &params[b.clone()]);
        room.narrow(on, a, source.cols, *scale);
        let rank = a.len() / source.cols;
        turn(on, b, rank, &mut room.turned);
        let outputs = b.len() / rank;
        let (low, turned) = (Matrix::new(&room.low, rank), Matrix::new(&room.turned, outputs));
        dense_product(on.cpu, on.pool, low, turned, out, outputs, true);
    }
}

/// `dB = gᵀ (s x Aᵀ)`, `dA = (s g B)ᵀ x`, and `dx += s g B A` for each of the outputs that has an adapter.
#[expect(clippy::too_many_arguments, reason = "an operation with two outputs")]
pub fn backward<const N: usize>(
    on: Machine,
    params: &[f32],
    pairs: [Option<&Pair>; N],
    source: Source,
    gs: [&[f32]; N],
    grads: &mut [f32],
    dx: &mut [f32],
    room: &mut Room,
) {
    if pairs.iter().all(Option::is_none) {
        return;
    }
    let (Machine { cpu, pool }, cols) = (on, source.cols);
    room.take(on, source);
    for (pair, g) in pairs.into_iter().zip(gs) {
        let Some(Pair { a, b, scale }) = pair else { continue };
        let (at_a, at_b) = (a.clone(), b.clone());
        let (a, b) = (&params[at_a.clone()], &params[at_b.clone()]);
        room.narrow(on, a, cols, *scale);
        let rank = a.len() / cols;
        let g = Matrix::new(g, b.len() / rank);
        dense_product(cpu, pool, g.transposed(), Matrix::new(&room.low, rank), &mut grads[at_b], rank, false);
        room.back.resize(room.low.len(), 0.0);
        dense_product(cpu, pool, g, Matrix::new(b, rank), &mut room.back, rank, false);
        room.back.iter_mut().for_each(|back| *back *= scale);
        let back = Matrix::new(&room.back, rank);
        dense_product(
            cpu,
            pool,
            back.transposed(),
            Matrix::new(&room.x, cols),
            &mut grads[at_a],
            cols,
            false,
        );
        dense_product(cpu, pool, back, Matrix::new(a, cols), dx, cols, true);
    }
}
