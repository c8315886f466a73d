//! What was trained is what runs: a model file in the engine against the trainer's own forward pass, token by token over the
//! held-out documents.
//!
//! The weights come first: every trit, scale and norm of the file must be the run's to the bit, and the embedding and the
//! head too but for the rounding of their encoding. Then the trainer takes these from the file, and both sides must come to
//! the same figures: up to sums of floats in another order, which now and then round an activation the other way.

use tern::Encoding;
use tern::file::File;
use tern::{KvFormat, Logits, Model, Row, Scheme, Scratch, Sequence};
use tern_convert::masters::Masters;
use tern_kernels::{Cpu, Pool, Scales, default_threads};

use crate::config::Run;
use crate::corpus::{Corpus, Sequences};
use crate::error::{Error, Result};
use crate::export;
use crate::lock::Lock;
use crate::metrics::{self, Line};
use crate::network::{Batch, Network};
use crate::ops::Machine;
use crate::ops::loss::{NONE, RowLoss};
use crate::ops::quantiser::Quantiser;
use crate::ops::rope::Angles;
use crate::params::{Kind, Slice};
use crate::start::Start;

/// Both sides of the comparison.
#[derive(Clone, Debug)]
pub struct Check {
    /// Of the checkpoint that the trainer's side read.
    pub step: u64,
    /// How the file stores the embedding.
    pub embedding: Encoding,
    /// Tokens that were predicted.
    pub tokens: u64,
    /// Characters that they make.
    pub chars: u64,
    /// The loss that the run wrote down at this step, if it validated then.
    pub recorded: Option<f64>,
    /// The trainer's mean loss with its own embedding, in nats.
    pub unrounded: f64,
    /// The trainer's mean loss with the file's embedding.
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

    /// How far the perplexities of the same weights may lie apart, as a share of them. An activation that is rounded the
    /// other way moves the loss of a token by some thousandths, and of many tokens the mean is moved by less: 7e-4 on 85
    /// tokens of story, 2e-4 on 1,100, 1e-5 on 90,000.
    pub fn tolerance(&self) -> f64 {
        5e-5 + 0.03 / (self.tokens.max(1) as f64).sqrt()
    }

    /// Whether the perplexities are as near as they must be.
    pub fn is_equal(&self) -> bool {
        ((self.engine - self.trainer).exp() - 1.0).abs() < self.tolerance()
    }
}

/// Compares a model and its file with the latest checkpoint of `run`.
pub fn check(run: &Run, file: &File, model: &Model, note: &mut dyn FnMut(String)) -> Result<Check> {
    if run.lora.is_some() {
        let what = "the run trains an adapter: `tern eval ppl --adapter` gives its figures in the engine";
        return Err(Error::key("lora", what));
    }
    let (mut start, step) = export::trained(run, note)?;
    let (theirs, ours) = (model.config(), &start.config);
    let sizes = |c: &tern::Config| [c.vocab, c.dim, c.layers, c.hidden, c.heads, c.kv_heads, c.head_dim];
    if sizes(theirs) != sizes(ours) {
        let text = |c: &tern::Config| format!("{} tokens, {} wide, {} layers", c.vocab, c.dim, c.layers);
        return Err(Error::Input(format!("the model has {}, the run {}", text(theirs), text(ours))));
    }
    let schemes = [theirs.graph.scheme, ours.graph.scheme].map(Scheme::name);
    if schemes[0] != schemes[1] {
        let what = format!("the model has activations of {}, the run of {}", schemes[0], schemes[1]);
        return Err(Error::Input(what));
    }
    let end = start.end()?;
    // A corpus that must be made again is written into the folder.
    let _lock =
        if Corpus::is_there(run, &start.tokenizer, end)? { None } else { Some(Lock::take(&run.out)?) };
    let mut corpus = Corpus::open(run, &start.tokenizer, end, note)?;
    let (data, chars) = corpus.held_out(run.validation_tokens, run.length)?;
    if data.tokens.is_empty() {
        return Err(Error::key("validation", "no documents are held out, so there is nothing to compare on"));
    }
    let recorded = metrics::read(&run.out)?.into_iter().rev().find_map(|line| match line {
        Line::Validation(found) if found.step == step && run.dpo == 0.0 => Some(found.loss),
        _ => None,
    });
    let is_target = |target: &&u32| **target != NONE;
    let tokens = data.targets.iter().filter(is_target).count() as u64;
    let mean = |rows: &[RowLoss]| rows.iter().map(|row| f64::from(row.loss)).sum::<f64>() / tokens as f64;
    let threads = if run.threads == 0 { default_threads() } else { run.threads };
    let pool = Pool::new(threads);
    let on = Machine { cpu: Cpu::best(), pool: &pool };
    let unchanged = start.params.clone();
    let embedding = take(file, &mut start, run.quantiser()?, on)?;
    let rows = trainers(run, &start, model.kv(), &data, on)?;
    let is_rounded = start.params != unchanged;
    start.params = unchanged;
    let unrounded =
        if is_rounded { mean(&trainers(run, &start, model.kv(), &data, on)?) } else { mean(&rows) };
    let trainer = mean(&rows);
    let mut check = Check {
        step,
        embedding,
        tokens,
        chars,
        recorded,
        unrounded,
        trainer,
        engine: 0.0,
        others: 0,
        widest: 0.0,
    };
    engines(run, model, &data, &rows, &mut check)?;
    Ok(check)
}

