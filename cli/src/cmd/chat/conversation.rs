//! What was said, and its file: `{"system": text or null, "messages": [{"role", "content"}, ...]}`.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use serde_json::{Value, json};
use tern::Message;

use crate::failure::{Failure, Outcome};
use crate::terminal;

pub(super) struct Conversation {
    pub(super) system: Option<String>,
    /// User and assistant by turns, beginning with the user.
    pub(super) messages: Vec<Message>,
}

impl Conversation {
    pub(super) fn new(system: Option<String>) -> Self {
        Self { system, messages: Vec::new() }
    }

    pub(super) fn push(&mut self, role: &str, content: &str) {
        self.messages.push(Message { role: role.to_owned(), content: content.to_owned() });
    }

    /// The system message and the messages from `first` on.
    pub(super) fn messages_from(&self, first: usize) -> Vec<Message> {
        let system = self.system.iter().map(|text| Message { role: "system".into(), content: text.clone() });
        system.chain(self.messages[first..].iter().cloned()).collect()
    }

    /// Drops the first user message and what was answered.
    pub(super) fn forget_oldest_turn(&mut self) {
        let next = self.messages.iter().skip(1).position(|message| message.role == "user");
        self.messages.drain(..next.map_or(self.messages.len(), |at| at + 1));
    }

    /// Takes the last message and its answer away.
    pub(super) fn take_turn(&mut self) -> Option<(Message, Message)> {
        let answer = self.messages.pop()?;
        let said = self.messages.pop().expect("an answer comes after what was said");
        Some((said, answer))
    }

    /// `3 messages`.
    pub(super) fn size(&self) -> String {
        match self.messages.len() {
            1 => "1 message".into(),
            n => format!("{n} messages"),
        }
    }

    /// Writes beside the file and renames, so that a failure leaves the old file or none.
    pub(super) fn save(&self, path: &Path) -> Outcome {
        // What is replaced must be a saved conversation, too: a slip must not cost somebody's notes.
        if path.exists() && Self::load(path).is_err() {
            return Err(Failure::failed(format!("{}: there is another file of that name", path.display())));
        }
        let messages: Vec<_> =
            self.messages.iter().map(|m| json!({"role": m.role, "content": m.content})).collect();
        let text = format!("{:#}\n", json!({"system": self.system, "messages": messages}));
        replace(path, text.as_bytes()).map_err(|e| Failure::failed(format!("{}: {e}", path.display())))
    }

    pub(super) fn load(path: &Path) -> Outcome<Self> {
        let name = path.display().to_string();
        let wrong = |what: &str| Failure::failed(format!("{name}: {what}"));
        // Looked at before it is opened: opening a named pipe would wait for a writer.
        if !std::fs::metadata(path).map_err(|e| wrong(&e.to_string()))?.is_file() {
            return Err(wrong("expected a saved conversation, found no regular file"));
        }
        let file = File::open(path).map_err(|e| wrong(&e.to_string()))?;
        let text = terminal::read_text(file, &name)?;
        let value: Value = serde_json::from_str(&text)
            .map_err(|e| wrong(&format!("expected a saved conversation, found no JSON: {e}")))?;
        let system = match &value["system"] {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            _ => return Err(wrong("`system`: expected a text or null")),
        };
        let Value::Array(list) = &value["messages"] else {
            return Err(wrong("`messages`: expected a list"));
        };
        let mut conversation = Self::new(system);
        for (i, message) in list.iter().enumerate() {
            let expected = ["user", "assistant"][i % 2];
            let (Some(role), Some(content)) = (message["role"].as_str(), message["content"].as_str()) else {
                return Err(wrong(&format!("message {}: expected `role` and `content`", i + 1)));
            };
            if role != expected {
                return Err(wrong(&format!("message {}: expected role `{expected}`, found `{role}`", i + 1)));
            }
            conversation.push(role, content);
        }
        if list.len() % 2 == 1 {
            return Err(wrong("expected an answer to the last message, found none"));
        }
        Ok(conversation)
    }
}

/// Writes a small file: whole, or not at all.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    let mut draft = std::ffi::OsString::from(".");
    draft.push(name);
    draft.push(format!(".{}.part", std::process::id()));
    let draft = path.with_file_name(draft);
    let written = File::create_new(&draft)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&draft, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&draft);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn talk(roles: &[&str]) -> Conversation {
        let mut conversation = Conversation::new(Some("be kind".into()));
        for (i, role) in roles.iter().enumerate() {
            conversation.push(role, &format!("text {i} \u{1b} ö"));
        }
        conversation
    }

    #[test]
    fn forgetting_drops_a_question_with_its_answer() {
        let mut conversation = talk(&["user", "assistant", "user", "assistant", "user"]);
        conversation.forget_oldest_turn();
        assert_eq!(conversation.messages.len(), 3);
        assert_eq!(conversation.messages[0].content, "text 2 \u{1b} ö");
    }

    #[test]
    fn a_saved_conversation_loads_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a talk.json");
        let conversation = talk(&["user", "assistant"]);
        conversation.save(&path).unwrap();
        conversation.save(&path).unwrap(); // replacing a saved conversation is fine
        let loaded = Conversation::load(&path).unwrap();
        assert_eq!(loaded.system, conversation.system);
        let contents = |c: &Conversation| c.messages.iter().map(|m| m.content.clone()).collect::<Vec<_>>();
        assert_eq!(contents(&loaded), contents(&conversation));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn saving_spares_other_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.txt");
        std::fs::write(&path, "mine").unwrap();
        talk(&["user", "assistant"]).save(&path).unwrap_err();
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    }

    #[test]
    fn what_is_no_conversation_is_refused_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("talk.json");
        for (text, expected) in [
            ("[]", "`messages`: expected a list"),
            ("{\"messages\": 1}", "`messages`: expected a list"),
            ("{\"system\": 1, \"messages\": []}", "`system`: expected a text or null"),
            ("{\"messages\": [{\"role\": \"user\"}]}", "message 1: expected `role` and `content`"),
            (
                "{\"messages\": [{\"role\": \"boss\", \"content\": \"\"}]}",
                "message 1: expected role `user`, found `boss`",
            ),
            ("{\"messages\": [{\"role\": \"user\", \"content\": \"\"}]}", "expected an answer"),
            ("no json", "found no JSON"),
        ] {
            std::fs::write(&path, text).unwrap();
            let failure = format!("{:?}", Conversation::load(&path).err().expect(text));
            assert!(failure.contains(expected), "{text}: {failure}");
        }
    }
}
