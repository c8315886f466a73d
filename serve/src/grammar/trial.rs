//! The process in which grammars are tried before the server compiles them.
//!
//! Compiling a grammar has no bound: a few hundred bytes can take minutes, gigabytes or all of a stack, and a thread
//! that runs cannot be ended. A process can. What this one compiles within its bounds, the server compiles again, which
//! costs it as much; what it does not is refused, whether it says so itself or is killed.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Grammar;
use super::compile::{Compiler, Words};
use crate::limits::{TRIAL_BYTES, TRIAL_CPU, TRIAL_STACK};
use crate::turns::at_low_priority;

/// What became of a grammar.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
pub(super) enum Verdict {
    /// It was compiled, and can be again.
    Fine,
    /// It is none, or nothing follows it.
    Wrong(String),
    /// It took too long; the process has ended.
    Slow,
}

/// How often the clock is looked at.
const TICK: Duration = Duration::from_millis(5);
/// How long it waits for the next grammar.
const IDLE: Duration = Duration::from_secs(20);

/// The life of the process: reads what the model's tokens spell, then grammar after grammar, and tells of each what
/// became of it; until its input ends, or nothing comes for a while.
pub(super) fn serve() -> io::Result<()> {
    at_low_priority();
    let wrong =
        || io::Error::new(io::ErrorKind::InvalidData, "expected grammars of `tern serve` on standard input");
    let mut output = io::stdout().lock();
    let (sender, input) = sync_channel(1);
    std::thread::Builder::new().spawn(move || {
        let mut input = io::stdin().lock();
        while let Some(bytes) = read(&mut input) {
            if sender.send(bytes).is_err() {
                return;
            }
        }
    })?;
    let words = input.recv().ok().and_then(|bytes| Words::read(&bytes));
    let compiler = Arc::new(words.and_then(|words| Compiler::new(&words)).ok_or_else(wrong)?);
    // The crate makes a backtrace of each of its panics, which takes more than any grammar; its hook is there after the
    // first one, and nobody reads it.
    let _ = compiler.compile(&Grammar::Regex("a".to_owned()));
    std::panic::set_hook(Box::new(|_| {}));
    // Its memory goes with it when nothing comes: starting another takes a moment.
    while let Ok(bytes) = input.recv_timeout(IDLE) {
        let grammar = serde_json::from_slice(&bytes).map_err(|_| wrong())?;
        let verdict = judge(compiler.clone(), grammar)?;
        write(&mut output, &serde_json::to_vec(&verdict)?)?;
        if verdict == Verdict::Slow {
            // Its thread goes on, and ends with the process.
            std::process::exit(1);
        }
        // What a grammar left is given back by ending: the next one starts another process.
        if os::grown() {
            break;
        }
    }
    Ok(())
}

/// Compiles a grammar on a thread of its own and looks at the clock meanwhile.
fn judge(compiler: Arc<Compiler>, grammar: Grammar) -> io::Result<Verdict> {
    os::bound();
    let start = os::cpu();
    let (sender, receiver) = sync_channel(1);
    let compile = move || {
        let _ = sender.send(match compiler.compile(&grammar) {
            Ok(_) => Verdict::Fine,
            Err(what) => Verdict::Wrong(what),
        });
    };
    let thread =
        std::thread::Builder::new().name("grammar".to_owned()).stack_size(TRIAL_STACK).spawn(compile)?;
    loop {
        let verdict = match receiver.recv_timeout(TICK) {
            Ok(verdict) => verdict,
            Err(RecvTimeoutError::Timeout) if os::cpu() - start > TRIAL_CPU => return Ok(Verdict::Slow),
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => Verdict::Wrong("it cannot be compiled".to_owned()),
        };
        // What it compiled is gone before the next one comes.
        let _ = thread.join();
        return Ok(verdict);
    }
}

/// A message: its length and its bytes. `None` at the end.
pub(super) fn read(input: &mut impl Read) -> Option<Vec<u8>> {
    let mut len = [0; 4];
    input.read_exact(&mut len).ok()?;
    let mut bytes = vec![0; u32::from_le_bytes(len) as usize];
    input.read_exact(&mut bytes).ok()?;
    Some(bytes)
}

pub(super) fn write(output: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    output.write_all(&(bytes.len() as u32).to_le_bytes())?;
    output.write_all(bytes)?;
    output.flush()
}

#[cfg(target_os = "linux")]
mod os {
    use std::sync::OnceLock;
    use std::time::Duration;

    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    use rustix::time::{ClockId, clock_gettime};

    use super::{TRIAL_BYTES, TRIAL_STACK};

    /// Time that the process has worked.
    pub(super) fn cpu() -> Duration {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
    }

    /// Bytes of memory when the first grammar came.
    static FIRST: OnceLock<u64> = OnceLock::new();

    /// Bytes of memory that can be written.
    fn data() -> u64 {
        let found = std::fs::read_to_string("/proc/self/status").ok().and_then(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix("VmData:"))?;
            line.trim().split(' ').next()?.parse::<u64>().ok()
        });
        found.unwrap_or(0) * 1024
    }

    pub(super) fn grown() -> bool {
        data() > FIRST.get_or_init(data) + (TRIAL_BYTES / 4) as u64
    }

    /// From what there is now, memory for one grammar and the stack of its thread; and no file for a process that died.
    pub(super) fn bound() {
        FIRST.get_or_init(data);
        let limit = data() + (TRIAL_BYTES + TRIAL_STACK) as u64;
        let maximum = getrlimit(Resource::Data).maximum;
        let limit = maximum.map_or(limit, |maximum| limit.min(maximum));
        let _ = setrlimit(Resource::Data, Rlimit { current: Some(limit), maximum });
        let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    }
}

/// Where memory cannot be bounded, time bounds it.
#[cfg(not(target_os = "linux"))]
mod os {
    use std::sync::LazyLock;
    use std::time::{Duration, Instant};

    static START: LazyLock<Instant> = LazyLock::new(Instant::now);

    pub(super) fn cpu() -> Duration {
        START.elapsed()
    }

    pub(super) fn bound() {
        let _ = (super::TRIAL_BYTES, super::TRIAL_STACK);
    }

    pub(super) fn grown() -> bool {
        false
    }
}
