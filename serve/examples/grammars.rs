//! Fuzzes grammars, schemas, expressions and tools with the server's real limits, on a stable tool chain:
//!
//! ```text
//! cargo run --release -p tern-serve --example grammars -- SECONDS [SEED] [grammar|schema|regex|tools] [FIRST]
//! ```
//!
//! Texts are made from seeds by cutting, doubling, swapping and nesting; each is counted, tried in the process beside
//! this one, compiled and followed for some tokens. This process gets 512 MiB and an 8 MiB stack (Linux); whatever
//! ends it is a finding, and so is memory that grows, a refusal without a reason or a step that takes long. The line
//! that it prints once a minute tells seed and number of texts (from FIRST on), so that a finding can be made again.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use tern_serve::fuzzing::Kind;

#[path = "../tests/common/bombs.rs"]
mod bombs;
#[path = "../tests/common/fuzz.rs"]
mod fuzz;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == "try-grammars") {
        return if tern_serve::try_grammars().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let seconds = args.first().and_then(|arg| arg.parse().ok()).unwrap_or(60);
    let seed = args.get(1).and_then(|arg| arg.parse().ok()).unwrap_or(1);
    let only = match args.get(2).map(String::as_str) {
        None => None,
        Some("grammar") => Some(Kind::Grammar),
        Some("schema") => Some(Kind::Schema),
        Some("regex") => Some(Kind::Regex),
        Some("tools") => Some(Kind::Tools),
        Some(other) => {
            eprintln!("`{other}`: expected grammar, schema, regex or tools");
            return ExitCode::from(2);
        }
    };
    let first = args.get(3).and_then(|arg| arg.parse().ok()).unwrap_or(0);
    bound();
    // The main thread's stack is the shell's affair.
    let thread =
        std::thread::Builder::new().stack_size(8 << 20).spawn(move || run(seconds, seed, only, first));
    match thread.map(std::thread::JoinHandle::join) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

#[cfg(target_os = "linux")]
fn bound() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let limit = Some(512 << 20);
    let _ = setrlimit(Resource::Data, Rlimit { current: limit, maximum: limit });
}

#[cfg(not(target_os = "linux"))]
fn bound() {}

fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}

/// Seconds that the processes beside this one have worked, of those that have ended; 0 where Linux's files are not there.
fn tried() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // After the name in parentheses: the state is field 3, the children's ticks of 10 ms are fields 16 and 17.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |field: usize| fields.get(field - 3).and_then(|ticks| ticks.parse::<u64>().ok()).unwrap_or(0);
    (ticks(16) + ticks(17)) / 100
}

fn run(seconds: u64, seed: u64, only: Option<Kind>, first: u64) {
    let begin = Instant::now();
    let mut told = begin;
    let tell = |seen: &fuzz::Seen| {
        let before = memory();
        // What the allocator keeps is not what is held.
        tern::give_back();
        println!(
            "{} s, {} s of work and {} s of trials: {} MiB (before, with what the allocator kept, {before}), seed {seed}, {seen:?}",
            begin.elapsed().as_secs(),
            fuzz::worked().as_secs(),
            tried(),
            memory()
        );
    };
    let seen = fuzz::fuzz(only, seed, first, |seen| {
        if told.elapsed() > Duration::from_secs(60) {
            told = Instant::now();
            tell(seen);
        }
        begin.elapsed() < Duration::from_secs(seconds)
    });
    tell(&seen);
}
