//! Sixteen good streams alone, and beside 64 clients that mean harm:
//!
//! ```text
//! cargo run --release -p tern-serve --example hostile -- SECONDS [GOOD-KEYS] [MODEL]
//! ```
//!
//! Prints how fast the good ones were alone and beside, what the server held, and where processor time went. The server, and
//! the hostile ones with one thread, are processes of their own, so that what each costs can be told apart. Each good
//! stream has a key of its own (or they share GOOD-KEYS), all hostile ones share one or have none.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tern::{Model, Sampling};
use tern_serve::{Load, Log, Options, Served, Serving};

#[path = "../tests/common/bombs.rs"]
mod bombs;
#[path = "../tests/common/crowd.rs"]
mod crowd;

use crowd::{Good, STREAMS};

/// `--request-memory` in MiB.
const MEMORY: u64 = 256;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let text = |at: usize| args.get(at).map(String::as_str);
    let number = |at: usize| text(at).and_then(|arg| arg.parse::<u64>().ok());
    let done = match (text(0), text(1), number(2)) {
        (Some("try-grammars"), ..) => tern_serve::try_grammars().map_err(|error| error.to_string()),
        (Some("serve"), Some(model), Some(keys)) => serve(model.to_owned(), keys),
        (Some("crowd"), Some(address), Some(time)) => address
            .parse()
            .map(|address| println!("{}", crowd::hostile(address, "bad", Duration::from_secs(time))))
            .map_err(|_| format!("`{address}` is no address")),
        _ => match number(0) {
            Some(time) => measure(text(2).unwrap_or(tern::STORY), time, number(1).unwrap_or(STREAMS as u64)),
            None => Err("expected SECONDS [GOOD-KEYS] [MODEL]".to_owned()),
        },
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("{what}");
            ExitCode::FAILURE
        }
    }
}

/// This program in another role.
fn this(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap_or_default());
    command.args(args);
    command
}

/// Serves as `tern serve` does, greedily, with these keys; tells its log on standard output.
fn serve(model: String, keys: u64) -> Result<(), String> {
    let log = Log::new(|line| writeln!(std::io::stdout(), "{line}"));
    let options = Options {
        sampling: Sampling::greedy(),
        request_memory: (MEMORY << 20) as usize,
        keys: (0..keys).map(|key| format!("good{key}")).chain(["bad".to_owned()]).collect(),
        isolate: true,
        try_grammars: Some(Arc::new(|| this(&["try-grammars"]))),
        log,
        ..Options::default()
    };
    let load: Load = Arc::new(move || match model.as_str() {
        tern::STORY => Model::story(&tern::Options::default()),
        file => Model::open(file.as_ref(), &tern::Options::default()),
    });
    let served = Serving::One(Box::new(Served::new("tern", load)));
    tern_serve::serve_until_told(([127, 0, 0, 1], 0).into(), served, options)
        .map_err(|error| error.to_string())
}

struct Server {
    child: Child,
    address: SocketAddr,
    /// Of keys and values, and their bytes.
    pages: u64,
    page_bytes: u64,
}

