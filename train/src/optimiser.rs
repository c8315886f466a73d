//! AdamW, and the norm that gradients are clipped by.

use crate::ops::{Machine, PIECE};

/// What stays the same all through training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Decay of the mean of gradients.
    pub beta1: f32,
    /// Decay of the mean of their squares.
    pub beta2: f32,
    /// Keeps the root from zero.
    pub eps: f32,
}

/// What changes from step to step, and from slice to slice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// Learning rate.
    pub rate: f32,
    /// Weight decay, times the rate.
    pub decay: f32,
    /// What gradients are multiplied by first.
    pub clip: f32,
    /// Steps done, this one counted in.
    pub step: u64,
}

/// `Σ g²` in f64.
pub fn squares(on: Machine, g: &[f32]) -> f64 {
    on.sum_of_pieces(g, PIECE, |g| g * g)
}

impl AdamW {
    /// One step: `m` and `v` are the moving means of `clip g` and of its square,
    /// `w -= rate * (m' / (sqrt(v') + eps) + decay * w)` with m', v' freed of their start from 0.
    pub fn step(&self, on: Machine, rates: Rates, w: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]) {
        let Self { beta1, beta2, eps } = *self;
        let power = |beta: f32| 1.0 - f64::from(beta).powi(i32::try_from(rates.step).unwrap_or(i32::MAX));
        let (first, second) = ((1.0 / power(beta1)) as f32, (1.0 / power(beta2).sqrt()) as f32);
        let Rates { rate, decay, clip, .. } = rates;
        let (slide, keep) = (rate * first, 1.0 - rate * decay);
        on.pool.for_rows([(w, PIECE), (m, PIECE), (v, PIECE)], |index, [w, m, v]| {
            let g = &g[index * PIECE..][..w.len()];
            on.cpu.vectorised(
                #[inline(always)]
                || {
                    let (m, v) = (&mut m[..w.len()], &mut v[..w.len()]);
                    for i in 0..w.len() {
                        let g = g[i] * clip;
                        m[i] = beta1 * m[i] + (1.0 - beta1) * g;
                        v[i] = beta2 * v[i] + (1.0 - beta2) * g * g;
                        w[i] = w[i] * keep - slide * m[i] / (v[i].sqrt() * second + eps);
                    }
                },
            );
        });
    }
}
