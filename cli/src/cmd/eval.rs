//! `tern eval`: how good a model is, on files that a user has.

mod compare;
mod hash;
mod needle;
mod ppl;
mod report;
mod tasks;

use std::path::Path;

use clap::{Args, Subcommand};
use serde_json::{Value, json};
use tern::Model;

use crate::failure::Outcome;
use crate::model::{self, Loaded, MachineArgs, ThreadsArgs};

const EXAMPLES: &str = "\
Examples:
  tern eval ppl model.gguf wiki.test.raw
  tern eval tasks model.gguf arc_easy piqa --data eval/
  tern eval compare model.gguf --text wiki.test.raw --with kv=int8
  tern eval needle model.gguf";

/// Measure a model's quality: perplexity, tasks, differences
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Eval {
    #[command(subcommand)]
    what: What,
}

/// The one list of evaluations.
#[derive(Subcommand)]
enum What {
    Ppl(ppl::Ppl),
    Tasks(tasks::Tasks),
    Compare(compare::Compare),
    Needle(needle::Needle),
    Report(report::ReportArgs),
}

impl Eval {
    pub(crate) fn run(self) -> Outcome {
        match self.what {
            What::Ppl(ppl) => ppl.run(),
            What::Tasks(tasks) => tasks.run(),
            What::Compare(compare) => compare.run(),
            What::Needle(needle) => needle.run(),
            What::Report(report) => report.run(),
        }
    }
}

/// What every evaluation that runs a model takes.
#[derive(Args)]
struct Common {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    threads: ThreadsArgs,
    #[command(flatten)]
    machine: MachineArgs,
}

impl Common {
    fn open(&self, path: &Path) -> Outcome<Loaded> {
        model::open(path, &self.machine, self.threads.threads)
    }
}

/// What may change a figure, and what only changes its speed.
fn settings(model: &Model) -> Value {
    json!({
        "head": model.head_form().name(),
        "kv": model.kv().to_string(),
        "activations": model.activations(),
        "packing": model.packing().name(),
        "cpu": model.cpu_name(),
        "threads": model.threads(),
    })
}

fn settings_line(model: &Model) -> String {
    let (kv, packing) = (model.kv().to_string(), model.packing().name());
    format!(
        "head {}, kv {kv}, activations {}, packing {packing}, {}, {} threads",
        model.head_form().name(),
        model.activations(),
        model.cpu_name(),
        model.threads()
    )
}
