//! A model ready to run: its configuration, weights and tokenizer, and the threads and instructions it runs on.

use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tern_kernels::{Cpu, Intake, KvFormat, Memory, Packing, Pool, Rounding, Ternary, default_threads};

use crate::clock::Instant;
use crate::config::{Config, Inlet, Scheme};
use crate::error::{Error, Result};
use crate::family;
use crate::file::{self, File, OpenOptions};
use crate::rope::Rope;
use crate::tokenizer::Tokenizer;
use crate::units::{Units, Zeros};
use crate::weights::{Head, Layer, Loader, Output, Weights};

/// How a model is loaded and run. The default suits this machine; every field can be set by itself:
///
/// ```
/// use tern::{KvFormat, Model, Options, Packing};
///
/// # fn main() -> tern::Result<()> {
/// let options = Options {
///     threads: Some(2),
///     packing: Some(Packing::I2),
///     kv: KvFormat::INT8,
///     ..Options::default()
/// };
/// let model = Model::story(&options)?;
/// assert_eq!((model.threads(), model.kv()), (2, KvFormat::INT8));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The instruction set by name; the fastest if `None`.
    pub cpu: Option<String>,
    /// Threads; the physical cores that this process may use if `None`.
    pub threads: Option<usize>,
    /// The packing of the weights in memory; the file's own where it is quick here, else the quickest, if `None`.
    pub packing: Option<Packing>,
    /// How the output head is held.
    pub head: Head,
    /// How keys and values are kept.
    pub kv: KvFormat,
    /// How the activations between the ternary products are rounded; if `None`, as the weights were trained: matrices with one
    /// scale each (BitNet) with int8 by token, matrices with scales for rows or groups of columns, whose activations were
    /// floats, with int8 by group of 128, and BitNet a4.8 and v2 as [`Scheme`] says. What is chosen here takes the place of all
    /// these ways; a Hadamard transform, which is part of the model, stays.
    pub activations: Option<Rounding>,
    /// Whether zeros behind closed gates are read when a text is written alone.
    pub zeros: Zeros,
    /// Run the float weights of a model that was not trained ternary as they are, at their size and without the speed of ternary
    /// products: a teacher, or what a ternary model is held against. A ternary model is run as ever.
    pub floats: bool,
    /// Read I2_S tensors in the 64-element order of ARM builds.
    pub i2s_arm: bool,
    /// Read the file into memory at once instead of mapping it, so that it may change afterwards.
    pub copy: bool,
}

/// Most threads that can be asked for.
pub const MAX_THREADS: usize = 512;

/// A model that is ready to run: its configuration, its weights, its tokenizer, and the threads it runs on. It holds no text:
/// any number of [`Generation`](crate::Generation)s and [`Sequence`](crate::Sequence)s can share one, and take turns on its threads.
///
/// ```
/// use tern::{Model, Options};
///
/// # fn main() -> tern::Result<()> {
/// let model = Model::story(&Options::default())?;
/// assert!(model.config().layers > 0);
/// let error = Model::open("no/such.gguf".as_ref(), &Options::default()).unwrap_err();
/// assert!(error.to_string().starts_with("no/such.gguf"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Model {
    pub(crate) config: Config,
    pub(crate) weights: Weights,
    /// What leaves out closed hidden units.
    pub(crate) units: Units,
    pub(crate) cpu: Cpu,
    pub(crate) pool: Arc<Pool>,
    /// How positions turn the heads of layers that see all.
    pub(crate) turns: Turns,
    /// How they turn those of layers with a sliding window, where there are any.
    pub(crate) sliding_turns: Option<Turns>,
    warnings: Vec<String>,
    kv: KvFormat,
    /// How all are rounded, if not as the scheme says.
    pub(crate) rounding: Option<Rounding>,
    /// What becomes of the inputs of projections, in the order of [`Inlet::ALL`].
    pub(crate) intakes: [Intake; 4],
    /// Or why there is none: ids can be run without one.
    tokenizer: std::result::Result<Tokenizer, String>,
    load_time: Duration,
    /// The files that weights may still lie in.
    sources: Vec<Weak<dyn Memory>>,
}

impl Model {
    /// Opens a GGUF file, a safetensors file or a checkpoint directory and makes it ready to run. Files are memory-mapped where
    /// their encoding can be used as it lies.
    pub fn open(path: &Path, options: &Options) -> Result<Model> {
        let start = Instant::now();
        let file = file::open(path, OpenOptions { i2s_arm: options.i2s_arm, copy: options.copy })?;
        Self::build(&file, options, start)
    }

    /// Makes a model from a file that is open already.
    pub fn from_file(file: &File, options: &Options) -> Result<Model> {
        Self::build(file, options, Instant::now())
    }

