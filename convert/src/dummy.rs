//! Models of any size with random ternary weights, for measuring speed: written as fast as the disk takes them, and
//! marked as dummies in the file.
//!
//! Packed bytes are drawn from tables of valid ones; no trit is ever handled by itself. Scales and embeddings are such
//! that activations neither vanish nor grow, so that the numbers in a run are ordinary ones.

mod pattern;
mod shape;

pub use shape::Shape;

use crate::options::{Floats, Summary, Target};
use crate::plan::{Part, Role};
use crate::{keys, plan};
use pattern::{Bytes, Pattern, ZEROS};
use std::io::Write as _;
use std::path::Path;
use tern::family::{self, FAMILIES, Family};
use tern::file::gguf::{Array, Pairs, Value};
use tern::file::hf::{CONFIG, MODEL};
use tern::file::hf_write::pretty;
use tern::file::write::{Draft, Entry, Out};
use tern::file::{gguf_write, hf_write};
use tern::keys::{DUMMY, SCALE_NAMES, SCALE_VALUES};
use tern::{Encoding, Error, Result, Scheme};
use tern_kernels::{Activation, Scales};

const VOCABULARY: &str = "tokenizer.ggml.model";

/// What to write, and how.
#[derive(Clone, Copy, Debug)]
pub struct DummyOptions {
    /// The format of the output.
    pub to: Target,
    /// The same seed gives the same file.
    pub seed: u64,
    /// How the embedding is written; [`Floats::Keep`] is f16, and bf16 for Hugging Face.
    pub embedding: Floats,
    /// How the output head is written, where it is not the embedding; [`Floats::Keep`] is f16, and bf16 for Hugging Face.
    pub head: Floats,
    /// The longest context that the file claims; the shape's own if `None`.
    pub context: Option<usize>,
    /// The share of gates that ReLU² closes, from [`FEWEST_CLOSED`] to 1: that much of random weights if `None`.
    pub closed_gates: Option<f32>,
}

/// The share of gates that random weights close.
pub const FEWEST_CLOSED: f32 = 0.5;

impl DummyOptions {
    /// In this format, with 16-bit floats.
    pub fn new(to: Target) -> Self {
        Self { to, seed: 0, embedding: Floats::Keep, head: Floats::Keep, context: None, closed_gates: None }
    }
}

