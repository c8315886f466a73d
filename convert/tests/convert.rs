//! What converting promises beside keeping the weights: names and keys that others read, refusals that say what to do,
//! and outputs that are whole or not there.

mod checkpoints;

use checkpoints::{Sizes, golden, masters, matrices, open};
use std::fs;
use std::path::Path;
use std::process::Command;
use tern::file::{File, Metadata, gguf::Pairs};
use tern_convert::{ConvertOptions, Engine, Floats, Summary, Target, convert};

fn run(input: &Path, output: &Path, options: ConvertOptions) -> Result<Summary, String> {
    convert(input, output, &options, &mut |_, _| {}).map_err(|e| e.to_string())
}

fn to(target: Target) -> ConvertOptions {
    ConvertOptions::new(target)
}

fn pairs(file: &File) -> &Pairs {
    match &file.metadata {
        Metadata::Gguf(pairs) => pairs,
        Metadata::Hf { .. } => panic!("a GGUF"),
    }
}

/// A copy of a recorded checkpoint to change.
fn copy(name: &str, dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(golden(name).join(file), dir.join(file)).unwrap();
    }
}

fn edit_config(dir: &Path, edit: impl FnOnce(&mut serde_json::Value)) {
    let path = dir.join("config.json");
    let mut config = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    edit(&mut config);
    fs::write(&path, config.to_string()).unwrap();
}

/// Whatever is in a directory.
fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn checkpoints_become_the_recorded_ggufs() {
    let dir = tempfile::tempdir().unwrap();
    for (hf, gguf) in [
        ("bitnet_packed_autobitlinear", "gguf/bitnet_b158_i2s.gguf"),
        ("llama_packed_bitlinear", "gguf/llama_i2s_permuted.gguf"), // q and k change their order
    ] {
        let output = dir.path().join("out.gguf");
        run(&golden(hf), &output, to(Target::I2S)).unwrap();
        let (made, recorded) = (open(&output), open(&golden(gguf)));
        let (a, b) = (matrices(&made), matrices(&recorded));
        assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
        for (name, (trits, scales)) in &a {
            assert!(*trits == b[name].0, "{name}");
            let (ours, theirs) = (f32::from_bits(scales[0]), f32::from_bits(b[name].1[0]));
            assert!((ours / theirs - 1.0).abs() < 1e-6, "{name}: {ours} {theirs}");
        }
        let (made, recorded) = (pairs(&made), pairs(&recorded));
        let arch = recorded.str("general.architecture").unwrap().unwrap();
        for (key, value) in recorded.iter().filter(|(key, _)| key.starts_with(arch)) {
            let found = made.get(key).unwrap_or_else(|| panic!("{key}"));
            assert_eq!(found.describe(), value.describe(), "{key}");
        }
    }
}

#[test]
fn architectures_follow_the_family_and_the_activation() {
    let dir = tempfile::tempdir().unwrap();
    let arch = |input: &Path| {
        let output = dir.path().join("out.gguf");
        run(input, &output, to(Target::I2)).unwrap();
        pairs(&open(&output)).str("general.architecture").unwrap().unwrap().to_owned()
    };
    assert_eq!(arch(&golden("bitnet_online_bf16")), "bitnet-b1.58");
    assert_eq!(arch(&golden("bitnet_1bitllm_f16")), "bitnet");
    assert_eq!(arch(&golden("llama_packed_bitlinear")), "llama");
    // The graph of 2B4T with SiLU is what other programs know as `bitnet`.
    let silu = dir.path().join("silu");
    copy("bitnet_online_bf16", &silu);
    edit_config(&silu, |config| config["hidden_act"] = "silu".into());
    assert_eq!(arch(&silu), "bitnet");
}

