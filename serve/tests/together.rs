//! Many at once: the same text for everybody, room given back, an orderly end.

mod common;

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Reply, Server, log, options, request};
use serde_json::{Value, json};
use tern::Drafts;
use tern_convert::Target;
use tern_convert::dummy::{self, DummyOptions, Shape};
use tern_serve::Options;

fn ask(text: &str, seed: i64) -> Value {
    let temperature = if seed == 0 { 0.0 } else { 1.2 };
    json!({
        "messages": [{"role": "system", "content": "Be kind. ".repeat(40)}, {"role": "user", "content": text}],
        "temperature": temperature, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "seed": seed, "max_tokens": 24,
    })
}

#[test]
fn the_same_request_gives_the_same_text_in_any_company() {
    let server = Arc::new(Server::start(options()));
    let asked: Vec<Value> = ["Hello!", "Tell me a story.", "Who are you?", "x"]
        .iter()
        .flat_map(|text| (0..4).map(|seed| ask(text, seed)))
        .collect();
    // Alone, and each on a server that knows nothing yet but the first.
    let alone: Vec<String> = asked.iter().map(|body| server.chat(body)).collect();
    let after_hit: Vec<String> = asked.iter().map(|body| server.chat(body)).collect();
    assert_eq!(alone, after_hit);
    let fresh = Server::start(Options { parallel: 16, ..options() });
    assert_eq!(fresh.chat(&asked[5]), alone[5], "on a server that knows nothing");
    // Among 16 others, streamed and not, while some are given up.
    let threads: Vec<_> = (0..2 * asked.len())
        .map(|n| {
            let (server, mut body) = (server.clone(), asked[n % asked.len()].clone());
            std::thread::spawn(move || {
                if n % 3 == 0 {
                    let mut given_up = body.clone();
                    given_up["stream"] = json!(true);
                    given_up["max_tokens"] = json!(-1);
                    given_up["ignore_eos"] = json!(true);
                    server.stream("/v1/chat/completions", &given_up).until("chunk");
                }
                if n % 2 == 0 {
                    return server.chat(&body);
                }
                body["stream"] = json!(true);
                let events = server.post("/v1/chat/completions", &body).events();
                events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect()
            })
        })
        .collect();
    for (n, thread) in threads.into_iter().enumerate() {
        assert_eq!(thread.join().unwrap(), alone[n % asked.len()], "request {n}");
    }
    server.wait_for("tern_kv_pages_used", 0.0, Duration::from_secs(2));
    server.wait_for("tern_requests_active", 0.0, Duration::from_secs(2));
    assert!(server.metric("tern_prefix_hits_total") > 20.0);
}

#[test]
fn guesses_change_no_text_and_are_told() {
    let start = |tokens| Server::start(Options { drafts: Drafts { tokens, always: true }, ..options() });
    let (with, without) = (Arc::new(start(7)), start(0));
    let asked: Vec<Value> = (0..8)
        .map(|seed| {
            let mut body = ask(["Hello!", "Tell me a story."][seed as usize % 2], seed / 2);
            (body["max_tokens"], body["ignore_eos"]) = (json!(60), json!(true));
            (body["temperature"], body["min_p"]) = (json!(if seed < 2 { 0.0 } else { 0.4 }), json!(0.05));
            if seed % 3 == 2 {
                body["stop"] = json!(["the", ". I"]);
            }
            body
        })
        .collect();
    let text = |reply: &Value| reply["choices"][0]["message"]["content"].clone();
    let details = |reply: &Value| {
        let details = &reply["usage"]["completion_tokens_details"];
        let count = |name: &str| details[name].as_u64().unwrap();
        let (accepted, rejected) = (count("accepted_prediction_tokens"), count("rejected_prediction_tokens"));
        assert_eq!(reply["timings"]["draft_n"], accepted + rejected);
        assert_eq!(reply["timings"]["draft_n_accepted"], accepted);
        assert!(accepted <= reply["usage"]["completion_tokens"].as_u64().unwrap());
        (accepted, rejected)
    };
    let wanted: Vec<Value> =
        asked.iter().map(|body| without.post("/v1/chat/completions", body).json()).collect();
    assert!(wanted.iter().all(|reply| details(reply) == (0, 0)));
    let (mut accepted, mut rejected) = (0, 0);
    // Alone, and all at once.
    for company in [1, asked.len()] {
        for bodies in asked.chunks(company).zip(wanted.chunks(company)) {
            let threads: Vec<_> = bodies
                .0
                .iter()
                .map(|body| {
                    let (with, body) = (with.clone(), body.clone());
                    std::thread::spawn(move || with.post("/v1/chat/completions", &body).json())
                })
                .collect();
            for (thread, wanted) in threads.into_iter().zip(bodies.1) {
                let reply = thread.join().unwrap();
                assert_eq!(text(&reply), text(wanted));
                assert_eq!(reply["usage"]["completion_tokens"], wanted["usage"]["completion_tokens"]);
                let (right, wrong) = details(&reply);
                (accepted, rejected) = (accepted + right, rejected + wrong);
            }
        }
    }
    assert!(accepted > 30 && rejected > 100, "{accepted} right, {rejected} wrong");
    assert_eq!(with.metric("tern_draft_tokens_total"), (accepted + rejected) as f64);
    assert_eq!(with.metric("tern_draft_accepted_tokens_total"), accepted as f64);
    let mut streamed = asked[0].clone();
    (streamed["stream"], streamed["stream_options"]) = (json!(true), json!({"include_usage": true}));
    let events = with.post("/v1/chat/completions", &streamed).events();
    let said: String =
        events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(text(&wanted[0]), said);
    let usage = events.iter().find(|event| event["usage"].is_object()).unwrap();
    assert!(details(usage).0 > 0, "{usage}");
}

