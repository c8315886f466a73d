//! A server in this process, and a client that is small enough to send anything at all.
#![allow(dead_code, reason = "each test file uses its part of this")]

pub(crate) mod bombs;
pub(crate) mod crowd;
pub(crate) mod fuzz;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use tern::Model;
use tern_serve::{Log, Options, Served, Serving};
use tokio::sync::oneshot;

/// A running server; it ends with this value.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), tern_serve::Error>>>,
}

/// Greedy by itself, so that texts can be compared.
pub(crate) fn options() -> Options {
    Options {
        sampling: tern::Sampling::greedy(),
        grace: Duration::from_secs(5),
        request_memory: 1 << 30,
        ..Options::default()
    }
}

/// With this program as the process that tries grammars; its `main` must know `try-grammars`.
pub(crate) fn with_trials(options: Options) -> Options {
    let this = || {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.arg("try-grammars");
        command
    };
    Options { try_grammars: Some(Arc::new(this)), ..options }
}

/// A small model with known answers (testdata/models/page).
pub(crate) const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/models/page/page.gguf");

pub(crate) fn page() -> tern::Result<Model> {
    Model::open(PAGE.as_ref(), &tern::Options { threads: Some(1), ..tern::Options::default() })
}

impl Server {
    pub(crate) fn start(options: Options) -> Self {
        Self::with(options, page)
    }

    /// With another model; returns when it is ready.
    pub(crate) fn with(
        options: Options,
        load: impl FnOnce() -> tern::Result<Model> + Send + 'static,
    ) -> Self {
        Self::loading(options, load).ready()
    }

    /// Waits for its model.
    pub(crate) fn ready(self) -> Self {
        let server = self;
        let start = Instant::now();
        while server.get("/health").status != 200 {
            assert!(start.elapsed() < Duration::from_secs(60), "the model is not there after a minute");
            std::thread::sleep(Duration::from_millis(10));
        }
        server
    }

    /// With several models, none of which is loaded.
    pub(crate) fn models(options: Options, models: Vec<Served>) -> Self {
        Self::serving(options, Serving::Several(models))
    }

    /// With one, without waiting for it.
    pub(crate) fn loading(
        options: Options,
        load: impl FnOnce() -> tern::Result<Model> + Send + 'static,
    ) -> Self {
        let load = Mutex::new(Some(load));
        let load = move || load.lock().unwrap().take().expect("it is loaded once")();
        Self::serving(options, Serving::One(Box::new(Served::new("page", Arc::new(load)))))
    }

    pub(crate) fn serving(options: Options, models: Serving) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, told) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            let served = runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let told = async {
                    let _ = told.await;
                };
                tern_serve::run(listener, models, options, told).await
            });
            runtime.shutdown_background();
            served
        });
        Self { address, stop: Some(stop), thread: Some(thread) }
    }

    /// Tells it to end.
    pub(crate) fn stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }

    /// Waits until it has ended.
    pub(crate) fn wait(mut self) -> Result<(), tern_serve::Error> {
        self.stop();
        self.thread.take().unwrap().join().unwrap()
    }

    /// Waits until it has ended without having been told to.
    pub(crate) fn wait_by_itself(mut self) -> Result<(), tern_serve::Error> {
        self.thread.take().unwrap().join().unwrap()
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(self.address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        socket.set_nodelay(true).unwrap();
        socket
    }

    /// Sends these bytes and reads what comes until the server closes.
    pub(crate) fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        let mut socket = self.connect();
        // It may close before it has read all.
        let _ = socket.write_all(bytes);
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        answer
    }

    pub(crate) fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        Reply::parse(&self.raw(&request(method, path, headers, body)))
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        self.request("GET", path, &[], b"")
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Reply {
        self.request("POST", path, &[], body.to_string().as_bytes())
    }

    /// The text of a chat that must succeed.
    pub(crate) fn chat(&self, body: &Value) -> String {
        let reply = self.post("/v1/chat/completions", body);
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()["choices"][0]["message"]["content"].as_str().unwrap_or_default().to_owned()
    }

    /// A number of `/metrics`.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let page = self.get("/metrics").text();
        let line = page.lines().find(|line| line.split(' ').next() == Some(name));
        line.unwrap_or_else(|| panic!("{name} in\n{page}")).rsplit(' ').next().unwrap().parse().unwrap()
    }

    /// Waits for a number of `/metrics` to become so.
    pub(crate) fn wait_for(&self, name: &str, wanted: f64, time: Duration) {
        let start = Instant::now();
        loop {
            let found = self.metric(name);
            if found == wanted {
                return;
            }
            assert!(start.elapsed() < time, "{name} is {found}, not {wanted}, after {time:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Begins a stream; its answer is read by the caller.
    pub(crate) fn stream(&self, path: &str, body: &Value) -> Stream {
        let mut socket = self.connect();
        socket.write_all(&request("POST", path, &[], body.to_string().as_bytes())).unwrap();
        Stream { socket, seen: Vec::new() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The bytes of a request.
pub(crate) fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        head.push_str(&format!("content-type: application/json\r\ncontent-length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    [head.as_bytes(), body].concat()
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no answer but {:?}", String::from_utf8_lossy(bytes)));
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut body = bytes[end + 4..].to_vec();
        if head.to_lowercase().contains("transfer-encoding: chunked") {
            body = unchunked(&body);
        }
        Self { status, head, body }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The data of a stream's events; the last must be `[DONE]`.
    pub(crate) fn events(&self) -> Vec<Value> {
        let text = self.text();
        let mut data: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        assert_eq!(data.pop(), Some("[DONE]"), "{text}");
        data.into_iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = body.windows(2).position(|two| two == b"\r\n") {
        let Ok(len) = usize::from_str_radix(std::str::from_utf8(&body[..end]).unwrap_or("x"), 16) else {
            break;
        };
        let from = end + 2;
        whole.extend_from_slice(&body[from..(from + len).min(body.len())]);
        body = body.get(from + len + 2..).unwrap_or_default();
    }
    whole
}

/// A stream that is being read.
pub(crate) struct Stream {
    pub(crate) socket: TcpStream,
    seen: Vec<u8>,
}

impl Stream {
    /// Reads until this text has been seen.
    pub(crate) fn until(&mut self, text: &str) {
        let mut buffer = [0; 4096];
        while !String::from_utf8_lossy(&self.seen).contains(text) {
            let count = self.socket.read(&mut buffer).unwrap();
            assert!(count > 0, "it ended without `{text}`: {}", String::from_utf8_lossy(&self.seen));
            self.seen.extend_from_slice(&buffer[..count]);
        }
    }

    /// Reads to the end.
    pub(crate) fn rest(mut self) -> Reply {
        let _ = self.socket.read_to_end(&mut self.seen);
        Reply::parse(&self.seen)
    }
}

/// A log of a server, and where its lines go.
pub(crate) fn log() -> (Log, Arc<std::sync::Mutex<Vec<Value>>>) {
    let lines = Arc::new(std::sync::Mutex::new(Vec::new()));
    let sink = lines.clone();
    let log = Log::new(move |line| {
        sink.lock().unwrap().push(line.clone());
        Ok(())
    });
    (log, lines)
}
