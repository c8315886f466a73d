//! A [`Config`] written out again: as GGUF keys and as `config.json`.

use crate::options::Target;
use serde_json::{Value as Json, json};
use std::path::Path;
use tern::family::{Detected, FAMILIES, Family};
use tern::file::gguf::{Array, Pairs, Value};
use tern::file::gguf_write::ALIGNMENT_KEY;
use tern::file::hf::GENERATION;
use tern::keys::{ACTIVATIONS, DUMMY, PROMPT, READY_HEAD, SCALE_NAMES, SCALE_VALUES};
use tern::{Config, Pooling, Result, Scaling, Scheme, Yarn};
use tern_kernels::Activation;

/// What own tensors are aligned to, so that their blocks can be mapped in place.
const OWN_ALIGNMENT: u32 = 64;

/// Tern's own keys that speak of the model and not of its tensors: the same in a GGUF and in `config.json`.
const OWN: [&str; 2] = [PROMPT, DUMMY];

/// The name of an activation in `hidden_act`.
pub(crate) fn activation_name(activation: Activation) -> &'static str {
    match activation {
        Activation::Relu2 => "relu2",
        Activation::Silu => "silu",
        Activation::GeluTanh => "gelu_pytorch_tanh",
    }
}

/// The family whose Hugging Face names and class a GGUF model gets: transformers has its own code for
/// `BitNetForCausalLM`, which does the 1bitLLM models too, by `hidden_act`.
pub(crate) fn hf_family(detected: &Detected) -> &'static Family {
    let own_code = |family: &&Family| family.hf.contains(&"BitNetForCausalLM");
    match detected.config.sub_norms {
        true => FAMILIES.iter().copied().find(own_code).unwrap_or(detected.family),
        false => detected.family,
    }
}

/// A `config.json` as transformers reads it with its own code: the 1bitLLM models brought theirs, and the output's names
/// are those of [`hf_family`].
pub(crate) fn hf_class(mut config: Json, detected: &Detected) -> Json {
    let family = hf_family(detected);
    if let Some(keys) = config.as_object_mut() {
        // Names of files that are not copied.
        keys.remove("auto_map");
        if family.hf != detected.family.hf {
            keys.remove("input_bits");
            keys.remove("weight_bits");
            keys.insert("model_type".into(), "bitnet".into());
            keys.insert("architectures".into(), json!([family.hf[0]]));
        }
    }
    config
}

/// What a model without a name is called: its directory.
pub(crate) fn name(dir: &Path, config: &Json) -> String {
    let given = config.get("_name_or_path").and_then(Json::as_str).filter(|name| !name.is_empty());
    let dir = || dir.canonicalize().ok()?.file_name().map(|name| name.to_string_lossy().into_owned());
    given.map(str::to_owned).or_else(dir).unwrap_or_else(|| "model".into())
}

