//! What stands in the JSON that models and texts are made with. Names are those of the command line and of the server's requests.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use tern::{Dry, Error, Head, KvFormat, MAX_THREADS, Packing, Result, Rounding, Sampling, Tokenizer, Zeros};

/// Reads a JSON object; nothing at all is one without a key.
pub(crate) fn read<T: DeserializeOwned + Default>(what: &str, text: Option<&str>) -> Result<T> {
    let Some(text) = text else { return Ok(T::default()) };
    // The library would take a list for an object without names.
    if !text.trim_start().starts_with('{') {
        return Err(Error::Input(format!("{what}: expected a JSON object")));
    }
    serde_json::from_str(text).map_err(|error| Error::Input(format!("{what}: {error}")))
}

/// How a model is held in memory.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Options {
    cpu: Option<String>,
    threads: Option<usize>,
    packing: Option<String>,
    head: Option<String>,
    kv: Option<String>,
    activations: Option<String>,
    zeros: Option<String>,
    floats: bool,
    i2s_arm: bool,
    no_mmap: bool,
}

/// Finds what a name stands for.
fn named<T>(key: &str, name: &Option<String>, find: impl Fn(&str) -> Option<T>) -> Result<Option<T>> {
    let Some(name) = name else { return Ok(None) };
    let what = || Error::Input(format!("options: {key}: `{}` is none that there is", tern::quoted(name)));
    find(name).map(Some).ok_or_else(what)
}

impl Options {
    pub(crate) fn options(&self) -> Result<tern::Options> {
        if let Some(threads) = self.threads.filter(|threads| !(1..=MAX_THREADS).contains(threads)) {
            return Err(Error::Input(format!(
                "options: threads: expected 1 to {MAX_THREADS}, found {threads}"
            )));
        }
        Ok(tern::Options {
            cpu: self.cpu.clone(),
            threads: self.threads,
            packing: named("packing", &self.packing, Packing::from_name)?,
            head: named("head", &self.head, Head::from_name)?.unwrap_or_default(),
            kv: named("kv", &self.kv, KvFormat::from_name)?.unwrap_or_default(),
            activations: named("activations", &self.activations, Rounding::from_name)?,
            zeros: named("zeros", &self.zeros, Zeros::from_name)?.unwrap_or_default(),
            floats: self.floats,
            i2s_arm: self.i2s_arm,
            copy: self.no_mmap,
        })
    }
}

/// How a text is written; what is left out is the library's default.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    temperature: Option<f32>,
    top_k: Option<usize>,
    typical_p: Option<f32>,
    top_p: Option<f32>,
    min_p: Option<f32>,
    repeat_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    dry_multiplier: Option<f32>,
    dry_base: Option<f32>,
    dry_allowed: Option<usize>,
    dry_range: Option<usize>,
    seed: Option<u64>,
    max_tokens: Option<usize>,
    context: Option<usize>,
}

impl Settings {
    pub(crate) fn sampling(&self, tokenizer: Option<&Tokenizer>) -> Result<Sampling> {
        let own = Sampling::default();
        let mut dry = Dry {
            multiplier: self.dry_multiplier.unwrap_or(own.dry.multiplier),
            base: self.dry_base.unwrap_or(own.dry.base),
            allowed: self.dry_allowed.unwrap_or(own.dry.allowed),
            range: self.dry_range.unwrap_or(own.dry.range),
            ..own.dry
        };
        // The search through the vocabulary takes a moment.
        if let Some(tokenizer) = tokenizer.filter(|_| dry.multiplier != 0.0) {
            dry.breakers = Dry::breakers(tokenizer, &Dry::BREAKERS);
        }
        let sampling = Sampling {
            temperature: self.temperature.unwrap_or(own.temperature),
            top_k: self.top_k.unwrap_or(own.top_k),
            typical: self.typical_p.unwrap_or(own.typical),
            top_p: self.top_p.unwrap_or(own.top_p),
            min_p: self.min_p.unwrap_or(own.min_p),
            repeat_penalty: self.repeat_penalty.unwrap_or(own.repeat_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(own.presence_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(own.frequency_penalty),
            dry,
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

    /// Positions, out of those that the model has.
    pub(crate) fn context(&self, most: usize) -> usize {
        self.context.unwrap_or(most)
    }
}
