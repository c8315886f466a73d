//! Safetensors files, configurations and indexes, cut short, broken at random, and each lie that they allow.

use crate::hostile::{nasty, peak_mib, read, survives, walk};
use serde_json::{Value, json};
use std::path::Path;
use tern::Encoding;
use tern::codec::Trits;
use tern::file::{self, File, OpenOptions, hf};
use tern::{Random, Result};

fn open_safetensors(bytes: Vec<u8>, config: Value) -> Result<File> {
    let file = hf::from_bytes(Path::new("bad.safetensors"), bytes.into(), config)?;
    walk(&file)?;
    Ok(file)
}

/// A packed checkpoint of one matrix, its norm and an unrelated tensor.
fn packed_header() -> Value {
    json!({
        "__metadata__": {"format": "pt"},
        "a.weight": {"dtype": "U8", "shape": [2, 6], "data_offsets": [0, 12]},
        "a.weight_scale": {"dtype": "BF16", "shape": [1], "data_offsets": [12, 14]},
        "norm.weight": {"dtype": "F16", "shape": [5], "data_offsets": [14, 24]},
        "ids": {"dtype": "F32", "shape": [], "data_offsets": [24, 28]},
    })
}

fn packed_config() -> Value {
    json!({"model_type": "bitnet", "quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear"}})
}

fn safetensors(header: &str) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend([0x66; 12]); // codes 2 1 2 1
    bytes.extend([0x80, 0x3e]); // 0.25
    bytes.extend([0; 14]);
    bytes
}

fn packed_file() -> Vec<u8> {
    safetensors(&packed_header().to_string())
}

/// Somewhere in a JSON value.
fn any_place<'a>(value: &'a mut Value, random: &mut Random) -> &'a mut Value {
    let length = match value {
        Value::Array(list) => list.len(),
        Value::Object(object) => object.len(),
        _ => 0,
    };
    if length == 0 || random.below(4) == 0 {
        return value;
    }
    let nth = random.below(length);
    let inner = match value {
        Value::Array(list) => &mut list[nth],
        Value::Object(object) => object.values_mut().nth(nth).unwrap(),
        _ => unreachable!("only lists and objects have a length"),
    };
    any_place(inner, random)
}

/// Another value for a place in a JSON file.
fn nasty_json(was: &Value, random: &mut Random) -> Value {
    match random.below(9) {
        0 => Value::Null,
        1 => json!(nasty(random, was.as_u64().unwrap_or(12))),
        2 => json!(-1),
        3 => json!(1e300),
        4 => json!("line\nbreak"),
        5 => json!([was, was, was]),
        6 => json!({"a": was}),
        7 => json!([nasty(random, 4), nasty(random, 6)]),
        _ => json!(["F32", "U8", "I4", "bf16"][random.below(4)]),
    }
}

/// A JSON text with a few values changed, or broken as a text.
fn mutant_json(whole: &Value, random: &mut Random) -> Vec<u8> {
    let mut value = whole.clone();
    for _ in 0..=random.below(2) {
        let place = any_place(&mut value, random);
        *place = nasty_json(place, random);
    }
    let mut text = value.to_string().into_bytes();
    match random.below(5) {
        0 => {
            let at = random.below(text.len());
            text[at] = random.bits() as u8;
        }
        1 => text.truncate(random.below(text.len())),
        _ => (),
    }
    text
}

#[test]
fn three_hundred_broken_safetensors() {
    let mut random = Random(3);
    let before = peak_mib();
    for nth in 0..300 {
        let header = mutant_json(&packed_header(), &mut random);
        let mut bytes = safetensors("");
        bytes.splice(0..8, (header.len() as u64).to_le_bytes().into_iter().chain(header));
        if random.below(4) == 0 {
            let was = u64::from_le_bytes(*bytes.first_chunk().unwrap());
            bytes[..8].copy_from_slice(&nasty(&mut random, was).to_le_bytes());
        }
        survives(&format!("mutant {nth}"), "bad.safetensors", || open_safetensors(bytes, packed_config()));
    }
    for nth in 0..200 {
        let Ok(config) = serde_json::from_slice(&mutant_json(&packed_config(), &mut random)) else {
            continue;
        };
        survives(&format!("config {nth}"), "", || open_safetensors(packed_file(), config));
    }
    assert!(peak_mib() - before < 256, "from {before} to {} MiB", peak_mib());
}

