//! The gradient of a step: each of its batches has one by itself, and these are added up from the first to the last. Who
//! computed a batch, and which was done first, changes no bit of the sum, so that machines can share them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::corpus::Sequences;
use crate::error::Result;
use crate::network::{Gradients, Lesson, Network};
use crate::ops::Machine;
use crate::ops::loss::{NONE, RowLoss};
use crate::pairs::{Pairs, Preferred};
use crate::teacher::Teacher;

/// What a step computes with.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    /// Which step it is; no two of a run have the same parameters.
    pub step: u64,
    /// All weights.
    pub params: &'a [f32],
    /// The batches, in their order.
    pub batches: &'a [Sequences],
    /// What a target's or a pair's loss counts: one over the number of the step's.
    pub factor: f32,
    /// The run's sequence with which the first batch begins.
    pub first: u64,
    /// Sequences of each batch.
    pub each: u64,
}

/// What a step learns from.
#[derive(Debug)]
pub(crate) enum Source<'a> {
    /// Its texts.
    Texts,
    /// Its texts and what a teacher says of them.
    Teacher(&'a mut Teacher),
    /// Its pairs of answers.
    Pairs(&'a Pairs),
}

/// Sums over the targets, or pairs, of a batch or of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Losses {
    /// Cross-entropy; of pairs the loss of DPO.
    pub cross: f64,
    /// `τ²` times the divergence of logits from a teacher's.
    pub divergence: f64,
    /// The divergence of relations from a teacher's.
    pub relation: f64,
    /// What pairs came to.
    pub preferred: Preferred,
}

impl Losses {
    fn add(&mut self, other: Losses) {
        self.cross += other.cross;
        self.divergence += other.divergence;
        self.relation += other.relation;
        self.preferred.add(other.preferred);
    }
}

impl<'a> Task<'a> {
    /// The step of these batches.
    pub fn new(step: u64, params: &'a [f32], batches: &'a [Sequences]) -> Self {
        Self { step, params, batches, factor: 1.0 / count(batches).max(1) as f32, first: 0, each: 0 }
    }
}

/// What a step's loss is the mean over: its pairs, or the tokens that are to be predicted.
pub fn count(batches: &[Sequences]) -> usize {
    let pairs = batches.iter().map(|batch| batch.documents.len()).sum::<usize>() / 2;
    if pairs > 0 { pairs } else { targets(batches) }
}

/// Tokens of these batches that are to be predicted.
fn targets(batches: &[Sequences]) -> usize {
    batches.iter().flat_map(|batch| &batch.targets).filter(|target| **target != NONE).count()
}

/// The sums of a batch's losses, and the gradient into `out` of all that is learnt; [`Network::prepare`] has seen these
/// parameters.
#[expect(clippy::too_many_arguments, reason = "a batch, what it is computed with, and two outputs")]
pub fn batch(
    network: &mut Network,
    on: Machine,
    params: &[f32],
    batch: &Sequences,
    factor: f32,
    lesson: Option<Lesson>,
    losses: &mut Vec<RowLoss>,
    out: &mut Vec<f32>,
) -> Result<Losses> {
    losses.resize(batch.tokens.len(), RowLoss::default());
    out.resize(params.len(), 0.0);
    let back = Gradients { values: out, factor, weights: None, lesson };
    network.run(on, params, batch.into(), losses, Some(back))?;
    let sum = |of: fn(&RowLoss) -> f32| losses.iter().map(|row| f64::from(of(row))).sum();
    Ok(Losses {
        cross: sum(|row| row.loss),
        divergence: sum(|row| row.divergence),
        relation: network.relation(),
        ..Losses::default()
    })
}

/// What a batch came to.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) losses: Losses,
    pub(crate) gradient: Vec<f32>,
}

/// Which batches of a step wait, and which are done.
#[derive(Debug)]
pub(crate) struct Board {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    waiting: BTreeSet<usize>,
    done: BTreeMap<usize, Part>,
    /// Batches whose gradients are in the sum: always the first of them.
    added: usize,
    count: usize,
    spare: Vec<Vec<f32>>,
}

/// What is next for the machine that adds up.
enum Next {
    Add(Part),
    Compute(usize),
    Done,
}

