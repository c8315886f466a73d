//! The experiment, top to bottom: data, forward, loss, backward, clip, update, log, sometimes validate, sample and save;
//! at the end the finished model.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tern_kernels::{Cpu, Pool, default_threads};

use crate::checkpoint::{self, State};
use crate::config::Run;
use crate::corpus::{Corpus, Sequences, Size};
use crate::error::{Error, Result};
use crate::evals::Tasks;
use crate::export;
use crate::folder::{checkpoints, finished, finished_adapter};
use crate::forecast::{self, Forecast};
use crate::lock::Lock;
use crate::machines::job::Job;
use crate::machines::leader::Leader;
use crate::metrics::{Evaluation, Metrics, Step, Validation};
use crate::network::{Batch, Network};
use crate::ops::Machine;
use crate::ops::loss::{NONE, RowLoss};
use crate::ops::rope::Angles;
use crate::optimiser::{AdamW, Rates, squares};
use crate::pairs::{Pairs, Preferred};
use crate::params::Kind;
use crate::patience::Patience;
use crate::report;
use crate::start::Start;
use crate::step::{Adder, Source, Task, count};
use crate::teacher::{self, Teacher};
use crate::tensorboard::Events;

/// What a run tells whoever watches.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "plain fields")]
pub enum Event {
    /// A sentence.
    Note(String),
    /// A sentence about what may make the run worth less than it costs.
    Warning(String),
    /// The first step is about to begin.
    Begin {
        step: u64,
        steps: u64,
        params: usize,
        train: Size,
        held_out: Size,
        cpu: &'static str,
        threads: usize,
    },
    /// A step was done.
    Step(Step),
    /// The held-out documents were read.
    Validation(Validation),
    /// A task was put to the model.
    Evaluation(Evaluation),
    /// A continuation of the prompt.
    Sample { step: u64, text: String },
    /// A checkpoint is on the disk.
    Saved(PathBuf),
}

/// How a run ended.
#[derive(Clone, Debug)]
pub enum End {
    /// All steps are done; where the model is.
    Done(PathBuf),
    /// It was asked to stop, and has saved.
    Stopped(PathBuf),
}

/// Trains until all steps are done or `stop` says so, which is asked after every step.
pub fn train(run: &Run, stop: &dyn Fn() -> bool, watch: &mut dyn FnMut(Event)) -> Result<End> {
    lead(run, None, stop, watch)
}

