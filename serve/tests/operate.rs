//! What an operator sees and sets: the log, the metrics, names, keys.

mod common;

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
