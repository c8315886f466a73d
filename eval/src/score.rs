//! How likely given tokens are: log-probabilities at many positions, at the speed of a prompt.
//!
//! Items are scored several at a time. Each has a slot, a sequence that outlives it: what an item shares with the one
//! before it in the slot (the examples of a few-shot prompt) is not computed again, and a long beginning that all share
//! is computed once and copied. Only rows that predict an asked token pass the head.

mod greedy;
mod slots;

use std::sync::{Arc, Mutex};

use tern::{Adapter, CHUNK, Error, LogSum, Logits, Model, Result, Row, Scratch, Sequence};

/// What the model thinks of a token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Likelihood {
    /// The natural logarithm of its probability.
    pub logprob: f64,
    /// Whether it is the likeliest of all.
    pub best: bool,
}

/// A beginning, and the ends whose likelihoods are asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// At least one token.
    pub context: Vec<u32>,
    /// At least one token each.
    pub ends: Vec<Vec<u32>>,
}

impl Item {
    /// Positions that its longest end needs.
    pub fn positions(&self) -> usize {
        self.context.len() + self.ends.iter().map(|end| end.len().saturating_sub(1)).max().unwrap_or(0)
    }
}

/// Sums of log-probabilities: a perplexity and its error.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Summary {
    /// Tokens scored.
    pub tokens: usize,
    /// Sum of their negative log-probabilities.
    pub nll: f64,
    /// Sum of the squares.
    pub squares: f64,
}

impl Summary {
    /// Counts one more.
    pub fn add(&mut self, logprob: f64) {
        self.tokens += 1;
        self.nll -= logprob;
        self.squares += logprob * logprob;
    }

    /// Mean negative log-probability.
    pub fn mean(&self) -> f64 {
        self.nll / self.tokens as f64
    }

    /// Its exponential.
    pub fn perplexity(&self) -> f64 {
        self.mean().exp()
    }

    /// The standard error of the perplexity, to first order, taking tokens for independent as llama.cpp does.
    pub fn error(&self) -> f64 {
        let variance = self.squares / self.tokens as f64 - self.mean() * self.mean();
        (variance.max(0.0) / (self.tokens as f64 - 1.0)).sqrt() * self.perplexity()
    }
}

/// One token whose log-probability is asked, and where the answer goes.
#[derive(Clone, Copy, Debug)]
struct Target {
    token: u32,
    item: usize,
    end: usize,
    at: usize,
}

/// Tokens to take through one slot's sequence.
#[derive(Debug)]
struct Job {
    slot: usize,
    tokens: Vec<u32>,
    /// By position within `tokens`, rising.
    targets: Vec<(usize, Target)>,
}

/// Scores texts with a model.
#[derive(Debug)]
pub struct Scorer<'m> {
    model: &'m Model,
    scratch: Scratch,
    slots: Vec<Sequence>,
    /// Rows that went through the model.
    rows: u64,
}

impl<'m> Scorer<'m> {
    /// Scores up to `slots` items side by side.
    pub fn new(model: &'m Model, slots: usize) -> Self {
        let context = model.config().context;
        let slots = (0..slots.max(1)).map(|_| Sequence::new(model, context)).collect();
        Self { model, scratch: Scratch::default(), slots, rows: 0 }
    }

    /// Lets an adapter take part in all texts.
    pub fn with_adapter(mut self, adapter: Option<Arc<Adapter>>) -> Self {
        let with = |slot: Sequence| slot.with_adapter(adapter.clone());
        self.slots = self.slots.into_iter().map(with).collect();
        self
    }

