//! The model families, one file of data each: how a file is recognised, what the family fixes, and how it names its
//! tensors. Canonical names are those of GGUF (`blk.0.attn_q.weight`).

mod bitllm;
mod bitnet;
mod fewer_bits;
mod gemma3;
mod gguf;
mod hf;
mod llama;
mod minicpm;
mod mistral;
mod names;
mod qwen2;
mod qwen3;
mod subln;
mod tensors;

pub use self::names::{PROJECTIONS, hf_name};
use crate::config::{Config, Graph, Scheme};
use crate::error::{Error, Result, quoted};
use crate::file::{File, Metadata};
use crate::keys;
use crate::tensor::Tensor;
use std::fmt;

/// What distinguishes one family from another.
pub struct Family {
    /// The name shown to people.
    pub name: &'static str,
    /// `general.architecture` of its GGUFs; the first is the one written.
    pub gguf: &'static [&'static str],
    /// Entries of `architectures` in its `config.json`.
    pub hf: &'static [&'static str],
    /// What its `config.json` has as `model_type`.
    pub model_types: &'static [&'static str],
    /// Hugging Face names of the two sub-norms; `None` for a family without.
    pub sub_norms: Option<[&'static str; 2]>,
    /// Norms of a block that Llama lacks or that have another name here: canonical and Hugging Face names.
    pub norms: &'static [(&'static str, &'static str)],
    /// Whether q, k and v have biases.
    pub biases: bool,
    /// The activation that the GGUF architecture implies, in `hidden_act`'s words.
    pub gguf_act: &'static str,
    /// Whether GGUFs hold q and k rows permuted for rotation of neighbours.
    pub permuted: bool,
    /// Whether float weights are the masters of a ternary model (else they are a float model's).
    pub masters: bool,
    /// Whether there are embedding models of it, which have a norm in front of each projection.
    pub embeds: bool,
    /// Whether layers can have sliding windows.
    pub windows: bool,
    /// What is Gemma's alone: embedded tokens are multiplied by the root of the width, queries are scaled by a key, and
    /// layers take turns with sliding windows.
    pub gemma: bool,
    /// Whether Hugging Face stores its norms less 1.
    pub less_one: bool,
    /// How the inputs of its projections are rounded: one of these, and where int8 is none, [`keys::ACTIVATIONS`] says which.
    pub schemes: &'static [Scheme],
}

impl Family {
    /// Whether its blocks have the norm of this canonical name, which Llama's have not.
    fn has_norm(&self, module: &str) -> bool {
        self.norms.iter().any(|(name, _)| *name == module)
    }

    /// The scheme that a file's [`keys::ACTIVATIONS`] names, or what is wrong with it.
    fn scheme(&self, named: Option<&str>) -> std::result::Result<Scheme, String> {
        let names: Vec<_> = self.schemes.iter().map(|scheme| format!("\"{}\"", scheme.name())).collect();
        let names = names.join(" or ");
        match named {
            None if self.schemes.contains(&Scheme::A8) => Ok(Scheme::A8),
            None => Err(format!("missing, and a {} model has {names}", self.name)),
            Some(name) => {
                Scheme::from_name(name).filter(|scheme| self.schemes.contains(scheme)).ok_or_else(|| {
                    format!("expected {names} in a {} model, found \"{}\"", self.name, quoted(name))
                })
            }
        }
    }

    /// The graph of its models, but for the numbers of their configuration.
    fn graph(&self, dim: usize) -> Graph {
        Graph {
            biases: self.biases,
            head_norms: self.has_norm("attn_q_norm"),
            post_norms: self.has_norm("post_attention_norm"),
            embedding_scale: if self.gemma { (dim as f32).sqrt() } else { 1.0 },
            ..Graph::default()
        }
    }
}

/// The one list.
pub const FAMILIES: &[&Family] = &[
    &bitnet::FAMILY,
    &bitllm::FAMILY,
    &fewer_bits::A48,
    &fewer_bits::V2,
    &llama::FAMILY,
    &mistral::FAMILY,
    &qwen2::FAMILY,
    &qwen3::FAMILY,
    &minicpm::FAMILY,
    &gemma3::FAMILY,
    &subln::MISTRAL,
    &subln::QWEN2,
    &subln::QWEN3,
    &subln::GEMMA3,
];