#[test]
fn float_models_are_not_ternarised_unless_told() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("float");
    let sizes =
        Sizes { layers: 1, heads: 2, kv_heads: 1, head_dim: 8, dim: 16, hidden: 32, vocab: 8, llama: true };
    masters(&input, sizes, 1);
    edit_config(&input, |config| config["quantization_config"] = serde_json::Value::Null);
    let output = dir.path().join("out.gguf");
    let error = run(&input, &output, to(Target::I2)).unwrap_err();
    assert!(error.contains("self_attn.q_proj.weight") && error.contains("not trained ternary"), "{error}");
    assert!(error.contains("--lossy") && !error.contains('\n'), "{error}");
    assert_eq!(names(dir.path()), ["float"]);
    let summary = run(&input, &output, ConvertOptions { lossy: true, ..to(Target::I2) }).unwrap();
    assert!(summary.ternary == 7 && summary.notes[0].contains("not trained ternary"), "{summary:?}");
    // What is ternary now stays convertible.
    run(&output, &dir.path().join("again"), to(Target::T5)).unwrap();
    // And floats that are trits times one scale lose nothing: such checkpoints are published beside packed ones.
    let ternary = matrices(&open(&output));
    dequantise(&input.join("model.safetensors"));
    let summary = run(&input, &output, to(Target::I2)).unwrap();
    assert!(!summary.notes.iter().any(|note| note.contains("not trained ternary")), "{summary:?}");
    assert!(matrices(&open(&output)) == ternary);
}

/// Replaces the masters of a bf16 file by what their trits stand for, as f32.
fn dequantise(path: &Path) {
    let input = open(path.parent().unwrap());
    let mut out = vec![0.0; 4096];
    let tensors = input.tensors().iter().map(|tensor| {
        let is_matrix = tensor.name.ends_with("_proj.weight");
        let trits = is_matrix.then(|| tern::codec::Trits::open(tensor).unwrap());
        let mut bytes = Vec::new();
        for row in 0..tensor.rows() {
            let out = &mut out[..tensor.cols()];
            tern::codec::floats(tensor, row, out).unwrap();
            if let Some(trits) = &trits {
                let mut row_trits = vec![0; out.len()];
                trits.row(row, &mut row_trits).unwrap();
                let scale = trits.scales().at(0, 0, out.len());
                out.iter_mut().zip(row_trits).for_each(|(value, trit)| *value = f32::from(trit) * scale);
            }
            bytes.extend(out.iter().flat_map(|value| value.to_le_bytes()));
        }
        (tensor.name.clone(), tensor.dims.clone(), bytes)
    });
    let tensors: Vec<_> = tensors.collect();
    let views = tensors.iter().map(|(name, dims, bytes)| {
        let view =
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, dims.clone(), bytes).unwrap();
        (name.clone(), view)
    });
    let bytes = safetensors::serialize(views, None).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn outputs_that_cannot_be_are_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let input = golden("bitnet_online_bf16");
    let full = dir.path().join("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("thesis.txt"), "mine").unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "mine").unwrap();
    for (output, target, what) in [
        (&full, Target::Hf, "not empty"),
        (&full, Target::I2, "is a directory"),
        (&file, Target::Hf, "is a file"),
        (&dir.path().join("no/where"), Target::I2, "No such file"),
        (&dir.path().join(".."), Target::I2, "is a directory"),
    ] {
        let error = run(&input, output, to(target)).unwrap_err();
        assert!(error.contains(what), "{error}");
    }
    let hf = ConvertOptions { embedding: Floats::Q8_0, ..to(Target::Hf) };
    let error = run(&input, &dir.path().join("hf"), hf).unwrap_err();
    assert!(error.contains("cannot hold Q8_0"), "{error}");
    assert_eq!(names(dir.path()), ["file", "full"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    assert_eq!(names(&full), ["thesis.txt"]);
    // An empty directory is as good as none.
    let empty = dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    run(&input, &empty, to(Target::Hf)).unwrap();
    assert_eq!(names(&empty), ["config.json", "model.safetensors"]);
}

#[test]
fn strange_and_missing_tensors_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("out");
    for (edit, what) in [
        // More blocks than the configuration speaks of, fewer, and a norm that no family has.
        (serde_json::json!({ "num_hidden_layers": 1 }), "model.layers.1."),
        (serde_json::json!({ "num_hidden_layers": 3 }), "model.layers.2."),
        (serde_json::json!({ "architectures": ["LlamaForCausalLM"], "hidden_act": "silu" }), "sub_norm"),
        (serde_json::json!({ "hidden_size": 64 }), "embed_tokens"),
    ] {
        let input = dir.path().join("in");
        copy("bitnet_online_bf16", &input);
        edit_config(&input, |config| {
            edit.as_object().unwrap().iter().for_each(|(key, value)| config[key] = value.clone());
        });
        let error = run(&input, &output, to(Target::I2)).unwrap_err();
        assert!(error.contains(what) && !output.exists(), "{error}");
    }
}

#[test]
fn a_file_can_be_replaced_by_its_own_conversion() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    fs::copy(golden("gguf/bitnet_b158_i2s.gguf"), &path).unwrap();
    let before = matrices(&open(&path));
    for target in [Target::I2, Target::T5, Target::I2S] {
        run(&path, &path, to(target)).unwrap();
        assert!(matrices(&open(&path)) == before);
    }
    assert_eq!(names(dir.path()), ["model.gguf"]);
}

