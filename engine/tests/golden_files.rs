//! The golden containers: every key, every tensor, and the two GGUF models against their checkpoints.

use serde_json::Value as Json;
use std::path::{Path, PathBuf};
use tern::Encoding;
use tern::codec::{self, Trits};
use tern::file::gguf::{Kind, Value};
use tern::file::{self, File, Format, Metadata, OpenOptions};

fn golden(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/golden")).join(name)
}

fn open(name: &str) -> File {
    file::open(&golden(name), OpenOptions::default()).unwrap()
}

fn matches(value: &Value, kind: &str, expected: &Json) -> bool {
    match (value, kind) {
        (Value::Bool(v), "bool") => expected == v,
        (Value::String(v), "str") => expected == v,
        (Value::F32(v), "f32") => expected.as_f64() == Some(f64::from(*v)),
        (Value::F64(v), "f64") => expected.as_f64() == Some(*v),
        (Value::Array(array), kind) => {
            let kind = kind.strip_prefix("arr:").unwrap();
            let expected = expected.as_array().unwrap();
            array.len() == expected.len()
                && array.kind().name() == if kind == "str" { "string" } else { kind }
                && array.iter().zip(expected).all(|(value, expected)| matches(&value, kind, expected))
        }
        (value, kind) => {
            value.kind().name() == kind
                && value.integer() == expected.as_i64().map(i128::from).or(expected.as_u64().map(i128::from))
        }
    }
}

#[test]
fn every_key_and_tensor_of_the_types_files() {
    let types: Json = serde_json::from_slice(&std::fs::read(golden("gguf/types.json")).unwrap()).unwrap();
    let numbers = |key: &str| -> Vec<f32> {
        let rows = types[key].as_array().unwrap().iter();
        rows.flat_map(|row| row.as_array().unwrap()).map(|value| value.as_f64().unwrap() as f32).collect()
    };
    let (w, ternary) = (numbers("w"), numbers("ternary"));
    for version in [2, 3] {
        let file = open(&format!("gguf/types_v{version}.gguf"));
        assert_eq!(file.format, Format::Gguf { version });
        let Metadata::Gguf(pairs) = &file.metadata else { panic!("a GGUF has pairs") };
        let expected = types["kv"].as_array().unwrap();
        assert_eq!(pairs.len(), expected.len());
        for ((key, value), expected) in pairs.iter().zip(expected) {
            assert_eq!(key, expected[0]);
            assert!(matches(value, expected[1].as_str().unwrap(), &expected[2]), "{key}: {value:?}");
        }
        let expected = types["tensors"].as_array().unwrap();
        assert_eq!(file.tensors().len(), expected.len());
        for (tensor, expected) in file.tensors().iter().zip(expected) {
            assert_eq!(tensor.name, expected["name"]);
            let dims =
                expected["dims"].as_array().unwrap().iter().rev().map(|dim| dim.as_u64().unwrap() as usize);
            assert_eq!(tensor.dims, dims.collect::<Vec<_>>());
            assert_eq!(tensor.encoding, Encoding::from_gguf(expected["type"].as_u64().unwrap() as u32));
            assert_eq!(tensor.bytes.len() as u64, expected["bytes"]);
            let mut floats = vec![f32::NAN; tensor.rows() * tensor.cols()];
            for (row, out) in floats.chunks_exact_mut(tensor.cols()).enumerate() {
                codec::floats(tensor, row, out).unwrap();
            }
            // How far each encoding may be from the numbers it was made of, as a share of the largest in its block.
            let (expected, reach) = match tensor.name.as_str() {
                "f32" => (w.clone(), 0.0),
                "f16" => (w.clone(), 1.0 / 2048.0),
                "bf16" => (w.clone(), 1.0 / 256.0),
                "q8_0" => (w.clone(), 1.0 / 127.0),
                "q4_0" => (w.clone(), 1.0 / 8.0),
                "tq1_0" | "tq2_0" => (ternary.clone(), 0.0),
                "vec" => (vec![1.0, 2.0, 3.0], 0.0),
                "scalar3d" => ((0..6).map(|i| i as f32).collect(), 0.0),
                other => panic!("no expectation for {other}"),
            };
            assert_eq!(floats.len(), expected.len());
            for (found, expected) in floats.chunks(32).zip(expected.chunks(32)) {
                let most = expected.iter().fold(0f32, |most, x| most.max(x.abs()));
                for (found, expected) in found.iter().zip(expected) {
                    assert!(
                        (found - expected).abs() <= most * reach,
                        "{}: {found} for {expected}",
                        tensor.name
                    );
                }
            }
        }
    }
}

