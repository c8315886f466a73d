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