#[test]
fn leftovers_of_the_dead_are_cleaned_and_drafts_of_the_living_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let draft = |name: &str| dir.path().join(name);
    fs::write(draft(".model.gguf.tern-1-0.part"), "left by a killed process").unwrap();
    fs::create_dir(draft(".model.gguf.tern-1-1.part")).unwrap();
    fs::write(draft(".model.gguf.tern-1-1.part/config.json"), "{}").unwrap();
    fs::write(draft(".other.gguf.tern-1-0.part"), "somebody else's").unwrap();
    fs::write(draft(".model.gguf.backup"), "no draft").unwrap();
    let living = fs::File::create(draft(".model.gguf.tern-2-0.part")).unwrap();
    living.lock().unwrap();
    run(&golden("bitnet_online_bf16"), &draft("model.gguf"), to(Target::I2)).unwrap();
    let left = [".model.gguf.backup", ".model.gguf.tern-2-0.part", ".other.gguf.tern-1-0.part", "model.gguf"];
    assert_eq!(names(dir.path()), left);
}

#[test]
fn tokenizers_travel_whole_and_as_arrays() {
    let dir = tempfile::tempdir().unwrap();
    for (name, model, pre) in [
        ("bpe_llama3_tiny", "gpt2", Some("llama-bpe")),
        ("bpe_qwen2_tiny", "gpt2", Some("qwen2")),
        ("spm_bpe_tiny", "llama", None),
    ] {
        let input = dir.path().join(name);
        copy("bitnet_online_bf16", &input);
        let tokenizer = golden("tokenizers").join(format!("{name}.json"));
        fs::copy(&tokenizer, input.join("tokenizer.json")).unwrap();
        let template = "{% for m in messages %}{{ m.content }}{% endfor %}";
        let config = serde_json::json!({ "chat_template": template, "bos_token": "<s>" });
        fs::write(input.join("tokenizer_config.json"), config.to_string()).unwrap();
        let output = dir.path().join(format!("{name}.gguf"));
        run(&input, &output, to(Target::I2)).unwrap();
        let file = open(&output);
        let pairs = pairs(&file);
        let ggml = |key: &str| format!("tokenizer.ggml.{key}");
        assert_eq!(pairs.str(&ggml("model")).unwrap(), Some(model));
        assert_eq!(pairs.str(&ggml("pre")).unwrap(), pre);
        assert_eq!(pairs.str("tokenizer.chat_template").unwrap(), Some(template));
        let tokens = pairs.strings(&ggml("tokens")).unwrap().unwrap();
        let kinds = pairs.i32s(&ggml("token_type")).unwrap().unwrap();
        assert_eq!((tokens.len(), kinds.len()), (96, 96)); // the rows of the embedding
        let json: serde_json::Value = serde_json::from_slice(&fs::read(&tokenizer).unwrap()).unwrap();
        for (text, id) in json["model"]["vocab"].as_object().unwrap() {
            if let Some(token) = tokens.get(id.as_u64().unwrap() as usize) {
                assert_eq!(token, text);
            }
        }
        let added = json["added_tokens"].as_array().unwrap();
        for token in added.iter().filter(|token| token["id"].as_u64().unwrap() < 96) {
            let kind =
                match (token["special"].as_bool().unwrap(), token["content"] == json["model"]["unk_token"]) {
                    (true, true) => 2,
                    (true, false) => 3,
                    (false, _) => 4,
                };
            assert_eq!(kinds[token["id"].as_u64().unwrap() as usize], kind, "{token}");
        }
        if model == "gpt2" {
            let merges = pairs.strings(&ggml("merges")).unwrap().unwrap();
            assert_eq!(merges.len(), json["model"]["merges"].as_array().unwrap().len());
            assert!(merges.iter().all(|merge| merge.split(' ').count() == 2), "{merges:?}");
        } else {
            assert_eq!(pairs.f32s(&ggml("scores")).unwrap().unwrap().len(), 96);
        }
        let back = dir.path().join(format!("{name}-back"));
        run(&output, &back, to(Target::Hf)).unwrap();
        assert_eq!(fs::read(back.join("tokenizer.json")).unwrap(), fs::read(&tokenizer).unwrap());
        let config: serde_json::Value =
            serde_json::from_slice(&fs::read(back.join("tokenizer_config.json")).unwrap()).unwrap();
        assert_eq!(config["chat_template"], template);
    }
}

