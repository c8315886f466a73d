//! Every key of a GGUF's architecture is honoured, known to mean nothing for what a model computes here, or refused by
//! name. Keys of other prefixes speak of the file, the tokenizer or another program.

use crate::error::Result;
use crate::file::gguf::{Pairs, Value};

/// Keys that are read where their meaning is.
const HONOURED: &[&str] = &[
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "vocab_size",
    "hidden_act",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.attn_factor",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
    "rope.freq_base_swa",
    "attention.sliding_window_pattern",
    "pooling_type",
];

/// Keys that change nothing that is computed here.
const MEANINGLESS: &[&str] = &[
    "tensor_data_layout", // which tool wrote the file; the architecture fixes the order of rows
    "rope.scaling.finetuned", // whether the stretched model was trained further
];

/// Keys that are read of the families that have them, and fixed for the others.
const OF_SOME: &[(&str, &[&str])] = &[
    ("minicpm", &["embedding_scale", "residual_scale", "logit_scale"]),
    ("gemma3", &["attention.sliding_window"]),
    ("gemma3-subln", &["attention.sliding_window"]),
    ("mistral-subln", &["attention.sliding_window"]),
    ("qwen2-subln", &["attention.sliding_window"]),
    ("qwen3-subln", &["attention.sliding_window"]),
];

/// A key, its one value in words, and whether a value is that.
type Fixed = (&'static str, &'static str, fn(&Value) -> bool);

/// Keys that may stand there with one value only: what it is, and whether a value is that.
const FIXED: &[Fixed] = &[
    ("attention.causal", "true", |value| matches!(value, Value::Bool(true))),
    ("attention.sliding_window", "0 (each position sees all before it)", |value| number(value) == Some(0.0)),
    ("attention.max_alibi_bias", "0", |value| number(value) == Some(0.0)),
    ("attention.clamp_kqv", "0", |value| number(value) == Some(0.0)),
    ("use_parallel_residual", "false", |value| matches!(value, Value::Bool(false))),
    ("expert_count", "0", |value| number(value) == Some(0.0)),
    ("expert_used_count", "0", |value| number(value) == Some(0.0)),
    ("rope.scale_linear", "1 (use `rope.scaling`)", |value| number(value) == Some(1.0)),
    ("logit_scale", "1", |value| number(value) == Some(1.0)),
    ("residual_scale", "1", |value| number(value) == Some(1.0)),
    ("embedding_scale", "1", |value| number(value) == Some(1.0)),
];

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::F32(value) => Some((*value).into()),
        Value::F64(value) => Some(*value),
        other => other.integer().map(|value| value as f64),
    }
}

/// Refuses the first key under `architecture` that may change what the model computes and is not understood.
pub(super) fn check(pairs: &Pairs, architecture: &str) -> Result<()> {
    let prefix = format!("{architecture}.");
    for (key, value) in pairs.iter() {
        let Some(name) = key.strip_prefix(&prefix) else { continue };
        if OF_SOME.iter().any(|(family, keys)| *family == architecture && keys.contains(&name)) {
            continue;
        }
        if let Some((_, expected, fits)) = FIXED.iter().find(|(fixed, ..)| *fixed == name) {
            if !fits(value) {
                return Err(pairs.error(key, format!("expected {expected}, found {}", value.describe())));
            }
        } else if !HONOURED.contains(&name) && !MEANINGLESS.contains(&name) {
            let what = "is not a key that Tern knows, so it may change what the model computes";
            return Err(pairs.error(key, what));
        }
    }
    Ok(())
}
