//! One base and several adapters in one server: chosen by name, listed, and each text the same alone and in company.

mod common;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{Server, options, page};
use serde_json::{Value, json};
use tern::Random;
use tern::adapter::shapes;
use tern_convert::adapter::{NewAdapter, write_adapter};
use tern_serve::Options;

/// An adapter of random numbers for the small model.
fn adapter(dir: &Path, name: &str, seed: u64, strength: f32) -> (String, PathBuf, f32) {
    let config = page().unwrap().config().clone();
    let (rank, mut random) = (4, Random(seed));
    let mut numbers = |len: usize, size: f32| -> Vec<f32> {
        (0..len).map(|_| size * (random.below(2001) as f32 / 1000.0 - 1.0)).collect()
    };
    let mut matrices = Vec::new();
    for layer in 0..config.layers {
        for (projection, (outputs, inputs)) in shapes(&config).into_iter().enumerate() {
            let a = numbers(rank * inputs, 1.0 / (inputs as f32).sqrt());
            matrices.push((layer, projection, a, numbers(rank * outputs, strength)));
        }
    }
    let pairs = matrices.iter().map(|(layer, at, a, b)| (*layer, *at, &a[..], &b[..])).collect();
    let path = dir.join(name);
    let new = NewAdapter { base: "page".to_owned(), rank, alpha: 8.0, targets: vec!["q_proj"], pairs };
    write_adapter(&path, &new).unwrap();
    (name.to_owned(), path, 1.0)
}

fn ask(model: &str, text: &str, seed: i64) -> Value {
    json!({
        "model": model,
        "messages": [{"role": "system", "content": "Be kind. ".repeat(40)}, {"role": "user", "content": text}],
        "temperature": if seed == 0 { 0.0 } else { 1.1 }, "seed": seed, "max_tokens": 20, "ignore_eos": true,
    })
}

#[test]
fn different_adapters_and_the_base_in_one_batch_give_the_texts_that_they_give_alone() {
    let dir = tempfile::tempdir().unwrap();
    let adapters = vec![adapter(dir.path(), "left", 1, 0.3), adapter(dir.path(), "right", 2, 0.3)];
    let start = || Server::start(Options { parallel: 16, adapters: adapters.clone(), ..options() });
    let server = Arc::new(start());
    let models = ["page", "page:left", "page:right"];
    let asked: Vec<Value> = ["Hello!", "Tell me a story."]
        .iter()
        .flat_map(|text| (0..2).flat_map(move |seed| models.map(|model| ask(model, text, seed))))
        .collect();
    let alone: Vec<String> = asked.iter().map(|body| server.chat(body)).collect();
    for texts in alone.chunks(3) {
        assert!(texts[0] != texts[1] && texts[0] != texts[2] && texts[1] != texts[2], "{texts:?}");
    }
    let plain = Server::start(options());
    assert_eq!(plain.chat(&asked[0]), alone[0], "the base of a server without adapters");
    for server in [server, Arc::new(start())] {
        let threads: Vec<_> = (0..3 * asked.len())
            .map(|n| {
                let (server, body) = (server.clone(), asked[n % asked.len()].clone());
                std::thread::spawn(move || server.chat(&body))
            })
            .collect();
        for (n, thread) in threads.into_iter().enumerate() {
            assert_eq!(thread.join().unwrap(), alone[n % asked.len()], "request {n}");
        }
        assert!(server.metric("tern_prefix_hits_total") > 5.0);
    }
}

#[test]
fn adapters_are_listed_named_in_answers_and_unknown_ones_refused() {
    let dir = tempfile::tempdir().unwrap();
    let adapters = vec![adapter(dir.path(), "left", 1, 0.3)];
    let server = Server::start(Options { adapters, ..options() });
    let list = server.get("/v1/models").json();
    let ids: Vec<&str> =
        list["data"].as_array().unwrap().iter().map(|card| card["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["page", "page:left"]);
    assert_eq!(list["data"][1]["parent"], "page");
    assert_eq!(server.get("/v1/models/page:left").json()["id"], "page:left");
    let tags = server.get("/api/tags").json();
    let names: Vec<&str> =
        tags["models"].as_array().unwrap().iter().map(|card| card["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"page:left"), "{names:?}");
    for (model, name) in
        [("page", "page"), ("page:left", "page:left"), ("page:latest", "page"), ("gpt-4", "page")]
    {
        let reply = server.post("/v1/chat/completions", &ask(model, "Hello!", 0)).json();
        assert_eq!(reply["model"], name, "{reply}");
    }
    let reply = server.post("/v1/chat/completions", &ask("page:right", "Hello!", 0));
    assert_eq!(reply.status, 404);
    let reply = reply.json();
    let what = reply["error"]["message"].as_str().unwrap();
    assert!(what.contains("`page:right`") && what.contains("`page:left`"), "{what}");
}

#[test]
fn an_adapter_for_another_base_ends_the_server_before_it_serves() {
    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/golden/adapters/bitnet");
    let adapters = vec![("other".to_owned(), PathBuf::from(golden), 1.0)];
    let server = Server::loading(Options { adapters, ..options() }, page);
    let error = server.wait_by_itself().unwrap_err().to_string();
    assert!(error.contains("the adapter other") && error.contains("belongs to another base"), "{error}");
}
