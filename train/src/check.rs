//! What was trained is what runs: a model file in the engine against the trainer's own forward pass, token by token over the
//! held-out documents.

use tern::{Logits, Model, Row, Scratch, Sequence};
use tern_kernels::{Cpu, Pool, default_threads};

use crate::config::Run;
use crate::corpus::{Corpus, Sequences};
use crate::error::{Error, Result};
use crate::export;
use crate::metrics::{self, Line};
use crate::network::{Batch, Network};
use crate::ops::Machine;
use crate::ops::loss::{NONE, RowLoss};
use crate::run::Start;

/// Both sides of the comparison.
#[derive(Clone, Debug)]
pub struct Check {
    /// Of the checkpoint that the trainer's side read.
    pub step: u64,
    /// Tokens that were predicted.
    pub tokens: u64,
    /// Characters that they make.
    pub chars: u64,
    /// The loss that the run wrote down at this step, if it validated then.
    pub recorded: Option<f64>,
    /// The trainer's mean loss, in nats.
    pub trainer: f64,
    /// The engine's.
    pub engine: f64,
    /// Tokens where the likeliest one is another.
    pub others: u64,
    /// Of these, the furthest that the engine puts its own choice before the trainer's, in logits: how wide a tie was.
    pub widest: f32,
}

impl Check {
    /// Bits per character of a mean loss.
    pub fn bits_per_char(&self, loss: f64) -> f64 {
        loss * self.tokens as f64 / std::f64::consts::LN_2 / self.chars.max(1) as f64
    }

    /// Whether the perplexities are equal to four digits.
    pub fn is_equal(&self) -> bool {
        ((self.engine - self.trainer).exp() - 1.0).abs() < 5e-5
    }
}

/// Compares `model` with the latest checkpoint of `run`.
pub fn check(run: &Run, model: &Model, note: &mut dyn FnMut(String)) -> Result<Check> {
    let (start, step) = export::trained(run, note)?;
    let (theirs, ours) = (model.config(), &start.config);
    if (theirs.vocab, theirs.dim, theirs.layers) != (ours.vocab, ours.dim, ours.layers) {
        let sizes = |c: &tern::Config| format!("{} tokens, {} wide, {} layers", c.vocab, c.dim, c.layers);
        return Err(Error::Input(format!("the model has {}, the run {}", sizes(theirs), sizes(ours))));
    }
    let mut corpus = Corpus::open(run, &start.tokenizer, start.end()?, note)?;
    let (data, chars) = corpus.held_out(run.validation_tokens, run.length)?;
    if data.tokens.is_empty() {
        return Err(Error::key("validation", "no documents are held out, so there is nothing to compare on"));
    }
    let rows = trainers(run, &start, &data)?;
    let recorded = metrics::read(&run.out)?.into_iter().rev().find_map(|line| match line {
        Line::Validation(found) if found.step == step => Some(found.loss),
        _ => None,
    });
    let is_target = |target: &&u32| **target != NONE;
    let tokens = data.targets.iter().filter(is_target).count() as u64;
    let trainer = rows.iter().map(|row| f64::from(row.loss)).sum::<f64>() / tokens as f64;
    let mut check = Check { step, tokens, chars, recorded, trainer, engine: 0.0, others: 0, widest: 0.0 };
    engines(run, model, &data, &rows, &mut check)?;
    Ok(check)
}

/// A row of losses for each held-out token.
fn trainers(run: &Run, start: &Start, data: &Sequences) -> Result<Vec<RowLoss>> {
    let threads = if run.threads == 0 { default_threads() } else { run.threads };
    let pool = Pool::new(threads);
    let on = Machine { cpu: Cpu::best(), pool: &pool };
    let mut network = Network::new(&start.config, &start.layout, run.length, run.ternary, false);
    network.prepare(on, &start.params)?;
    let mut losses = vec![RowLoss::default(); data.tokens.len()];
    let size = run.length * run.sequences;
    let parts = data.tokens.chunks(size).zip(data.targets.chunks(size)).zip(data.starts.chunks(size));
    for (((tokens, targets), starts), losses) in parts.zip(losses.chunks_mut(size)) {
        network.run(on, &start.params, Batch { tokens, targets, starts }, losses, None)?;
    }
    Ok(losses)
}

/// The same tokens through the engine.
fn engines(run: &Run, model: &Model, data: &Sequences, rows: &[RowLoss], check: &mut Check) -> Result<()> {
    let vocab = model.config().vocab;
    let mut scratch = Scratch::default();
    let mut nats = 0f64;
    let sequences = data.tokens.chunks(run.length).zip(data.targets.chunks(run.length));
    for ((tokens, targets), rows) in sequences.zip(rows.chunks(run.length)) {
        let wanted = |target: u32| if target == NONE { Logits::None } else { Logits::All };
        let asked: Vec<Row> = tokens
            .iter()
            .zip(targets)
            .map(|(&token, &target)| Row { sequence: 0, token, logits: wanted(target) })
            .collect();
        let mut sequences = [Sequence::new(model, run.length)];
        let logits = model.forward(&mut scratch, &mut sequences, &asked)?;
        let known = targets.iter().zip(rows).filter(|(target, _)| **target != NONE);
        for (logits, (&target, row)) in logits.chunks(vocab).zip(known) {
            let top = logits.iter().fold(f32::NEG_INFINITY, |top, x| top.max(*x));
            let sum: f64 = logits.iter().map(|x| f64::from(x - top).exp()).sum();
            nats += sum.ln() + f64::from(top - logits[target as usize]);
            let lead = top - logits[row.top as usize];
            check.others += u64::from(lead > 0.0);
            check.widest = check.widest.max(lead);
        }
    }
    check.engine = nats / check.tokens as f64;
    Ok(())
}