/// The keys of a model.
pub(crate) fn gguf(pairs: &mut Pairs, name: &str, family: &Family, config: &Config) {
    let arch = family.gguf[0];
    pairs.insert("general.architecture", Value::String(arch.into()));
    pairs.insert("general.name", Value::String(name.into()));
    pairs.insert("general.quantization_version", Value::U32(2));
    if config.graph.scheme != Scheme::A8 {
        pairs.insert(ACTIVATIONS, Value::String(config.graph.scheme.name().into()));
    }
    let mut put = |key: &str, value: Value| pairs.insert(&format!("{arch}.{key}"), value);
    // Sizes read from a file were checked against limits far below u32.
    let size = |size: usize| Value::U32(size as u32);
    put("block_count", size(config.layers));
    put("context_length", size(config.context));
    put("embedding_length", size(config.dim));
    put("feed_forward_length", size(config.hidden));
    put("vocab_size", size(config.vocab));
    put("attention.head_count", size(config.heads));
    put("attention.head_count_kv", size(config.kv_heads));
    put("attention.key_length", size(config.head_dim));
    put("attention.value_length", size(config.head_dim));
    put("attention.layer_norm_rms_epsilon", Value::F32(config.norm_eps));
    put("rope.dimension_count", size(config.head_dim));
    let graph = &config.graph;
    for (key, scale) in [
        ("embedding_scale", graph.embedding_scale),
        ("residual_scale", graph.residual_scale),
        ("logit_scale", graph.logit_scale),
    ] {
        // Gemma's embedding has the root of its width for a scale, and no key.
        if arch == "minicpm" {
            put(key, Value::F32(scale));
        }
    }
    if let Some(sliding) = &graph.sliding {
        put("attention.sliding_window", size(sliding.window));
        put("attention.sliding_window_pattern", Value::Array(Array::from_bools(&sliding.layers)));
        put("rope.freq_base_swa", Value::F32(sliding.rope.base));
    }
    if let Some(pooling) = config.pooling {
        let kind = match pooling {
            Pooling::Mean => 1,
            Pooling::Cls => 2,
            Pooling::Last => 3,
        };
        put("pooling_type", Value::U32(kind));
    }
    put("rope.freq_base", Value::F32(config.rope.base));
    let act = activation_name(config.activation);
    if act != family.gguf_act {
        put("hidden_act", Value::String(act.into()));
    }
    let word = |kind: &str| Value::String(kind.into());
    match &config.rope.scaling {
        Scaling::Linear { factor } => {
            put("rope.scaling.type", word("linear"));
            put("rope.scaling.factor", Value::F32(*factor));
        }
        Scaling::Yarn(yarn) => {
            put("rope.scaling.type", word("yarn"));
            put("rope.scaling.factor", Value::F32(yarn.factor));
            put("rope.scaling.original_context_length", size(yarn.original));
            put("rope.scaling.yarn_beta_fast", Value::F32(yarn.fast));
            put("rope.scaling.yarn_beta_slow", Value::F32(yarn.slow));
            let usual = Yarn::sharpening(yarn.factor, 1.0);
            if yarn.attention != usual {
                put("rope.scaling.attn_factor", Value::F32(yarn.attention / usual));
            }
        }
        // Its factors are tensors (`plan`).
        Scaling::Long { attention, .. } => {
            put("rope.scaling.type", word("longrope"));
            put("rope.scaling.original_context_length", size(config.context));
            put("rope.scaling.attn_factor", Value::F32(*attention));
        }
        // What has no keys was refused before.
        Scaling::None | Scaling::Llama3 { .. } | Scaling::Divisors(_) => {}
    }
}

/// Why the scaling of positions cannot be written in this format, where a program that reads the file would not see it.
pub(crate) fn scaling_misfit(scaling: &Scaling, from_gguf: bool, to: Target) -> Option<&'static str> {
    match (scaling, to) {
        (Scaling::Divisors(_), Target::Hf) => {
            Some("divides frequencies one by one, and `config.json` has no word for that")
        }
        (Scaling::Long { long, .. }, Target::Hf) if long.is_empty() => Some(
            "asks for LongRoPE without the factors beyond the first context, which `config.json` must have",
        ),
        (Scaling::Llama3 { .. }, to) if to != Target::Hf && !from_gguf => Some(
            "asks for Llama 3's scaling, which cannot be written to a GGUF yet; use the checkpoint as it is",
        ),
        (Scaling::Yarn(yarn), to) if to != Target::Hf && !yarn.truncate => {
            Some("asks for YaRN without whole pairs, and a GGUF has no key for that")
        }
        _ => None,
    }
}

/// Tern's own keys out of a `config.json`.
pub(crate) fn own(config: &Json, pairs: &mut Pairs) {
    for key in OWN {
        match config.get(key) {
            Some(Json::String(text)) => pairs.insert(key, Value::String(text.clone())),
            Some(Json::Bool(is)) => pairs.insert(key, Value::Bool(*is)),
            _ => false,
        };
    }
}

