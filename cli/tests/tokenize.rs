//! `tern tokenize`: one JSON list, whatever the text and wherever it comes from.

mod common;

use common::{PAGE, run, run_with_input, testdata};
use serde_json::{Value, json};

const TOKENIZERS: [&str; 3] = ["bpe_llama3_tiny", "bpe_qwen2_tiny", "spm_bpe_tiny"];

fn cases(name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(testdata(&format!("golden/tokenizers/{name}.cases.json"))).unwrap();
    match serde_json::from_str(&text).unwrap() {
        Value::Array(list) => list,
        Value::Object(map) => map["cases"].as_array().unwrap().clone(),
        other => panic!("{other}"),
    }
}

#[test]
fn the_ids_are_those_of_the_goldens() {
    for name in TOKENIZERS {
        let file = testdata(&format!("golden/tokenizers/{name}.json"));
        let mut compared = 0;
        // Every third: the engine's own tests take all of them, here the way through the binary is what counts.
        for case in cases(name).iter().step_by(3) {
            let text = case["text"].as_str().unwrap();
            let done = run_with_input(&["tokenize", &file, "--special"], text.as_bytes());
            assert_eq!(done.json(), case["ids"], "{name}: {text:?}");
            compared += 1;
        }
        assert!(compared >= 5, "{name}: {compared} cases");
    }
}

#[test]
fn text_comes_from_the_command_line_a_file_or_standard_input() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a text ö.txt");
    let text = "Two lines\r\nand a tail \u{1f426}\n\n";
    std::fs::write(&file, text).unwrap();
    let expected = run(&["tokenize", PAGE, text]).ok();
    assert_eq!(run(&["tokenize", PAGE, "--file", file.to_str().unwrap()]).ok(), expected);
    assert_eq!(run_with_input(&["tokenize", PAGE], text.as_bytes()).ok(), expected);
    assert_eq!(expected.lines().count(), 1);
}

#[test]
fn begin_of_text_is_put_before_unless_told() {
    let ids = |more: &[&str]| run(&[&["tokenize", PAGE, "Once"], more].concat()).json();
    let (with, without) = (ids(&[]), ids(&["--no-bos"]));
    assert_eq!(with.as_array().unwrap()[1..], without.as_array().unwrap()[..]);
    assert_eq!(run(&["tokenize", PAGE, "", "--no-bos"]).json(), json!([]));
}

#[test]
fn special_tokens_are_plain_text_unless_asked_for() {
    let ids = |more: &[&str]| run(&[&["tokenize", PAGE, "a<|end|>", "--no-bos"], more].concat()).json();
    assert_eq!(ids(&["--special"]).as_array().unwrap().len(), 2);
    assert!(ids(&[]).as_array().unwrap().len() > 3);
}

#[test]
fn json_shows_the_text_of_every_token() {
    let json = run(&["tokenize", PAGE, "a<|end|>", "--no-bos", "--special", "--json"]).json();
    assert_eq!(json["tokens"], json!(["a", "<|end|>"]));
    assert_eq!(json["ids"], run(&["tokenize", PAGE, "a<|end|>", "--no-bos", "--special"]).json());
}
