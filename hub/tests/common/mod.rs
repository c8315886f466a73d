//! A Hub on this machine, with faults. It speaks what `tern-hub` needs of the protocol: the list of files of a revision,
//! and files in ranges, which it redirects to another host as the real one does.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use sha1::Digest;

/// What goes wrong with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "not every test of those that share this file meets every fault")]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// One byte in the middle is another.
    WrongByte,
    /// Every answer ends after so many bytes, whatever its length said.
    ShortBody(usize),
    /// Ranges are ignored: 200 and the whole file.
    NoRanges,
    /// Both of them.
    ShortWhole(usize),
    /// The file's tag is not that of the list.
    ChangedTag,
    /// Headers come, and then nothing.
    Stalls,
    /// 503.
    Busy,
    /// Another range than the one that was asked for.
    WrongRange,
}

/// A repository's answer to everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "as above")]
pub(crate) enum Access {
    Open,
    /// 401 with `x-error-code: GatedRepo` without a token, 403 with one.
    Gated,
    /// 401 without the token `secret`.
    Private,
}

pub(crate) struct Repo {
    pub(crate) files: HashMap<String, Vec<u8>>,
    pub(crate) fault: Fault,
    pub(crate) access: Access,
    /// Bytes that a second of an answer has; 0 is no bound.
    pub(crate) speed: usize,
    /// Added to the list of files as it is.
    pub(crate) extra: Vec<String>,
}

pub(crate) struct State {
    pub(crate) repos: HashMap<String, Repo>,
    /// Every request: host, method line, whether a token came with it.
    pub(crate) log: Vec<(String, String, bool)>,
}

