//! Grammars, expressions, schemas and tools that are made to cost: each is answered soon, in little memory, and beside
//! it and after it a good request gets its text as ever. The server is a process of its own, so that what would abort it
//! is seen. `BOMBS=strict` holds the times to their limits, too, which a busy machine cannot promise.
//!
//! After them come texts by chance (the fuzzer of `examples/grammars.rs`, for a moment), and a crowd of hostile clients beside
//! good streams (`examples/hostile.rs` measures what that costs).

mod common;

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::bombs::{Bomb, all};
use common::crowd::{self, STREAMS};
use common::{Reply, Server, fuzz, options, request};
use serde_json::{Value, json};
use tern_serve::Options;
use tern_serve::fuzzing::Kind;

/// MiB for requests.
const MEMORY: usize = 256;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("try-grammars") => match tern_serve::try_grammars() {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Some("serve") => {
            let keys = args[1..].to_vec();
            let isolate = keys.len() > 1;
            let options = Options { keys, isolate, request_memory: MEMORY << 20, ..options() };
            let server = Server::start(common::with_trials(options));
            println!("{}", server.address);
            let _ = std::io::stdin().read(&mut [0]);
            ExitCode::SUCCESS
        }
        Some("fuzz") => {
            for kind in [Kind::Schema, Kind::Grammar, Kind::Regex, Kind::Tools] {
                let begin = Instant::now();
                let more = |seen: &fuzz::Seen| seen.texts < 300 && begin.elapsed() < Duration::from_secs(10);
                println!("{kind:?}: {:?}", fuzz::fuzz(Some(kind), 1, 0, more));
            }
            ExitCode::SUCCESS
        }
        // As the usual harness lists what it has, and skips what is not asked for.
        _ if args.iter().any(|arg| arg == "--list") => {
            println!("bombs: test");
            ExitCode::SUCCESS
        }
        _ if args.iter().any(|arg| !arg.starts_with('-') && !"bombs".contains(arg)) => ExitCode::SUCCESS,
        _ if suite() && no_bomb() && by_chance() && crowd(Duration::from_secs(4)) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// A server in a process of its own.
struct Victim {
    child: Child,
    address: SocketAddr,
}

impl Victim {
    fn start(keys: &[String]) -> Self {
        let program = std::env::current_exe().unwrap();
        let mut command = Command::new(program);
        let mut child =
            command.arg("serve").args(keys).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, address: line.trim().parse().unwrap() }
    }

    fn post(&self, path: &str, body: &Value) -> Option<Reply> {
        use std::io::Write;
        let mut socket = std::net::TcpStream::connect(self.address).ok()?;
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let _ = socket.write_all(&request("POST", path, &[], body.to_string().as_bytes()));
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        (!answer.is_empty()).then(|| Reply::parse(&answer))
    }

    /// MiB of the server and of the processes beside it; 0 where that cannot be seen.
    fn memory(&self) -> u64 {
        fn of(process: u32) -> Option<u64> {
            let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
            line.trim().split(' ').next()?.parse().ok()
        }
        let process = self.child.id();
        let tasks = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
        let children = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
        let children: Vec<u32> = children
            .flat_map(|list| list.split(' ').filter_map(|id| id.parse().ok()).collect::<Vec<_>>())
            .collect();
        // One that was just started is the server itself for a moment, with the server's memory.
        let other = |id: &u32| {
            let line = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains("try-grammars")
        };
        let all = [process].into_iter().chain(children.into_iter().filter(other)).filter_map(of);
        all.sum::<u64>() / 1024
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Chats with and without a schema, and their texts.
fn good(victim: &Victim) -> Option<(Duration, String)> {
    let start = Instant::now();
    let schema = json!({
        "type": "object", "properties": {"name": {"enum": ["Tom", "Lily"]}, "age": {"type": "integer", "maximum": 9}},
        "required": ["name", "age"], "additionalProperties": false,
    });
    let mut texts = String::new();
    for format in [
        json!({"type": "text"}),
        json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}),
    ] {
        let body = json!({
            "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 24, "response_format": format,
        });
        let reply = victim.post("/v1/chat/completions", &body)?;
        if reply.status != 200 {
            return None;
        }
        texts += &reply.json()["choices"][0]["message"]["content"].to_string();
    }
    Some((start.elapsed(), texts))
}

/// What one bomb did.
struct Hit {
    status: u16,
    time: Duration,
    /// MiB above rest.
    memory: u64,
    /// How long the good requests beside it took.
    beside: Duration,
    said: String,
}

fn throw(victim: &Victim, bomb: &Bomb, text: &str, rest: u64) -> Result<Hit, String> {
    let (done, peak) = (AtomicBool::new(false), AtomicU64::new(0));
    let (hit, beside) = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                peak.fetch_max(victim.memory(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let thrown = scope.spawn(|| {
            let start = Instant::now();
            let reply = victim.post(bomb.path, &bomb.body);
            (reply, start.elapsed())
        });
        std::thread::sleep(Duration::from_millis(20));
        let beside = good(victim);
        let hit = thrown.join().unwrap();
        done.store(true, Ordering::Relaxed);
        (hit, beside)
    });
    let (reply, time) = hit;
    let reply = reply.ok_or("no answer: the server is gone or hangs")?;
    let (beside, told) = beside.ok_or("no answer to a good request beside it")?;
    let (_, after) = good(victim).ok_or("no answer to a good request after it")?;
    if told != text || after != text {
        return Err(format!("another text beside or after it: {told} {after}"));
    }
    let said = reply.text();
    if reply.status != 200 && reply.status != 503 && !(400..500).contains(&reply.status) {
        return Err(format!("{} {said}", reply.status));
    }
    if reply.status != 200 && (said.contains("panic") || said.contains("backtrace")) {
        return Err(format!("the inside of a panic: {said}"));
    }
    let memory = peak.load(Ordering::Relaxed).saturating_sub(rest);
    Ok(Hit { status: reply.status, time, memory, beside, said })
}