/// The same, on this machine and on those of a leader's workers: to the same bits.
pub fn lead(
    run: &Run,
    mut leader: Option<&mut Leader>,
    stop: &dyn Fn() -> bool,
    watch: &mut dyn FnMut(Event),
) -> Result<End> {
    let alone = [
        ("teacher", run.teacher.is_some()),
        ("quantise_steps", run.quantise_steps > 0),
        ("dpo", run.dpo > 0.0),
    ];
    if let Some((key, _)) = alone.into_iter().find(|(_, given)| leader.is_some() && *given) {
        return Err(Error::key(key, "workers on other machines cannot help with it; leave `--listen` out"));
    }
    teacher::check(run)?;
    let mut tasks = Tasks::open(run)?;
    if let Some(name) = (run.stop_by != "loss").then_some(&run.stop_by).filter(|name| !tasks.has(name)) {
        return Err(Error::key(
            "stop_by",
            format!("\"{name}\": expected loss, or the name of one of `eval_tasks`"),
        ));
    }
    let start = Start::to_train(run)?;
    let end_token = start.end()?;
    // From here on the folder is written to.
    let _lock = Lock::take(&run.out)?;
    let Start { mut config, stages, base, layout, mut params, tokenizer, files, notes } = start;
    if leader.is_some() && base.is_some() {
        return Err(Error::key("lora", "an adapter is trained on one machine: leave `--listen` out"));
    }
    notes.into_iter().for_each(|note| watch(Event::Note(note)));
    let mut corpus = Corpus::open(run, &tokenizer, end_token, &mut |note| watch(Event::Note(note)))?;
    corpus.check_length(run.length)?;
    let threads = if run.threads == 0 { default_threads() } else { run.threads };
    let pool = Pool::new(threads);
    let on = Machine { cpu: Cpu::best(), pool: &pool };
    let mut teacher = match &run.teacher {
        Some(path) => {
            let (theirs, bytes) = teacher::size(path)?;
            let forecast = Forecast::of(run, &config, &layout, Some((&theirs, bytes)))?;
            forecast.check(tern::free_memory())?;
            watch(Event::Note(forecast.text(run.steps, forecast::rate(on))));
            let note = &mut |note| watch(Event::Note(note));
            Some(Teacher::of(run, path, on, &mut corpus, &tokenizer, &config, stop, note)?)
        }
        None => None,
    };
    let quantiser = run.quantiser()?;
    let angles = Angles::new(&config.rope, config.head_dim, run.length);
    let mut network = Network::new(&config, &layout, angles, quantiser, run.recompute);
    if let Some(base) = base {
        network.set_base(on, base);
    }
    network.set_stage(stages, run.steps);
    let pairs = match run.dpo > 0.0 {
        true => {
            let note = &mut |note| watch(Event::Note(note));
            Some(Pairs::of(run, &mut network, on, &params, &mut corpus, stop, note)?)
        }
        false => None,
    };
    let (mut m, mut v) = (vec![0f32; layout.len], vec![0f32; layout.len]);
    let mut grads = Vec::new();
    let dir = checkpoints(run);
    let saved =
        checkpoint::latest(&dir, [&mut params, &mut m, &mut v], &mut |note| watch(Event::Note(note)))?;
    let fresh = State {
        step: 0,
        tokens: 0,
        place: Default::default(),
        params: layout.len,
        seconds: 0.0,
        best: None,
        since: 0,
    };
    let mut state = saved.unwrap_or(fresh);
    run.keep()?.into_iter().for_each(|change| watch(Event::Note(change)));
    let mut metrics = Metrics::open(&run.out, state.step)?;
    let mut events = Events::begin(&run.out.join("tensorboard"), state.step)?;
    let (held_out, chars) = corpus.held_out(run.validation_tokens, run.length)?;
    let patience = Patience::of(run, !held_out.tokens.is_empty(), state.step)?;
    if let Some(leader) = &mut leader {
        leader.begin(Job::new(&config, stages, &layout, run)?);
    }
    let schedule = run.schedule()?;
    let adam = AdamW { beta1: run.beta1, beta2: run.beta2, eps: run.eps };
    let mut batches = vec![Sequences::default(); run.accumulate];
    let mut adder = Adder::default();
    watch(Event::Begin {
        step: state.step,
        steps: run.steps,
        params: layout.trained(),
        train: corpus.size(false),
        held_out: corpus.size(true),
        cpu: on.cpu.name(),
        threads: pool.threads(),
    });
    warnings(run, &corpus, layout.len).into_iter().for_each(|warning| watch(Event::Warning(warning)));
    let mut last_save = Instant::now();
    let save = |state: &State, params: &[f32], m: &[f32], v: &[f32], watch: &mut dyn FnMut(Event)| {
        let path = checkpoint::save(&dir, state, [params, m, v], run.keep)?;
        watch(Event::Saved(path.clone()));
        Ok::<_, Error>(path)
    };

    while state.step < run.steps && !patience.is_over(&state) {
        let begun = Instant::now();
        for batch in &mut batches {
            corpus.next(&mut state.place, run.sequences, run.length, batch)?;
        }
        config.graph.scheme = stages.at(state.step + 1);
        network.set_stage(stages, state.step + 1);
        let mut task = Task::new(state.step + 1, &params, &batches);
        (task.first, task.each) = (state.tokens / run.length as u64, run.sequences as u64);
        let note = &mut |note| watch(Event::Note(note));
        let peers = leader.as_mut().map_or(&mut [][..], |leader| leader.peers(note));
        let source = match (&mut teacher, &pairs) {
            (Some(teacher), _) => Source::Teacher(teacher),
            (None, Some(pairs)) => Source::Pairs(pairs),
            (None, None) => Source::Texts,
        };
        let losses = adder.run(&mut network, on, task, peers, source, &mut grads);
        if let Some(leader) = &mut leader {
            leader.settle(task.step, note);
        }
        let losses = losses.map_err(|e| diverged(&state, &dir, e))?;
        let mean = |sum: f64| sum / count(&batches).max(1) as f64;
        let loss = mean(losses.cross);
        let norm = squares(on, &grads).sqrt();
        if !loss.is_finite() || !norm.is_finite() {
            let what = format!("the loss is {loss} and the norm of its gradient {norm}");
            return Err(diverged(&state, &dir, Error::Diverged(what)));
        }
        let (rate, decay) = schedule.at(state.step);
        let clip = (f64::from(run.clip) / norm).min(1.0) as f32;
        state.step += 1;
        for slice in layout.slices.iter().filter(|slice| slice.kind != Kind::Frozen) {
            let decay = if [Kind::Norm, Kind::Bias].contains(&slice.kind) { 0.0 } else { decay };
            let rates = Rates { rate, decay, clip, step: state.step };
            let at = slice.range.clone();
            adam.step(on, rates, &mut params[at.clone()], &grads[at.clone()], &mut m[at.clone()], &mut v[at]);
        }
        let rows = (run.length * run.sequences * run.accumulate) as u64;
        state.tokens += rows;
        let took = begun.elapsed().as_secs_f64();
        state.seconds += took;
        let step = Step {
            step: state.step,
            tokens: state.tokens,
            epoch: state.place.epoch,
            loss,
            divergence: teacher.as_ref().filter(|_| run.kl > 0.0).map(|_| mean(losses.divergence)),
            relation: teacher.as_ref().filter(|_| run.relation > 0.0).map(|_| mean(losses.relation)),
            preferred: pairs.as_ref().map(|_| mean(losses.preferred.right)),
            margin: pairs.as_ref().map(|_| mean(losses.preferred.margin)),
            rate,
            gradient: norm,
            tokens_per_second: rows as f64 / took,
            seconds: state.seconds,
        };
        if state.step.is_multiple_of(run.log_every) || state.step == run.steps {
            metrics.step(&step)?;
            let mut values = vec![
                ("loss/train", step.loss),
                ("rate", f64::from(step.rate)),
                ("gradient", step.gradient),
                ("tokens_per_second", step.tokens_per_second),
            ];
            values.extend(step.divergence.map(|divergence| ("loss/divergence", divergence)));
            values.extend(step.relation.map(|relation| ("loss/relation", relation)));
            values.extend(step.preferred.map(|preferred| ("pairs/preferred", preferred)));
            values.extend(step.margin.map(|margin| ("pairs/margin", margin)));
            events.scalars(step.step, &values)?;
        }
        watch(Event::Step(step));

        let done = state.step == run.steps;
        let due = |every: u64| every > 0 && step.step.is_multiple_of(every);
        if !held_out.tokens.is_empty() && (due(run.validate_every) || done) {
            // The model as it would be exported: rounded all of the way.
            network.set_share(1.0);
            let found = network
                .prepare(on, &params)
                .and_then(|()| validate(&mut network, on, &params, &held_out, pairs.as_ref(), run));
            let found = found.map_err(|e| diverged(&state, &dir, e))?;
            let bits = found.nats / std::f64::consts::LN_2 / chars.max(1) as f64;
            let shared = |sum: f64| sum / (held_out.documents.len() / 2).max(1) as f64;
            let loss = match pairs {
                Some(_) => shared(found.preferred.loss),
                None => found.nats / found.targets.max(1) as f64,
            };
            let preferred = pairs.as_ref().map(|_| shared(found.preferred.right));
            if patience.task().is_none() {
                patience.see(&mut state, loss, [&params, &m, &v])?;
            }
            let trits = export::shares(on, quantiser, &layout, &params);
            let validation = Validation { step: state.step, loss, bits_per_char: bits, preferred, trits };
            metrics.validation(&validation)?;
            events.scalars(state.step, &[("loss/held_out", loss), ("bits_per_char", bits)])?;
            watch(Event::Validation(validation));
        }
        if (run.ternary || !config.sub_norms) && due(run.sample_every) {
            let text = export::sample(on, run, &config, &layout, &params, &files)?;
            metrics.sample(state.step, &text)?;
            watch(Event::Sample { step: state.step, text });
        }
        if !tasks.is_empty() && (due(run.eval_every) || done) {
            let put = |model: &_, adapter| tasks.put(state.step, model, adapter);
            for found in export::opened(on, run, &config, &layout, &params, &files, put)? {
                metrics.evaluation(&found)?;
                events.scalars(state.step, &[(&format!("tasks/{}", found.task), found.value)])?;
                if patience.task() == Some(&found.task) {
                    patience.see(&mut state, found.value, [&params, &m, &v])?;
                }
                watch(Event::Evaluation(found));
            }
        }
        let over = patience.is_over(&state);
        let stopping = stop();
        let by_time =
            run.save_minutes > 0.0 && last_save.elapsed() > Duration::from_secs_f64(60.0 * run.save_minutes);
        if due(run.save_every) || by_time || done || over || stopping {
            if [&params, &m, &v].into_iter().any(|numbers| !squares(on, numbers).is_finite()) {
                return Err(diverged(&state, &dir, Error::Diverged("a weight is not a number".into())));
            }
            metrics.sync()?;
            let path = save(&state, &params, &m, &v, watch)?;
            last_save = Instant::now();
            if stopping && !done && !over {
                return Ok(End::Stopped(path));
            }
        }
    }
    if let Some(leader) = leader {
        leader.finish(&mut |note| watch(Event::Note(note)));
    }
    if patience.is_over(&state) && state.step < run.steps {
        let what =
            format!("step {}: nothing better came for {} looks, so the run ends", state.step, state.since);
        watch(Event::Note(what));
    }
    if let Some(step) = patience.best([&mut params, &mut m, &mut v])? {
        watch(Event::Note(format!("the best is the model of step {step}")));
    }
    let model = if run.lora.is_some() { finished_adapter(run) } else { finished(run) };
    export::model(on, run, &config, &layout, &params, &files, &model)?;
    report::write(run)?;
    Ok(End::Done(model))
}

