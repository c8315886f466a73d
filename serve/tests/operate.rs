//! What an operator sees and sets: the log, the metrics, names, keys.

mod common;

use std::io::Write;
use std::time::{Duration, Instant};

use common::{Reply, Server, log, options};
use serde_json::{Value, json};
use tern_serve::Options;

/// Waits for the line about this path.
fn line(lines: &std::sync::Mutex<Vec<Value>>, path: &str) -> Value {
    let start = Instant::now();
    loop {
        if let Some(line) = lines.lock().unwrap().iter().find(|line| line["path"] == path) {
            return line.clone();
        }
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "no line about {path}: {:?}",
            lines.lock().unwrap()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn every_request_has_a_line_at_its_end_that_says_how_it_ended() {
    let (sink, lines) = log();
    let server = Server::start(Options { log: sink, ..options() });
    let chat = |most: usize, stream: bool| {
        let messages = json!([{"role": "user", "content": "Hello!"}]);
        json!({"messages": messages, "max_tokens": most, "stream": stream, "n": 2})
    };
    let whole = server.post("/v1/chat/completions", &chat(3, false)).json();
    let told = line(&lines, "/v1/chat/completions");
    assert_eq!(told["prompt_tokens"], whole["usage"]["prompt_tokens"], "{told}");
    assert_eq!(told["cached_tokens"], whole["usage"]["prompt_tokens_details"]["cached_tokens"], "{told}");
    assert_eq!(told["completion_tokens"], whole["usage"]["completion_tokens"], "{told}");
    assert_eq!(
        (&told["end"], &told["status"], &told["model"]),
        (&json!("length"), &json!(200), &json!("page"))
    );
    assert_eq!((&told["method"], &told["client"]), (&json!("POST"), &json!("127.0.0.1")));
    let (first, ms) = (told["first_token_ms"].as_f64().unwrap(), told["ms"].as_f64().unwrap());
    assert!(first > 0.0 && first <= ms, "{told}");

    // A stream is told when its body ends, not when it begins.
    let mut stream = server.stream("/chat/completions", &chat(200, true));
    stream.until("\"content\"");
    stream.rest();
    let told = line(&lines, "/chat/completions");
    assert_eq!(
        (&told["end"], told["completion_tokens"].as_u64() > Some(4)),
        (&json!("stop"), true),
        "{told}"
    );

    // A client that leaves, in the middle of a stream and before the head of an answer.
    let forever = json!({"prompt": "One", "max_tokens": 100_000, "ignore_eos": true, "stream": true});
    let mut stream = server.stream("/v1/completions", &forever);
    stream.until("data: ");
    drop(stream);
    assert_eq!(line(&lines, "/v1/completions")["end"], "cancelled");
    let mut forever = forever;
    (forever["stream"], forever["n"]) = (json!(false), json!(16));
    let waiting = server.stream("/completions", &forever);
    server.wait_for("tern_requests_active", 16.0, Duration::from_secs(20));
    drop(waiting);
    let told = line(&lines, "/completions");
    assert_eq!((&told["end"], &told["status"]), (&json!("cancelled"), &json!(499)));

    assert_eq!(server.post("/v1/messages", &json!({"n": "x"})).status, 400);
    let told = line(&lines, "/v1/messages");
    assert_eq!(
        (&told["end"], &told["status"], &told["model"]),
        (&json!("refused"), &json!(400), &Value::Null)
    );
    assert_eq!(Reply::parse(&server.raw(b"no HTTP\r\n\r\n")).status, 400);
    let told = line(&lines, "-");
    assert_eq!(
        (&told["end"], &told["status"], &told["client"]),
        (&json!("refused"), &json!(400), &json!("127.0.0.1"))
    );
    server.request("HEAD", "/v1/health", &[], b"");
    assert_eq!(line(&lines, "/v1/health")["end"], "done");
}

#[test]
fn metrics_are_open_where_the_operator_says_so() {
    let keys = vec!["a-key".to_owned()];
    let server = Server::start(Options { keys: keys.clone(), ..options() });
    assert_eq!(server.get("/metrics").status, 401);
    let server = Server::start(Options { keys, metrics_open: true, ..options() });
    let page = server.get("/metrics").text();
    for name in ["tern_log_lines_dropped_total 0", "tern_request_seconds_count", "process_start_time_seconds"]
    {
        assert!(page.contains(name), "{name} in {page}");
    }
    assert_eq!(server.get("/v1/models").status, 401);
}

#[test]
fn names_that_a_stranger_could_lead_here_are_refused() {
    let get = |server: &Server, host: &str| {
        let head = format!(
            "GET /v1/models HTTP/1.1\r\nhost: {host}\r\norigin: http://{host}\r\nconnection: close\r\n\r\n"
        );
        Reply::parse(&server.raw(head.as_bytes())).status
    };
    let server = Server::start(options());
    let named = Server::start(Options { hosts: vec!["ai.example".to_owned()], ..options() });
    let all = Server::start(Options { hosts: vec!["*".to_owned()], ..options() });
    for (host, plain, with) in [
        ("127.0.0.1:8080", 200, 200),
        ("tern:8080", 200, 200),
        ("nas.local", 200, 200),
        ("evil.example", 403, 403),
        ("ai.example", 403, 200),
        ("AI.example:8080", 403, 200),
    ] {
        assert_eq!((get(&server, host), get(&named, host), get(&all, host)), (plain, with, 200), "{host}");
    }
}

#[test]
fn requests_that_a_proxy_could_read_in_another_way_are_refused() {
    let server = Server::start(options());
    let status = |head: &str| Reply::parse(&server.raw(head.as_bytes())).status;
    assert_eq!(status("GET /health HTTP/1.1\r\nconnection: close\r\n\r\n"), 400, "no host");
    let two = "GET /health HTTP/1.1\r\nhost: localhost\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    assert_eq!(status(two), 400, "two hosts");
    assert_eq!(status("GET /health HTTP/1.0\r\n\r\n"), 200, "HTTP/1.0 knows none");
    let coded = |coding: &str| {
        let head = "POST /tokenize HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n";
        status(&format!(
            "{head}transfer-encoding: {coding}\r\n\r\n11\r\n{{\"content\": \"ab\"}}\r\n0\r\n\r\n"
        ))
    };
    assert_eq!((coded("chunked"), coded("Chunked"), coded("gzip, chunked")), (200, 200, 501));
}

#[test]
fn a_page_that_is_let_in_may_send_what_the_official_packages_send() {
    let server = Server::start(Options { cors: vec!["https://chat.example".to_owned()], ..options() });
    let fields =
        "authorization,x-stainless-os,x-stainless-retry-count,anthropic-dangerous-direct-browser-access";
    let asked = [("origin", "https://chat.example"), ("access-control-request-headers", fields)];
    let preflight = server.request("OPTIONS", "/v1/messages", &asked, b"");
    assert_eq!((preflight.status, preflight.header("access-control-allow-headers")), (204, Some(fields)));
    let refused =
        server.request("OPTIONS", "/v1/messages", &[("origin", "https://evil.example"), asked[1]], b"");
    assert_eq!(refused.status, 403);
}

#[test]
fn bodies_that_find_no_room_are_told_to_come_back_and_small_requests_are_answered() {
    let server = Server::start(Options { request_memory: 8 << 20, ..options() });
    let body = vec![b' '; 6 << 20];
    // Two that never end: the second one is over the budget before it is whole.
    let mut first = server.connect();
    let head = "POST /tokenize HTTP/1.1\r\nhost: localhost\r\ncontent-length: 7000000\r\n\r\n";
    first.write_all(head.as_bytes()).unwrap();
    first.write_all(&body).unwrap();
    server.wait_for("tern_request_memory_limit_bytes", f64::from(8 << 20), Duration::from_secs(1));
    let start = Instant::now();
    while server.metric("tern_request_memory_bytes") < f64::from(6 << 20) {
        assert!(start.elapsed() < Duration::from_secs(20), "the first body is not counted");
        std::thread::sleep(Duration::from_millis(5));
    }
    let second = server.request("POST", "/tokenize", &[], &body);
    assert_eq!((second.status, second.header("retry-after")), (503, Some("2")), "{second:?}");
    assert_eq!(second.json()["error"]["code"], "memory_full");
    assert!(
        !server
            .chat(&json!({"messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 6}))
            .is_empty()
    );
    // A short body can be many values, and a long answer many probabilities.
    drop(first);
    server.wait_for("tern_request_memory_bytes", 0.0, Duration::from_secs(20));
    let list = format!("{{\"prompt\": [{}1]}}", "1,".repeat(100_000));
    assert_eq!(server.request("POST", "/v1/completions", &[], list.as_bytes()).status, 413);
    let told = json!({"prompt": [[1, 2, 3], [4, 5, 6]], "n": 16, "max_tokens": 400, "ignore_eos": true, "logprobs": 20});
    let reply = server.post("/v1/completions", &told);
    assert!(reply.status == 413 || reply.status == 503, "{reply:?}");
    server.wait_for("tern_request_memory_bytes", 0.0, Duration::from_secs(20));
}

#[test]
fn tokens_are_written_piece_by_piece() {
    let server = Server::start(options());
    let text = "The bird looked at the sea. \u{1F426} ".repeat(5000);
    let plain = server.post("/tokenize", &json!({"content": text})).json();
    let pieces = server.post("/tokenize", &json!({"content": text, "with_pieces": true}));
    assert!(pieces.head.to_lowercase().contains("transfer-encoding: chunked"), "{}", pieces.head);
    let pieces = pieces.json();
    let ids: Vec<&Value> = pieces["tokens"].as_array().unwrap().iter().map(|token| &token["id"]).collect();
    assert_eq!(ids, plain["tokens"].as_array().unwrap().iter().collect::<Vec<_>>());
    assert_eq!((&plain["count"], plain["max_model_len"].as_u64()), (&json!(ids.len()), Some(512)));
    let read: Vec<u8> = pieces["tokens"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|token| match &token["piece"] {
            Value::String(text) => text.as_bytes().to_vec(),
            bytes => serde_json::from_value(bytes.clone()).unwrap(),
        })
        .collect();
    assert_eq!(String::from_utf8(read).unwrap(), text);
    let none = server.post("/tokenize", &json!({"content": ""})).json();
    assert_eq!((&none["tokens"], &none["count"]), (&json!([]), &json!(0)));
}

#[test]
fn a_client_that_does_not_read_does_not_hold_the_places_of_others() {
    let server = Server::start(Options { parallel: 4, ..options() });
    let good = json!({"messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 6});
    let alone = server.chat(&good);
    // 16 answers of about a megabyte each: more than the sockets between take.
    let mut slow = server.stream(
        "/v1/chat/completions",
        &json!({"messages": [{"role": "user", "content": "One"}], "n": 16, "logprobs": true, "top_logprobs": 20,
            "stream": true, "ignore_eos": true, "max_tokens": 400}),
    );
    slow.until("data: ");
    for _ in 0..5 {
        assert_eq!(server.chat(&good), alone);
    }
    assert!(server.metric("tern_set_aside_total") > 0.0);
    // What it gets in the end is whole, and the same as if it had read at once.
    let mut texts = vec![String::new(); 16];
    let events = slow.rest().events();
    let choices = events.iter().filter_map(|event| event["choices"].get(0));
    for choice in choices.clone() {
        let at = choice["index"].as_u64().unwrap() as usize;
        texts[at].push_str(choice["delta"]["content"].as_str().unwrap_or_default());
    }
    assert_eq!(choices.filter(|choice| choice["finish_reason"] == "length").count(), 16);
    assert!(texts[0].len() > 400 && texts.iter().all(|text| *text == texts[0]), "{texts:?}");
}

#[test]
fn no_key_takes_all_places_and_each_has_its_own_prompts() {
    let keys = vec!["one".to_owned(), "two".to_owned()];
    let server = Server::start(Options { keys, parallel: 1, queue: 7, metrics_open: true, ..options() });
    let with = |key: &str, body: &Value| {
        let bearer = format!("Bearer {key}");
        server.request("POST", "/v1/completions", &[("authorization", &bearer)], body.to_string().as_bytes())
    };
    // Four answers are half of the places; a fifth is too many for this key, but not for the other.
    let held = json!({"prompt": "One", "n": 4, "max_tokens": 500, "ignore_eos": true, "stream": true, "logprobs": 20});
    let bytes =
        common::request("POST", "/v1/completions", &[("x-api-key", "one")], held.to_string().as_bytes());
    let mut greedy = server.connect();
    greedy.write_all(&bytes).unwrap();
    server.wait_for("tern_requests_active", 4.0, Duration::from_secs(20));
    let small = json!({"prompt": "One", "max_tokens": 1});
    assert_eq!(with("one", &small).status, 429);
    assert_eq!(with("two", &small).status, 200);
}

#[test]
fn a_system_message_that_the_model_does_not_read_is_told() {
    let (sink, lines) = log();
    let server = Server::start(Options { log: sink, ..options() });
    let ask = |role: &str| {
        let messages = json!([{"role": role, "content": "Be brief."}, {"role": "user", "content": "Hello!"}]);
        server.post("/v1/chat/completions", &json!({"messages": messages, "max_tokens": 2}))
    };
    let lost = ask("system");
    assert!(
        lost.status == 200 && lost.header("x-tern-warning").is_some_and(|told| told.contains("system")),
        "{lost:?}"
    );
    assert!(line(&lines, "/v1/chat/completions")["warning"].is_string());
    assert_eq!(ask("user").header("x-tern-warning"), None);
    let missing = server.get("/v1/models/other").json();
    assert_eq!(missing["error"]["message"], "there is no model `other` here: this server has `page`");
}
