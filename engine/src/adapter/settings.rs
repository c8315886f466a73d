//! What `adapter_config.json` says, and which of PEFT's ways Tern does not go.

use std::path::Path;

use serde_json::Value;

use super::named;
use crate::error::{Error, Result};
use crate::file::hf::json;

/// The configuration of an adapter.
pub const SETTINGS: &str = "adapter_config.json";
/// Its tensors.
pub const TENSORS: &str = "adapter_model.safetensors";

/// Keys that change nothing that an adapter computes, whatever they say.
const HARMLESS: [&str; 14] = [
    "auto_mapping",
    "base_model_name_or_path",
    "exclude_modules",
    "inference_mode",
    "layers_pattern",
    "layers_to_transform",
    "lora_dropout",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
];

/// Ways of making the first `A` that leave the base as it is; the others change it.
const BEGINNINGS: [&str; 3] = ["gaussian", "eva", "orthogonal"];

/// The widest that an adapter may be.
const MAX_RANK: u64 = 1 << 14;

pub(super) struct Settings {
    pub(super) rank: usize,
    pub(super) scale: f32,
}

/// Whether a value says nothing: PEFT writes every key that it has.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(keys) => keys.is_empty(),
        _ => false,
    }
}

pub(super) fn read(path: &Path) -> Result<Settings> {
    let settings = json(path)?;
    let Some(keys) = settings.as_object() else {
        return Err(Error::file(path, "expected an object of settings"));
    };
    let value = |key: &str| keys.get(key).unwrap_or(&Value::Null);
    let wrong = |key: &str, what: &str| {
        let found = named(&value(key).to_string());
        Err(Error::key(path, key, format!("expected {what}, found {found}")))
    };
    if value("peft_type") != "LORA" {
        return wrong("peft_type", "\"LORA\", the only kind of adapter that Tern has");
    }
    let rank = match value("r").as_u64() {
        Some(rank @ 1..=MAX_RANK) => rank as usize,
        _ => return wrong("r", "a rank of 1 to 16384"),
    };
    let alpha = match value("lora_alpha").as_f64() {
        Some(alpha) if (alpha as f32).is_finite() => alpha,
        _ => return wrong("lora_alpha", "a number"),
    };
    if !matches!(value("bias").as_str(), None | Some("none")) {
        return wrong("bias", "\"none\": Tern adds no biases");
    }
    match value("init_lora_weights") {
        Value::Null | Value::Bool(_) => {}
        Value::String(name) if BEGINNINGS.contains(&name.as_str()) => {}
        _ => {
            return wrong(
                "init_lora_weights",
                "a beginning that leaves the base's weights as they are (true, \"gaussian\", \"eva\", \"orthogonal\")",
            );
        }
    }
    let by_root = value("use_rslora") == &Value::Bool(true);
    let read = ["peft_type", "r", "lora_alpha", "bias", "init_lora_weights", "use_rslora"];
    let known = |key: &str| read.contains(&key) || HARMLESS.contains(&key);
    if let Some((key, _)) = keys.iter().find(|(key, value)| !known(key) && !is_nothing(value)) {
        return wrong(key, "nothing: Tern does not know what it would change");
    }
    let width = if by_root { (rank as f64).sqrt() } else { rank as f64 };
    Ok(Settings { rank, scale: (alpha / width) as f32 })
}
