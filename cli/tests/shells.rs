//! What shells complete and what `man` shows. `.ci/shells` asks zsh, fish and man themselves.

mod common;

use std::io::Write;
use std::process::{Command, Stdio};

use common::run;

/// The commands in the help, without `help`.
fn commands() -> Vec<String> {
    let help = run(&["--help"]).ok();
    let list = help.split("\nCommands:\n").nth(1).unwrap().split("\n\n").next().unwrap().to_owned();
    let names = list
        .lines()
        .filter(|line| !line.starts_with("   "))
        .map(|line| line.split_whitespace().next().unwrap());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

#[test]
fn every_shell_completes_every_command() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&["completions", shell]).ok();
        for command in commands() {
            assert!(script.contains(&command), "{shell}: {command}");
        }
    }
    let script = run(&["completions", "bash"]).ok();
    let mut bash = Command::new("bash").arg("-n").stdin(Stdio::piped()).spawn().unwrap();
    bash.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(bash.wait().unwrap().success());
    let wrong = run(&["completions", "tcsh"]);
    assert!(wrong.code == Some(2) && wrong.stderr.contains("expected bash, zsh, fish"), "{}", wrong.stderr);
}

#[test]
fn every_command_and_part_has_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    let to = folder.path().join("man1");
    run(&["man", to.to_str().unwrap()]).ok();
    for command in commands() {
        let page = std::fs::read_to_string(to.join(format!("tern-{command}.1"))).unwrap();
        assert!(page.contains(".SH SYNOPSIS") && page.contains("Examples:"), "{command}");
    }
    assert!(to.join("tern.1").exists() && to.join("tern-eval-ppl.1").exists());
}
