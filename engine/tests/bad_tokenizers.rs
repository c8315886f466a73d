//! Tokenizers from hostile files: an error of one line or a tokenizer that works, soon and in little memory.

use std::path::Path;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::{Value, json};
use tern::file::gguf::{self, Array, Pairs};
use tern::{Message, Result, Specials, Tokenizer};

const TEXT: &str = "It's 12345 o'clock, naïve café <|eot_id|> <s> 你好 🦙\r\n\n   x aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!";

fn golden(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/golden/tokenizers").join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Peak memory of this process so far, in MiB.
fn peak() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<usize>().ok()? >> 10)
}

/// Uses whatever came out of the file; whether it could be opened.
fn try_it(what: &str, open: impl FnOnce() -> Result<Tokenizer>) -> bool {
    let start = Instant::now();
    let one_line = |error: tern::Error| {
        let error = error.to_string();
        assert!(!error.contains('\n') && error.len() < 600, "{what}: {error}");
    };
    let opened = open();
    let good = opened.is_ok();
    match opened {
        Err(error) => one_line(error),
        Ok(tokenizer) => {
            for specials in [Specials::Text, Specials::Parse] {
                match tokenizer.encode(TEXT, true, specials) {
                    Ok(ids) => drop(tokenizer.decode(&ids, true)),
                    Err(error) => one_line(error),
                }
            }
            let ids: Vec<u32> = (0..600).chain([u32::MAX, 1 << 31, 4 << 20]).collect();
            let mut decoder = tokenizer.decoder();
            let mut text: String = ids.iter().filter_map(|&id| decoder.push(id)).collect();
            text += &decoder.finish();
            assert_eq!(text, tokenizer.decode(&ids, false), "{what}");
            let turn = Message { role: "user".to_owned(), content: TEXT.to_owned() };
            if let Err(error) = tokenizer.encode_chat(&[turn], false) {
                one_line(error);
            }
        }
    }
    let took = start.elapsed();
    assert!(took < Duration::from_secs(5), "{what}: {took:?}");
    good
}

/// All places in a JSON value, but of long maps and lists only the first two and the last.
fn places(value: &Value, at: String, all: &mut Vec<String>) {
    let inner: Vec<String> = match value {
        Value::Object(map) => map.keys().map(|key| key.replace('~', "~0").replace('/', "~1")).collect(),
        Value::Array(list) => (0..list.len()).map(|i| i.to_string()).collect(),
        _ => Vec::new(),
    };
    all.push(at.clone());
    let long = inner.len() > 12;
    for (number, key) in inner.iter().enumerate() {
        if !long || number < 2 || number + 1 == inner.len() {
            let at = format!("{at}/{key}");
            places(value.pointer(&at[at.len() - key.len() - 1..]).expect("the key was just read"), at, all);
        }
    }
}

#[test]
fn mutants_of_tokenizer_json() {
    let before = peak();
    let (mut mutants, mut good) = (0, 0);
    for name in ["bpe_llama3_tiny.json", "spm_bpe_tiny.json"] {
        let original: Value = serde_json::from_slice(&golden(name)).unwrap();
        let mut all = Vec::new();
        places(&original, String::new(), &mut all);
        let values = [
            Value::Null,
            json!(true),
            json!(-1),
            json!(4294967295u64),
            json!(4194303),
            json!(0),
            json!(1e300),
            json!(""),
            json!("x"),
            json!([]),
            json!({}),
            json!(["a", "b"]),
            json!({"type": "Sequence"}),
            json!({"Regex": "("}),
            json!({"String": ""}),
        ];
        for place in all {
            for value in &values {
                let mut mutant = original.clone();
                *mutant.pointer_mut(&place).unwrap() = value.clone();
                mutants += 1;
                good += usize::from(try_it(&format!("{name} {place} = {value}"), || {
                    Tokenizer::from_json(&serde_json::to_vec(&mutant).unwrap())
                }));
            }
        }
        let bytes = golden(name);
        for cut in (0..bytes.len()).step_by(bytes.len() / 60) {
            mutants += 1;
            assert!(!try_it(&format!("{name} cut at {cut}"), || Tokenizer::from_json(&bytes[..cut])));
        }
    }
    println!("{mutants} mutants of tokenizer.json, {good} of them open");
    assert!(mutants > 1000 && good < mutants / 2);
    if let (Some(before), Some(after)) = (before, peak()) {
        println!("peak {} MiB above the start", after - before);
        assert!(after - before < 256);
    }
}

