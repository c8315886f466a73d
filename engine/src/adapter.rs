//! LoRA adapters (Hu and others, 2021) in the layout of PEFT: beside a projection `y = W x` stand two narrow matrices of
//! floats, and `y` gets `(alpha / r) B (A x)` besides. `x` is the projection's input as floats, normed and not yet rounded.
//!
//! ```text
//! adapter_config.json         r, lora_alpha, target_modules, ...
//! adapter_model.safetensors   base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight (r, inputs)
//!                             base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight (outputs, r)
//! ```
//!
//! Nothing is guessed here either: a key of the configuration that is not known, and says something, is refused by its name.

mod added;
mod settings;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use tern_kernels::Pairing;

pub(crate) use self::added::{Added, Source};
pub use self::settings::{SETTINGS, TENSORS};
use crate::codec;
use crate::config::{Config, Inlet};
use crate::error::{Error, Result, quoted};
use crate::family::PROJECTIONS;
use crate::file::{self, File, OpenOptions};
use crate::tensor::Encoding;

/// What stands before the names of a base's tensors.
const PREFIX: &str = "base_model.model.model.layers.";

/// An adapter, ready to run beside the model that it was read for.
///
/// ```
/// use tern::{Adapter, Model, Options};
///
/// # fn main() -> tern::Result<()> {
/// let model = Model::story(&Options::default())?;
/// let error = Adapter::open("no/such".as_ref(), model.config()).unwrap_err();
/// assert!(error.to_string().starts_with("no/such/adapter_config.json"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Adapter {
    /// No two adapters of a process have the same.
    id: u64,
    path: PathBuf,
    rank: usize,
    scale: f32,
    /// One of each layer, the projections in the order of [`PROJECTIONS`].
    layers: Vec<[Option<Pair>; 7]>,
}

/// What is added to one projection.
#[derive(Debug)]
pub struct Pair {
    /// `(rank, inputs)`.
    pub a: Vec<f32>,
    /// `(rank, outputs)`: `B` transposed.
    pub b: Vec<f32>,
}

/// Outputs and inputs of each projection, in the order of [`PROJECTIONS`].
pub fn shapes(config: &Config) -> [(usize, usize); 7] {
    let Config { dim, hidden, .. } = *config;
    let (q_dim, kv_dim) = (config.q_dim(), config.kv_dim());
    [(q_dim, dim), (kv_dim, dim), (kv_dim, dim), (dim, q_dim), (hidden, dim), (hidden, dim), (dim, hidden)]
}

/// The name of a projection's half in an adapter's file: `lora_A` or `lora_B`.
pub fn tensor_name(layer: usize, projection: usize, half: &str) -> String {
    format!("{PREFIX}{layer}.{}.{half}.weight", PROJECTIONS[projection].1)
}

/// Where the projections of one input are among the seven.
fn first(inlet: Inlet) -> usize {
    match inlet {
        Inlet::Qkv => 0,
        Inlet::O => 3,
        Inlet::GateUp => 4,
        Inlet::Down => 6,
    }
}

