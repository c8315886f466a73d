//! The trained model in files that the engine reads.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;
use tern::{Adapter, Generation, Model, Options, Sampling, Specials, Tokenizer};
use tern_convert::Files;
use tern_convert::adapter::{NewAdapter, write_adapter};
use tern_convert::masters::{Weights, write_masters};
use tern_kernels::{Cpu, Pool};

use crate::checkpoint;
use crate::config::Run;
use crate::error::{Error, Result};
use crate::folder::{best, checkpoints};
use crate::lora::{Lora, short_name};
use crate::ops::Machine;
use crate::ops::lora::Pair;
use crate::ops::quantiser::Quantiser;
use crate::params::{Kind, Layout, Slice};
use crate::start::{Start, open};

/// Writes what was trained: an adapter, or a whole model.
pub fn model(
    on: Machine,
    run: &Run,
    config: &tern::Config,
    layout: &Layout,
    params: &[f32],
    files: &Files,
    out: &Path,
) -> Result<()> {
    match run.lora()? {
        Some(lora) => adapter(run, &lora, layout, params, out),
        None => masters(on, run, config, layout, params, files, out),
    }
}

/// Writes an adapter in PEFT's layout, in the place of an older one.
fn adapter(run: &Run, lora: &Lora, layout: &Layout, params: &[f32], out: &Path) -> Result<()> {
    if out.join(tern::adapter::SETTINGS).exists() {
        std::fs::remove_dir_all(out).map_err(|e| Error::io(out, e))?;
    }
    let mut pairs = Vec::new();
    for (layer, block) in layout.blocks.iter().enumerate() {
        for (projection, pair) in block.adapters.iter().enumerate() {
            if let Some(Pair { a, b, .. }) = pair {
                pairs.push((layer, projection, &params[a.clone()], &params[b.clone()]));
            }
        }
    }
    let base = run.from.as_ref().map_or(String::new(), |from| from.display().to_string());
    let targets = (0..7).filter(|&projection| lora.targets[projection]).map(short_name).collect();
    let new = NewAdapter { base, rank: lora.rank, alpha: lora.alpha, targets, pairs };
    Ok(write_adapter(out, &new)?)
}

/// Writes a Hugging Face directory in the place of an older one: of masters where a matrix has one scale, which the engine and
/// `transformers` round as training did. Nobody rounds by row or group when a model is loaded, so such weights are
/// written as what they are rounded to, floats that are ternary, as Bonsai's "unpacked" checkpoints are.
pub fn masters(
    on: Machine,
    run: &Run,
    config: &tern::Config,
    layout: &Layout,
    params: &[f32],
    files: &Files,
    out: &Path,
) -> Result<()> {
    if !run.ternary && config.sub_norms {
        // Floats with sub-norms are masters in every file: nobody would run them as they are.
        return Ok(());
    }
    let more = if run.raw_prompt { vec![(tern::keys::PROMPT, json!("raw"))] } else { Vec::new() };
    if out.join("config.json").exists() {
        std::fs::remove_dir_all(out).map_err(|e| Error::io(out, e))?;
    }
    let quantiser = run.quantiser()?;
    if !quantiser.is_weight_only() {
        let weights = if run.ternary { Weights::Masters } else { Weights::Floats };
        return Ok(write_masters(out, config, weights, &layout.masters(params), &more, files)?);
    }
    let (mut values, mut room, mut trits) = (params.to_vec(), Vec::new(), Vec::new());
    for slice in layout.slices.iter().filter(|slice| slice.kind == Kind::Matrix) {
        let at = slice.range.clone();
        if !quantiser.round(on, &params[at.clone()], slice.cols, &mut trits, &mut room) {
            return Err(Error::Input(format!("{}: a weight is not a number", slice.name)));
        }
        values[at].copy_from_slice(&room);
    }
    Ok(write_masters(out, config, Weights::Ternary, &layout.masters(&values), &more, files)?)
}

