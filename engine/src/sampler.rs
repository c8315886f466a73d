//! From logits to a token: pure functions of logits, history and a random number, in one order (docs/sampling.md).
//!
//! Penalties change logits: repetition, presence and frequency, DRY, then the bias. What a grammar does not allow goes.
//! Top-k, then the temperature turns what is left into probabilities, and the filters typical, top-p and min-p work each
//! on those that the one before left. Then comes the draw. Temperature 0 takes the largest logit after penalties, bias
//! and grammar, the lowest id among equals.

mod changed;
mod filters;
mod likely;
mod penalties;
mod settings;

use tern_kernels::{Random, exp};

pub(crate) use self::likely::top;
pub use self::likely::{LogSum, likeliest};
pub use self::settings::{Dry, Sampling};

use self::changed::{Changed, Changes};
use self::filters::Candidate;
use crate::error::Result;

/// The context of a choice: the tokens before the one to be chosen.
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

/// A sampler chooses the next token from the logits of a forward pass. It holds the state of the random numbers: the same
/// [`Sampling`] with the same seed chooses the same tokens again. [`Generation`](crate::Generation) and
/// [`Batch`](crate::Batch) hold their own; a caller of [`Model::forward`](crate::Model::forward) makes one.
///
/// ```
/// use tern::{Sampler, Sampling};
///
/// # fn main() -> tern::Result<()> {
/// let logits = [0.1, 2.5, -1.0];
/// assert_eq!(Sampler::new(Sampling::greedy())?.choose(&logits, &[]), 1);
/// let seeded = Sampling { temperature: 0.8, seed: 7, ..Sampling::default() };
/// let mut sampler = Sampler::new(seeded.clone())?;
/// let token = sampler.choose(&logits, &[1, 1]); // after these two tokens
/// assert_eq!(token, Sampler::new(seeded)?.choose(&logits, &[1, 1]));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    random: Random,
    changes: Changes,
    /// Kept from one choice to the next for their memory.
    candidates: Vec<Candidate>,
}

impl Sampler {
    /// Makes a sampler; an error names a setting that cannot be.
    pub fn new(sampling: Sampling) -> Result<Self> {
        sampling.check()?;
        let random = Random(sampling.seed);
        Ok(Self { sampling, random, changes: Changes::default(), candidates: Vec::new() })
    }

    /// Chooses the next token after `history`, all of which counts as prompt: none of it as chosen by the model.
    pub fn choose(&mut self, logits: &[f32], history: &[u32]) -> u32 {
        self.pick(logits, Past { tokens: history, said: 0 }, None).expect("every token is allowed")
    }

    /// Chooses the next token among those that are allowed; `None` if no token is.
    pub fn pick(&mut self, logits: &[f32], past: Past<'_>, allowed: Option<Allowed<'_>>) -> Option<u32> {
        let logits = penalised(&self.sampling, Changed::new(logits, &mut self.changes), past);
        let candidates = logits.iter().filter(|(_, id)| allowed.is_none_or(|allowed| allowed.has(*id)));
        if self.sampling.temperature == 0.0 {
            return match (logits.untouched(), allowed) {
                (Some(all), None) => likeliest(all),
                _ => Some(candidates.reduce(|best, next| if next.0 > best.0 { next } else { best })?.1),
            };
        }
        // Before the division, which may make equals of different logits: the k kept are the k likeliest.
        filters::top_k(&mut self.candidates, candidates, self.sampling.top_k);
        (!self.candidates.is_empty()).then(|| self.draw())
    }

    fn draw(&mut self) -> u32 {
        let Sampling { temperature, typical, top_p, min_p, .. } = self.sampling;
        let top = self.candidates[0].0 / temperature;
        self.candidates.iter_mut().for_each(|(logit, _)| *logit = exp(*logit / temperature - top));
        filters::typical(&mut self.candidates, typical);
        filters::top_p(&mut self.candidates, top_p);
        filters::min_p(&mut self.candidates, min_p);
        let mut point = self.random.unit() * filters::sum(&self.candidates);
        let found = self.candidates.iter().find(|(weight, _)| {
            point -= weight;
            point < 0.0
        });
        found.unwrap_or(&self.candidates[self.candidates.len() - 1]).1
    }
}

/// Logits after all that changes them.
fn penalised<'a>(sampling: &Sampling, mut logits: Changed<'a>, past: Past<'_>) -> Changed<'a> {
    let count = past.tokens.len();
    let (recent, said) = (count.saturating_sub(PENALTY_WINDOW), count - past.said);
    penalties::repeated(&mut logits, &past.tokens[recent..], sampling.repeat_penalty);
    penalties::said(&mut logits, &past.tokens[said..], sampling.presence_penalty, sampling.frequency_penalty);
    penalties::dry(&mut logits, past.tokens, &sampling.dry);
    penalties::bias(&mut logits, &sampling.logit_bias);
    logits
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
        assert_eq!(drawn(Sampling { typical: 0.2, ..open() }, &logits), [1]);
        // Of the two typical ones the first has a share of 0.625.
        assert_eq!(drawn(Sampling { typical: 0.6, top_p: 0.6, ..open() }, &logits), [0]);
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
    }
}
