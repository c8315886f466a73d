//! `tern dummy`: a model of a real shape with random weights, for measuring speed.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use tern_convert::Floats;
use tern_convert::dummy::{DummyOptions, FEWEST_CLOSED, Shape, dummy};

use super::convert::{TargetArgs, floats, report};
use crate::failure::Outcome;
use crate::progress::Bar;
use crate::sampling::{expected, number};
use crate::signal;

const EXAMPLES: &str = "\
The file is marked (`tern.dummy`), and what it writes is noise. The same shape and seed give the same file.

Examples:
  tern dummy --shape bitnet-2b-4t dummy.gguf
  tern dummy --shape 70b --to t5 dummy.gguf
  tern dummy --shape bitnet-2b-4t --closed-gates 0.7 dummy.gguf";

/// Write a model of random weights, to measure speed with
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Dummy {
    #[arg(long, value_name = "SHAPE", value_parser = shape, help = shape_help())]
    shape: Shape,
    /// What to write: a .gguf file, or for `hf` a new directory
    #[arg(value_name = "OUT")]
    output: PathBuf,
    #[command(flatten)]
    target: TargetArgs,
    /// The seed of the weights
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// How to write the embedding: f32, f16, bf16 or q8_0 [default: f16]
    #[arg(long, value_name = "TYPE", value_parser = floats)]
    embedding: Option<Floats>,
    /// How to write the output head, where it is not the embedding [default: f16]
    #[arg(long, value_name = "TYPE", value_parser = floats)]
    head: Option<Floats>,
    /// The longest context that the file claims [default: the shape's own]
    #[arg(short = 'c', long, alias = "context", value_name = "N", value_parser = context)]
    ctx_size: Option<usize>,
    /// The share of closed gates in a shape with ReLU², as zeros that need not be read: 0.5 to 1, in i2 or t5 [default: 0.5,
    /// that of random weights]
    #[arg(long, value_name = "SHARE", value_parser = closed)]
    closed_gates: Option<f32>,
    /// Print one JSON object: what was written
    #[arg(long)]
    json: bool,
}

impl Dummy {
    pub(crate) fn run(self) -> Outcome {
        let to = self.target.target(&self.output)?;
        signal::listen()?;
        let options = DummyOptions {
            to,
            seed: self.seed,
            embedding: self.embedding.unwrap_or_default(),
            head: self.head.unwrap_or_default(),
            context: self.ctx_size,
            closed_gates: self.closed_gates,
        };
        let start = Instant::now();
        let mut bar = Bar::new("writing");
        let summary = dummy(&self.shape, &self.output, &options, &mut |done, all| bar.show(done, all));
        bar.clear();
        report(&summary?, &self.output, to, start, self.json)
    }
}

fn context(text: &str) -> Result<usize, String> {
    number(text, "", |n| (1..=1 << 20).contains(n))
        .map_err(|_| "expected a whole number from 1 to 1048576".to_owned())
}

fn closed(text: &str) -> Result<f32, &'static str> {
    number(text, "expected a number from 0.5, the share of random weights, to 1", |n| {
        (FEWEST_CLOSED..=1.0).contains(n)
    })
}

fn names() -> Vec<&'static str> {
    Shape::all().iter().map(|shape| shape.name).collect()
}

fn shape_help() -> String {
    format!("The sizes of the model: {}", names().join(", "))
}

fn shape(text: &str) -> Result<Shape, String> {
    Shape::from_name(text).ok_or_else(|| expected(&names()))
}