/// What a file turned out to be.
#[derive(Clone)]
pub struct Detected {
    /// The family whose names it uses.
    pub family: &'static Family,
    /// The numbers of its architecture.
    pub config: Config,
    /// Whether float weights may be ternarised: the model was trained ternary.
    pub trained_ternary: bool,
    /// What speaks against the file, though it can be run.
    pub warnings: Vec<String>,
    /// Prefix of Hugging Face names (`model.`, say, or none); `None` for a GGUF, whose names are canonical.
    hf_prefix: Option<&'static str>,
}

impl fmt::Debug for Detected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Detected({})", self.family.name)
    }
}

/// Recognises the family of a file and reads its configuration.
fn detect(file: &File) -> Result<Detected> {
    let (family, config, trained_ternary, warnings) = match &file.metadata {
        Metadata::Gguf(pairs) => gguf::detect(file, pairs)?,
        Metadata::Hf { config, .. } => hf::detect(file, config)?,
    };
    if let Err((key, what)) = config.check() {
        return Err(Error::key(&file.path, key, what));
    }
    let begins = |prefix: &&str| file.tensor(&format!("{prefix}embed_tokens.weight")).is_some();
    let hf_prefix = matches!(file.metadata, Metadata::Hf { .. })
        .then(|| names::PREFIXES.into_iter().find(begins).unwrap_or(""));
    Ok(Detected { family, config, trained_ternary, warnings, hf_prefix })
}

/// `detect` for a model that is to be used: each of its tensors has a place in it.
pub fn open(file: &File) -> Result<Detected> {
    let detected = detect(file)?;
    detected.check_tensors(file)?;
    Ok(detected)
}

impl Config {
    /// The same architecture with the two sub-norms of BitNet b1.58; `None` if that has no name in files, as of a family that
    /// no student has been made of.
    pub fn with_sub_norms(&self) -> Option<Config> {
        let family = if self.is_llama() {
            bitnet::FAMILY.name.to_owned()
        } else {
            format!("{} with sub-norms", self.family)
        };
        let family = FAMILIES.iter().find(|known| known.name == family)?;
        Some(Config { family: family.name, sub_norms: true, ..self.clone() })
    }

    /// Whether its graph is Llama's, but for sub-norms and the rounding of activations.
    pub fn is_llama(&self) -> bool {
        Graph { scheme: Scheme::A8, ..self.graph.clone() } == Graph::default() && self.pooling.is_none()
    }

    /// What speaks against a file, though it can be run: keys that it has lost.
    pub fn warnings(file: &File) -> Result<Vec<String>> {
        Ok(detect(file)?.warnings)
    }

    /// The architecture that a file says it has; its weights are not looked at.
    pub fn of(file: &File) -> Result<Config> {
        Ok(detect(file)?.config)
    }

    /// Whether each tensor of a file has a place in its model; loading refuses the file, by the tensor's name, if not.
    pub fn fits(file: &File) -> Result<()> {
        open(file).map(drop)
    }
}

impl Detected {
    /// The name under which the file holds the tensor of this canonical name.
    pub fn name(&self, canonical: &str) -> String {
        match self.hf_prefix {
            None => canonical.to_owned(),
            Some(prefix) => hf_name(self.family, prefix, canonical),
        }
    }

    /// The output head, where the model has one that is not the embedding.
    pub fn own_head<'f>(&self, file: &'f File) -> Option<&'f Tensor> {
        let ready = match &file.metadata {
            Metadata::Gguf(pairs) => pairs.bool(keys::READY_HEAD).ok().flatten() == Some(true),
            Metadata::Hf { .. } => false,
        };
        file.tensor(&self.name("output.weight")).filter(|_| !ready)
    }

    /// Whether the file stores the norm of this canonical name less 1.
    pub fn less_one(&self, canonical: &str) -> bool {
        self.family.less_one && self.hf_prefix.is_some() && !canonical.ends_with("_norm_in.weight")
    }
}

/// The families' GGUF architectures, for messages.
fn known_gguf() -> String {
    let mut names: Vec<_> =
        FAMILIES.iter().flat_map(|family| family.gguf).map(|name| format!("`{name}`")).collect();
    // Mistral's files call themselves `llama`, too.
    names.dedup();
    names.join(", ")
}
