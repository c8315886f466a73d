//! The families of 2026 in Tern's own files: the same logits and vectors to the bit, whatever they came from.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tern::file::{File, OpenOptions};
use tern::{Config, Head, KvFormat, Logits, Model, Options, Row, Scratch, Sequence};
use tern_convert::{ConvertOptions, Target, convert};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/golden").join(name)
}

/// What a model makes of some ids: its last hidden states, as bits.
fn states(path: &Path) -> Vec<u32> {
    let options = Options { head: Head::Stored, kv: KvFormat::F32, threads: Some(1), ..Options::default() };
    let model = Model::open(path, &options).unwrap_or_else(|e| panic!("{e}"));
    let ids = [1u32, 40, 7, 91, 33, 12, 64, 5];
    let rows: Vec<Row> = ids.iter().map(|&token| Row { sequence: 0, token, logits: Logits::All }).collect();
    let mut sequences = [Sequence::new(&model, ids.len())];
    let mut scratch = Scratch::default();
    let hidden = model.hidden(&mut scratch, &mut sequences, &rows).unwrap();
    hidden.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn own_files_hold_every_family() {
    let dir = tempfile::tempdir().unwrap();
    for name in [
        "qwen2_vibevoice",
        "qwen3_bonsai",
        "gguf/qwen3_bonsai_pq2_0.gguf",
        "gguf/minicpm_bitcpm_f16.gguf",
        "gguf/llama_trilm_f16.gguf",
        "qwen3_embedding_norm_bitlinear",
        "gguf/qwen3_embedding_norm_bitlinear_i2s.gguf",
        "gemma3_embedding_norm_bitlinear",
        "gguf/gemma3_embedding_norm_bitlinear_i2s.gguf",
    ] {
        let want = states(&golden(name));
        for to in [Target::I2, Target::T5] {
            let out = dir.path().join("out.gguf");
            convert(&golden(name), &out, &ConvertOptions::new(to), &mut |_, _| {})
                .unwrap_or_else(|e| panic!("{name}: {e}"));
            assert!(states(&out) == want, "{name} as {}", to.name());
        }
    }
}

/// Rows of q and k change their order on the way, and their scales with them.
#[test]
fn scales_of_rows_follow_them_into_another_order() {
    let dir = tempfile::tempdir().unwrap();
    let (from, twin) = (golden("llama_trilm"), golden("gguf/llama_trilm_f16.gguf"));
    let out = dir.path().join("out.gguf");
    convert(&from, &out, &ConvertOptions::new(Target::I2), &mut |_, _| {}).unwrap();
    assert!(states(&out) == states(&twin), "as the twin that was written by others");
}

#[test]
fn longrope_is_tensors_in_a_gguf_and_keys_in_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let (from, twin) = (golden("minicpm_bitcpm"), golden("gguf/minicpm_bitcpm_f16.gguf"));
    let out = dir.path().join("minicpm.gguf");
    convert(&from, &out, &ConvertOptions::new(Target::I2), &mut |_, _| {}).unwrap();
    let open = |path: &Path| tern::file::open(path, OpenOptions::default()).unwrap();
    let (ours, theirs) = (open(&out), open(&twin));
    for name in ["rope_factors_short.weight", "rope_factors_long.weight"] {
        let bytes = |file: &File| file.tensor(name).expect("factors").bytes.to_vec();
        assert!(bytes(&ours) == bytes(&theirs), "{name}, as the twin that was written by others");
    }
    assert_eq!(Config::of(&ours).unwrap(), Config::of(&theirs).unwrap());
    assert!(states(&out) == states(&twin));

    // A Llama with it (the BitCPM of a billion is one), whose weights have a scale each, may go back and forth.
    let llama = dir.path().join("llama");
    std::fs::create_dir(&llama).unwrap();
    let source = golden("bitnet_online_bf16");
    std::fs::copy(source.join("model.safetensors"), llama.join("model.safetensors")).unwrap();
    let mut config: Value =
        serde_json::from_slice(&std::fs::read(source.join("config.json")).unwrap()).unwrap();
    let heads = config["num_attention_heads"].as_u64().unwrap();
    let head_dim = config["head_dim"].as_u64();
    let pairs = head_dim.unwrap_or(config["hidden_size"].as_u64().unwrap() / heads) / 2;
    let factors = |step: f64| (0..pairs).map(|pair| 1.0 + step * pair as f64).collect::<Vec<f64>>();
    config["rope_scaling"] = json!({
        "rope_type": "longrope", "short_factor": factors(0.125), "long_factor": factors(0.5),
        "original_max_position_embeddings": 32, "factor": 4.0,
    });
    std::fs::write(llama.join("config.json"), config.to_string()).unwrap();
    let want = states(&llama);
    assert!(want != states(&source), "the factors count");
    let (gguf, back) = (dir.path().join("llama.gguf"), dir.path().join("back"));
    convert(&llama, &gguf, &ConvertOptions::new(Target::I2), &mut |_, _| {}).unwrap();
    convert(&gguf, &back, &ConvertOptions::new(Target::Hf), &mut |_, _| {}).unwrap();
    for path in [&gguf, &back] {
        assert!(states(path) == want, "{}", path.display());
        assert_eq!(Config::of(&open(path)).unwrap().rope, Config::of(&open(&llama)).unwrap().rope);
    }
}

#[test]
fn what_a_format_has_no_word_for_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for (name, to, what) in [
        ("qwen2_vibevoice", Target::Hf, "a Qwen2 model, which can be written to a GGUF only"),
        ("minicpm_bitcpm", Target::Hf, "a MiniCPM model, which can be written to a GGUF only"),
        (
            "float_mistral",
            Target::I2,
            "`sliding_window`: a window, for which this architecture has no key in a GGUF",
        ),
    ] {
        let out = dir.path().join(if to == Target::Hf { "out" } else { "out.gguf" });
        let options = ConvertOptions { lossy: true, ..ConvertOptions::new(to) };
        let error = convert(&golden(name), &out, &options, &mut |_, _| {}).unwrap_err();
        assert!(error.to_string().contains(what), "{error}");
        assert!(!out.exists());
    }
}
