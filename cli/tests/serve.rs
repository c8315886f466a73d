//! The server as a process: asked to end, killed, started again.
#![cfg(unix)]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Child;
use std::time::{Duration, Instant};

/// A server, and where it listens.
struct Served {
    child: Child,
    address: String,
}

impl Served {
    fn start(port: &str, folder: &std::path::Path) -> Self {
        let mut command = common::tern(&["serve", "story", "--port", port, "--log", "none"]);
        let mut child = command.current_dir(folder).spawn().expect("tern starts");
        let mut line = String::new();
        let mut told = BufReader::new(child.stderr.take().expect("stderr is piped"));
        while !line.contains("listening on http://") {
            line.clear();
            assert_ne!(told.read_line(&mut line).expect("a line"), 0, "it ended before it listened");
        }
        let address = line.trim().rsplit("http://").next().expect("an address").to_owned();
        // What else it says must not fill the pipe.
        std::thread::spawn(move || std::io::copy(&mut told, &mut std::io::sink()));
        let served = Self { child, address };
        let start = Instant::now();
        while !served.ask("GET /health", "").starts_with("HTTP/1.1 200") {
            assert!(start.elapsed() < Duration::from_secs(20), "the model is not loaded");
            std::thread::sleep(Duration::from_millis(20));
        }
        served
    }

    fn open(&self, first: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a time-out");
        let head = format!(
            "{first} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        );
        stream.write_all(head.as_bytes()).expect("it reads");
        stream
    }

    fn ask(&self, first: &str, body: &str) -> String {
        let mut answer = String::new();
        self.open(first, body).read_to_string(&mut answer).expect("an answer");
        answer
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = std::process::Command::new("kill").args(["-s", name, &id]).status().expect("kill runs");
        assert!(sent.success(), "kill -s {name}");
    }
}

const LONG: &str = r#"{"prompt": "Once upon a time", "max_tokens": 200, "ignore_eos": true, "stream": true}"#;

#[test]
fn sigterm_under_load_ends_every_stream_properly() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut served = Served::start("0", folder.path());
    let mut streams: Vec<_> = (0..8).map(|_| served.open("POST /v1/completions", LONG)).collect();
    let mut began = [0; 256];
    for stream in &mut streams {
        assert!(stream.read(&mut began).expect("it begins") > 0);
    }
    served.signal("TERM");
    for mut stream in streams {
        let mut rest = String::new();
        stream.read_to_string(&mut rest).expect("the stream ends in order");
        assert!(rest.contains("\"finish_reason\":\"length\""), "{rest}");
        assert!(rest.contains("data: [DONE]"), "{rest}");
    }
    assert_eq!(served.child.wait().expect("it ends").code(), Some(0));
}

#[test]
fn a_killed_server_leaves_nothing_to_clean_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut served = Served::start("0", folder.path());
    let mut stream = served.open("POST /v1/completions", LONG);
    assert!(stream.read(&mut [0; 256]).expect("it begins") > 0);
    served.signal("KILL");
    served.child.wait().expect("it is gone");
    // The same port again, at once.
    let port = served.address.rsplit(':').next().expect("a port").to_owned();
    let mut again = Served::start(&port, folder.path());
    assert!(again.ask("POST /v1/completions", &LONG.replace("true}", "false}")).starts_with("HTTP/1.1 200"));
    again.signal("TERM");
    assert_eq!(again.child.wait().expect("it ends").code(), Some(0));
    assert_eq!(std::fs::read_dir(folder.path()).expect("readable").count(), 0, "files are left");
}
