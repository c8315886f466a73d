//! Standard output for data, standard error for talk: streamed text, `error:` and `hint:` lines, colours.

mod wrap;

use std::borrow::Cow;
use std::io::{self, IsTerminal, Read, Write};
use std::process::ExitCode;

use self::wrap::Wrap;
use crate::failure::{Failure, Outcome};

/// The most text read from standard input or a file: far above any context, far below the memory.
const MOST_TEXT: u64 = 256 << 20;

/// Standard output for text that a model says.
pub(crate) struct Output {
    out: io::StdoutLock<'static>,
    /// Where the lines of a terminal are ended between words; `None` for a pipe, which gets every byte as it comes.
    wrap: Option<Wrap>,
    /// Whether the last thing written ended a line.
    fresh_line: bool,
}

impl Output {
    pub(crate) fn new() -> Self {
        let wrap = output_is_terminal().then(Wrap::default);
        Self { out: io::stdout().lock(), wrap, fresh_line: true }
    }

    /// Writes a piece of text and shows it at once.
    pub(crate) fn stream(&mut self, text: &str) -> Outcome {
        if text.is_empty() {
            return Ok(());
        }
        self.fresh_line = text.ends_with('\n');
        match &mut self.wrap {
            // A terminal obeys escape sequences, and a model's text is nobody's order.
            Some(wrap) => {
                let shown = wrap.push(&without_controls(text), columns());
                self.write(&shown)
            }
            None => self.write(text),
        }
    }

    /// On a terminal, shows the text that is continued: dim, so that the model's own words stand out. A pipe gets the
    /// model's words only.
    pub(crate) fn echo(&mut self, text: &str) -> Outcome {
        let dim = has_colours(true);
        if self.wrap.is_none() {
            return Ok(());
        }
        self.command(dim, "\x1b[2m");
        let streamed = self.stream(text);
        self.command(dim, "\x1b[0m");
        streamed
    }

    fn command(&mut self, obeyed: bool, command: &str) {
        if let Some(wrap) = self.wrap.as_mut().filter(|_| obeyed) {
            wrap.command(command);
        }
    }

    /// Ends the line, if one is open.
    pub(crate) fn end_line(&mut self) -> Outcome {
        if let Some(wrap) = &mut self.wrap {
            let rest = wrap.finish(columns());
            self.write(&rest)?;
        }
        if self.fresh_line { Ok(()) } else { self.stream("\n") }
    }

    fn write(&mut self, text: &str) -> Outcome {
        self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()).map_err(|e| Failure::output(&e))
    }
}

/// A text whose lines end between words.
pub(crate) fn wrapped(text: &str, columns: usize) -> String {
    let mut wrap = Wrap::default();
    wrap.push(text, columns) + &wrap.finish(columns)
}

/// Columns of the terminal that standard output is.
fn columns() -> usize {
    ratatui::crossterm::terminal::size().map_or(80, |(columns, _)| usize::from(columns).max(1))
}

/// Writes a whole text of our own making (no model's) to standard output.
pub(crate) fn print(text: &str) -> Outcome {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|e| Failure::output(&e))
}

/// Prints one JSON value on one line of standard output.
pub(crate) fn print_json(value: &serde_json::Value) -> Outcome {
    print(&format!("{value}\n"))
}

/// What went wrong, on standard error.
pub(crate) fn error(message: &str) {
    say("error", "1;31", message);
}

/// What may surprise, on standard error.
pub(crate) fn warning(message: &str) {
    say("warning", "1;33", message);
}

/// What to do about it, on standard error.
pub(crate) fn hint(message: &str) {
    say("hint", "1;36", message);
}

impl Failure {
    /// Prints `error:` and `hint:` lines on standard error.
    pub(crate) fn print(&self) {
        if !self.message.is_empty() {
            error(&self.message);
        }
        self.hints.iter().for_each(|text| hint(text));
    }

    /// Prints a `warning:` line instead of the `error:` line: the command goes on.
    pub(crate) fn warn(&self) {
        warning(&self.message);
        self.hints.iter().for_each(|text| hint(text));
    }

    /// Prints and gives the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        self.print();
        ExitCode::from(self.code)
    }
}

