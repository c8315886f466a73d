//! The side that computes: it holds weights and a gradient, no data, and nothing that is lost with it.

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use tern_kernels::{Cpu, Pool, default_threads};

use super::frame::{self, Kind, said};
use super::job::{Job, arithmetic};
use super::leader::{Hello, Welcome};
use super::proof::{nonce, proof, same};
use super::{ALIVE, BETWEEN, GREETING, SILENCE, VERSION};
use crate::corpus::Sequences;
use crate::error::{Error, Result};
use crate::network::Network;
use crate::ops::Machine;
use crate::ops::loss::RowLoss;
use crate::stages::Stages;
use crate::step;

/// How long to wait before a leader that is not there is tried again.
const AGAIN: Duration = Duration::from_millis(500);
/// How often a worker that waits looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(200);

/// A worker.
#[derive(Clone, Debug)]
pub struct Worker {
    /// Where the leader listens: `host:port`.
    pub address: String,
    /// What the leader's token is.
    pub token: String,
    /// 0 for all physical cores.
    pub threads: usize,
    /// How long a leader that is not there is looked for, at first and after it was lost.
    pub patience: Duration,
}

/// What happened while a worker met a leader.
enum End {
    /// The run is done.
    Done,
    /// The worker was told to stop.
    Stopped,
    /// The leader is lost.
    Lost(io::Error),
}

impl Worker {
    /// Computes for a leader until its run is done or `stop` says so; gives the number of batches. A leader that is lost is
    /// looked for again.
    pub fn run(&self, stop: &dyn Fn() -> bool, watch: &mut dyn FnMut(String)) -> Result<u64> {
        let threads = if self.threads == 0 { default_threads() } else { self.threads };
        let pool = Pool::new(threads);
        // The best first: all that this machine can compute as.
        let sets: Vec<(Cpu, u64)> = Cpu::available()
            .into_iter()
            .rev()
            .map(|cpu| (cpu, arithmetic(Machine { cpu, pool: &pool })))
            .collect();
        let (mut since, mut batches, mut told) = (Instant::now(), 0, false);
        let wrong = |what: String| Error::Input(format!("{}: {what}", self.address));
        while !stop() {
            let lost = match self.meet(&sets) {
                Ok((stream, cpu)) => {
                    let on = Machine { cpu, pool: &pool };
                    told = false;
                    watch(format!("let in by {}; {}, {threads} threads", self.address, cpu.name()));
                    let end = work(on, &stream, stop, watch, &mut batches).map_err(wrong)?;
                    since = Instant::now();
                    match end {
                        End::Done | End::Stopped => return Ok(batches),
                        End::Lost(e) => e,
                    }
                }
                // What will be the same again: another version, another token, no leader at all.
                Err(e)
                    if [io::ErrorKind::PermissionDenied, io::ErrorKind::InvalidData].contains(&e.kind()) =>
                {
                    return Err(wrong(e.to_string()));
                }
                Err(e) => e,
            };
            if since.elapsed() >= self.patience {
                let seconds = self.patience.as_secs();
                return Err(wrong(format!("no leader for {seconds} seconds: {}", said(&lost))));
            }
            if !std::mem::replace(&mut told, true) {
                watch(format!("{}: {}; trying again", self.address, said(&lost)));
            }
            thread::sleep(AGAIN.min(self.patience));
        }
        Ok(batches)
    }

    /// Is let in by the leader, to compute as it does.
    fn meet(&self, sets: &[(Cpu, u64)]) -> io::Result<(TcpStream, Cpu)> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "no such address");
        let mut found = None;
        for address in self.address.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, GREETING) {
                Ok(stream) => {
                    found = Some(stream);
                    break;
                }
                Err(e) => last = e,
            }
        }
        let stream = found.ok_or(last)?;
        let end = Instant::now() + GREETING;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(SILENCE))?;
        let own = nonce();
        let names = sets.iter().map(|(cpu, arithmetic)| (cpu.name().to_owned(), *arithmetic)).collect();
        let hello = Hello { version: VERSION.to_owned(), sets: names, nonce: own.clone() };
        frame::send_json(&stream, Kind::Hello, &hello)?;
        let welcome: Welcome = frame::greeting(&stream, Kind::Welcome, end)?;
        let shown = proof(&self.token, "worker", &own, &welcome.nonce);
        frame::send_json(&stream, Kind::Proof, &shown)?;
        // Whoever does not know the token gets no work out of this machine.
        if !same(&welcome.proof, &proof(&self.token, "leader", &own, &welcome.nonce)) {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the leader's token is another one"));
        }
        let cpu = sets.iter().find(|(_, arithmetic)| *arithmetic == welcome.arithmetic).map(|(cpu, _)| *cpu);
        let cpu = cpu.ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "the leader's arithmetic is unknown")
        })?;
        Ok((stream, cpu))
    }
}

/// What a worker holds of a run.
struct Room {
    job: Job,
    stages: Stages,
    network: Network,
    params: Vec<f32>,
    has_weights: bool,
    gradient: Vec<f32>,
    losses: Vec<RowLoss>,
}

