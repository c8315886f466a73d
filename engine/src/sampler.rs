//! From logits to a token: pure functions of logits, history and a random number.
//!
//! The order is fixed: penalties, bias, what a grammar allows, top-k, temperature, then the filters top-p and min-p, each
//! on the probabilities that the one before left, then the draw. Temperature 0 takes the largest logit, the lowest id among
//! equals.

use tern_kernels::exp;

use crate::error::{Error, Result};
use crate::head::Logits;

/// How tokens are chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 is greedy.
    pub temperature: f32,
    /// Keeps the k likeliest; 0 keeps all.
    pub top_k: usize,
    /// Keeps the likeliest whose probabilities reach this sum; 1 keeps all.
    pub top_p: f32,
    /// Keeps those at least this share as likely as the likeliest; 0 keeps all.
    pub min_p: f32,
    /// Makes tokens of the text so far less likely; 1 changes nothing.
    pub repeat_penalty: f32,
    /// Taken off the logit of every token that was said already.
    pub presence_penalty: f32,
    /// Taken off the logit of a token as often as it was said already.
    pub frequency_penalty: f32,
    /// Added to the logits of these tokens.
    pub logit_bias: Vec<(u32, f32)>,
    /// Start of the random numbers: the same seed gives the same text.
    pub seed: u64,
}

/// What was there before the token that is chosen.
#[derive(Clone, Copy, Debug)]
pub struct Past<'a> {
    /// All tokens, the prompt too.
    pub tokens: &'a [u32],
    /// How many of the last ones were chosen: those that the presence and frequency penalties count.
    pub said: usize,
}

/// The tokens that a grammar allows: bit `id % 32` of element `id / 32`.
#[derive(Clone, Copy, Debug)]
pub struct Allowed<'a>(pub &'a [u32]);

impl Allowed<'_> {
    /// Whether this token is.
    pub fn has(self, id: u32) -> bool {
        self.0.get(id as usize / 32).is_some_and(|bits| bits >> (id % 32) & 1 == 1)
    }
}

/// Tokens at the end of the text that the repetition penalty looks at.
const PENALTY_WINDOW: usize = 64;

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            repeat_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: 0,
        }
    }
}

impl Sampling {
    /// Always the likeliest token.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    /// The logits that decide the choice: the same token is drawn from these as from all.
    ///
    /// A penalty above 1 pushes down the logits of tokens in its window and leaves the order of the others alone: the
    /// k largest afterwards are among the `k + window` largest before. One below 1 can lift any token.
    pub fn wanted(&self) -> Logits {
        let k = if self.temperature == 0.0 { 1 } else { self.top_k };
        let changed =
            self.presence_penalty != 0.0 || self.frequency_penalty != 0.0 || !self.logit_bias.is_empty();
        match self.repeat_penalty {
            _ if k == 0 || changed => Logits::All,
            1.0 => Logits::Top(k),
            above if above > 1.0 => Logits::Top(k + PENALTY_WINDOW),
            _ => Logits::All,
        }
    }

    /// Says which setting cannot be.
    pub fn check(&self) -> Result<()> {
        let checks = [
            ("temperature", self.temperature, (0.0..=100.0).contains(&self.temperature), "0 to 100"),
            ("top-p", self.top_p, self.top_p > 0.0 && self.top_p <= 1.0, "above 0, up to 1"),
            ("min-p", self.min_p, (0.0..=1.0).contains(&self.min_p), "0 to 1"),
            (
                "repeat-penalty",
                self.repeat_penalty,
                (0.01..=100.0).contains(&self.repeat_penalty),
                "0.01 to 100",
            ),
            (
                "presence penalty",
                self.presence_penalty,
                (-100.0..=100.0).contains(&self.presence_penalty),
                "-100 to 100",
            ),
            (
                "frequency penalty",
                self.frequency_penalty,
                (-100.0..=100.0).contains(&self.frequency_penalty),
                "-100 to 100",
            ),
        ];
        match checks.iter().find(|(_, _, good, _)| !good) {
            Some((name, value, _, expected)) => {
                Err(Error::Input(format!("{name} {value}: expected {expected}")))
            }
            None => match self.logit_bias.iter().find(|(_, bias)| bias.is_nan()) {
                Some((id, _)) => Err(Error::Input(format!("bias of token {id}: expected a number"))),
                None => Ok(()),
            },
        }
    }
}

/// Chooses tokens; holds the state of the random numbers.
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    state: u64,
    /// Logit and id of the candidates, kept from one draw to the next.
    candidates: Vec<(f32, u32)>,
}

impl Sampler {
    /// A sampler; the settings must be possible.
    pub fn new(sampling: Sampling) -> Result<Self> {
        sampling.check()?;
        let state = sampling.seed;
        Ok(Self { sampling, state, candidates: Vec::new() })
    }

    /// The next token after `history`.
    pub fn choose(&mut self, logits: &[f32], history: &[u32]) -> u32 {
        self.pick(logits, Past { tokens: history, said: 0 }, None).expect("every token is allowed")
    }

