//! Models by name, from a Hub on this machine: pulled, killed, resumed, listed, shown, run and removed.

mod common;
#[path = "../../hub/tests/common/mod.rs"]
mod fake;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use common::tern;
use fake::{COMMIT, Fake, noise, sha256};

const STORY: &[u8] = include_bytes!("../../models/story/story.gguf");

const REPO: &str = "org/story-gguf";

struct Place {
    fake: Fake,
    home: tempfile::TempDir,
}

impl Place {
    fn new(bytes: Vec<u8>) -> Self {
        let fake = Fake::start();
        fake.add(REPO, &[("story-i2.gguf", bytes), ("README.md", b"# story".to_vec())]);
        Self { fake, home: tempfile::tempdir().unwrap() }
    }

    fn story() -> Self {
        Self::new(STORY.to_vec())
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = tern(args);
        command
            .current_dir(self.home.path())
            .env("HOME", self.home.path())
            .env("HF_HUB_CACHE", self.cache())
            .env("HF_ENDPOINT", &self.fake.endpoint);
        command
    }

    fn cache(&self) -> PathBuf {
        self.home.path().join("hub")
    }

    fn run(&self, args: &[&str]) -> (Option<i32>, String, String) {
        told(&self.command(args).output().unwrap())
    }
}

fn told(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_model_runs_by_name_from_an_empty_home() {
    let place = Place::story();
    let args = ["run", REPO, "Once upon a time", "-n", "8", "--temp", "0"];
    let (code, out, err) = place.run(&args);
    assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
    assert_eq!(
        err,
        "error: org/story-gguf: not on this machine\nhint: `tern pull org/story-gguf` downloads it; `tern run`, `chat` \
         and `serve` do with --yes\n"
    );
    let (code, first, err) = place.run(&[&args[..], &["--yes"]].concat());
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("org/story-gguf; licence mit, 6 MB"), "{err}");
    let plain =
        told(&tern(&["run", "story", "Once upon a time", "-n", "8", "--temp", "0"]).output().unwrap());
    assert_eq!(first, plain.1, "the same model, by another name");
    place.fake.sent();
    let (code, again, err) = told(&place.command(&args).env("HF_HUB_OFFLINE", "1").output().unwrap());
    assert_eq!((code, again), (Some(0), first), "{err}");
    assert_eq!(place.fake.sent(), 0);
    let (code, out, _) = place.run(&["inspect", REPO, "--json"]);
    assert!(code == Some(0) && out.contains("\"family\""), "every command takes the name: {out}");
}

/// A child that is killed when the test ends, however it ends.
struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server on a free port.
struct Serving {
    _process: Killed,
    address: String,
}

impl Serving {
    fn start(place: &Place, args: &[&str]) -> Self {
        let args = [&["serve", "--port", "0"], args].concat();
        let mut process = Killed(place.command(&args).spawn().unwrap());
        let mut lines = BufReader::new(process.0.stderr.take().unwrap()).lines().map_while(Result::ok);
        let line = lines.find(|line| line.contains("listening on ")).unwrap();
        let address = line.split("listening on http://").nth(1).unwrap().trim().to_owned();
        // Whoever does not read its errors makes it wait.
        std::thread::spawn(move || lines.count());
        let serving = Self { _process: process, address };
        while !serving.ask("GET /health", "").starts_with("HTTP/1.1 200") {
            std::thread::sleep(Duration::from_millis(20));
        }
        serving
    }

