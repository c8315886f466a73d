//! Which tensors a model has. Every tensor of a file is one of them, or known to mean nothing, or refused by its name:
//! one that is left out silently is a different model.

use std::collections::HashSet;

use super::names::{NORM_IN, VIBEVOICE};
use super::{Detected, PROJECTIONS, gguf};
use crate::error::{Error, Result};
use crate::file::{File, Metadata};

/// Endings of tensors that no implementation computes with any more: the rotary frequencies that old checkpoints keep
/// as buffers, which follow from the configuration.
const BUFFERS: [&str; 1] = [".rotary_emb.inv_freq"];

/// The norms of every block.
const NORMS: [&str; 2] = ["attn_norm", "ffn_norm"];
/// The norms that some families have besides.
const SUB_NORMS: [&str; 2] = ["attn_sub_norm", "ffn_sub_norm"];
/// The projections that have biases where a family has any.
const BIASED: [&str; 3] = ["attn_q", "attn_k", "attn_v"];

impl Detected {
    /// Refuses, by name, the first tensor of the file that the model has no use for, and an output head that
    /// contradicts the configuration.
    pub(crate) fn check_tensors(&self, file: &File) -> Result<()> {
        let known = self.names();
        for tensor in file.tensors() {
            let name = tensor.name.as_str();
            let other_part = self.hf_prefix == Some(VIBEVOICE) && !name.starts_with(VIBEVOICE);
            let buffer = BUFFERS.iter().any(|buffer| name.ends_with(buffer));
            if !known.contains(name) && !buffer && !other_part {
                return Err(Error::tensor(&file.path, name, self.stranger(name)));
            }
        }
        match &file.metadata {
            Metadata::Hf { config, .. } => self.check_head(file, config.get("tie_word_embeddings")),
            Metadata::Gguf(_) => Ok(()),
        }
    }

    /// The names of all tensors that a model of this configuration can have, as its file writes them.
    fn names(&self) -> HashSet<String> {
        let mut names: HashSet<String> =
            ["token_embd.weight", "output_norm.weight", "output.weight"].map(|name| self.name(name)).into();
        if self.hf_prefix.is_none() {
            names.extend([gguf::DIVISORS, gguf::LONG, gguf::SHORT].map(str::to_owned));
        }
        let sub_norms = if self.config.sub_norms { &SUB_NORMS[..] } else { &[] };
        for layer in 0..self.config.layers {
            let projections = || PROJECTIONS.iter().map(|(module, _)| *module);
            let own_norms = self.family.norms.iter().map(|(module, _)| *module);
            let norms = NORMS.iter().chain(sub_norms).copied().chain(own_norms);
            let mut modules: Vec<String> =
                projections().chain(norms).map(|module| format!("{module}.weight")).collect();
            if self.config.graph.input_norms {
                modules.extend(projections().map(|module| format!("{module}{NORM_IN}.weight")));
            }
            if self.config.graph.biases {
                modules.extend(BIASED.map(|module| format!("{module}.bias")));
            }
            names.extend(modules.iter().map(|module| self.name(&format!("blk.{layer}.{module}"))));
        }
        names
    }

    /// Why a tensor has no place in the model.
    fn stranger(&self, name: &str) -> String {
        let (family, layers) = (self.family.name, self.config.layers);
        let mut parts = name.split('.').skip_while(|part| !["layers", "blk"].contains(part)).skip(1);
        let layer = parts.next().and_then(|part| part.parse::<usize>().ok());
        if let Some(layer) = layer.filter(|layer| *layer >= layers) {
            let key = if self.hf_prefix.is_some() { "num_hidden_layers" } else { "block_count" };
            return format!(
                "belongs to block {layer}, but `{key}` is {layers}, so that blocks end at {}",
                layers - 1
            );
        }
        if name.ends_with(".bias") {
            return format!("is a bias, and a {family} model has none; Tern cannot run this model");
        }
        if name.ends_with("weight_scale") || name.ends_with(".scale") {
            return "is a scale, and the weight beside it is not packed in a way that has one".to_owned();
        }
        if name.contains("norm") || name.contains("_ln") {
            return format!("is a norm that a {family} model does not have; Tern cannot run this model");
        }
        format!("is not part of a {family} model, and nothing says what it is for")
    }

    /// `tie_word_embeddings` against what the file holds.
    fn check_head(&self, file: &File, tied: Option<&serde_json::Value>) -> Result<()> {
        let name = self.name("output.weight");
        let head = file.tensor(&name);
        let wrong = |what: String| Err(Error::key(&file.keys_path(), "tie_word_embeddings", what));
        match (tied.and_then(serde_json::Value::as_bool), head) {
            (Some(false), None) => wrong(format!(
                "false, so the output head is a tensor of its own, but the file has no `{name}`"
            )),
            (Some(true), Some(head)) => {
                let embedding = file.tensor(&self.name("token_embd.weight"));
                let same = embedding.is_some_and(|embedding| {
                    (head.encoding, &head.dims) == (embedding.encoding, &embedding.dims)
                        && head.bytes[..] == embedding.bytes[..]
                });
                match same {
                    true => Ok(()),
                    false => wrong(format!(
                        "true, so the embedding is the output head, but the file has a `{name}` that differs from it"
                    )),
                }
            }
            _ => Ok(()),
        }
    }
}
