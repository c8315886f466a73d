//! A [`Config`] out of Hugging Face's `config.json`. Values that change the arithmetic and are not understood are
//! errors that name the key.

mod keys;
mod rope;
mod sliding;

use serde_json::Value;
use tern_kernels::Activation;

use super::names::NORM_IN;
use super::{FAMILIES, Family};
use crate::config::{Config, Graph, Pooling};
use crate::error::{Error, Result, quoted};
use crate::file::File;
use crate::keys::ACTIVATIONS;

/// `config.json` with errors that name its keys.
struct Json<'a> {
    file: &'a File,
    config: &'a Value,
    /// What holds the language model of a model of several parts.
    part: Option<&'static str>,
}

/// The key of VibeVoice's language model.
const PART: &str = "decoder_config";

impl<'a> Json<'a> {
    /// The value of a key; null is absent.
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.config.get(key).filter(|value| !value.is_null())
    }

    fn error(&self, key: &str, what: impl Into<String>) -> Error {
        match self.part {
            Some(part) => Error::key(&self.file.keys_path(), &format!("{part}.{key}"), what),
            None => Error::key(&self.file.keys_path(), key, what),
        }
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

    fn needed_number(&self, key: &str) -> Result<f32> {
        self.number(key)?.ok_or_else(|| self.error(key, "missing, and nothing stands in for it"))
    }

    /// True or false; absent is false.
    fn is(&self, key: &str) -> Result<bool> {
        let Some(value) = self.get(key) else { return Ok(false) };
        value.as_bool().ok_or_else(|| self.wrong(key, "true or false", value))
    }
}

pub(super) fn detect(file: &File, config: &Value) -> Result<(&'static Family, Config, bool, Vec<String>)> {
    let outer = Json { file, config, part: None };
    let json = match outer.get(PART) {
        Some(part) => Json { file, config: part, part: Some(PART) },
        None => Json { file, config, part: None },
    };
    let family = family(&outer, &json)?;
    keys::check(&json, family)?;
    let trained = trained_ternary(&outer)? || (json.part.is_some() && trained_ternary(&json)?);
    for key in ["attention_bias", "mlp_bias"] {
        if let Some(value) = json.get(key).filter(|value| **value != Value::Bool(false)) {
            return Err(json.wrong(key, "false (no ternary family has biases there)", value));
        }
    }
    json.is("tie_word_embeddings")?;
    let (dim, heads) = (json.needed_size("hidden_size")?, json.needed_size("num_attention_heads")?);
    let head_dim = match json.size("head_dim")? {
        Some(head_dim) => head_dim,
        None => dim.checked_div(heads).unwrap_or(0),
    };
    let mut config = Config {
        family: family.name,
        dim,
        hidden: json.needed_size("intermediate_size")?,
        layers: json.needed_size("num_hidden_layers")?,
        heads,
        kv_heads: json.size("num_key_value_heads")?.unwrap_or(heads),
        head_dim,
        vocab: json.needed_size("vocab_size")?,
        context: json.needed_size("max_position_embeddings")?,
        norm_eps: json.needed_number("rms_norm_eps")?,
        activation: activation(&json, family)?,
        sub_norms: family.sub_norms.is_some(),
        rope: rope::rope(&json, "full_attention")?,
        graph: graph(&json, family)?,
        pooling: pooling(&json, family),
    };
    if let Some(original) = rope::short_of(&json)? {
        config.context = config.context.min(original);
    }
    let masters = family.masters || trained || config.graph.input_norms;
    Ok((family, config, masters, Vec::new()))
}

