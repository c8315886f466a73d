//! `tern inspect`: what is in a model file. Only the header is read, and a file that Tern cannot run is shown as well,
//! with what is wrong about it. With a text the model reads that too.

mod active;
mod metadata;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};
use tern::Encoding;
use tern::Tensor;
use tern::codec::Trits;
use tern::family::{self, PROJECTIONS};
use tern::file::{File, Format, Metadata, OpenOptions};
use tern::{Config, Scaling, Scheme, Tokenizer};
use tern_kernels::Scales;

use crate::failure::Outcome;
use crate::model;
use crate::terminal;
pub(super) use active::json as active_json;
use metadata::{entries, value_json, value_text};

const EXAMPLES: &str = "\
Examples:
  tern inspect model.gguf
  tern inspect model.gguf --json | jq .parameters
  tern inspect model.gguf --text stories.txt
  tern inspect story";

/// Show what is in a model file
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Inspect {
    /// A .gguf file, a .safetensors file, a model directory, or `story`
    #[arg(value_name = "FILE")]
    model: PathBuf,
    /// Read the first 4096 tokens of this text with the model, and show what share of its parameters takes part in a token
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Inspect {
    pub(crate) fn run(self) -> Outcome {
        let file = model::find(&self.model)?.file(OpenOptions::default())?;
        let view = View::new(&self.model, &file);
        let active = self.text.as_deref().map(|text| active::read(&file, text)).transpose()?;
        if self.json {
            let mut json = view.json();
            if let Some(active) = &active {
                json["active"] = active_json(active);
            }
            return terminal::print_json(&json);
        }
        terminal::print(&(view.text() + &active.as_ref().map_or_else(String::new, active::text)))
    }
}

/// A file and what follows from its header.
struct View<'a> {
    path: &'a Path,
    file: &'a File,
    config: Result<Config, String>,
    tokenizer: Result<Option<Tokenizer>, String>,
    parameters: u128,
    bytes: u128,
}

impl<'a> View<'a> {
    fn new(path: &'a Path, file: &'a File) -> Self {
        Self {
            path,
            file,
            config: Config::of(file).map_err(|error| without_path(file, &error)),
            tokenizer: Tokenizer::from_file(file).map_err(|error| without_path(file, &error)),
            parameters: file.tensors().iter().map(parameters).sum(),
            bytes: file.tensors().iter().map(|tensor| tensor.bytes.len() as u128).sum(),
        }
    }

    fn format(&self) -> String {
        match self.file.format {
            Format::Gguf { version } => format!("GGUF version {version}"),
            Format::Safetensors { shards: 1 } => "safetensors".into(),
            Format::Safetensors { shards } => format!("safetensors in {shards} files"),
        }
    }

    fn bits_per_weight(&self) -> f64 {
        if self.parameters == 0 { 0.0 } else { self.bytes as f64 * 8.0 / self.parameters as f64 }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let mut row = |name: &str, value: &str| {
            let _ = writeln!(text, "{name:<16} {value}");
        };
        row("file", &self.path.display().to_string());
        row("format", &self.format());
        if model::is_dummy(self.file) {
            row("dummy", "the weights are random: for measuring speed only");
        }
        match &self.config {
            Ok(config) => {
                for (name, value) in numbers(config) {
                    row(name, &value_text(&value));
                }
                scales(self.file).into_iter().for_each(|scales| row("scales", &scales));
                Config::warnings(self.file).into_iter().flatten().for_each(|what| row("warning", &what));
                if let Err(error) = Config::fits(self.file) {
                    row("cannot run", &without_path(self.file, &error));
                }
            }
            Err(error) => row("architecture", &format!("unknown: {error}")),
        }
        row("parameters", &format!("{} ({})", self.parameters, short(self.parameters)));
        row("tensor bytes", &format!("{} ({:.2} bits per weight)", self.bytes, self.bits_per_weight()));
        match &self.tokenizer {
            Ok(Some(tokenizer)) => {
                row("tokenizer", &format!("{}, {} tokens", self.tokenizer_kind(), tokenizer.size()));
                row("chat template", if tokenizer.template().is_some() { "yes" } else { "no" });
            }
            Ok(None) => row("tokenizer", "none"),
            Err(error) => row("tokenizer", &format!("unusable: {error}")),
        }
        self.tensor_table(&mut text);
        text.push_str("\nmetadata\n");
        for (key, value) in entries(&self.file.metadata) {
            let _ = writeln!(text, "  {} = {}", value_text(&Value::from(key)), value_text(&value));
        }
        text
    }