/// What may make a run worth less than it costs.
fn warnings(run: &Run, corpus: &Corpus, params: usize) -> Vec<String> {
    let (train, held_out) = (corpus.size(false), corpus.size(true));
    let mut all = Vec::new();
    if held_out.documents == 0 {
        let Size { documents, .. } = train;
        all.push(format!(
            "none of the {documents} documents is held out, so nothing will show when the model learns them by heart; \
             `validation` sets a share aside, `validation_files` whole files"
        ));
    }
    // A model that knows its language already may learn from few.
    if run.from.is_none() && train.tokens < params as u64 {
        let millions = |count: f64| format!("{:.2} M", count / 1e6);
        all.push(format!(
            "{} tokens to train on are few for {} parameters (twenty for each is a common measure): it will learn them \
             by heart; a smaller model (`dim`, `layers`, `hidden`) or more text helps",
            millions(train.tokens as f64),
            millions(params as f64)
        ));
    }
    all
}

/// What to say when the numbers have left the range; nothing is saved.
fn diverged(state: &State, dir: &Path, error: Error) -> Error {
    let last = match checkpoint::list(dir).first() {
        Some((step, _)) => format!("the checkpoint of step {step} is whole"),
        None => "there is no checkpoint yet".to_owned(),
    };
    Error::Diverged(format!(
        "step {}: {error}; training has stopped, {last}; a lower `rate` may help",
        state.step + 1
    ))
}

