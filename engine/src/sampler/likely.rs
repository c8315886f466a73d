//! How likely tokens are before any setting: what a client is told beside the text, and what evaluation measures.

use tern_kernels::exp;

/// Numbers that are taken side by side.
const LANES: usize = 16;

/// The largest of some logits; minus infinity if there are none.
fn largest(logits: &[f32]) -> f32 {
    let mut tops = [f32::NEG_INFINITY; LANES];
    let (pieces, rest) = logits.as_chunks::<LANES>();
    for piece in pieces {
        tops.iter_mut().zip(piece).for_each(|(top, logit)| *top = if *logit > *top { *logit } else { *top });
    }
    tops.iter().chain(rest).fold(f32::NEG_INFINITY, |top, &logit| top.max(logit))
}

/// The likeliest token, the lowest id among equals; `None` if there are no logits.
pub fn likeliest(logits: &[f32]) -> Option<u32> {
    let top = largest(logits);
    logits.iter().position(|&logit| logit == top).map(|id| id as u32)
}

/// The logarithm of the sum of exponentials of logits: what makes probabilities of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogSum {
    top: f32,
    best: u32,
    log_sum: f64,
}

impl LogSum {
    /// Of the logits of all tokens. Sixteen sums in f64, so that neither the vocabulary's size nor a thread changes the result.
    pub fn of(logits: &[f32]) -> Self {
        let (top, mut sums) = (largest(logits), [0f64; LANES]);
        let (pieces, rest) = logits.as_chunks::<LANES>();
        for piece in pieces {
            let mut powers = [0f32; LANES];
            powers.iter_mut().zip(piece).for_each(|(power, logit)| *power = exp(logit - top));
            sums.iter_mut().zip(powers).for_each(|(sum, power)| *sum += f64::from(power));
        }
        let rest: f64 = rest.iter().map(|logit| f64::from(exp(logit - top))).sum();
        let best = logits.iter().position(|&logit| logit == top).unwrap_or(0) as u32;
        Self { top, best, log_sum: (sums.iter().sum::<f64>() + rest).ln() }
    }

    /// The natural logarithm of the probability of a token with this logit.
    pub fn logprob(&self, logit: f32) -> f64 {
        f64::from(logit - self.top) - self.log_sum
    }

    /// The likeliest token, the lowest id among equals.
    pub fn best(&self) -> u32 {
        self.best
    }
}

/// The `k` likeliest tokens with their logits, the lower id first among equals.
pub(crate) fn top(logits: &[f32], k: usize) -> Vec<(f32, u32)> {
    let mut best: Vec<(f32, u32)> = Vec::with_capacity(k + 1);
    for (&logit, id) in logits.iter().zip(0..) {
        if best.len() < k || best.last().is_some_and(|worst| logit > worst.0) {
            let at = best.partition_point(|better| better.0 >= logit);
            best.insert(at, (logit, id));
            best.truncate(k);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_lowest_id_comes_first_among_equals() {
        let mut logits = vec![0.5, 2.0, -1.0, 2.0, 0.0];
        assert_eq!(top(&logits, 3), [(2.0, 1), (2.0, 3), (0.5, 0)]);
        assert_eq!(top(&logits, 9).len(), 5);
        assert_eq!(top(&logits, 0), []);
        assert_eq!((likeliest(&logits), LogSum::of(&logits).best()), (Some(1), 1));
        logits.resize(40, 2.0);
        logits[37] = 3.0;
        assert_eq!(
            (likeliest(&logits), likeliest(&[f32::NEG_INFINITY; 3]), likeliest(&[])),
            (Some(37), Some(0), None)
        );
    }

    proptest! {
        #[test]
        fn log_probabilities_sum_to_one(logits in proptest::collection::vec(-30f32..30.0, 1..100)) {
            let all = LogSum::of(&logits);
            let sum: f64 = logits.iter().map(|&logit| all.logprob(logit).exp()).sum();
            prop_assert!((sum - 1.0).abs() < 1e-4);
        }
    }
}