    /// Items scored side by side.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Tokens that went through the model so far; what was shared counts once.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Scores at most as many items as there are slots: for each item, for each end, each of its tokens.
    pub fn score(&mut self, items: &[Item]) -> Result<Vec<Vec<Vec<Likelihood>>>> {
        assert!(items.len() <= self.slots.len(), "{} items in {} slots", items.len(), self.slots.len());
        let context = self.model.config().context;
        for item in items {
            if item.context.is_empty() || item.ends.iter().any(Vec::is_empty) {
                return Err(Error::Input("an empty text has no likelihood".to_owned()));
            }
            if item.positions() > context {
                let what = format!("{} tokens do not fit into a context of {context}", item.positions());
                return Err(Error::Input(what));
            }
        }
        let nothing = Likelihood { logprob: f64::NAN, best: false };
        let mut scores: Vec<Vec<Vec<Likelihood>>> =
            items.iter().map(|item| item.ends.iter().map(|end| vec![nothing; end.len()]).collect()).collect();
        let contexts: Vec<&[u32]> = items.iter().map(|item| &item.context[..]).collect();
        let kept = self.settle(&contexts)?;
        // The last token of a context predicts the first of every end.
        let mut jobs = Vec::with_capacity(items.len());
        for (index, (item, kept)) in items.iter().zip(kept).enumerate() {
            let last = item.context.len() - 1 - kept;
            let target = |(end, tokens): (usize, &Vec<u32>)| {
                (last, Target { token: tokens[0], item: index, end, at: 0 })
            };
            let targets = item.ends.iter().enumerate().map(target).collect();
            jobs.push(Job { slot: index, tokens: item.context[kept..].to_vec(), targets });
        }
        self.run(&jobs, &mut scores)?;
        for nth in 0..items.iter().map(|item| item.ends.len()).max().unwrap_or(0) {
            jobs.clear();
            for (index, item) in items.iter().enumerate() {
                let Some(end) = item.ends.get(nth).filter(|end| end.len() > 1) else { continue };
                self.slots[index].truncate(item.context.len());
                let target = |at: usize| (at - 1, Target { token: end[at], item: index, end: nth, at });
                let targets = (1..end.len()).map(target).collect();
                jobs.push(Job { slot: index, tokens: end[..end.len() - 1].to_vec(), targets });
            }
            self.run(&jobs, &mut scores)?;
        }
        for (slot, item) in self.slots.iter_mut().zip(items) {
            slot.truncate(item.context.len());
        }
        Ok(scores)
    }

    /// Scores `tokens[from..]` given what is before each: one window of a long text, in the first slot.
    pub fn window(&mut self, tokens: &[u32], from: usize) -> Result<Vec<Likelihood>> {
        assert!(0 < from && from < tokens.len(), "from {from} of {}", tokens.len());
        self.slots[0].truncate(0);
        let targets = (from..tokens.len())
            .map(|at| (at - 1, Target { token: tokens[at], item: 0, end: 0, at: at - from }))
            .collect();
        let nothing = Likelihood { logprob: f64::NAN, best: false };
        let mut scores = vec![vec![vec![nothing; tokens.len() - from]]];
        let job = Job { slot: 0, tokens: tokens[..tokens.len() - 1].to_vec(), targets };
        self.run(&[job], &mut scores)?;
        Ok(scores.pop().and_then(|mut ends| ends.pop()).expect("one end of one item"))
    }

    /// Takes jobs through the model, [`CHUNK`] rows at a time, and notes the scores of their targets.
    fn run(&mut self, jobs: &[Job], scores: &mut [Vec<Vec<Likelihood>>]) -> Result<()> {
        let mut rows: Vec<Row> = Vec::with_capacity(CHUNK);
        // Of each row that asks: the targets it predicts.
        let mut asked: Vec<&[(usize, Target)]> = Vec::new();
        for job in jobs {
            let mut rest = &job.targets[..];
            for (at, &token) in job.tokens.iter().enumerate() {
                let count = rest.iter().take_while(|(position, _)| *position == at).count();
                let (mine, later) = rest.split_at(count);
                rest = later;
                let logits = if mine.is_empty() { Logits::None } else { Logits::All };
                if !mine.is_empty() {
                    asked.push(mine);
                }
                rows.push(Row { sequence: job.slot, token, logits });
                if rows.len() == CHUNK {
                    self.pass(&mut rows, &mut asked, scores)?;
                }
            }
        }
        self.pass(&mut rows, &mut asked, scores)
    }

    fn pass(
        &mut self,
        rows: &mut Vec<Row>,
        asked: &mut Vec<&[(usize, Target)]>,
        scores: &mut [Vec<Vec<Likelihood>>],
    ) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let scores = Mutex::new(scores);
        self.model.forward_each(&mut self.scratch, &mut self.slots, rows, |nth, logits| {
            let sum = LogSum::of(logits);
            let mut scores = scores.lock().expect("no panic under this lock");
            for (_, target) in asked[nth] {
                let logprob = sum.logprob(logits[target.token as usize]);
                scores[target.item][target.end][target.at] =
                    Likelihood { logprob, best: sum.best() == target.token };
            }
        })?;
        self.rows += rows.len() as u64;
        rows.clear();
        asked.clear();
        Ok(())
    }
}