#[test]
fn tokenizer_json_that_lies() {
    let base: Value = serde_json::from_slice(&golden("bpe_llama3_tiny.json")).unwrap();
    let with = |place: &str, value: Value| {
        let mut json = base.clone();
        *json.pointer_mut(place).unwrap() = value;
        json
    };
    let split = |pattern: &str| {
        let split =
            json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
        let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "use_regex": false});
        json!({"type": "Sequence", "pretokenizers": [split, bytes]})
    };
    let deep = |n: usize| {
        (0..n)
            .fold(json!({"type": "Digits"}), |inner, _| json!({"type": "Sequence", "pretokenizers": [inner]}))
    };
    let double = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "a".repeat(1000)});
    let token = |id: u64, content: &str, normalized: bool| json!({"id": id, "content": content, "single_word": false, "lstrip": true, "rstrip": true, "normalized": normalized, "special": true});
    let all_pieces = |n: u32| Value::Object((0..n).map(|i| (format!("x{i}"), json!(7))).collect());
    let refused = [
        with("/model/vocab", all_pieces(100)),
        with("/model/vocab/!", json!(4_194_304)),
        with("/model/merges/0", json!(["a", "no such piece"])),
        with("/model/merges/0", json!("a")),
        with("/model/merges/0", json!("a b c")),
        with("/model/merges/0", json!(["", ""])),
        with("/model/type", json!("Unigram")),
        with("/model/dropout", json!(0.5)),
        with("/model/end_of_word_suffix", json!("</w>")),
        with("/pre_tokenizer", split("(?:\\p{L}{1000}){1000}")),
        with("/pre_tokenizer", split(&"(".repeat(5000))),
        with("/pre_tokenizer", split(&"a".repeat(5000))),
        with("/pre_tokenizer", split("[")),
        with("/pre_tokenizer", deep(100)),
        with(
            "/pre_tokenizer",
            json!({"type": "Sequence", "pretokenizers": vec![json!({"type": "Digits", "individual_digits": true}); 100]}),
        ),
        with("/pre_tokenizer", json!({"type": "BertPreTokenizer"})),
        with("/normalizer", json!({"type": "Replace", "pattern": {"Regex": "(a+)+b"}, "content": ""})),
        with("/normalizer", json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"})),
        with("/decoder", json!({"type": "WordPiece", "prefix": "##", "cleanup": true})),
        with("/added_tokens", json!([token(4_294_967_295, "x", false)])),
        with("/added_tokens", json!([token(5, &"x".repeat(2000), false)])),
        with("/added_tokens", (0..70_000).map(|id| token(id, "x", false)).collect()),
    ];
    for (number, json) in refused.iter().enumerate() {
        let bytes = serde_json::to_vec(json).unwrap();
        assert!(!try_it(&format!("lie {number}"), || Tokenizer::from_json(&bytes)), "lie {number}");
    }
    // These open; using them must end too.
    let opens = [
        with("/pre_tokenizer", split("(a+)+$")),
        with("/pre_tokenizer", split("(a|a)*(?=b)c")),
        with("/pre_tokenizer", split("(?=(a+)+x)(a+)+x|.")),
        with("/pre_tokenizer", split("(?<=a)(?:a?){30}a{30}(?!x)")),
        with("/pre_tokenizer", split("(a*)*\\1b")),
        with("/pre_tokenizer", split("")),
        with("/pre_tokenizer", split("(?=a)")),
        with("/normalizer", json!({"type": "Sequence", "normalizers": vec![double; 8]})),
        with(
            "/added_tokens",
            json!([
                token(1, "<|x|>", true),
                token(1, "<|x|>", false),
                token(2, "<|x|>", true),
                token(3, " ", true),
                token(4, "", true)
            ]),
        ),
        with("/added_tokens", (0..20_000).map(|id| token(id, &format!("<|{id}|>"), id % 2 == 0)).collect()),
    ];
    for (number, json) in opens.iter().enumerate() {
        let bytes = serde_json::to_vec(json).unwrap();
        assert!(try_it(&format!("bomb {number}"), || Tokenizer::from_json(&bytes)), "bomb {number}");
    }
    // Cyclic merges: `a b` -> `ab` and `ab` -> ... there is no way back, but a piece may be its own merge's part.
    let cyclic = json!({"decoder": {"type": "Fuse"}, "model": {"type": "BPE", "vocab": {"a": 0, "aa": 1, "aaa": 2, "aaaa": 3},
        "merges": [["a", "aa"], ["aa", "a"], ["aa", "aa"], ["a", "a"], ["a", "aaa"], ["aaa", "a"], ["a", "a"]]}});
    assert!(try_it("cyclic", || Tokenizer::from_json(cyclic.to_string().as_bytes())));
    let many = r#"{"model":{"vocab":{"a":0,"a":1,"b":2},"merges":[]},"decoder":{"type":"Fuse"},
        "added_tokens":[{"id":0,"content":"a"},{"id":0,"content":"b"}]}"#;
    try_it("twice the same key", || Tokenizer::from_json(many.as_bytes()));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn flipped_bytes(name in prop::sample::select(vec!["bpe_llama3_tiny.json", "bpe_qwen2_tiny.json", "spm_bpe_tiny.json"]),
                     flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = golden(name);
        for (at, byte) in flips {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        try_it(name, || Tokenizer::from_json(&bytes));
        try_it(name, || Tokenizer::from_tiktoken(&bytes));
        try_it(name, || Tokenizer::from_sentencepiece(&bytes));
    }

    #[test]
    fn any_tiktoken_lines(lines in prop::collection::vec("[A-Za-z0-9+/=]{0,9} ?[0-9]{0,11}", 0..20)) {
        let file = lines.join("\n");
        try_it(&file, || Tokenizer::from_tiktoken(file.as_bytes()));
    }

    #[test]
    fn any_protobuf(bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(10), Just(3), Just(1)], 0..200)) {
        try_it("protobuf", || Tokenizer::from_sentencepiece(&bytes));
    }
}

