//! What a training run is told: one flat TOML file. Every key is in the one table below, which also makes the commented
//! file of `tern train init` and the flags of `tern train`.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use tern::{Pairing, Rope};
use tern_kernels::Activation;

use crate::error::{Error, Result};
use crate::schedule::{Kind, Schedule};

/// A key: its name, its default as TOML (empty if it must be given or is absent), and what it means.
pub const KEYS: &[(&str, &str, &str)] = &[
    ("out", "", "Directory of the run: checkpoints, logs, the finished model"),
    ("from", "", "Start from the masters of this model instead of random numbers"),
    ("train", "", "Files to train on: .txt, .jsonl, and .zst or .gz of them"),
    (
        "repeats",
        "[]",
        "How often an epoch sees each of these files, 1.0 if not given; 0.5 is every other document",
    ),
    ("text_key", "\"text\"", "Key of the text in JSON lines; lines with `messages` are conversations"),
    ("separator", "\"<|endoftext|>\"", "What stands between the documents of a text file"),
    ("join_lines", "false", "Join the lines of a paragraph, for texts that are broken as printed"),
    ("validation", "0.01", "Share of the documents that are held out, picked by their content"),
    ("validation_files", "[]", "Files that are held out whole"),
    ("validation_tokens", "100000", "Most tokens that are validated on"),
    ("tokenizer", "", "tokenizer.json, with tokenizer_config.json beside it for a chat template"),
    ("dim", "384", "Width of the residual stream"),
    ("layers", "6", "Blocks"),
    ("hidden", "1024", "Width of the feed-forward layer"),
    ("heads", "6", "Query heads"),
    ("kv_heads", "6", "Key and value heads, a divisor of the query heads"),
    ("head_dim", "64", "Width of a head"),
    ("activation", "\"relu2\"", "Between gate and up: relu2 or silu"),
    ("sub_norms", "true", "A norm before the output and down projections, as BitNet b1.58 has them"),
    ("tied", "true", "Whether the output head is the embedding"),
    ("rope_base", "10000.0", "Base of the rotary frequencies"),
    ("norm_eps", "1e-5", "Epsilon of the norms"),
    ("context", "512", "Most positions that the finished model says it can take"),
    ("ternary", "true", "false trains the float twin, for comparisons"),
    ("init_std", "0.02", "Deviation of fresh weights"),
    ("length", "256", "Tokens of a training sequence"),
    ("sequences", "8", "Sequences that go through the model together"),
    ("accumulate", "1", "Such batches to a step"),
    ("steps", "1000", "Steps of the whole run"),
    ("schedule", "\"two-stage\"", "two-stage (b1.58), cosine, wsd or constant"),
    ("warmup", "100", "Steps of linear warm-up"),
    ("rate", "1.5e-3", "Highest learning rate"),
    ("rate2", "1e-3", "two-stage: learning rate at the start of the second half"),
    ("decay_steps", "200", "wsd: steps of linear decay at the end"),
    ("final_rate", "0.0", "Learning rate at the end, as a share of `rate`"),
    ("weight_decay", "0.1", "AdamW's; 0 in the second half of two-stage and in the decay of wsd"),
    ("beta1", "0.9", "AdamW's"),
    ("beta2", "0.95", "AdamW's"),
    ("eps", "1e-8", "AdamW's"),
    ("clip", "1.0", "Largest norm of the gradient"),
    ("seed", "1", "Of the weights, the order of documents and the split"),
    ("threads", "0", "0 for all physical cores"),
    (
        "recompute",
        "false",
        "Keep only the input of each layer and compute the rest again: less memory, a third slower",
    ),
    ("log_every", "10", "Steps between lines of metrics.jsonl"),
    ("validate_every", "200", "Steps between validations"),
    ("save_every", "200", "Steps between checkpoints"),
    ("save_minutes", "0.0", "Minutes between checkpoints as well, if above 0"),
    ("keep", "3", "Checkpoints that are kept"),
    ("sample_every", "0", "Steps between samples of text, none if 0"),
    ("prompt", "\"Once upon a time\"", "What samples continue"),
    (
        "raw_prompt",
        "true",
        "Say in the model that `tern run` continues texts instead of asking by the chat template",
    ),
];

