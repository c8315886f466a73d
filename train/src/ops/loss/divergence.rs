//! What a student learns of a teacher's logits: beside the cross-entropy, `kl τ² KL(softmax(t / τ) ‖ softmax(z / τ))`.

use tern_kernels::exp;

use super::{NONE, RowLoss};

/// How much a teacher's logits count, and what softens them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weight {
    /// What the divergence is multiplied by.
    pub kl: f32,
    /// What logits of both sides are divided by, `τ`.
    pub temperature: f32,
}

/// A teacher's likeliest tokens of some rows at a temperature; what is left is one token more.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tops {
    /// How many of each row.
    pub count: usize,
    /// `(rows, count)`.
    pub tokens: Vec<u32>,
    /// `(rows, count)`, logarithms of their probabilities.
    pub logs: Vec<f32>,
    /// `(rows)`, the probability of all others together.
    pub rest: Vec<f32>,
}

impl Tops {
    /// One row: tokens, logarithms, the rest.
    pub(super) fn row(&self, row: usize) -> (&[u32], &[f32], f32) {
        let at = row * self.count..(row + 1) * self.count;
        (&self.tokens[at.clone()], &self.logs[at], self.rest[row])
    }
}

/// The largest of some logits, to be taken off all of them.
#[inline(always)]
fn largest(z: &[f32]) -> f32 {
    let mut tops = [f32::NEG_INFINITY; 16];
    let (chunks, rest) = z.as_chunks::<16>();
    for chunk in chunks {
        for i in 0..16 {
            tops[i] = tops[i].max(chunk[i]);
        }
    }
    rest.iter().chain(&tops).fold(f32::NEG_INFINITY, |top, x| top.max(*x))
}

/// `Σ f(i)` over 16 lanes, of several sums at once.
#[inline(always)]
pub(in crate::ops) fn sums<const N: usize>(len: usize, mut f: impl FnMut(usize) -> [f32; N]) -> [f32; N] {
    let mut lanes = [[0f32; 16]; N];
    let whole = len / 16 * 16;
    for start in (0..whole).step_by(16) {
        for i in 0..16 {
            let values = f(start + i);
            for n in 0..N {
                lanes[n][i] += values[n];
            }
        }
    }
    let mut total = lanes.map(|lanes| lanes.iter().sum::<f32>());
    for i in whole..len {
        let values = f(i);
        for n in 0..N {
            total[n] += values[n];
        }
    }
    total
}

/// Logits `z` become `factor` times the gradient of both losses; of the teacher's logits `t` nothing is left.
#[inline(always)]
pub(super) fn row(z: &mut [f32], t: &mut [f32], target: u32, factor: f32, weight: Weight) -> RowLoss {
    if target == NONE {
        z.fill(0.0);
        return RowLoss::default();
    }
    let Weight { kl, temperature } = weight;
    let inverse = 1.0 / temperature;
    let (top, top_t) = (largest(z), largest(t));
    let wanted = z[target as usize];
    let likeliest = z.iter().position(|x| *x == top).unwrap_or_default() as u32;
    let (len, t) = (z.len(), &mut t[..z.len()]);
    let [sum, sum_q, sum_p, cross] = sums(len, |i| {
        let (mine, theirs) = ((z[i] - top) * inverse, (t[i] - top_t) * inverse);
        let p = exp(theirs);
        t[i] = p;
        [exp(z[i] - top), exp(mine), p, p * (theirs - mine)]
    });
    let divergence = cross / sum_p - sum_p.ln() + sum_q.ln();
    let (own, pull) = (factor / sum, factor * kl * temperature);
    let (of_q, of_p) = (pull / sum_q, pull / sum_p);
    for i in 0..len {
        let mine = (z[i] - top) * inverse;
        z[i] = own * exp(z[i] - top) + (of_q * exp(mine) - of_p * t[i]);
    }
    z[target as usize] -= factor;
    let divergence = divergence * temperature * temperature;
    RowLoss { loss: sum.ln() + top - wanted, top: likeliest, divergence }
}

/// The same where only the likeliest tokens of the teacher are known; `room` is as long as `z`.
#[inline(always)]
pub(super) fn row_of_tops(
    z: &mut [f32],
    room: &mut [f32],
    tops: (&[u32], &[f32], f32),
    target: u32,
    factor: f32,
    weight: Weight,
) -> RowLoss {
    if target == NONE {
        z.fill(0.0);
        return RowLoss::default();
    }
    let Weight { kl, temperature } = weight;
    let (tokens, logs, rest) = tops;
    let inverse = 1.0 / temperature;
    let top = largest(z);
    let wanted = z[target as usize];
    let likeliest = z.iter().position(|x| *x == top).unwrap_or_default() as u32;
    let (len, q) = (z.len(), &mut room[..z.len()]);
    let [sum, sum_q] = sums(len, |i| {
        q[i] = exp((z[i] - top) * inverse);
        [exp(z[i] - top), q[i]]
    });
    let mut divergence = 0.0;
    let log_q = sum_q.ln();
    for (&token, &log) in tokens.iter().zip(logs) {
        let mine = (z[token as usize] - top) * inverse - log_q;
        divergence += exp(log) * (log - mine);
        q[token as usize] = 0.0;
    }
    // What is left of the student, added up without the likeliest: nothing cancels.
    let [left] = sums(len, |i| [q[i]]);
    let left = left / sum_q;
    let has_rest = rest > 0.0 && left > 0.0;
    if has_rest {
        divergence += rest * (rest.ln() - left.ln());
    }
    let (own, pull) = (factor / sum, factor * kl * temperature);
    let keep = if has_rest { pull / sum_q * (1.0 - rest / left) } else { pull / sum_q };
    for i in 0..len {
        q[i] = own * exp(z[i] - top) + keep * q[i];
    }
    for (&token, &log) in tokens.iter().zip(logs) {
        let mine = exp((z[token as usize] - top) * inverse) / sum_q;
        q[token as usize] += pull * (mine - exp(log));
    }
    z.copy_from_slice(q);
    z[target as usize] -= factor;
    let divergence = divergence * temperature * temperature;
    RowLoss { loss: sum.ln() + top - wanted, top: likeliest, divergence }
}
