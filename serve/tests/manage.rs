//! What clients change about a server's models, where its owner allows it: pull with its progress, copy, delete. The
//! library is one of this file's, which waits and fails as it is told.

mod common;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{PAGE, Reply, Server, options, page};
use serde_json::{Value, json};
use tern_serve::{Arriving, Library, Named, Options, Served, Wrong};

const BYTES: u64 = 1000;

/// Models by the name of `org/...`, of which `org/missing` is none; all of one repository are kept together.
#[derive(Default)]
struct Shelf {
    /// Downloads wait for this.
    go: AtomicBool,
    pulls: AtomicUsize,
    ended: AtomicUsize,
    removed: Mutex<Vec<String>>,
    /// Nothing can be removed.
    stuck: AtomicBool,
}

fn model(name: &str, kept_in: Option<&str>) -> Served {
    let kept_in = kept_in.map(str::to_owned);
    let file_bytes = std::fs::metadata(PAGE).unwrap().len();
    Served { file: PAGE.to_owned(), file_bytes, kept_in, ..Served::new(name, Arc::new(page)) }
}

impl Library for Shelf {
    fn find(&self, asked: &str) -> Result<Named, Wrong> {
        let name = asked.strip_suffix(":latest").unwrap_or(asked);
        if !name.starts_with("org/") || name.contains("..") {
            return Err(Wrong { status: 400, message: format!("`{name:.20}`: no name of a model") });
        }
        let kept_in = name.split(':').next().unwrap_or_default();
        Ok(Named { name: name.to_owned(), kept_in: kept_in.to_owned() })
    }

