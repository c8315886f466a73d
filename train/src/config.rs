//! What a training run is told: one flat TOML file. Every key is in the one table below, which also makes the commented
//! file of `tern train init`, the flags of `tern train` and what a run keeps in its folder.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tern::{KvFormat, Pairing, Rope, Scheme};
use tern_kernels::Activation;

use crate::error::{Error, Result};
use crate::lora::Lora;
use crate::ops::quantiser::Quantiser;
use crate::schedule::{Kind, Schedule};
use crate::stages::Stages;

/// The one list of keys: name, type, default as TOML (empty if it must be given or is absent), and what it means.
macro_rules! keys {
    ($($key:ident: $kind:ty = $default:literal, $about:literal;)*) => {
        /// A key: its name, its default as TOML (empty if it must be given or is absent), and what it means.
        pub const KEYS: &[(&str, &str, &str)] = &[$((stringify!($key), $default, $about)),*];

        /// One run.
        #[derive(Clone, Debug, Deserialize, Serialize)]
        #[serde(deny_unknown_fields)]
        pub struct Run {
            $(#[doc = $about] pub $key: $kind,)*
        }

        /// [`Run`] with every key optional, to try one key at a time.
        #[derive(Deserialize)]
        #[expect(dead_code, reason = "only whether it can be read matters")]
        struct Partial { $($key: Option<$kind>,)* }
    };
}

keys! {
    out: PathBuf = "", "Directory of the run: checkpoints, logs, the finished model";
    from: Option<PathBuf> = "", "Start from this model instead of random numbers: a run, a model file or directory, or `story`";
    teacher: Option<PathBuf> = "", "Learn from this float model too: a file or directory whose vocabulary is the same; `tern train distil` sets it";
    dpo: f32 = "0.0", "With `from`: learn from pairs, JSON lines with `prompt`, `chosen` and `rejected`, by DPO with this beta; 0.1 is common, 0 for none";
    lora: Option<String> = "", "Train a LoRA adapter beside the weights of `from`, which stay as they are: rank=16,alpha=32,targets=q_proj+v_proj";
    train: Vec<PathBuf> = "", "Files to train on: .txt, .jsonl, and .zst or .gz of them";
    repeats: Vec<f64> = "[]", "How often an epoch sees each of these files, 1.0 if not given; 0.5 is every other document";
    text_key: String = "\"text\"", "Key of the text in JSON lines; lines with `messages` are conversations";
    separator: String = "\"<|endoftext|>\"", "What stands between the documents of a text file; it may go over lines: \"\\n\\n\"";
    join_lines: bool = "false", "Join the lines of a paragraph, for texts that are broken as printed";
    validation: f64 = "0.01", "Share of the documents that are held out, picked by their content";
    validation_files: Vec<PathBuf> = "[]", "Files that are held out whole";
    validation_tokens: usize = "100000", "Most tokens that are validated on";
    tokenizer: Option<PathBuf> = "", "Folder of tokenizer.json and tokenizer_config.json, as `tern train tokenizer` writes it";
    dim: usize = "512", "Width of the residual stream; multiples of 256 fit every format";
    layers: usize = "5", "Blocks";
    hidden: usize = "1024", "Width of the feed-forward layer; multiples of 256 fit every format";
    heads: usize = "8", "Query heads";
    kv_heads: usize = "2", "Key and value heads, a divisor of the query heads";
    head_dim: usize = "64", "Width of a head";
    activation: String = "\"relu2\"", "Between gate and up: relu2 or silu";
    sub_norms: bool = "true", "A norm before the output and down projections, as BitNet b1.58 has them";
    tied: bool = "true", "Whether the output head is the embedding";
    rope_base: f32 = "10000.0", "Base of the rotary frequencies";
    norm_eps: f32 = "1e-5", "Epsilon of the norms";
    context: usize = "512", "Most positions that the finished model says it can take";
    ternary: bool = "true", "false trains the float twin, for comparisons";
    scales: String = "\"matrix\"", "Which weights share a scale: matrix (BitNet, activations in int8); row or group (activations stay floats)";
    activations: Option<String> = "", "How the inputs of projections are rounded: a8 (BitNet b1.58), a4.8, v2-a8, v2-a4, or a4 for comparisons; that of `from` or a8 if not given";
    a8_steps: u64 = "0", "Steps at the beginning in which these inputs have eight bits: with a4.8, v2-a4 and a4";
    kv: Option<String> = "", "Keys and values are rounded as by `--kv` (q8, q4, q3, q4:q3 and so on), so that the model learns to do with that cache; after `a8_steps`, and not at all if not given";
    group: usize = "128", "Inputs that share a scale with scales = \"group\": 32, 64, 128 or 256";
    quantise_steps: u64 = "0", "Steps at the beginning in which rounding grows from nothing to all of it, for a model that was one of floats";
    subln: bool = "false", "With `from`: put a norm of gain 1 before the output and down projections where that model has none";
    keep_layers: usize = "0", "With `from`: so many of its layers, spread evenly from the first to the last; 0 for all";
    keep_heads: usize = "0", "With `from`: so many query heads of each layer, in whole groups with their key and value heads, the largest by their weights; 0 for all";
    keep_hidden: usize = "0", "With `from`: so many feed-forward units of each layer, the largest by their weights; 0 for all";
    kl: f32 = "1.0", "How much the divergence from the teacher's logits counts beside the cross-entropy";
    temperature: f32 = "5.0", "What both sides' logits are divided by for that";
    relation: f32 = "0.0", "How much the divergence from the relations of the teacher's queries, keys and values counts";
    relation_layer: Option<usize> = "", "The teacher's layer that this is about, counted from 0; a late one if not given (22 of 28)";
    relation_heads: usize = "8", "Parts that queries, keys and values are cut into for it";
    teacher_logits: String = "\"live\"", "live, or stored: the teacher reads all sequences first, and its likeliest tokens are kept on the disk";
    teacher_top: usize = "128", "stored: how many tokens of each position; the rest counts as one";
    init_std: f32 = "0.02", "Deviation of fresh weights";
    length: usize = "256", "Tokens of a training sequence";
    sequences: usize = "8", "Sequences that go through the model together";
    accumulate: usize = "1", "Such batches to a step";
    steps: u64 = "1000", "Steps of the whole run";
    schedule: String = "\"two-stage\"", "two-stage (b1.58), cosine, wsd or constant";
    warmup: u64 = "100", "Steps of linear warm-up";
    rate: f32 = "1.5e-3", "Highest learning rate";
    second_rate: f32 = "0.667", "two-stage: peak of the second half, as a share of `rate`";
    decay_steps: u64 = "200", "wsd: steps of linear decay at the end";
    final_rate: f32 = "0.0", "Learning rate at the end, as a share of `rate`";
    weight_decay: f32 = "0.1", "AdamW's; 0 in the second half of two-stage and in the decay of wsd";
    beta1: f32 = "0.9", "AdamW's";
    beta2: f32 = "0.95", "AdamW's";
    eps: f32 = "1e-8", "AdamW's";
    clip: f32 = "1.0", "Largest norm of the gradient";
    seed: u64 = "1", "Of the weights, the order of documents and the split";
    threads: usize = "0", "0 for all physical cores";
    recompute: bool = "false", "Keep only the input of each layer and compute the rest again: less memory, a third slower";
    log_every: u64 = "10", "Steps between lines of metrics.jsonl";
    validate_every: u64 = "200", "Steps between validations";
    save_every: u64 = "200", "Steps between checkpoints";
    save_minutes: f64 = "0.0", "Minutes between checkpoints as well, if above 0";
    keep: usize = "3", "Checkpoints that are kept";
    sample_every: u64 = "0", "Steps between samples of text, none if 0";
    prompt: String = "\"Once upon a time\"", "What samples continue";
    eval_tasks: Vec<String> = "[]", "Tasks that are put to the model as it is trained, as `tern eval tasks` has them: names, or .json files";
    eval_data: Option<PathBuf> = "", "Folder of the files with their items";
    eval_every: u64 = "0", "Steps between such evaluations, none if 0";
    eval_items: usize = "200", "So many items of each, the first";
    patience: u64 = "0", "Early stopping: the run ends with its best when so many validations, or evaluations, in a row bring nothing better; never if 0";
    stop_by: String = "\"loss\"", "What is looked at for that: loss (held out), or the name of one of `eval_tasks`";
    raw_prompt: bool = "true", "Say in the model that `tern run` continues texts instead of asking by the chat template";
}

/// Keys that name files or folders.
const PATHS: [&str; 8] =
    ["out", "from", "teacher", "tokenizer", "train", "validation_files", "eval_data", "eval_tasks"];

/// The file in a run's folder that holds its configuration.
const KEPT: &str = "train.toml";

impl Run {
    /// The run of a folder, as its last start had it, or a new one of a configuration file; `flags` (key and TOML value, or
    /// plain text) come over it.
    pub fn open(path: &Path, flags: &[(String, String)]) -> Result<Self> {
        if path.is_dir() { Self::kept(path, flags) } else { Self::read(path, flags) }
    }

    /// The run of this folder, as its last start had it.
    pub fn kept(folder: &Path, flags: &[(String, String)]) -> Result<Self> {
        let path = folder.join(KEPT);
        if !folder.is_dir() || !path.is_file() {
            let what = "expected the folder of a run, which has a train.toml; `out` names it";
            return Err(Error::file(folder, what));
        }
        // A folder that was moved is where it is now.
        let mut all = vec![("out".to_owned(), folder.to_string_lossy().into_owned())];
        all.extend_from_slice(flags);
        Self::read(&path, &all)
    }

    /// Keeps the configuration in the run's folder, where [`Run::kept`] reads it; says what has changed since the last
    /// start.
    pub fn keep(&self) -> Result<Vec<String>> {
        let path = self.out.join(KEPT);
        let now = self.table()?;
        let mut changes = Vec::new();
        if path.is_file() {
            let before = Self::kept(&self.out, &[])?.table()?;
            for (key, ..) in KEYS.iter().filter(|(key, ..)| *key != "out") {
                let text = |table: &toml::Table| table.get(*key).map_or("nothing".to_owned(), shown);
                let (old, new) = (text(&before), text(&now));
                if old != new {
                    changes.push(format!("`{key}` is {new} from here on, it was {old}"));
                }
            }
        }
        let mut text =
            String::from("# What this run was last started with; `tern train FOLDER` goes on with it.\n");
        for (key, _, about) in KEYS {
            let line = match now.get(*key) {
                Some(value) => format!("{key} = {}", shown(value)),
                None => format!("# {key} ="),
            };
            text.push_str(&format!("\n# {about}\n{line}\n"));
        }
        tern::file::Whole::begin(&path)?.publish(text.as_bytes())?;
        Ok(changes)
    }

    /// The keys and their values; paths hold wherever a command is typed, and `out` is the folder of the file.
    fn table(&self) -> Result<toml::Table> {
        let wrong = |e: toml::ser::Error| Error::Input(format!("the configuration cannot be written: {e}"));
        let mut table = toml::Table::try_from(self).map_err(wrong)?;
        each_path(&mut table, |path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()));
        table.insert("out".to_owned(), ".".into());
        Ok(table)
    }

    /// Reads a file, with `flags` over it. Paths in the file are relative to it.
    fn read(path: &Path, flags: &[(String, String)]) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::io(path, e))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        Self::parse(&text, flags, folder).map_err(|error| match error {
            Error::Key { key, what } if !flags.iter().any(|(flag, _)| *flag == key) => {
                let line =
                    text.lines().position(|line| line.split('=').next().unwrap_or_default().trim() == key);
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
        each_path(
            &mut table,
            |path| if path == Path::new(".") { folder.to_owned() } else { folder.join(path) },
        );
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
            ("second_rate", self.second_rate),
            ("final_rate", self.final_rate),
            ("weight_decay", self.weight_decay),
            ("init_std", self.init_std),
        ];
        for (key, value) in rates {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(Error::key(key, format!("{value}: expected a number of at least 0")));
            }
        }
        for (key, value) in [("second_rate", self.second_rate), ("final_rate", self.final_rate)] {
            if value > 1.0 {
                return Err(Error::key(key, format!("{value}: expected a share of `rate`, at most 1")));
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
        self.check_distillation()?;
        self.check_pairs()?;
        self.check_evaluation()?;
        self.schedule()?;
        self.stages(Scheme::A8)?;
        self.activation()?;
        self.quantiser()?;
        self.lora()?;
        Ok(())
    }

    fn check_pairs(&self) -> Result<()> {
        if !(self.dpo >= 0.0 && self.dpo.is_finite()) {
            return Err(Error::key("dpo", format!("{}: expected a number of at least 0", self.dpo)));
        }
        if self.dpo == 0.0 {
            return Ok(());
        }
        if self.from.is_none() {
            return Err(Error::key("from", "missing with `dpo`: it names a model that answers already"));
        }
        if !self.sequences.is_multiple_of(2) {
            let what = format!("{}: expected an even number with `dpo`, two for each pair", self.sequences);
            return Err(Error::key("sequences", what));
        }
        let others = [
            ("teacher", self.teacher.is_some()),
            ("quantise_steps", self.quantise_steps > 0),
            ("a8_steps", self.a8_steps > 0),
        ];
        match others.into_iter().find(|(_, given)| *given) {
            Some((key, _)) => {
                Err(Error::key(key, "expected none with `dpo`: the model begins as its reference"))
            }
            None => Ok(()),
        }
    }

    fn check_evaluation(&self) -> Result<()> {
        if self.eval_items == 0 {
            return Err(Error::key("eval_items", "0: expected at least 1"));
        }
        if !self.eval_tasks.is_empty() && self.eval_every == 0 {
            return Err(Error::key(
                "eval_every",
                "0: expected the steps between evaluations with `eval_tasks`",
            ));
        }
        if !self.eval_tasks.is_empty() && !self.ternary && self.sub_norms && self.from.is_none() {
            let what = "no file holds floats with sub-norms, so nothing can be asked; `sub_norms = false`";
            return Err(Error::key("eval_tasks", what));
        }
        Ok(())
    }

    fn check_distillation(&self) -> Result<()> {
        for (key, value) in [("kl", self.kl), ("relation", self.relation)] {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(Error::key(key, format!("{value}: expected a number of at least 0")));
            }
        }
        if !(self.temperature >= 0.01 && self.temperature <= 1000.0) {
            let what = format!("{}: expected a number from 0.01 to 1000", self.temperature);
            return Err(Error::key("temperature", what));
        }
        for (key, value) in [("relation_heads", self.relation_heads), ("teacher_top", self.teacher_top)] {
            if value == 0 || value > 1 << 20 {
                return Err(Error::key(key, format!("{value}: expected 1 to {}", 1 << 20)));
            }
        }
        match self.teacher_logits.as_str() {
            "live" => {}
            "stored" if self.relation > 0.0 && self.teacher.is_some() => {
                let what = "\"stored\" keeps no queries, keys and values; `relation = 0` or \"live\"";
                return Err(Error::key("teacher_logits", what));
            }
            "stored" => {}
            other => {
                return Err(Error::key("teacher_logits", format!("\"{other}\": expected live or stored")));
            }
        }
        if self.quantise_steps > 0 && !self.ternary {
            return Err(Error::key("quantise_steps", "rounds, and `ternary = false` does not"));
        }
        if self.quantise_steps > 0 && self.quantise_steps >= self.steps {
            let what = format!("{}: expected fewer than the {} steps", self.quantise_steps, self.steps);
            return Err(Error::key("quantise_steps", what));
        }
        let alone = [
            ("subln", self.subln),
            ("keep_layers", self.keep_layers > 0),
            ("keep_heads", self.keep_heads > 0),
            ("keep_hidden", self.keep_hidden > 0),
        ];
        if let Some((key, _)) = alone.into_iter().find(|(_, given)| *given && self.from.is_none()) {
            return Err(Error::key(key, "changes the model of `from`, and none is given"));
        }
        Ok(())
    }

    /// The architecture of what begins as this model, and which of its layers become the student's.
    pub(crate) fn student(&self, of: &tern::Config) -> Result<(tern::Config, Vec<usize>)> {
        let mut config = of.clone();
        if self.subln && !config.sub_norms {
            config = config.with_sub_norms().ok_or_else(|| {
                let what = format!("a {} model with sub-norms has no name in files", of.family);
                Error::key("subln", what)
            })?;
        }
        let (all, count) = (of.layers, if self.keep_layers == 0 { of.layers } else { self.keep_layers });
        if count > all {
            return Err(Error::key("keep_layers", format!("{count}: the model has {all}")));
        }
        // The first and the last stay; one alone is the last.
        let layer =
            |nth: usize| if count == 1 { all - 1 } else { (nth * (all - 1) + (count - 1) / 2) / (count - 1) };
        let layers: Vec<usize> = (0..count).map(layer).collect();
        config.layers = count;
        if let Some(sliding) = &mut config.graph.sliding {
            sliding.layers = layers.iter().map(|layer| sliding.layers[*layer]).collect();
            if !sliding.layers.contains(&true) {
                config.graph.sliding = None;
            }
        }
        if self.keep_heads > 0 {
            let group = of.heads / of.kv_heads;
            if self.keep_heads > of.heads || !self.keep_heads.is_multiple_of(group) {
                let what = format!(
                    "{}: expected a multiple of {group}, the query heads to a key head, up to {}",
                    self.keep_heads, of.heads
                );
                return Err(Error::key("keep_heads", what));
            }
            (config.heads, config.kv_heads) = (self.keep_heads, self.keep_heads / group);
        }
        if self.keep_hidden > of.hidden {
            let what = format!("{}: the model has {}", self.keep_hidden, of.hidden);
            return Err(Error::key("keep_hidden", what));
        }
        if self.keep_hidden > 0 {
            config.hidden = self.keep_hidden;
        }
        Ok((config, layers))
    }

    /// The schedule of rates.
    pub fn schedule(&self) -> Result<Schedule> {
        let kind = match self.schedule.as_str() {
            "two-stage" => Kind::TwoStage { second: self.rate * self.second_rate },
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

    /// The adapter that is trained, if it is one, and whether the other keys go with it.
    pub fn lora(&self) -> Result<Option<Lora>> {
        let Some(text) = &self.lora else { return Ok(None) };
        let wrong = |key: &str, what: &str| Err(Error::key(key, format!("{what} with `lora`")));
        if self.from.is_none() {
            return wrong("from", "missing: it names the base");
        }
        if !self.ternary {
            return wrong("ternary", "false: expected true, as the base is");
        }
        if self.scales != "matrix" {
            return wrong("scales", "expected \"matrix\", which a base has");
        }
        if self.activations.is_some() || self.a8_steps > 0 {
            let key = if self.a8_steps > 0 { "a8_steps" } else { "activations" };
            return wrong(key, "expected none: inputs are rounded as the base's are");
        }
        let others = [
            ("teacher", self.teacher.is_some()),
            ("quantise_steps", self.quantise_steps > 0),
            ("keep_layers", self.keep_layers > 0),
            ("keep_heads", self.keep_heads > 0),
            ("keep_hidden", self.keep_hidden > 0),
            ("subln", self.subln),
        ];
        if let Some((key, _)) = others.into_iter().find(|(_, given)| *given) {
            return wrong(key, "expected none: the base stays as it is");
        }
        Lora::parse(text).map(Some)
    }

    /// How weights become trits.
    pub fn quantiser(&self) -> Result<Quantiser> {
        if ![32, 64, 128, 256].contains(&self.group) {
            return Err(Error::key("group", format!("{}: expected 32, 64, 128 or 256", self.group)));
        }
        let quantiser = match self.scales.as_str() {
            "matrix" => Quantiser::Matrix,
            "row" => Quantiser::Row,
            "group" => Quantiser::Group(self.group),
            other => {
                return Err(Error::key("scales", format!("\"{other}\": expected matrix, row or group")));
            }
        };
        Ok(if self.ternary { quantiser } else { Quantiser::Float })
    }

    /// How the inputs of projections are rounded as the run goes; `own` is the scheme of the model that it starts from.
    pub fn stages(&self, own: Scheme) -> Result<Stages> {
        let last = match &self.activations {
            None => own,
            Some(name) => Scheme::from_name(name).ok_or_else(|| {
                let names = Scheme::ALL.map(Scheme::name).join(", ");
                Error::key("activations", format!("\"{name}\": expected one of {names}"))
            })?,
        };
        if last != Scheme::A8 && self.scales != "matrix" {
            let what =
                format!("{} needs `scales = \"matrix\"`: with others activations stay floats", last.name());
            return Err(Error::key("activations", what));
        }
        if self.a8_steps > 0 && self.a8_steps >= self.steps {
            let what = format!("{}: expected fewer than the {} steps", self.a8_steps, self.steps);
            return Err(Error::key("a8_steps", what));
        }
        if self.a8_steps > 0
            && last == last.in_eight_bits()
            && (self.activations.is_some() || self.from.is_none())
        {
            let what =
                format!("{} has eight bits to the end; `activations` names what comes after", last.name());
            return Err(Error::key("a8_steps", what));
        }
        let kv = self.kv()?.unwrap_or(KvFormat::F32);
        Ok(Stages { last, kv, before: self.a8_steps, growing: self.quantise_steps })
    }

    /// The cache that the model is trained for, if it is.
    pub fn kv(&self) -> Result<Option<KvFormat>> {
        let read = |name: &String| {
            KvFormat::from_name(name).ok_or_else(|| {
                let what = format!("\"{name}\": expected one of {}", KvFormat::NAMES.join(", "));
                Error::key("kv", what)
            })
        };
        self.kv.as_ref().map(read).transpose()
    }

    /// The scheme and what a model needs for it.
    pub(crate) fn check_stages(&self, config: &tern::Config) -> Result<Stages> {
        let stages = self.stages(config.graph.scheme)?;
        if stages.last != Scheme::A8 && !config.sub_norms {
            let what =
                format!("{} needs the norms of `sub_norms`, and the model has none", stages.last.name());
            return Err(Error::key("activations", what));
        }
        Ok(stages)
    }

    /// Says which width of a model cannot be cut into groups.
    pub(crate) fn check_groups(&self, config: &tern::Config) -> Result<()> {
        let Quantiser::Group(size) = self.quantiser()? else { return Ok(()) };
        let widths = [("dim", config.dim), ("heads × head_dim", config.q_dim()), ("hidden", config.hidden)];
        match widths.into_iter().find(|(_, width)| !width.is_multiple_of(size)) {
            Some((what, width)) => {
                Err(Error::key("group", format!("{size} does not divide {what}, {width}")))
            }
            None => Ok(()),
        }
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
            graph: tern::Graph::default(),
            pooling: None,
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

/// Changes every path of a table. The built-in model's name is none.
fn each_path(table: &mut toml::Table, change: impl Fn(&Path) -> PathBuf) {
    let one = |path: &mut String| *path = change(Path::new(path)).to_string_lossy().into_owned();
    for key in PATHS {
        match table.get_mut(key) {
            Some(toml::Value::String(path)) if key == "from" && path == tern::STORY => {}
            Some(toml::Value::String(path)) => one(path),
            Some(toml::Value::Array(paths)) => {
                paths.iter_mut().for_each(|path| {
                    // A name alone is a built-in task's.
                    if let toml::Value::String(path) = path
                        && (key != "eval_tasks" || path.ends_with(".json"))
                    {
                        one(path)
                    }
                });
            }
            _ => {}
        }
    }
}

/// A value as a person would write it: texts on one line, numbers as short as they are exact.
fn shown(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => {
            serde_json::Value::from(text.as_str()).to_string().replace('\u{7f}', "\\u007f")
        }
        // Most keys are f32, and in f64 their decimals are long.
        toml::Value::Float(number) if f64::from(*number as f32) == *number => format!("{:?}", *number as f32),
        toml::Value::Float(number) => format!("{number:?}"),
        toml::Value::Array(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
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
            "train" | "validation_files" | "eval_tasks" => toml::Value::String(item.to_owned()),
            _ => value(item).unwrap_or_else(|| toml::Value::String(item.to_owned())),
        });
        return toml::Value::Array(items.collect());
    }
    // What stands between documents may be line ends, which a shell has no easy way to write.
    if key == "separator" {
        return value(&format!("\"{}\"", text.replace('"', "\\\""))).unwrap_or_else(|| text.into());
    }
    let is_text = ["out", "from", "lora", "teacher", "tokenizer", "activations", "kv", "eval_data"]
        .contains(&key)
        || default.starts_with('"');
    match value(text).filter(|_| !is_text) {
        // `--rate 1` means 1.0.
        Some(toml::Value::Integer(n)) if default.contains(['.', 'e']) => toml::Value::Float(n as f64),
        Some(value) => value,
        None => toml::Value::String(text.to_owned()),
    }
}

/// The commented file of `tern train init`.
pub fn template() -> String {
    let mut text = String::from("# tern train CONFIG.toml; every key is a flag too: --rate 1e-3\n");
    for (key, default, about) in KEYS {
        let line = match *key {
            "out" => "out = \"run\"".to_owned(),
            "train" => "train = [\"stories.txt\"]".to_owned(),
            "tokenizer" => "tokenizer = \"tokenizer\"".to_owned(),
            "from" => "# from = \"model/\"".to_owned(),
            "activations" => "# activations = \"a8\"".to_owned(),
            "kv" => "# kv = \"q4\"".to_owned(),
            "teacher" => "# teacher = \"model/\"".to_owned(),
            "relation_layer" => "# relation_layer = 21".to_owned(),
            "eval_data" => "# eval_data = \"eval/\"".to_owned(),
            "lora" => "# lora = \"rank=16,alpha=32,targets=q_proj+v_proj\"".to_owned(),
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
            ("scales = \"column\"", "key `scales`: \"column\""),
            ("group = 100", "key `group`: 100"),
            ("activations = \"a3\"", "key `activations`: \"a3\""),
            ("activations = \"a4.8\"\nscales = \"row\"", "key `activations`: a4.8 needs"),
            ("activations = \"a4.8\"\na8_steps = 1000", "key `a8_steps`: 1000"),
            ("a8_steps = 5", "key `a8_steps`: a8 has"),
            ("kv = \"q5\"", "key `kv`: \"q5\": expected one of f32"),
            ("temperature = 0.0", "key `temperature`: 0"),
            ("kl = -1.0", "key `kl`: -1"),
            ("relation_heads = 0", "key `relation_heads`: 0"),
            ("teacher_logits = \"some\"", "key `teacher_logits`: \"some\""),
            (
                "teacher = \"t\"\nteacher_logits = \"stored\"\nrelation = 1.0",
                "key `teacher_logits`: \"stored\" keeps no",
            ),
            ("quantise_steps = 1000", "key `quantise_steps`: 1000"),
            ("quantise_steps = 10\nternary = false", "key `quantise_steps`: rounds"),
            ("keep_layers = 2", "key `keep_layers`: changes"),
            ("lora = \"rank=4\"", "key `from`: missing: it names the base"),
            ("dpo = 0.1", "key `from`: missing with `dpo`"),
            ("from = \"story\"\ndpo = -0.1", "key `dpo`: -0.1"),
            ("from = \"story\"\ndpo = 0.1\nsequences = 3", "key `sequences`: 3: expected an even number"),
            ("from = \"story\"\ndpo = 0.1\nteacher = \"t\"", "key `teacher`: expected none with `dpo`"),
            ("from = \"story\"\nlora = \"rank=x\"", "key `lora`: rank \"x\""),
            ("from = \"story\"\nlora = \"\"\nscales = \"row\"", "key `scales`: expected \"matrix\""),
            ("from = \"story\"\nlora = \"\"\nactivations = \"a8\"", "key `activations`: expected none"),
        ] {
            let error = Run::parse(&format!("{LEAST}{line}\n"), &[], Path::new("")).unwrap_err().to_string();
            assert!(error.contains(wanted), "{line}: {error}");
            assert!(!error.contains('\n'), "{error}");
        }
        let run = Run::parse(&format!("{LEAST}heads = 6\nkv_heads = 4\n"), &[], Path::new("")).unwrap();
        assert!(run.model(100).unwrap_err().to_string().starts_with("key `kv_heads`"));
    }
}
