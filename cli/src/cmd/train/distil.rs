//! `tern train distil`: a ternary student of a float model. It sets the keys of a run that make one, and trains.

use std::path::{Path, PathBuf};

use clap::Args;
use tern_train::config::Run;

use super::{Flags, Train};
use crate::failure::{Failure, Outcome};

const EXAMPLES: &str = "\
The student begins as the teacher, with a norm before the output and down projections, and its weights become ternary over the \
first tenth of the steps. It learns to predict the texts and to say what the teacher says. Every key can be set; begun again, \
the same command goes on with the last checkpoint. Memory and time are told first, and what cannot fit is refused.

Examples:
  tern train distil float-model --train texts.jsonl --out student
  tern train distil model-f16.gguf --train texts.jsonl --out s --steps 2000
  tern train distil float-model --train a.jsonl --out s --keep-layers 6
  tern train distil float-model --train a.jsonl --out s --teacher-logits stored";

/// A key, and what it is here unless it is given.
const KEYS: [(&str, &str); 6] = [
    ("subln", "true"),
    ("kl", "1.0"),
    ("relation", "1.0"),
    ("schedule", "cosine"),
    ("warmup", "20"),
    ("rate", "1e-3"),
];

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Distil {
    /// The float model: a directory of safetensors (bf16, f16 or f32), or a GGUF in F16
    #[arg(value_name = "TEACHER")]
    model: PathBuf,
    /// Show curves and samples on the whole terminal while it runs
    #[arg(long)]
    monitor: bool,
    /// Print what happens as JSON, one object a line
    #[arg(long, conflicts_with = "monitor")]
    json: bool,
    #[command(flatten)]
    flags: Flags,
}

impl Distil {
    pub(crate) fn run(self) -> Outcome {
        let Self { model, monitor, json, flags: Flags(given) } = self;
        if given.iter().any(|(key, _)| key == "teacher") {
            return Err(Failure::misused("`--teacher` is the first argument here"));
        }
        let path = model.to_string_lossy().into_owned();
        let mut flags = vec![("teacher".to_owned(), path.clone()), ("from".to_owned(), path)];
        flags.extend(KEYS.map(|(key, value)| (key.to_owned(), value.to_owned())));
        let steps = given.iter().find(|(key, _)| key == "steps").map_or("1000", |(_, value)| value);
        if let Ok(steps) = steps.parse::<u64>() {
            flags.push(("quantise_steps".to_owned(), (steps / 10).to_string()));
        }
        if given.iter().any(|(key, value)| key == "teacher_logits" && value == "stored") {
            // Queries, keys and values are not stored.
            flags.push(("relation".to_owned(), "0.0".to_owned()));
        }
        flags.extend(given);
        let run = Run::parse("", &flags, Path::new(""))?;
        let (part, config, listen, token_file) = (None, None, None, None);
        Train { part, config, monitor, json, listen, token_file, flags: Flags(Vec::new()) }.train(&run)
    }
}