    fn build(file: &File, options: &Options, start: Instant) -> Result<Model> {
        let cpu = cpu(options.cpu.as_deref())?;
        let threads = options.threads.unwrap_or_else(default_threads);
        if !(1..=MAX_THREADS).contains(&threads) {
            return Err(Error::Input(format!("{threads} threads: expected 1 to {MAX_THREADS}")));
        }
        let pool = Arc::new(Pool::new(threads));
        let detected = family::open(file)?;
        let tokenizer = match Tokenizer::from_file(file) {
            Ok(Some(tokenizer)) => Ok(tokenizer),
            Ok(None) => Err(format!("{} has none; token ids work without", file.path.display())),
            Err(error) => Err(error.to_string()),
        };
        let weights = Loader {
            file,
            detected: &detected,
            cpu,
            pool: &pool,
            packing: options.packing,
            quickest: Packing::quickest(cpu),
            head: options.head,
            floats: options.floats,
        }
        .load()?;
        let mut sources: Vec<Weak<dyn Memory>> = Vec::new();
        for owner in file.tensors().iter().map(|tensor| Arc::downgrade(tensor.bytes.owner())) {
            if !sources.iter().any(|known| known.ptr_eq(&owner)) {
                sources.push(owner);
            }
        }
        let config = detected.config;
        let turns = Turns::of(&config.rope, config.head_dim);
        let sliding = config.graph.sliding.as_ref();
        let sliding_turns = sliding.map(|sliding| Turns::of(&sliding.rope, config.head_dim));
        let warnings = detected.warnings;
        let scheme = config.graph.scheme;
        let by_group = scheme == Scheme::A8 && weights.has_scales_in_rows();
        let rounding = options.activations.or(by_group.then_some(Rounding::Group));
        let intakes = Inlet::ALL.map(|inlet| {
            let trained = scheme.intake(inlet, config.width(inlet));
            Intake { rounding: rounding.unwrap_or(trained.rounding), ..trained }
        });
        let [_, o, gate_up, down] = &intakes;
        let units = Units::new(options.zeros, &config, [o, gate_up, down]);
        let (kv, load_time) = (options.kv, start.elapsed());
        Ok(Model {
            config,
            weights,
            units,
            cpu,
            pool,
            turns,
            sliding_turns,
            warnings,
            kv,
            rounding,
            intakes,
            tokenizer,
            load_time,
            sources,
        })
    }

    /// Returns the numbers of its architecture.
    pub fn config(&self) -> &Config {
        &self.config
    }
    /// Returns what speaks against its file, though it can be run.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }
    /// Returns its tokenizer, or the reason why text cannot be used with it.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        self.tokenizer.as_ref().map_err(|what| Error::Tokenizer(what.clone()))
    }
    /// Returns the name of the instruction set it runs on.
    pub fn cpu_name(&self) -> &'static str {
        self.cpu.name()
    }
    /// Returns the instruction set itself, for measurements beside it.
    pub fn cpu(&self) -> Cpu {
        self.cpu
    }
    /// Returns its thread pool, for measurements beside it.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }
    /// Returns the packing of its weights in memory.
    pub fn packing(&self) -> Packing {
        self.weights.layers.iter().flat_map(Layer::matrices).next().map_or(Packing::I2, Ternary::packing)
    }
    /// Tells whether it is known how texts written alone are computed from now on, while they stay as they are: with
    /// [`Zeros::Auto`] that takes a hundred tokens and some more, in models with ReLU².
    pub fn zeros_settled(&self) -> bool {
        self.units.are_settled()
    }
    /// Returns the bytes of the copies of matrices that it holds by hidden unit ([`Options::zeros`]).
    pub fn unit_bytes(&self) -> u64 {
        self.units.bytes()
    }
    /// Tells how its output head is held.
    pub fn head_form(&self) -> Head {
        match self.weights.output {
            Output::Stored(_) | Output::None => Head::Stored,
            Output::Int8(_) => Head::Int8,
            Output::Ternary(_) => Head::Ternary,
        }
    }
    /// Tells how its sequences keep keys and values.
    pub fn kv(&self) -> KvFormat {
        self.kv
    }
    /// Tells how the activations between its ternary products are rounded: in one way, or as [`Scheme`] says for each.
    pub fn activations(&self) -> &'static str {
        match (self.rounding, self.config.graph.scheme) {
            (Some(rounding), _) => rounding.name(),
            (None, Scheme::A8) => Rounding::Token.name(),
            (None, scheme) => scheme.name(),
        }
    }
    /// Returns the number of threads it runs on.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }
    /// Makes it run on another number of threads (1 to [`MAX_THREADS`]) from now on; no result changes.
    pub fn set_threads(&mut self, threads: usize) {
        self.pool = Arc::new(Pool::new(threads.clamp(1, MAX_THREADS)));
    }
    /// Makes it run on the threads of another model, with which it takes turns; no result changes.
    pub fn share_threads(&mut self, other: &Model) {
        self.pool = Arc::clone(&other.pool);
    }
    /// Returns an error if a file that holds its weights was changed since it was opened: what was computed since then is not
    /// the model's. Asked after a step and before its result is used, it lets nothing wrong through that the system tells
    /// of (docs/serve.md says what it does not).
    pub fn unchanged(&self) -> Result<()> {
        match self.sources.iter().filter_map(Weak::upgrade).find_map(|source| source.changed()) {
            Some(what) => Err(Error::Changed(what)),
            None => Ok(()),
        }
    }
    /// Tells how long loading took, from opening the file on.
    pub fn load_time(&self) -> Duration {
        self.load_time
    }
}

/// What a position turns the pairs of a head by.
#[derive(Debug)]
pub(crate) struct Turns {
    /// `(head_dim / 2)`.
    pub(crate) frequencies: Vec<f32>,
    /// What cosines and sines are multiplied by.
    pub(crate) magnitude: f32,
}

impl Turns {
    fn of(rope: &Rope, head_dim: usize) -> Self {
        Self { frequencies: rope.frequencies(head_dim), magnitude: rope.magnitude() }
    }
}

/// The instruction set of this name, or the best.
fn cpu(name: Option<&str>) -> Result<Cpu> {
    let Some(name) = name else { return Ok(Cpu::best()) };
    Cpu::by_name(name).ok_or_else(|| {
        let names: Vec<_> = Cpu::available().into_iter().map(Cpu::name).collect();
        Error::Input(format!("instruction set `{name}`: this CPU has {}", names.join(", ")))
    })
}