/// A dummy with a long context; it has no tokenizer, so its prompts are ids.
fn long_model() -> tern::Result<tern::Model> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("long.gguf");
    let options = DummyOptions { context: Some(4096), ..DummyOptions::new(Target::I2) };
    dummy::dummy(&Shape::from_name("tiny").unwrap(), &path, &options, &mut |_, _| {})?;
    tern::Model::open(&path, &tern::Options { threads: Some(1), ..tern::Options::default() })
}

#[test]
fn a_shared_beginning_of_2000_tokens_is_read_once() {
    let server = Server::with(options(), long_model);
    let shared: Vec<u32> = (0..2000).map(|n| (n * 7 + n / 13) % 200).collect();
    let first_token = |last: u32| {
        let prompt: Vec<u32> = shared.iter().copied().chain([last; 4]).collect();
        let start = Instant::now();
        let reply = server.post("/v1/completions", &json!({"prompt": prompt, "max_tokens": 1}));
        assert_eq!(reply.status, 200, "{reply:?}");
        let cached = reply.json()["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
        (start.elapsed(), cached)
    };
    let (first, cached) = first_token(1);
    assert_eq!(cached, 0);
    let (second, cached) = first_token(2);
    assert_eq!(cached, 2000);
    assert!(second.as_secs_f64() <= 0.1 * first.as_secs_f64(), "{second:?} after {first:?}");
}

#[test]
fn a_full_queue_says_so_and_those_who_left_make_room() {
    let server = Server::with(Options { parallel: 2, queue: 1, ..options() }, long_model);
    let body = json!({"prompt": [1, 2, 3], "max_tokens": 4000, "n": 8, "stream": true});
    // The first is being written before the others come: they are prepared side by side, and any could be let in first.
    let mut streams = vec![server.stream("/v1/completions", &body)];
    streams[0].until("\"text\"");
    streams.extend((0..2).map(|_| server.stream("/v1/completions", &body)));
    server.wait_for("tern_requests_active", 3.0, Duration::from_secs(5));
    let reply = server.post("/v1/completions", &body);
    assert_eq!((reply.status, reply.header("retry-after")), (429, Some("2")), "{reply:?}");
    assert_eq!(reply.json()["error"]["type"], "rate_limit_error");
    assert_eq!(server.get("/health").status, 200);
    drop(streams);
    server.wait_for("tern_requests_active", 0.0, Duration::from_secs(1));
    server.wait_for("tern_kv_pages_used", 0.0, Duration::from_secs(1));
    assert!(server.metric("tern_answers_total{end=\"cancelled\"}") > 0.0);
    assert_eq!(server.post("/v1/completions", &json!({"prompt": [1], "max_tokens": 2})).status, 200);
}

#[test]
fn a_request_that_takes_too_long_ends() {
    let server = Server::start(Options { request_time: Duration::from_millis(300), ..options() });
    // Room for one, so that it waits behind itself: many answers that never end by themselves.
    let body =
        json!({"messages": [{"role": "user", "content": "Tell me a story."}], "ignore_eos": true, "n": 16});
    let start = Instant::now();
    let reply = server.post("/v1/chat/completions", &body);
    assert!(reply.status == 408 || reply.status == 200, "{reply:?}");
    assert!(start.elapsed() < Duration::from_secs(5));
    if reply.status == 408 {
        assert!(server.metric("tern_answers_total{end=\"timed_out\"}") > 0.0);
    }
}

#[test]
fn the_end_lets_streams_finish_and_refuses_new_ones() {
    let mut server = Server::start(options());
    let body = json!({"messages": [{"role": "user", "content": "Tell me a story."}], "stream": true});
    let mut stream = server.stream("/v1/chat/completions", &body);
    stream.until("content\":\"");
    // A connection from before, as clients keep them.
    let mut kept = server.connect();
    server.stop();
    std::thread::sleep(Duration::from_millis(100));
    let _ = kept.write_all(&request("GET", "/health", &[], b""));
    let mut answer = Vec::new();
    let _ = kept.read_to_end(&mut answer);
    assert!(answer.is_empty() || Reply::parse(&answer).status == 503);
    let events = stream.rest().events();
    assert_eq!(events.last().unwrap()["choices"][0]["finish_reason"], "stop", "it may finish");
    server.wait().unwrap();
}

#[test]
fn the_end_cuts_off_with_a_word_what_takes_too_long() {
    let mut server = Server::with(Options { grace: Duration::from_millis(50), ..options() }, long_model);
    let body = json!({"prompt": [1, 2, 3], "max_tokens": 4000, "stream": true});
    let mut stream = server.stream("/v1/completions", &body);
    stream.until("\"text\"");
    server.stop();
    let text = stream.rest().text();
    let last = text.lines().rfind(|line| !line.is_empty()).unwrap();
    let last: Value = serde_json::from_str(last.strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(last["error"]["type"], "unavailable_error", "{last}");
    server.wait().unwrap();
}

#[test]
fn while_the_model_loads_everybody_is_told_to_wait() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let server = Server::loading(options(), move || {
        let _ = wait.recv();
        common::page()
    });
    let reply = server.get("/health");
    assert_eq!((reply.status, &reply.json()["error"]["type"]), (503, &json!("unavailable_error")));
    assert_eq!(server.post("/v1/completions", &json!({"prompt": "x"})).status, 503);
    go.send(()).unwrap();
    let start = Instant::now();
    while server.get("/health").status != 200 {
        assert!(start.elapsed() < Duration::from_secs(20));
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_model_that_cannot_be_loaded_ends_the_server_with_its_reason() {
    let server = Server::loading(options(), || {
        tern::Model::open("no/such/file.gguf".as_ref(), &tern::Options::default())
    });
    let error = server.wait_by_itself().unwrap_err().to_string();
    assert!(error.contains("no/such/file.gguf"), "{error}");
}

#[test]
fn keys_are_asked_for_and_keep_their_prompts_apart() {
    let (sink, lines) = log();
    let keys = vec!["first-key".to_owned(), "second-key".to_owned()];
    let server = Server::start(Options { keys, isolate: true, log: sink.clone(), ..options() });
    let body =
        json!({"messages": [{"role": "user", "content": "Tell me a story. ".repeat(20)}], "max_tokens": 1});
    let with = |header: (&str, &str)| {
        server.request("POST", "/v1/chat/completions", &[header], body.to_string().as_bytes())
    };
    let cached =
        |reply: Reply| reply.json()["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    assert_eq!(cached(with(("authorization", "Bearer first-key"))), 0);
    assert!(cached(with(("x-api-key", "first-key"))) > 20);
    assert_eq!(
        cached(with(("authorization", "Bearer second-key"))),
        0,
        "another's prompts are not remembered"
    );
    for path in [
        "/v1/models",
        "/metrics",
        "/v1/chat/completions",
        "/api/tags",
        "/props",
        "/nothing",
        "//health",
        "/health/",
        "/%68ealth",
        "/openapi.json",
    ] {
        let reply = server.get(path);
        assert!(reply.status == 401, "{path}: {reply:?}");
        // Ollama's clients read a text there.
        let error = &reply.json()["error"];
        assert!(error["type"] == "authentication_error" || path.starts_with("/api/") && error.is_string());
    }
    for header in [
        ("authorization", "Bearer third-key"),
        ("authorization", "first-key"),
        ("x-api-key", "FIRST-KEY"),
        ("api-key", "first-key"),
        ("cookie", "first-key"),
    ] {
        assert_eq!(with(header).status, 401, "{header:?}");
    }
    assert_eq!((server.get("/health").status, server.get("/").status), (200, 200));
    sink.settle(Duration::from_secs(10));
    let lines = lines.lock().unwrap();
    assert!(
        lines.len() > 10 && lines.iter().all(|line| !line.to_string().contains("-key")),
        "keys are not logged"
    );
}

#[test]
fn other_sites_pages_and_foreign_hosts_are_turned_away() {
    let server = Server::start(Options { cors: vec!["https://chat.example".to_owned()], ..options() });
    let with = |headers: &[(&str, &str)]| server.request("GET", "/v1/models", headers, b"");
    assert_eq!(with(&[("origin", "https://evil.example")]).status, 403);
    assert_eq!(with(&[("origin", "http://localhost")]).status, 200, "its own page");
    let allowed = with(&[("origin", "https://chat.example")]);
    assert_eq!(
        (allowed.status, allowed.header("access-control-allow-origin")),
        (200, Some("https://chat.example"))
    );
    let preflight = server.request("OPTIONS", "/v1/models", &[("origin", "https://chat.example")], b"");
    assert_eq!(preflight.status, 204);
    let raw = server.raw(b"GET /v1/models HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n");
    assert_eq!(Reply::parse(&raw).status, 403, "a name that leads here");
}