fn strings(texts: &[&str]) -> gguf::Value {
    gguf::Value::Array(Array::from_strings(texts))
}

/// A small GGUF vocabulary of each kind.
fn vocabularies() -> [(&'static str, Pairs); 2] {
    let bytes: Vec<String> = (0..256).map(|byte| format!("<0x{byte:02X}>")).collect();
    let mut spm: Vec<&str> = vec!["<unk>", "<s>", "</s>", "▁", "a", "aa", "▁a", "<|user|>"];
    let mut types = vec![2, 3, 3, 1, 1, 1, 1, 4];
    let mut scores = vec![0.0, 0.0, 0.0, -1.0, -2.0, -3.0, -4.0, -1000.0];
    spm.extend(bytes.iter().map(String::as_str));
    types.resize(spm.len(), 6);
    scores.resize(spm.len(), 0.0);
    let mut llama = Pairs::new(Path::new("spm.gguf"));
    llama.insert("general.architecture", gguf::Value::String("llama".to_owned()));
    llama.insert("tokenizer.ggml.model", gguf::Value::String("llama".to_owned()));
    llama.insert("tokenizer.ggml.tokens", strings(&spm));
    llama.insert("tokenizer.ggml.scores", gguf::Value::Array(Array::from_f32s(&scores)));
    llama.insert("tokenizer.ggml.token_type", gguf::Value::Array(Array::from_i32s(&types)));
    llama.insert("tokenizer.ggml.bos_token_id", gguf::Value::U32(1));
    llama.insert("tokenizer.ggml.eos_token_id", gguf::Value::U32(2));
    llama.insert("tokenizer.ggml.add_space_prefix", gguf::Value::Bool(true));
    llama.insert("tokenizer.chat_template", gguf::Value::String("{{ messages[0].content }}".to_owned()));

    let json: Value = serde_json::from_slice(&golden("bpe_llama3_tiny.json")).unwrap();
    let mut pieces: Vec<(u64, String)> = json["model"]["vocab"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(piece, id)| (id.as_u64().unwrap(), piece.clone()))
        .collect();
    pieces.sort();
    let added = json["added_tokens"].as_array().unwrap().iter().map(|t| t["content"].as_str().unwrap());
    let tokens: Vec<&str> = pieces.iter().map(|(_, piece)| piece.as_str()).chain(added).collect();
    let merges: Vec<String> = json["model"]["merges"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| match m.as_array() {
            Some(pair) => format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap()),
            None => m.as_str().unwrap().to_owned(),
        })
        .collect();
    let merges: Vec<&str> = merges.iter().map(String::as_str).collect();
    let mut types = vec![1; pieces.len()];
    types.resize(tokens.len(), 3);
    let mut gpt2 = Pairs::new(Path::new("bpe.gguf"));
    gpt2.insert("general.architecture", gguf::Value::String("llama".to_owned()));
    gpt2.insert("tokenizer.ggml.model", gguf::Value::String("gpt2".to_owned()));
    gpt2.insert("tokenizer.ggml.pre", gguf::Value::String("llama-bpe".to_owned()));
    gpt2.insert("tokenizer.ggml.tokens", strings(&tokens));
    gpt2.insert("tokenizer.ggml.merges", strings(&merges));
    gpt2.insert("tokenizer.ggml.token_type", gguf::Value::Array(Array::from_i32s(&types)));
    gpt2.insert("tokenizer.ggml.bos_token_id", gguf::Value::U32(420));
    gpt2.insert("tokenizer.ggml.eos_token_id", gguf::Value::U32(421));
    gpt2.insert("tokenizer.ggml.eot_token_id", gguf::Value::U32(422));
    gpt2.insert("tokenizer.chat_template", gguf::Value::String("{{ messages[0].content }}".to_owned()));
    [("spm", llama), ("bpe", gpt2)]
}