    fn ask(&self, first: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let head = "host: localhost\r\nconnection: close\r\ncontent-type: application/json";
        write!(stream, "{first} HTTP/1.1\r\n{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// A call with a model's name; its status and its whole answer.
    fn model(&self, first: &str, name: &str) -> (String, String) {
        let body = format!("{{\"model\": {name:?}, \"prompt\": \"Once\", \"max_tokens\": 2}}");
        let answer = self.ask(first, &body);
        (answer.split(' ').nth(1).unwrap_or_default().to_owned(), answer)
    }
}

#[test]
fn a_served_name_tells_its_file_and_its_size() {
    // What stands behind the last dot is no extension here.
    const DOTTED: &str = "org/Story-1.58bit";
    let place = Place::story();
    place.fake.add(DOTTED, &[("story.gguf", STORY.to_vec())]);
    let server = Serving::start(&place, &[DOTTED, "--yes"]);
    let models = server.ask("GET /v1/models", "");
    assert!(models.contains("\"id\":\"Story-1.58bit\""), "{models}");
    let tags = server.ask("GET /api/tags", "");
    assert!(tags.contains(&format!("\"size\":{}", STORY.len())), "{tags}");
}

#[test]
fn clients_of_a_server_pull_use_and_delete_models() {
    let place = Place::story();
    place.fake.add("org/gated", &[("m.gguf", noise(1000, 1))]);
    place.fake.with("org/gated", |repo| repo.access = fake::Access::Gated);
    place.fake.add("org/noise", &[("m.gguf", noise(1000, 2))]);
    let server = Serving::start(&place, &["story", "--manage-models"]);
    let (status, answer) = server.model("POST /api/pull", "hf.co/org/story-gguf:latest");
    assert_eq!(status, "200", "{answer}");
    let size = STORY.len();
    for part in
        ["pulling manifest", &format!("\"completed\":{size}"), &format!("\"sha256:{}\"", sha256(STORY))]
    {
        assert!(answer.contains(part), "{part}: {answer}");
    }
    assert!(
        answer.trim_end().trim_end_matches(['0', '\r', '\n']).ends_with("{\"status\":\"success\"}"),
        "{answer}"
    );
    assert_eq!(server.model("POST /v1/completions", REPO).0, "200");
    assert!(place.cache().join("models--org--story-gguf").exists());

    for (name, status, what) in [
        ("org/nothing", "404", "org/nothing: not found on the Hub; check the name"),
        ("org/gated", "403", "accept the terms at "),
        ("org/noise", "422", "`org/noise` was downloaded and cannot be used: org/noise: "),
        ("../../etc/passwd", "400", "letters, digits"),
        ("/etc/passwd", "400", "letters, digits"),
        ("org/story-gguf:../../x", "400", "expected a file"),
        ("models--org--story-gguf", "400", "expected ORG/REPO"),
    ] {
        let body = format!("{{\"model\": {name:?}, \"stream\": false}}");
        let answer = server.ask("POST /api/pull", &body);
        let told = answer.split(' ').nth(1) == Some(status) && answer.contains(what);
        assert!(told && !answer.contains(place.home.path().to_str().unwrap()), "{name}: {answer}");
    }
    // It is not lost with the server, and nobody else's file is deleted.
    drop(server);
    let server = Serving::start(&place, &["story", "--manage-models"]);
    assert!(server.ask("GET /api/tags", "").contains("\"name\":\"org/story-gguf:latest\""));
    for (name, status) in [("story", "403"), ("../hub", "404"), (REPO, "200"), (REPO, "404")] {
        assert_eq!(server.model("DELETE /api/delete", name).0, status, "{name}");
    }
    assert!(!place.cache().join("models--org--story-gguf").exists());
    assert_eq!(server.model("POST /v1/completions", REPO).0, "404");

    let server = Serving::start(&place, &["story", "--manage-models", "--offline"]);
    let (_, answer) = server.model("POST /api/pull", REPO);
    assert!(answer.contains("--offline forbids the network"), "{answer}");
    let server = Serving::start(&place, &["story"]);
    let (status, answer) = server.model("POST /api/pull", REPO);
    assert!(status == "403" && answer.contains("--manage-models"), "{answer}");
}

/// What a terminal shows, by util-linux's `script`, which is one.
#[cfg(target_os = "linux")]
#[test]
fn a_terminal_shows_bytes_speed_and_time_left_while_a_model_comes() {
    let place = Place::story();
    // Slow enough that the bar is drawn a few times.
    place.fake.with(REPO, |repo| repo.speed = 2_000_000);
    let mut command = Command::new("script");
    let call =
        format!("stty cols 100; '{}' run {REPO} 'Once upon a time' -n 8 --yes", env!("CARGO_BIN_EXE_tern"));
    command
        .args(["-qec", &call, "/dev/null"])
        .current_dir(place.home.path())
        .env("HOME", place.home.path())
        .env("TERM", "xterm")
        .env("HF_HUB_CACHE", place.cache())
        .env("HF_ENDPOINT", &place.fake.endpoint)
        .stdin(std::process::Stdio::null());
    let (code, out, _) = told(&command.output().unwrap());
    assert_eq!(code, Some(0), "{out}");
    let bar = |shot: &&str| {
        let has = |part: &str| shot.contains(part);
        has("downloading [") && has("MB of 5.56 MB, ") && has("MB/s, ") && has("s left")
    };
    assert!(out.split('\r').any(|shot| bar(&shot)), "{out}");
    assert!(out.contains("Once upon a time"), "{out}");
    let (code, again, _) = told(&command.output().unwrap());
    assert!(code == Some(0) && !again.contains("downloading"), "{again}");
}

#[test]
fn pull_list_show_and_rm_tell_the_same_story() {
    let place = Place::story();
    let (_, out, err) = place.run(&["list"]);
    assert_eq!((out.as_str(), err.starts_with("no model was downloaded yet")), ("", true), "{err}");
    let (code, path, err) = place.run(&["pull", REPO]);
    assert_eq!(code, Some(0), "{err}");
    let model = place.cache().join(format!("models--org--story-gguf/snapshots/{COMMIT}/story-i2.gguf"));
    assert_eq!(Path::new(path.trim_end()), model);
    assert!(fs::read(&model).unwrap() == STORY);
    let (_, out, err) = place.run(&["pull", REPO, "--json"]);
    let told: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((told["downloaded"].as_u64(), told["licence"].as_str()), (Some(0), Some("mit")), "{err}");
    let (_, out, _) = place.run(&["ls"]);
    assert_eq!(out, "org/story-gguf      6 MB  Hub\n");
    let (_, out, _) = place.run(&["show", REPO]);
    assert!(out.contains(&format!("path      {}\ncommit    {COMMIT}\n", model.display())), "{out}");
    let (code, _, err) = place.run(&["rm", REPO]);
    assert_eq!((code, err.contains("--yes")), (Some(1), true), "{err}");
    let (code, _, err) = place.run(&["rm", REPO, "--yes"]);
    assert_eq!((code, err.as_str()), (Some(0), "removed org/story-gguf, 6 MB are free again\n"));
    assert!(!place.cache().join("models--org--story-gguf").exists());
    let (code, _, err) = place.run(&["rm", REPO, "--yes"]);
    assert_eq!((code, err.contains("not on this machine")), (Some(1), true), "{err}");
    let (_, out, _) = place.run(&["list", "--known"]);
    assert!(out.contains("bitnet-2b") && out.lines().count() >= 10, "{out}");
}

#[test]
fn a_download_that_is_killed_at_any_moment_goes_on() {
    let bytes = noise(12 << 20, 21);
    let place = Place::new(bytes.clone());
    place.fake.with(REPO, |repo| repo.speed = 8 << 20);
    let mut random = 7_u64;
    for kill in 0..20 {
        let mut child = place.command(&["pull", REPO]).spawn().unwrap();
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        std::thread::sleep(Duration::from_millis(5 + (random >> 33) % 100));
        // SIGKILL: nothing is tidied up.
        child.kill().unwrap();
        child.wait().unwrap();
        let snapshots = place.cache().join("models--org--story-gguf/snapshots");
        assert!(!snapshots.join(COMMIT).join("story-i2.gguf").exists(), "not whole after kill {kill}");
        let (code, _, _) = place.run(&["show", REPO]);
        assert_eq!(code, Some(0));
    }
    place.fake.with(REPO, |repo| repo.speed = 0);
    let (code, path, err) = place.run(&["pull", REPO]);
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(sha256(&fs::read(path.trim_end()).unwrap()), sha256(&bytes));
    // A kill loses at most what its connections were just reading, 256 kB each.
    let sent = place.fake.sent();
    assert!(sent < (12 << 20) + 21 * 4 * (512 << 10), "{sent} bytes were sent");
}

#[cfg(unix)]
#[test]
fn a_full_disk_is_named_and_what_came_is_kept() {
    let place = Place::story();
    // The system refuses files over 2 MiB, as a full disk does.
    let pull = place.command(&["pull", REPO]);
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "ulimit -f 4096; trap '' XFSZ; exec \"$0\" pull org/story-gguf"])
        .arg(pull.get_program());
    shell.envs(pull.get_envs().filter_map(|(key, value)| Some((key, value?)))).current_dir(place.home.path());
    let (code, out, err) = told(&shell.output().unwrap());
    assert_eq!((code, out.as_str()), (Some(1), ""), "{err}");
    assert!(err.contains(".tern-part: File too large"), "{err}");
    assert!(err.contains("hint: free some space and run the same command again"), "{err}");
    assert_eq!(place.run(&["pull", REPO]).0, Some(0));
}

