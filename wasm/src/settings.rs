//! What a page says of the choice of tokens, under the names of the server's requests.

use serde::Deserialize;
use tern::{Error, Result, Sampling};

/// Settings of one text; what is left out is the library's default.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    temperature: Option<f32>,
    top_k: Option<usize>,
    top_p: Option<f32>,
    min_p: Option<f32>,
    typical_p: Option<f32>,
    #[serde(alias = "repeat_penalty")]
    repetition_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    seed: Option<u64>,
    max_tokens: Option<usize>,
    logprobs: bool,
    top_logprobs: usize,
    pub(crate) ignore_eos: bool,
}

impl Settings {
    pub(crate) fn read(text: &str) -> Result<Self> {
        serde_json::from_str(text).map_err(|error| Error::Input(format!("settings: {error}")))
    }

    pub(crate) fn sampling(&self) -> Result<Sampling> {
        let own = Sampling::default();
        let sampling = Sampling {
            temperature: self.temperature.unwrap_or(own.temperature),
            top_k: self.top_k.unwrap_or(own.top_k),
            top_p: self.top_p.unwrap_or(own.top_p),
            min_p: self.min_p.unwrap_or(own.min_p),
            typical: self.typical_p.unwrap_or(own.typical),
            repeat_penalty: self.repetition_penalty.unwrap_or(own.repeat_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(own.presence_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(own.frequency_penalty),
            seed: self.seed.unwrap_or(own.seed),
            ..own
        };
        sampling.check()?;
        Ok(sampling)
    }

    /// How many tokens at most; the context ends what has no limit.
    pub(crate) fn most(&self) -> usize {
        self.max_tokens.unwrap_or(usize::MAX)
    }

    /// How many of the likeliest are told with each token, where any are.
    pub(crate) fn logprobs(&self) -> Option<usize> {
        self.logprobs.then_some(self.top_logprobs.min(20))
    }
}
