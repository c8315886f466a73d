//! The `tern` command: parse, one match, map the error to an exit code.

mod answer;
mod cmd;
mod failure;
mod machine;
mod model;
mod progress;
mod sampling;
mod signal;
mod terminal;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

/// Run, chat with, inspect, convert and train ternary (BitNet b1.58) language models on the CPU
#[derive(Parser)]
#[command(name = "tern", version, max_term_width = 100, after_help = EXAMPLES)]
struct Tern {
    #[command(subcommand)]
    command: Option<cmd::Command>,
}

const EXAMPLES: &str = "\
Examples:
  tern run story \"Once upon a time\"     continue a text with the built-in model
  tern run model.gguf \"What is 1+1?\"    ask a model of your own
  tern chat model.gguf                  talk with it
  tern doctor                           check this machine

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 stopped by Ctrl-C";

fn main() -> ExitCode {
    let Some(command) = Tern::parse().command else {
        // A closed pipe is success, as everywhere.
        let _ = Tern::command().print_help();
        return ExitCode::SUCCESS;
    };
    match command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
