//! The flags that say how the next token is chosen, shared by `run`, `chat` and `serve` (docs/sampling.md).

use std::hash::{BuildHasher, Hasher};
use std::sync::LazyLock;

use clap::Args;
use serde_json::{Value, json};
use tern::{Dry, Model, Sampling};

use crate::answer::float;
use crate::failure::{Failure, Outcome};

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
    /// Choose among the tokens that surprise as much as is expected and add up to P; 1 means all
    #[arg(long, value_name = "P", default_value_t = USUAL.typical)]
    #[arg(allow_negative_numbers = true, value_parser = typical)]
    typical: f32,
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
    /// Take X off the logit of every token that was said already
    #[arg(long, value_name = "X", default_value_t = USUAL.presence_penalty)]
    #[arg(allow_negative_numbers = true, value_parser = presence_penalty)]
    presence_penalty: f32,
    /// Take X off the logit of a token for each time it was said already
    #[arg(long, value_name = "X", default_value_t = USUAL.frequency_penalty)]
    #[arg(allow_negative_numbers = true, value_parser = frequency_penalty)]
    frequency_penalty: f32,
    /// Take X off the logit of a token that would go on with a sequence that was there before (DRY); 0 is off
    #[arg(long, value_name = "X", default_value_t = USUAL.dry.multiplier)]
    #[arg(allow_negative_numbers = true, value_parser = dry_multiplier)]
    dry_multiplier: f32,
    /// DRY: how the cost grows with each token of the sequence
    #[arg(long, value_name = "R", default_value_t = USUAL.dry.base)]
    #[arg(allow_negative_numbers = true, value_parser = dry_base)]
    dry_base: f32,
    /// DRY: the shortest repeated sequence whose continuation costs X
    #[arg(long, value_name = "N", default_value_t = USUAL.dry.allowed)]
    #[arg(allow_negative_numbers = true, value_parser = at_least_one)]
    dry_allowed: usize,
    /// DRY: look at the last N tokens only [default: the whole text]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = at_least_one)]
    dry_range: Option<usize>,
    /// DRY: no sequence goes across this text, given once for each; `\n` is a line end [default: \n : " *]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, value_parser = breaker)]
    dry_breaker: Vec<String>,
    /// Add X to the logit of the token with this id, given once for each token
    #[arg(long, value_name = "ID=X", value_parser = bias)]
    logit_bias: Vec<(u32, f32)>,
    /// The same seed gives the same text [default: a new one each time]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = seed)]
    seed: Option<u64>,
}

/// The engine's defaults and limits are the command line's.
static USUAL: LazyLock<Sampling> = LazyLock::new(Sampling::default);

impl SamplingArgs {
    /// The seed, if one was chosen.
    pub(crate) fn seed(&self) -> Option<u64> {
        self.seed
    }

    /// For any model: [`Dry::breakers`] are its own.
    pub(crate) fn sampling(&self) -> Sampling {
        Sampling {
            temperature: self.temp,
            top_k: self.top_k,
            typical: self.typical,
            top_p: self.top_p,
            min_p: self.min_p,
            repeat_penalty: self.repeat_penalty,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            dry: Dry {
                multiplier: self.dry_multiplier,
                base: self.dry_base,
                allowed: self.dry_allowed,
                range: self.dry_range.unwrap_or(usize::MAX),
                ..Dry::default()
            },
            logit_bias: self.logit_bias.clone(),
            seed: self.seed.unwrap_or_else(new_seed),
        }
    }

    /// For this model.
    pub(crate) fn of(&self, model: &Model) -> Outcome<Sampling> {
        let vocab = model.config().vocab;
        if let Some((id, _)) = self.logit_bias.iter().find(|(id, _)| *id as usize >= vocab) {
            let what =
                format!("--logit-bias: expected ids below {vocab}, the model's vocabulary, found {id}");
            return Err(Failure::misused(what));
        }
        let mut sampling = self.sampling();
        // The search through the vocabulary takes a moment.
        if sampling.dry.multiplier != 0.0
            && let Ok(tokenizer) = model.tokenizer()
        {
            sampling.dry.breakers = Dry::breakers(tokenizer, &self.breakers());
        }
        Ok(sampling)
    }

