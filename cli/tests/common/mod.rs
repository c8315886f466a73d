//! Runs the real binary and compares what a person would see with the text files in `snapshots/`.
#![allow(dead_code, reason = "each test file uses its part of this")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A small model that is the same for ever, with known answers beside it (testdata/models/page).
pub(crate) const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/models/page/page.gguf");

/// The binary, in an environment that is the same everywhere: no colours, 80 columns, no home.
pub(crate) fn tern(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tern"));
    command
        .args(args)
        .env("COLUMNS", "80")
        .env("NO_COLOR", "1")
        .env_remove("HOME")
        // No model of this machine has a part in a test, and none asks the network.
        .env("HF_HUB_CACHE", concat!(env!("CARGO_TARGET_TMPDIR"), "/no-models"))
        .env("HF_ENDPOINT", "http://127.0.0.1:9")
        .env_remove("HF_TOKEN")
        .env_remove("HF_HUB_OFFLINE")
        .env_remove("XDG_DATA_HOME");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What a finished command left.
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("tern writes UTF-8");
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl Done {
    /// The standard output of a command that must succeed.
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self.stdout
    }

    /// The JSON on standard output of a command that must succeed.
    pub(crate) fn json(self) -> serde_json::Value {
        let text = self.ok();
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
    }
}

/// Runs to the end, with nothing on standard input.
pub(crate) fn run(args: &[&str]) -> Done {
    tern(args).output().expect("tern starts").into()
}

/// Runs to the end with this on standard input.
pub(crate) fn run_with_input(args: &[&str], input: &[u8]) -> Done {
    let mut child = tern(args).stdin(Stdio::piped()).spawn().expect("tern starts");
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let input = input.to_vec();
    // On its own thread, and deaf to errors: a command that needs no input may be gone before it reads any.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let done = child.wait_with_output().expect("tern ends").into();
    writer.join().expect("the input is written");
    done
}

/// A path in the project's test data.
pub(crate) fn testdata(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata").join(path);
    path.canonicalize()
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
        .to_str()
        .expect("UTF-8")
        .to_owned()
}

/// Compares with `snapshots/NAME.txt`; with `UPDATE=1` in the environment writes that file instead.
pub(crate) fn snapshot(name: &str, found: &str) {
    let file: PathBuf =
        [env!("CARGO_MANIFEST_DIR"), "tests", "snapshots", &format!("{name}.txt")].iter().collect();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, found).expect("snapshot is written");
        return;
    }
    let expected = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        expected == found,
        "{} differs; if the new text is right, run again with UPDATE=1\n--- expected\n{expected}\n--- found\n{found}",
        file.display()
    );
}

/// A command line and all that it showed, for [`snapshot`]; `hidden` are texts that differ between machines.
pub(crate) fn transcript(args: &[&str], done: &Done, hidden: &[(&str, &str)]) -> String {
    let words: Vec<_> = args
        .iter()
        .map(|word| {
            if word.is_empty() || word.contains([' ', '"', '\'']) {
                format!("'{word}'")
            } else {
                (*word).into()
            }
        })
        .collect();
    let mut text = format!("$ tern {}\n{}{}", words.join(" "), done.stdout, done.stderr);
    match done.code {
        Some(code) => text.push_str(&format!("[exit {code}]\n")),
        None => text.push_str("[killed by a signal]\n"),
    }
    for (from, to) in hidden {
        text = text.replace(from, to);
    }
    text
}

/// The binary on a terminal of so many columns, with colours, through `script`; what is written to its standard input is
/// typed.
#[cfg(target_os = "linux")]
pub(crate) fn on_terminal(columns: usize, args: &[&str]) -> Command {
    let words =
        args.iter().map(|word| format!("'{}'", word.replace('\'', "'\\''"))).collect::<Vec<_>>().join(" ");
    let line = format!("stty cols {columns} rows 24; exec '{}' {words}", env!("CARGO_BIN_EXE_tern"));
    let mut command = Command::new("script");
    command
        .args(["-qefc", &line, "/dev/null"])
        .env("SHELL", "/bin/sh")
        .env("TERM", "xterm")
        .env_remove("COLUMNS")
        .env_remove("NO_COLOR")
        .env_remove("HOME")
        .env_remove("XDG_DATA_HOME");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}