/// One run.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "KEYS says what each is")]
pub struct Run {
    pub out: PathBuf,
    pub from: Option<PathBuf>,
    pub train: Vec<PathBuf>,
    pub repeats: Vec<f64>,
    pub text_key: String,
    pub separator: String,
    pub join_lines: bool,
    pub validation: f64,
    pub validation_files: Vec<PathBuf>,
    pub validation_tokens: usize,
    pub tokenizer: Option<PathBuf>,
    pub dim: usize,
    pub layers: usize,
    pub hidden: usize,
    pub heads: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    pub activation: String,
    pub sub_norms: bool,
    pub tied: bool,
    pub rope_base: f32,
    pub norm_eps: f32,
    pub context: usize,
    pub ternary: bool,
    pub init_std: f32,
    pub length: usize,
    pub sequences: usize,
    pub accumulate: usize,
    pub steps: u64,
    pub schedule: String,
    pub warmup: u64,
    pub rate: f32,
    pub rate2: f32,
    pub decay_steps: u64,
    pub final_rate: f32,
    pub weight_decay: f32,
    pub beta1: f32,
    pub beta2: f32,
    pub eps: f32,
    pub clip: f32,
    pub seed: u64,
    pub threads: usize,
    pub recompute: bool,
    pub log_every: u64,
    pub validate_every: u64,
    pub save_every: u64,
    pub save_minutes: f64,
    pub keep: usize,
    pub sample_every: u64,
    pub prompt: String,
    pub raw_prompt: bool,
}