/// Writes a model of this shape to `output`: a file, or for [`Target::Hf`] a directory, which must be new or empty.
/// `progress` is called with `(done, total)` bytes written.
pub fn dummy(
    shape: &Shape,
    output: &Path,
    options: &DummyOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Summary> {
    let mut shape = shape.clone();
    shape.config.context = options.context.unwrap_or(shape.config.context);
    let shape = &shape;
    let family = FAMILIES.iter().copied().find(|family| family.name == shape.config.family);
    let family =
        family.ok_or_else(|| Error::Input(format!("no family is called {}", shape.config.family)))?;
    let mut items = items(shape, family, output, options)?;
    let total: u64 = items.iter().map(|item| item.entry.bytes).sum();
    let (tensors, ternary) = (items.len(), items.iter().filter(|item| item.scale.is_some()));
    let sizes: Vec<u64> =
        ternary.map(|item| item.entry.dims.iter().map(|&dim| dim as u64).product()).collect();
    progress(0, total);
    let mut source = Bytes::new(options.seed);
    let mut done = 0;
    let mut body = |path: &Path, item: &Item, out: &mut Out| {
        item.pattern.write(&mut source, &mut |bytes| {
            out.write_all(bytes).map_err(|e| Error::io(path, e))?;
            done += bytes.len() as u64;
            progress(done, total);
            Ok(())
        })
    };
    let name = format!("tern dummy {}: random weights, for measuring speed only", shape.name);
    let entries = |items: &[Item]| items.iter().map(|item| item.entry.clone()).collect::<Vec<_>>();
    let bytes = match options.to {
        Target::Hf => {
            items.sort_by_key(|item| {
                std::cmp::Reverse(hf_write::dtype(item.entry.encoding).map(|(_, size)| size))
            });
            let draft = Draft::directory(output)?;
            let mut config = keys::packed(keys::config_json(family, &shape.config, shape.tied));
            config["_name_or_path"] = name.into();
            config[DUMMY] = true.into();
            hf_write::put(&draft, CONFIG, pretty(&config).as_bytes())?;
            let path = output.join(MODEL);
            let bytes =
                hf_write::write(&draft, MODEL, &entries(&items), |nth, out| body(&path, &items[nth], out))?;
            draft.publish()?;
            bytes
        }
        to => {
            let mut pairs = Pairs::new(output);
            keys::gguf(&mut pairs, &name, family, &shape.config);
            pairs.insert(DUMMY, Value::Bool(true));
            // llama.cpp loads a file without a vocabulary only where this says so.
            pairs.insert(VOCABULARY, Value::String("no_vocab".into()));
            keys::format(&mut pairs, to);
            if shape.group.is_none() && to.encoding().rounds_scales() {
                let scaled = items.iter().filter_map(|item| Some((item.entry.name.as_str(), item.scale?)));
                let (names, scales): (Vec<_>, Vec<_>) = scaled.unzip();
                pairs.insert(SCALE_NAMES, Value::Array(Array::from_strings(names)));
                pairs.insert(SCALE_VALUES, Value::Array(Array::from_f32s(&scales)));
            }
            gguf_write::write(output, pairs, &entries(&items), |nth, out| body(output, &items[nth], out))?
        }
    };
    Ok(Summary {
        family: family.name,
        tensors,
        ternary: sizes.len(),
        weights: sizes.iter().sum(),
        bytes,
        notes: vec!["the weights are random: this model is for measuring speed only".into()],
    })
}

/// One tensor of the output.
struct Item {
    entry: Entry,
    pattern: Pattern,
    /// Of a ternary matrix.
    scale: Option<f32>,
}

fn items(shape: &Shape, family: &Family, output: &Path, options: &DummyOptions) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    let scheme = shape.config.graph.scheme;
    if scheme != Scheme::A8 && !matches!(options.to, Target::I2 | Target::T5) {
        let what = format!(
            "{}: activations ({}) that no other program computes; `--to i2` and `--to t5` are Tern's",
            shape.name,
            scheme.name()
        );
        return Err(Error::Input(what));
    }
    if options.closed_gates.is_some() {
        if shape.config.activation != Activation::Relu2 {
            let what =
                format!("{}: gates that close are those of ReLU² (`bitnet-2b-4t`, `tiny`)", shape.name);
            return Err(Error::Input(what));
        }
        if !matches!(options.to.encoding(), Encoding::I2 | Encoding::T5) {
            return Err(Error::Input(
                "gates that close can be made as i2 or t5; `tern convert` goes on from there".into(),
            ));
        }
    }
    for Part { name, dims, role } in plan::parts(&shape.config, !shape.tied) {
        let is_gate = name.ends_with(".ffn_gate.weight");
        let name = match options.to {
            Target::Hf => family::hf_name(family, "model.", &name),
            _ => name,
        };
        // PyTorch on a CPU cannot multiply f16.
        let kept = if options.to == Target::Hf { Encoding::Bf16 } else { Encoding::F16 };
        let kept = match role {
            Role::Embedding | Role::Head if shape.ternary_embedding && options.to.keeps_ternary() => {
                options.to.encoding()
            }
            _ => kept,
        };
        let floats = |floats: Floats| floats.encoding().unwrap_or(kept);
        let encoding = match role {
            Role::Norm => Encoding::F32,
            Role::Embedding => floats(options.embedding),
            Role::Head => floats(options.head),
            Role::Projection { .. } => options.to.encoding(),
        };
        let (rows, cols) = (dims[..dims.len() - 1].iter().product(), dims[dims.len() - 1]);
        let wrong = |what: String| Error::tensor(output, &name, what);
        if encoding == Encoding::H8 {
            return Err(wrong(
                "cannot be made as int8: make it with f16, then `tern convert --head int8`".into(),
            ));
        }
        let bytes = match shape.group.filter(|_| encoding.is_ternary()) {
            Some(size) => {
                let values = vec![0.0; rows * usize::div_ceil(cols, size)];
                encoding.bytes_with(&dims, &Scales::Groups { size, values })
            }
            None => encoding.bytes(&dims),
        };
        let bytes = bytes.ok_or_else(|| wrong(plan::misfit(encoding, rows, cols)))?;
        let (pattern, scale) = match role {
            Role::Norm => (Pattern::ones(cols), None),
            // Numbers near 1 / sqrt(dim), so that logits are of the order of 1.
            Role::Embedding | Role::Head if !encoding.is_ternary() => {
                (Pattern::floats(encoding, rows, cols), None)
            }
            Role::Embedding | Role::Head | Role::Projection { .. } => {
                // Inputs of variance 1 give outputs of variance 1.
                let scale = 1.0 / ((1.0 - ZEROS) * cols as f32).sqrt();
                let pattern = Pattern::trits(encoding, rows, cols, scale, shape.group).map_err(wrong)?;
                let pattern = match options.closed_gates {
                    // Of the rows that are not all zeros, every other output is below 0.
                    Some(share) if is_gate => pattern.close((share - FEWEST_CLOSED) / (1.0 - FEWEST_CLOSED)),
                    _ => pattern,
                };
                (pattern, Some(scale))
            }
        };
        if let (Target::Hf, Some(scale)) = (options.to, scale) {
            let entry =
                Entry { name: format!("{name}_scale"), dims: vec![1], encoding: Encoding::F32, bytes: 4 };
            items.push(Item { entry, pattern: Pattern::fixed(scale.to_le_bytes().to_vec()), scale: None });
        }
        items.push(Item { entry: Entry { name, dims, encoding, bytes }, pattern, scale });
    }
    Ok(items)
}