#[test]
fn progress_ends_at_its_total_and_never_goes_back() {
    let dir = tempfile::tempdir().unwrap();
    for target in Target::ALL.into_iter().filter(|t| !matches!(t, Target::Tq1_0 | Target::Tq2_0)) {
        let mut seen = Vec::new();
        let output = dir.path().join(target.name());
        convert(&golden("bitnet_online_bf16"), &output, &to(target), &mut |done, total| {
            seen.push((done, total))
        })
        .unwrap();
        assert!(seen.windows(2).all(|two| two[0].0 <= two[1].0 && two[0].1 == two[1].1), "{seen:?}");
        let (done, total) = seen[seen.len() - 1];
        assert_eq!(done, total, "{}", target.name());
    }
}

#[test]
fn own_blocks_lie_where_they_can_be_mapped() {
    let dir = tempfile::tempdir().unwrap();
    for target in [Target::I2, Target::T5] {
        let output = dir.path().join(target.name());
        run(&golden("bitnet_1bitllm_f16"), &output, to(target)).unwrap();
        let bytes = fs::read(&output).unwrap();
        let file = open(&output);
        for tensor in file.tensors().iter().filter(|tensor| tensor.encoding.is_ternary()) {
            let at =
                bytes.windows(tensor.bytes.len()).position(|window| *window == tensor.bytes[..]).unwrap();
            assert_eq!(at % 64, 0, "{}", tensor.name);
        }
    }
}

#[test]
fn several_scales_stay_several() {
    let dir = tempfile::tempdir().unwrap();
    let (one, several) = (dir.path().join("one.gguf"), dir.path().join("several.gguf"));
    let sizes = Sizes {
        layers: 1,
        heads: 4,
        kv_heads: 4,
        head_dim: 64,
        dim: 256,
        hidden: 256,
        vocab: 8,
        llama: true,
    };
    masters(&dir.path().join("masters"), sizes, 3);
    run(&dir.path().join("masters"), &one, to(Target::Tq2_0)).unwrap();
    // Other programs' files may have another scale in every block: here 1 in the first of q, 2 in the next, ...
    let mut bytes = fs::read(&one).unwrap();
    let file = open(&one);
    let q = file.tensor("blk.0.attn_q.weight").unwrap();
    let start = bytes.windows(q.bytes.len()).position(|window| *window == q.bytes[..]).unwrap();
    for block in 0..256 {
        let d = tern_kernels::half::f32_to_f16((block + 1) as f32);
        bytes[start + block * 66 + 64..][..2].copy_from_slice(&d.to_le_bytes());
    }
    fs::write(&several, bytes).unwrap();
    let before = matrices(&open(&several));
    let scales: Vec<f32> = before["blk.0.attn_q.weight"].1.iter().map(|&bits| f32::from_bits(bits)).collect();
    assert_eq!(scales, (1..=256).map(|scale| scale as f32).collect::<Vec<_>>());
    let mut last = several.clone();
    for target in [Target::I2, Target::T5, Target::Tq1_0, Target::T5, Target::Tq2_0] {
        let next = dir.path().join(target.name());
        run(&last, &next, to(target)).unwrap();
        assert!(matrices(&open(&next)) == before, "{}", target.name());
        last = next;
    }
    for target in [Target::Hf, Target::I2S] {
        let error = run(&several, &dir.path().join("no"), to(target)).unwrap_err();
        assert!(error.contains("blk.0.attn_q.weight") && error.contains("--to i2"), "{error}");
    }
}