impl Board {
    fn new(count: usize, spare: Vec<Vec<f32>>) -> Self {
        let state = State { waiting: (0..count).collect(), done: BTreeMap::new(), added: 0, count, spare };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first batch that nobody has taken.
    pub(crate) fn claim(&self) -> Option<usize> {
        self.lock().waiting.pop_first()
    }

    /// A batch that was taken is to be computed by another.
    pub(crate) fn give_back(&self, batch: usize) {
        self.lock().waiting.insert(batch);
        self.changed.notify_all();
    }

    pub(crate) fn done(&self, batch: usize, part: Part) {
        self.lock().done.insert(batch, part);
        self.changed.notify_all();
    }

    /// A buffer for a gradient.
    pub(crate) fn buffer(&self) -> Vec<f32> {
        self.lock().spare.pop().unwrap_or_default()
    }

    /// Nobody takes another batch.
    fn close(&self) {
        self.lock().waiting.clear();
    }

    /// What to do next; waits while others compute.
    fn next(&self) -> Next {
        let mut state = self.lock();
        loop {
            let added = state.added;
            if let Some(part) = state.done.remove(&added) {
                state.added += 1;
                return Next::Add(part);
            }
            if added == state.count {
                return Next::Done;
            }
            if let Some(batch) = state.waiting.pop_first() {
                return Next::Compute(batch);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Another machine.
pub(crate) trait Peer: Send {
    /// Computes this batch, then others for as long as there are any. One that is lost gives its batch back, and keeps that
    /// it is lost.
    fn help(&mut self, task: Task, board: &Board, first: usize);
}

/// This machine's part of every step.
#[derive(Debug, Default)]
pub struct Adder {
    losses: Vec<RowLoss>,
    spare: Vec<Vec<f32>>,
}

impl Adder {
    /// The sums of a step's losses, and of its gradients into `sum`; `peers` compute batches too, and those that are lost say
    /// so of themselves. Only texts have peers.
    pub(crate) fn run<P: Peer>(
        &mut self,
        network: &mut Network,
        on: Machine,
        task: Task,
        peers: &mut [P],
        mut source: Source,
        sum: &mut Vec<f32>,
    ) -> Result<Losses> {
        let board = Board::new(task.batches.len(), std::mem::take(&mut self.spare));
        // One to each in turn, the first to this machine, which would have the only one soonest; then as they come.
        let mut mine = board.claim();
        let losses = std::thread::scope(|scope| {
            for peer in peers {
                let (Some(first), board) = (board.claim(), &board) else { break };
                scope.spawn(move || peer.help(task, board, first));
            }
            let mut all = || -> Result<Losses> {
                let mut losses = Losses::default();
                network.prepare(on, task.params)?;
                loop {
                    let next = mine.take().map_or_else(|| board.next(), Next::Compute);
                    match next {
                        Next::Compute(nth) => {
                            let mut gradient = board.buffer();
                            let (rows, out) = (&mut self.losses, &mut gradient);
                            let (of, factor) = (&task.batches[nth], task.factor);
                            let first = task.first + nth as u64 * task.each;
                            let losses = match &mut source {
                                Source::Texts => {
                                    batch(network, on, task.params, of, factor, None, rows, out)?
                                }
                                Source::Teacher(teacher) => {
                                    let lesson = Some(teacher.read(of, first)?);
                                    batch(network, on, task.params, of, factor, lesson, rows, out)?
                                }
                                Source::Pairs(pairs) => {
                                    let sum = pairs.learn(network, on, task.params, of, factor, rows, out)?;
                                    Losses { cross: sum.loss, preferred: sum, ..Losses::default() }
                                }
                            };
                            board.done(nth, Part { losses, gradient });
                        }
                        Next::Add(mut part) => {
                            losses.add(part.losses);
                            match board.lock().added {
                                1 => std::mem::swap(sum, &mut part.gradient),
                                _ => on.add(sum, &part.gradient),
                            }
                            board.lock().spare.push(part.gradient);
                        }
                        Next::Done => return Ok(losses),
                    }
                }
            };
            // Peers must end before this does.
            let losses = all();
            board.close();
            losses
        })?;
        self.spare = board.state.into_inner().unwrap_or_else(PoisonError::into_inner).spare;
        // An empty buffer is no buffer: the first sum had none to swap.
        self.spare.retain(|buffer| !buffer.is_empty());
        Ok(losses)
    }
}
