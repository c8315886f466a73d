//! Converting a model file into another format: no trit and no scale changes, and memory does not grow with the model.
//!
//! Rows stream from the mapped input to a [draft](crate::file) of the output, which gets its name when it is whole: a
//! conversion that fails or is killed leaves the old file, or none. Float masters are read twice, once for their scales.

mod bodies;
pub(crate) mod keys;
pub(crate) mod plan;
mod tokens;

pub use crate::file::write::discard_drafts;

use crate::codec::{Encoding, Trits};
use crate::error::{Error, Result};
use crate::family::{self, Detected};
use crate::file::gguf::{Array, Pairs, SCALE_NAMES, SCALE_VALUES, Value};
use crate::file::hf::{CONFIG, MODEL};
use crate::file::write::{Draft, Entry};
use crate::file::{self, File, Metadata, OpenOptions, gguf_write, hf_write};
use bodies::Meter;
use plan::{Item, Kind};
use std::path::Path;
use tern_kernels::Scales;

/// What a model can be converted to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// GGUF with I2_S tensors: what bitnet.cpp and ik_llama.cpp run.
    I2S,
    /// GGUF with TQ1_0 tensors: the smallest that llama.cpp runs.
    Tq1_0,
    /// GGUF with TQ2_0 tensors: the fastest that llama.cpp runs.
    Tq2_0,
    /// GGUF with Tern's own I2 tensors, mapped and run as they lie: 2 bits a weight.
    I2,
    /// GGUF with Tern's own T5 tensors, mapped and run as they lie: 1.6 bits a weight.
    T5,
    /// A Hugging Face directory with packed `uint8` weights: what transformers runs.
    Hf,
}

impl Target {
    /// Every target.
    pub const ALL: [Target; 6] = [Self::I2, Self::T5, Self::I2S, Self::Tq1_0, Self::Tq2_0, Self::Hf];

    /// The name used in options and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::I2S => "i2_s",
            Self::Tq1_0 => "tq1_0",
            Self::Tq2_0 => "tq2_0",
            Self::I2 => "i2",
            Self::T5 => "t5",
            Self::Hf => "hf",
        }
    }

    /// The target of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|target| target.name() == name)
    }

    /// How ternary matrices are written.
    pub(crate) fn encoding(self) -> Encoding {
        match self {
            Self::I2S => Encoding::I2S,
            Self::Tq1_0 => Encoding::Tq1_0,
            Self::Tq2_0 => Encoding::Tq2_0,
            Self::I2 => Encoding::I2,
            Self::T5 => Encoding::T5,
            Self::Hf => Encoding::Packed,
        }
    }
}

/// How the embedding or the output head is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Floats {
    /// As the input has it, where the target can hold that; else as f32, which loses nothing.
    #[default]
    Keep,
    /// 32 bits a number.
    F32,
    /// 16 bits a number with 11 significant ones; numbers below 6e-5 lose some.
    F16,
    /// 16 bits a number with 8 significant ones.
    Bf16,
    /// 8.5 bits a number.
    Q8_0,
}

impl Floats {
    /// Every choice.
    pub const ALL: [Floats; 5] = [Self::Keep, Self::F32, Self::F16, Self::Bf16, Self::Q8_0];

    /// The name used in options and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Q8_0 => "q8_0",
        }
    }

    /// The choice of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|floats| floats.name() == name)
    }

    /// The encoding asked for; `None` to keep what there is.
    pub(crate) fn encoding(self) -> Option<Encoding> {
        match self {
            Self::Keep => None,
            Self::F32 => Some(Encoding::F32),
            Self::F16 => Some(Encoding::F16),
            Self::Bf16 => Some(Encoding::Bf16),
            Self::Q8_0 => Some(Encoding::Q8_0),
        }
    }
}

/// What to convert to, and how.
#[derive(Clone, Copy, Debug)]
pub struct ConvertOptions {
    /// The format of the output.
    pub to: Target,
    /// Round the float weights of a model that was not trained ternary.
    pub lossy: bool,
    /// The input's I2_S tensors are in the 64-weight order of ARM builds.
    pub i2s_arm: bool,
    /// How the embedding is written.
    pub embedding: Floats,
    /// How the output head is written, where it is not the embedding.
    pub head: Floats,
}

impl ConvertOptions {
    /// To this format, losing nothing.
    pub fn new(to: Target) -> Self {
        Self { to, lossy: false, i2s_arm: false, embedding: Floats::Keep, head: Floats::Keep }
    }
}