/// A disk of 64 KiB, where the system lends one.
#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_leaves_the_old_file() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "tmpfs"]).arg(&disk).output();
    if !mount.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: no tmpfs can be mounted here");
        return;
    }
    let result = std::panic::catch_unwind(|| {
        fs::write(disk.join("model.gguf"), "old").unwrap();
        for target in [Target::I2, Target::I2S, Target::T5] {
            let error = run(&golden("bitnet_online_bf16"), &disk.join("model.gguf"), to(target)).unwrap_err();
            assert!(error.contains("model.gguf") && error.contains("No space"), "{error}");
            assert_eq!(names(&disk), ["model.gguf"]);
            assert_eq!(fs::read_to_string(disk.join("model.gguf")).unwrap(), "old");
        }
        let error = run(&golden("bitnet_online_bf16"), &disk.join("hf"), to(Target::Hf)).unwrap_err();
        assert!(error.contains("No space"), "{error}");
        assert_eq!(names(&disk), ["model.gguf"]);
    });
    let unmounted = Command::new("umount").arg(&disk).status();
    assert!(unmounted.is_ok_and(|status| status.success()));
    result.unwrap();
}

/// The architecture and, below it, the activation that a converted file names.
fn named(output: &Path) -> (String, Option<String>) {
    let file = open(output);
    let pairs = pairs(&file);
    let arch = pairs.str("general.architecture").unwrap().unwrap().to_owned();
    let act = pairs.str(&format!("{arch}.hidden_act")).unwrap().map(str::to_owned);
    (arch, act)
}

