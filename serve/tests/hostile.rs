//! Requests that are wrong on purpose: each is told so in a 4xx with an error object (or the connection closes), and
//! the server answers the next good one as ever.

mod common;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use common::{Reply, Server, options, request};
use serde_json::{Value, json};

fn good(server: &Server) -> String {
    server.chat(&json!({"messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 6}))
}

/// What went against the rules.
#[derive(Default)]
struct Faults(Vec<String>);

impl Drop for Faults {
    fn drop(&mut self) {
        assert!(std::thread::panicking() || self.0.is_empty(), "{}", self.0.join("\n"));
    }
}

/// Checks one bad request and a good one after it.
fn refused(faults: &mut Faults, server: &Server, name: &str, bytes: &[u8], expected: &str) {
    let start = Instant::now();
    let answer = server.raw(bytes);
    if start.elapsed() > Duration::from_secs(9) {
        faults.0.push(format!("{name}: {:?}", start.elapsed()));
    }
    if !answer.is_empty() {
        let reply = Reply::parse(&answer);
        if !(400..500).contains(&reply.status) && reply.status != 501 {
            faults.0.push(format!("{name}: {} {}", reply.status, reply.text()));
            return;
        }
        let body = reply.json();
        let message = body["error"]["message"].as_str().or(body["error"].as_str());
        assert!(
            message.is_some_and(|message| !message.is_empty() && message.lines().count() == 1),
            "{name}: {body}"
        );
    }
    assert_eq!(good(server), expected, "after {name}");
}

/// Fields that cannot be, put into an otherwise good chat.
fn fields() -> Vec<(&'static str, Value)> {
    let deep = |levels: usize| {
        (0..levels)
            .fold(json!({"type": "string"}), |inner, _| json!({"type": "object", "properties": {"x": inner}}))
    };
    let call = |function: Value| json!([{"type": "function", "function": function}]);
    let schema =
        |schema: Value| json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}});
    let mut list: Vec<(&'static str, Value)> = Vec::new();
    let mut bad =
        |name: &'static str, values: Vec<Value>| list.extend(values.into_iter().map(|value| (name, value)));
    bad(
        "messages",
        vec![
            json!(null),
            json!([]),
            json!({}),
            json!("Hello!"),
            json!(5),
            json!([5]),
            json!([null]),
            json!([[]]),
            json!([{}]),
            json!([{"role": "user", "content": 5}]),
            json!([{"role": 1, "content": "x"}]),
            json!([{"content": "x"}]),
            json!([{"role": "boss", "content": "x"}]),
            json!([{"role": "", "content": "x"}]),
            json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]),
            json!([{"role": "user", "content": [{"type": "text"}]}]),
            json!([{"role": "user", "content": [{}]}]),
            json!([{"role": "user", "content": ["x"]}]),
            json!([{"role": "user", "content": {"text": "x"}}]),
            json!([{"role": "assistant", "content": null, "tool_calls": [{}]}]),
            json!([{"role": "assistant", "content": null, "tool_calls": "x"}]),
            json!([{"role": "user", "content": "word ".repeat(5000)}]),
            json!(vec![json!({"role": "user", "content": "x"}); 2049]),
        ],
    );
    bad("n", vec![json!(0), json!(-1), json!(17), json!(1e9), json!("2"), json!(1.5), json!([1])]);
    bad("best_of", vec![json!(2), json!("x")]);
    bad("max_tokens", vec![json!(0), json!(-2), json!("5"), json!(1.5), json!([1]), json!(1e30)]);
    bad("max_completion_tokens", vec![json!(0), json!(-5), json!({})]);
    bad("temperature", vec![json!(-0.1), json!(101), json!("hot"), json!([0]), json!(1e300), json!({})]);
    bad("top_p", vec![json!(-0.1), json!(1.1), json!("x"), json!(1e300)]);
    bad("top_k", vec![json!(-2), json!("x"), json!(1.5)]);
    bad("min_p", vec![json!(-1), json!(1.5), json!("x")]);
    bad("typical_p", vec![json!(0), json!(1.5), json!("x")]);
    bad("dry_multiplier", vec![json!(-1), json!(1000), json!("x")]);
    bad("dry_base", vec![json!(0.5), json!(1000)]);
    bad("dry_allowed_length", vec![json!(0), json!(-1), json!(1.5)]);
    bad("dry_penalty_last_n", vec![json!(-2), json!("x")]);
    bad("dry_sequence_breakers", vec![json!("x"), json!([1]), json!(vec!["x"; 17]), json!(["x".repeat(65)])]);
    bad("presence_penalty", vec![json!(1000), json!(-1000), json!("x")]);
    bad("frequency_penalty", vec![json!(1000), json!(-1000), json!(true)]);
    bad("repetition_penalty", vec![json!(0), json!(-1), json!(1000), json!("x")]);
    bad("seed", vec![json!("x"), json!(1.5), json!([]), json!(1e30)]);
    bad(
        "stop",
        vec![json!(5), json!([5]), json!({}), json!(vec!["x"; 17]), json!("x".repeat(1025)), json!([["x"]])],
    );
    bad(
        "logit_bias",
        vec![
            json!([5]),
            json!("x"),
            json!({"x": 101}),
            json!([["x", true]]),
            json!([[99999, 1]]),
            json!([["x".repeat(2000), 1]]),
            json!({"-1": 1}),
            json!({"99999": 1}),
            json!({"1": 101}),
            json!({"1": -101}),
            json!({"1": "x"}),
            json!({"4294967296": 1}),
        ],
    );
    bad("logprobs", vec![json!("x"), json!(5), json!([true])]);
    bad("top_logprobs", vec![json!(5), json!(-1), json!("x"), json!(21)]);
    bad("stream", vec![json!("yes"), json!(1), json!([])]);
    bad("stream_options", vec![json!("x"), json!({"include_usage": "x"}), json!([1, 2])]);
    bad("suffix", vec![json!("x"), json!(5)]);
    bad(
        "response_format",
        vec![
            json!("json"),
            json!({}),
            json!({"type": "xml"}),
            json!({"type": 5}),
            json!([]),
            json!({"type": "json_schema"}),
            json!({"type": "json_schema", "json_schema": {}}),
            schema(json!(5)),
            schema(json!("x")),
            schema(json!([])),
            schema(json!({"type": "nothing"})),
            schema(json!({"type": 5})),
            schema(json!({"$ref": "#/nowhere"})),
            schema(json!({"$ref": "http://127.0.0.1/x"})),
            schema(json!({"type": "string", "pattern": "("})),
            schema(json!({"minimum": 5, "maximum": 1, "type": "integer"})),
            schema(json!(false)),
            schema(deep(70)),
            schema(json!({"enum": []})),
            schema(json!({"type": "string", "minLength": 5, "maxLength": 1})),
            schema(json!({"type": "object", "description": "x".repeat(300_000)})),
        ],
    );
    bad("json_schema", vec![json!(5), json!("x"), json!({"type": "nothing"})]);
    bad(
        "grammar",
        vec![
            json!(5),
            json!("start: x"),
            json!("("),
            json!("start: start"),
            json!("\u{0}"),
            json!("start: /(/"),
            json!("x".repeat(300_000)),
            json!("root ::= a"),
        ],
    );
    bad("regex", vec![json!(5), json!("("), json!("["), json!("(?=x)"), json!("\\1")]);
    bad(
        "tools",
        vec![
            json!("x"),
            json!([5]),
            json!([{}]),
            json!([{"type": "function"}]),
            json!([{"type": "web", "function": {"name": "x"}}]),
            call(json!({})),
            call(json!({"name": ""})),
            call(json!({"name": "a b"})),
            call(json!({"name": "x".repeat(65)})),
            call(json!({"name": "x", "parameters": 5})),
            call(json!({"name": "x", "parameters": {"type": "nothing"}})),
            json!(vec![json!({"type": "function", "function": {"name": "x"}}); 129]),
        ],
    );
    bad(
        "tool_choice",
        vec![
            json!("x"),
            json!(5),
            json!({}),
            json!("required"),
            json!({"type": "function", "function": {"name": "x"}}),
            json!([]),
        ],
    );
    list
}