    /// The next token among those that are allowed; `None` if none is.
    pub fn pick(&mut self, logits: &[f32], past: Past<'_>, allowed: Option<Allowed<'_>>) -> Option<u32> {
        self.penalise(logits, past);
        if let Some(allowed) = allowed {
            self.candidates.retain(|(_, id)| allowed.has(*id));
        }
        let (first, rest) = self.candidates.split_first()?;
        if self.sampling.temperature == 0.0 {
            return Some(rest.iter().fold(first, |best, next| if next.0 > best.0 { next } else { best }).1);
        }
        Some(self.draw())
    }

    fn draw(&mut self) -> u32 {
        // Before the division, which may make equals of different logits: the k kept are the k likeliest.
        keep_top_k(&mut self.candidates, self.sampling.top_k);
        let temperature = self.sampling.temperature;
        self.candidates.iter_mut().for_each(|(logit, _)| *logit /= temperature);
        let top = self.candidates[0].0;
        let mut weights: Vec<f32> = self.candidates.iter().map(|(logit, _)| exp(logit - top)).collect();
        keep_top_p(&mut weights, self.sampling.top_p);
        keep_min_p(&mut weights, self.sampling.min_p);
        let total: f32 = weights.iter().sum();
        let mut point = self.random() * total;
        for (weight, (_, id)) in weights.iter().zip(&self.candidates) {
            point -= weight;
            if point < 0.0 {
                return *id;
            }
        }
        self.candidates[weights.len() - 1].1
    }

    /// Fills the candidates with the logits after penalties and bias.
    fn penalise(&mut self, logits: &[f32], past: Past<'_>) {
        let Sampling { repeat_penalty, presence_penalty, frequency_penalty, .. } = self.sampling;
        self.candidates.clear();
        self.candidates.extend(logits.iter().copied().zip(0..));
        if repeat_penalty != 1.0 {
            let mut recent = past.tokens[past.tokens.len().saturating_sub(PENALTY_WINDOW)..].to_vec();
            recent.sort_unstable();
            recent.dedup();
            for id in recent {
                let logit = &mut self.candidates[id as usize].0;
                // Towards less likely on both sides of zero.
                *logit = if *logit > 0.0 { *logit / repeat_penalty } else { *logit * repeat_penalty };
            }
        }
        if presence_penalty != 0.0 || frequency_penalty != 0.0 {
            let mut said = past.tokens[past.tokens.len() - past.said..].to_vec();
            said.sort_unstable();
            for same in said.chunk_by(|a, b| a == b) {
                self.candidates[same[0] as usize].0 -=
                    presence_penalty + frequency_penalty * same.len() as f32;
            }
        }
        for (id, bias) in &self.sampling.logit_bias {
            if let Some(candidate) = self.candidates.get_mut(*id as usize) {
                candidate.0 += bias;
            }
        }
    }

    /// A number in 0..1: the upper bits of splitmix64 (Steele, Lea and Flood, 2014).
    fn random(&mut self) -> f32 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u32 << 24) as f32
    }
}

