//! Every tensor of a file is used or refused by its name, every key of a configuration honoured, known to mean nothing,
//! or refused by its name: what is left out silently is another model.

use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize_to_file};
use serde_json::{Value, json};
use tern::file::gguf::Value as Pair;
use tern::file::{OpenOptions, from_bytes};
use tern::{Model, Options};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/golden").join(name)
}

/// A golden checkpoint with a configuration that `change` changed and more tensors of f32 ones.
fn changed(name: &str, change: impl FnOnce(&mut Value), more: &[(&str, &[usize])]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut config: Value =
        serde_json::from_slice(&std::fs::read(golden(name).join("config.json")).unwrap()).unwrap();
    change(&mut config);
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    let bytes = std::fs::read(golden(name).join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let ones: Vec<Vec<u8>> = more
        .iter()
        .map(|(_, dims)| (0..dims.iter().product::<usize>()).flat_map(|_| 1f32.to_le_bytes()).collect())
        .collect();
    let mut views: Vec<(String, TensorView)> = tensors.tensors();
    for ((name, dims), ones) in more.iter().zip(&ones) {
        views.push(((*name).to_owned(), TensorView::new(Dtype::F32, dims.to_vec(), ones).unwrap()));
    }
    serialize_to_file(views, None, &dir.path().join("model.safetensors")).unwrap();
    dir
}

/// Why a model is not loaded.
fn refusal(path: &Path) -> String {
    let options = Options { threads: Some(1), ..Options::default() };
    let error = Model::open(path, &options).expect_err("it must be refused").to_string();
    assert!(!error.contains('\n'), "{error}");
    error
}

fn loads(path: &Path) {
    let options = Options { threads: Some(1), ..Options::default() };
    Model::open(path, &options).unwrap_or_else(|e| panic!("{e}"));
}

const LLAMA: &str = "llama_packed_bitlinear";
const BITNET: &str = "bitnet_online_bf16";
const BITLLM: &str = "bitnet_1bitllm_f16";

#[test]
fn tensors_that_a_model_has_no_use_for_are_refused_by_name() {
    let cases: [(&str, &str, &[usize], &str); 8] = [
        (LLAMA, "model.layers.0.self_attn.q_proj.bias", &[256], "is a bias"),
        (
            LLAMA,
            "model.layers.1.self_attn.q_norm.weight",
            &[64],
            "is a norm that a Llama model does not have",
        ),
        (LLAMA, "model.layers.0.self_attn.attn_sub_norm.weight", &[256], "is a norm that a Llama model"),
        (
            LLAMA,
            "model.layers.2.input_layernorm.weight",
            &[128],
            "belongs to block 2, but `num_hidden_layers` is 2",
        ),
        (BITNET, "model.layers.0.self_attn.q_proj.weight_scale", &[1], "is a scale"),
        (BITNET, "model.layers.0.mlp.up_proj.norm.weight", &[128], "is a norm that a BitNet b1.58 model"),
        (BITLLM, "model.layers.0.self_attn.attn_sub_norm.weight", &[64], "is a norm"),
        (BITNET, "model.vision.patch.weight", &[4], "nothing says what it is for"),
    ];
    for (model, tensor, dims, what) in cases {
        let dir = changed(model, |_| {}, &[(tensor, dims)]);
        let error = refusal(dir.path());
        assert!(error.contains(&format!("tensor `{tensor}`")) && error.contains(what), "{error}");
    }
    // Fewer layers than the file holds.
    let dir = changed(LLAMA, |config| config["num_hidden_layers"] = 1.into(), &[]);
    let error = refusal(dir.path());
    assert!(
        error.contains("belongs to block 1, but `num_hidden_layers` is 1, so that blocks end at 0"),
        "{error}"
    );
}

#[test]
fn buffers_that_mean_nothing_are_left_out() {
    loads(changed(BITLLM, |_| {}, &[("model.layers.0.self_attn.rotary_emb.inv_freq", &[8])]).path());
}

#[test]
fn keys_that_change_the_model_are_refused_by_name() {
    let cases: &[(&str, &str, Value, &str)] = &[
        (LLAMA, "sliding_window", json!(16), "expected null"),
        (LLAMA, "use_sliding_window", json!(true), "expected false"),
        (LLAMA, "partial_rotary_factor", json!(0.5), "expected 1"),
        (BITLLM, "input_bits", json!(4), "expected 8"),
        (BITLLM, "weight_bits", json!(2), "expected 1"),
        (LLAMA, "rope_scaling", json!("x"), "expected an object"),
        (LLAMA, "rope_scaling", json!({"factor": 2.0}), "rope_scaling.rope_type"),
        (LLAMA, "rope_scaling", json!({"rope_type": "dynamic", "factor": 2.0}), "dynamic"),
        (
            LLAMA,
            "rope_scaling",
            json!({"rope_type": "linear", "factor": 2.0, "short_factor": [1]}),
            "short_factor",
        ),
        (LLAMA, "rope_parameters", json!({"rope_type": "default", "rope_theta": 5.0}), "1000042"),
        (LLAMA, "tie_word_embeddings", json!(true), "has a `lm_head.weight` that differs"),
        (LLAMA, "tie_word_embeddings", json!("yes"), "expected true or false"),
        (BITNET, "tie_word_embeddings", json!(false), "the file has no `lm_head.weight`"),
        (LLAMA, "attention_bias", json!(true), "expected false"),
        (LLAMA, "mlp_bias", json!(true), "expected false"),
        (LLAMA, "layer_types", json!(["full_attention", "sliding_attention"]), "for every layer"),
        (LLAMA, "model_type", json!("mistral"), "expected \"bitnet\" or \"llama\""),
        (LLAMA, "logits_scaling", json!(8.0), "not a key that Tern knows"),
        (LLAMA, "final_logit_softcapping", json!(30.0), "expected null"),
        (
            LLAMA,
            "quantization_config",
            json!({"quant_method": "bitnet", "group_size": 64}),
            "quantization_config.group_size",
        ),
        (
            LLAMA,
            "quantization_config",
            json!({"quant_method": "bitnet", "modules_to_not_convert": ["model.layers.0.mlp.down_proj"]}),
            "modules_to_not_convert",
        ),
    ];
    for (model, key, value, what) in cases {
        let dir = changed(model, |config| config[*key] = value.clone(), &[]);
        let error = refusal(dir.path());
        assert!(error.contains(key) && error.contains(what), "{key} = {value}: {error}");
    }
}

#[test]
fn keys_that_mean_nothing_are_taken() {
    let more = [
        ("sliding_window", Value::Null),
        ("use_sliding_window", json!(false)),
        ("partial_rotary_factor", json!(1.0)),
        ("layer_types", json!(["full_attention", "full_attention"])),
        ("transformers_version", json!("5.24.0")),
        ("auto_map", json!({"AutoConfig": "configuration_bitnet.BitNetConfig"})),
        ("attention_dropout", json!(0.1)),
        ("dtype", json!("float32")),
        ("tern.prompt", json!("raw")),
        ("rope_scaling", json!({"rope_type": "default"})),
        ("some_key_of_the_future", Value::Null),
    ];
    let dir = changed(LLAMA, |config| more.iter().for_each(|(key, value)| config[*key] = value.clone()), &[]);
    loads(dir.path());
}

/// A tiny Llama as a GGUF, with one more pair in front of the others. A last pair fills up to the alignment, by which the
/// data moves.
fn with_pair(key: &str, value: Pair) -> Vec<u8> {
    let bytes = std::fs::read(golden("gguf/llama_i2s_permuted.gguf")).unwrap();
    let count = u64::from_le_bytes(bytes[16..24].try_into().unwrap());
    let mut pair = (key.len() as u64).to_le_bytes().to_vec();
    pair.extend(key.as_bytes());
    let (kind, raw): (u32, Vec<u8>) = match value {
        Pair::U32(v) => (4, v.to_le_bytes().to_vec()),
        Pair::F32(v) => (6, v.to_le_bytes().to_vec()),
        Pair::Bool(v) => (7, vec![v.into()]),
        Pair::String(v) => (8, [&(v.len() as u64).to_le_bytes()[..], v.as_bytes()].concat()),
        other => panic!("{other:?}"),
    };
    pair.extend(kind.to_le_bytes());
    pair.extend(raw);
    let filler = "x.fill";
    let fixed = pair.len() + 8 + filler.len() + 4 + 8;
    let fill = (32 - fixed % 32) % 32;
    pair.extend((filler.len() as u64).to_le_bytes());
    pair.extend(filler.as_bytes());
    pair.extend(8u32.to_le_bytes());
    pair.extend((fill as u64).to_le_bytes());
    pair.extend(std::iter::repeat_n(b'x', fill));
    [&bytes[..16], &(count + 2).to_le_bytes(), &pair, &bytes[24..]].concat()
}

fn gguf_result(key: &str, value: Pair) -> Result<Model, String> {
    let bytes = with_pair(key, value);
    let file = from_bytes(Path::new("llama.gguf"), bytes.into(), OpenOptions::default()).unwrap();
    Model::from_file(&file, &Options { threads: Some(1), ..Options::default() }).map_err(|e| e.to_string())
}

#[test]
fn gguf_keys_of_the_architecture_are_honoured_or_refused() {
    let bad: Vec<(&str, Pair, &str)> = vec![
        ("llama.attention.sliding_window", Pair::U32(4096), "expected 0"),
        ("llama.expert_count", Pair::U32(8), "expected 0"),
        ("llama.logit_scale", Pair::F32(0.5), "expected 1"),
        ("llama.rope.scale_linear", Pair::F32(2.0), "use `rope.scaling`"),
        (
            "llama.rope.scaling.type",
            Pair::String("x".into()),
            "expected `none`, `linear`, `yarn` or `longrope`",
        ),
        ("llama.attention.causal", Pair::Bool(false), "expected true"),
        ("llama.final_logit_softcapping", Pair::F32(30.0), "not a key that Tern knows"),
    ];
    for (key, value, what) in bad {
        let error = gguf_result(key, value).expect_err(key);
        assert!(error.contains(&format!("key `{key}`")) && error.contains(what), "{error}");
    }
    gguf_result("llama.attention.sliding_window", Pair::U32(0)).unwrap();
    gguf_result("llama.tensor_data_layout", Pair::String("Meta AI original pth".into())).unwrap();
    gguf_result("general.some_note", Pair::String("of a person".into())).unwrap();
    // A factor alone is linear scaling, as llama.cpp reads it.
    let stretched = gguf_result("llama.rope.scaling.factor", Pair::F32(2.0)).unwrap();
    assert_eq!(stretched.config().rope.scaling, tern::Scaling::Linear { factor: 2.0 });
}

#[test]
fn what_a_family_needs_and_lacks_is_named() {
    let without = |model: &str, name: &str| {
        let dir = changed(model, |_| {}, &[]);
        let bytes = std::fs::read(golden(model).join("model.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let views: Vec<_> = tensors.tensors().into_iter().filter(|(at, _)| at != name).collect();
        assert_eq!(views.len() + 1, tensors.len(), "{name}");
        serialize_to_file(views, None, &dir.path().join("model.safetensors")).unwrap();
        refusal(dir.path())
    };
    for (model, name) in [
        ("qwen2_vibevoice", "model.language_model.layers.1.self_attn.k_proj.bias"),
        ("gemma3_embedding_norm_bitlinear", "layers.1.post_feedforward_layernorm.weight"),
        ("gemma3_embedding_norm_bitlinear", "layers.0.self_attn.q_norm.weight"),
        ("qwen3_embedding_norm_bitlinear", "layers.1.mlp.down_proj.norm.weight"),
    ] {
        let error = without(model, name);
        assert!(
            error.ends_with(&format!("tensor `{name}`: missing; the model cannot run without it")),
            "{error}"
        );
    }
    type Change = fn(&mut Value);
    let keys: [(&str, Change, &str); 9] = [
        (
            "qwen3_bonsai",
            |c| drop(c["rope_parameters"]["factor"].take()),
            "`rope_parameters.factor`: expected a number",
        ),
        (
            "qwen3_bonsai",
            |c| c["rope_parameters"]["rope_type"] = json!("ntk"),
            "`rope_parameters.rope_type`: expected",
        ),
        (
            "qwen3_bonsai",
            |c| c["architectures"] = json!(["Qwen4ForCausalLM"]),
            "`architectures`: expected one of",
        ),
        ("minicpm_bitcpm", |c| drop(c["scale_depth"].take()), "`scale_depth`: missing"),
        ("minicpm_bitcpm", |c| drop(c["dim_model_base"].take()), "`dim_model_base`: missing"),
        ("minicpm_bitcpm", |c| c["rope_scaling"]["short_factor"] = json!([1, 2]), "2 numbers: expected 8"),
        (
            "gemma3_embedding_norm_bitlinear",
            |c| drop(c["sliding_window"].take()),
            "`sliding_window`: missing",
        ),
        (
            "gemma3_embedding_norm_bitlinear",
            |c| c["layer_types"] = json!(["sliding_attention"]),
            "`layer_types`: 1 kinds for 2",
        ),
        (
            "qwen2_vibevoice",
            |c| c["decoder_config"]["rope_theta"] = json!("x"),
            "`decoder_config.rope_theta`: expected a number",
        ),
    ];
    for (model, change, what) in keys {
        let dir = changed(model, change, &[]);
        let error = refusal(dir.path());
        assert!(error.contains(what), "{model}: {error}");
    }
}

#[test]
fn a_bonsai_that_lost_its_scaling_keys_is_warned_of() {
    let bytes = std::fs::read(golden("gguf/qwen3_bonsai_pq2_0.gguf")).unwrap();
    let whole = |bytes: &[u8], name: &str| {
        let file = from_bytes(Path::new(name), bytes.to_vec().into(), OpenOptions::default()).unwrap();
        tern::Config::warnings(&file).unwrap()
    };
    let replaced = |bytes: &[u8], from: &[u8], to: &[u8]| {
        let mut bytes = bytes.to_vec();
        let found: Vec<usize> =
            (0..bytes.len() - from.len()).filter(|at| bytes[*at..].starts_with(from)).collect();
        assert!(!found.is_empty());
        found.into_iter().for_each(|at| bytes[at..at + to.len()].copy_from_slice(to));
        bytes
    };
    let key = b"qwen3.context_length\x04\0\0\0";
    let long = replaced(
        &bytes,
        &[&key[..], &64u32.to_le_bytes()].concat(),
        &[&key[..], &32768u32.to_le_bytes()].concat(),
    );
    let lost = replaced(&long, b"qwen3.rope.scaling.", b"other.rope.scaling.");
    assert_eq!(whole(&long, "Ternary-Bonsai-1.7B.gguf"), Vec::<String>::new());
    assert_eq!(whole(&lost, "another.gguf"), Vec::<String>::new());
    let short = replaced(&bytes, b"qwen3.rope.scaling.", b"other.rope.scaling.");
    assert_eq!(whole(&short, "Ternary-Bonsai-1.7B.gguf"), Vec::<String>::new());
    let [warning] = &whole(&lost, "Ternary-Bonsai-1.7B.gguf")[..] else { panic!("one warning") };
    assert!(warning.contains("key `qwen3.rope.scaling.type` is missing"), "{warning}");
    // Its type without its factor is an error.
    let no_factor = replaced(&long, b"qwen3.rope.scaling.factor", b"other.rope.scaling.factor");
    let file = from_bytes(Path::new("b.gguf"), no_factor.into(), OpenOptions::default()).unwrap();
    let error = tern::Config::of(&file).unwrap_err().to_string();
    assert_eq!(error, "b.gguf: key `qwen3.rope.scaling.factor`: missing, and never guessed");
}

#[test]
fn weight_scales_that_are_no_number_above_zero_are_refused() {
    let bytes = std::fs::read(golden(LLAMA).join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let name = "model.layers.0.mlp.up_proj.weight_scale";
    for (scale, said) in [
        (0x7f80u16, "inf"),
        (0xff80, "-inf"),
        (0x7fc0, "NaN"),
        (0, "0.0"),
        (0x8000, "-0.0"),
        (0xbf80, "-1.0"),
    ] {
        let dir = changed(LLAMA, |_| {}, &[]);
        let scale = scale.to_le_bytes();
        let views = tensors.tensors().into_iter().map(|(at, view)| match at == name {
            true => (at, TensorView::new(Dtype::BF16, view.shape().to_vec(), &scale).unwrap()),
            false => (at, view),
        });
        serialize_to_file(views.collect::<Vec<_>>(), None, &dir.path().join("model.safetensors")).unwrap();
        let error = refusal(dir.path());
        assert!(
            error.contains(name)
                && error.ends_with(&format!("expected a finite scale above 0, found {said}")),
            "{error}"
        );
    }
}