/// A directory with a checkpoint in two files.
fn sharded() -> (tempfile::TempDir, Value) {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, header: Value, data: &[u8]| {
        let header = header.to_string();
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(data);
        std::fs::write(dir.path().join(name), bytes).unwrap();
    };
    let one = json!({"a.weight": {"dtype": "U8", "shape": [1, 4], "data_offsets": [0, 4]}});
    write("m-1.safetensors", one, &[0x55; 4]);
    let two = json!({"a.weight_scale": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
                     "b": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}});
    write("m-2.safetensors", two, &[0, 0, 0, 0x40, 1, 2, 3, 4, 5, 6, 7, 8]);
    std::fs::write(dir.path().join("config.json"), packed_config().to_string()).unwrap();
    let index = json!({"metadata": {}, "weight_map":
        {"a.weight": "m-1.safetensors", "a.weight_scale": "m-2.safetensors", "b": "m-2.safetensors"}});
    (dir, index)
}

fn open_sharded(dir: &Path, index: &[u8]) -> Result<File> {
    std::fs::write(dir.join(hf::INDEX), index).unwrap();
    file::open(dir, OpenOptions::default())
}

#[test]
fn a_weight_and_its_scale_may_lie_in_two_files() {
    let (dir, index) = sharded();
    let file = open_sharded(dir.path(), index.to_string().as_bytes()).unwrap();
    let tensor = file.tensor("a.weight").unwrap();
    assert_eq!((tensor.encoding, &tensor.dims[..], tensor.scale), (Encoding::Packed, &[4, 4][..], Some(2.0)));
    assert_eq!(file.tensors().len(), 2);
}

#[test]
fn two_hundred_broken_indexes() {
    let mut random = Random(4);
    let (dir, index) = sharded();
    let name = dir.path().display().to_string();
    for nth in 0..200 {
        let text = mutant_json(&index, &mut random);
        survives(&format!("index {nth}"), &name, || open_sharded(dir.path(), &text));
    }
}

#[test]
fn an_index_that_lies_is_refused_by_name() {
    let (dir, index) = sharded();
    let refuses = |tensor: &str, shard: Value, expected: &str| {
        let mut index = index.clone();
        index["weight_map"][tensor] = shard;
        let line = open_sharded(dir.path(), index.to_string().as_bytes()).unwrap_err().to_string();
        assert!(line.contains(&format!("tensor `{tensor}`: {expected}")), "{line}");
    };
    let inside = "expected a .safetensors file of this directory, found";
    refuses("b", json!("m-3.safetensors"), "expected its file `m-3.safetensors`, found none");
    refuses("b", json!("../m-2.safetensors"), &format!("{inside} `../m-2.safetensors`"));
    refuses("b", json!("/m-2.safetensors"), &format!("{inside} `/m-2.safetensors`"));
    refuses("b", json!(hf::INDEX), &format!("{inside} `{}`", hf::INDEX));
    refuses("b", json!(7), "expected the name of its file, found 7");
    refuses("b", json!("m-1.safetensors"), "expected it in `m-1.safetensors`, found no such tensor there");
    refuses("c", json!("m-2.safetensors"), "expected it in `m-2.safetensors`, found no such tensor there");

    // The same tensor in both files.
    std::fs::copy(dir.path().join("m-1.safetensors"), dir.path().join("m-0.safetensors")).unwrap();
    let mut twice = index.clone();
    twice["weight_map"]["z"] = json!("m-0.safetensors");
    let line = open_sharded(dir.path(), twice.to_string().as_bytes()).unwrap_err().to_string();
    assert!(line.contains("tensor `z`"), "{line}");
    let header = json!({"a.weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
                        "z": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}});
    let mut bytes = (header.to_string().len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.to_string().as_bytes());
    bytes.extend([0; 8]);
    std::fs::write(dir.path().join("m-0.safetensors"), bytes).unwrap();
    let line = open_sharded(dir.path(), twice.to_string().as_bytes()).unwrap_err().to_string();
    let expected =
        "tensor `a.weight`: expected it in `m-1.safetensors` alone, found it in `m-0.safetensors` too";
    assert!(line.contains(expected), "{line}");
}

