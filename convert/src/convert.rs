//! Converting a model file into another format: no trit and no scale changes, and memory does not grow with the model.
//!
//! Rows stream from the mapped input to a [draft](tern::file) of the output, which gets its name when it is whole: a
//! conversion that fails or is killed leaves the old file, or none. Float masters are read twice, once for their scales.

mod bodies;

use crate::options::{ConvertOptions, Engine, Summary, Target};
use crate::plan::{Item, Kind};
use crate::{keys, plan, tokens};
use bodies::Meter;
use std::path::Path;
use tern::codec::{self, Trits};
use tern::family::{self, Detected};
use tern::file::gguf::{Array, Pairs, Value};
use tern::file::hf::{CONFIG, MODEL};
use tern::file::hf_write::pretty;
use tern::file::write::{Draft, Entry};
use tern::file::{self, File, Metadata, OpenOptions, gguf_write, hf_write};
use tern::keys::{READY_HEAD, SCALE_NAMES, SCALE_VALUES};
use tern::{Error, Result, Scheme, Tokenizer};
use tern_kernels::Scales;

/// Converts the model at `input` into `output`: a file, or for [`Target::Hf`] a directory, which must be new or empty.
/// `progress` is called with `(done, total)` bytes read.
pub fn convert(
    input: &Path,
    output: &Path,
    options: &ConvertOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Summary> {
    let file = file::open(input, OpenOptions { i2s_arm: options.i2s_arm, copy: false })?;
    convert_file(&file, output, options, progress)
}

/// [`convert`] for a file that is open already.
pub fn convert_file(
    file: &File,
    output: &Path,
    options: &ConvertOptions,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Summary> {
    let detected = family::open(file)?;
    let scheme = detected.config.graph.scheme;
    if scheme != Scheme::A8 && ![Target::I2, Target::T5].contains(&options.to) {
        let what = format!(
            "a {} model, whose activations ({}) no other program computes; `--to i2` and `--to t5` keep it for Tern",
            detected.family.name,
            scheme.name()
        );
        return Err(Error::file(&file.path, what));
    }
    let plain = detected.config.graph == tern::Graph::default() && detected.config.pooling.is_none();
    if detected.config.sub_norms
        && !detected.config.is_llama()
        && ![Target::I2, Target::T5].contains(&options.to)
    {
        let what = format!(
            "a {} model, whose graph no other program computes; `--to i2` and `--to t5` keep it for Tern",
            detected.family.name
        );
        return Err(Error::file(&file.path, what));
    }
    if options.to == Target::Hf && !plain {
        let what = format!("a {} model, which can be written to a GGUF only", detected.family.name);
        return Err(Error::file(&file.path, what));
    }
    if options.to != Target::Hf && detected.config.graph.query_scale != 1.0 {
        let what = "asks for queries of another scale, and a GGUF has no key for that";
        return Err(Error::key(&file.path, "query_pre_attn_scalar", what));
    }
    // Those of Gemma and of students with norms of their own have a key for it.
    let has_windows = detected.family.gemma || detected.config.sub_norms;
    if options.to != Target::Hf && detected.config.graph.sliding.is_some() && !has_windows {
        let what = "a window, for which this architecture has no key in a GGUF; run the checkpoint as it is";
        return Err(Error::key(&file.path, "sliding_window", what));
    }
    let from_gguf = matches!(file.metadata, Metadata::Gguf(_));
    if let Some(what) = options.misfit() {
        return Err(Error::Input(what));
    }
    let (mut engine, mut notes) = (options.engine(), Vec::new());
    if let Some((name, what)) = plan::other_graph(file, &detected, engine) {
        if options.engine.is_some() {
            return Err(Error::tensor(&file.path, &name, what));
        }
        engine = Some(Engine::BitnetCpp);
        notes.push(format!(
            "the names are bitnet.cpp's, for llama.cpp cannot run this model: `{name}` has {what}"
        ));
    }
    if let Some(what) = keys::scaling_misfit(&detected.config.rope.scaling, from_gguf, options.to) {
        return Err(Error::key(&file.path, "rope_scaling", what));
    }
    let factors = plan::factors(file, &detected, options.to);
    let items = plan::items(file, &factors, &detected, options)?;
    let mut meter = Meter::new(&items, progress);
    let mut measured: Vec<Measured> = Vec::with_capacity(items.len());
    for item in items {
        let before = measured.last().and_then(|m| m.scale);
        let m = measure(file, item, before, &mut meter)?;
        if m.is_rounded && !detected.trained_ternary && !options.lossy {
            let what = format!(
                "holds {} weights of a model that was not trained ternary, and rounding them would ruin it; \
                 `tern train distil` trains a ternary model of it, `--lossy` rounds all the same",
                m.item.tensor.encoding
            );
            return Err(Error::tensor(&file.path, &m.item.tensor.name, what));
        }
        measured.push(m);
    }
    let to = options.to;
    let adds_head = plan::adds_head(file, &detected, options);
    let mut job = Job { file, detected: &detected, to, engine, adds_head, measured, notes };
    // Out of a GGUF's arrays a tokenizer.json is made, which says the same where it fails; all else is copied.
    if let Err(error) = Tokenizer::from_file(file)
        && !(from_gguf && to == Target::Hf)
    {
        job.notes.push(format!("the input's tokenizer cannot be used and was copied as it is: {error}"));
    }
    if job.measured.iter().any(|m| m.is_rounded) && !detected.trained_ternary {
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
    /// Of a ternary matrix that has but one.
    scale: Option<f32>,
    /// Kept for these: float masters need not be read for their scale again.
    trits: Option<Trits<'a>>,
    /// Whether weights change, which for masters is what training did too.
    is_rounded: bool,
}

/// `before` is the scale of the item before.
fn measure<'a>(file: &File, item: Item<'a>, before: Option<f32>, meter: &mut Meter) -> Result<Measured<'a>> {
    let tensor = item.tensor;
    let wrong = |what: String| Error::tensor(&file.path, &tensor.name, what);
    let (mut dims, encoding) = (tensor.dims.clone(), item.encoding());
    let (mut scale, mut trits, mut is_rounded) = (None, None, false);
    let bytes = match item.kind {
        Kind::Floats(_) => {
            scale = tensor.scale.filter(|_| encoding.rounds_scales());
            encoding.bytes(&dims)
        }
        Kind::Scale => {
            scale = before;
            dims = vec![1];
            encoding.bytes(&dims)
        }
        Kind::Trits(_) => {
            let opened = Trits::open(tensor).map_err(wrong)?;
            meter.add(tensor, if item.is_float() { tensor.bytes.len() } else { 0 });
            tensor.bytes.release();
            let bytes = encoding.bytes_with(&dims, opened.scales());
            is_rounded = !opened.is_exact();
            if let Some(what) = codec::lacks_room(encoding, opened.scales(), tensor.cols()) {
                return Err(wrong(format!("{what}; `--to i2` holds all")));
            }
            if let Scales::One(one) = opened.scales() {
                scale = Some(*one);
                trits = Some(opened);
            }
            bytes
        }
    };
    let bytes = bytes.ok_or_else(|| wrong(plan::misfit(encoding, tensor.rows(), tensor.cols())))?;
    let entry = Entry { name: item.name.clone(), dims, encoding, bytes };
    Ok(Measured { item, entry, scale, trits, is_rounded })
}

/// One conversion, planned and measured.
struct Job<'a> {
    file: &'a File,
    detected: &'a Detected,
    to: Target,
    engine: Option<Engine>,
    adds_head: bool,
    measured: Vec<Measured<'a>>,
    notes: Vec<String>,
}

