//! `tern update-check` against a server on this machine, and that no other command asks anybody.

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use common::{PAGE, run, tern};

/// A server that gives every request the same answer; its address and what it was asked.
fn server(status: &str, body: &[u8]) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/latest", listener.local_addr().unwrap());
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    let answer = [head.as_bytes(), body].concat();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            log.lock().unwrap().extend(lines.take_while(|line| !line.is_empty()));
            let _ = stream.write_all(&answer);
        }
    });
    (url, asked)
}

fn ask(url: &str, more: &[&str]) -> common::Done {
    let args = [&["update-check", "--url", url][..], more].concat();
    // No proxy of this machine has a part in it.
    tern(&args).env("NO_PROXY", "*").env("HF_TOKEN", "secret").output().unwrap().into()
}

#[test]
fn a_newer_release_is_told_and_an_older_one_is_not() {
    let ours = env!("CARGO_PKG_VERSION");
    let page = concat!(env!("CARGO_PKG_REPOSITORY"), "/releases");
    let (newer, asked) =
        server("200 OK", br#"{"tag_name": "v99.0.1", "html_url": "https://elsewhere.example"}"#);
    assert_eq!(ask(&newer, &[]).ok(), format!("tern 99.0.1 is out, this is {ours}: {page}\n"));
    let told = ask(&newer, &["--json"]).json();
    let wanted = serde_json::json!({"version": ours, "newest": "99.0.1", "newer": true, "page": page});
    assert_eq!(told, wanted);
    // What the server learns: the version, and no token.
    let asked = asked.lock().unwrap().join("\n").to_lowercase();
    assert!(asked.contains(&format!("user-agent: tern/{ours}")), "{asked}");
    assert!(!asked.contains("secret") && !asked.contains("authorization"), "{asked}");
    for same_or_older in [ours, "0.0.1"] {
        let (url, _) = server("200 OK", format!("{{\"tag_name\": \"v{same_or_older}\"}}").as_bytes());
        assert_eq!(
            ask(&url, &[]).ok(),
            format!("this is tern {ours}; the newest release is {same_or_older}\n")
        );
        assert_eq!(ask(&url, &["--json"]).json()["newer"], false);
    }
}

#[test]
fn what_is_no_answer_is_one_line_that_names_the_address() {
    let large = vec![b' '; 2 << 20];
    for (status, body, wanted) in [
        ("404 Not Found", &b"{}"[..], "there is no release yet"),
        ("500 Internal Server Error", b"", "it answered 500"),
        ("302 Found", b"", "missing a location header"),
        ("200 OK", b"<html>", "expected JSON with a tag such as `v1.2.3` in `tag_name`"),
        ("200 OK", b"{\"tag_name\": 7}", "expected JSON with a tag"),
        ("200 OK", b"{\"tag_name\": \"v9.9.9\\u001b[2J\"}", "expected JSON with a tag"),
        ("200 OK", &large, "its answer is over 1 MiB"),
    ] {
        let (url, _) = server(status, body);
        let done = ask(&url, &[]);
        assert_eq!((done.code, done.stdout.as_str()), (Some(1), ""), "{status}: {}", done.stderr);
        let line = done.stderr.lines().next().unwrap();
        assert!(line.starts_with(&format!("error: {url}: ")) && line.contains(wanted), "{status}: {line}");
        assert!(done.stderr.lines().skip(1).all(|line| line.starts_with("hint: ")), "{}", done.stderr);
    }
    // A port that nobody listens on any more.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let done = ask(&format!("http://{gone}/latest"), &[]);
    assert!(done.code == Some(1) && done.stderr.contains("hint: check the connection"), "{}", done.stderr);
    let done = ask("releases.example", &[]);
    assert_eq!(done.stderr, "error: releases.example: expected an address that begins with https://\n");
    let done: common::Done = tern(&["update-check"]).env("HF_HUB_OFFLINE", "1").output().unwrap().into();
    assert!(done.code == Some(1) && done.stderr.contains("forbids the network"), "{}", done.stderr);
}

/// How every command is called here, in a folder of its own. A command that is not in this list fails the test.
const CALLS: [(&str, &[&str]); 19] = [
    ("run", &["run", "story", "Once upon a time", "-n", "4"]),
    ("chat", &["chat", "story"]),
    ("serve", &["serve", "story", "--port", "0"]),
    ("list", &["list", "--known"]),
    ("show", &["show", "bitnet-2b"]),
    ("rm", &["rm", "bitnet-2b", "--yes"]),
    ("inspect", &["inspect", PAGE]),
    ("tokenize", &["tokenize", "story", "some text"]),
    ("embed", &["embed", "bitnet-2b", "some text"]),
    ("convert", &["convert", PAGE, "out.gguf"]),
    ("merge", &["merge", PAGE, "adapter", "merged"]),
    ("train", &["train", "init", "train.toml"]),
    ("dummy", &["dummy", "--shape", "tiny", "dummy.gguf"]),
    ("bench", &["bench", PAGE, "-p", "8", "-n", "2", "-r", "1", "--probe", "1"]),
    ("eval", &["eval", "needle", PAGE, "--lengths", "64", "--repeat", "1"]),
    ("doctor", &["doctor"]),
    ("completions", &["completions", "bash"]),
    ("man", &["man", "man1"]),
    ("help", &["--version"]),
];

/// The commands that may ask the network, as they do when they are called like this.
const ASKING: [(&str, &[&str]); 2] = [
    ("pull", &["pull", "org/model"]),
    ("update-check", &["update-check", "--url", "http://releases.invalid/latest"]),
];

/// A proxy stands in the way of every request: it counts those that come, and lets none through.
#[test]
fn no_command_asks_the_network_unless_it_is_what_it_is_for() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = format!("http://{}", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            counted.fetch_add(1, Ordering::SeqCst);
            drop(stream);
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let start = |args: &[&str]| {
        let mut command = tern(args);
        command.current_dir(folder.path()).env_remove("NO_PROXY").env_remove("no_proxy");
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
            command.env(name, &proxy);
        }
        // What it prints is nobody's here, and a full pipe would hold it up.
        command.env("HF_ENDPOINT", "http://hub.invalid").stdout(Stdio::null()).spawn().unwrap()
    };
    let listed = run(&["--help"]).ok();
    let listed = listed.split("\nCommands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let calls: BTreeMap<&str, &[&str]> = CALLS.into_iter().chain(ASKING).collect();
    for line in listed.lines().filter(|line| !line.starts_with("   ")) {
        let name = line.split_whitespace().next().unwrap();
        assert!(calls.contains_key(name), "`tern {name}` is not tried here");
    }
    for (name, args) in calls {
        let before = count.load(Ordering::SeqCst);
        let mut child = start(args);
        if name == "serve" {
            // It has begun when it listens.
            let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
            assert!(lines.any(|line| line.contains("listening on ")), "it ended");
            child.kill().unwrap();
        }
        let mut said = String::new();
        if let Some(errors) = child.stderr.as_mut() {
            errors.read_to_string(&mut said).unwrap();
        }
        child.wait().unwrap();
        let asked = count.load(Ordering::SeqCst) > before;
        let may = ASKING.iter().any(|(asking, _)| *asking == name);
        assert_eq!(asked, may, "`tern {}`: {said}", args.join(" "));
    }
}
