//! Tokenizers against vectors that others computed. The vocabularies are not part of the repository: tests that need
//! `../shared/data/tokenizers` (or `$TERN_SHARED`) say so and pass where it is absent.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tern::{Specials, Tokenizer};

/// A file of the shared data, or a printed reason to skip.
fn shared(path: &str) -> Option<PathBuf> {
    let root = match std::env::var_os("TERN_SHARED") {
        Some(root) => PathBuf::from(root),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
    };
    let path = root.join("data").join(path);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: {} is not there", path.display());
    None
}

fn golden(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/golden/tokenizers").join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Every line of `vectors/{input}_input.txt` (or all of it, for `utf8`) gives the ids of `{kind}/{input}_tokens_{name}`,
/// and these decode to the `output` file or to the input.
fn check_vectors(tokenizer: &Tokenizer, kind: &str, name: &str, specials: Specials) {
    let mut cases = 0;
    for input in ["small", "mixed_a", "utf8"] {
        let vectors = shared("tokenizers/vectors").expect("vectors lie beside the vocabularies");
        let read = |path: String| std::fs::read_to_string(vectors.join(path));
        let text = read(format!("{input}_input.txt")).unwrap();
        let ids = read(format!("{kind}/{input}_tokens_{name}.txt")).unwrap();
        let output = read(format!("{kind}/{input}_output_{name}.txt")).unwrap_or_else(|_| text.clone());
        let (text, ids, output): (Vec<&str>, Vec<&str>, Vec<&str>) = if input == "utf8" {
            (vec![&text], vec![&ids], vec![&output])
        } else {
            (text.lines().collect(), ids.lines().collect(), output.lines().collect())
        };
        assert_eq!((text.len(), output.len()), (ids.len(), ids.len()));
        for ((text, ids), output) in text.iter().zip(ids).zip(output) {
            // In the files a line feed is written `\n`, and `\s` at the end is one space.
            let plain = |line: &str| {
                if input == "utf8" {
                    return line.to_owned();
                }
                let line = line.replace("\\n", "\n");
                line.strip_suffix("\\s").map_or(line.clone(), |line| format!("{line} "))
            };
            let ids: Vec<u32> = ids.split(',').map(|id| id.trim().parse().unwrap()).collect();
            assert_eq!(tokenizer.encode(&plain(text), false, specials).unwrap(), ids, "{name}: {text:?}");
            assert_eq!(tokenizer.decode(&ids, true), plain(output), "{name}: {text:?}");
            cases += 1;
        }
    }
    println!("{kind}/{name}: {cases} of {cases}");
    assert_eq!(cases, 81);
}

/// Encoding and decoding the test part of WikiText-2 changes nothing.
fn check_wiki(tokenizer: &Tokenizer, before: &str) {
    let Some(path) = shared("wikitext-2-raw/wiki.test.raw") else { return };
    let text = before.to_owned() + &std::fs::read_to_string(path).unwrap();
    let start = std::time::Instant::now();
    let ids = tokenizer.encode(&text, false, Specials::Text).unwrap();
    let encoded = start.elapsed();
    assert!(tokenizer.decode(&ids, true) == text, "the text changed");
    println!(
        "wikitext-2: {} bytes, {} ids, encoded in {encoded:.2?}, all in {:.2?}",
        text.len(),
        ids.len(),
        start.elapsed()
    );
}

fn load(path: &str, read: impl Fn(&[u8]) -> tern::Result<Tokenizer>) -> Option<Tokenizer> {
    let file = std::fs::read(shared(path)?).unwrap();
    let start = std::time::Instant::now();
    let tokenizer = read(&file).unwrap_or_else(|e| panic!("{path}: {e}"));
    println!("{path}: {} ids loaded in {:.2?}", tokenizer.size(), start.elapsed());
    Some(tokenizer)
}

#[test]
fn llama3_from_tiktoken_gives_the_known_ids() {
    let Some(t) = load("tokenizers/llama3/tokenizer.model", Tokenizer::from_tiktoken) else { return };
    check_vectors(&t, "tokenizers", "llama32", Specials::Parse);
    check_wiki(&t, "");
    assert_eq!((t.bos(), t.adds_bos(), t.size()), (Some(128_000), true, 128_256));
    assert_eq!(t.stops(), [128_001, 128_008, 128_009]);
    assert_eq!(t.encode("hi", true, Specials::Text).unwrap(), [128_000, 6151]);
}

#[test]
fn cl100k_from_tiktoken_gives_the_known_ids() {
    let Some(t) = load("tokenizers/cl100k/cl100k_base.tiktoken", Tokenizer::from_tiktoken) else { return };
    check_vectors(&t, "tiktoken", "cl100k_base", Specials::Parse);
    check_wiki(&t, "");
}

#[test]
fn tokenizer_json_files_give_the_known_ids() {
    for name in ["llama2", "gpt2", "gpt_neox", "mistral03"] {
        let Some(t) = load(&format!("tokenizers/{name}/tokenizer.json"), Tokenizer::from_json) else {
            return;
        };
        check_vectors(&t, "tokenizers", name, Specials::Parse);
        match name {
            "gpt_neox" => {}                    // it normalises to NFC, which may change a text
            "mistral03" => check_wiki(&t, "x"), // it takes a leading space of a text for its own
            _ => check_wiki(&t, ""),
        }
    }
}

#[test]
fn golden_tokenizers_agree_with_the_crate() {
    for name in ["bpe_llama3_tiny", "bpe_qwen2_tiny", "spm_bpe_tiny"] {
        let tokenizer = Tokenizer::from_json(&golden(&format!("{name}.json"))).unwrap();
        let cases: Vec<Value> = serde_json::from_slice(&golden(&format!("{name}.cases.json"))).unwrap();
        assert_eq!(cases.len(), 27);
        for case in cases {
            let text = case["text"].as_str().unwrap();
            let ids = |key: &str| -> Vec<u32> {
                case[key].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
            };
            let all = ids("ids");
            // The case that starts with BOS itself would have it twice.
            let encoded = tokenizer.encode(text, true, Specials::Parse).unwrap();
            assert_eq!(encoded, all, "{name}: {text:?}");
            if !case["ids_no_special"].is_null() {
                assert_eq!(tokenizer.encode(text, false, Specials::Parse).unwrap(), ids("ids_no_special"));
            }
            let shown = name != "spm_bpe_tiny";
            assert_eq!(tokenizer.decode(&all, shown), case["decoded"].as_str().unwrap(), "{name}: {text:?}");
        }
    }
}

/// llama.cpp's own cases beside each vocabulary.
fn check_gguf_cases(tokenizer: &Tokenizer, name: &str) {
    let file = |end: &str| {
        let path = shared(&format!("tokenizers/gguf/ggml-vocab-{name}.gguf.{end}"))
            .expect("cases lie beside the file");
        std::fs::read_to_string(path).unwrap()
    };
    let (texts, ids) = (file("inp"), file("out"));
    let end = "\n__ggml_vocab_test__\n";
    let texts: Vec<&str> = texts.strip_suffix(end).expect("every case ends so").split(end).collect();
    let ids: Vec<&str> = ids.lines().collect();
    assert_eq!((texts.len(), ids.len()), (46, 46), "{name}");
    for (text, ids) in texts.iter().zip(ids) {
        let ids: Vec<u32> = ids.split_whitespace().map(|id| id.parse().unwrap()).collect();
        assert_eq!(tokenizer.encode(text, false, Specials::Text).unwrap(), ids, "{name}: {text:?}");
        assert_eq!(tokenizer.decode(&ids, true), *text, "{name}");
    }
    println!("gguf/{name}: 46 of 46");
}

#[test]
fn gguf_vocabularies_give_the_known_ids() {
    for name in ["gpt-2", "llama-spm", "falcon", "phi-3"] {
        let Some(path) = shared(&format!("tokenizers/gguf/ggml-vocab-{name}.gguf")) else { return };
        let start = std::time::Instant::now();
        let t = Tokenizer::open(&path).unwrap();
        println!("{name}: {} ids loaded in {:.2?}", t.size(), start.elapsed());
        check_gguf_cases(&t, name);
        check_wiki(&t, "");
    }
}

#[test]
fn llama3_gives_llama_cpps_ids() {
    let Some(t) = load("tokenizers/llama3/tokenizer.model", Tokenizer::from_tiktoken) else { return };
    check_gguf_cases(&t, "llama-bpe");
}

#[test]
fn sentencepiece_model_gives_the_known_ids() {
    let Some(t) = load("tokenizers/llama2/tokenizer.model", Tokenizer::from_sentencepiece) else { return };
    check_vectors(&t, "sentencepiece", "llama2", Specials::Text);
    check_wiki(&t, "");
    assert_eq!((t.bos(), t.stops()), (Some(1), &[2][..]));
}