/// The keys of a GGUF as they are, without those that speak of its tensors.
pub(crate) fn copied(from: &Pairs, output: &Path) -> Pairs {
    let mut pairs = Pairs::new(output);
    for (key, value) in from.iter() {
        if ![ALIGNMENT_KEY, FILE_TYPE, READY_HEAD, SCALE_NAMES, SCALE_VALUES].contains(&key) {
            pairs.insert(key, value.clone());
        }
    }
    pairs
}

/// The keys of a GGUF under the architecture of another program, which may imply another activation.
pub(crate) fn renamed(from: &Pairs, family: &Family, config: &Config) -> Result<Pairs> {
    let old = from.str("general.architecture")?.unwrap_or_default();
    if family.gguf.contains(&old) {
        return Ok(from.clone());
    }
    let mut pairs = Pairs::new(from.path());
    let (old, new) = (format!("{old}."), family.gguf[0]);
    for (key, value) in from.iter() {
        match key.strip_prefix(&old) {
            Some(name) => pairs.insert(&format!("{new}.{name}"), value.clone()),
            None => pairs.insert(key, value.clone()),
        };
    }
    pairs.insert("general.architecture", Value::String(new.into()));
    let act = activation_name(config.activation);
    if act != family.gguf_act {
        pairs.insert(&format!("{new}.hidden_act"), Value::String(act.into()));
    }
    Ok(pairs)
}

const FILE_TYPE: &str = "general.file_type";

/// The keys that speak of the tensors.
pub(crate) fn format(pairs: &mut Pairs, to: Target) {
    // What each program calls a file with mostly such tensors. The numbers collide between forks; nobody may trust them.
    let file_type = match to {
        Target::I2S => Some(40),
        Target::Tq1_0 => Some(36),
        Target::Tq2_0 => Some(37),
        Target::Q2_0 => Some(28),
        Target::Pq2_0 => Some(128),
        Target::I2 | Target::T5 => {
            pairs.insert(ALIGNMENT_KEY, Value::U32(OWN_ALIGNMENT));
            None
        }
        Target::Hf => None,
    };
    if let Some(file_type) = file_type {
        pairs.insert(FILE_TYPE, Value::U32(file_type));
    }
}

/// `config.json` of a model that was a GGUF.
pub(crate) fn hf(detected: &Detected, pairs: &Pairs, tied: bool) -> Result<Json> {
    let mut json = config_json(hf_family(detected), &detected.config, tied);
    if let Some(name) = pairs.str("general.name")? {
        json["_name_or_path"] = name.into();
    }
    for (key, from) in [("bos_token_id", "bos"), ("eos_token_id", "eos"), ("pad_token_id", "padding")] {
        if let Some(id) = pairs.u32(&format!("tokenizer.ggml.{from}_token_id"))? {
            json[key] = id.into();
        }
    }
    for key in OWN {
        match pairs.get(key) {
            Some(Value::String(text)) => json[key] = text.as_str().into(),
            Some(Value::Bool(is)) => json[key] = (*is).into(),
            _ => {}
        }
    }
    Ok(packed(json))
}