/// A dim status message, on standard error.
pub(crate) fn remark(message: &str) {
    let message = one_line(message);
    let line = if talk_has_colours() { format!("\x1b[2m{message}\x1b[0m\n") } else { format!("{message}\n") };
    talk(&line);
}

/// Text on standard error as it is. Nobody may be there to read it: that is no failure.
pub(crate) fn talk(text: &str) {
    let mut err = io::stderr().lock();
    let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
}

/// Asks a person on the terminal; `usual` is what an empty line means, and the end of input always means no.
pub(crate) fn confirm(question: &str, usual: bool) -> Outcome<bool> {
    talk(&format!("{question} {} ", if usual { "[Y/n]" } else { "[y/N]" }));
    let mut answer = String::new();
    io::stdin()
        .read_line(&mut answer)
        .map_err(|error| Failure::failed(format!("standard input: {error}")))?;
    Ok(match answer.trim().to_lowercase().as_str() {
        "" => usual && !answer.is_empty(),
        word => matches!(word, "y" | "yes"),
    })
}

/// Ends a line that was left in the middle, with all that was said about its colour.
pub(crate) fn leave() {
    talk(if talk_has_colours() { "\x1b[0m\n" } else { "\n" });
}

fn say(label: &str, colour: &str, message: &str) {
    let message = one_line(message);
    if talk_has_colours() {
        talk(&format!("\x1b[{colour}m{label}:\x1b[0m {message}\n"));
    } else {
        talk(&format!("{label}: {message}\n"));
    }
}

fn talk_has_colours() -> bool {
    has_colours(io::stderr().is_terminal())
}

/// Whether this terminal, if it is one, wants colours (<https://no-color.org>).
fn has_colours(terminal: bool) -> bool {
    terminal
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// A message on one line: paths and strings of files may hold anything.
pub(crate) fn one_line(message: &str) -> String {
    let mut line = String::with_capacity(message.len());
    for c in message.chars() {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}

/// The text with control characters made visible, except line ends and tabs.
fn without_controls(text: &str) -> Cow<'_, str> {
    let commands = |c: char| c.is_control() && c != '\n' && c != '\t';
    if !text.contains(commands) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.replace(commands, "\u{fffd}"))
}

/// All the text of standard input or of a file, which may be a pipe or endless; `name` is for messages.
pub(crate) fn read_text(from: impl Read, name: &str) -> Outcome<String> {
    let mut bytes = Vec::new();
    from.take(MOST_TEXT + 1).read_to_end(&mut bytes).map_err(|e| Failure::failed(format!("{name}: {e}")))?;
    if bytes.len() as u64 > MOST_TEXT {
        return Err(Failure::failed(format!(
            "{name}: expected at most {} MiB of text, found more",
            MOST_TEXT >> 20
        )));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let byte = error.as_bytes()[at];
        Failure::failed(format!("{name}: expected UTF-8 text, found byte 0x{byte:02x} at offset {at}"))
    })
}

/// Whether a person types at standard input.
pub(crate) fn input_is_terminal() -> bool {
    io::stdin().is_terminal()
}

/// Whether a person reads standard error.
pub(crate) fn talk_is_terminal() -> bool {
    io::stderr().is_terminal()
}

/// Whether a person reads standard output.
pub(crate) fn output_is_terminal() -> bool {
    io::stdout().is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_stays_on_one_line_and_commands_no_terminal() {
        assert_eq!(one_line("a\nb\x1b[2Jc ö"), "a\\nb\\u{1b}[2Jc ö");
    }

    #[test]
    fn text_for_a_terminal_keeps_lines_and_tabs_only() {
        assert_eq!(without_controls("a\n\tb ö"), "a\n\tb ö");
        assert_eq!(without_controls("a\x1b[2Jb\r\u{9b}"), "a\u{fffd}[2Jb\u{fffd}\u{fffd}");
    }

    #[test]
    fn text_that_is_not_utf8_is_refused_with_its_place() {
        let failure = read_text(&b"ab\xffc"[..], "standard input").unwrap_err();
        assert!(format!("{failure:?}").contains("found byte 0xff at offset 2"), "{failure:?}");
    }
}
