//! The flags that say how the next token is chosen, shared by `run` and `chat`.

use std::hash::{BuildHasher, Hasher};
use std::sync::LazyLock;

use clap::Args;
use serde_json::{Value, json};
use tern::Sampling;

use crate::answer::float;

#[derive(Args)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct SamplingArgs {
    /// Randomness: 0 always takes the likeliest token
    #[arg(long, value_name = "T", default_value_t = USUAL.temperature)]
    #[arg(allow_negative_numbers = true, value_parser = temperature)]
    temp: f32,
    /// Choose among the K likeliest tokens only; 0 means all
    #[arg(long, value_name = "K", default_value_t = USUAL.top_k)]
    #[arg(allow_negative_numbers = true, value_parser = count)]
    top_k: usize,
    /// Choose among the likeliest tokens that add up to P; 1 means all
    #[arg(long, value_name = "P", default_value_t = USUAL.top_p)]
    #[arg(allow_negative_numbers = true, value_parser = top_p)]
    top_p: f32,
    /// Drop tokens less likely than P times the likeliest; 0 drops none
    #[arg(long, value_name = "P", default_value_t = USUAL.min_p)]
    #[arg(allow_negative_numbers = true, value_parser = min_p)]
    min_p: f32,
    /// Make recent tokens R times less likely; 1 changes nothing
    #[arg(long, value_name = "R", default_value_t = USUAL.repeat_penalty)]
    #[arg(allow_negative_numbers = true, value_parser = repeat_penalty)]
    repeat_penalty: f32,
    /// The same seed gives the same text [default: a new one each time]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = seed)]
    seed: Option<u64>,
}

/// The engine's defaults and limits are the command line's.
static USUAL: LazyLock<Sampling> = LazyLock::new(Sampling::default);

impl SamplingArgs {
    pub(crate) fn sampling(&self) -> Sampling {
        Sampling {
            temperature: self.temp,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repeat_penalty: self.repeat_penalty,
            seed: self.seed.unwrap_or_else(new_seed),
            ..USUAL.clone()
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

/// Parses a count of things there may be none of.
pub(crate) fn count(text: &str) -> Result<usize, &'static str> {
    number(text, "expected a whole number from 0", |_| true)
}

/// Parses a float that the engine takes as the one setting that `with` makes of it.
fn setting(text: &str, expected: &'static str, with: impl Fn(f32) -> Sampling) -> Result<f32, &'static str> {
    number(text, expected, |x| with(*x).check().is_ok())
}

fn temperature(text: &str) -> Result<f32, &'static str> {
    setting(text, "expected a number from 0 to 100", |temperature| Sampling { temperature, ..USUAL.clone() })
}

fn top_p(text: &str) -> Result<f32, &'static str> {
    setting(text, "expected a number above 0, at most 1", |top_p| Sampling { top_p, ..USUAL.clone() })
}

fn min_p(text: &str) -> Result<f32, &'static str> {
    setting(text, "expected a number from 0 to 1", |min_p| Sampling { min_p, ..USUAL.clone() })
}

fn repeat_penalty(text: &str) -> Result<f32, &'static str> {
    setting(text, "expected a number from 0.01 to 100", |repeat_penalty| Sampling {
        repeat_penalty,
        ..USUAL.clone()
    })
}

fn seed(text: &str) -> Result<u64, &'static str> {
    number(text, "expected a whole number from 0", |_| true)
}
