//! Float masters of a ternary model, in and out: what training starts from and what it leaves.

use std::path::Path;

use serde_json::{Value as Json, json};

use crate::codec::{self, Encoding};
use crate::config::Config;
use crate::convert::keys;
use crate::error::{Error, Result};
use crate::family::{self, Detected, FAMILIES};
use crate::file::hf::CONFIG;
use crate::file::write::{Draft, Entry};
use crate::file::{File, hf_write};

/// A file whose ternary matrices are stored as the floats they were trained as.
#[derive(Debug)]
pub struct Masters<'a> {
    file: &'a File,
    detected: Detected,
}

impl std::fmt::Debug for Detected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Detected({})", self.family.name)
    }
}

impl<'a> Masters<'a> {
    /// Recognises the model; whether it has masters shows when a tensor is read.
    pub fn of(file: &'a File) -> Result<Self> {
        Ok(Self { file, detected: family::open(file)? })
    }

    /// The numbers of its architecture.
    pub fn config(&self) -> &Config {
        &self.detected.config
    }

    /// Whether it has an output head beside the embedding.
    pub fn has_head(&self) -> bool {
        self.file.tensor(&self.detected.name("output.weight")).is_some()
    }

    /// Reads the tensor of this canonical (GGUF) name, `rows` by `out.len() / rows`.
    pub fn read(&self, canonical: &str, rows: usize, out: &mut [f32]) -> Result<()> {
        let name = self.detected.name(canonical);
        let wrong = |what: String| Error::tensor(&self.file.path, &name, what);
        let tensor =
            self.file.tensor(&name).ok_or_else(|| wrong("expected it, found no such tensor".into()))?;
        let cols = out.len() / rows;
        if (tensor.rows(), tensor.cols()) != (rows, cols) {
            return Err(wrong(format!(
                "expected {rows} x {cols}, found {} x {}",
                tensor.rows(),
                tensor.cols()
            )));
        }
        let masters = [Encoding::F32, Encoding::F16, Encoding::Bf16];
        let is_matrix = canonical.starts_with("blk.") && !canonical.contains("norm");
        if is_matrix && !masters.contains(&tensor.encoding) {
            return Err(wrong(format!(
                "expected float masters to train, found {}: its floats are gone",
                tensor.encoding
            )));
        }
        for (row, out) in out.chunks_exact_mut(cols).enumerate() {
            codec::floats(tensor, row, out).map_err(&wrong)?;
        }
        Ok(())
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

/// Writes a Hugging Face checkpoint of f32 masters, quantised by whoever loads it (`autobitlinear`, online): a new
/// directory, there when it is whole. `more` are further keys of `config.json`, `files` go beside it as they are.
pub fn write_masters(
    dir: &Path,
    config: &Config,
    masters: &[Master<'_>],
    more: &[(&str, Json)],
    files: &[(&str, &[u8])],
) -> Result<()> {
    let class = if config.sub_norms { "BitNetForCausalLM" } else { "LlamaForCausalLM" };
    let family = FAMILIES.iter().find(|family| family.hf.contains(&class)).expect("a family of ours");
    let tied = !masters.iter().any(|master| master.name == "output.weight");
    let mut json = keys::config_json(family, config, tied);
    json["quantization_config"] = json!({
        "quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online",
    });
    for (key, value) in more {
        json[*key] = value.clone();
    }
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
    hf_write::put(&draft, CONFIG, keys::pretty(&json).as_bytes())?;
    for (name, bytes) in files {
        hf_write::put(&draft, name, bytes)?;
    }
    hf_write::write(&draft, &entries, |nth, out| {
        use std::io::Write as _;
        for values in masters[nth].values.chunks(1 << 16) {
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            out.write_all(&bytes).map_err(|e| Error::io(dir, e))?;
        }
        Ok(())
    })?;
    draft.publish()
}
