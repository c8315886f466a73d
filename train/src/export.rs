//! The trained model in files that the engine reads.

use std::path::{Path, PathBuf};

use serde_json::json;
use tern::{Generation, Model, Options, Sampling, Specials, Tokenizer};
use tern_convert::Files;
use tern_convert::masters::{Weights, write_masters};
use tern_kernels::{Cpu, Pool};

use crate::checkpoint;
use crate::config::Run;
use crate::error::{Error, Result};
use crate::folder::checkpoints;
use crate::ops::Machine;
use crate::ops::quantiser::Quantiser;
use crate::params::{Kind, Layout};
use crate::start::Start;

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

/// A run's model with the parameters of its latest checkpoint, and the step they are from.
pub fn trained(run: &Run, note: &mut dyn FnMut(String)) -> Result<(Start, u64)> {
    let mut start = Start::of(run)?;
    let (mut m, mut v) = (start.params.clone(), start.params.clone());
    let dir = checkpoints(run);
    let mut found = None;
    for (_, path) in checkpoint::list(&dir) {
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

/// Writes the masters of a run's latest checkpoint; the step they are from.
pub fn latest(run: &Run, out: &Path, note: &mut dyn FnMut(String)) -> Result<u64> {
    let (Start { config, layout, params, files, .. }, step) = trained(run, note)?;
    let pool = Pool::new(1);
    masters(Machine { cpu: Cpu::best(), pool: &pool }, run, &config, &layout, &params, &files, out)?;
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
    let dir: PathBuf = run.out.join("sample-model");
    masters(on, run, config, layout, params, files, &dir)?;
    let text = (|| {
        let model = Model::open(&dir, &Options { floats: !run.ternary, ..Options::default() })?;
        let tokenizer = model.tokenizer()?;
        let ids = prompt_ids(tokenizer, &run.prompt)?;
        let sampling = Sampling { temperature: 0.7, seed: run.seed, ..Sampling::greedy() };
        let mut generation = Generation::new(&model, (ids.len() + TOKENS).min(config.context), sampling)?;
        generation.prompt(&ids)?;
        let mut out = ids;
        while let Some(token) = generation.next()? {
            out.push(token.id);
        }
        Ok(tokenizer.decode(&out, false))
    })();
    std::fs::remove_dir_all(&dir).map_err(|e| Error::io(&dir, e))?;
    text
}

/// Shares of -1, 0 and 1 among the weights of each layer.
pub fn shares(on: Machine, quantiser: Quantiser, layout: &Layout, params: &[f32]) -> Vec<[f64; 3]> {
    let mut counts = vec![[0u64; 3]; layout.blocks.len()];
    let mut room = Vec::new();
    for slice in layout.slices.iter().filter(|slice| slice.kind == Kind::Matrix) {
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