impl Run {
    /// Reads a file, with `flags` (key and TOML value, or plain text) over it. Paths in the file are relative to it.
    pub fn read(path: &Path, flags: &[(String, String)]) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        Self::parse(&text, flags, folder).map_err(|error| match error {
            Error::Key { key, what } if !flags.iter().any(|(flag, _)| *flag == key) => {
                let line = text.lines().position(|line| line.trim_start().starts_with(&key));
                let place = line.map_or(String::new(), |line| format!("line {}, ", line + 1));
                Error::file(path, format!("{place}key `{key}`: {what}"))
            }
            Error::Input(what) => Error::file(path, what),
            other => other,
        })
    }

    /// Reads a text.
    pub fn parse(text: &str, flags: &[(String, String)], folder: &Path) -> Result<Self> {
        let mut table: toml::Table = text.parse().map_err(|e: toml::de::Error| {
            let line = e.span().map_or(0, |span| text[..span.start.min(text.len())].matches('\n').count());
            Error::Input(format!("line {}: {}", line + 1, e.message().replace('\n', " ")))
        })?;
        for key in ["out", "from", "tokenizer", "train", "validation_files"] {
            if let Some(value) = table.get_mut(key) {
                resolve(value, folder);
            }
        }
        for (key, value) in flags {
            table.insert(key.clone(), flag(key, value));
        }
        if let Some(key) = table.keys().find(|key| !KEYS.iter().any(|(name, ..)| name == key)) {
            return Err(Error::key(key, "unknown; `tern train init` writes all there are"));
        }
        for (key, default, _) in KEYS.iter().filter(|(_, default, _)| !default.is_empty()) {
            if !table.contains_key(*key) {
                table.insert((*key).into(), value(default).expect("a default is TOML"));
            }
        }
        // One key at a time, so that an error can name it.
        for (key, value) in &table {
            let alone = toml::Table::from_iter([(key.clone(), value.clone())]);
            if let Err(e) = alone.try_into::<Partial>() {
                return Err(Error::key(key, e.message().trim().replace('\n', " ")));
            }
        }
        for key in ["out", "train"] {
            if !table.contains_key(key) {
                return Err(Error::key(key, "missing"));
            }
        }
        let run: Run = table.try_into().map_err(|e: toml::de::Error| Error::Input(e.message().to_owned()))?;
        run.check()?;
        Ok(run)
    }

    fn check(&self) -> Result<()> {
        let positive = [
            ("length", self.length),
            ("sequences", self.sequences),
            ("accumulate", self.accumulate),
            ("keep", self.keep),
            ("context", self.context),
        ];
        if let Some((key, _)) = positive.iter().find(|(_, value)| *value == 0) {
            return Err(Error::key(key, "0: expected at least 1"));
        }
        let rows = self.length.checked_mul(self.sequences);
        if rows.is_none_or(|rows| rows > 1 << 16) {
            let what = format!(
                "{}: expected at most 65536 tokens in a batch; `accumulate` makes steps larger",
                self.sequences
            );
            return Err(Error::key("sequences", what));
        }
        for (key, value) in [("steps", self.steps), ("log_every", self.log_every)] {
            if value == 0 {
                return Err(Error::key(key, "0: expected at least 1"));
            }
        }
        let rates = [
            ("rate", self.rate),
            ("rate2", self.rate2),
            ("final_rate", self.final_rate),
            ("weight_decay", self.weight_decay),
            ("init_std", self.init_std),
        ];
        for (key, value) in rates {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(Error::key(key, format!("{value}: expected a number of at least 0")));
            }
        }
        for (key, value) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            if !(0.0..1.0).contains(&value) {
                return Err(Error::key(key, format!("{value}: expected a number from 0 to below 1")));
            }
        }
        for (key, value) in [("eps", self.eps), ("clip", self.clip)] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(Error::key(key, format!("{value}: expected a number above 0")));
            }
        }
        if !(0.0..1.0).contains(&self.validation) {
            return Err(Error::key(
                "validation",
                format!("{}: expected a share from 0 to below 1", self.validation),
            ));
        }
        if self.train.is_empty() {
            return Err(Error::key("train", "expected at least one file, found none"));
        }
        if self.repeats.len() > self.train.len() || self.repeats.iter().any(|n| !(0.0..=1000.0).contains(n)) {
            let what = format!("expected at most {} numbers from 0 to 1000", self.train.len());
            return Err(Error::key("repeats", what));
        }
        if self.tokenizer.is_none() && self.from.is_none() {
            return Err(Error::key("tokenizer", "missing; `tern train tokenizer` makes one"));
        }
        self.schedule()?;
        self.activation()?;
        Ok(())
    }

    /// The schedule of rates.
    pub fn schedule(&self) -> Result<Schedule> {
        let kind = match self.schedule.as_str() {
            "two-stage" => Kind::TwoStage { second: self.rate2 },
            "cosine" => Kind::Cosine,
            "wsd" => Kind::StableThenDecay { decay: self.decay_steps },
            "constant" => Kind::Constant,
            other => {
                let what = format!("\"{other}\": expected two-stage, cosine, wsd or constant");
                return Err(Error::key("schedule", what));
            }
        };
        let Self { steps, warmup, rate, weight_decay: decay, .. } = *self;
        Ok(Schedule { kind, steps, warmup, rate, last: rate * self.final_rate, decay })
    }

    fn activation(&self) -> Result<Activation> {
        match self.activation.as_str() {
            "relu2" => Ok(Activation::Relu2),
            "silu" => Ok(Activation::Silu),
            other => Err(Error::key("activation", format!("\"{other}\": expected relu2 or silu"))),
        }
    }

    /// The architecture of a fresh model with this many tokens.
    pub fn model(&self, vocab: usize) -> Result<tern::Config> {
        let config = tern::Config {
            family: if self.sub_norms { "BitNet b1.58" } else { "Llama" },
            dim: self.dim,
            hidden: self.hidden,
            layers: self.layers,
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            vocab,
            context: self.context.max(self.length),
            norm_eps: self.norm_eps,
            activation: self.activation()?,
            sub_norms: self.sub_norms,
            rope: Rope::new(self.rope_base, Pairing::Halves),
        };
        // The engine's names of these keys are Hugging Face's; a person typed ours.
        config.check().map_err(|(key, what)| {
            let key = match key {
                "hidden_size" => "dim",
                "intermediate_size" => "hidden",
                "num_hidden_layers" => "layers",
                "num_attention_heads" => "heads",
                "num_key_value_heads" => "kv_heads",
                "max_position_embeddings" => "context",
                "rms_norm_eps" => "norm_eps",
                "rope_theta" => "rope_base",
                other => other,
            };
            Error::key(key, what)
        })?;
        Ok(config)
    }
}

fn resolve(value: &mut toml::Value, folder: &Path) {
    match value {
        toml::Value::String(path) => *path = folder.join(&*path).to_string_lossy().into_owned(),
        toml::Value::Array(paths) => paths.iter_mut().for_each(|path| resolve(path, folder)),
        _ => {}
    }
}

fn value(text: &str) -> Option<toml::Value> {
    format!("x = {text}").parse::<toml::Table>().ok()?.remove("x")
}

