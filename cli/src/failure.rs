//! How a command ends without success: what the person reads and the exit code the shell sees.

use std::io;

/// The result of a command, or of a part of one.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// Why a command stopped, in one line; hints say what to do about it.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) code: u8,
    /// Empty: there is nothing to say (Ctrl-C, a closed pipe).
    pub(crate) message: String,
    pub(crate) hints: Vec<String>,
}

impl Failure {
    /// The command was well formed and could not be done: exit code 1.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self { code: 1, message: message.into(), hints: Vec::new() }
    }

    /// The command makes no sense as it was written: exit code 2, as clap's own errors.
    pub(crate) fn misused(message: impl Into<String>) -> Self {
        Self { code: 2, ..Self::failed(message) }
    }

    /// Stopped by Ctrl-C: exit code 130 (128 + SIGINT), as shells expect, and silence.
    pub(crate) fn interrupted() -> Self {
        Self { code: 130, ..Self::failed("") }
    }

    /// Writing to standard output failed. A reader that went away (`tern run | head -1`) had enough: success.
    pub(crate) fn output(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self { code: 0, ..Self::failed("") },
            _ => Self::failed(format!("standard output: {error}")),
        }
    }

    /// Adds a line that says what to do.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Whether this ends a conversation too, and not only the turn it happened in.
    pub(crate) fn is_silent(&self) -> bool {
        self.message.is_empty()
    }
}

impl From<tern_train::Error> for Failure {
    fn from(error: tern_train::Error) -> Self {
        Self::failed(error.to_string())
    }
}

impl From<tern::Error> for Failure {
    fn from(error: tern::Error) -> Self {
        Self::failed(error.to_string())
    }
}