#[test]
fn fields_that_cannot_be_are_refused() {
    let server = Server::start(options());
    let expected = good(&server);
    let mut faults = Faults::default();
    let mut count = 0;
    for (name, value) in fields() {
        let mut body = json!({"messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 4});
        body[name] = value.clone();
        let body = body.to_string();
        let shown: String = format!("{name}: {value}").chars().take(100).collect();
        refused(
            &mut faults,
            &server,
            &shown,
            &request("POST", "/v1/chat/completions", &[], body.as_bytes()),
            &expected,
        );
        count += 1;
    }
    assert!(count > 130, "{count}");
}

#[test]
fn other_endpoints_refuse_too() {
    let server = Server::start(options());
    let expected = good(&server);
    let mut faults = Faults::default();
    let user = json!([{"role": "user", "content": "x"}]);
    let cases = [
        ("/v1/completions", json!({})),
        ("/v1/completions", json!({"prompt": null})),
        ("/v1/completions", json!({"prompt": 5})),
        ("/v1/completions", json!({"prompt": []})),
        ("/v1/completions", json!({"prompt": [[]]})),
        ("/v1/completions", json!({"prompt": [-1]})),
        ("/v1/completions", json!({"prompt": [4294967295u32]})),
        ("/v1/completions", json!({"prompt": [99999]})),
        ("/v1/completions", json!({"prompt": [1.5]})),
        ("/v1/completions", json!({"prompt": [1, ["x"]]})),
        ("/v1/completions", json!({"prompt": [1, 99999, "x"]})),
        ("/v1/completions", json!({"prompt": {"prompt_string": "x", "multimodal_data": ["AA=="]}})),
        ("/completion", json!({})),
        ("/completion", json!({"prompt": "x", "n_predict": -5})),
        ("/completion", json!({"prompt": "x", "n_probs": 21})),
        ("/completion", json!({"prompt": "x", "response_fields": 5})),
        ("/completion", json!({"prompt": "x", "post_sampling_probs": true})),
        ("/completions", json!({"prompt": vec![1; 600]})),
        ("/v1/chat/completions/input_tokens", json!({"messages": []})),
        ("/v1/responses/input_tokens", json!({})),
        ("/v1/completions", json!({"prompt": vec!["x"; 65]})),
        ("/v1/completions", json!({"prompt": vec!["x"; 10], "n": 10})),
        ("/v1/completions", json!({"prompt": vec![1; 600]})),
        ("/v1/completions", json!({"prompt": "x", "logprobs": 21})),
        ("/v1/completions", json!({"prompt": "x", "suffix": "y"})),
        ("/v1/completions", json!({"prompt": "x", "echo": "yes"})),
        ("/v1/responses", json!({})),
        ("/v1/responses", json!({"input": 5})),
        ("/v1/responses", json!({"input": []})),
        ("/v1/responses", json!({"input": [{"type": "image"}]})),
        ("/v1/responses", json!({"input": [{"role": "boss", "content": "x"}]})),
        ("/v1/responses", json!({"input": "x", "previous_response_id": "resp_1"})),
        ("/v1/responses", json!({"input": "x", "background": true})),
        ("/v1/responses", json!({"input": "x", "conversation": "conv_1"})),
        ("/v1/responses", json!({"input": "x", "top_logprobs": 21})),
        (
            "/v1/responses",
            json!({"input": "x", "tools": [{"type": "web_search"}], "tool_choice": "required"}),
        ),
        ("/v1/responses", json!({"input": [{"type": "item_reference", "id": "é"}]})),
        ("/v1/responses", json!({"input": "x", "tools": [{"name": "f"}]})),
        ("/v1/messages", json!({})),
        ("/v1/messages", json!({"messages": user})),
        ("/v1/messages", json!({"messages": [], "max_tokens": 5})),
        ("/v1/messages", json!({"messages": user, "max_tokens": -5})),
        ("/v1/messages", json!({"messages": user, "max_tokens": 0})),
        ("/v1/messages", json!({"messages": [{"role": "system", "content": "x"}], "max_tokens": 5})),
        (
            "/v1/messages",
            json!({"messages": [{"role": "user", "content": [{"type": "image"}]}], "max_tokens": 5}),
        ),
        ("/v1/messages", json!({"messages": [{"role": "user", "content": 5}], "max_tokens": 5})),
        (
            "/v1/messages",
            json!({"messages": user, "max_tokens": 5, "tool_choice": {"type": "tool", "name": "x"}}),
        ),
        ("/v1/messages/count_tokens", json!({"messages": 5})),
        ("/v1/messages", json!({"messages": user, "max_tokens": 5, "mcp_servers": [{}]})),
        (
            "/v1/messages",
            json!({"messages": user, "max_tokens": 5, "output_config": {"format": {"type": "xml"}}}),
        ),
        ("/api/chat", json!({"messages": 5})),
        ("/api/chat", json!({"messages": user, "think": true})),
        ("/api/chat", json!({"messages": user, "options": {"mirostat": 2}})),
        ("/api/chat", json!({"messages": [{"role": "user", "content": "x", "images": ["AA=="]}]})),
        ("/api/generate", json!({"prompt": "x", "images": ["AA=="]})),
        ("/api/generate", json!({"prompt": "x", "suffix": "y"})),
        ("/api/embed", json!({"input": "x"})),
        ("/api/pull", json!({"model": "other"})),
        ("/api/create", json!({"model": "other"})),
        ("/api/nothing", json!({})),
        ("/api/chat", json!({"messages": user, "format": "xml"})),
        ("/api/chat", json!({"messages": user, "options": {"temperature": "x"}})),
        ("/api/generate", json!({"prompt": 5})),
        ("/api/show", json!({"model": 5})),
        ("/tokenize", json!({})),
        ("/tokenize", json!({"content": 5})),
        ("/detokenize", json!({})),
        ("/detokenize", json!({"tokens": "x"})),
        ("/detokenize", json!({"tokens": [99999]})),
        ("/apply-template", json!({"messages": []})),
        ("/v1/embeddings", json!({"input": "x"})),
    ];
    for (path, body) in cases {
        let shown: String = format!("{path} {body}").chars().take(100).collect();
        refused(
            &mut faults,
            &server,
            &shown,
            &request("POST", path, &[], body.to_string().as_bytes()),
            &expected,
        );
    }
}

#[test]
fn bytes_that_are_no_request_are_refused() {
    let server = Server::start(options());
    let expected = good(&server);
    let mut faults = Faults::default();
    let body = |bytes: &[u8]| request("POST", "/v1/chat/completions", &[], bytes);
    let deep = [&b"{\"messages\": "[..], &b"[".repeat(100_000)].concat();
    let mut cases: Vec<(String, Vec<u8>)> = Vec::new();
    let mut raw = |name: &str, bytes: &[u8]| cases.push((name.to_owned(), bytes.to_vec()));
    for (name, bytes) in [
        ("no JSON", &b"hello"[..]),
        ("half", b"{\"messages\": ["),
        ("null", b"null"),
        ("a number", b"5"),
        ("a list", b"[]"),
        ("a text", b"\"x\""),
        ("two values", b"{} {}"),
        ("a trailing comma", b"{\"messages\": [],}"),
        ("single quotes", b"{'messages': []}"),
        ("NaN", b"{\"temperature\": NaN}"),
        ("broken UTF-8", b"{\"messages\": \"\xff\xfe\"}"),
        ("a lone surrogate", b"{\"prompt\": \"\\ud800\"}"),
        ("NULs", b"\0\0\0\0"),
        ("a BOM", b"\xef\xbb\xbf{}"),
        ("twice the same", b"{\"n\": 1, \"n\": 2}"),
        ("a huge number", b"{\"n\": 1e999}"),
        ("deep", &deep),
        ("gzip", b"\x1f\x8b\x08\0\0\0\0\0"),
    ] {
        raw(name, &body(bytes));
    }
    raw("no HTTP", b"hello\r\n\r\n");
    raw("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
    raw("noise", &(0..=255).cycle().take(4000).collect::<Vec<u8>>());
    raw("NULs alone", &[0; 100]);
    raw("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    raw("HTTP/9", b"GET / HTTP/9.9\r\nhost: localhost\r\n\r\n");
    raw("no version", b"GET /\r\n\r\n");
    raw("a method of noise", b"G\x01T / HTTP/1.1\r\nhost: localhost\r\n\r\n");
    raw("a bad name", b"GET /health HTTP/1.1\r\nhost: localhost\r\nb ad: x\r\n\r\n");
    raw("a bad value", b"GET /health HTTP/1.1\r\nhost: localhost\r\nx: a\0b\r\n\r\n");
    raw("an unknown method", b"BREW /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    raw("two lengths", b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\ncontent-length: 6\r\nconnection: close\r\n\r\nhello!");
    raw("a bad length", b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: x\r\n\r\n");
    raw(
        "a negative length",
        b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: -5\r\n\r\n",
    );
    raw("a huge length", b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99999999999\r\nconnection: close\r\n\r\n");
    raw("an endless length", b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99999999999999999999999\r\n\r\n");
    raw("length and chunks", b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n0\r\n\r\n");
    raw("a bad chunk", b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\nxyz\r\n");
    raw("a huge chunk", b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\nffffffffffffffffff\r\n");
    raw("an unknown coding", b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: gzip\r\nconnection: close\r\n\r\n");
    raw(
        "many fields",
        format!("GET /health HTTP/1.1\r\nhost: localhost\r\n{}\r\n", "x: y\r\n".repeat(200)).as_bytes(),
    );
    raw(
        "a large field",
        format!(
            "GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nx: {}\r\n\r\n",
            "y".repeat(100_000)
        )
        .as_bytes(),
    );
    raw(
        "a long path",
        format!("GET /{} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", "x".repeat(10_000))
            .as_bytes(),
    );
    raw(
        "a very long path",
        format!("GET /{} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", "x".repeat(100_000))
            .as_bytes(),
    );
    raw("a large body", &request("POST", "/v1/completions", &[], &vec![b' '; (8 << 20) + 1]));
    for path in [
        "/../../etc/passwd",
        "/..%2f..%2fetc/passwd",
        "/%2e%2e/",
        "/etc/passwd",
        "/page/",
        "/page/index.html",
        "/src/lib.rs",
        "/v1/models/../../x",
        "/v1/chat/completions/",
        "//v1/models",
        "/v1/files",
        "/admin",
        "/%00",
        "/v1/%ff",
        "/v1/audio/speech",
        "/v1/images/generations",
        "/v1/models/other",
        "/.git/config",
        "/page/main.js/x",
        "*",
    ] {
        raw(path, &request("GET", path, &[], b""));
    }
    for method in ["GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE"] {
        raw(method, &request(method, "/v1/chat/completions", &[], b""));
    }
    for name in ["/health", "/v1/models", "/"] {
        raw(&format!("POST {name}"), &request("POST", name, &[], b"{}"));
    }
    let count = cases.len();
    assert!(count > 60, "{count}");
    for (name, bytes) in cases {
        // An answer to HEAD has no body.
        if name == "HEAD" {
            assert!(server.raw(&bytes).starts_with(b"HTTP/1.1 405"));
            continue;
        }
        refused(&mut faults, &server, &name, &bytes, &expected);
    }
}

#[test]
fn who_stops_sending_or_leaves_early_stops_nobody() {
    let server = Server::start(options());
    let expected = good(&server);
    // Half a head, half a body, and connections that say nothing, all left open.
    let mut open = Vec::new();
    for bytes in [
        &b"POST /v1/compl"[..],
        b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{\"pro",
        b"",
    ] {
        for _ in 0..20 {
            let mut socket = server.connect();
            socket.write_all(bytes).unwrap();
            open.push(socket);
        }
    }
    assert_eq!(good(&server), expected);
    // Gone in the middle of a body, and before the answer.
    let body =
        json!({"messages": [{"role": "user", "content": "Tell me a story."}], "stream": true}).to_string();
    let whole = request("POST", "/v1/chat/completions", &[], body.as_bytes());
    for cut in [10, whole.len() / 2, whole.len() - 1, whole.len()] {
        for _ in 0..10 {
            let mut socket = server.connect();
            socket.write_all(&whole[..cut]).unwrap();
        }
    }
    assert_eq!(good(&server), expected);
    server.wait_for("tern_requests_active", 0.0, Duration::from_secs(2));
    // Two requests in one go are both answered.
    let get = "GET /health HTTP/1.1\r\nhost: localhost\r\n";
    let mut socket = server.connect();
    socket.write_all(format!("{get}\r\n{get}connection: close\r\n\r\n").as_bytes()).unwrap();
    let mut answers = String::new();
    socket.read_to_string(&mut answers).unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 2, "{answers}");
}