/// What was written.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The family of the model.
    pub family: &'static str,
    /// Tensors in the output.
    pub tensors: usize,
    /// Ternary matrices among them.
    pub ternary: usize,
    /// Ternary weights in these.
    pub weights: u64,
    /// Bytes of the model file.
    pub bytes: u64,
    /// What the user should know: sentences without a full stop.
    pub notes: Vec<String>,
}

/// Converts the model at `input` into `output`: a file, or for [`Target::Hf`] a directory, which must be new or empty.
/// `progress` hears of bytes read, and how many there will be.
pub fn convert(
    input: &Path,
    output: &Path,
    options: &ConvertOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Summary> {
    let file = file::open(input, OpenOptions { i2s_arm: options.i2s_arm })?;
    convert_file(&file, output, options, progress)
}

/// [`convert`] for a file that is open already.
pub fn convert_file(
    file: &File,
    output: &Path,
    options: &ConvertOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Summary> {
    let detected = family::detect(file)?;
    let items = plan::items(file, &detected, options)?;
    let mut meter = Meter::new(&items, progress);
    let measured =
        items.into_iter().map(|item| measure(file, item, &mut meter)).collect::<Result<Vec<_>>>()?;
    let mut job = Job { file, detected: &detected, to: options.to, measured, notes: Vec::new() };
    if options.lossy && job.measured.iter().any(|m| m.item.is_rounded()) && !detected.trained_ternary {
        job.notes.push("this model was not trained ternary: expect it to be of no use".into());
    }
    let bytes = match options.to {
        Target::Hf => job.write_hf(output, &mut meter)?,
        _ => job.write_gguf(output, &mut meter)?,
    };
    let ternary = || job.measured.iter().filter(|m| matches!(m.item.kind, Kind::Trits(_)));
    Ok(Summary {
        family: detected.family.name,
        tensors: job.measured.len(),
        ternary: ternary().count(),
        weights: ternary().map(|m| m.item.tensor.rows() as u64 * m.item.tensor.cols() as u64).sum(),
        bytes,
        notes: job.notes,
    })
}

/// An item whose size in the output is known.
pub(crate) struct Measured<'a> {
    item: Item<'a>,
    entry: Entry,
    /// Kept where that is small: a matrix with one scale. Float masters need not be read for it again then.
    trits: Option<Trits<'a>>,
}

fn measure<'a>(file: &File, item: Item<'a>, meter: &mut Meter) -> Result<Measured<'a>> {
    let tensor = item.tensor;
    let wrong = |what: String| Error::tensor(&file.path, &tensor.name, what);
    let (dims, encoding) = (tensor.dims.clone(), item.encoding());
    let mut trits = None;
    let bytes = match item.kind {
        Kind::Floats(_) => encoding.bytes(&dims),
        Kind::Scale | Kind::Trits(_) => {
            let opened = Trits::open(tensor).map_err(wrong)?;
            let one = matches!(opened.scales(), Scales::One(_));
            if !one && !matches!(encoding, Encoding::I2 | Encoding::T5 | Encoding::Tq1_0 | Encoding::Tq2_0) {
                let what = format!("has more than one scale, and {encoding} holds one; `--to i2` holds all");
                return Err(wrong(what));
            }
            meter.add(tensor, if item.is_rounded() { tensor.bytes.len() } else { 0 });
            tensor.bytes.release();
            let bytes = match item.kind {
                Kind::Scale => Some(size_of::<f32>() as u64),
                _ => encoding.bytes_with(&dims, opened.scales()),
            };
            trits = one.then_some(opened);
            bytes
        }
    };
    let bytes = bytes.ok_or_else(|| wrong(plan::misfit(encoding, tensor.rows(), tensor.cols())))?;
    let dims = if matches!(item.kind, Kind::Scale) { vec![1] } else { dims };
    Ok(Measured { entry: Entry { name: item.name.clone(), dims, encoding, bytes }, item, trits })
}

/// One conversion, planned and measured.
struct Job<'a> {
    file: &'a File,
    detected: &'a Detected,
    to: Target,
    measured: Vec<Measured<'a>>,
    notes: Vec<String>,
}