impl Adapter {
    /// Reads the adapter of a folder for a model of this configuration.
    pub fn open(dir: &Path, config: &Config) -> Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(1);
        let settings = settings::read(&dir.join(SETTINGS))?;
        let file = file::open(&dir.join(TENSORS), OpenOptions { copy: true, ..OpenOptions::default() })?;
        let mut layers: Vec<[Option<Pair>; 7]> = Vec::new();
        layers.resize_with(config.layers, Default::default);
        let shapes = shapes(config);
        for tensor in file.tensors() {
            let wrong = |what: String| Err(file.error(&tensor.name, what));
            let Some((layer, projection, half)) = place(&tensor.name) else {
                return wrong(format!(
                    "expected `{}` and the like, for layers and the projections of a block alone",
                    tensor_name(0, 0, "lora_A")
                ));
            };
            if layer >= config.layers {
                return wrong(format!(
                    "the model has {} layers: the adapter belongs to another base",
                    config.layers
                ));
            }
            let (outputs, inputs) = shapes[projection];
            let dims = if half == "lora_A" { [settings.rank, inputs] } else { [outputs, settings.rank] };
            if tensor.dims != dims {
                return wrong(format!(
                    "expected {dims:?} by the model and the rank {}, found {:?}: the adapter belongs to another base",
                    settings.rank, tensor.dims
                ));
            }
            if half != "lora_A" {
                continue;
            }
            let partner = tensor_name(layer, projection, "lora_B");
            if file.tensor(&partner).is_none() {
                return wrong(format!("expected `{partner}` beside it, found none"));
            }
            let a = floats(&file, &tensor.name)?;
            let rows = floats(&file, &partner)?;
            let rotates = projection < 2 && config.rope.pairing == Pairing::Neighbours;
            let b = turned(&rows, settings.rank, |row| match rotates {
                // PEFT's rows are Hugging Face's; the model's have the two of a pair side by side.
                true => halves(row, config.head_dim),
                false => row,
            });
            layers[layer][projection] = Some(Pair { a, b });
        }
        let halves = 2 * layers.iter().flatten().flatten().count();
        if halves == 0 {
            return Err(Error::file(&file.path, "expected tensors of LoRA, found none"));
        }
        if let Some(alone) = file.tensors().iter().find(|tensor| {
            place(&tensor.name).is_some_and(|(layer, projection, _)| layers[layer][projection].is_none())
        }) {
            return Err(file.error(&alone.name, "expected its `lora_A` beside it, found none"));
        }
        let id = COUNT.fetch_add(1, Ordering::Relaxed);
        Ok(Self { id, path: dir.to_owned(), rank: settings.rank, scale: settings.scale, layers })
    }

    /// The folder that it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The width between its two matrices.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// What its product is multiplied by.
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// The same, which counts this much of what it did.
    pub fn scaled(mut self, by: f32) -> Self {
        self.scale *= by;
        self
    }

    /// Bytes that it holds.
    pub fn bytes(&self) -> u64 {
        let pairs = self.layers.iter().flatten().flatten();
        pairs.map(|pair| 4 * (pair.a.len() + pair.b.len()) as u64).sum()
    }

    /// What it adds to a projection, by the order of [`PROJECTIONS`].
    pub fn pair(&self, layer: usize, projection: usize) -> Option<&Pair> {
        self.layers.get(layer)?.get(projection)?.as_ref()
    }

    /// What keys and values that it took part in are known by.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Whether it was read for a model of this configuration.
    pub(crate) fn fits(&self, config: &Config) -> bool {
        let shapes = shapes(config);
        let fits = |(pair, (outputs, inputs)): (&Option<Pair>, (usize, usize))| {
            let len = |width: usize| width * self.rank;
            pair.as_ref().is_none_or(|pair| (pair.a.len(), pair.b.len()) == (len(inputs), len(outputs)))
        };
        self.layers.len() == config.layers
            && self.layers.iter().all(|pairs| pairs.iter().zip(shapes).all(fits))
    }
}

/// The layer, the projection and the half that a tensor's name means.
fn place(name: &str) -> Option<(usize, usize, &'static str)> {
    let (layer, rest) = name.strip_prefix(PREFIX)?.split_once('.')?;
    let layer = layer.parse().ok().filter(|number: &usize| number.to_string() == layer)?;
    let (projection, half) = ["lora_A", "lora_B"].into_iter().find_map(|half| {
        let module = rest.strip_suffix(".weight")?.strip_suffix(half)?.strip_suffix('.')?;
        Some((PROJECTIONS.iter().position(|(_, hf)| *hf == module)?, half))
    })?;
    Some((layer, projection, half))
}

/// The numbers of a tensor.
fn floats(file: &File, name: &str) -> Result<Vec<f32>> {
    let tensor = file.tensor(name).expect("it was found before");
    let wrong = |what: String| file.error(name, what);
    if !matches!(tensor.encoding, Encoding::F32 | Encoding::F16 | Encoding::Bf16) {
        return Err(wrong(format!("expected f32, f16 or bf16, found {}", tensor.encoding)));
    }
    let cols = tensor.cols();
    let mut values = vec![0f32; tensor.rows() * cols];
    for (row, out) in values.chunks_exact_mut(cols).enumerate() {
        codec::floats(tensor, row, out).map_err(wrong)?;
    }
    match values.iter().find(|value| !value.is_finite()) {
        Some(value) => Err(wrong(format!("expected numbers, found {value}"))),
        None => Ok(values),
    }
}

/// Rows of `cols` numbers as columns; `source` says which row comes where.
fn turned(rows: &[f32], cols: usize, source: impl Fn(usize) -> usize) -> Vec<f32> {
    let count = rows.len() / cols;
    let mut out = vec![0f32; rows.len()];
    for row in 0..count {
        for (col, value) in rows[source(row) * cols..][..cols].iter().enumerate() {
            out[col * count + row] = *value;
        }
    }
    out
}

/// The row of a matrix in Hugging Face's order that is this row where the two of a pair lie side by side.
fn halves(row: usize, head_dim: usize) -> usize {
    let (head, at) = (row / head_dim, row % head_dim);
    head * head_dim + at / 2 + at % 2 * (head_dim / 2)
}

/// A name on one line, for messages.
fn named(name: &str) -> String {
    format!("`{}`", quoted(name))
}