/// Sorts by falling logit, equals by rising id, and drops all but the first `k` (0: drops none).
fn keep_top_k(candidates: &mut Vec<(f32, u32)>, k: usize) {
    let order = |a: &(f32, u32), b: &(f32, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
    if k > 0 && k < candidates.len() {
        candidates.select_nth_unstable_by(k - 1, order);
        candidates.truncate(k);
    }
    candidates.sort_unstable_by(order);
}

/// Of falling weights keeps the fewest whose sum reaches the share `p`.
fn keep_top_p(weights: &mut Vec<f32>, p: f32) {
    if p >= 1.0 {
        return;
    }
    let bound = weights.iter().sum::<f32>() * p;
    let mut sum = 0.0;
    let enough = weights.iter().position(|weight| {
        sum += weight;
        sum >= bound
    });
    if let Some(last) = enough {
        weights.truncate(last + 1);
    }
}

/// Of falling weights keeps those of at least `p` times the first.
fn keep_min_p(weights: &mut Vec<f32>, p: f32) {
    let bound = weights[0] * p;
    let keep = weights.iter().take_while(|weight| **weight >= bound).count();
    weights.truncate(keep.max(1));
}

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

    fn choose(sampling: Sampling, logits: &[f32], history: &[u32]) -> u32 {
        Sampler::new(sampling).unwrap().choose(logits, history)
    }

    /// All ids that come up in many draws.
    fn drawn(sampling: Sampling, logits: &[f32]) -> Vec<u32> {
        let mut sampler = Sampler::new(sampling).unwrap();
        let mut ids: Vec<u32> = (0..2000).map(|_| sampler.choose(logits, &[])).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    fn open() -> Sampling {
        Sampling { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 7, ..Sampling::default() }
    }

    #[test]
    fn greedy_takes_the_lowest_id_among_equals() {
        assert_eq!(choose(Sampling::greedy(), &[1.0, 3.0, 3.0, 2.0], &[]), 1);
    }

    #[test]
    fn filters_keep_what_they_say() {
        let logits = [0.5f32, 0.3, 0.15, 0.05].map(f32::ln);
        assert_eq!(drawn(open(), &logits), [0, 1, 2, 3]);
        assert_eq!(drawn(Sampling { top_k: 2, ..open() }, &logits), [0, 1]);
        assert_eq!(drawn(Sampling { top_p: 0.6, ..open() }, &logits), [0, 1]);
        assert_eq!(drawn(Sampling { min_p: 0.2, ..open() }, &logits), [0, 1, 2]);
    }

    #[test]
    fn a_penalty_turns_the_choice_away_from_the_text() {
        let greedy = Sampling { repeat_penalty: 2.0, ..Sampling::greedy() };
        assert_eq!(choose(greedy.clone(), &[3.0, 2.0], &[0]), 1);
        assert_eq!(choose(greedy, &[-1.0, -1.5], &[0]), 1);
    }

    #[test]
    fn what_was_said_costs_once_and_by_count() {
        let pick = |sampling, tokens: &[u32], said| {
            Sampler::new(sampling).unwrap().pick(&[3.0, 2.0, 1.0], Past { tokens, said }, None)
        };
        let presence = Sampling { presence_penalty: 1.5, ..Sampling::greedy() };
        assert_eq!(pick(presence.clone(), &[0, 0], 0), Some(0), "the prompt does not count");
        assert_eq!(pick(presence.clone(), &[0], 1), Some(1));
        assert_eq!(pick(presence, &[0, 0, 1], 3), Some(0), "it counts once");
        let frequency = Sampling { frequency_penalty: 0.9, ..Sampling::greedy() };
        assert_eq!(pick(frequency.clone(), &[0], 1), Some(0));
        assert_eq!(pick(frequency, &[0, 0, 1], 3), Some(0));
        let bias = Sampling { logit_bias: vec![(2, 5.0), (9, 1.0)], ..Sampling::greedy() };
        assert_eq!(pick(bias, &[], 0), Some(2));
    }

    #[test]
    fn only_allowed_tokens_are_chosen() {
        let logits: Vec<f32> = (0..40).map(|i| i as f32 / 10.0).collect();
        let bits = [1 << 3, 1 << 1];
        for sampling in [Sampling::greedy(), open(), Sampling::default()] {
            let mut sampler = Sampler::new(sampling).unwrap();
            let past = Past { tokens: &[], said: 0 };
            for _ in 0..50 {
                let id = sampler.pick(&logits, past, Some(Allowed(&bits))).unwrap();
                assert!(id == 3 || id == 33, "{id}");
            }
            assert_eq!(sampler.pick(&logits, past, Some(Allowed(&[]))), None);
        }
    }

    #[test]
    fn the_likeliest_come_with_the_same_float() {
        let logits = [0.5, 2.0, -1.0, 2.0, 0.0];
        let all = LogProbabilities::new(&logits);
        assert_eq!(all.top(3), [(1, all.of(1)), (3, all.of(3)), (0, all.of(0))]);
        assert_eq!(all.top(9).len(), 5);
        assert_eq!(all.top(0), []);
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let mut sampler = Sampler::new(open()).unwrap();
        let logits = [0.7f32.ln(), 0.3f32.ln()];
        let ones = (0..20_000).filter(|_| sampler.choose(&logits, &[]) == 1).count();
        assert!((5_600..6_400).contains(&ones), "{ones}");
    }

    #[test]
    fn impossible_settings_are_named() {
        for bad in [-1.0, f32::NAN, f32::INFINITY] {
            let error = Sampler::new(Sampling { temperature: bad, ..open() }).unwrap_err().to_string();
            assert!(error.starts_with("temperature"), "{error}");
        }
        assert!(Sampler::new(Sampling { top_p: 0.0, ..open() }).is_err());
        assert!(Sampler::new(Sampling { min_p: 1.5, ..open() }).is_err());
    }

    proptest! {
        #[test]
        fn every_setting_gives_a_token_and_the_same_one_again(
            logits in proptest::collection::vec(-50f32..50.0, 1..200),
            temperature in 0f32..5.0, top_k in 0usize..50, top_p in 0.01f32..=1.0, min_p in 0f32..=1.0, seed: u64,
        ) {
            let sampling = Sampling { temperature, top_k, top_p, min_p, repeat_penalty: 1.1, seed, ..Sampling::default() };
            let id = choose(sampling.clone(), &logits, &[0]);
            prop_assert!((id as usize) < logits.len());
            prop_assert_eq!(choose(sampling, &logits, &[0]), id);
        }

        #[test]
        fn log_probabilities_sum_to_one(logits in proptest::collection::vec(-30f32..30.0, 1..100)) {
            let sum: f64 = (0..logits.len()).map(|id| f64::from(log_probability(&logits, id as u32)).exp()).sum();
            prop_assert!((sum - 1.0).abs() < 1e-4);
        }
    }
}
