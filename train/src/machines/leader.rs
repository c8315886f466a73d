//! The side that owns the run: it lets workers in and shares the batches of each step with them.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tern_kernels::{Cpu, Pool};

use super::frame::{self, Kind, printable, said};
use super::job::{Job, arithmetic};
use super::proof::{nonce, proof, same};
use super::{GREETING, SILENCE, VERSION};
use crate::error::{Error, Result};
use crate::ops::Machine;
use crate::step::{self, Board, Part, Task};

/// Connections that may be greeted or wait at a time.
const MAX_OPEN: usize = 256;
/// Notes that are kept until somebody reads them.
const MAX_NOTES: usize = 20;
/// How often a new connection is looked for.
const LOOK: Duration = Duration::from_millis(50);

/// What a worker says first.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) version: String,
    /// The arithmetic of each of its instruction sets, by name.
    pub(crate) sets: Vec<(String, u64)>,
    pub(crate) nonce: String,
}

/// What a leader answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Welcome {
    /// That of the run, which one of the worker's sets has too.
    pub(crate) arithmetic: u64,
    pub(crate) nonce: String,
    pub(crate) proof: String,
}

/// Lets workers in for as long as it lives.
#[derive(Debug)]
pub struct Leader {
    address: SocketAddr,
    door: Arc<Door>,
    listening: Option<JoinHandle<()>>,
    /// What workers are told first, once there is a run.
    job: Option<Job>,
    peers: Vec<Peer>,
}

/// What connections are greeted with, and those that were.
#[derive(Debug)]
struct Door {
    token: String,
    arithmetic: u64,
    /// After which a worker that says nothing is lost.
    silence: Duration,
    closed: AtomicBool,
    open: AtomicUsize,
    arrived: Mutex<Vec<Peer>>,
    notes: Mutex<VecDeque<String>>,
}

/// A worker that was let in.
#[derive(Debug)]
pub(crate) struct Peer {
    name: String,
    stream: TcpStream,
    /// The step whose weights it has.
    step: Option<u64>,
    has_job: bool,
    batches: u64,
    /// Why it is no longer there.
    gone: Option<String>,
    /// Counted in as long as it lives.
    _open: Open,
}

/// One of the connections that are counted.
#[derive(Debug)]
struct Open(Arc<Door>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Door {
    fn note(&self, text: String) {
        let mut notes = locked(&self.notes);
        if notes.len() < MAX_NOTES {
            notes.push_back(text);
        }
    }

    /// A connection becomes a worker, or is told why not.
    fn greet(self: &Arc<Self>, stream: TcpStream, open: Open, name: &str) -> io::Result<Peer> {
        let end = Instant::now() + GREETING;
        // On some systems it inherits that the listener does not wait.
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(self.silence))?;
        let refuse = |what: String| {
            let _ = frame::send_json(&stream, Kind::Refused, &what);
            Err(io::Error::new(io::ErrorKind::PermissionDenied, what))
        };
        let hello: Hello = frame::greeting(&stream, Kind::Hello, end)?;
        if hello.version != VERSION {
            return refuse(format!("the worker is Tern {}, the leader {VERSION}", printable(&hello.version)));
        }
        if !hello.sets.iter().any(|(_, arithmetic)| *arithmetic == self.arithmetic) {
            let names: Vec<&str> = hello.sets.iter().map(|(name, _)| name.as_str()).collect();
            return refuse(format!(
                "none of the worker's instruction sets ({}) computes the bits of the leader's {}; a machine that has \
                 avx512 can help one that has not, but cannot be helped by it",
                printable(&names.join(", ")),
                Cpu::best().name()
            ));
        }
        let own = nonce();
        let shown = proof(&self.token, "leader", &hello.nonce, &own);
        let welcome = Welcome { arithmetic: self.arithmetic, proof: shown, nonce: own.clone() };
        frame::send_json(&stream, Kind::Welcome, &welcome)?;
        let shown: String = frame::greeting(&stream, Kind::Proof, end)?;
        if !same(&shown, &proof(&self.token, "worker", &hello.nonce, &own)) {
            return refuse("the worker's token is not the leader's".to_owned());
        }
        stream.set_read_timeout(Some(self.silence))?;
        let name = name.to_owned();
        Ok(Peer { name, stream, step: None, has_job: false, batches: 0, gone: None, _open: open })
    }
}

impl Leader {
    /// Listens there and nowhere else; workers must know the token.
    pub fn listen(address: SocketAddr, token: &str) -> Result<Self> {
        Self::patient(address, token, SILENCE)
    }

