//! How likely tokens are before any setting: what a client is told beside the text.

use tern_kernels::exp;

/// Logarithms of probabilities, from all logits.
pub(crate) struct LogProbabilities<'a> {
    logits: &'a [f32],
    top: f32,
    log_total: f64,
}

impl<'a> LogProbabilities<'a> {
    pub(crate) fn new(logits: &'a [f32]) -> Self {
        let top = logits.iter().fold(f32::NEG_INFINITY, |top, &logit| top.max(logit));
        let total: f64 = logits.iter().map(|logit| f64::from(exp(logit - top))).sum();
        Self { logits, top, log_total: total.ln() }
    }

    /// The natural logarithm of the probability of `id`.
    pub(crate) fn of(&self, id: u32) -> f32 {
        (f64::from(self.logits[id as usize] - self.top) - self.log_total) as f32
    }

    /// The `k` likeliest tokens with theirs, the lower id first among equals.
    pub(crate) fn top(&self, k: usize) -> Vec<(u32, f32)> {
        let mut best: Vec<(f32, u32)> = Vec::with_capacity(k + 1);
        for (&logit, id) in self.logits.iter().zip(0..) {
            if best.len() < k || best.last().is_some_and(|worst| logit > worst.0) {
                let at = best.partition_point(|better| better.0 >= logit);
                best.insert(at, (logit, id));
                best.truncate(k);
            }
        }
        best.into_iter().map(|(_, id)| (id, self.of(id))).collect()
    }
}

/// The natural logarithm of the probability of `id`.
pub(crate) fn log_probability(logits: &[f32], id: u32) -> f32 {
    LogProbabilities::new(logits).of(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_likeliest_come_with_the_same_float() {
        let logits = [0.5, 2.0, -1.0, 2.0, 0.0];
        let all = LogProbabilities::new(&logits);
        assert_eq!(all.top(3), [(1, all.of(1)), (3, all.of(3)), (0, all.of(0))]);
        assert_eq!(all.top(9).len(), 5);
        assert_eq!(all.top(0), []);
    }

    proptest! {
        #[test]
        fn log_probabilities_sum_to_one(logits in proptest::collection::vec(-30f32..30.0, 1..100)) {
            let sum: f64 = (0..logits.len()).map(|id| f64::from(log_probability(&logits, id as u32)).exp()).sum();
            prop_assert!((sum - 1.0).abs() < 1e-4);
        }
    }
}
