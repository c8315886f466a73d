//! `metrics.jsonl`: a line for every logged step, validation and sample.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "plain fields")]
pub struct Step {
    /// Counted from 1.
    pub step: u64,
    pub tokens: u64,
    pub epoch: u64,
    /// Mean of the step's targets, in nats.
    pub loss: f64,
    /// Of a run with a teacher: `τ²` times the divergence of its logits, the same mean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub divergence: Option<f64>,
    /// The divergence of relations, the same mean.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relation: Option<f64>,
    /// Of a run of pairs: the share of them whose better answer has become the likelier one, against the model that the run
    /// began as. Its `loss` is DPO's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preferred: Option<f64>,
    /// The mean of `beta` times by how much.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub margin: Option<f64>,
    pub rate: f32,
    /// Norm before clipping.
    pub gradient: f64,
    pub tokens_per_second: f64,
    pub seconds: f64,
}

/// One validation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "plain fields")]
pub struct Validation {
    pub step: u64,
    /// Mean of the held-out targets, in nats.
    pub loss: f64,
    pub bits_per_char: f64,
    /// Of pairs: the share of those held out whose better answer has become the likelier one. `loss` is DPO's then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preferred: Option<f64>,
    /// Shares of -1, 0 and 1 in each layer.
    pub trits: Vec<[f64; 3]>,
}

/// What a task came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "plain fields")]
pub struct Evaluation {
    pub step: u64,
    pub task: String,
    pub metric: String,
    /// The mean over items.
    pub value: f64,
    /// Its standard error.
    pub error: f64,
    pub items: u64,
}

impl std::fmt::Display for Evaluation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { step, task, metric, value, error, items } = self;
        write!(f, "step {step}: {task} {metric} {value:.4} ± {error:.4}, {items} items")
    }
}

/// A line of the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
#[expect(missing_docs, reason = "plain variants")]
pub enum Line {
    Step(Step),
    Validation(Validation),
    Evaluation(Evaluation),
    Sample { step: u64, text: String },
}

impl Line {
    /// The step that it speaks of.
    pub fn step(&self) -> u64 {
        match self {
            Line::Step(step) => step.step,
            Line::Validation(validation) => validation.step,
            Line::Evaluation(evaluation) => evaluation.step,
            Line::Sample { step, .. } => *step,
        }
    }
}

/// The file, open to be written.
#[derive(Debug)]
pub struct Metrics {
    path: PathBuf,
    file: File,
}

/// All lines of a run's file; a last one that was cut off is left out.
pub fn read(out: &Path) -> Result<Vec<Line>> {
    let path = path(out);
    let text = match std::fs::read(&path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io(&path, e)),
    };
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

fn path(out: &Path) -> PathBuf {
    out.join("metrics.jsonl")
}

impl Metrics {
    /// Goes on after step `step`: what a run wrote beyond its last checkpoint is taken out, it will come again.
    pub fn open(out: &Path, step: u64) -> Result<Self> {
        let path = path(out);
        let io = |e| Error::io(&path, e);
        let kept: Vec<Line> = read(out)?.into_iter().filter(|line| line.step() <= step).collect();
        let mut text = String::new();
        for line in &kept {
            text += &serde_json::to_string(line).expect("a line is JSON");
            text.push('\n');
        }
        tern::file::Whole::begin(&path)?.publish(text.as_bytes())?;
        let file = OpenOptions::new().append(true).open(&path).map_err(io)?;
        Ok(Self { path, file })
    }

    fn line(&mut self, line: &Line) -> Result<()> {
        let text = serde_json::to_string(line).expect("a line is JSON") + "\n";
        self.file.write_all(text.as_bytes()).map_err(|e| Error::io(&self.path, e))
    }

    /// Writes a step.
    pub fn step(&mut self, step: &Step) -> Result<()> {
        self.line(&Line::Step(*step))
    }

    /// Writes a validation.
    pub fn validation(&mut self, validation: &Validation) -> Result<()> {
        self.line(&Line::Validation(validation.clone()))
    }

    /// Writes what a task came to.
    pub fn evaluation(&mut self, evaluation: &Evaluation) -> Result<()> {
        self.line(&Line::Evaluation(evaluation.clone()))
    }

    /// Writes a sample.
    pub fn sample(&mut self, step: u64, text: &str) -> Result<()> {
        self.line(&Line::Sample { step, text: text.to_owned() })
    }

    /// Brings all to the disk.
    pub fn sync(&mut self) -> Result<()> {
        self.file.sync_all().map_err(|e| Error::io(&self.path, e))
    }
}
