//! The model families, one file of data each: how a file is recognised, what the family fixes, and how it names its
//! tensors. Canonical names are those of GGUF (`blk.0.attn_q.weight`).

mod bitllm;
mod bitnet;
mod gguf;
mod hf;
mod llama;
mod tensors;

use crate::config::Config;
use crate::error::{Error, Result, quoted};
use crate::file::{File, Metadata};
use std::fmt;

/// What distinguishes one family from another.
pub struct Family {
    /// The name shown to people.
    pub name: &'static str,
    /// `general.architecture` of its GGUFs; the first is the one written.
    pub gguf: &'static [&'static str],
    /// Entries of `architectures` in its `config.json`.
    pub hf: &'static [&'static str],
    /// Hugging Face names of the two sub-norms; `None` for a family without.
    pub sub_norms: Option<[&'static str; 2]>,
    /// The activation that the GGUF architecture implies, in `hidden_act`'s words.
    pub gguf_act: &'static str,
    /// Whether GGUFs hold q and k rows permuted for rotation of neighbours.
    pub permuted: bool,
    /// Whether float weights are the masters of a ternary model (else they are a float model's).
    pub masters: bool,
}

/// The one list.
pub const FAMILIES: &[&Family] = &[&bitnet::FAMILY, &bitllm::FAMILY, &llama::FAMILY];

/// What a file turned out to be.
#[derive(Clone)]
pub struct Detected {
    /// The family whose names it uses.
    pub family: &'static Family,
    /// The numbers of its architecture.
    pub config: Config,
    /// Whether float weights may be ternarised: the model was trained ternary.
    pub trained_ternary: bool,
    /// Prefix of Hugging Face names (`model.` or none); `None` for a GGUF, whose names are canonical.
    hf_prefix: Option<&'static str>,
}

impl fmt::Debug for Detected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Detected({})", self.family.name)
    }
}

/// Recognises the family of a file and reads its configuration.
fn detect(file: &File) -> Result<Detected> {
    let (family, config, trained_ternary) = match &file.metadata {
        Metadata::Gguf(pairs) => gguf::detect(file, pairs)?,
        Metadata::Hf { config, .. } => hf::detect(file, config)?,
    };
    if let Err((key, what)) = config.check() {
        return Err(Error::key(&file.path, key, what));
    }
    let hf_prefix = matches!(file.metadata, Metadata::Hf { .. })
        .then(|| if file.tensor("model.embed_tokens.weight").is_some() { "model." } else { "" });
    Ok(Detected { family, config, trained_ternary, hf_prefix })
}

/// [`detect`] for a model that is to be used: each of its tensors has a place in it.
pub fn open(file: &File) -> Result<Detected> {
    let detected = detect(file)?;
    detected.check_tensors(file)?;
    Ok(detected)
}

impl Config {
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
}

/// The seven projections of a block: canonical and Hugging Face names.
pub const PROJECTIONS: [(&str, &str); 7] = [
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// A canonical name in Hugging Face's words.
pub fn hf_name(family: &Family, prefix: &str, canonical: &str) -> String {
    match canonical {
        "token_embd.weight" => return format!("{prefix}embed_tokens.weight"),
        "output_norm.weight" => return format!("{prefix}norm.weight"),
        "output.weight" => return "lm_head.weight".to_owned(),
        _ => {}
    }
    let mut parts = canonical.splitn(3, '.');
    let (Some("blk"), Some(layer), Some(rest)) = (parts.next(), parts.next(), parts.next()) else {
        return canonical.to_owned();
    };
    let module = rest.strip_suffix(".weight").unwrap_or(rest);
    let [attn_sub_norm, ffn_sub_norm] = family.sub_norms.unwrap_or(["", ""]);
    let hf = match module {
        "attn_norm" => "input_layernorm",
        "ffn_norm" => "post_attention_layernorm",
        "attn_sub_norm" => attn_sub_norm,
        "ffn_sub_norm" => ffn_sub_norm,
        _ => PROJECTIONS.iter().find(|(name, _)| *name == module).map_or(module, |(_, hf)| hf),
    };
    format!("{prefix}layers.{layer}.{hf}.weight")
}

/// What is said of a model with a norm in front of every projection, as the BitNet embedding models have.
fn embedding(architecture: &str) -> String {
    format!(
        "`{}` with a norm in front of every projection: a BitNet embedding model, which Tern recognises but cannot run yet",
        quoted(architecture)
    )
}

/// The families' GGUF architectures, for messages.
fn known_gguf() -> String {
    let names: Vec<_> =
        FAMILIES.iter().flat_map(|family| family.gguf).map(|name| format!("`{name}`")).collect();
    names.join(", ")
}
