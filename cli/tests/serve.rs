//! The server as a process: asked to end, killed, started again.
#![cfg(unix)]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A server, and where it listens.
struct Served {
    child: Child,
    address: String,
    /// What else it says on standard error.
    said: Option<JoinHandle<String>>,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Served {
    fn start(port: &str, folder: &std::path::Path) -> Self {
        let mut command = common::tern(&["serve", "story", "--port", port, "--log", "none"]);
        Self::by(command.current_dir(folder))
    }

    fn by(command: &mut Command) -> Self {
        let mut child = command.spawn().expect("tern starts");
        let mut line = String::new();
        let mut told = BufReader::new(child.stderr.take().expect("stderr is piped"));
        while !line.contains("http://") {
            line.clear();
            assert_ne!(told.read_line(&mut line).expect("a line"), 0, "it ended before it listened");
        }
        let address = line.rsplit("http://").next().expect("an address");
        let address = address.split(['"', '\n']).next().expect("its end").to_owned();
        // What else it says must not fill the pipe.
        let said = std::thread::spawn(move || {
            let mut rest = Vec::new();
            let _ = told.read_to_end(&mut rest);
            String::from_utf8_lossy(&rest).into_owned()
        });
        Self { child, address, said: Some(said) }.ready()
    }

    /// On a free port; nobody reads what it says.
    fn unheard(arguments: &[&str], err: Stdio) -> Self {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = free.local_addr().expect("an address").to_string();
        drop(free);
        let port = address.rsplit(':').next().expect("a port");
        let mut command = common::tern(&[&["serve", "story", "--port", port], arguments].concat());
        let child = command.stderr(err).spawn().expect("tern starts");
        let start = Instant::now();
        while TcpStream::connect(&address).is_err() {
            assert!(start.elapsed() < Duration::from_secs(20), "it does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { child, address, said: None }.ready()
    }

    fn ready(self) -> Self {
        let served = self;
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

    /// The same of a server that may be gone.
    fn try_ask(&self, first: &str, body: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(&self.address)?;
        let head = format!(
            "{first} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + body).as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
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
fn guesses_ahead_change_no_text_of_a_server() {
    let repeats = "The bird looked at the sea and the sea looked back. ".repeat(8);
    let bodies: Vec<String> = (0..6)
        .map(|seed| {
            let prompt = if seed % 2 == 0 { "Once upon a time" } else { &repeats };
            let temperature = if seed < 2 { 0.0 } else { 0.7 };
            serde_json::json!({
                "prompt": prompt, "max_tokens": 80, "ignore_eos": true, "temperature": temperature, "seed": seed,
            })
            .to_string()
        })
        .collect();
    let write = |flags: &[&str]| {
        let command = &[&["serve", common::PAGE, "--port", "0", "-t", "2"], flags].concat();
        let served = Served::by(&mut common::tern(command));
        let answer = |mut stream: TcpStream| {
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("an answer");
            let (_, body) = answer.split_once("\r\n\r\n").expect("a head");
            let reply: serde_json::Value =
                serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {answer}"));
            reply["choices"][0]["text"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
        };
        let open = |body: &String| served.open("POST /v1/completions", body);
        // One after the other, then all at once.
        let alone: Vec<String> = bodies.iter().map(|body| answer(open(body))).collect();
        let streams: Vec<TcpStream> = bodies.iter().map(open).collect();
        let together: Vec<String> = streams.into_iter().map(answer).collect();
        assert_eq!(alone, together, "{flags:?}");
        alone
    };
    let want = write(&["--draft-tokens", "0"]);
    assert!(want.iter().all(|text| text.len() > 80), "{want:?}");
    for flags in [&[][..], &["--draft", common::PAGE], &["--draft", common::PAGE, "--draft-tokens", "3"]] {
        assert_eq!(write(flags), want, "{flags:?}");
    }
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

/// Many requests on one connection.
fn knock(served: &Served, times: usize) {
    let mut stream = TcpStream::connect(&served.address).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out");
    for _ in 0..times {
        let path = "x".repeat(150);
        let head = format!("GET /{path} HTTP/1.1\r\nHost: {}\r\n\r\n", served.address);
        stream.write_all(head.as_bytes()).expect("it reads");
        let mut answer = Vec::new();
        let mut piece = [0; 4096];
        while !answer.ends_with(b"}}") {
            let count = stream.read(&mut piece).expect("it answers");
            assert!(count > 0, "it answers");
            answer.extend_from_slice(&piece[..count]);
        }
    }
}

fn metric(served: &Served, name: &str) -> u64 {
    let page = served.ask("GET /metrics", "");
    let line = page.lines().find(|line| line.starts_with(&format!("{name} ")));
    line.unwrap_or_else(|| panic!("{name} in\n{page}"))
        .rsplit(' ')
        .next()
        .expect("a value")
        .parse()
        .expect("a number")
}

#[test]
fn a_log_that_nobody_reads_or_that_has_no_room_holds_up_nobody() {
    let full = || std::fs::File::options().write(true).open("/dev/full");
    let mut sinks = vec![Stdio::piped()];
    sinks.extend(full().map(Stdio::from));
    for err in sinks {
        let mut served = Served::unheard(&["--log", "json"], err);
        knock(&served, 1500);
        assert!(
            served.ask("POST /v1/completions", &LONG.replace("true}", "false}")).starts_with("HTTP/1.1 200")
        );
        assert!(metric(&served, "tern_log_lines_dropped_total") > 0);
        served.signal("TERM");
        assert_eq!(served.child.wait().expect("it ends").code(), Some(0));
    }
}

#[test]
fn a_json_log_is_json_only_and_tells_each_request_at_its_end() {
    let command = &mut common::tern(&["serve", "story", "--port", "0", "--log", "json", "--host", "0.0.0.0"]);
    let mut child = command.spawn().expect("tern starts");
    let mut told = BufReader::new(child.stderr.take().expect("stderr is piped"));
    let mut entry = || {
        let mut line = String::new();
        told.read_line(&mut line).expect("a line");
        serde_json::from_str::<serde_json::Value>(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    };
    let first = [entry(), entry(), entry()];
    let of = |event: &str| {
        first.iter().find(|entry| entry["event"] == event).unwrap_or_else(|| panic!("{event}: {first:?}"))
    };
    assert!(of("warning")["message"].as_str().expect("a text").contains("nobody needs a key"));
    let address = of("listening")["url"].as_str().expect("an address").replace("http://0.0.0.0", "127.0.0.1");
    of("ready");
    let mut served = Served { child, address, said: None };
    assert!(served.ask("POST /v1/completions", LONG).starts_with("HTTP/1.1 200"));
    let line = entry();
    assert_eq!(
        (&line["path"], &line["status"], &line["end"]),
        (&"/v1/completions".into(), &200.into(), &"length".into())
    );
    assert_eq!(
        (&line["completion_tokens"], &line["model"], &line["client"]),
        (&200.into(), &"story".into(), &"127.0.0.1".into())
    );
    served.signal("TERM");
    assert_eq!(served.child.wait().expect("it ends").code(), Some(0));
}

#[test]
fn what_keeps_it_from_starting_is_said_with_a_way_out() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let done = common::run(&["serve", "story", "--port", &port]);
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    assert!(done.stderr.contains(&format!("cannot listen on 127.0.0.1:{port}")), "{}", done.stderr);
    assert!(done.stderr.contains("hint: another program listens on port"), "{}", done.stderr);

    let output = common::tern(&["serve", "story"]).env("TERN_PROT", "1").output().expect("tern starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.code() == Some(2) && said.contains("`TERN_PROT`") && said.contains("`TERN_PORT`"),
        "{said}"
    );

    let done = common::run(&["serve", "story", "--api-key-file", "/dev/zero"]);
    assert!(done.code == Some(1) && done.stderr.contains("at most 1 MiB"), "{}", done.stderr);
}

/// A server with a copy of a small model, and 16 streams that have begun.
fn streaming(folder: &std::path::Path, arguments: &[&str]) -> (Served, std::path::PathBuf, Vec<TcpStream>) {
    let path = folder.join("copy.gguf");
    std::fs::copy(common::PAGE, &path).expect("a copy");
    let name = path.to_str().expect("UTF-8");
    let served =
        Served::by(&mut common::tern(&[&["serve", name, "--port", "0", "-t", "1"], arguments].concat()));
    let mut streams: Vec<_> = (0..16).map(|_| served.open("POST /v1/completions", PAGES)).collect();
    for stream in &mut streams {
        assert!(stream.read(&mut [0; 16]).expect("it begins") > 0);
    }
    (served, path, streams)
}

const PAGES: &str = r#"{"prompt": "Once upon a time", "max_tokens": 400, "ignore_eos": true, "temperature": 0, "stream": true}"#;

/// The text of a stream's events.
fn text(stream: &mut TcpStream) -> String {
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    let rest = String::from_utf8_lossy(&rest).into_owned();
    let events = rest
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line.strip_prefix("data: ")?).ok());
    events.filter_map(|event| Some(event["choices"][0]["text"].as_str()?.to_owned())).collect()
}

#[test]
fn a_model_that_is_changed_while_it_is_served_ends_the_server_with_a_sentence_and_no_wrong_text() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_served, _, mut streams) = streaming(folder.path(), &[]);
    let right: Vec<String> = streams.iter_mut().map(text).collect();
    assert!(right[0].len() > 400 && right.iter().all(|text| *text == right[0]), "{right:?}");
    drop(_served);
    let overwrite = |path: &std::path::Path| {
        let length = std::fs::metadata(path).expect("it is there").len();
        let mut file = std::fs::File::options().write(true).open(path).expect("it can be written");
        file.write_all(&vec![0x5a; length as usize]).expect("written");
    };
    let truncate = |path: &std::path::Path| {
        let file = std::fs::File::options().write(true).open(path).expect("it can be written");
        file.set_len(4096).expect("cut");
    };
    type Change<'a> = (&'a str, &'a dyn Fn(&std::path::Path));
    let changes: [Change; 2] = [("overwritten", &overwrite), ("cut short", &truncate)];
    for (name, change) in changes {
        for log in ["text", "json"] {
            let (mut served, path, mut streams) = streaming(folder.path(), &["--log", log]);
            change(&path);
            for stream in &mut streams {
                let text = text(stream);
                assert!(right[0].starts_with(&text), "{name}: {text}");
            }
            // The next step sees it, if all was said already.
            if let Ok(None) = served.child.try_wait() {
                let _ = served.try_ask("POST /v1/completions", PAGES);
            }
            assert_eq!(served.child.wait().expect("it ends").code(), Some(1), "{name}");
            let said = served.said.take().expect("what it says").join().expect("it was read");
            assert!(said.contains("copy.gguf: the file was changed while it was in use"), "{name}: {said}");
            let json = |line: &str| serde_json::from_str::<serde_json::Value>(line).is_ok();
            assert!(log == "text" || said.lines().all(json), "{name}: {said}");
        }
        // A copy in memory does not mind.
        let (served, path, mut streams) = streaming(folder.path(), &["--no-mmap"]);
        change(&path);
        for stream in &mut streams {
            assert_eq!(text(stream), right[0], "{name}");
        }
        drop(served);
    }
    // Neither does a map of a file that another one was renamed over.
    let (served, path, mut streams) = streaming(folder.path(), &[]);
    std::fs::write(folder.path().join("new"), "something else").expect("written");
    std::fs::rename(folder.path().join("new"), &path).expect("renamed");
    for stream in &mut streams {
        assert_eq!(text(stream), right[0], "renamed");
    }
    drop(served);
}