impl Room {
    fn new(job: Job) -> Result<Self, String> {
        let ((network, count), stages) = (job.network()?, job.stages()?);
        let mut buffers = [Vec::new(), Vec::new()];
        for buffer in &mut buffers {
            let room: Result<(), _> = buffer.try_reserve_exact(count);
            room.map_err(|_| format!("not enough memory for {count} parameters and their gradient"))?;
            buffer.resize(count, 0.0);
        }
        let [params, gradient] = buffers;
        Ok(Self { job, stages, network, params, has_weights: false, gradient, losses: Vec::new() })
    }

    /// The batch of a message, its number and what a target's loss counts.
    fn batch(&self, body: &[u8]) -> Result<(u64, f32, Sequences), String> {
        let rows = self.job.rows();
        let (Some((number, rest)), true) = (body.split_first_chunk::<8>(), self.has_weights) else {
            return Err("a batch before its weights".to_owned());
        };
        let (words, rest) = rest.as_chunks::<4>();
        if !rest.is_empty() || words.len() != 1 + 3 * rows {
            return Err(format!("a batch of {} bytes", body.len()));
        }
        let mut lists =
            words[1..].chunks(rows).map(|list| list.iter().map(|&word| u32::from_le_bytes(word)).collect());
        let mut list = || lists.next().unwrap_or_default();
        let batch = Sequences { tokens: list(), targets: list(), starts: list(), ..Default::default() };
        self.job.check(&batch)?;
        Ok((u64::from_le_bytes(*number), f32::from_le_bytes(words[0]), batch))
    }
}

/// Computes what one leader asks for. An error is what cannot be mended by coming again.
fn work(
    on: Machine,
    stream: &TcpStream,
    stop: &dyn Fn() -> bool,
    watch: &mut dyn FnMut(String),
    batches: &mut u64,
) -> Result<End, String> {
    let mut room: Option<Room> = None;
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut turn = || -> io::Result<Result<Option<End>, String>> {
        if !wait(stream, stop)? {
            return Ok(Ok(Some(End::Stopped)));
        }
        let message = frame::next(stream)?;
        match (message.kind, &mut room) {
            (Kind::Done, _) => return Ok(Ok(Some(End::Done))),
            (Kind::Job, _) => {
                let made = message.json().map(Room::new)?;
                let made = match made {
                    Ok(made) => made,
                    Err(what) => {
                        let what = format!("the leader's run cannot be computed here: {what}");
                        let _ = frame::send_json(stream, Kind::Refused, &what);
                        return Ok(Err(what));
                    }
                };
                watch(format!("{:.2} M parameters", made.params.len() as f64 / 1e6));
                room = Some(made);
            }
            (Kind::Weights, Some(room)) => {
                room.has_weights = false;
                let step = u64::from_le_bytes(message.numbers(&mut room.params)?);
                room.network.set_stage(room.stages, step);
                if let Err(e) = room.network.prepare(on, &room.params) {
                    let _ = frame::send_json(stream, Kind::Refused, &e.to_string());
                    return Err(bad(&e.to_string()));
                }
                room.has_weights = true;
            }
            (Kind::Batch, Some(room)) => {
                let body = message.bytes(12 + 12 * room.job.rows())?;
                let (number, factor, batch) = room.batch(&body).map_err(|what| bad(&what))?;
                let Room { network, params, gradient, losses, .. } = room;
                let loss = while_alive(stream, || {
                    step::batch(network, on, params, &batch, factor, None, losses, gradient)
                });
                let loss = match loss {
                    Ok(loss) => loss,
                    Err(e) => {
                        let _ = frame::send_json(stream, Kind::Refused, &e.to_string());
                        return Err(bad(&e.to_string()));
                    }
                };
                let begin = [number.to_le_bytes(), loss.cross.to_le_bytes()].concat();
                frame::send(stream, Kind::Gradient, &begin, gradient)?;
                *batches += 1;
            }
            (kind, _) => return Err(bad(&format!("a message out of turn: {kind:?}"))),
        }
        Ok(Ok(None))
    };
    loop {
        match turn() {
            Ok(Ok(None)) => {}
            Ok(Ok(Some(end))) => return Ok(end),
            Ok(Err(what)) => return Err(what),
            Err(e) => return Ok(End::Lost(e)),
        }
    }
}

/// Waits for the beginning of a message; `false` if the worker is to stop.
fn wait(stream: &TcpStream, stop: &dyn Fn() -> bool) -> io::Result<bool> {
    let begun = Instant::now();
    stream.set_read_timeout(Some(LOOK))?;
    loop {
        match stream.peek(&mut [0]) {
            Ok(_) => break,
            Err(e) if [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut].contains(&e.kind()) => {
                if stop() {
                    return Ok(false);
                }
                if begun.elapsed() > BETWEEN {
                    return Err(e);
                }
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    stream.set_read_timeout(Some(SILENCE))?;
    Ok(true)
}

/// Computes while another thread tells the leader now and then that this machine lives.
fn while_alive<T>(stream: &TcpStream, compute: impl FnOnce() -> T) -> T {
    let (done, told) = channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            while told.recv_timeout(ALIVE) == Err(RecvTimeoutError::Timeout) {
                if frame::send(stream, Kind::Alive, &[], &[]).is_err() {
                    break;
                }
            }
        });
        let result = compute();
        drop(done);
        result
    })
}