impl Job<'_> {
    fn entries(&self) -> Vec<Entry> {
        self.measured.iter().map(|m| m.entry.clone()).collect()
    }

    fn write_gguf(&mut self, output: &Path, meter: &mut Meter) -> Result<u64> {
        let family = plan::gguf_family(self.detected, self.engine);
        let mut pairs = match &self.file.metadata {
            // Tern's own formats keep what the file calls itself.
            Metadata::Gguf(pairs) if self.engine.is_none() => keys::copied(pairs, output),
            Metadata::Gguf(pairs) => {
                keys::copied(&keys::renamed(pairs, family, &self.detected.config)?, output)
            }
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
        if self.adds_head {
            pairs.insert(READY_HEAD, Value::Bool(true));
        }
        let rounded = self.measured.iter().filter(|m| m.entry.encoding.rounds_scales());
        let (names, values): (Vec<_>, Vec<_>) =
            rounded.filter_map(|m| Some((m.entry.name.as_str(), m.scale?))).unzip();
        if !names.is_empty() {
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
        let mut config = match &self.file.metadata {
            Metadata::Gguf(pairs) => keys::hf(self.detected, pairs, tied)?,
            Metadata::Hf { config, .. } => keys::packed(keys::hf_class(config.clone(), self.detected)),
        };
        let (files, notes) = tokens::files(self.file)?;
        keys::ends(&mut config, &files);
        hf_write::put(&draft, CONFIG, pretty(&config).as_bytes())?;
        for (name, bytes) in &files {
            hf_write::put(&draft, name, bytes)?;
        }
        self.notes.extend(notes);
        let path = output.join(MODEL);
        let bytes = hf_write::write(&draft, MODEL, &self.entries(), |nth, out| {
            bodies::write(self.file, &path, &self.measured[nth], out, meter)
        })?;
        draft.publish()?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::PathBuf;
    use tern::file::write::faults;

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
