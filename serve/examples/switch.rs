//! Measures what a server with several models costs those that are answered: the largest gap between two pieces of an
//! answer while another model loads, and the memory that the process holds over many switches.
//!
//! `cargo run --release -p tern-serve --example switch -- WRITER.gguf LOADED.gguf [SWITCHES]`

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tern_serve::{Options, Served, Serving, serve_until_told};

/// What each model's keys and values may take.
const KV_MEMORY: u64 = 64 << 20;

fn served(name: &str, path: PathBuf) -> Served {
    let file_bytes = std::fs::metadata(&path).expect("the model's file").len();
    let file = path.display().to_string();
    let load = Arc::new(move || tern::Model::open(&path, &tern::Options::default()));
    Served { file, file_bytes, ..Served::new(name, load) }
}

fn send(address: SocketAddr, path: &str, body: &str) -> TcpStream {
    let mut socket = TcpStream::connect(address).expect("the server");
    let head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
    write!(socket, "{head}content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
        .expect("sent");
    socket
}

fn ask(address: SocketAddr, path: &str, body: &str) {
    let mut answer = String::new();
    send(address, path, body).read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// The times between the pieces of answers that are written until it is told to end.
fn write_on(address: SocketAddr, ended: &AtomicBool) -> Vec<Duration> {
    let mut gaps = Vec::new();
    while !ended.load(Ordering::SeqCst) {
        let body =
            r#"{"model": "writer", "prompt": "Once", "max_tokens": 200, "ignore_eos": true, "stream": true}"#;
        let mut last = None;
        for line in BufReader::new(send(address, "/v1/completions", body)).lines().map_while(Result::ok) {
            if line.starts_with("data: {") {
                let now = Instant::now();
                gaps.extend(last.replace(now).map(|last| now - last));
            }
        }
    }
    gaps.sort();
    gaps
}

/// What the process holds in MiB, mapped files included; what it held at most if that is asked for.
fn resident(most: bool) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let name = if most { "VmHWM:" } else { "VmRSS:" };
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) / 1024
}

/// Starts a server and waits until it listens.
fn start(models: Vec<Served>, options: Options) -> SocketAddr {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let address = free.expect("a free port");
    std::thread::spawn(move || {
        serve_until_told(address, Serving::Several(models), options).expect("it serves")
    });
    while TcpStream::connect(address).is_err() {
        std::thread::sleep(Duration::from_millis(10));
    }
    address
}

fn main() {
    let mut words = std::env::args().skip(1);
    let mut path =
        || PathBuf::from(words.next().expect("two models: one that writes and one that is loaded"));
    let (writer, loaded) = (path(), path());
    let switches: usize = words.next().map_or(200, |count| count.parse().expect("a number of switches"));
    let models = vec![served("writer", writer), served("loaded", loaded)];
    let options = Options { kv_memory: Some(KV_MEMORY), ..Options::default() };
    let free = start(models.clone(), options.clone());
    let tell = |what: &str, gaps: &[Duration]| {
        let at = |share: usize| gaps[(gaps.len() - 1) * share / 100].as_secs_f64() * 1e3;
        println!("{what}: {} gaps, half below {:.1} ms, the largest {:.1} ms", gaps.len(), at(50), at(100));
    };
    let load = r#"{"model": "loaded"}"#;
    let unload = r#"{"model": "loaded", "keep_alive": 0}"#;
    let while_it = |work: &dyn Fn()| {
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let gaps = scope.spawn(|| write_on(free, &ended));
            work();
            ended.store(true, Ordering::SeqCst);
            gaps.join().expect("the writer")
        })
    };
    ask(free, "/api/generate", r#"{"model": "writer"}"#);
    tell("alone", &while_it(&|| std::thread::sleep(Duration::from_secs(5))));
    let loads = || {
        for _ in 0..20 {
            ask(free, "/api/generate", load);
            ask(free, "/api/generate", unload);
        }
    };
    tell("beside 20 loads", &while_it(&loads));
    ask(free, "/api/generate", r#"{"model": "writer", "keep_alive": 0}"#);
    // In another server, whose memory holds either of them but not both: each that is loaded has the other unloaded.
    let bytes: Vec<u64> = models.iter().map(|model| model.file_bytes + KV_MEMORY).collect();
    let budget = bytes[0].max(bytes[1]) + bytes[0].min(bytes[1]) / 2;
    let small = start(models, Options { model_memory: Some(budget), ..options });
    println!("budget {} MiB, memory before: {} MiB", budget >> 20, resident(false));
    // What it held at most is counted anew.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    for switch in 1..=switches {
        for name in ["writer", "loaded"] {
            let body = format!(r#"{{"model": "{name}", "prompt": [1], "max_tokens": 1}}"#);
            ask(small, "/v1/completions", &body);
        }
        if switch % 50 == 0 {
            println!(
                "after {switch} switches to and fro: {} MiB, at most {} MiB",
                resident(false),
                resident(true)
            );
        }
    }
}
