//! Several models in one server: chosen by name, loaded once on first use, unloaded by age, by memory and by request.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::{PAGE, Server, options, page};
use serde_json::{Value, json};
use tern_serve::{Load, Options, Served};

/// The small model under this name, counted as it is loaded.
fn served(name: &str, loads: &Arc<AtomicUsize>) -> Served {
    let loads = loads.clone();
    let load: Load = Arc::new(move || {
        loads.fetch_add(1, Ordering::SeqCst);
        page()
    });
    let bytes = std::fs::metadata(PAGE).unwrap().len();
    let (aliases, file) = (vec![format!("{name}-alias")], PAGE.to_owned());
    Served { aliases, file, file_bytes: bytes, ..Served::new(name, load) }
}

fn three(options: Options) -> (Server, Vec<Arc<AtomicUsize>>) {
    let counts: Vec<Arc<AtomicUsize>> = (0..3).map(|_| Arc::default()).collect();
    let models = ["a", "b", "c:latest"].into_iter().zip(&counts).map(|(name, count)| served(name, count));
    (Server::models(options, models.collect()), counts)
}

fn ask(server: &Server, model: &str) -> (u16, Value) {
    let body = json!({"model": model, "prompt": "Once", "max_tokens": 4});
    let reply = server.post("/v1/completions", &body);
    (reply.status, reply.json())
}

fn loaded(server: &Server) -> Vec<String> {
    let list = server.get("/api/ps").json();
    let models = list["models"].as_array().unwrap().iter();
    models.map(|model| model["name"].as_str().unwrap().to_owned()).collect()
}

fn count(count: &Arc<AtomicUsize>) -> usize {
    count.load(Ordering::SeqCst)
}

#[test]
fn models_are_chosen_by_name_and_loaded_once() {
    let (server, counts) = three(options());
    assert_eq!(server.get("/health").status, 200);
    assert_eq!(server.get("/v1/models").json()["data"].as_array().unwrap().len(), 3);
    assert!(loaded(&server).is_empty());
    std::thread::scope(|scope| {
        let asked: Vec<_> = (0..4).map(|_| scope.spawn(|| ask(&server, "b"))).collect();
        for asked in asked {
            let (status, answer) = asked.join().unwrap();
            assert_eq!((status, &answer["model"]), (200, &json!("b")), "{answer}");
        }
    });
    assert_eq!(counts.iter().map(count).collect::<Vec<_>>(), [0, 1, 0]);
    // An alias, Ollama's tag, and no name at all.
    for (asked, model) in [("b-alias", "b"), ("b:latest", "b"), ("c", "c:latest"), ("", "a")] {
        assert_eq!(ask(&server, asked).1["model"], model, "{asked}");
    }
    assert_eq!(counts.iter().map(count).collect::<Vec<_>>(), [1, 1, 1]);
    server.wait().unwrap();
}

#[test]
fn unknown_and_hostile_names_are_refused_in_each_dialect() {
    let (server, counts) = three(options());
    for name in ["d", "../a", "a/../../etc/passwd", "\0", &"x".repeat(1 << 20)] {
        let messages = json!([{"role": "user", "content": "Hi"}]);
        let body = json!({"model": name, "messages": messages, "max_tokens": 4, "input": "Hi"});
        let openai = ["/v1/chat/completions", "/v1/embeddings", "/v1/responses"];
        for path in openai {
            let reply = server.post(path, &body);
            assert_eq!(reply.status, 404, "{path} {}", reply.text());
            assert_eq!(reply.json()["error"]["code"], "model_not_found", "{path}");
            assert!(reply.text().len() < 1000, "a name is not told back whole");
        }
        let reply = server.post("/v1/messages", &body);
        assert_eq!((reply.status, &reply.json()["error"]["type"]), (404, &json!("not_found_error")));
        let reply = server.post("/api/chat", &body);
        assert_eq!((reply.status, reply.json()["error"].is_string()), (404, true));
    }
    assert_eq!(counts.iter().map(count).sum::<usize>(), 0);
    server.wait().unwrap();
}

#[test]
fn models_are_unloaded_by_age_and_on_request() {
    let (server, counts) = three(Options { keep_alive: Some(Duration::from_millis(600)), ..options() });
    let load = |keep: Value| {
        let body = json!({"model": "a", "keep_alive": keep});
        server.post("/api/generate", &body).json()["done_reason"].clone()
    };
    assert_eq!(load(json!(-1)), "load");
    assert_eq!(ask(&server, "b").0, 200);
    let start = Instant::now();
    while loaded(&server) != ["a:latest"] {
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", loaded(&server));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(load(json!(0)), "unload");
    assert!(loaded(&server).is_empty());
    assert_eq!(ask(&server, "a").0, 200);
    assert_eq!(counts.iter().map(count).collect::<Vec<_>>(), [2, 1, 0]);
    server.wait().unwrap();
}

#[test]
fn memory_has_room_for_some_and_the_least_recently_used_goes() {
    let bytes = std::fs::metadata(PAGE).unwrap().len();
    // Two with some keys and values, never three.
    let room = Options { kv_memory: Some(1 << 20), model_memory: Some(bytes * 2 + (3 << 20)), ..options() };
    let (server, counts) = three(room);
    for model in ["a", "b", "a", "c"] {
        assert_eq!(ask(&server, model).0, 200, "{model}");
        assert!(loaded(&server).len() < 3);
    }
    assert_eq!(loaded(&server), ["a:latest", "c:latest"], "b was used longest ago");
    assert_eq!(counts.iter().map(count).collect::<Vec<_>>(), [1, 1, 1]);
    server.wait().unwrap();

    let (server, _) = three(Options { model_memory: Some(bytes - 1), ..options() });
    let (status, answer) = ask(&server, "a");
    assert_eq!(status, 503);
    assert!(answer["error"]["message"].as_str().unwrap().contains("--model-memory"), "{answer}");
    server.wait().unwrap();
}

#[test]
fn a_model_that_cannot_be_loaded_says_why_to_all_and_others_go_on() {
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = tries.clone();
    let broken: Load = Arc::new(move || {
        counted.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(100));
        tern::Model::open("/there/is/none.gguf".as_ref(), &tern::Options::default())
    });
    let loads = Arc::default();
    let file = "/there/is/none.gguf".to_owned();
    let broken = Served { name: "broken".into(), file, load: broken, ..served("broken", &loads) };
    let panics: Load = Arc::new(|| panic!("on purpose"));
    let panics = Served { name: "panics".into(), load: panics, ..served("panics", &loads) };
    let server = Server::models(options(), vec![broken, panics, served("good", &loads)]);
    std::thread::scope(|scope| {
        let asked: Vec<_> = (0..3).map(|_| scope.spawn(|| ask(&server, "broken"))).collect();
        for asked in asked {
            let (status, answer) = asked.join().unwrap();
            let message = answer["error"]["message"].as_str().unwrap().to_owned();
            assert_eq!(status, 503);
            assert!(message.starts_with("the model `broken` cannot be used: "), "{message}");
            assert!(!message.contains("/there/is"), "paths are the owner's: {message}");
        }
    });
    assert_eq!(tries.load(Ordering::SeqCst), 1);
    assert_eq!(ask(&server, "panics").0, 503);
    assert_eq!(ask(&server, "good").0, 200);
    std::thread::sleep(Duration::from_millis(5100));
    assert_eq!(ask(&server, "broken").0, 503);
    assert_eq!(tries.load(Ordering::SeqCst), 2, "it is tried again later");
    server.wait().unwrap();
}
