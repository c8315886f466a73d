//! `tern merge`: an adapter's weights into a model's masters.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use tern::file::OpenOptions;
use tern_convert::adapter::merge;

use crate::failure::Outcome;
use crate::model;
use crate::signal;
use crate::terminal;

const EXAMPLES: &str = "\
What comes out is BASE with W + (alpha / r) B A for each projection that the adapter has, in f32 masters, which `tern run` \
rounds when it loads them and `tern train --from` goes on from. Rounding takes away a part of what the adapter says: compare \
with `tern eval ppl`. A file of trits has no masters to merge into: there `--adapter` runs the adapter beside it.

Examples:
  tern merge masters/ adapter/ merged/
  tern run merged/ \"Once upon a time\"";

/// Merge a LoRA adapter into a model's masters
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Merge {
    /// The model: a directory of float masters
    #[arg(value_name = "BASE")]
    base: PathBuf,
    /// The adapter's folder, in PEFT's layout
    #[arg(value_name = "ADAPTER")]
    adapter: PathBuf,
    /// The directory to write
    #[arg(value_name = "OUT")]
    output: PathBuf,
    /// Print one JSON object: what was written
    #[arg(long)]
    json: bool,
}

impl Merge {
    pub(crate) fn run(self) -> Outcome {
        signal::listen()?;
        let file = model::find(&self.base)?.file(OpenOptions::default())?;
        merge(&file, &self.adapter, &self.output)?;
        let output = self.output.display().to_string();
        match self.json {
            true => terminal::print_json(&json!({ "output": output })),
            false => terminal::print(&format!("wrote {output}\n")),
        }
    }
}
