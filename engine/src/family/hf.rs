//! A [`Config`] out of Hugging Face's `config.json`. Values that change the arithmetic and are not understood are
//! errors that name the key.

mod keys;
mod rope;

use serde_json::Value;
use tern_kernels::Activation;

use super::{FAMILIES, Family};
use crate::config::Config;
use crate::error::{Error, Result, quoted};
use crate::file::File;
use crate::rope::{Pairing, Rope};

/// `config.json` with errors that name its keys.
struct Json<'a> {
    file: &'a File,
    config: &'a Value,
}

impl<'a> Json<'a> {
    /// The value of a key; null is absent.
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.config.get(key).filter(|value| !value.is_null())
    }

    fn error(&self, key: &str, what: impl Into<String>) -> Error {
        Error::key(&self.file.keys_path(), key, what)
    }

    fn wrong(&self, key: &str, expected: &str, found: &Value) -> Error {
        self.error(key, format!("expected {expected}, found {}", quoted(&found.to_string())))
    }

    fn size(&self, key: &str) -> Result<Option<usize>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let size = value.as_u64().and_then(|n| usize::try_from(n).ok());
        size.map(Some).ok_or_else(|| self.wrong(key, "a whole number", value))
    }

    fn needed_size(&self, key: &str) -> Result<usize> {
        self.size(key)?.ok_or_else(|| self.error(key, "missing, and nothing stands in for it"))
    }

    fn number(&self, key: &str) -> Result<Option<f32>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_f64().map(|n| Some(n as f32)).ok_or_else(|| self.wrong(key, "a number", value))
    }
}

pub(super) fn detect(file: &File, config: &Value) -> Result<(&'static Family, Config, bool)> {
    let json = Json { file, config };
    let family = family(&json)?;
    keys::check(&json)?;
    let trained = trained_ternary(&json)?;
    for key in ["attention_bias", "mlp_bias"] {
        if let Some(value) = json.get(key).filter(|value| **value != Value::Bool(false)) {
            return Err(json.wrong(key, "false (no ternary family has biases)", value));
        }
    }
    if let Some(value) = json.get("tie_word_embeddings").filter(|value| !value.is_boolean()) {
        return Err(json.wrong("tie_word_embeddings", "true or false", value));
    }
    let (dim, heads) = (json.needed_size("hidden_size")?, json.needed_size("num_attention_heads")?);
    let head_dim = match json.size("head_dim")? {
        Some(head_dim) => head_dim,
        None => dim.checked_div(heads).unwrap_or(0),
    };
    let config = Config {
        family: family.name,
        dim,
        hidden: json.needed_size("intermediate_size")?,
        layers: json.needed_size("num_hidden_layers")?,
        heads,
        kv_heads: json.size("num_key_value_heads")?.unwrap_or(heads),
        head_dim,
        vocab: json.needed_size("vocab_size")?,
        context: json.needed_size("max_position_embeddings")?,
        norm_eps: match json.number("rms_norm_eps")? {
            Some(eps) => eps,
            None => {
                return Err(json.error("rms_norm_eps", "missing, and nothing stands in for it"));
            }
        },
        activation: activation(&json)?,
        sub_norms: family.sub_norms.is_some(),
        rope: Rope { base: rope_base(&json)?, pairing: Pairing::Halves, scaling: rope::scaling(&json)? },
    };
    Ok((family, config, family.masters || trained))
}

/// By the `architectures` string; the tensors of 1bitLLM's own code overrule a config that calls itself Llama.
fn family(json: &Json) -> Result<&'static Family> {
    let Some(value) = json.get("architectures") else {
        return Err(json.error("architectures", "missing, so the family cannot be told"));
    };
    let names: Vec<&str> = value.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut family = FAMILIES.iter().find(|family| names.iter().any(|name| family.hf.contains(name)));
    let inner_norm = "model.layers.0.self_attn.inner_attn_ln.weight";
    if family.is_some() && json.file.tensor(inner_norm).is_some() {
        family = FAMILIES.iter().find(|family| family.hf == ["BitnetForCausalLM"]);
    }
    let norm = |tensor: &crate::tensor::Tensor| tensor.name.ends_with("_proj.norm.weight");
    if family.is_none() && json.file.tensors().iter().any(norm) {
        return Err(json.error("architectures", super::embedding(&names.join(", "))));
    }
    let known: Vec<_> = FAMILIES.iter().flat_map(|family| family.hf).copied().collect();
    family.copied().ok_or_else(|| json.wrong("architectures", &format!("one of {}", known.join(", ")), value))
}

