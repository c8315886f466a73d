//! Vectors over HTTP, in the forms of three dialects.

mod common;

use common::{Server, options};
use serde_json::{Value, json};
use tern::{Embedder, Model};

fn path() -> String {
    format!("{}/../testdata/golden/qwen3_embedding_text", env!("CARGO_MANIFEST_DIR"))
}

fn model() -> tern::Result<Model> {
    Model::open(path().as_ref(), &tern::Options { threads: Some(1), ..tern::Options::default() })
}

fn server() -> Server {
    Server::with(options(), model)
}

/// What the library makes of these texts.
fn expected(texts: &[&str]) -> (Vec<Vec<f32>>, usize) {
    let model = model().unwrap();
    let tokens: Vec<_> = texts.iter().map(|text| Embedder::tokens(&model, text).unwrap()).collect();
    let count = tokens.iter().map(Vec::len).sum();
    (Embedder::new(&model, None).unwrap().embed(&tokens, |_| {}).unwrap(), count)
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

#[test]
fn every_dialect_gives_the_vectors_of_the_library() {
    let server = server();
    let texts = ["The cat sat on the mat.", "Hello", "naïve — 12"];
    let (want, tokens) = expected(&texts);
    let openai = server.post("/v1/embeddings", &json!({"model": "any", "input": texts})).json();
    assert_eq!(openai["object"], "list");
    assert_eq!(openai["usage"], json!({"prompt_tokens": tokens, "total_tokens": tokens}));
    let ollama = server.post("/api/embed", &json!({"model": "any", "input": texts})).json();
    assert_eq!(ollama["prompt_eval_count"], tokens);
    let native = server.post("/embedding", &json!({"content": texts})).json();
    for (index, want) in want.iter().enumerate() {
        let item = &openai["data"][index];
        assert_eq!((&item["object"], &item["index"]), (&json!("embedding"), &json!(index)));
        assert_eq!(&floats(&item["embedding"]), want, "OpenAI");
        assert_eq!(&floats(&ollama["embeddings"][index]), want, "Ollama");
        assert_eq!(&floats(&native[index]["embedding"][0]), want, "llama.cpp");
    }
    let one = server.post("/v1/embeddings", &json!({"input": texts[1]})).json();
    assert_eq!(floats(&one["data"][0]["embedding"]), want[1]);
    let old = server.post("/api/embeddings", &json!({"prompt": texts[1]})).json();
    assert_eq!(floats(&old["embedding"]), want[1]);
    let ids = Embedder::tokens(&model().unwrap(), texts[1]).unwrap();
    for input in [json!(ids), json!([ids])] {
        let by_ids = server.post("/v1/embeddings", &json!({ "input": input })).json();
        assert_eq!(floats(&by_ids["data"][0]["embedding"]), want[1]);
    }
    assert_eq!(server.post("/api/embed", &json!({"input": []})).json()["embeddings"], json!([]));
}

#[test]
fn base64_and_fewer_dimensions() {
    let server = server();
    let ask = |more: Value| {
        let mut body = json!({"input": "Hello"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        server.post("/v1/embeddings", &body).json()["data"][0]["embedding"].clone()
    };
    let whole = floats(&ask(json!({"encoding_format": "float"})));
    let text = ask(json!({"encoding_format": "base64"}));
    assert_eq!(decode(text.as_str().unwrap()), whole);
    let short = floats(&ask(json!({"dimensions": 10})));
    assert_eq!(short, tern::embed::shortened(whole.clone(), 10).unwrap());
    assert_eq!(floats(&ask(json!({"dimensions": 64}))), whole);
}

/// Floats out of Base64.
fn decode(text: &str) -> Vec<f32> {
    let value = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        other => panic!("{other}"),
    };
    let bits =
        text.bytes().filter(|c| *c != b'=').flat_map(|c| (0..6).rev().map(move |at| value(c) >> at & 1));
    let bits: Vec<u8> = bits.collect();
    let bytes: Vec<u8> =
        bits.chunks_exact(8).map(|bits| bits.iter().fold(0, |byte, bit| byte << 1 | bit)).collect();
    bytes.as_chunks::<4>().0.iter().map(|x| f32::from_le_bytes(*x)).collect()
}

#[test]
fn what_cannot_be_is_refused_by_its_field() {
    let server = server();
    let long = "word ".repeat(400);
    for (path, body, status, what) in [
        ("/v1/embeddings", json!({}), 400, "`input`: expected a text"),
        ("/v1/embeddings", json!({"input": ""}), 200, ""),
        ("/v1/embeddings", json!({"input": []}), 400, "`input`: "),
        ("/v1/embeddings", json!({"input": [[]]}), 400, "without a token"),
        ("/v1/embeddings", json!({"input": [424]}), 400, "token 424 is not in the vocabulary of 424"),
        ("/v1/embeddings", json!({"input": ["x", 5]}), 400, "not both in one list"),
        ("/v1/embeddings", json!({"input": "x", "dimensions": 65}), 400, "`dimensions`: expected 1 to 64"),
        ("/v1/embeddings", json!({"input": "x", "dimensions": 0}), 400, "`dimensions`: expected 1 to 64"),
        ("/v1/embeddings", json!({"input": "x", "encoding_format": "hex"}), 400, "`encoding_format`"),
        ("/v1/embeddings", json!({"input": vec!["x"; 2049]}), 400, "at most 2048"),
        ("/v1/embeddings", json!({ "input": long }), 400, "exceeds the available context size"),
        ("/api/embed", json!({"input": long, "truncate": false}), 400, "exceeds the available context size"),
        ("/api/embed", json!({ "input": long }), 200, ""),
        ("/api/embeddings", json!({"input": ["a", "b"]}), 400, "expected one text"),
        ("/embedding", json!({"content": "x", "embd_normalize": 0}), 400, "`embd_normalize`"),
        (
            "/v1/chat/completions",
            json!({"messages": [{"role": "user", "content": "x"}]}),
            400,
            "writes no text",
        ),
        ("/v1/completions", json!({"prompt": "x"}), 400, "writes no text"),
        ("/api/chat", json!({"messages": [{"role": "user", "content": "x"}]}), 400, "writes no text"),
    ] {
        let reply = server.post(path, &body);
        assert_eq!(reply.status, status, "{path} {body:.80}: {}", reply.text());
        assert!(reply.text().contains(what), "{path} {body:.80}: {}", reply.text());
    }
    let chat = Server::start(options());
    for path in ["/v1/embeddings", "/embedding", "/api/embed", "/api/embeddings"] {
        let reply = chat.post(path, &json!({"input": "x"}));
        assert_eq!(reply.status, 501, "{path}: {}", reply.text());
        assert!(reply.text().contains("writes text; it makes no vectors"), "{path}: {}", reply.text());
    }
}

#[test]
fn many_at_once_get_the_same_vectors() {
    let server = server();
    let texts: Vec<String> = (0..60).map(|nth| format!("Text {nth}: {}", "so ".repeat(nth % 23))).collect();
    let (want, _) = expected(&texts.iter().map(String::as_str).collect::<Vec<_>>());
    std::thread::scope(|scope| {
        for (texts, want) in texts.chunks(9).zip(want.chunks(9)) {
            let server = &server;
            scope.spawn(move || {
                let reply = server.post("/v1/embeddings", &json!({ "input": texts })).json();
                for (item, want) in reply["data"].as_array().unwrap().iter().zip(want) {
                    assert_eq!(&floats(&item["embedding"]), want);
                }
            });
        }
    });
    assert!(server.metric("tern_prompt_tokens_total") > 100.0);
}
