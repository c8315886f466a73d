//! `tern train worker`: this machine computes for a run on another.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::json;

use crate::failure::{Failure, Outcome};
use crate::terminal;

const EXAMPLES: &str = "\
A worker needs no data and no configuration, and keeps nothing: it may come and go at any time. It has the same version as the \
leader. Where the leader is lost, it looks for it again.

Examples:
  tern train worker 192.168.1.10:7070 --token-file token.txt
  tern train worker 192.168.1.10:7070 --threads 4 --patience 3600";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Worker {
    /// Where `tern train --listen` lets workers in
    #[arg(value_name = "ADDRESS:PORT")]
    leader: String,
    /// A file with the leader's token
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Threads; 0 for all physical cores
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
    /// Seconds to look for a leader that is not there, at first and after it was lost
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    patience: u32,
    /// Print one JSON object at the end: how many batches it computed
    #[arg(long)]
    json: bool,
}

/// The token in a file: its only line.
pub(super) fn token(path: &Path) -> Outcome<String> {
    let text =
        std::fs::read_to_string(path).map_err(|e| Failure::failed(format!("{}: {e}", path.display())))?;
    let token = text.trim();
    if token.is_empty() || token.contains(['\n', '\r']) {
        let what = format!("{}: expected a token on one line", path.display());
        return Err(Failure::failed(what).hint("`openssl rand -hex 16` makes one"));
    }
    Ok(token.to_owned())
}

impl Worker {
    pub(super) fn run(self) -> Outcome {
        let Self { leader: address, token_file, threads, patience, json } = self;
        let token = token_file.as_deref().map_or(Ok(String::new()), token)?;
        let patience = Duration::from_secs(patience.into());
        let worker = tern_train::machines::worker::Worker { address, token, threads, patience };
        let batches = worker.run(&|| false, &mut |note| terminal::remark(&note))?;
        match json {
            true => terminal::print_json(&json!({"batches": batches})),
            false => {
                terminal::remark(&format!("the run is done; {batches} batches computed"));
                Ok(())
            }
        }
    }
}