#[test]
fn a_wrong_name_says_what_a_name_is() {
    let place = Place::story();
    for (args, wanted) in [
        (&["pull", "no-such-name"][..], "no-such-name: no short name, and no ORG/REPO"),
        (&["pull", "bitnet"], "bitnet: no short name; did you mean bitnet-2b, bitnet-large, bitnet-3b?"),
        (&["pull", "org/nothing"], "org/nothing: not found on the Hub"),
        (&["pull", "org/story-gguf:q8"], "no .gguf file has `q8` in its name; there are story-i2.gguf"),
        (&["pull", "../up"], "an organisation and a repository have letters"),
        (&["run", "org/nothing", "Hello"], "org/nothing: not on this machine"),
        (&["run", "org/nothing", "Hello", "--yes"], "org/nothing: not found on the Hub"),
        (&["run", "org/nothing", "Hello", "--offline"], "org/nothing: not on this machine"),
        (&["show", "what"], "what: no short name, and no ORG/REPO"),
    ] {
        let (code, out, err) = place.run(args);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{args:?}: {err}");
        assert!(err.starts_with("error: ") && err.contains(wanted), "{args:?}: {err}");
    }
    let (_, _, err) = told(&place.command(&["pull", REPO]).env("HF_HUB_OFFLINE", "1").output().unwrap());
    assert!(err.contains("HF_HUB_OFFLINE or --offline forbids the network"), "{err}");
    let (_, _, err) =
        told(&place.command(&["pull", REPO]).env("HF_ENDPOINT", "hub.example").output().unwrap());
    assert!(err.contains("HF_ENDPOINT: expected https://HOST"), "{err}");
}