#[test]
fn a_header_that_lies_is_refused_by_name() {
    let refuses = |from: &str, to: &str, expected: &str| {
        let header = packed_header().to_string();
        assert!(header.contains(from), "{from} is not in {header}");
        let line = open_safetensors(safetensors(&header.replacen(from, to, 1)), packed_config())
            .unwrap_err()
            .to_string();
        assert!(line.starts_with("bad.safetensors: ") && line.contains(expected), "{line}");
    };
    refuses(
        "[14,24]",
        "[13,23]",
        "tensor `norm.weight`: expected data at offset 14, where the tensor before it ends, found 13",
    );
    refuses(
        "[14,24]",
        "[14,22]",
        "tensor `norm.weight`: expected 10 bytes for F16 [5], found offsets 14 to 22",
    );
    refuses(
        "[24,28]",
        "[24,18446744073709551615]",
        "tensor `ids`: expected 4 bytes for F32 [], found offsets 24 to",
    );
    refuses(
        "\"shape\":[5]",
        "\"shape\":[0]",
        "tensor `norm.weight`: expected sizes above 0 whose product fits 64 bits",
    );
    refuses(
        "\"shape\":[5]",
        "\"shape\":[4294967296,4294967296]",
        "tensor `norm.weight`: expected sizes above 0",
    );
    refuses("\"shape\":[5]", "\"shape\":[5,1,1,1,1,1,1,1,1]", "expected a list of at most 8 sizes");
    refuses("\"F16\"", "\"F17\"", "tensor `norm.weight`: expected a dtype of F32, F16, BF16,");
    refuses("norm.weight", "a.weight", "tensor `a.weight`: expected each name once, found it twice");
    refuses(
        "a.weight_scale",
        "b.weight_scale",
        "tensor `a.weight`: expected `a.weight_scale` beside it, found none",
    );
    refuses(
        "{\"dtype\":\"BF16\",\"shape\":[1]",
        "{\"dtype\":\"U8\",\"shape\":[2]",
        "tensor `a.weight_scale`: expected one number",
    );
    let config =
        |class: Value| json!({"quantization_config": {"quant_method": "bitnet", "linear_class": class}});
    let line = open_safetensors(packed_file(), config(json!("bitlinear2"))).unwrap_err().to_string();
    assert_eq!(
        line,
        "config.json: key `quantization_config.linear_class`: expected \"bitlinear\" or \"autobitlinear\", found \"bitlinear2\""
    );
    let longer = [packed_file(), vec![0]].concat();
    let line = open_safetensors(longer, packed_config()).unwrap_err().to_string();
    assert_eq!(line, "bad.safetensors: expected 28 bytes of tensors, found 29");
    let divided = open_safetensors(packed_file(), config(Value::Null)).unwrap();
    assert_eq!(divided.tensor("a.weight").unwrap().scale, Some(4.0));
    let plain = hf::from_bytes(Path::new("x.safetensors"), packed_file().into(), Value::Null).unwrap();
    let line = Trits::open(plain.tensor("a.weight").unwrap()).unwrap_err();
    assert!(line.starts_with("expected weights, found U8 without `quant_method` \"bitnet\""), "{line}");
}

#[test]
fn the_seeds_of_the_fuzzer_are_read_to_the_end() {
    for name in ["divides", "multiplies", "plain"] {
        let seed = read(&format!("../../fuzz/seeds/safetensors/{name}"));
        let cut = seed.iter().position(|&byte| byte == 0).unwrap();
        let config = serde_json::from_slice(&seed[..cut]).unwrap();
        let result = hf::from_bytes(Path::new("seed"), seed[cut + 1..].to_vec().into(), config);
        assert_eq!(result.unwrap().tensors().len(), if name == "plain" { 5 } else { 4 });
    }
}

#[test]
fn whole_files_are_accepted() {
    open_safetensors(packed_file(), packed_config()).unwrap();
}

#[test]
fn goldens_may_end_anywhere() {
    for name in ["bitnet_online_bf16", "llama_packed_bitlinear", "bitnet_1bitllm_f16"] {
        let whole = read(&format!("{name}/model.safetensors"));
        let header = u64::from_le_bytes(*whole.first_chunk().unwrap()) as usize;
        for end in (0..header + 8).step_by(5).chain([header + 7, header + 8, header + 9, whole.len() - 1]) {
            let failed = survives(&format!("{name} cut at {end}"), "bad.safetensors", || {
                open_safetensors(whole[..end].to_vec(), packed_config())
            });
            assert!(failed, "{name} cut at {end} of {} is accepted", whole.len());
        }
    }
}