/// `config.json` of a model, but for its tokens and quantisation.
pub(crate) fn config_json(family: &Family, config: &Config, tied: bool) -> Json {
    let plain = if config.sub_norms { "bitnet" } else { "llama" };
    let mut json = json!({
        "architectures": [family.hf[0]],
        "model_type": if family.model_types.contains(&plain) { plain } else { family.model_types[0] },
        "vocab_size": config.vocab,
        "hidden_size": config.dim,
        "intermediate_size": config.hidden,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": activation_name(config.activation),
        "max_position_embeddings": config.context,
        "rms_norm_eps": number(config.norm_eps),
        "rope_theta": number(config.rope.base),
        "tie_word_embeddings": tied,
        "attention_bias": false,
        "torch_dtype": "float32",
        "use_cache": true,
    });
    if let Some(sliding) = &config.graph.sliding {
        let kind = |slides: &bool| if *slides { "sliding_attention" } else { "full_attention" };
        json["layer_types"] = sliding.layers.iter().map(kind).collect();
        json["sliding_window"] = sliding.window.into();
        if family.gemma {
            json["rope_local_base_freq"] = number(sliding.rope.base).into();
        }
    }
    if family.gemma {
        json["hidden_activation"] = json["hidden_act"].clone();
        json["query_pre_attn_scalar"] = query_scalar(config);
    }
    if config.graph.scheme != Scheme::A8 {
        json[ACTIVATIONS] = config.graph.scheme.name().into();
    }
    if !config.sub_norms {
        json["mlp_bias"] = false.into();
    }
    match &config.rope.scaling {
        Scaling::Linear { factor } => {
            json["rope_scaling"] = json!({"rope_type": "linear", "factor": number(*factor)});
        }
        Scaling::Yarn(yarn) => {
            json["rope_scaling"] = json!({
                "rope_type": "yarn",
                "factor": number(yarn.factor),
                "original_max_position_embeddings": yarn.original,
                "beta_fast": number(yarn.fast),
                "beta_slow": number(yarn.slow),
                "attention_factor": number(yarn.attention),
            });
        }
        Scaling::Llama3 { factor, low, high, original } => {
            json["rope_scaling"] = json!({
                "rope_type": "llama3",
                "factor": number(*factor),
                "low_freq_factor": number(*low),
                "high_freq_factor": number(*high),
                "original_max_position_embeddings": original,
            });
        }
        Scaling::Long { short, long, attention } => {
            let numbers = |factors: &[f32]| factors.iter().map(|&factor| number(factor)).collect::<Vec<_>>();
            json["rope_scaling"] = json!({
                "rope_type": "longrope",
                "short_factor": numbers(short),
                "long_factor": numbers(long),
                "original_max_position_embeddings": config.context,
                "attention_factor": number(*attention),
            });
        }
        Scaling::None | Scaling::Divisors(_) => {}
    }
    json
}

/// The number whose root a query is divided by; whole in all models that were published.
fn query_scalar(config: &Config) -> Json {
    let (wide, scale) = (config.head_dim as f32, config.graph.query_scale);
    let scalar = wide / (scale * scale);
    let whole = scalar.round();
    if (wide / whole).sqrt() == scale { (whole as u64).into() } else { number(scalar).into() }
}

/// An f32 as the shortest decimal that is that f32, not as its exact f64.
fn number(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(value.into())
}

/// The configuration of the same model with packed weights and multiplying scales.
pub(crate) fn packed(mut config: Json) -> Json {
    let kept = config.get("quantization_config").and_then(|q| q.get("modules_to_not_convert")).cloned();
    // No number is written in f16; see `plan`.
    for key in ["torch_dtype", "dtype"] {
        if config.get(key) == Some(&json!("float16")) {
            config[key] = "float32".into();
        }
    }
    config["quantization_config"] = json!({
        "quant_method": "bitnet",
        "linear_class": "autobitlinear",
        "quantization_mode": "offline",
        "modules_to_not_convert": kept.filter(|kept| !kept.is_null()).unwrap_or(json!(["lm_head"])),
    });
    config
}

/// The tokens that begin and end a text, where a configuration does not name them: transformers takes those of another model
/// then.
pub(crate) fn ends(config: &mut Json, files: &[(&str, Vec<u8>)]) {
    let generation = files.iter().find(|(name, _)| *name == GENERATION);
    let generation = generation.and_then(|(_, bytes)| serde_json::from_slice::<Json>(bytes).ok());
    for key in ["bos_token_id", "eos_token_id"] {
        let found = generation.as_ref().and_then(|json| json.get(key)).filter(|id| !id.is_null());
        if let (None, Some(found)) = (config.get(key), found) {
            config[key] = found.clone();
        }
    }
}