impl Job<'_> {
    fn entries(&self) -> Vec<Entry> {
        self.measured.iter().map(|m| m.entry.clone()).collect()
    }

    fn write_gguf(&mut self, output: &Path, meter: &mut Meter) -> Result<u64> {
        let family = plan::gguf_family(self.detected);
        let mut pairs = match &self.file.metadata {
            Metadata::Gguf(pairs) => keys::copied(pairs, output),
            Metadata::Hf { dir, config, tokenizer_config, generation_config } => {
                let mut pairs = Pairs::new(output);
                keys::gguf(&mut pairs, &keys::name(dir, config), family, &self.detected.config);
                keys::own(config, &mut pairs);
                let hf = tokens::Hf { dir, config, tokenizer_config, generation_config };
                self.notes.extend(tokens::to_gguf(&hf, self.detected.config.vocab, &mut pairs)?);
                pairs
            }
        };
        keys::format(&mut pairs, self.to);
        if matches!(self.to, Target::Tq1_0 | Target::Tq2_0) {
            let (names, values): (Vec<_>, Vec<_>) =
                self.measured.iter().filter_map(|m| Some((m.entry.name.as_str(), m.scale()?))).unzip();
            pairs.insert(SCALE_NAMES, Value::Array(Array::from_strings(names)));
            pairs.insert(SCALE_VALUES, Value::Array(Array::from_f32s(&values)));
        }
        gguf_write::write(output, pairs, &self.entries(), |nth, out| {
            bodies::write(self.file, output, &self.measured[nth], out, meter)
        })
    }

    fn write_hf(&mut self, output: &Path, meter: &mut Meter) -> Result<u64> {
        // Readers want each tensor at a multiple of its element size.
        self.measured
            .sort_by_key(|m| std::cmp::Reverse(hf_write::dtype(m.entry.encoding).map(|(_, size)| size)));
        let draft = Draft::directory(output)?;
        let tied = !self.measured.iter().any(|m| m.entry.name == "lm_head.weight");
        let config = match &self.file.metadata {
            Metadata::Gguf(pairs) => keys::hf(self.detected, pairs, tied)?,
            Metadata::Hf { config, .. } => keys::packed(config.clone()),
        };
        hf_write::put(&draft, CONFIG, keys::pretty(&config).as_bytes())?;
        match &self.file.metadata {
            Metadata::Gguf(pairs) => self.notes.extend(tokens::from_gguf(pairs, &draft)?),
            Metadata::Hf { dir, .. } => self.notes.extend(tokens::copied(dir, &draft)?),
        }
        let path = output.join(MODEL);
        let bytes = hf_write::write(&draft, &self.entries(), |nth, out| {
            bodies::write(self.file, &path, &self.measured[nth], out, meter)
        })?;
        draft.publish()?;
        Ok(bytes)
    }
}

impl Measured<'_> {
    /// The one scale of a ternary matrix that has one.
    fn scale(&self) -> Option<f32> {
        match self.trits.as_ref()?.scales() {
            Scales::One(scale) => Some(*scale),
            Scales::Groups { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::write::faults;
    use std::fs;
    use std::path::PathBuf;

    fn input() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/golden/bitnet_online_bf16")
    }

    /// Everything under a directory, with its contents.
    fn tree(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let mut found = Vec::new();
        let mut dirs = vec![dir.to_owned()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => {
                        found.push((path.clone(), Vec::new()));
                        dirs.push(path);
                    }
                    false => found.push((path.clone(), fs::read(&path).unwrap())),
                }
            }
        }
        found.sort();
        found
    }

    /// Fails at the first disk operation, then at the second, ... until one conversion comes through.
    fn fail_everywhere(to: Target, old: Option<&[u8]>) {
        let dir = tempfile::tempdir().unwrap();
        let output = dir.path().join("out");
        if let Some(old) = old {
            fs::write(&output, old).unwrap();
        }
        let before = tree(dir.path());
        for n in 0.. {
            assert!(n < 1000, "no end of operations");
            faults::fail_after(Some(n));
            let result = convert(&input(), &output, &ConvertOptions::new(to), &mut |_, _| {});
            faults::fail_after(None);
            match result {
                Ok(_) => {
                    assert!(n >= 20, "only {n} operations were seen");
                    file::open(&output, OpenOptions::default()).unwrap();
                    assert_ne!(tree(dir.path()), before);
                    return;
                }
                Err(e) => {
                    assert!(e.to_string().contains("injected fault"), "{e}");
                    assert_eq!(tree(dir.path()), before, "{} with a fault at {n}", to.name());
                }
            }
        }
    }

    #[test]
    fn a_fault_at_any_moment_leaves_no_file_where_there_was_none() {
        for to in [Target::I2, Target::T5, Target::I2S, Target::Hf] {
            fail_everywhere(to, None);
        }
    }

    #[test]
    fn a_fault_at_any_moment_leaves_the_old_file_as_it_was() {
        for to in [Target::I2, Target::T5, Target::I2S] {
            fail_everywhere(to, Some(b"old"));
        }
    }
}
