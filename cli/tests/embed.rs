//! `tern embed`: vectors of texts, against what transformers and tokenizers computed (testdata/golden/gen/families.py).

mod common;

use common::{PAGE, run, run_with_input, testdata};
use serde_json::Value;

fn model() -> String {
    testdata("golden/qwen3_embedding_text")
}

/// The recorded texts.
fn texts() -> Vec<String> {
    let readme: Value = serde_json::from_str(&read("README.json")).unwrap();
    readme["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

fn read(name: &str) -> String {
    std::fs::read_to_string(format!("{}/{name}", model())).unwrap()
}

/// The recorded vector of each text.
fn golden() -> Vec<Vec<f64>> {
    let bytes = std::fs::read(format!("{}/golden.safetensors", model())).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    (0..texts().len())
        .map(|index| {
            let at = |nth: usize| {
                header[format!("text.{index}")]["data_offsets"][nth].as_u64().unwrap() as usize + 8 + length
            };
            let floats = bytes[at(0)..at(1)].as_chunks::<4>().0;
            floats.iter().map(|x| f64::from(f32::from_le_bytes(*x))).collect()
        })
        .collect()
}

fn vector(line: &Value) -> Vec<f64> {
    line["embedding"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn vectors_are_those_of_the_reference_however_the_texts_come() {
    let (model, texts, golden) = (model(), texts(), golden());
    let mut args = vec!["embed", &model, "--kv", "f32"];
    args.extend(texts.iter().map(String::as_str));
    let plain = run(&args).ok();
    let vectors = lines(&plain);
    assert_eq!(vectors.len(), golden.len());
    for (index, (line, want)) in vectors.iter().zip(&golden).enumerate() {
        assert_eq!(line["index"], index);
        let apart = 1.0 - cosine(&vector(line), want);
        assert!(apart < 1e-5, "{}: {apart:.1e}", texts[index]);
        let length: f64 = vector(line).iter().map(|x| x * x).sum();
        assert!((length - 1.0).abs() < 1e-6, "{length}");
    }
    let input = texts.join("\n\n") + "\n";
    assert_eq!(run_with_input(&["embed", &model, "--kv", "f32"], input.as_bytes()).ok(), plain);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("texts.jsonl");
    let object = |text: &String| serde_json::json!({"id": [7], "text": text}).to_string() + "\n";
    std::fs::write(&file, texts.iter().map(object).collect::<String>()).unwrap();
    let told = run(&["embed", &model, "--kv", "f32", "--file", file.to_str().unwrap()]).ok();
    for (told, plain) in lines(&told).iter().zip(&vectors) {
        assert_eq!((&told["id"], &told["embedding"]), (&serde_json::json!([7]), &plain["embedding"]));
    }
}

#[test]
fn fewer_bits_and_dimensions_are_what_the_manual_says() {
    let model = model();
    let floats = vector(&run(&["embed", &model, "A dog."]).json());
    let codes = |bits: &str| vector(&run(&["embed", &model, "A dog.", "--bits", bits]).json());
    let largest = floats.iter().fold(0f64, |most, x| most.max(x.abs()));
    for (bits, most, at_least) in [("8", 127.0, 0.9999), ("4", 15.0, 0.98), ("2", 3.0, 0.9), ("1", 1.0, 0.7)]
    {
        let codes = codes(bits);
        assert!(codes.iter().all(|code| code.fract() == 0.0 && code.abs() <= most), "{bits}: {codes:?}");
        let near = cosine(&codes, &floats);
        assert!(near > at_least, "{bits} bits: {near}");
    }
    assert_eq!(codes("8"), floats.iter().map(|x| (x / largest * 127.0).round()).collect::<Vec<_>>());
    let short = vector(&run(&["embed", &model, "A dog.", "--dimensions", "8"]).json());
    assert_eq!(short.len(), 8);
    assert!((cosine(&short, &floats[..8]) - 1.0).abs() < 1e-6);
    let dir = tempfile::tempdir().unwrap();
    for (bits, kind, width) in
        [("32", "'<f4'", 64 * 4), ("8", "'|i1'", 64), ("2", "'|u1'", 16), ("1", "'|u1'", 8)]
    {
        let file = dir.path().join("vectors.npy");
        run(&["embed", &model, "A dog.", "A cat.", "--bits", bits, "--out", file.to_str().unwrap()]).ok();
        let bytes = std::fs::read(&file).unwrap();
        let header = std::str::from_utf8(&bytes[10..128]).unwrap();
        assert!(bytes.starts_with(b"\x93NUMPY\x01\x00") && header.contains(kind), "{header}");
        assert_eq!(bytes.len(), 128 + 2 * width, "{bits} bits");
    }
}

#[test]
fn neighbours_are_ranked_by_their_cosine() {
    let (model, texts) = (model(), texts());
    let mut args = vec!["embed", &model];
    args.extend(texts.iter().map(String::as_str));
    args.extend(["--query", &texts[3], "--top", "4"]);
    let shown = run(&args).ok();
    assert_eq!(shown.lines().count(), 4, "{shown}");
    assert_eq!(shown.lines().next().unwrap(), format!("1.0000  {}", texts[3]));
    let ranked = |bits: &str| {
        let mut args = args.clone();
        args.extend(["--json", "--bits", bits]);
        let lines = lines(&run(&args).ok());
        assert!(lines.windows(2).all(|pair| pair[0]["score"].as_f64() >= pair[1]["score"].as_f64()));
        lines.iter().map(|line| line["index"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(ranked("32")[0], 3);
    assert_eq!(ranked("8"), ranked("32"));
}

#[test]
fn what_cannot_be_is_said_in_one_line() {
    let model = model();
    let long = "word ".repeat(400);
    for (args, what) in [
        (vec!["embed", PAGE, "x"], "that writes texts makes vectors only where it is said how"),
        (vec!["run", &model, "x"], "an embedding model writes no text; `tern embed` makes vectors with it"),
        (vec!["embed", &model, "x", &long], "text 2 (`word word word word word word …`): "),
        (vec!["embed", &model, "x", "--dimensions", "65"], "--dimensions 65: the model's vectors have 64"),
        (vec!["embed", &model], "no text was given"),
    ] {
        let done = run(&args);
        assert_ne!(done.code, Some(0), "{args:?}");
        assert!(
            done.stderr.starts_with("error: ") && done.stderr.contains(what),
            "{args:?}: {}",
            done.stderr
        );
    }
    let bad = run_with_input(&["embed", &model, "--jsonl"], b"\"a\"\n{\"id\": 1}\n");
    assert!(bad.stderr.contains("line 2: expected an object with a `text`"), "{}", bad.stderr);
}