#[test]
fn each_program_gets_the_names_that_it_reads() {
    let dir = tempfile::tempdir().unwrap();
    let page = golden("../models/page/page.gguf");
    let bitllm = golden("bitnet_1bitllm_f16");
    let relu2 = |arch: &str| (arch.to_owned(), (arch == "bitnet").then(|| "relu2".to_owned()));
    let silu = ("bitnet".to_owned(), None);
    let cases = [
        (&page, Target::Tq2_0, None, relu2("bitnet")),
        (&page, Target::Tq1_0, Some(Engine::LlamaCpp), relu2("bitnet")),
        (&page, Target::Tq1_0, Some(Engine::BitnetCpp), relu2("bitnet-b1.58")),
        (&page, Target::I2S, None, relu2("bitnet-b1.58")),
        (&page, Target::I2S, Some(Engine::IkLlamaCpp), relu2("bitnet-b1.58")),
        (&page, Target::I2, None, relu2("bitnet-b1.58")),
        (&bitllm, Target::I2S, None, silu.clone()),
        (&bitllm, Target::I2, None, silu),
    ];
    for (nth, (input, target, engine, expected)) in cases.into_iter().enumerate() {
        let output = dir.path().join(format!("{nth}.gguf"));
        run(input, &output, ConvertOptions { engine, ..to(target) }).unwrap();
        assert_eq!(named(&output), expected, "{} for {engine:?}", target.name());
        // The same model under every name, and back under its own.
        let model = open(input);
        assert_eq!(
            tern::Config::of(&open(&output)).unwrap().activation,
            tern::Config::of(&model).unwrap().activation
        );
        if target == Target::Tq2_0 {
            let back = dir.path().join("back.gguf");
            run(&output, &back, to(Target::I2S)).unwrap();
            assert_eq!(named(&back).0, "bitnet-b1.58");
            assert_eq!(matrices(&open(&back)), matrices(&model));
        }
    }
    for (target, engine, what) in [
        (Target::I2S, Engine::LlamaCpp, "llama.cpp does not read i2_s: expected tq1_0 or tq2_0"),
        (Target::Tq2_0, Engine::IkLlamaCpp, "ik_llama.cpp does not read tq2_0: expected i2_s"),
        (Target::I2, Engine::BitnetCpp, "bitnet.cpp does not read i2"),
        (Target::Hf, Engine::LlamaCpp, "llama.cpp does not read hf"),
    ] {
        let options = ConvertOptions { engine: Some(engine), ..to(target) };
        let error = run(&page, &dir.path().join("refused.gguf"), options).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    }
    // A model that llama.cpp would run wrong: refused for it, else named for bitnet.cpp.
    let wide = dir.path().join("wide");
    let sizes = Sizes {
        layers: 1,
        heads: 4,
        kv_heads: 2,
        head_dim: 64,
        dim: 512,
        hidden: 256,
        vocab: 32,
        llama: false,
    };
    masters(&wide, sizes, 3);
    let output = dir.path().join("wide.gguf");
    let asked = ConvertOptions { engine: Some(Engine::LlamaCpp), ..to(Target::Tq2_0) };
    let error = run(&wide, &output, asked).unwrap_err();
    assert!(error.contains("256 rows, and llama.cpp wants 512"), "{error}");
    let summary = run(&wide, &output, to(Target::Tq2_0)).unwrap();
    assert!(
        summary.notes.iter().any(|note| note.contains("the names are bitnet.cpp's")),
        "{:?}",
        summary.notes
    );
    assert_eq!(named(&output).0, "bitnet-b1.58");
    let narrow = run(&bitllm, &dir.path().join("narrow.gguf"), to(Target::Tq2_0)).unwrap_err().to_string();
    assert!(
        narrow.contains("multiple of 256 columns, this has 64") && narrow.contains("`--to i2s`"),
        "{narrow}"
    );
}

#[test]
fn the_1bitllm_models_become_the_class_that_transformers_has_code_for() {
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("hf");
    run(&golden("bitnet_1bitllm_f16"), &output, to(Target::Hf)).unwrap();
    let file = open(&output);
    let Metadata::Hf { config, .. } = &file.metadata else { panic!("a checkpoint") };
    assert_eq!(
        (&config["architectures"][0], &config["model_type"]),
        (&"BitNetForCausalLM".into(), &"bitnet".into())
    );
    assert_eq!((config.get("weight_bits"), config.get("input_bits")), (None, None));
    assert_eq!((&config["hidden_act"], &config["pad_token_id"]), (&"silu".into(), &0.into()));
    assert!(file.tensor("model.layers.0.self_attn.attn_sub_norm.weight").is_some());
    assert!(file.tensor("model.layers.1.mlp.ffn_sub_norm.weight").is_some());
    assert!(file.tensors().iter().all(|tensor| !tensor.name.contains("inner_attn_ln")));
}

#[test]
fn a_tokenizer_that_cannot_be_used_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("in");
    std::fs::create_dir(&input).unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(golden("bitnet_online_bf16").join(name), input.join(name)).unwrap();
    }
    std::fs::write(input.join("tokenizer.json"), "{\"model\": {\"type\": \"BPE\"").unwrap();
    for (target, output) in [(Target::Hf, "out"), (Target::I2, "out.gguf")] {
        let summary = run(&input, &dir.path().join(output), to(target)).unwrap();
        let told = |note: &String| note.contains("tokenizer cannot be used and was copied as it is");
        assert!(summary.notes.iter().any(told), "{:?}", summary.notes);
    }
}
