//! `tern convert`: what goes in comes out, and whatever happens on the way, OUT is the old file, or none, or whole.

mod common;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use common::{Done, PAGE, run, snapshot, tern, testdata, transcript};
use serde_json::{Value, json};

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }
    fn names(&self) -> BTreeSet<String> {
        std::fs::read_dir(self.0.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect()
    }
}

/// Token ids and log-probabilities that a model writes.
fn writes(model: &str) -> (Value, Value) {
    let json = run(&["run", model, "--ids", "5,17,42,3", "--temp", "0", "-n", "8", "--json"]).json();
    (json["ids"].clone(), json["logprobs"].clone())
}

#[test]
fn every_format_writes_a_model_that_says_the_same_and_converts_back() {
    let folder = Folder::new();
    let input = testdata("golden/bitnet_packed_autobitlinear");
    let expected = writes(&input);
    for to in ["i2", "t5", "i2s", "tq2_0", "hf"] {
        let out = folder.path(&format!("out-{to}"));
        let done = run(&["convert", &input, &out, "--to", to]);
        // The sizes of this tiny model do not fit blocks of 256.
        if to == "tq2_0" && done.code != Some(0) {
            assert!(done.stderr.contains("256"), "{}", done.stderr);
            continue;
        }
        done.ok();
        assert_eq!(writes(&out), expected, "{to}");
        let back = folder.path(&format!("back-{to}"));
        run(&["convert", &out, &back, "--to", "i2"]).ok();
        assert_eq!(writes(&back), expected, "{to} and back");
    }
}

#[test]
fn json_tells_what_was_written() {
    let folder = Folder::new();
    let out = folder.path("out.gguf");
    let json = run(&["convert", PAGE, &out, "--to", "t5", "--json"]).json();
    assert_eq!((&json["output"], &json["format"]), (&Value::from(&*out), &Value::from("t5")));
    let size = std::fs::metadata(&out).unwrap().len();
    assert_eq!(json["bytes"], size);
    assert!(
        json["ternary_tensors"].as_u64().unwrap() > 0 && json["ternary_weights"].as_u64().unwrap() > 0,
        "{json}"
    );
    let dummy = folder.path("dummy.gguf");
    let json = run(&["dummy", "--shape", "tiny", &dummy, "-c", "77", "--json"]).json();
    assert_eq!((&json["output"], &json["format"]), (&Value::from(&*dummy), &Value::from("i2")));
}