    /// The same with workers lost that say nothing for so long.
    pub(crate) fn patient(address: SocketAddr, token: &str, silence: Duration) -> Result<Self> {
        if token.is_empty() && !address.ip().is_loopback() {
            let what = format!(
                "{address} can be reached from other machines: expected a token that workers must know"
            );
            return Err(Error::Input(what));
        }
        let wrong = |e: io::Error| Error::Input(format!("{address}: {e}"));
        let listener = TcpListener::bind(address).map_err(wrong)?;
        let address = listener.local_addr().map_err(wrong)?;
        listener.set_nonblocking(true).map_err(wrong)?;
        let pool = Pool::new(1);
        let door = Arc::new(Door {
            token: token.to_owned(),
            arithmetic: arithmetic(Machine { cpu: Cpu::best(), pool: &pool }),
            silence,
            closed: AtomicBool::new(false),
            open: AtomicUsize::new(0),
            arrived: Mutex::default(),
            notes: Mutex::default(),
        });
        let its = door.clone();
        let listening =
            thread::Builder::new().name("tern-leader".to_owned()).spawn(move || accept(&listener, &its));
        Ok(Self { address, door, listening: Some(listening.map_err(wrong)?), job: None, peers: Vec::new() })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Workers that are let in and have not been lost.
    pub fn workers(&self) -> usize {
        self.peers.len() + locked(&self.door.arrived).len()
    }

    /// The run whose batches are shared from now on.
    pub(crate) fn begin(&mut self, job: Job) {
        self.job = Some(job);
    }

    /// The workers of the next step; `note` hears who came and who was refused.
    pub(crate) fn peers(&mut self, note: &mut dyn FnMut(String)) -> &mut [Peer] {
        for text in std::mem::take(&mut *locked(&self.door.notes)) {
            note(text);
        }
        let arrived = std::mem::take(&mut *locked(&self.door.arrived));
        for mut peer in arrived {
            let Some(job) = &self.job else { break };
            match frame::send_json(&peer.stream, Kind::Job, job) {
                Ok(()) => peer.has_job = true,
                Err(e) => peer.gone = Some(said(&e)),
            }
            if let Some(what) = &peer.gone {
                note(format!("the worker at {} left before it had anything to do: {what}", peer.name));
                continue;
            }
            self.peers.push(peer);
            let (name, count) = (&self.peers[self.peers.len() - 1].name, self.peers.len());
            note(format!("a worker at {name} computes too: {}", machines(count + 1)));
        }
        &mut self.peers
    }

    /// Lets go of those that were lost in the step.
    pub(crate) fn settle(&mut self, step: u64, note: &mut dyn FnMut(String)) {
        let left = self.peers.iter().filter(|peer| peer.gone.is_none()).count() + 1;
        self.peers.retain(|peer| {
            let Some(what) = &peer.gone else { return true };
            note(format!(
                "the worker at {} was lost in step {step} after {} batches ({what}); its batch was computed by another; \
                 {} left",
                peer.name,
                peer.batches,
                machines(left)
            ));
            false
        });
    }

    /// The run is done: workers may go. Says what each did.
    pub(crate) fn finish(&mut self, note: &mut dyn FnMut(String)) {
        for peer in self.peers.drain(..) {
            let _ = frame::send(&peer.stream, Kind::Done, &[], &[]);
            note(format!("the worker at {} computed {} batches", peer.name, peer.batches));
        }
        // Those that came since the last step have nothing to do.
        for peer in std::mem::take(&mut *locked(&self.door.arrived)) {
            let _ = frame::send(&peer.stream, Kind::Done, &[], &[]);
        }
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.door.closed.store(true, Ordering::Relaxed);
        if let Some(thread) = self.listening.take() {
            let _ = thread.join();
        }
    }
}

fn machines(count: usize) -> String {
    if count == 1 { "1 machine".to_owned() } else { format!("{count} machines") }
}

/// Greets each connection on a thread of its own, until the door is closed.
fn accept(listener: &TcpListener, door: &Arc<Door>) {
    while !door.closed.load(Ordering::Relaxed) {
        let Ok((stream, from)) = listener.accept() else {
            thread::sleep(LOOK);
            continue;
        };
        // Beyond this, whoever comes is turned away without a word.
        if door.open.fetch_add(1, Ordering::Relaxed) >= MAX_OPEN {
            door.open.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (open, door) = (Open(door.clone()), door.clone());
        let greeting = thread::Builder::new().name("tern-greeting".to_owned()).spawn(move || {
            let name = from.to_string();
            match door.greet(stream, open, &name) {
                Ok(peer) => locked(&door.arrived).push(peer),
                Err(e) => door.note(format!("{name} was refused: {}", said(&e))),
            }
        });
        drop(greeting);
    }
}

impl step::Peer for Peer {
    fn help(&mut self, task: Task, board: &Board, first: usize) {
        let mut next = Some(first);
        while let Some(nth) = next {
            let mut gradient = board.buffer();
            gradient.resize(task.params.len(), 0.0);
            match self.compute(task, nth, &mut gradient) {
                Ok(loss) => {
                    self.batches += 1;
                    let losses = step::Losses { cross: loss, ..Default::default() };
                    board.done(nth, Part { losses, gradient });
                    next = board.claim();
                }
                Err(e) => {
                    self.gone = Some(said(&e));
                    board.give_back(nth);
                    return;
                }
            }
        }
    }
}

impl Peer {
    fn compute(&mut self, task: Task, nth: usize, gradient: &mut [f32]) -> io::Result<f64> {
        if self.step != Some(task.step) {
            frame::send(&self.stream, Kind::Weights, &task.step.to_le_bytes(), task.params)?;
            self.step = Some(task.step);
        }
        let batch = &task.batches[nth];
        let mut body = Vec::with_capacity(12 + 12 * batch.tokens.len());
        body.extend((nth as u64).to_le_bytes());
        body.extend(task.factor.to_le_bytes());
        for list in [&batch.tokens, &batch.targets, &batch.starts] {
            body.extend(list.iter().flat_map(|value| value.to_le_bytes()));
        }
        frame::send(&self.stream, Kind::Batch, &body, &[])?;
        loop {
            let message = frame::next(&self.stream)?;
            match message.kind {
                Kind::Alive => drop(message.small()?),
                Kind::Refused => return Err(frame::refusal(message)?),
                Kind::Gradient => {
                    let begin: [u8; 16] = message.numbers(gradient)?;
                    let (words, _) = begin.as_chunks::<8>();
                    if u64::from_le_bytes(words[0]) != nth as u64 {
                        return Err(io::Error::new(
                            io::ErrorKind::InvalidData,
                            "the gradient of another batch",
                        ));
                    }
                    return Ok(f64::from_le_bytes(words[1]));
                }
                other => {
                    let what = format!("a message out of turn: {other:?}");
                    return Err(io::Error::new(io::ErrorKind::InvalidData, what));
                }
            }
        }
    }
}
