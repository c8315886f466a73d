//! RMSNorm: `y = w * x * r` with `r = 1 / sqrt(mean(x²) + eps)`.

use tern_kernels::rms_norm;

use super::Machine;

/// Rows whose gradient by the weight is summed by one thread. The order of sums depends on it, and on nothing else.
const ROWS: usize = 32;

/// `y (rows, dim)`. Where a quantiser follows, [`tern_kernels::Activations::quantise`] does both in one pass.
pub fn forward(on: Machine, x: &[f32], w: &[f32], eps: f32, y: &mut [f32]) {
    let len = ROWS * w.len();
    on.pool.for_chunks(y, len, |index, y| rms_norm(on.cpu, &x[index * len..][..y.len()], w, eps, y));
}

/// `dx = r (w g - x r² mean(w g x))`, added to `dx` with `add`; `dw += Σ_rows g x r`. `partial` is scratch.
#[expect(clippy::too_many_arguments, reason = "an operation with two outputs")]
pub fn backward(
    on: Machine,
    x: &[f32],
    w: &[f32],
    eps: f32,
    g: &[f32],
    dx: &mut [f32],
    add: bool,
    dw: &mut [f32],
    partial: &mut Vec<f32>,
) {
    let dim = w.len();
    assert!(x.len() == g.len() && x.len() == dx.len() && dw.len() == dim, "shapes of a norm");
    let len = ROWS * dim;
    partial.clear();
    partial.resize(x.len().div_ceil(len) * dim, 0.0);
    on.pool.for_rows([(dx, len), (&mut partial[..], dim)], |index, [dx, dw]| {
        let rows = dx
            .chunks_exact_mut(dim)
            .zip(x[index * len..].chunks_exact(dim).zip(g[index * len..].chunks_exact(dim)));
        on.cpu.vectorised(
            #[inline(always)]
            || {
                for (dx, (x, g)) in rows {
                    row(x, w, eps, g, dx, add, dw);
                }
            },
        );
    });
    sum_partials(partial, dw);
}

/// Adds up what the threads summed, in order.
pub(crate) fn sum_partials(partial: &[f32], dw: &mut [f32]) {
    for partial in partial.chunks_exact(dw.len()) {
        dw.iter_mut().zip(partial).for_each(|(dw, partial)| *dw += partial);
    }
}

/// `Σ a b c` over 16 lanes.
#[inline(always)]
pub(crate) fn sum3(a: &[f32], b: &[f32], c: &[f32]) -> f32 {
    let mut lanes = [0f32; 16];
    let (a, a_rest) = a.as_chunks::<16>();
    let (b, b_rest) = b.as_chunks::<16>();
    let (c, c_rest) = c.as_chunks::<16>();
    for ((a, b), c) in a.iter().zip(b).zip(c) {
        for i in 0..16 {
            lanes[i] += a[i] * b[i] * c[i];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).zip(c_rest).map(|((a, b), c)| a * b * c).sum();
    lanes.iter().sum::<f32>() + rest
}

/// `Σ a b` over 16 lanes.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0f32; 16];
    let (a, a_rest) = a.as_chunks::<16>();
    let (b, b_rest) = b.as_chunks::<16>();
    for (a, b) in a.iter().zip(b) {
        for i in 0..16 {
            lanes[i] += a[i] * b[i];
        }
    }
    lanes.iter().sum::<f32>() + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f32>()
}

/// `Σ x²`.
#[inline(always)]
pub(crate) fn squares(x: &[f32]) -> f32 {
    dot(x, x)
}

#[inline(always)]
fn row(x: &[f32], w: &[f32], eps: f32, g: &[f32], dx: &mut [f32], add: bool, dw: &mut [f32]) {
    let dim = w.len();
    let (x, g, dx, dw) = (&x[..dim], &g[..dim], &mut dx[..dim], &mut dw[..dim]);
    let r = 1.0 / (squares(x) / dim as f32 + eps).sqrt();
    let along = sum3(w, g, x) / dim as f32 * r * r;
    for i in 0..dim {
        let value = r * (w[i] * g[i] - x[i] * along);
        dx[i] = if add { dx[i] + value } else { value };
        dw[i] += g[i] * x[i] * r;
    }
}
