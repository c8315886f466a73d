//! What a request came to, for those who ask.

use serde_json::{Value, json};
use tern::Sampling;

/// The settings of an answer after the server's own have filled the gaps.
#[derive(Debug)]
pub(crate) struct Asked {
    /// The prompts' texts, special tokens included.
    pub(crate) prompts: Vec<String>,
    pub(crate) sampling: Sampling,
    /// Tokens at most.
    pub(crate) most: Option<usize>,
    pub(crate) stops: Vec<String>,
    /// Tokens that would end an answer and may not.
    pub(crate) ignored: Vec<u32>,
    pub(crate) context: usize,
}

impl Asked {
    /// llama.cpp's `generation_settings`.
    pub(crate) fn json(&self) -> Value {
        let most = self.most.map_or(-1, |most| i64::try_from(most).unwrap_or(i64::MAX));
        let mut settings = params(&self.sampling);
        settings["n_predict"] = json!(most);
        settings["max_tokens"] = json!(most);
        settings["stop"] = json!(self.stops);
        settings["ignore_eos"] = json!(!self.ignored.is_empty());
        let biased = self.sampling.logit_bias.iter().map(|(id, bias)| json!({"token": id, "bias": bias}));
        // Without a number: never.
        let ignored = self.ignored.iter().map(|id| json!({"token": id, "bias": null}));
        settings["logit_bias"] = biased.chain(ignored).collect();
        settings
    }
}

/// llama.cpp's names for the settings of a sampler.
pub(crate) fn params(sampling: &Sampling) -> Value {
    json!({
        "seed": sampling.seed,
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "typical_p": sampling.typical,
        "repeat_penalty": sampling.repeat_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "dry_multiplier": sampling.dry.multiplier,
        "dry_base": sampling.dry.base,
        "dry_allowed_length": sampling.dry.allowed,
        "dry_penalty_last_n": i64::try_from(sampling.dry.range).unwrap_or(-1),
        // What is not here is off.
        "mirostat": 0,
        "dynatemp_range": 0.0,
        "xtc_probability": 0.0,
        "top_n_sigma": -1.0,
        "adaptive_target": -1.0,
        "adaptive_decay": 0.0,
    })
}
