//! The flags that say how the next token is chosen, shared by `run` and `chat`.

use std::hash::{BuildHasher, Hasher};

use clap::Args;
use serde_json::{Value, json};
use tern::Sampling;

use crate::answer::float;

#[derive(Args)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct SamplingArgs {
    /// Randomness: 0 always takes the likeliest token
    #[arg(long, value_name = "T", allow_negative_numbers = true, value_parser = temperature)]
    temp: Option<f32>,
    /// Choose among the K likeliest tokens only; 0 means all
    #[arg(long, value_name = "K", allow_negative_numbers = true, value_parser = top_k)]
    top_k: Option<usize>,
    /// Choose among the likeliest tokens that add up to this probability; 1 means all
    #[arg(long, value_name = "P", allow_negative_numbers = true, value_parser = top_p)]
    top_p: Option<f32>,
    /// Drop tokens less likely than this share of the likeliest; 0 drops none
    #[arg(long, value_name = "P", allow_negative_numbers = true, value_parser = min_p)]
    min_p: Option<f32>,
    /// Make tokens that occurred lately less likely; 1 changes nothing
    #[arg(long, value_name = "R", allow_negative_numbers = true, value_parser = repeat_penalty)]
    repeat_penalty: Option<f32>,
    /// The same seed gives the same text [default: a new one each time]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = seed)]
    seed: Option<u64>,
}

impl SamplingArgs {
    /// The settings, with the engine's defaults for what was not given.
    pub(crate) fn sampling(&self) -> Sampling {
        let usual = Sampling::default();
        Sampling {
            temperature: self.temp.unwrap_or(usual.temperature),
            top_k: self.top_k.unwrap_or(usual.top_k),
            top_p: self.top_p.unwrap_or(usual.top_p),
            min_p: self.min_p.unwrap_or(usual.min_p),
            repeat_penalty: self.repeat_penalty.unwrap_or(usual.repeat_penalty),
            seed: self.seed.unwrap_or_else(new_seed),
        }
    }
}

/// The settings for `--json`.
pub(crate) fn sampling_json(sampling: &Sampling) -> Value {
    json!({
        "temperature": float(sampling.temperature),
        "top_k": sampling.top_k,
        "top_p": float(sampling.top_p),
        "min_p": float(sampling.min_p),
        "repeat_penalty": float(sampling.repeat_penalty),
        "seed": sampling.seed,
    })
}

/// A seed nobody chose: short enough to be typed, and exact in every JSON reader (below 2^32).
fn new_seed() -> u64 {
    std::collections::hash_map::RandomState::new().build_hasher().finish() >> 32
}

/// Parses a number and keeps it if it `fits`; the sentence says what would.
pub(crate) fn number<T: std::str::FromStr>(
    text: &str,
    expected: &'static str,
    fits: impl Fn(&T) -> bool,
) -> Result<T, &'static str> {
    text.parse().ok().filter(fits).ok_or(expected)
}

/// `expected a, b or c`.
pub(crate) fn expected(names: &[&str]) -> String {
    match names {
        [start @ .., last] if !start.is_empty() => format!("expected {} or {last}", start.join(", ")),
        names => format!("expected {}", names.concat()),
    }
}

/// Parses a count of tokens.
pub(crate) fn at_least_one(text: &str) -> Result<usize, &'static str> {
    number(text, "expected a whole number from 1", |n| *n >= 1)
}

fn temperature(text: &str) -> Result<f32, &'static str> {
    number(text, "expected a number from 0", |t: &f32| t.is_finite() && *t >= 0.0)
}

fn top_k(text: &str) -> Result<usize, &'static str> {
    number(text, "expected a whole number from 0", |_| true)
}

fn top_p(text: &str) -> Result<f32, &'static str> {
    number(text, "expected a number above 0 and at most 1", |p: &f32| *p > 0.0 && *p <= 1.0)
}

fn min_p(text: &str) -> Result<f32, &'static str> {
    number(text, "expected a number from 0 to 1", |p: &f32| (0.0..=1.0).contains(p))
}

fn repeat_penalty(text: &str) -> Result<f32, &'static str> {
    number(text, "expected a number above 0", |r: &f32| r.is_finite() && *r > 0.0)
}

fn seed(text: &str) -> Result<u64, &'static str> {
    number(text, "expected a whole number from 0", |_| true)
}