impl Server {
    fn start(model: &str, keys: u64) -> Option<Self> {
        let mut command = this(&["serve", model, &keys.to_string()]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().ok()?;
        let mut lines = BufReader::new(child.stdout.take()?).lines();
        let (mut address, mut pages, mut page_bytes) = (None, 0, 0);
        for line in lines.by_ref().map_while(Result::ok) {
            let entry: serde_json::Value = serde_json::from_str(&line).ok()?;
            if let Some(url) = entry["url"].as_str() {
                address = url.strip_prefix("http://").and_then(|address| address.parse().ok());
            }
            if entry["event"] == "ready" {
                pages = entry["kv_pages"].as_u64()?;
                page_bytes = entry["kv_bytes"].as_u64()?;
                break;
            }
        }
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Some(Self { child, address: address?, pages, page_bytes })
    }

    /// The server and the processes beside it.
    fn processes(&self) -> Vec<u32> {
        let id = self.child.id();
        let tasks = std::fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
        let lists = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
        let children = lists
            .flat_map(|list| list.split(' ').filter_map(|id| id.trim().parse().ok()).collect::<Vec<u32>>());
        [id].into_iter().chain(children).collect()
    }

    /// MiB of both.
    fn memory(&self) -> u64 {
        let of = |process: u32| {
            let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
            line.trim().split(' ').next()?.parse::<u64>().ok()
        };
        // One that was just started is the server itself for a moment, with the server's memory.
        let other = |id: &u32| {
            let line = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
            *id == self.child.id() || String::from_utf8_lossy(&line).contains("try-grammars")
        };
        self.processes().into_iter().filter(other).filter_map(of).sum::<u64>() / 1024
    }

    /// Seconds of work by name of thread; `children` are the processes beside it, those that have ended included.
    fn work(&self) -> BTreeMap<String, f64> {
        let mut work = BTreeMap::new();
        let mut add = |name: &str, ticks: f64| *work.entry(name.to_owned()).or_insert(0.0) += ticks / 100.0;
        for (at, process) in self.processes().into_iter().enumerate() {
            let tasks = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
            for task in tasks {
                let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
                let Some((name, rest)) = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')'))
                else {
                    continue;
                };
                let fields: Vec<f64> = rest.split(' ').map(|field| field.parse().unwrap_or(0.0)).collect();
                let [user, system, user_of_ended, system_of_ended] = [12, 13, 14, 15].map(|at| fields[at]);
                add(if at > 0 { "children" } else { name }, user + system);
                if task.file_name().to_str() == Some(&process.to_string()) {
                    add("children", user_of_ended + system_of_ended);
                }
            }
        }
        work
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn measure(model: &str, seconds: u64, keys: u64) -> Result<(), String> {
    let server = Server::start(model, keys).ok_or("the server does not start")?;
    let keys: Vec<String> = (0..STREAMS as u64).map(|at| format!("good{}", at % keys)).collect();
    let alone_for = Duration::from_secs((seconds / 5).max(5));
    // The first round makes what a server keeps: threads, and pages for as many keys and values as it may have.
    crowd::fill(server.address, &keys, server.pages as usize);
    std::thread::sleep(Duration::from_secs(2));
    println!(
        "{} pages of keys and values, {} MiB; {MEMORY} MiB for requests",
        server.pages,
        server.page_bytes >> 20
    );
    let rest = server.memory();
    let before = server.work();
    let alone = crowd::good(server.address, &keys, alone_for, 0);
    println!("alone: {alone}");
    tell(&before, &server.work(), alone_for);
    let before = server.work();
    let mut crowd = this(&["crowd", &server.address.to_string(), &seconds.to_string()]);
    let crowd = crowd.stdout(Stdio::piped()).spawn().map_err(|error| error.to_string())?;
    let (peak, done) = (AtomicU64::new(0), Arc::new(AtomicBool::new(false)));
    let beside: Good = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                peak.fetch_max(server.memory(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        let beside = crowd::good(server.address, &keys, Duration::from_secs(seconds), 0);
        done.store(true, Ordering::Relaxed);
        beside
    });
    println!("beside: {beside}");
    tell(&before, &server.work(), Duration::from_secs(seconds));
    if let Ok(output) = crowd.wait_with_output() {
        print!("{}", String::from_utf8_lossy(&output.stdout));
    }
    let peak = peak.load(Ordering::Relaxed);
    let ended = server.memory();
    std::thread::sleep(Duration::from_secs(60.min(seconds)));
    let after = server.memory();
    let share = beside.rate() / alone.rate() * 100.0;
    println!(
        "{share:.1} % of the rate alone; memory: {rest} MiB at rest, at most {peak}, {ended} at the end, {after} later"
    );
    if share < 80.0 || after as f64 > rest as f64 * 1.2 || beside.faults > 0 {
        return Err("expected 80 % of the rate, no fault, and the memory back within 20 %".to_owned());
    }
    Ok(())
}

fn tell(before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>, time: Duration) {
    let mut line = format!("  seconds of work in {time:?}:");
    for (name, total) in after {
        let spent = total - before.get(name).unwrap_or(&0.0);
        if spent >= 0.05 {
            line += &format!(" {name} {spent:.1}");
        }
    }
    println!("{line}");
}