#[test]
fn gguf_vocabularies_of_the_goldens_give_their_ids() {
    let [_, (_, pairs)] = vocabularies();
    let tokenizer = Tokenizer::from_gguf(&pairs).unwrap();
    let cases: Vec<Value> = serde_json::from_slice(&golden("bpe_llama3_tiny.cases.json")).unwrap();
    for case in cases {
        let ids: Vec<u32> =
            case["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
        assert_eq!(tokenizer.encode(case["text"].as_str().unwrap(), true, Specials::Parse).unwrap(), ids);
    }
    assert_eq!(tokenizer.stops(), [421, 422]);
}

#[test]
fn mutants_of_gguf_vocabularies() {
    let values = || {
        [
            gguf::Value::U32(0),
            gguf::Value::U32(u32::MAX),
            gguf::Value::I64(-1),
            gguf::Value::U64(u64::MAX),
            gguf::Value::F32(f32::NAN),
            gguf::Value::Bool(false),
            gguf::Value::String(String::new()),
            gguf::Value::String("llama".to_owned()),
            gguf::Value::String("gpt2".to_owned()),
            gguf::Value::String("{{ 'a' * 99999999 }}{% for".to_owned()),
            gguf::Value::String("x\n".repeat(1000)),
            strings(&[]),
            strings(&["a", "a"]),
            strings(&["", " ", "  "]),
            strings(&["a b c", "a"]),
            strings(&vec!["x"; 423]),
            strings(&vec!["a aa"; 264]),
            gguf::Value::Array(Array::from_i32s(&[])),
            gguf::Value::Array(Array::from_i32s(&[9; 264])),
            gguf::Value::Array(Array::from_i32s(&[2; 423])),
            gguf::Value::Array(Array::from_i32s(&[6; 423])),
            gguf::Value::Array(Array::from_i32s(&[4; 264])),
            gguf::Value::Array(Array::from_i32s(&[-1; 423])),
            gguf::Value::Array(Array::from_f32s(&[f32::NAN; 264])),
            gguf::Value::Array(Array::from_f32s(&[f32::NEG_INFINITY; 264])),
            gguf::Value::Array(Array::from_f32s(&[0.0; 264])),
            gguf::Value::Array(Array::from_f32s(&[-0.0; 3])),
        ]
    };
    let (mut mutants, mut good) = (0, 0);
    for (name, pairs) in vocabularies() {
        assert!(try_it(name, || Tokenizer::from_gguf(&pairs)));
        let keys: Vec<String> = pairs.iter().map(|(key, _)| key.to_owned()).collect();
        let more = [
            "tokenizer.ggml.add_bos_token",
            "tokenizer.huggingface.json",
            "tokenizer.ggml.pre",
            "tokenizer.ggml.eom_token_id",
        ];
        for key in keys.iter().map(String::as_str).chain(more) {
            let mut without = Pairs::new(Path::new("x.gguf"));
            for (other, value) in pairs.iter().filter(|(other, _)| *other != key) {
                without.insert(other, value.clone());
            }
            try_it(&format!("{name} without {key}"), || Tokenizer::from_gguf(&without));
            mutants += 1;
            for value in values() {
                let what = format!("{name} {key} = {}", value.describe());
                let mut mutant = without.clone();
                mutant.insert(key, value);
                mutants += 1;
                good += usize::from(try_it(&what, || Tokenizer::from_gguf(&mutant)));
            }
        }
    }
    println!("{mutants} mutants of GGUF vocabularies, {good} of them open");
    assert!(mutants > 200);
}

#[test]
fn errors_name_the_key() {
    let [(_, spm), (_, bpe)] = vocabularies();
    let error = |pairs: &Pairs, key: &str, value: gguf::Value| {
        let mut pairs = pairs.clone();
        pairs.insert(key, value);
        Tokenizer::from_gguf(&pairs).unwrap_err().to_string()
    };
    let unknown = error(&bpe, "tokenizer.ggml.pre", gguf::Value::String("new-pre".to_owned()));
    assert!(unknown.contains("key `tokenizer.ggml.pre`") && unknown.contains("found `new-pre`"), "{unknown}");
    let kind = error(&bpe, "tokenizer.ggml.model", gguf::Value::String("bert".to_owned()));
    assert!(kind.contains("key `tokenizer.ggml.model`") && kind.contains("`bert`"), "{kind}");
    let scores = error(&spm, "tokenizer.ggml.scores", gguf::Value::Array(Array::from_f32s(&[0.0; 3])));
    assert!(
        scores.contains("tokenizer.ggml.scores") && scores.contains("264") && scores.contains("found 3"),
        "{scores}"
    );
    let eos = error(&spm, "tokenizer.ggml.eos_token_id", gguf::Value::U32(264));
    assert!(eos.contains("tokenizer.ggml.eos_token_id") && eos.contains("below 264"), "{eos}");
    let template = error(&spm, "tokenizer.chat_template", gguf::Value::String("{% if %}".to_owned()));
    assert!(template.contains("tokenizer.chat_template"), "{template}");
}
