//! Texts out of lines.

use serde_json::Value;

use crate::failure::{Failure, Outcome};

/// A text and what the caller calls it.
pub(super) struct Text {
    pub(super) text: String,
    pub(super) id: Option<Value>,
}

impl Text {
    pub(super) fn plain(text: String) -> Self {
        Self { text, id: None }
    }

    /// Its first words, for messages.
    pub(super) fn start(&self) -> String {
        let mut start: String = self.text.chars().take(30).collect();
        if self.text.chars().nth(30).is_some() {
            start.push('…');
        }
        format!("`{}`", crate::terminal::one_line(&start))
    }
}

/// A text in each line that is not empty; `jsonl` lines are JSON strings, or objects with `text` and perhaps `id`.
pub(super) fn lines(all: &str, jsonl: bool, name: &str) -> Outcome<Vec<Text>> {
    let lines = all.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    if !jsonl {
        return Ok(lines.map(|(_, line)| Text::plain(line.to_owned())).collect());
    }
    let read = |(at, line): (usize, &str)| {
        let wrong = |what: &str| Failure::failed(format!("{name} {}: {what}", at + 1));
        match serde_json::from_str(line) {
            Ok(Value::String(text)) => Ok(Text::plain(text)),
            Ok(Value::Object(mut object)) => match object.remove("text") {
                Some(Value::String(text)) => Ok(Text { text, id: object.remove("id") }),
                _ => Err(wrong("expected an object with a `text`")),
            },
            Ok(_) => Err(wrong("expected a JSON string or an object with a `text`")),
            Err(error) => Err(wrong(&format!("expected JSON: {error}"))),
        }
    };
    lines.map(read).collect()
}