/// Whether `quantization_config` says that the weights are, or are masters of, BitNet weights.
fn trained_ternary(json: &Json) -> Result<bool> {
    let Some(quantization) = json.get("quantization_config") else { return Ok(false) };
    if json.get("quantization") == Some(quantization) {
        return Ok(false); // MLX writes its settings under both names: `file/hf.rs` reads them
    }
    let key = |key: &str| format!("quantization_config.{key}");
    const KNOWN: [&str; 7] = [
        "quant_method",
        "linear_class", // which convention the scales follow: file/hf.rs
        "quantization_mode",
        "use_rms_norm",
        "rms_norm_eps", // of the norm that `use_rms_norm` asks for
        "modules_to_not_convert",
        "dtype",
    ];
    let unknown = quantization.as_object().and_then(|object| {
        object.iter().find(|(key, value)| !value.is_null() && !KNOWN.contains(&key.as_str()))
    });
    if let Some((name, _)) = unknown {
        let what = "is not a key that Tern knows, so it may change what the weights mean";
        return Err(json.error(&key(name), what));
    }
    let method = quantization.get("quant_method").unwrap_or(&Value::Null);
    if method != "bitnet" {
        return Err(json.wrong(&key("quant_method"), "\"bitnet\"", method));
    }
    let mode = quantization.get("quantization_mode").filter(|mode| !mode.is_null());
    if let Some(mode) = mode.filter(|mode| **mode != "offline" && **mode != "online") {
        return Err(json.wrong(&key("quantization_mode"), "\"offline\" or \"online\"", mode));
    }
    let norm = quantization.get("use_rms_norm").filter(|norm| !norm.is_null());
    if let Some(norm) = norm.filter(|norm| **norm != Value::Bool(false)) {
        return Err(json.wrong(
            &key("use_rms_norm"),
            "false (a norm inside each projection is not supported)",
            norm,
        ));
    }
    // Projections are ternary in every block; a float one among them would be rounded here.
    let kept = quantization.get("modules_to_not_convert").filter(|kept| !kept.is_null());
    let is_float = |name: &Value| {
        name.as_str().is_some_and(|name| name.ends_with("lm_head") || name.ends_with("embed_tokens"))
    };
    if let Some(kept) = kept.filter(|kept| !kept.as_array().is_some_and(|names| names.iter().all(is_float))) {
        let expected = "none but \"lm_head\" and \"embed_tokens\"";
        return Err(json.wrong(&key("modules_to_not_convert"), expected, kept));
    }
    Ok(true)
}

fn activation(json: &Json) -> Result<Activation> {
    let Some(value) = json.get("hidden_act") else {
        return Err(json.error("hidden_act", "missing, and the activation is never guessed"));
    };
    value
        .as_str()
        .and_then(parse_activation)
        .ok_or_else(|| json.wrong("hidden_act", "\"relu2\" or \"silu\"", value))
}

/// An activation by its name in `hidden_act`.
pub(super) fn parse_activation(name: &str) -> Option<Activation> {
    match name {
        "relu2" => Some(Activation::Relu2),
        "silu" => Some(Activation::Silu),
        _ => None,
    }
}

/// `rope_theta`, at the top or (transformers 5) in `rope_parameters`.
fn rope_base(json: &Json) -> Result<f32> {
    let top = json.number("rope_theta")?;
    let nested = json.get("rope_parameters").and_then(|rope| rope.get("rope_theta"));
    if let Some(value) = nested.filter(|value| !value.is_null()) {
        let wrong = |expected: &str| json.wrong("rope_parameters.rope_theta", expected, value);
        let base = value.as_f64().ok_or_else(|| wrong("a number"))? as f32;
        return match top.filter(|top| *top != base) {
            Some(top) => Err(wrong(&format!("{top}, as `rope_theta` says"))),
            None => Ok(base),
        };
    }
    top.ok_or_else(|| json.error("rope_theta", "missing, and the base is never guessed"))
}