    fn pull(&self, named: &Named, progress: &mut dyn FnMut(Arriving) -> bool) -> Result<Served, Wrong> {
        self.pulls.fetch_add(1, Ordering::SeqCst);
        if named.name == "org/missing" {
            return Err(Wrong { status: 404, message: "org/missing: not found on the Hub".to_owned() });
        }
        let digest = "sha256:0123456789abcdef".to_owned();
        let mut at =
            |done: u64| progress(Arriving { digest: digest.clone(), total: BYTES, done, waits: false });
        at(100);
        while !self.go.load(Ordering::SeqCst) {
            if !at(100) {
                self.ended.fetch_add(1, Ordering::SeqCst);
                return Err(Wrong { status: 503, message: "the download was ended".to_owned() });
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        at(BYTES);
        Ok(model(&named.name, Some(&named.kept_in)))
    }

    fn remove(&self, kept_in: &str) -> Result<u64, Wrong> {
        if self.stuck.load(Ordering::SeqCst) {
            return Err(Wrong { status: 500, message: "the models' folder: read-only".to_owned() });
        }
        self.removed.lock().unwrap().push(kept_in.to_owned());
        Ok(BYTES)
    }
}

fn managed() -> (Server, Arc<Shelf>) {
    let shelf = Arc::new(Shelf::default());
    let library: Arc<dyn Library> = shelf.clone();
    let models =
        vec![model("own", None), model("org/old:a", Some("org/old")), model("org/old:b", Some("org/old"))];
    (Server::models(Options { library: Some(library), ..options() }, models), shelf)
}

fn delete(server: &Server, name: &str) -> Reply {
    server.request("DELETE", "/api/delete", &[], json!({"model": name}).to_string().as_bytes())
}

fn names(server: &Server) -> Vec<String> {
    let list = server.get("/api/tags").json();
    let names = list["models"].as_array().unwrap().iter();
    names.map(|model| model["name"].as_str().unwrap().to_owned()).collect()
}

fn answers(server: &Server, model: &str) -> u16 {
    server.post("/v1/completions", &json!({"model": model, "prompt": "Once", "max_tokens": 2})).status
}

fn until(what: impl Fn() -> bool) {
    let start = Instant::now();
    while !what() {
        assert!(start.elapsed() < Duration::from_secs(20), "it takes too long");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_download_tells_its_progress_and_its_model_is_served_at_once() {
    let (server, shelf) = managed();
    let mut stream = server.stream("/api/pull", &json!({"model": "org/new:latest"}));
    stream.until("\"completed\":100");
    // Somebody else who wants the same waits for the same download; answers go on meanwhile.
    let mut other = server.stream("/api/pull", &json!({"name": "org/new"}));
    other.until("\"completed\":100");
    assert_eq!(answers(&server, "own"), 200);
    shelf.go.store(true, Ordering::SeqCst);
    for stream in [stream, other] {
        let reply = stream.rest();
        assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/x-ndjson")));
        let text = reply.text();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let coming = json!({"status": "pulling 0123456789ab", "digest": "sha256:0123456789abcdef", "total": 1000, "completed": 100});
        assert!(lines.contains(&coming), "{text}");
        assert_eq!(lines.last(), Some(&json!({"status": "success"})), "{text}");
    }
    assert_eq!(shelf.pulls.load(Ordering::SeqCst), 1);
    assert_eq!(answers(&server, "org/new"), 200);
    assert_eq!(names(&server).len(), 4);
    // What is here is not asked for again, by any of its names.
    for name in ["org/new", "org/new:latest", "own"] {
        let reply = server.post("/api/pull", &json!({"model": name, "stream": false}));
        assert_eq!((reply.status, reply.json()), (200, json!({"status": "success"})), "{name}");
    }
    assert_eq!(shelf.pulls.load(Ordering::SeqCst), 1);
    server.wait().unwrap();
}

#[test]
fn a_download_ends_with_the_last_client_and_with_the_server() {
    let (server, shelf) = managed();
    let pull = |name: &str| {
        let mut stream = server.stream("/api/pull", &json!({"model": name}));
        stream.until("completed");
        stream
    };
    let (one, two) = (pull("org/new"), pull("org/new"));
    drop(one);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(shelf.ended.load(Ordering::SeqCst), 0, "one still waits");
    drop(two);
    until(|| shelf.ended.load(Ordering::SeqCst) == 1);
    let whole = server.stream("/api/pull", &json!({"model": "org/new", "stream": false}));
    until(|| shelf.pulls.load(Ordering::SeqCst) == 2);
    drop(whole);
    until(|| shelf.ended.load(Ordering::SeqCst) == 2);
    // The same can begin again.
    let (_one, _two) = (pull("org/new"), pull("org/other"));
    let reply = server.post("/api/pull", &json!({"model": "org/third", "stream": false}));
    assert_eq!(reply.status, 429, "{}", reply.text());
    assert_eq!(delete(&server, "org/new").status, 404, "it is not served yet");
    server.wait().unwrap();
    until(|| shelf.ended.load(Ordering::SeqCst) == 4);
}

#[test]
fn what_cannot_be_pulled_says_why() {
    let (server, shelf) = managed();
    let whole = |name: &str| {
        let reply = server.post("/api/pull", &json!({"model": name, "stream": false}));
        (reply.status, reply.json()["error"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(whole("org/missing"), (404, "org/missing: not found on the Hub".to_owned()));
    let text = server.post("/api/pull", &json!({"model": "org/missing"})).text();
    assert_eq!(text.lines().last(), Some(r#"{"error":"org/missing: not found on the Hub"}"#), "{text}");
    for name in ["org/../../etc", "/etc/passwd", "nobody", "..", "\0", &"x".repeat(1 << 20)] {
        let (status, what) = whole(name);
        assert!(status == 400 && what.len() < 200, "{status} {what:.300}");
        assert!([404, 400].contains(&delete(&server, name).status));
    }
    assert_eq!(server.post("/api/pull", &json!({})).status, 400);
    assert_eq!(shelf.pulls.load(Ordering::SeqCst), 2);
    assert_eq!(names(&server).len(), 3);
}

#[test]
fn a_model_is_deleted_with_all_that_are_kept_beside_it_and_not_while_it_answers() {
    let (server, shelf) = managed();
    let body = json!({"model": "org/old:b", "prompt": "Once", "max_tokens": 100_000, "ignore_eos": true, "stream": true});
    let mut stream = server.stream("/v1/completions", &body);
    stream.until("data: ");
    let refused = delete(&server, "org/old:a");
    // It may have ended at the end of its context meanwhile, where the machine is slow.
    let still = server.get("/api/ps").json()["models"].as_array().unwrap().len();
    assert!(refused.status == 409 || still == 0, "{}", refused.text());
    drop(stream);
    if refused.status == 409 {
        assert!(refused.json()["error"].as_str().unwrap().contains("`org/old:b`"), "{}", refused.text());
        shelf.stuck.store(true, Ordering::SeqCst);
        assert_eq!(delete(&server, "org/old:a").status, 500);
        assert_eq!(answers(&server, "org/old:a"), 200, "what was not removed is served as before");
        shelf.stuck.store(false, Ordering::SeqCst);
        assert_eq!(delete(&server, "org/old:a").status, 200);
    }
    assert_eq!(*shelf.removed.lock().unwrap(), ["org/old"]);
    assert_eq!(names(&server), ["own:latest"]);
    assert_eq!(answers(&server, "org/old:b"), 404);
    let own = delete(&server, "own");
    assert_eq!(own.status, 403, "{}", own.text());
    server.wait().unwrap();
}

#[test]
fn a_copy_is_another_name() {
    let (server, shelf) = managed();
    let copy =
        |from: &str, to: &str| server.post("/api/copy", &json!({"source": from, "destination": to})).status;
    assert_eq!((copy("own", "gpt-4o"), copy("own", "gpt-4o")), (200, 200));
    assert_eq!(names(&server)[..2], ["gpt-4o:latest", "own:latest"]);
    assert_eq!(answers(&server, "gpt-4o"), 200);
    assert_eq!(server.post("/api/show", &json!({"model": "gpt-4o"})).status, 200);
    assert_eq!((copy("nobody", "x"), copy("org/old:a", "gpt-4o"), copy("own", "org/old:a")), (404, 409, 409));
    for name in ["", "a b", "\u{7}", "é", &"x".repeat(201)] {
        assert_eq!(copy("own", name), 400, "{name:.20}");
    }
    // Deleting a name leaves the model.
    assert_eq!((delete(&server, "gpt-4o:latest").status, answers(&server, "gpt-4o")), (200, 404));
    assert_eq!((answers(&server, "own"), shelf.removed.lock().unwrap().len()), (200, 0));
    let most = (0..200).take_while(|at| copy("own", &format!("name-{at}")) == 200).count();
    assert_eq!(most, 100);
    server.wait().unwrap();
}

#[test]
fn nothing_is_changed_unless_the_owner_allows_it() {
    let server = Server::models(options(), vec![model("own", None), model("org/old", Some("org/old"))]);
    let copy = server.post("/api/copy", &json!({"source": "own", "destination": "x"}));
    let pull = server.post("/api/pull", &json!({"model": "org/new"}));
    for reply in [copy, pull, delete(&server, "org/old")] {
        assert_eq!(reply.status, 403);
        assert!(reply.json()["error"].as_str().unwrap().contains("--manage-models"), "{}", reply.text());
    }
    // A key is asked for before that.
    let keys = vec!["secret".to_owned()];
    let server = Server::models(Options { keys, ..options() }, vec![model("own", None)]);
    assert_eq!(delete(&server, "own").status, 401);
    assert_eq!(server.post("/api/pull", &json!({"model": "org/new"})).status, 401);
}

#[test]
fn llama_cpp_loads_and_unloads() {
    let (server, _) = managed();
    let state = || server.get("/models").json()["data"][0]["status"]["value"].clone();
    let done = |path: &str| server.post(path, &json!({"model": "own"})).json()["success"].clone();
    assert_eq!(state(), "unloaded");
    assert_eq!((done("/models/load"), state()), (json!(true), json!("loaded")));
    assert_eq!((done("/models/unload"), state()), (json!(true), json!("unloaded")));
    assert_eq!(server.post("/models/load", &json!({"model": "nobody"})).status, 404);
    server.wait().unwrap();
}