#[test]
fn the_name_of_the_output_says_the_format() {
    let folder = Folder::new();
    let input = testdata("golden/bitnet_packed_autobitlinear");
    let encodings = |out: &str| -> BTreeSet<String> {
        let json = run(&["inspect", out, "--json"]).json();
        json["tensors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|t| t["encoding"].as_str().unwrap().to_owned())
            .collect()
    };
    run(&["convert", &input, &folder.path("a.gguf")]).ok();
    assert!(encodings(&folder.path("a.gguf")).contains("I2"));
    run(&["convert", &input, &folder.path("a-dir")]).ok();
    assert!(Path::new(&folder.path("a-dir/config.json")).exists());
    run(&["convert", "story", &folder.path("story.gguf"), "--to", "t5"]).ok();
    assert!(encodings(&folder.path("story.gguf")).contains("T5"));
}

#[test]
fn refusals_name_the_thing_and_leave_nothing() {
    let folder = Folder::new();
    let model = testdata("golden/gguf/bitnet_b158_i2s.gguf");
    let copy = folder.path("model.gguf");
    std::fs::copy(&model, &copy).unwrap();
    std::fs::create_dir(folder.path("full")).unwrap();
    std::fs::write(folder.path("full/mine"), "mine").unwrap();
    std::fs::create_dir(folder.path("dir.gguf")).unwrap();
    let before = (folder.names(), std::fs::read(&copy).unwrap());
    let here = folder.0.path().to_str().unwrap().to_owned();
    let mut text = String::new();
    for args in [
        vec!["convert", &copy, &copy],
        vec!["convert", &copy, &folder.path("./model.gguf")],
        vec!["convert", &copy, &folder.path("out.bin")],
        vec!["convert", &copy, &folder.path("full"), "--to", "hf"],
        vec!["convert", &copy, &folder.path("dir.gguf"), "--to", "i2"],
        vec!["convert", &copy, &folder.path("missing/out.gguf")],
        vec!["convert", &copy, &format!("{copy}/out.gguf")],
        vec!["convert", &testdata("golden/gguf/types_v3.gguf"), &folder.path("out.gguf")],
    ] {
        let done = run(&args);
        assert!(matches!(done.code, Some(1 | 2)), "{args:?}: {:?} {}", done.code, done.stderr);
        assert!(done.stderr.starts_with("error: "), "{args:?}: {}", done.stderr);
        text.push_str(&transcript(&args, &done, &[(&here, "DIR"), (&testdata("golden"), "GOLDEN")]));
        text.push('\n');
    }
    assert_eq!((folder.names(), std::fs::read(&copy).unwrap()), before);
    snapshot("convert-errors", &text);
}

#[cfg(unix)]
#[test]
fn what_is_no_file_is_never_replaced_by_one() {
    use std::os::unix::fs::FileTypeExt;
    let folder = Folder::new();
    let (fifo, link) = (folder.path("fifo.gguf"), folder.path("link.gguf"));
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    std::os::unix::fs::symlink(&fifo, &link).unwrap();
    for out in [&fifo, &link] {
        for args in [&["convert", "story", out][..], &["dummy", "--shape", "tiny", out]] {
            let done = run(args);
            assert_eq!(done.code, Some(1), "{args:?}");
            let expected =
                format!("error: {out}: is a device, pipe or socket, expected the name of a file to write\n");
            assert_eq!(done.stderr, expected);
        }
        assert!(std::fs::metadata(out).unwrap().file_type().is_fifo());
    }
}

#[test]
fn what_a_file_says_about_its_use_goes_along() {
    let folder = Folder::new();
    let value = |model: &str, key: &str| run(&["inspect", model, "--json"]).json()["metadata"][key].clone();
    let (hf, back) = (folder.path("page"), folder.path("page.gguf"));
    run(&["convert", PAGE, &hf]).ok();
    assert_eq!(value(&hf, "tern.prompt"), "raw");
    run(&["convert", &hf, &back]).ok();
    assert_eq!(value(&back, "tern.prompt"), "raw");
    let prompt = ["Once upon a time", "--temp", "0", "-n", "9"];
    assert_eq!(
        run(&[&["run", &*back], &prompt[..]].concat()).ok(),
        run(&[&["run", PAGE], &prompt[..]].concat()).ok()
    );
}

#[test]
fn a_dummy_is_the_same_each_time_and_says_what_it_is() {
    let folder = Folder::new();
    let make = |name: &str, more: &[&str]| {
        let out = folder.path(name);
        let done = run(&[&["dummy", "--shape", "tiny", &*out], more].concat());
        assert!(done.stderr.starts_with("warning: the weights are random"), "{}", done.stderr);
        done.ok();
        out
    };
    let read = |path: &str| std::fs::read(path).unwrap();
    let first = make("a.gguf", &[]);
    assert_eq!(read(&first), read(&make("b.gguf", &["--seed", "0"])));
    assert_ne!(read(&first), read(&make("c.gguf", &["--seed", "1"])));
    for model in [first, make("hf", &[]), make("t.gguf", &["--to", "tq1_0"])] {
        assert_eq!(run(&["inspect", &model, "--json"]).json()["dummy"], true, "{model}");
        let done = run(&["run", &model, "--ids", "1", "-n", "2"]);
        assert!(done.stderr.contains("holds random weights"), "{}", done.stderr);
        done.ok();
    }
    let gguf = folder.path("from hf.gguf");
    run(&["convert", &folder.path("hf"), &gguf]).ok();
    assert_eq!(run(&["inspect", &gguf, "--json"]).json()["dummy"], true, "a dummy stays one when converted");
}

#[cfg(target_os = "linux")]
#[test]
fn places_that_cannot_be_written_are_named() {
    let model = testdata("golden/gguf/bitnet_b158_i2s.gguf");
    // /proc takes no files from anybody, root included.
    let done = run(&["convert", &model, "/proc/out.gguf"]);
    assert_eq!(done.code, Some(1));
    assert!(done.stderr.starts_with("error: /proc/out.gguf: "), "{}", done.stderr);
}

/// A checkpoint with bf16 masters of 21 million weights: converting it takes long enough to be killed in the middle.
fn slow_input(folder: &Folder) -> String {
    let (dim, hidden, layers, vocab) = (1024, 2048, 2, 64);
    let dir = folder.path("in");
    std::fs::create_dir(&dir).unwrap();
    let config = json!({
        "architectures": ["BitNetForCausalLM"], "model_type": "bitnet", "hidden_act": "relu2", "vocab_size": vocab,
        "hidden_size": dim, "intermediate_size": hidden, "num_hidden_layers": layers, "num_attention_heads": 16,
        "num_key_value_heads": 16, "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "tie_word_embeddings": true, "quantization_config": {"quant_method": "bitnet", "quantization_mode": "online"},
    });
    std::fs::write(format!("{dir}/config.json"), config.to_string()).unwrap();
    let mut tensors = vec![("embed_tokens".to_owned(), vec![vocab, dim]), ("norm".into(), vec![dim])];
    for layer in 0..layers {
        let mut add =
            |name: &str, dims: &[usize]| tensors.push((format!("layers.{layer}.{name}"), dims.to_vec()));
        for name in ["input_layernorm", "post_attention_layernorm", "self_attn.attn_sub_norm"] {
            add(name, &[dim]);
        }
        add("mlp.ffn_sub_norm", &[hidden]);
        for name in ["q", "k", "v", "o"] {
            add(&format!("self_attn.{name}_proj"), &[dim, dim]);
        }
        add("mlp.gate_proj", &[hidden, dim]);
        add("mlp.up_proj", &[hidden, dim]);
        add("mlp.down_proj", &[dim, hidden]);
    }
    let mut header = serde_json::Map::new();
    let mut bytes: usize = 0;
    for (name, dims) in &tensors {
        let end = bytes + 2 * dims.iter().product::<usize>();
        let entry = json!({"dtype": "BF16", "shape": dims, "data_offsets": [bytes, end]});
        header.insert(format!("model.{name}.weight"), entry);
        bytes = end;
    }
    let header = Value::Object(header).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    // Any finite numbers: the exponent byte is 0x3d or 0xbd, about 0.05.
    let mut random = 1u32;
    file.extend((0..bytes / 2).flat_map(|_| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        [(random >> 24) as u8, 0x3d | ((random >> 16) as u8 & 0x80)]
    }));
    std::fs::write(format!("{dir}/model.safetensors"), file).unwrap();
    dir
}