/// Where the graph differs from Llama's.
fn graph(json: &Json, family: &Family) -> Result<Graph> {
    let (dim, layers) = (json.needed_size("hidden_size")?, json.needed_size("num_hidden_layers")?);
    let mut graph = family.graph(dim);
    graph.input_norms = family.embeds && has_input_norms(json.file);
    graph.sliding = sliding::sliding(json, family, layers)?;
    let named = json.get(ACTIVATIONS);
    if let Some(value) = named.filter(|value| !value.is_string()) {
        return Err(json.wrong(ACTIVATIONS, "a name", value));
    }
    let scheme = family.scheme(named.and_then(Value::as_str));
    graph.scheme = scheme.map_err(|what| json.error(ACTIVATIONS, what))?;
    if family.model_types.contains(&"minicpm") {
        graph.embedding_scale = json.needed_number("scale_emb")?;
        graph.residual_scale = json.needed_number("scale_depth")? / (layers as f32).sqrt();
        graph.logit_scale = dim as f32 / json.needed_size("dim_model_base")? as f32;
    }
    if family.gemma {
        let heads = json.needed_size("num_attention_heads")?;
        let head_dim = json.size("head_dim")?.unwrap_or(dim.checked_div(heads).unwrap_or(0));
        graph.query_scale = (head_dim as f32 / json.needed_number("query_pre_attn_scalar")?).sqrt();
    }
    Ok(graph)
}

/// Whether projections have norms of their own in front, which marks the BitNet embedding models.
pub(super) fn has_input_norms(file: &File) -> bool {
    let ends =
        |name: &str| name.ends_with("_proj.norm.weight") || name.ends_with(&format!("{NORM_IN}.weight"));
    file.tensors().iter().any(|tensor| ends(&tensor.name))
}

/// How the vectors of an embedding model are made: all published ones take the last token's.
fn pooling(json: &Json, family: &Family) -> Option<Pooling> {
    let names = json.get("architectures").and_then(Value::as_array).into_iter().flatten();
    let bare = names.filter_map(Value::as_str).any(|name| ["Qwen3Model", "Gemma3TextModel"].contains(&name));
    (bare || (family.embeds && has_input_norms(json.file))).then_some(Pooling::Last)
}

/// By the `architectures` string; the tensors of 1bitLLM's own code overrule a config that calls itself Llama. The language
/// model of several parts is told by its own `model_type`.
fn family(outer: &Json, json: &Json) -> Result<&'static Family> {
    if json.part.is_some() {
        let kind = json.get("model_type").unwrap_or(&Value::Null);
        let known = |family: &&&Family| kind.as_str().is_some_and(|kind| family.model_types.contains(&kind));
        return FAMILIES
            .iter()
            .find(known)
            .copied()
            .ok_or_else(|| json.wrong("model_type", "\"qwen2\"", kind));
    }
    let Some(value) = outer.get("architectures") else {
        return Err(outer.error("architectures", "missing, so the family cannot be told"));
    };
    let names: Vec<&str> = value.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut family = FAMILIES.iter().find(|family| names.iter().any(|name| family.hf.contains(name)));
    let inner_norm = "model.layers.0.self_attn.inner_attn_ln.weight";
    if family.is_some() && outer.file.tensor(inner_norm).is_some() {
        family = FAMILIES.iter().find(|family| family.hf == ["BitnetForCausalLM"]);
    }
    let known: Vec<_> = FAMILIES.iter().flat_map(|family| family.hf).copied().collect();
    family
        .copied()
        .ok_or_else(|| outer.wrong("architectures", &format!("one of {}", known.join(", ")), value))
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

fn activation(json: &Json, family: &Family) -> Result<Activation> {
    let key = if family.gemma { "hidden_activation" } else { "hidden_act" };
    let Some(value) = json.get(key) else {
        return Err(json.error(key, "missing, and the activation is never guessed"));
    };
    value
        .as_str()
        .and_then(parse_activation)
        .ok_or_else(|| json.wrong(key, "\"relu2\", \"silu\" or \"gelu_pytorch_tanh\"", value))
}

/// An activation by its name in `hidden_act`.
pub(super) fn parse_activation(name: &str) -> Option<Activation> {
    match name {
        "relu2" => Some(Activation::Relu2),
        "silu" => Some(Activation::Silu),
        "gelu_pytorch_tanh" => Some(Activation::GeluTanh),
        _ => None,
    }
}
