//! The feed-forward gate and the norm behind it: `h = act(gate) * up`, `y = norm(h)`.

use tern_kernels::{Activation, exp};

use super::Machine;
use super::norm::{squares, sum_partials, sum3};

/// Rows that one thread takes.
const ROWS: usize = 32;

/// `h (rows, hidden)`.
pub fn forward(on: Machine, act: Activation, hidden: usize, gate: &[f32], up: &[f32], h: &mut [f32]) {
    let len = ROWS * hidden;
    on.pool.for_chunks(h, len, |index, h| {
        let (gate, up) = (&gate[index * len..][..h.len()], &up[index * len..][..h.len()]);
        h.copy_from_slice(gate);
        tern_kernels::gate(on.cpu, act, h, up);
    });
}

/// `act(x)` and its derivative.
#[inline(always)]
fn act_both(act: Activation, x: f32) -> (f32, f32) {
    match act {
        Activation::Relu2 => {
            let positive = x.max(0.0);
            (positive * positive, 2.0 * positive)
        }
        Activation::Silu => {
            let s = 1.0 / (1.0 + exp(-x));
            (x * s, s * (1.0 + x * (1.0 - s)))
        }
        Activation::GeluTanh => {
            let s = 1.0 / (1.0 + exp(-1.595_769 * (x + 0.044_715 * (x * x * x))));
            let slope = 1.595_769 * (1.0 + 3.0 * 0.044_715 * (x * x));
            (x * s, s * (1.0 + x * (1.0 - s) * slope))
        }
    }
}

/// A norm's weight and epsilon.
#[derive(Clone, Copy, Debug)]
pub struct SubNorm<'a> {
    /// `(hidden)`.
    pub w: &'a [f32],
    /// Keeps the root from zero.
    pub eps: f32,
}

/// Turns `gate` and `up` into their gradients, from `g` by the normed `h` (by `h` itself without a norm); `dw` as in
/// [`super::norm::backward`].
#[expect(clippy::too_many_arguments, reason = "two operations in one pass over memory")]
pub fn backward(
    on: Machine,
    act: Activation,
    hidden: usize,
    gate: &mut [f32],
    up: &mut [f32],
    norm: Option<SubNorm>,
    g: &[f32],
    dw: &mut [f32],
    partial: &mut Vec<f32>,
) {
    assert!(gate.len() == up.len() && gate.len() == g.len(), "shapes of a gate");
    let len = ROWS * hidden;
    partial.clear();
    partial.resize(gate.len().div_ceil(len) * hidden, 0.0);
    on.pool.for_rows([(gate, len), (up, len), (&mut partial[..], hidden)], |index, [gate, up, dw]| {
        let g = &g[index * len..];
        thread_local! {
            /// `h` and `dh` of a row.
            static ROW: std::cell::RefCell<Vec<f32>> = const { std::cell::RefCell::new(Vec::new()) };
        }
        ROW.with_borrow_mut(|room| {
            room.resize(2 * hidden, 0.0);
            let (h, dh) = room.split_at_mut(hidden);
            let rows =
                gate.chunks_exact_mut(hidden).zip(up.chunks_exact_mut(hidden)).zip(g.chunks_exact(hidden));
            on.cpu.vectorised(
                #[inline(always)]
                || {
                    for ((gate, up), g) in rows {
                        for i in 0..hidden {
                            h[i] = act_both(act, gate[i]).0 * up[i];
                        }
                        match norm {
                            Some(SubNorm { w, eps }) => {
                                let r = 1.0 / (squares(h) / hidden as f32 + eps).sqrt();
                                let along = sum3(w, g, h) / hidden as f32 * r * r;
                                let (w, g, dw) = (&w[..hidden], &g[..hidden], &mut dw[..hidden]);
                                for i in 0..hidden {
                                    dh[i] = r * (w[i] * g[i] - h[i] * along);
                                    dw[i] += g[i] * h[i] * r;
                                }
                            }
                            None => dh.copy_from_slice(g),
                        }
                        for i in 0..hidden {
                            let (value, slope) = act_both(act, gate[i]);
                            gate[i] = dh[i] * up[i] * slope;
                            up[i] = dh[i] * value;
                        }
                    }
                },
            );
        });
    });
    if norm.is_some() {
        sum_partials(partial, dw);
    }
}