    fn tensor_table(&self, text: &mut String) {
        let rows: Vec<[String; 4]> = self
            .file
            .tensors()
            .iter()
            .map(|tensor| {
                let dims: Vec<_> = tensor.dims.iter().map(usize::to_string).collect();
                let encoding = tensor.encoding.to_string();
                [
                    value_text(&Value::from(&*tensor.name)),
                    dims.join(" x "),
                    encoding,
                    tensor.bytes.len().to_string(),
                ]
            })
            .collect();
        let head = ["name", "dims", "encoding", "bytes"];
        let width =
            |i: usize| rows.iter().map(|row| row[i].chars().count()).max().unwrap_or(0).max(head[i].len());
        let [name, dims, encoding, bytes] = [width(0), width(1), width(2), width(3)];
        let _ = writeln!(text, "\n{} tensors", rows.len());
        for [n, d, e, b] in std::iter::once(head.map(str::to_owned)).chain(rows) {
            let _ = writeln!(text, "  {n:<name$}  {d:<dims$}  {e:<encoding$}  {b:>bytes$}");
        }
        // One reason for each encoding is enough.
        let refused: BTreeMap<_, _> = self
            .file
            .tensors()
            .iter()
            .filter_map(|tensor| Some((tensor.encoding.to_string(), refusal(tensor)?)))
            .collect();
        for (encoding, reason) in refused {
            let _ = writeln!(text, "\n  {encoding}: {reason}");
        }
    }

    /// Which kind of vocabulary, in the file's words.
    fn tokenizer_kind(&self) -> String {
        match &self.file.metadata {
            Metadata::Gguf(pairs) => {
                pairs.str("tokenizer.ggml.model").ok().flatten().unwrap_or("unnamed").to_owned()
            }
            Metadata::Hf { dir, .. } if dir.join("tokenizer.json").exists() => "tokenizer.json".into(),
            Metadata::Hf { .. } => "tokenizer.model".into(),
        }
    }

    fn json(&self) -> Value {
        let tensors: Vec<_> = self
            .file
            .tensors()
            .iter()
            .map(|tensor| {
                json!({
                    "name": tensor.name,
                    "dims": tensor.dims,
                    "encoding": tensor.encoding.to_string(),
                    "bytes": tensor.bytes.len(),
                    "refused": refusal(tensor),
                })
            })
            .collect();
        let metadata: serde_json::Map<_, _> =
            entries(&self.file.metadata).map(|(key, value)| (key, value_json(value))).collect();
        let tokenizer = match &self.tokenizer {
            Ok(None) => Value::Null,
            Ok(Some(tokenizer)) => json!({
                "kind": self.tokenizer_kind(),
                "size": tokenizer.size(),
                "bos": tokenizer.bos(),
                "stops": tokenizer.stops(),
                "chat_template": tokenizer.template().is_some(),
            }),
            Err(error) => json!({ "error": error }),
        };
        let config = match &self.config {
            Ok(config) => {
                numbers(config).map(|(name, value)| (name.replace([' ', '-'], "_"), value)).collect()
            }
            Err(error) => json!({ "error": error }),
        };
        json!({
            "file": self.path.to_string_lossy(),
            "format": self.format(),
            "dummy": model::is_dummy(self.file),
            "config": config,
            "scales": scales(self.file),
            "warnings": Config::warnings(self.file).unwrap_or_default(),
            "cannot_run": Config::fits(self.file).err().map(|error| without_path(self.file, &error)),
            "parameters": u64::try_from(self.parameters).ok(),
            "tensor_bytes": u64::try_from(self.bytes).ok(),
            "bits_per_weight": self.bits_per_weight(),
            "tokenizer": tokenizer,
            "tensors": tensors,
            "metadata": metadata,
        })
    }
}

/// An error's sentence without the file's name, which stands above already.
fn without_path(file: &File, error: &tern::Error) -> String {
    let text = error.to_string();
    text.strip_prefix(&format!("{}: ", file.path.display())).unwrap_or(&text).to_owned()
}

/// The architecture, one number a line.
fn numbers(config: &Config) -> impl Iterator<Item = (&'static str, Value)> {
    let usual = [
        ("family", json!(config.family)),
        ("layers", json!(config.layers)),
        ("dim", json!(config.dim)),
        ("hidden", json!(config.hidden)),
        ("heads", json!(config.heads)),
        ("kv heads", json!(config.kv_heads)),
        ("head dim", json!(config.head_dim)),
        ("vocab", json!(config.vocab)),
        ("context", json!(config.context)),
        ("activation", json!(format!("{:?}", config.activation).to_lowercase())),
        ("sub-norms", json!(config.sub_norms)),
        ("norm eps", crate::answer::float(config.norm_eps)),
        ("rope base", crate::answer::float(config.rope.base)),
    ];
    usual.into_iter().chain(differences(config))
}