/// The trits and the scale of a matrix.
fn trits(file: &File, name: &str) -> (f32, Vec<i8>) {
    let tensor = file.tensor(name).unwrap_or_else(|| panic!("no tensor {name}"));
    let trits = Trits::open(tensor).unwrap();
    let mut out = vec![0; tensor.rows() * tensor.cols()];
    for (row, out) in out.chunks_exact_mut(tensor.cols()).enumerate() {
        trits.row(row, out).unwrap();
    }
    (trits.scales().at(0, 0, tensor.cols()), out)
}

#[test]
fn the_gguf_models_hold_the_weights_of_their_checkpoints() {
    let names = [
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.down_proj", "ffn_down"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
    ];
    let models = [
        ("gguf/bitnet_b158_i2s.gguf", "bitnet_packed_autobitlinear"),
        ("gguf/llama_i2s_permuted.gguf", "llama_packed_bitlinear"),
    ];
    for (gguf, hf) in models {
        let (gguf, hf) = (open(gguf), open(hf));
        assert_eq!(hf.format, Format::Safetensors { shards: 1 });
        assert!(!hf.tensors().iter().any(|tensor| tensor.name.ends_with("weight_scale")));
        for layer in 0..2 {
            for (hf_name, gguf_name) in names {
                let a = trits(&gguf, &format!("blk.{layer}.{gguf_name}.weight"));
                let b = trits(&hf, &format!("model.layers.{layer}.{hf_name}.weight"));
                assert_eq!(a, b, "{gguf_name} of layer {layer}");
            }
        }
    }
}

#[test]
fn masters_are_ternarised_by_absmean() {
    let file = open("bitnet_online_bf16");
    let tensor = file.tensor("model.layers.0.mlp.gate_proj.weight").unwrap();
    assert_eq!((tensor.encoding, &tensor.dims[..]), (Encoding::Bf16, &[256, 128][..]));
    let mut w = vec![0.0; 256 * 128];
    for (row, out) in w.chunks_exact_mut(128).enumerate() {
        codec::floats(tensor, row, out).unwrap();
    }
    let mean = (w.iter().map(|w| f64::from(w.abs())).sum::<f64>() / w.len() as f64) as f32;
    let (scale, found) = trits(&file, "model.layers.0.mlp.gate_proj.weight");
    assert!((scale / mean - 1.0).abs() < 1e-6);
    let expected: Vec<i8> =
        w.iter().map(|w| (w * (1.0 / scale)).round_ties_even().clamp(-1.0, 1.0) as i8).collect();
    assert_eq!(found, expected);
}

#[test]
fn the_metadata_beside_a_checkpoint_is_read() {
    let file = open("llama_packed_bitlinear");
    let Metadata::Hf { config, tokenizer_config, .. } = &file.metadata else {
        panic!("a checkpoint has a config")
    };
    assert_eq!(config["model_type"], "llama");
    assert!(tokenizer_config.is_none());
    let alone = open("llama_packed_bitlinear/model.safetensors");
    assert_eq!(alone.tensors().len(), file.tensors().len());
}

#[test]
fn vocabularies_are_read_in_order() {
    let file = open("gguf/bitnet_b158_i2s.gguf");
    let Metadata::Gguf(pairs) = &file.metadata else { panic!("a GGUF has pairs") };
    let tokens = pairs.strings("tokenizer.ggml.tokens").unwrap().unwrap();
    assert_eq!((tokens.len(), &tokens[..4]), (96, &["<unk>", "<s>", "</s>", "!"][..]));
    assert_eq!(pairs.i32s("tokenizer.ggml.token_type").unwrap().unwrap()[..4], [2, 3, 3, 1]);
    assert_eq!(pairs.bool("tokenizer.ggml.add_bos_token").unwrap(), Some(true));
    assert_eq!(pairs.u32("no.such.key").unwrap(), None);
    let wrong = pairs.u32("general.architecture").unwrap_err().to_string();
    assert!(
        wrong.ends_with(
            "key `general.architecture`: expected a number that fits u32, found string `bitnet-b1.58`"
        ),
        "{wrong}"
    );
    assert_eq!(Kind::from_id(8), Some(Kind::String));
}