#[derive(Clone)]
pub(crate) struct Fake {
    pub(crate) endpoint: String,
    pub(crate) state: Arc<Mutex<State>>,
    /// Bytes of files that were sent.
    pub(crate) sent: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

impl Fake {
    pub(crate) fn start() -> Self {
        let hub = TcpListener::bind("127.0.0.1:0").unwrap();
        let storage = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = storage.local_addr().unwrap().port();
        let fake = Self {
            endpoint: format!("http://127.0.0.1:{}", hub.local_addr().unwrap().port()),
            state: Arc::new(Mutex::new(State { repos: HashMap::new(), log: Vec::new() })),
            sent: Arc::default(),
            stop: Arc::default(),
        };
        for (listener, is_hub) in [(hub, true), (storage, false)] {
            let fake = fake.clone();
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let fake = fake.clone();
                    // `localhost` is another host than `127.0.0.1`.
                    thread::spawn(move || fake.answer(stream, is_hub, &format!("http://localhost:{port}")));
                }
            });
        }
        fake
    }

    pub(crate) fn add(&self, repo: &str, files: &[(&str, Vec<u8>)]) {
        let files = files.iter().map(|(path, bytes)| ((*path).to_owned(), bytes.clone())).collect();
        let repo_state =
            Repo { files, fault: Fault::None, access: Access::Open, speed: 0, extra: Vec::new() };
        self.state.lock().unwrap().repos.insert(repo.to_owned(), repo_state);
    }

    #[allow(dead_code, reason = "as above")]
    pub(crate) fn with(&self, repo: &str, change: impl FnOnce(&mut Repo)) {
        change(self.state.lock().unwrap().repos.get_mut(repo).unwrap());
    }

    #[allow(dead_code, reason = "as above")]
    pub(crate) fn sent(&self) -> u64 {
        self.sent.swap(0, Ordering::Relaxed)
    }

    /// Lets answers that stall end.
    #[allow(dead_code, reason = "as above")]
    pub(crate) fn release(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn answer(&self, stream: TcpStream, is_hub: bool, storage: &str) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let (mut line, mut range, mut token) = (String::new(), None, None);
        reader.read_line(&mut line).unwrap_or(0);
        for header in reader.by_ref().lines().map_while(Result::ok).take_while(|line| !line.is_empty()) {
            let (name, value) = header.split_once(':').unwrap_or_default();
            match name.to_lowercase().as_str() {
                "range" => {
                    let (from, to) = value.trim().strip_prefix("bytes=").unwrap().split_once('-').unwrap();
                    range = Some((from.parse::<usize>().unwrap(), to.parse::<usize>().unwrap() + 1));
                }
                "authorization" => token = Some(value.trim().to_owned()),
                _ => {}
            }
        }
        let host = if is_hub { "hub" } else { "storage" };
        let path = line.split(' ').nth(1).unwrap_or("/").to_owned();
        let path = path.split('?').next().unwrap_or_default().to_owned();
        self.state.lock().unwrap().log.push((host.to_owned(), path.clone(), token.is_some()));
        let _ = self.respond(stream, is_hub, storage, &path, range, token.as_deref());
    }

    fn respond(
        &self,
        mut stream: TcpStream,
        is_hub: bool,
        storage: &str,
        path: &str,
        range: Option<(usize, usize)>,
        token: Option<&str>,
    ) -> std::io::Result<()> {
        let mut plain = |status: &str, headers: &str, body: &str| {
            write!(
                stream,
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}connection: close\r\n\r\n{body}",
                body.len()
            )
        };
        let (repo, rest) = if let Some(rest) = path.strip_prefix("/api/models/") {
            match rest.split_once("/revision/") {
                Some((repo, _)) => (repo, None),
                None => return plain("404 Not Found", "", ""),
            }
        } else {
            match path.trim_start_matches('/').split_once("/resolve/") {
                Some((repo, rest)) => (repo, rest.split_once('/').map(|(_, path)| path)),
                None => return plain("404 Not Found", "", ""),
            }
        };
        let state = self.state.lock().unwrap();
        let Some(found) = state.repos.get(repo) else {
            return plain("401 Unauthorized", "x-error-code: RepoNotFound\r\n", "");
        };
        match (found.access, token) {
            (Access::Gated, None) if is_hub => {
                return plain("401 Unauthorized", "x-error-code: GatedRepo\r\n", "");
            }
            (Access::Gated, Some(_)) if is_hub => return plain("403 Forbidden", "", ""),
            (Access::Private, token) if is_hub && token != Some("Bearer secret") => {
                return plain("401 Unauthorized", "", "");
            }
            _ => {}
        }
        let Some(file) = rest else {
            let listed = found.files.iter().map(|(path, bytes)| listed(path, bytes));
            let listed: Vec<String> = listed.chain(found.extra.iter().cloned()).collect();
            let body = format!(
                "{{\"sha\": \"{COMMIT}\", \"cardData\": {{\"license\": \"mit\"}}, \"siblings\": [{}]}}",
                listed.join(", ")
            );
            return plain("200 OK", "", &body);
        };
        let Some(bytes) = found.files.get(file) else { return plain("404 Not Found", "", "") };
        let (fault, speed) = (found.fault, found.speed);
        let tag = if fault == Fault::ChangedTag { "f".repeat(64) } else { sha256(bytes) };
        let mut bytes = bytes.clone();
        drop(state);
        if is_hub {
            // The Hub's own client asks by HEAD for these, and does not follow to another host then.
            let headers = format!(
                "location: {storage}{path}\r\nx-repo-commit: {COMMIT}\r\nx-linked-size: {}\r\nx-linked-etag: \"{}\"\r\n",
                bytes.len(),
                sha256(&bytes)
            );
            return plain("302 Found", &headers, "");
        }
        if fault == Fault::Busy {
            return plain("503 Service Unavailable", "", "");
        }
        if fault == Fault::WrongByte {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }
        let range = range.filter(|_| !matches!(fault, Fault::NoRanges | Fault::ShortWhole(_)));
        let (from, to) = range.unwrap_or((0, bytes.len()));
        let (status, shown) = match range {
            Some(_) if fault == Fault::WrongRange => ("206 Partial Content", (from + 1, to)),
            Some(_) => ("206 Partial Content", (from, to)),
            None => ("200 OK", (0, bytes.len())),
        };
        write!(
            stream,
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\ncontent-range: bytes {}-{}/{}\r\netag: \"{tag}\"\r\nconnection: close\r\n\r\n",
            to - from,
            shown.0,
            shown.1 - 1,
            bytes.len()
        )?;
        while fault == Fault::Stalls && !self.stop.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(10));
        }
        let end = match fault {
            Fault::ShortBody(most) | Fault::ShortWhole(most) => to.min(from + most),
            _ => to,
        };
        for block in bytes[from..end].chunks(64 << 10) {
            stream.write_all(block)?;
            self.sent.fetch_add(block.len() as u64, Ordering::Relaxed);
            if speed > 0 {
                thread::sleep(Duration::from_secs_f64(block.len() as f64 / speed as f64));
            }
        }
        Ok(())
    }
}

/// A file as the Hub lists it: large ones by SHA-256, small ones by git's hash.
fn listed(path: &str, bytes: &[u8]) -> String {
    let size = bytes.len();
    let git = hex(&sha1::Sha1::new().chain_update(format!("blob {size}\0")).chain_update(bytes).finalize());
    let lfs = match path.ends_with(".gguf") || path.ends_with(".safetensors") {
        true => format!(
            ", \"lfs\": {{\"sha256\": \"{}\", \"size\": {size}, \"pointerSize\": 130}}",
            sha256(bytes)
        ),
        false => String::new(),
    };
    format!("{{\"rfilename\": \"{path}\", \"size\": {size}, \"blobId\": \"{git}\"{lfs}}}")
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&sha2::Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes that do not repeat (xorshift).
#[allow(dead_code, reason = "as above")]
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