/// What a client of every day sends is no bomb: the 24 tools of Claude Code's first request are compiled within the bounds, and
/// only then is its prompt too long for this model.
fn no_bomb() -> bool {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/recorded/claude-code-first.json");
    let recorded: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let reply = Victim::start(&[]).post("/v1/messages", &recorded["body"]).unwrap();
    println!("24 tools: {} {}", reply.status, reply.text());
    reply.text().contains("exceeds the available context")
}

/// Texts made by chance, in a process of their own: it must not end before its time.
fn by_chance() -> bool {
    let status = Command::new(std::env::current_exe().unwrap()).arg("fuzz").status().unwrap();
    println!("texts by chance: {status}");
    status.success()
}

/// Good streams beside hostile clients: each gets its whole text, the hostile ones get answers, and the server stays
/// within its memory.
fn crowd(time: Duration) -> bool {
    let keys: Vec<String> = (0..STREAMS).map(|at| format!("good{at}")).collect();
    let victim = Victim::start(&[keys.as_slice(), &["bad".to_owned()]].concat());
    let alone = crowd::good(victim.address, &keys, Duration::from_millis(500), 2);
    let rest = victim.memory();
    let (done, peak) = (AtomicBool::new(false), AtomicU64::new(0));
    let (beside, told) = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                peak.fetch_max(victim.memory(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let hostile = scope.spawn(|| crowd::hostile(victim.address, "bad", time));
        let beside = crowd::good(victim.address, &keys, time, 3);
        done.store(true, Ordering::Relaxed);
        (beside, hostile.join().unwrap())
    });
    let after = crowd::good(victim.address, &keys, Duration::ZERO, 1);
    let (peak, most) = (peak.load(Ordering::Relaxed), rest + MEMORY as u64 + 256);
    println!(
        "alone: {alone}\nbeside: {beside}\n{told}\nafter: {after}\n{rest} MiB at rest, at most {peak} beside them"
    );
    let came_through = told.contains("Bomb 400") && told.contains("Flood 200");
    if !came_through && time < Duration::from_secs(12) {
        // The machine was too busy for most of what they send: they get more time.
        return crowd(3 * time);
    }
    let texts = [&alone, &beside, &after].map(|good| good.text());
    texts[0] == texts[1]
        && texts[1] == texts[2]
        && [alone, beside, after].iter().all(|good| good.faults == 0 && good.answers >= STREAMS as u64)
        && came_through
        && peak <= most
}

fn suite() -> bool {
    let bombs = all();
    assert!(bombs.len() >= 120, "{} bombs", bombs.len());
    let strict = std::env::var("BOMBS").is_ok_and(|mode| mode == "strict");
    let mut victim = Victim::start(&[]);
    // The first ones start what later ones find.
    let (_, text) = good(&victim).expect("the server answers");
    let mut alone: Vec<Duration> = (0..5).filter_map(|_| good(&victim)).map(|(time, _)| time).collect();
    alone.sort();
    let (alone, rest) = (alone[alone.len() / 2], victim.memory());
    let mut faults = Vec::new();
    let (mut slowest, mut largest, mut late, mut refused) = (Duration::ZERO, 0, Duration::ZERO, 0);
    for bomb in &bombs {
        match throw(&victim, bomb, &text, rest) {
            Err(what) => {
                faults.push(format!("{}: {what}", bomb.name));
                if victim.child.try_wait().unwrap().is_some() {
                    victim = Victim::start(&[]);
                }
            }
            Ok(hit) => {
                let later = hit.beside.saturating_sub(alone);
                (slowest, largest, late) = (slowest.max(hit.time), largest.max(hit.memory), late.max(later));
                refused += usize::from(hit.status != 200);
                if strict {
                    let said: String = hit.said.chars().take(160).collect();
                    println!(
                        "{:44} {} {:?} +{} MiB, beside +{later:?} {said}",
                        bomb.name, hit.status, hit.time, hit.memory
                    );
                }
                let limits = if strict { (2, 250) } else { (20, 20_000) };
                if hit.time > Duration::from_secs(limits.0) || later > Duration::from_millis(limits.1) {
                    faults.push(format!(
                        "{}: {:?}, a good request beside it {later:?} later",
                        bomb.name, hit.time
                    ));
                }
                if hit.memory > 256 {
                    faults.push(format!("{}: {} MiB above rest", bomb.name, hit.memory));
                }
                if strict && hit.status == 503 {
                    faults.push(format!("{}: {}", bomb.name, hit.said));
                }
            }
        }
    }
    println!(
        "{} bombs, {refused} refused: the slowest after {slowest:?}, at most {largest} MiB above rest ({rest} MiB), good \
         requests ({alone:?} alone) at most {late:?} later",
        bombs.len()
    );
    for fault in &faults {
        println!("{fault}");
    }
    faults.is_empty()
}
