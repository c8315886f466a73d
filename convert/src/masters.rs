//! Float masters of a ternary model, in and out: what training starts from and what it leaves. A model that holds trits
//! alone gives those.

use std::path::Path;

use serde_json::{Value as Json, json};

use tern::codec::{self, Trits};
use tern::family::{self, Detected, FAMILIES};
use tern::file::File;
use tern::file::hf::{CONFIG, MODEL};
use tern::file::hf_write::{self, pretty};
use tern::file::write::{Draft, Entry};
use tern::{Config, Encoding, Error, Graph, Result, Scheme, Tensor};
use tern_kernels::{Pairing, Scales};

use crate::plan::Order;
use crate::{keys, tokens};

/// A model's numbers as training wants them.
#[derive(Debug)]
pub struct Masters<'a> {
    file: &'a File,
    detected: Detected,
    config: Config,
}

impl<'a> Masters<'a> {
    /// Recognises the model.
    pub fn of(file: &'a File) -> Result<Self> {
        let detected = family::open(file)?;
        let Graph { input_norms, residual_scale, logit_scale, .. } = detected.config.graph;
        if input_norms || residual_scale != 1.0 || logit_scale != 1.0 || detected.config.pooling.is_some() {
            let what = format!("a {} model, whose graph training does not know", detected.family.name);
            return Err(Error::file(&file.path, what));
        }
        // Rows are read in the order of Hugging Face, whatever the file's is.
        let mut config = detected.config.clone();
        config.rope.pairing = Pairing::Halves;
        if let Some(sliding) = &mut config.graph.sliding {
            sliding.rope.pairing = Pairing::Halves;
        }
        Ok(Self { file, detected, config })
    }

    /// The numbers of its architecture.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether it has an output head beside the embedding.
    pub fn has_head(&self) -> bool {
        self.detected.own_head(self.file).is_some()
    }

    /// Whether it is a float model, which no trits were trained of: told by its first matrix.
    pub fn are_floats(&self) -> Result<bool> {
        let tensor = self.tensor("blk.0.attn_q.weight", self.config.q_dim(), self.config.dim)?;
        let trits = Trits::open(tensor).map_err(|what| self.wrong(tensor, what))?;
        Ok(!self.detected.trained_ternary && !trits.is_exact())
    }

    /// How the tensor of this canonical (GGUF) name is stored.
    pub fn encoding(&self, canonical: &str) -> Option<Encoding> {
        self.file.tensor(&self.detected.name(canonical)).map(|tensor| tensor.encoding)
    }

    /// The files of its tokenizer, as they lie in a Hugging Face directory.
    pub fn tokenizer_files(&self) -> Result<Vec<(&'static str, Vec<u8>)>> {
        Ok(tokens::files(self.file)?.0)
    }

    /// Reads the tensor of this canonical (GGUF) name, `rows` by `out.len() / rows`; trits come as trit times scale.
    pub fn read(&self, canonical: &str, rows: usize, out: &mut [f32]) -> Result<()> {
        let cols = out.len() / rows;
        let tensor = self.tensor(canonical, rows, cols)?;
        let order = self.order(canonical);
        for (row, out) in out.chunks_exact_mut(cols).enumerate() {
            codec::floats(tensor, order.source(row), out).map_err(|what| self.wrong(tensor, what))?;
        }
        if canonical.ends_with("norm.weight") && self.detected.less_one(canonical) {
            out.iter_mut().for_each(|value| *value += 1.0);
        }
        Ok(())
    }

    /// The trits and the scales of a ternary matrix that holds nothing else; `None` where its floats are there.
    pub fn trits(&self, canonical: &str, rows: usize, out: &mut [i8]) -> Result<Option<Scales>> {
        let cols = out.len() / rows;
        let tensor = self.tensor(canonical, rows, cols)?;
        let trits = Trits::open(tensor).map_err(|what| self.wrong(tensor, what))?;
        if !trits.is_exact() {
            return Ok(None);
        }
        let order = self.order(canonical);
        for (row, out) in out.chunks_exact_mut(cols).enumerate() {
            trits.row(order.source(row), out).map_err(|what| self.wrong(tensor, what))?;
        }
        Ok(Some(match trits.scales() {
            Scales::One(scale) => Scales::One(*scale),
            Scales::Groups { size, values } => {
                let per_row = cols.div_ceil(*size);
                let of = |row: usize| &values[order.source(row) * per_row..][..per_row];
                Scales::Groups { size: *size, values: (0..rows).flat_map(of).copied().collect() }
            }
        }))
    }

