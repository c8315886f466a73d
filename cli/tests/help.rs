//! Every help text, as a newcomer sees it on a terminal of 80 columns.

mod common;

use common::{run, snapshot};

/// The commands that a help text lists, but for `help`.
fn listed(help: &str) -> Vec<String> {
    let list = help.split("\nCommands:\n").nth(1).map_or("", |rest| rest.split("\n\n").next().unwrap());
    list.lines()
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .map(|line| line.split_whitespace().next().unwrap().to_owned())
        .filter(|name| name != "help")
        .collect()
}

/// Looks at the help of a command and of all its parts; how many there are.
fn walk(command: &[String]) -> usize {
    let words: Vec<&str> = command.iter().map(String::as_str).chain(["--help"]).collect();
    let help = run(&words).ok();
    let name = ["help"].into_iter().chain(command.iter().map(String::as_str)).collect::<Vec<_>>().join("-");
    snapshot(&name, &help);
    for line in help.lines() {
        assert!(line.chars().count() <= 80, "{name}: longer than 80 columns: {line}");
    }
    let examples =
        help.split("\nExamples:\n").nth(1).unwrap_or_else(|| panic!("{name}: no examples in\n{help}"));
    let call = ["tern"].into_iter().chain(command.iter().map(String::as_str)).collect::<Vec<_>>().join(" ");
    assert!(examples.contains(&format!("  {call}")), "{name}: no example of `{call}`");
    let parts = listed(&help);
    1 + parts.into_iter().map(|part| walk(&[command, &[part]].concat())).sum::<usize>()
}

#[test]
fn every_command_and_part_has_a_help_with_examples_that_fits_80_columns() {
    let walked = walk(&[]);
    // tern, its 11 commands, 5 parts of eval and 4 of train, and whatever came since.
    assert!(walked >= 21, "{walked}");
}

#[test]
fn tern_alone_shows_the_help() {
    assert_eq!(run(&[]).ok(), run(&["--help"]).ok());
}

#[test]
fn the_version_is_the_packages() {
    assert_eq!(run(&["--version"]).ok(), format!("tern {}\n", env!("CARGO_PKG_VERSION")));
}
