//! The server's side of [`super::trial`]: starts the process, asks it, ends it.

use std::io::Read;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};

use super::compile::Words;
use super::trial::{Verdict, read, write};
use crate::limits::{TRIAL_BYTES, TRIAL_CPU, TRIAL_STACK, TRIAL_TIME};

/// How a process is started that does nothing but call [`crate::try_grammars`].
pub type Start = std::sync::Arc<dyn Fn() -> Command + Send + Sync>;

/// Asks processes, which are kept for the next grammar as long as they live.
pub(super) struct Judge {
    start: Start,
    words: Vec<u8>,
    idle: Mutex<Vec<Process>>,
}

/// What is to be told of a grammar that must not be compiled.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Fault {
    /// The grammar's.
    Grammar(String),
    /// Ours, or the machine's.
    Server(String),
}

struct Process {
    child: Child,
    input: ChildStdin,
    verdicts: Receiver<Vec<u8>>,
    asked: usize,
}

/// Grammars after which a process is replaced, so that none grows.
const LIFE: usize = 200;

impl Judge {
    pub(super) fn new(start: Start, words: &Words) -> Self {
        Self { start, words: words.write(), idle: Mutex::new(Vec::new()) }
    }

    /// Whether this grammar (in JSON) can be compiled within the bounds.
    pub(super) fn ask(&self, grammar: &[u8]) -> Result<(), Fault> {
        let idle = self.idle.lock().unwrap_or_else(|error| error.into_inner()).pop();
        // One that has died meanwhile is no verdict, nor is what an old one lacked of memory.
        if let Some(process) = idle
            && let Some(verdict) = self.judge(process, grammar, false)
        {
            return verdict;
        }
        let process = self.start().map_err(|error| {
            Fault::Server(format!("the process that tries grammars cannot be started: {error}"))
        })?;
        self.judge(process, grammar, true)
            .unwrap_or_else(|| Err(Fault::Server("the process that tries grammars has ended".to_owned())))
    }

    fn judge(&self, mut process: Process, grammar: &[u8], fresh: bool) -> Option<Result<(), Fault>> {
        let seconds = TRIAL_CPU.as_secs_f32();
        let slow = || Fault::Grammar(format!("compiling it takes longer than {seconds} s"));
        process.asked += 1;
        let told = match write(&mut process.input, grammar) {
            Ok(()) => process.verdicts.recv_timeout(TRIAL_TIME),
            Err(_) => Err(RecvTimeoutError::Disconnected),
        };
        match told.map(|bytes| serde_json::from_slice::<Verdict>(&bytes)) {
            Ok(Ok(verdict)) => {
                let answer = match verdict {
                    Verdict::Slow => return Some(Err(slow())),
                    Verdict::Fine => Ok(()),
                    Verdict::Wrong(what) => Err(Fault::Grammar(what)),
                };
                if process.asked < LIFE {
                    self.idle.lock().unwrap_or_else(|error| error.into_inner()).push(process);
                }
                Some(answer)
            }
            // The machine is busy: another time it may do.
            Err(RecvTimeoutError::Timeout) => {
                Some(Err(Fault::Server("the grammar could not be compiled in time".to_owned())))
            }
            Ok(Err(_)) => None,
            Err(RecvTimeoutError::Disconnected) => {
                let last = process.last_words();
                if last.contains("overflowed its stack") {
                    let mib = TRIAL_STACK >> 20;
                    Some(Err(Fault::Grammar(format!(
                        "compiling it takes more than {mib} MiB of stack: it nests too deeply"
                    ))))
                } else if last.contains("memory allocation") && fresh {
                    let mib = TRIAL_BYTES >> 20;
                    Some(Err(Fault::Grammar(format!("compiling it takes more than {mib} MiB"))))
                } else {
                    None
                }
            }
        }
    }

    fn start(&self) -> std::io::Result<Process> {
        let mut command = (self.start)();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        #[cfg(unix)]
        {
            // What is typed at a terminal is for the server alone; and what it knows is not for this process.
            std::os::unix::process::CommandExt::process_group(&mut command, 0);
            command.env_clear();
        }
        let mut child = command.spawn()?;
        let gone = || std::io::Error::other("it has no input or output");
        let mut input = child.stdin.take().ok_or_else(gone)?;
        let mut output = child.stdout.take().ok_or_else(gone)?;
        let (sender, verdicts) = sync_channel(1);
        std::thread::Builder::new().name("tern-grammars".to_owned()).spawn(move || {
            while let Some(bytes) = read(&mut output) {
                if sender.send(bytes).is_err() {
                    return;
                }
            }
        })?;
        let written = write(&mut input, &self.words);
        let process = Process { child, input, verdicts, asked: 0 };
        written.map(|()| process)
    }
}

impl Process {
    /// What a process that has ended said last.
    fn last_words(&mut self) -> String {
        let _ = self.child.kill();
        let mut words = Vec::new();
        if let Some(errors) = self.child.stderr.take() {
            let _ = errors.take(1 << 16).read_to_end(&mut words);
        }
        String::from_utf8_lossy(&words).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