/// A flag's value: TOML if its key is no text, a list split at commas if its key is one.
fn flag(key: &str, text: &str) -> toml::Value {
    let default = KEYS.iter().find(|(name, ..)| *name == key).map_or("", |(_, default, _)| default);
    let is_list = key == "train" || default == "[]";
    if is_list && !text.starts_with('[') {
        let items = text.split(',').map(|item| match key {
            "train" | "validation_files" => toml::Value::String(item.to_owned()),
            _ => value(item).unwrap_or_else(|| toml::Value::String(item.to_owned())),
        });
        return toml::Value::Array(items.collect());
    }
    let is_text = ["out", "from", "tokenizer"].contains(&key) || default.starts_with('"');
    match value(text).filter(|_| !is_text) {
        // `--rate 1` means 1.0.
        Some(toml::Value::Integer(n)) if default.contains(['.', 'e']) => toml::Value::Float(n as f64),
        Some(value) => value,
        None => toml::Value::String(text.to_owned()),
    }
}

/// [`Run`] with every key optional, to try one key at a time.
macro_rules! partial {
    ($($key:ident: $kind:ty,)*) => {
        #[derive(Deserialize)]
        #[expect(dead_code, reason = "only whether it can be read matters")]
        struct Partial { $($key: Option<$kind>,)* }
    };
}
partial! {
    out: PathBuf, from: PathBuf, train: Vec<PathBuf>, repeats: Vec<f64>, text_key: String, separator: String,
    join_lines: bool, validation: f64, validation_files: Vec<PathBuf>, validation_tokens: usize, tokenizer: PathBuf,
    dim: usize, layers: usize, hidden: usize, heads: usize, kv_heads: usize, head_dim: usize, activation: String,
    sub_norms: bool, tied: bool, rope_base: f32, norm_eps: f32, context: usize, ternary: bool, init_std: f32,
    length: usize, sequences: usize, accumulate: usize, steps: u64, schedule: String, warmup: u64, rate: f32,
    rate2: f32, decay_steps: u64, final_rate: f32, weight_decay: f32, beta1: f32, beta2: f32, eps: f32, clip: f32,
    seed: u64, threads: usize, recompute: bool, log_every: u64, validate_every: u64, save_every: u64,
    save_minutes: f64, keep: usize, sample_every: u64, prompt: String, raw_prompt: bool,
}

/// The commented file of `tern train init`.
pub fn template() -> String {
    let mut text = String::from("# tern train CONFIG.toml; every key is a flag too: --rate 1e-3\n");
    for (key, default, about) in KEYS {
        let line = match *key {
            "out" => "out = \"run\"".to_owned(),
            "train" => "train = [\"stories.txt\"]".to_owned(),
            "tokenizer" => "tokenizer = \"tokenizer.json\"".to_owned(),
            "from" => "# from = \"model/\"".to_owned(),
            _ => format!("{key} = {default}"),
        };
        text.push_str(&format!("\n# {about}\n{line}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = "out = \"o\"\ntrain = [\"a.txt\"]\ntokenizer = \"t.json\"\n";

    #[test]
    fn what_init_writes_can_be_read_and_is_the_default() {
        let run = Run::parse(&template(), &[], Path::new("")).unwrap();
        let least = Run::parse(LEAST, &[], Path::new("")).unwrap();
        assert_eq!((run.dim, run.rate), (least.dim, least.rate));
        assert_eq!(run.schedule().unwrap(), least.schedule().unwrap());
    }

    #[test]
    fn flags_come_over_the_file() {
        let flags = [("rate", "1"), ("train", "a.txt,b.jsonl"), ("prompt", "12"), ("repeats", "1,0.5")];
        let flags = flags.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let run = Run::parse(LEAST, &flags, Path::new("x")).unwrap();
        assert_eq!((run.rate, run.train.len(), run.prompt.as_str()), (1.0, 2, "12"));
        assert_eq!(run.repeats, [1.0, 0.5]);
        assert_eq!(run.out, Path::new("x/o"));
    }

    #[test]
    fn errors_name_the_key() {
        for (line, wanted) in [
            ("rate = -1.0", "key `rate`: -1"),
            ("steps = \"many\"", "key `steps`"),
            ("stesp = 3", "key `stesp`: unknown"),
            ("steps = 0", "key `steps`: 0"),
            ("schedule = \"zigzag\"", "key `schedule`"),
            ("beta1 = 1.0", "key `beta1`"),
            ("rate = nan", "key `rate`"),
            ("rate = ", "line 4"),
        ] {
            let error = Run::parse(&format!("{LEAST}{line}\n"), &[], Path::new("")).unwrap_err().to_string();
            assert!(error.contains(wanted), "{line}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
        let run = Run::parse(&format!("{LEAST}heads = 6\nkv_heads = 4\n"), &[], Path::new("")).unwrap();
        assert!(run.model(100).unwrap_err().to_string().starts_with("key `kv_heads`"));
    }
}