#[cfg(unix)]
#[test]
fn killed_at_any_moment_it_leaves_the_old_file_or_the_new_one() {
    let folder = Folder::new();
    let input = slow_input(&folder);
    let out = folder.path("out.gguf");
    let start = Instant::now();
    run(&["convert", &input, &out]).ok();
    let whole = start.elapsed();
    let new = std::fs::read(&out).unwrap();
    let old = b"the old file".to_vec();
    let (mut kept, mut left) = (0, 0);
    for moment in 0..24u32 {
        std::fs::write(&out, &old).unwrap();
        let mut child = tern(&["convert", &input, &out]).spawn().unwrap();
        std::thread::sleep(whole * moment / 24);
        child.kill().unwrap(); // SIGKILL
        child.wait().unwrap();
        let found = std::fs::read(&out).unwrap();
        assert!(found == old || found == new, "moment {moment}: {} bytes, neither old nor new", found.len());
        kept += usize::from(found == old);
        left += folder.names().len() - 2;
    }
    assert!(kept >= 10, "only {kept} of 24 were killed before the end");
    assert!(left > 0, "no kill hit the writing itself");
    // The next one that ends well takes the leftovers away.
    run(&["convert", &input, &out]).ok();
    assert_eq!(folder.names(), BTreeSet::from(["in".to_owned(), "out.gguf".to_owned()]));
    assert_eq!(std::fs::read(&out).unwrap(), new);
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_it_and_leaves_nothing() {
    let folder = Folder::new();
    let input = slow_input(&folder);
    let child = tern(&["convert", &input, &folder.path("out.gguf")]).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while folder.names().len() < 2 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
    let id = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let done: Done = child.wait_with_output().unwrap().into();
    if done.code != Some(0) {
        assert_eq!((done.code, folder.names()), (Some(130), BTreeSet::from(["in".to_owned()])));
    }
}

#[test]
fn a_hugging_face_directory_has_no_number_that_a_cpu_cannot_multiply_and_says_what_ends_a_text() {
    let dir = tempfile::tempdir().unwrap();
    let (there, again) = (dir.path().join("there"), dir.path().join("again"));
    let (there, again) = (there.to_str().unwrap(), again.to_str().unwrap());
    // The built-in model's embedding is f16.
    run(&["convert", "story", there, "--to", "hf"]).ok();
    // As from elsewhere: f16, and nothing said about ends.
    run(&["convert", "story", again, "--to", "hf", "--embedding", "f16"]).ok();
    let json = |path: &std::path::Path| -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    };
    let config = std::path::Path::new(again).join("config.json");
    let mut changed = json(&config);
    for key in ["bos_token_id", "eos_token_id"] {
        changed.as_object_mut().unwrap().remove(key);
    }
    changed["torch_dtype"] = "float16".into();
    std::fs::write(&config, changed.to_string()).unwrap();
    std::fs::remove_file(std::path::Path::new(again).join("generation_config.json")).unwrap();
    let third = dir.path().join("third");
    run(&["convert", again, third.to_str().unwrap(), "--to", "hf"]).ok();
    for folder in [std::path::Path::new(there), &third] {
        let held = run(&["inspect", folder.to_str().unwrap(), "--json"]).json();
        let embedding = held["tensors"]
            .as_array()
            .unwrap()
            .iter()
            .find(|t| t["name"].as_str().unwrap().contains("embed_tokens"));
        assert_eq!(embedding.unwrap()["encoding"], "F32", "{held}");
        let (config, generation) =
            (json(&folder.join("config.json")), json(&folder.join("generation_config.json")));
        assert_eq!(config["torch_dtype"], "float32");
        assert_eq!((&config["bos_token_id"], &generation["bos_token_id"]), (&0.into(), &0.into()));
        assert!(!config["eos_token_id"].is_null());
        assert_eq!(generation["eos_token_id"], serde_json::json!([1, 4]));
    }
}