/// A run's model with the parameters of its best checkpoint where it looks for one, else its latest, and the step they are from.
pub fn trained(run: &Run, note: &mut dyn FnMut(String)) -> Result<(Start, u64)> {
    let mut start = Start::of(run)?;
    let (mut m, mut v) = (start.params.clone(), start.params.clone());
    let dir = checkpoints(run);
    let mut found = None;
    let best = if run.patience > 0 { checkpoint::list(&best(run)) } else { Vec::new() };
    for (_, path) in best.into_iter().chain(checkpoint::list(&dir)) {
        match checkpoint::read(&path, &mut [&mut start.params, &mut m, &mut v]) {
            Ok(state) => {
                found = Some(state.step);
                break;
            }
            Err(error) => note(error.to_string()),
        }
    }
    let step = found.ok_or_else(|| Error::file(&dir, "expected a whole checkpoint, found none"))?;
    start.config.graph.scheme = start.stages.at(step);
    Ok((start, step))
}

/// Writes the masters, or the adapter, of a run's latest checkpoint; the step they are from.
pub fn latest(run: &Run, out: &Path, note: &mut dyn FnMut(String)) -> Result<u64> {
    let (Start { config, layout, params, files, .. }, step) = trained(run, note)?;
    let pool = Pool::new(1);
    model(Machine { cpu: Cpu::best(), pool: &pool }, run, &config, &layout, &params, &files, out)?;
    Ok(step)
}

/// What the engine makes of the run's prompt with the present parameters.
pub fn sample(
    on: Machine,
    run: &Run,
    config: &tern::Config,
    layout: &Layout,
    params: &[f32],
    files: &Files,
) -> Result<String> {
    const TOKENS: usize = 100;
    opened(on, run, config, layout, params, files, |model, adapter| {
        let tokenizer = model.tokenizer()?;
        let ids = prompt_ids(tokenizer, &run.prompt)?;
        let sampling = Sampling { temperature: 0.7, seed: run.seed, ..Sampling::greedy() };
        let mut generation = Generation::new(model, (ids.len() + TOKENS).min(config.context), sampling)?;
        if let Some(adapter) = adapter {
            generation = generation.with_adapter(adapter);
        }
        generation.prompt(&ids)?;
        let mut out = ids;
        while let Some(token) = generation.next()? {
            out.push(token.id);
        }
        Ok(tokenizer.decode(&out, false))
    })
}

/// The model with the present parameters in the engine, as it would be exported, for as long as `work` takes.
pub(crate) fn opened<T>(
    on: Machine,
    run: &Run,
    config: &tern::Config,
    layout: &Layout,
    params: &[f32],
    files: &Files,
    work: impl FnOnce(&Model, Option<Arc<Adapter>>) -> Result<T>,
) -> Result<T> {
    let dir: PathBuf = run.out.join("sample-model");
    model(on, run, config, layout, params, files, &dir)?;
    let options = Options { floats: !run.ternary, kv: run.kv()?.unwrap_or_default(), ..Options::default() };
    let done = (|| match (&run.lora, &run.from) {
        (Some(_), Some(from)) => {
            let model = Model::from_file(&open(from)?, &options)?;
            let adapter = Adapter::open(&dir, model.config())?;
            work(&model, Some(Arc::new(adapter)))
        }
        _ => work(&Model::open(&dir, &options)?, None),
    })();
    std::fs::remove_dir_all(&dir).map_err(|e| Error::io(&dir, e))?;
    done
}

/// Shares of -1, 0 and 1 among the weights of each layer; none where no matrix is trained.
pub fn shares(on: Machine, quantiser: Quantiser, layout: &Layout, params: &[f32]) -> Vec<[f64; 3]> {
    let is_matrix = |slice: &&Slice| slice.kind == Kind::Matrix;
    let trained = layout.slices.iter().any(|slice| is_matrix(&slice));
    let mut counts = vec![[0u64; 3]; if trained { layout.blocks.len() } else { 0 }];
    let mut room = Vec::new();
    for slice in layout.slices.iter().filter(is_matrix) {
        let layer: usize = slice.name.split('.').nth(1).and_then(|n| n.parse().ok()).expect("a block's name");
        let w = &params[slice.range.clone()];
        room.resize(w.len(), 0i8);
        quantiser.trits(on, w, slice.cols, &mut room);
        for &trit in &room {
            counts[layer][(trit + 1) as usize] += 1;
        }
    }
    counts
        .into_iter()
        .map(|counts| counts.map(|n| n as f64 / counts.iter().sum::<u64>().max(1) as f64))
        .collect()
}

/// The ids of a text as documents begin.
fn prompt_ids(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
    Ok(tokenizer.encode(text, true, Specials::Text)?)
}