    fn wrong(&self, tensor: &Tensor, what: String) -> Error {
        Error::tensor(&self.file.path, &tensor.name, what)
    }

    fn tensor(&self, canonical: &str, rows: usize, cols: usize) -> Result<&'a Tensor> {
        let name = self.detected.name(canonical);
        let missing = || Error::tensor(&self.file.path, &name, "expected it, found no such tensor");
        let tensor = self.file.tensor(&name).ok_or_else(missing)?;
        if (tensor.rows(), tensor.cols()) != (rows, cols) {
            let what = format!("expected {rows} x {cols}, found {} x {}", tensor.rows(), tensor.cols());
            return Err(self.wrong(tensor, what));
        }
        Ok(tensor)
    }

    /// Where the rows of a matrix lie in the file.
    fn order(&self, canonical: &str) -> Order {
        let rotates = canonical.ends_with(".attn_q.weight") || canonical.ends_with(".attn_k.weight");
        match self.detected.config.rope.pairing {
            Pairing::Neighbours if rotates => Order::Separate { head_dim: self.config.head_dim },
            _ => Order::Same,
        }
    }
}

/// One tensor of masters to be written, under its canonical (GGUF) name.
#[derive(Clone, Debug)]
pub struct Master<'a> {
    /// `blk.0.attn_q.weight`, say.
    pub name: String,
    /// Sizes, outermost first.
    pub dims: Vec<usize>,
    /// The numbers.
    pub values: &'a [f32],
}

/// What the numbers of ternary matrices are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weights {
    /// To be rounded when they are loaded, with one scale a matrix (`autobitlinear`, online).
    Masters,
    /// Ternary already.
    Ternary,
    /// Of a float model, which is run as it is.
    Floats,
}

/// Writes a Hugging Face checkpoint in f32: a new directory, there when it is whole. `more` are further keys of `config.json`, `files` go beside it as they are.
pub fn write_masters(
    dir: &Path,
    config: &Config,
    weights: Weights,
    masters: &[Master<'_>],
    more: &[(&str, Json)],
    files: &[(&str, Vec<u8>)],
) -> Result<()> {
    let class = match (config.graph.scheme, config.sub_norms) {
        _ if !config.is_llama() => {
            let family = FAMILIES.iter().find(|family| family.name == config.family);
            family.expect("a family of ours").hf[0]
        }
        (Scheme::A8, true) => "BitNetForCausalLM",
        (Scheme::A8, false) => "LlamaForCausalLM",
        (Scheme::A48, _) => "BitNetA48ForCausalLM",
        (Scheme::V2A8 | Scheme::V2A4 | Scheme::A4, _) => "BitNetV2ForCausalLM",
    };
    let family = FAMILIES.iter().find(|family| family.hf.contains(&class)).expect("a family of ours");
    let tied = !masters.iter().any(|master| master.name == "output.weight");
    let mut json = keys::config_json(family, config, tied);
    if weights == Weights::Masters {
        json["quantization_config"] = json!({
            "quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online",
        });
    }
    for (key, value) in more {
        json[*key] = value.clone();
    }
    keys::ends(&mut json, files);
    let entries: Vec<Entry> = masters
        .iter()
        .map(|master| Entry {
            name: family::hf_name(family, "model.", &master.name),
            dims: master.dims.clone(),
            encoding: Encoding::F32,
            bytes: 4 * master.values.len() as u64,
        })
        .collect();
    let draft = Draft::directory(dir)?;
    hf_write::put(&draft, CONFIG, pretty(&json).as_bytes())?;
    for (name, bytes) in files {
        hf_write::put(&draft, name, bytes)?;
    }
    hf_write::write(&draft, MODEL, &entries, |nth, out| {
        use std::io::Write as _;
        let Master { name, values, .. } = &masters[nth];
        let less = if family.less_one && name.ends_with("norm.weight") { 1.0 } else { 0.0 };
        for values in values.chunks(1 << 16) {
            let bytes: Vec<u8> = values.iter().flat_map(|value| (value - less).to_le_bytes()).collect();
            out.write_all(&bytes).map_err(|e| Error::io(dir, e))?;
        }
        Ok(())
    })?;
    draft.publish()
}