    /// Changes the setting that the flag of this name gives.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "temp" | "temperature" => self.temp = temperature(value)?,
            "top-k" => self.top_k = count(value)?,
            "typical" => self.typical = typical(value)?,
            "top-p" => self.top_p = top_p(value)?,
            "min-p" => self.min_p = min_p(value)?,
            "repeat-penalty" => self.repeat_penalty = repeat_penalty(value)?,
            "presence-penalty" => self.presence_penalty = presence_penalty(value)?,
            "frequency-penalty" => self.frequency_penalty = frequency_penalty(value)?,
            "dry-multiplier" => self.dry_multiplier = dry_multiplier(value)?,
            "dry-base" => self.dry_base = dry_base(value)?,
            "dry-allowed" => self.dry_allowed = at_least_one(value)?,
            "seed" => self.seed = Some(seed(value)?),
            _ => {
                let names: Vec<&str> = self.list().iter().map(|(name, _)| *name).collect();
                return Err(format!("{} or tokens", expected(&names).replace(" or ", ", ")));
            }
        }
        Ok(())
    }

    /// What [`SamplingArgs::set`] changes, by name.
    pub(crate) fn list(&self) -> Vec<(&'static str, String)> {
        vec![
            ("temp", self.temp.to_string()),
            ("top-k", self.top_k.to_string()),
            ("typical", self.typical.to_string()),
            ("top-p", self.top_p.to_string()),
            ("min-p", self.min_p.to_string()),
            ("repeat-penalty", self.repeat_penalty.to_string()),
            ("presence-penalty", self.presence_penalty.to_string()),
            ("frequency-penalty", self.frequency_penalty.to_string()),
            ("dry-multiplier", self.dry_multiplier.to_string()),
            ("dry-base", self.dry_base.to_string()),
            ("dry-allowed", self.dry_allowed.to_string()),
            ("seed", self.seed.map_or("new each time".to_owned(), |seed| seed.to_string())),
        ]
    }

    /// The texts that no repeated sequence goes across.
    pub(crate) fn breakers(&self) -> Vec<String> {
        match &self.dry_breaker[..] {
            [] => Dry::BREAKERS.map(str::to_owned).to_vec(),
            given => given.to_vec(),
        }
    }
}

/// The settings for `--json`.
pub(crate) fn sampling_json(sampling: &Sampling) -> Value {
    json!({
        "temperature": float(sampling.temperature),
        "top_k": sampling.top_k,
        "typical": float(sampling.typical),
        "top_p": float(sampling.top_p),
        "min_p": float(sampling.min_p),
        "repeat_penalty": float(sampling.repeat_penalty),
        "presence_penalty": float(sampling.presence_penalty),
        "frequency_penalty": float(sampling.frequency_penalty),
        "dry_multiplier": float(sampling.dry.multiplier),
        "dry_base": float(sampling.dry.base),
        "dry_allowed": sampling.dry.allowed,
        "dry_range": Some(sampling.dry.range).filter(|range| *range != usize::MAX),
        "logit_bias": sampling.logit_bias.iter().map(|(id, bias)| json!([id, float(*bias)])).collect::<Vec<_>>(),
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

fn typical(text: &str) -> Result<f32, &'static str> {
    setting(text, "expected a number above 0, at most 1", |typical| Sampling { typical, ..USUAL.clone() })
}

fn presence_penalty(text: &str) -> Result<f32, &'static str> {
    setting(text, "expected a number from -100 to 100", |presence_penalty| Sampling {
        presence_penalty,
        ..USUAL.clone()
    })
}

fn frequency_penalty(text: &str) -> Result<f32, &'static str> {
    setting(text, "expected a number from -100 to 100", |frequency_penalty| Sampling {
        frequency_penalty,
        ..USUAL.clone()
    })
}

fn dry_multiplier(text: &str) -> Result<f32, &'static str> {
    setting(text, "expected a number from 0 to 100", |multiplier| dry(Dry { multiplier, ..Dry::default() }))
}

fn dry_base(text: &str) -> Result<f32, &'static str> {
    setting(text, "expected a number from 1 to 100", |base| dry(Dry { base, ..Dry::default() }))
}

fn dry(dry: Dry) -> Sampling {
    Sampling { dry, ..USUAL.clone() }
}

/// A text as it is typed in a shell.
fn breaker(text: &str) -> Result<String, &'static str> {
    let text = text.replace("\\n", "\n").replace("\\t", "\t");
    if text.is_empty() { Err("expected a text, found nothing") } else { Ok(text) }
}

/// Parses `123=-1.5`.
fn bias(text: &str) -> Result<(u32, f32), &'static str> {
    const EXPECTED: &str = "expected a token id and a number from -100 to 100, such as 123=-1.5";
    let (id, bias) = text.split_once('=').ok_or(EXPECTED)?;
    let id = number(id, EXPECTED, |_| true)?;
    Ok((id, setting(bias, EXPECTED, |bias| Sampling { logit_bias: vec![(id, bias)], ..USUAL.clone() })?))
}

fn seed(text: &str) -> Result<u64, &'static str> {
    number(text, "expected a whole number from 0", |_| true)
}
