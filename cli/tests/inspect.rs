//! `tern inspect` on the golden files: what can be run, what cannot, and what is no model at all.

mod common;

use common::{run, snapshot, testdata};

#[test]
fn a_gguf_is_shown_as_a_table() {
    let file = testdata("golden/gguf/bitnet_b158_i2s.gguf");
    snapshot("inspect-gguf", &run(&["inspect", &file]).ok().replace(&file, "FILE"));
}

#[test]
fn a_checkpoint_directory_is_shown_as_a_table() {
    let dir = testdata("golden/llama_packed_bitlinear");
    snapshot("inspect-hf", &run(&["inspect", &dir]).ok().replace(&dir, "DIR"));
}

#[test]
fn a_file_that_cannot_run_is_shown_with_the_reason() {
    let file = testdata("golden/gguf/types_v3.gguf");
    snapshot("inspect-types", &run(&["inspect", &file]).ok().replace(&file, "FILE"));
}

#[test]
fn json_holds_the_same_numbers() {
    let file = testdata("golden/gguf/bitnet_b158_i2s.gguf");
    let json = run(&["inspect", &file, "--json"]).json();
    let tensors = json["tensors"].as_array().unwrap();
    let parameters: u64 = tensors
        .iter()
        .map(|tensor| tensor["dims"].as_array().unwrap().iter().map(|d| d.as_u64().unwrap()).product::<u64>())
        .sum();
    assert_eq!(json["parameters"], parameters);
    let bytes: u64 = tensors.iter().map(|tensor| tensor["bytes"].as_u64().unwrap()).sum();
    assert_eq!(json["tensor_bytes"], bytes);
    assert_eq!(json["bits_per_weight"].as_f64().unwrap(), bytes as f64 * 8.0 / parameters as f64);
    assert!(json["config"]["layers"].as_u64().unwrap() > 0, "{json}");
    assert_eq!(json["dummy"], false);
}

#[test]
fn the_built_in_model_says_how_it_wants_its_prompts() {
    let json = run(&["inspect", "story", "--json"]).json();
    assert_eq!(json["metadata"]["tern.prompt"], "raw");
    assert_eq!(json["tokenizer"]["chat_template"], true);
}

#[test]
fn every_golden_model_can_be_inspected() {
    for model in [
        "bitnet_1bitllm_f16",
        "bitnet_online_bf16",
        "bitnet_packed_autobitlinear",
        "gemma3_embedding_norm_bitlinear",
        "qwen3_embedding_norm_bitlinear",
        "gguf/llama_i2s_permuted.gguf",
        "gguf/types_v2.gguf",
    ] {
        let json = run(&["inspect", &testdata(&format!("golden/{model}")), "--json"]).json();
        assert!(!json["tensors"].as_array().unwrap().is_empty(), "{model}");
    }
}

#[test]
fn a_tensor_that_has_no_place_in_the_model_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let from = testdata("golden/llama_packed_bitlinear");
    std::fs::copy(format!("{from}/model.safetensors"), dir.path().join("model.safetensors")).unwrap();
    let config = std::fs::read_to_string(format!("{from}/config.json")).unwrap();
    let fewer = config.replace("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1");
    assert_ne!(fewer, config);
    std::fs::write(dir.path().join("config.json"), fewer).unwrap();
    let path = dir.path().to_str().unwrap();
    let told = run(&["inspect", path, "--json"]).json()["cannot_run"].as_str().unwrap().to_owned();
    assert!(told.contains("belongs to block 1"), "{told}");
    assert!(run(&["inspect", path]).ok().contains(&format!("cannot run       {told}")));
    assert!(run(&["inspect", &from, "--json"]).json()["cannot_run"].is_null());
}

#[test]
fn a_tensor_that_reaches_past_the_end_of_the_file_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cut.gguf");
    // One Q4_K tensor of 256 x 4 numbers, 576 bytes, of which half are there.
    let mut file = [&b"GGUF"[..], &3u32.to_le_bytes(), &1u64.to_le_bytes(), &0u64.to_le_bytes()].concat();
    file.extend([&1u64.to_le_bytes()[..], b"w", &2u32.to_le_bytes()].concat());
    file.extend([256u64.to_le_bytes(), 4u64.to_le_bytes()].concat());
    file.extend([&12u32.to_le_bytes()[..], &0u64.to_le_bytes()].concat());
    file.resize(file.len().next_multiple_of(32) + 288, 0);
    std::fs::write(&path, file).unwrap();
    let done = run(&["inspect", path.to_str().unwrap()]);
    assert_eq!((done.code, done.stdout.as_str()), (Some(1), ""));
    assert!(
        done.stderr.contains("tensor `w`: expected 576 bytes") && done.stderr.contains("found 288"),
        "{}",
        done.stderr
    );
}

#[test]
fn with_a_text_it_counts_what_takes_part() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("text.txt");
    std::fs::write(&path, "Once upon a time there was a little bird. ".repeat(9)).unwrap();
    let text = path.to_str().unwrap();
    let shown = run(&["inspect", common::PAGE, "--text", text]).ok();
    assert!(shown.contains("\nparameters that take part in a token, of "), "{shown}");
    let json = run(&["inspect", common::PAGE, "--text", text, "--json"]).json();
    let active = &json["active"];
    let share = |name: &str| active["matrices"][name].as_f64().unwrap();
    // Where the gate of ReLU² is closed a row of up is left out, and a column of down.
    assert!(share("ffn_up") < 0.9 && share("ffn_down") < 0.9 && share("attn_q") > 0.9, "{active}");
    assert!(active["share"].as_f64().unwrap() < 1.0 && active["tokens"].as_u64().unwrap() > 50, "{active}");
    assert!(run(&["inspect", common::PAGE, "--json"]).json()["active"].is_null());
    std::fs::write(&path, "").unwrap();
    let failed = run(&["inspect", common::PAGE, "--text", text]);
    assert!(failed.stderr.contains("text.txt: expected a text, found nothing"), "{}", failed.stderr);
}
