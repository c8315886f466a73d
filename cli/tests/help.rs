//! Every help text, as a newcomer sees it.

mod common;

use common::{run, snapshot};

const COMMANDS: [&str; 11] =
    ["run", "chat", "serve", "inspect", "tokenize", "convert", "train", "dummy", "bench", "eval", "doctor"];

#[test]
fn every_command_has_the_help_of_its_snapshot() {
    for command in COMMANDS {
        snapshot(&format!("help-{command}"), &run(&[command, "--help"]).ok());
    }
    for part in ["ppl", "tasks", "compare", "needle", "report"] {
        snapshot(&format!("help-eval-{part}"), &run(&["eval", part, "--help"]).ok());
    }
}

#[test]
fn tern_alone_shows_the_help_and_lists_every_command() {
    let help = run(&["--help"]).ok();
    assert_eq!(run(&[]).ok(), help);
    for command in COMMANDS {
        assert!(help.contains(&format!("\n  {command} ")), "{command} is missing in\n{help}");
    }
    snapshot("help", &help);
}

#[test]
fn the_version_is_the_packages() {
    assert_eq!(run(&["--version"]).ok(), format!("tern {}\n", env!("CARGO_PKG_VERSION")));
}