/// Sums over held-out tokens.
#[derive(Clone, Copy, Debug, Default)]
pub struct Found {
    /// Losses.
    pub nats: f64,
    /// Tokens that were predicted.
    pub targets: u64,
    /// Of these, those whose logit was the largest.
    pub tops: u64,
    /// What pairs came to.
    pub preferred: Preferred,
}

/// Reads sequences without learning; [`Network::prepare`] has seen these parameters.
pub fn validate(
    network: &mut Network,
    on: Machine,
    params: &[f32],
    data: &Sequences,
    pairs: Option<&Pairs>,
    run: &Run,
) -> Result<Found> {
    let rows = run.length * run.sequences;
    let mut found = Found::default();
    let mut losses = vec![RowLoss::default(); rows];
    let parts = data.tokens.chunks(rows).zip(data.targets.chunks(rows)).zip(data.starts.chunks(rows));
    for (nth, ((tokens, targets), starts)) in parts.enumerate() {
        let losses = &mut losses[..tokens.len()];
        network.run(on, params, Batch { tokens, targets, starts }, losses, None)?;
        for (row, target) in losses.iter().zip(targets).filter(|(_, target)| **target != NONE) {
            found.nats += f64::from(row.loss);
            found.targets += 1;
            found.tops += u64::from(row.top == *target);
        }
        if let Some(pairs) = pairs {
            let documents = data.documents.chunks(run.sequences).nth(nth).unwrap_or_default();
            found.preferred.add(pairs.look(documents, losses));
        }
    }
    Ok(found)
}
