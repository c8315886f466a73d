//! `tern train` with workers: processes that are killed, and processes that have no business there.
#![cfg(unix)]

mod common;
#[path = "common/training.rs"]
mod training;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::{run, tern};
use training::{config, folder, losses};

/// A process whose words are kept; killed when the test ends, however it ends.
struct Talking {
    child: Child,
    said: Arc<Mutex<String>>,
}

impl Drop for Talking {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Talking {
    fn start(args: &[&str]) -> Self {
        let mut child = tern(args).stdout(Stdio::null()).spawn().unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        let (errors, to) = (BufReader::new(child.stderr.take().unwrap()), said.clone());
        std::thread::spawn(move || {
            for line in errors.lines().map_while(Result::ok) {
                *to.lock().unwrap() += &format!("{line}\n");
            }
        });
        Self { child, said }
    }

    fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    fn count(&self, what: &str) -> usize {
        self.said().matches(what).count()
    }

    /// Waits until it has said this so often.
    fn hear(&self, what: &str, times: usize) {
        let begun = Instant::now();
        while self.count(what) < times {
            assert!(begun.elapsed() < Duration::from_secs(60), "{times} times {what}: {}", self.said());
            sleep(Duration::from_millis(2));
        }
    }

    /// Its exit code, and all that it said.
    fn end(mut self) -> (Option<i32>, String) {
        let status = self.child.wait().unwrap();
        sleep(Duration::from_millis(50));
        (status.code(), self.said())
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// A leader, and where it listens.
fn leader(dir: &Path, out: &str, listen: &str) -> (Talking, String) {
    let (config, out, token) = (config(dir), dir.join(out), dir.join("token"));
    let args = ["train", &config, "--out", out.to_str().unwrap(), "--listen", listen];
    let leader = Talking::start(&[&args[..], &["--token-file", token.to_str().unwrap()]].concat());
    leader.hear("workers are let in at ", 1);
    let said = leader.said();
    let address = said.split("workers are let in at ").nth(1).unwrap().lines().next().unwrap().to_owned();
    (leader, address)
}

fn worker(dir: &Path, address: &str) -> Talking {
    let token = dir.join("token");
    Talking::start(&["train", "worker", address, "--token-file", token.to_str().unwrap(), "--threads", "1"])
}

/// A folder of a run that has no end of its own.
fn endless() -> tempfile::TempDir {
    let dir = folder(
        "steps = 1000000\nschedule = \"constant\"\naccumulate = 3\nvalidate_every = 0\nsave_every = 20\nkeep = 1\n",
    );
    fs::write(dir.path().join("token"), "5ecret\n").unwrap();
    dir
}

/// Weights and moments of the only checkpoint, as they lie in it: behind the state, which has the seconds.
fn weights(out: &Path) -> Vec<u8> {
    let path = fs::read_dir(out.join("checkpoints")).unwrap().next().unwrap().unwrap().path();
    let bytes = fs::read(path).unwrap();
    let state = u64::from_le_bytes(bytes[8..16].try_into().unwrap()) as usize;
    bytes[16 + state..bytes.len() - 8].to_vec()
}

/// Stops a leader and holds what it came to against the same steps on one machine.
fn is_as_alone(dir: &Path, leader: Talking) {
    Command::new("kill").args(["-INT", &leader.child.id().to_string()]).status().unwrap();
    let (code, said) = leader.end();
    assert_eq!(code, Some(130), "{said}");
    let found = losses(&dir.join("run"));
    let (steps, out) = (found.len().to_string(), dir.join("alone"));
    assert!(said.contains(&format!("step-{:09}.tern", found.len())), "{said}");
    run(&["train", &config(dir), "--out", out.to_str().unwrap(), "--steps", &steps]).ok();
    // Where it ends, a run validates.
    let alone: Vec<_> = losses(&out).into_iter().filter(|line| line.starts_with("\"step\"")).collect();
    assert_eq!(found, alone);
    assert!(weights(&dir.join("run")) == weights(&out), "other weights after {steps} steps");
}

#[test]
fn workers_that_are_killed_cost_the_run_nothing() {
    let dir = endless();
    let (leader, address) = leader(dir.path(), "run", "127.0.0.1:0");
    let steady = worker(dir.path(), &address);
    leader.hear("computes too", 1);
    for nth in 0..6 {
        let mut killed = worker(dir.path(), &address);
        leader.hear("computes too", nth + 2);
        sleep(Duration::from_millis(3 + 7 * nth as u64));
        if nth % 3 == 2 {
            // Asleep it holds a batch for sure: there is one for each machine in every step.
            Command::new("kill").args(["-STOP", &killed.child.id().to_string()]).status().unwrap();
            sleep(Duration::from_millis(100));
        }
        killed.kill();
        leader.hear("was lost in step", nth + 1);
    }
    let said = leader.said();
    assert!(said.contains("its batch was computed by another; 2 machines left"), "{said}");
    is_as_alone(dir.path(), leader);
    // Its leader is gone, and it looks for it.
    steady.hear("trying again", 1);
}

#[test]
fn a_leader_that_is_killed_goes_on_with_the_workers_it_had() {
    let dir = endless();
    let (mut first, address) = leader(dir.path(), "run", "127.0.0.1:0");
    let steady = worker(dir.path(), &address);
    first.hear("computes too", 1);
    first.hear("step 45:", 1);
    first.kill();
    let (second, again) = leader(dir.path(), "run", &address);
    assert_eq!(again, address);
    second.hear("going on after step ", 1);
    second.hear("computes too", 1);
    steady.hear("let in by", 2);
    let steps = losses(&dir.path().join("run")).len();
    second.hear(&format!("step {}:", steps + 20), 1);
    is_as_alone(dir.path(), second);
}

#[test]
fn a_worker_without_the_token_is_refused_and_nobody_listens_to_the_world_without_one() {
    let dir = endless();
    let (leader, address) = leader(dir.path(), "run", "127.0.0.1:0");
    let other = dir.path().join("other");
    fs::write(&other, "guess").unwrap();
    for args in [&["--token-file", other.to_str().unwrap()][..], &[]] {
        let done = run(&[&["train", "worker", &address][..], args].concat());
        assert_eq!(done.code, Some(1), "{}", done.stderr);
        assert!(
            done.stderr.contains(&format!("error: {address}: the leader's token is another one")),
            "{}",
            done.stderr
        );
    }
    // Another program that tries the port.
    let mut stream = std::net::TcpStream::connect(&address).unwrap();
    std::io::Write::write_all(&mut stream, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let _ = stream.read_to_end(&mut Vec::new());
    leader.hear("was refused: does not speak as a Tern that trains", 1);
    is_as_alone(dir.path(), leader);
    fs::write(&other, "two\nlines\n").unwrap();
    for (args, wanted) in [
        (&["--listen", "0.0.0.0:0"][..], "can be reached from other machines: `--token-file` asks workers"),
        (
            &["--listen", "127.0.0.1:0", "--token-file", other.to_str().unwrap()],
            "expected a token on one line",
        ),
        (&["--listen", "localhost"], "--listen"),
        (&["--token-file", other.to_str().unwrap()], "--listen"),
        (&["--listen", &address, "--token-file", "/nowhere"], "/nowhere"),
        (
            &["--listen", "203.0.113.1:7", "--token-file", dir.path().join("token").to_str().unwrap()],
            "203.0.113.1:7: ",
        ),
    ] {
        let done = run(&[&["train", &config(dir.path())][..], args].concat());
        assert!(done.code != Some(0) && done.stderr.contains(wanted), "{args:?}: {}", done.stderr);
    }
    let done = run(&["train", "worker", "127.0.0.1:1", "--patience", "0"]);
    assert!(done.code == Some(1) && done.stderr.contains("no leader for 0 seconds"), "{}", done.stderr);
}
