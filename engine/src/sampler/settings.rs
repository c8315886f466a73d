//! What can be set about the choice of a token, and within which limits.

use std::sync::Arc;

use super::PENALTY_WINDOW;
use crate::error::{Error, Result};
use crate::head::Logits;
use crate::tokenizer::Tokenizer;

/// How tokens are chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 is greedy.
    pub temperature: f32,
    /// Keeps the k likeliest; 0 keeps all.
    pub top_k: usize,
    /// Keeps the tokens whose surprise is nearest to what is expected, until their probabilities reach this sum; 1 keeps
    /// all.
    pub typical: f32,
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
    /// Against sequences that were there already.
    pub dry: Dry,
    /// Added to the logits of these tokens.
    pub logit_bias: Vec<(u32, f32)>,
    /// Start of the random numbers: the same seed gives the same text.
    pub seed: u64,
}

/// "Don't repeat yourself": where the text ends in `n` tokens that it had before, what followed then costs
/// `multiplier * base^(n - allowed)`, from `n = allowed` on.
#[derive(Clone, Debug, PartialEq)]
pub struct Dry {
    /// The cost of the first length that has one; 0 switches it off.
    pub multiplier: f32,
    /// Times which it grows with every further token.
    pub base: f32,
    /// The shortest repeated sequence whose continuation costs something.
    pub allowed: usize,
    /// Tokens at the end of the text that it looks at.
    pub range: usize,
    /// Tokens no sequence goes across, in rising order; none of them is made less likely. See [`Dry::breakers`].
    pub breakers: Arc<[u32]>,
}

impl Dry {
    /// The usual texts that end sequences.
    pub const BREAKERS: [&str; 4] = ["\n", ":", "\"", "*"];

    /// The tokens that contain one of these texts, and all that stand for no text: a chat's marks always repeat.
    pub fn breakers(tokenizer: &Tokenizer, texts: &[impl AsRef<str>]) -> Arc<[u32]> {
        let breaks = |id: &u32| match tokenizer.token_bytes(*id) {
            Some((bytes, false)) => texts.iter().any(|text| {
                let text = text.as_ref().as_bytes();
                !text.is_empty() && bytes.windows(text.len()).any(|part| part == text)
            }),
            Some((_, true)) => true,
            None => false,
        };
        (0..tokenizer.size() as u32).filter(breaks).collect()
    }
}

impl Default for Dry {
    fn default() -> Self {
        Self { multiplier: 0.0, base: 1.75, allowed: 2, range: usize::MAX, breakers: Arc::default() }
    }
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.8,
            top_k: 40,
            typical: 1.0,
            top_p: 0.95,
            min_p: 0.05,
            repeat_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            dry: Dry::default(),
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
    /// A repetition penalty above 1 pushes down the logits of tokens in its window and leaves the order of the others
    /// alone: the k largest afterwards are among the `k + window` largest before. One below 1 can lift any token.
    pub fn wanted(&self) -> Logits {
        let k = if self.temperature == 0.0 { 1 } else { self.top_k };
        let changed = self.presence_penalty != 0.0
            || self.frequency_penalty != 0.0
            || self.dry.multiplier != 0.0
            || !self.logit_bias.is_empty();
        match self.repeat_penalty {
            _ if k == 0 || changed => Logits::All,
            1.0 => Logits::Top(k),
            above if above > 1.0 => Logits::Top(k + PENALTY_WINDOW),
            _ => Logits::All,
        }
    }

    /// Says which setting cannot be.
    pub fn check(&self) -> Result<()> {
        let share = |x: f32| x > 0.0 && x <= 1.0;
        let within = |x: f32, most: f32| (-most..=most).contains(&x);
        let checks = [
            ("temperature", self.temperature, (0.0..=100.0).contains(&self.temperature), "0 to 100"),
            ("typical", self.typical, share(self.typical), "above 0, up to 1"),
            ("top-p", self.top_p, share(self.top_p), "above 0, up to 1"),
            ("min-p", self.min_p, (0.0..=1.0).contains(&self.min_p), "0 to 1"),
            (
                "repeat-penalty",
                self.repeat_penalty,
                (0.01..=100.0).contains(&self.repeat_penalty),
                "0.01 to 100",
            ),
            ("presence penalty", self.presence_penalty, within(self.presence_penalty, 100.0), "-100 to 100"),
            (
                "frequency penalty",
                self.frequency_penalty,
                within(self.frequency_penalty, 100.0),
                "-100 to 100",
            ),
            ("DRY multiplier", self.dry.multiplier, (0.0..=100.0).contains(&self.dry.multiplier), "0 to 100"),
            ("DRY base", self.dry.base, (1.0..=100.0).contains(&self.dry.base), "1 to 100"),
        ];
        match checks.iter().find(|(_, _, good, _)| !good) {
            Some((name, value, _, expected)) => {
                Err(Error::Input(format!("{name} {value}: expected {expected}")))
            }
            None if self.dry.allowed == 0 => {
                Err(Error::Input("DRY allowed length 0: expected at least 1".to_owned()))
            }
            None => match self.logit_bias.iter().find(|(_, bias)| !within(*bias, 100.0)) {
                Some((id, _)) => Err(Error::Input(format!("bias of token {id}: expected -100 to 100"))),
                None => Ok(()),
            },
        }
    }
}
