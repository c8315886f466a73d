//! The `tern` command: parse, one match, map the error to an exit code.

mod adapter;
mod answer;
mod cmd;
mod drafts;
mod failure;
mod hub;
mod machine;
mod model;
mod progress;
mod sampling;
mod signal;
mod terminal;
mod verbs;

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
    let command = match Tern::try_parse() {
        Ok(tern) => tern.command,
        Err(error) => match verbs::foreign(&error) {
            Some(failure) => return failure.report(),
            None => error.exit(),
        },
    };
    let Some(command) = command else {
        // A closed pipe is success, as everywhere.
        let _ = Tern::command().print_help();
        return ExitCode::SUCCESS;
    };
    tern::file::end_in_words(|what| format!("error: {}\n", terminal::one_line(what)));
    match command.run(Tern::command()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Paragraphs are one line in the source, so that a terminal of any width wraps them as it must; what stands after a
    /// line end in the middle of a sentence would be a ragged line of its own.
    #[test]
    fn paragraphs_of_every_help_are_wrapped_by_the_terminal_alone() {
        fn walk(command: &clap::Command) {
            let name = command.get_name();
            let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in after.lines() {
                if line.starts_with(' ') {
                    assert!(line.chars().count() <= 80, "{name}: an example of more than 80 columns: {line}");
                } else if let Some(end) = line.chars().last().filter(|_| !line.starts_with("Exit codes")) {
                    assert!(".:".contains(end), "{name}: a line ends within its sentence: {line}");
                }
            }
            command.get_subcommands().for_each(walk);
        }
        walk(&Tern::command());
        Tern::command().debug_assert();
    }
}