/// How far rounding to an encoding may move numbers of a row: a share of the number itself, and one of the largest of
/// its block.
fn rounding(encoding: Encoding) -> Option<(f32, f32)> {
    match encoding {
        Encoding::F32 => Some((0.0, 0.0)),
        // Half of the last of 11 bits; below 6e-5 the steps are 6e-8, which the second part does not cover.
        Encoding::F16 => Some((f32::powi(0.5, 11), 0.0)),
        // The last of 8 bits, so that cutting off counts as rounding too.
        Encoding::Bf16 => Some((f32::powi(0.5, 7), 0.0)),
        // Half a step of 127, and the step itself is rounded to f16.
        Encoding::Q8_0 => Some((f32::powi(0.5, 10), 0.51 / 127.0)),
        _ => None,
    }
}

/// Holds every weight of the file against the run's, and takes the embedding, and the head where it is another, as the file
/// has them; the encoding of the embedding.
fn take(file: &File, start: &mut Start, quantiser: Quantiser, on: Machine) -> Result<Encoding> {
    let masters = Masters::of(file)?;
    let Start { layout, params, .. } = start;
    let mut embedding = Encoding::F32;
    for slice in &layout.slices {
        let ours = &mut params[slice.range.clone()];
        let wrong = |what: String| {
            let what = format!("{}: {what}: not the model of the run's latest checkpoint", slice.name);
            Err(Error::file(&file.path, what))
        };
        let different = match slice.kind {
            Kind::Matrix => matrix(&masters, slice, ours, quantiser, on)?,
            Kind::Norm | Kind::Bias | Kind::Frozen | Kind::Adapter => floats(&masters, slice, ours, None)?,
            Kind::Embedding => {
                let encoding = masters.encoding(&slice.name).unwrap_or(Encoding::F32);
                if slice.range == layout.embedding {
                    embedding = encoding;
                }
                let Some(limits) = rounding(encoding) else {
                    return wrong(format!("{encoding}, expected F32, F16, BF16 or Q8_0 to compare with"));
                };
                floats(&masters, slice, ours, Some(limits))?
            }
        };
        if let Some(what) = different {
            return wrong(what);
        }
    }
    Ok(embedding)
}

/// What is different in a ternary matrix: trits and scales where the file has those, else its floats.
fn matrix(
    masters: &Masters,
    slice: &Slice,
    ours: &mut [f32],
    quantiser: Quantiser,
    on: Machine,
) -> Result<Option<String>> {
    let mut theirs = vec![0i8; ours.len()];
    let Some(scales) = masters.trits(&slice.name, slice.rows, &mut theirs)? else {
        return floats(masters, slice, ours, None);
    };
    let mut own = vec![0i8; ours.len()];
    let own_scales = quantiser.trits(on, ours, slice.cols, &mut own);
    let others = own.iter().zip(&theirs).filter(|(a, b)| a != b).count();
    if others > 0 {
        return Ok(Some(format!("{others} of {} weights are others than the run's", own.len())));
    }
    // The file may have fewer scales that say the same, and one of zeros says nothing.
    let weights = own.iter().enumerate().filter(|(_, trit)| **trit != 0);
    let found = weights.map(|(at, _)| (at / slice.cols, at % slice.cols)).find_map(|(row, col)| {
        let at = |scales: &Scales| scales.at(row, col, slice.cols);
        let (theirs, ours) = (at(&scales), at(&own_scales));
        (theirs != ours).then(|| match own_scales {
            Scales::One(_) => format!("the scale is {theirs}, where the run has {ours}"),
            _ => format!("the scale in row {row}, column {col} is {theirs}, where the run has {ours}"),
        })
    });
    Ok(found)
}

/// What is different in a tensor of floats by more than rounding may do; takes those of the file.
fn floats(
    masters: &Masters,
    slice: &Slice,
    ours: &mut [f32],
    limits: Option<(f32, f32)>,
) -> Result<Option<String>> {
    /// Numbers of Q8_0 that share a step.
    const BLOCK: usize = 32;
    let mut theirs = vec![0f32; ours.len()];
    masters.read(&slice.name, slice.rows, &mut theirs)?;
    let (own, of_block) = limits.unwrap_or_default();
    // The smallest numbers of f16 are this far apart.
    let least = if own > 0.0 { 1e-7 } else { 0.0 };
    for (nth, (ours, theirs)) in ours.chunks(BLOCK).zip(theirs.chunks(BLOCK)).enumerate() {
        let most = ours.iter().fold(0f32, |most, x| most.max(x.abs()));
        for (a, b) in ours.iter().zip(theirs) {
            let limit = own * a.abs() + of_block * most + least;
            // A number that is none is never within it.
            let is_near = (a - b).abs() <= limit;
            if !is_near {
                let row = nth * BLOCK / slice.cols;
                return Ok(Some(format!(
                    "{b} in row {row}, where the run has {a}, at most {limit:.1e} away"
                )));
            }
        }
    }
    ours.copy_from_slice(&theirs);
    Ok(None)
}

/// A row of losses for each held-out token, with keys and values rounded as the engine's cache does.
fn trainers(run: &Run, start: &Start, kv: KvFormat, data: &Sequences, on: Machine) -> Result<Vec<RowLoss>> {
    let angles = Angles::new(&start.config.rope, start.config.head_dim, run.length);
    let mut network = Network::new(&start.config, &start.layout, angles, run.quantiser()?, false);
    network.set_kv(kv);
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