/// How the matrices of the first block are scaled, and how that is known: the others are not read for it.
fn scales(file: &File) -> Option<String> {
    let detected = family::open(file).ok()?;
    let mut kinds: Vec<String> = Vec::new();
    for (module, _) in PROJECTIONS {
        let tensor = file.tensor(&detected.name(&format!("blk.0.{module}.weight")))?;
        let trits = Trits::open(tensor).ok()?;
        let kind = match trits.scales() {
            _ if !trits.is_exact() && !detected.trained_ternary => "none: float weights".to_owned(),
            Scales::One(_) => "one a matrix".to_owned(),
            Scales::Groups { size, .. } if *size >= tensor.cols() => "one a row".to_owned(),
            Scales::Groups { size, .. } => format!("one for each {size} inputs"),
        };
        let known = match (tensor.encoding.is_ternary(), trits.is_exact()) {
            (true, _) => "",
            (false, true) => ", found in the numbers",
            (false, false) if detected.trained_ternary => ", by absmean of the masters",
            (false, false) => "",
        };
        let kind = format!("{kind}{known}");
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    Some(kinds.join("; "))
}

/// Where it differs from Llama's graph; nothing of a Llama.
fn differences(config: &Config) -> Vec<(&'static str, Value)> {
    let (graph, float) = (&config.graph, crate::answer::float);
    let mut list = Vec::new();
    let scaling = match &config.rope.scaling {
        Scaling::None => None,
        Scaling::Linear { factor } => Some(format!("linear by {factor}")),
        Scaling::Llama3 { factor, original, .. } => Some(format!("Llama 3's by {factor} from {original}")),
        Scaling::Yarn(yarn) => Some(format!("YaRN by {} from {}", yarn.factor, yarn.original)),
        Scaling::Divisors(_) => Some("a divisor for each pair".to_owned()),
        Scaling::Long { .. } => Some("LongRoPE, the short factors".to_owned()),
    };
    list.extend(scaling.map(|scaling| ("rope scaling", json!(scaling))));
    let knobs = [
        ("q, k, v biases", graph.biases),
        ("head norms", graph.head_norms),
        ("input norms", graph.input_norms),
        ("output norms", graph.post_norms),
    ];
    list.extend(knobs.into_iter().filter(|(_, is)| *is).map(|(name, is)| (name, json!(is))));
    let scales = [
        ("embedding scale", graph.embedding_scale),
        ("residual scale", graph.residual_scale),
        ("logit divisor", graph.logit_scale),
        ("query scale", graph.query_scale),
    ];
    list.extend(scales.into_iter().filter(|(_, by)| *by != 1.0).map(|(name, by)| (name, float(by))));
    if let Some(sliding) = &graph.sliding {
        let layers = sliding.layers.iter().filter(|slides| **slides).count();
        let text = format!("{} positions in {layers} of {} layers", sliding.window, config.layers);
        list.push(("sliding window", json!(text)));
        list.push(("sliding base", float(sliding.rope.base)));
    }
    if graph.scheme != Scheme::A8 {
        list.push(("activations", json!(graph.scheme.name())));
    }
    list.extend(config.pooling.map(|pooling| ("pooling", json!(pooling.name()))));
    list
}

/// Why Tern reads no tensor of this encoding, if it does not.
fn refusal(tensor: &Tensor) -> Option<String> {
    match tensor.encoding {
        Encoding::Tl1 | Encoding::Tl2 | Encoding::Other(_) | Encoding::Dtype(_) => Trits::open(tensor).err(),
        _ => None,
    }
}

/// The weights in a tensor; sizes are a file's, so their product may be anything.
fn parameters(tensor: &Tensor) -> u128 {
    tensor.dims.iter().fold(1u128, |product, &dim| product.saturating_mul(dim as u128))
}

/// `2.41 B`.
pub(super) fn short(n: u128) -> String {
    let n = n as f64;
    match n {
        1e9.. => format!("{:.2} B", n / 1e9),
        1e6.. => format!("{:.1} M", n / 1e6),
        _ => format!("{:.1} k", n / 1e3),
    }
}
