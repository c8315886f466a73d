//! Where a conversation's lines come from: a person with an editor and a history, or a pipe.

use std::io::{self, BufRead, Read};
use std::path::PathBuf;

use rustyline::error::ReadlineError;
use rustyline::{Behavior, Config, DefaultEditor};

use crate::failure::{Failure, Outcome};
use crate::terminal;

/// The most bytes of one piped line: far above any context.
const MOST_LINE: u64 = 16 << 20;

/// How many typed lines the history keeps.
const MOST_HISTORY: usize = 1000;

pub(super) enum Lines {
    Typed { editor: Box<DefaultEditor>, history: Option<PathBuf> },
    Piped(io::StdinLock<'static>),
}

impl Lines {
    pub(super) fn open() -> Outcome<Self> {
        if !terminal::input_is_terminal() {
            return Ok(Self::Piped(io::stdin().lock()));
        }
        // With standard output elsewhere (`tern chat > answers`) the editor still talks to the terminal.
        let behavior = if terminal::output_is_terminal() { Behavior::Stdio } else { Behavior::PreferTerm };
        let usable = |e: ReadlineError| Failure::failed(format!("terminal: {e}"));
        let config =
            Config::builder().max_history_size(MOST_HISTORY).map_err(usable)?.behavior(behavior).build();
        let mut editor = DefaultEditor::with_config(config).map_err(usable)?;
        // A history is a comfort: without a place for it, or with an unreadable one, there is none.
        let history = history_file();
        if let Some(file) = &history {
            let _ = editor.load_history(file);
        }
        Ok(Self::Typed { editor: Box::new(editor), history })
    }

    /// Whether a person types.
    pub(super) fn is_typed(&self) -> bool {
        matches!(self, Self::Typed { .. })
    }

    /// The next line, joined with those that a `\` at its end calls for; `None` at the end of the input.
    pub(super) fn next(&mut self) -> Outcome<Option<String>> {
        let mut text = String::new();
        loop {
            // The sign of a line that goes on, as in Python's prompt.
            let prompt = if text.is_empty() { "> " } else { "... " };
            let line = match self {
                Self::Typed { editor, .. } => match editor.readline(prompt) {
                    Ok(line) => line,
                    Err(ReadlineError::Interrupted) => {
                        // A slip must not cost the conversation: it takes another key to leave.
                        terminal::remark("Ctrl-C drops the line and stops an answer; Ctrl-D or /bye leaves");
                        text.clear();
                        continue;
                    }
                    Err(ReadlineError::Eof) => return Ok(None),
                    Err(error) => return Err(Failure::failed(format!("terminal: {error}"))),
                },
                Self::Piped(input) => match piped_line(input)? {
                    Some(line) => line,
                    None if text.is_empty() => return Ok(None),
                    None => String::new(),
                },
            };
            match line.strip_suffix('\\') {
                Some(start) => {
                    text.push_str(start);
                    text.push('\n');
                }
                None => {
                    text.push_str(&line);
                    self.remember(&text);
                    return Ok(Some(text));
                }
            }
        }
    }

    fn remember(&mut self, text: &str) {
        if let Self::Typed { editor, history } = self {
            if text.trim().is_empty() || !editor.add_history_entry(text).unwrap_or(false) {
                return;
            }
            if let Some(file) = history {
                let _ = editor.append_history(file);
            }
        }
    }
}

/// `$XDG_DATA_HOME/tern/history`, or under `~/.local/share`; `None` when neither place can be had.
fn history_file() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let data = absolute("XDG_DATA_HOME").or_else(|| Some(absolute("HOME")?.join(".local/share")))?;
    let folder = data.join("tern");
    std::fs::create_dir_all(&folder).ok()?;
    Some(folder.join("history"))
}

fn piped_line(input: &mut io::StdinLock<'static>) -> Outcome<Option<String>> {
    let fail = |what: &str| Failure::failed(format!("standard input: {what}"));
    let mut line = Vec::new();
    input.take(MOST_LINE).read_until(b'\n', &mut line).map_err(|e| fail(&e.to_string()))?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
    } else if line.len() as u64 == MOST_LINE {
        return Err(fail(&format!("expected lines of at most {} MiB, found a longer one", MOST_LINE >> 20)));
    }
    String::from_utf8(line).map(Some).map_err(|_| fail("expected UTF-8 text, found other bytes"))
}
