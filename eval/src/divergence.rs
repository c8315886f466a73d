//! How far two sets of logits are apart: what "lossless" means, measured.

use crate::score::Summary;
use tern::LogSum;

/// Two models' opinions of the same position.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Apart {
    /// Kullback-Leibler divergence of the second's probabilities from the first's, in nats.
    pub kl: f64,
    /// Both have the same likeliest token.
    pub agree: bool,
    /// The largest difference of two logits.
    pub largest: f32,
    /// Every bit of every logit is the same.
    pub identical: bool,
}

impl Apart {
    /// Of the logits of one position.
    pub fn of(a: &[f32], b: &[f32]) -> Self {
        assert_eq!(a.len(), b.len(), "logits of two vocabularies");
        let (one, two) = (LogSum::of(a), LogSum::of(b));
        let (mut kl, mut largest, mut identical) = (0f64, 0f32, true);
        for (&a, &b) in a.iter().zip(b) {
            let of_a = one.logprob(a);
            kl += of_a.exp() * (of_a - two.logprob(b));
            largest = largest.max((a - b).abs());
            identical &= a.to_bits() == b.to_bits();
        }
        // What is left below zero is rounding.
        Self {
            kl: if identical { 0.0 } else { kl.max(0.0) },
            agree: one.best() == two.best(),
            largest,
            identical,
        }
    }
}

/// Over many positions.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Divergence {
    /// Positions.
    pub tokens: usize,
    /// Sum of their divergences.
    pub kl: f64,
    /// Sum of the squares.
    pub squares: f64,
    /// The largest of them.
    pub largest_kl: f64,
    /// Positions with the same likeliest token.
    pub agree: usize,
    /// Positions whose logits are bit for bit the same.
    pub identical: usize,
    /// The largest difference of two logits.
    pub largest: f32,
    /// How the first predicts the text, and the second.
    pub predict: [Summary; 2],
}

impl Divergence {
    /// Counts a position and how likely the two thought what came next.
    pub fn add(&mut self, apart: Apart, logprobs: [f64; 2]) {
        self.tokens += 1;
        self.kl += apart.kl;
        self.squares += apart.kl * apart.kl;
        self.largest_kl = self.largest_kl.max(apart.kl);
        self.agree += usize::from(apart.agree);
        self.identical += usize::from(apart.identical);
        self.largest = self.largest.max(apart.largest);
        self.predict.iter_mut().zip(logprobs).for_each(|(sum, logprob)| sum.add(logprob));
    }

    /// Mean divergence and its standard error.
    pub fn mean(&self) -> (f64, f64) {
        let n = self.tokens as f64;
        let mean = self.kl / n;
        (mean, ((self.squares / n - mean * mean).max(0.0) / (n - 1.0)).sqrt())
    }
}

#[cfg(test)]
mod tests {
    use super::Apart;

    #[test]
    fn divergence_is_zero_for_the_same_and_right_for_two_coins() {
        let a = [0.9f32.ln(), 0.1f32.ln()];
        let b = [0.5f32.ln(), 0.5f32.ln()];
        let same = Apart::of(&a, &a);
        assert!(same.identical && same.agree && same.kl == 0.0 && same.largest == 0.0);
        let apart = Apart::of(&a, &b);
        let want = 0.9 * (0.9f64 / 0.5).ln() + 0.1 * (0.1f64 / 0.5).ln();
        assert!((apart.kl - want).abs() < 1e-6 && !apart.identical, "{apart:?}");
        // A constant added to all logits changes no probability.
        let shifted = Apart::of(&a, &a.map(|x| x + 1.0));
        assert!(shifted.kl < 1e-6 && shifted.agree && shifted.largest > 0.9);
    }
}
