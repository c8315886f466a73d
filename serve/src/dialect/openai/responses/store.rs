//! Answers that are kept, so that a request can go on from one by its id: so many, in so many bytes, the oldest leave
//! first. Nothing is written to the disk.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use crate::error::{Refusal, short};
use crate::limits::{BODY, RESPONSES, RESPONSES_BYTES};
use crate::wire::{Content, Message};

/// A conversation up to its answer.
struct Kept {
    /// Who may go on with it.
    holder: u64,
    messages: Vec<Message>,
    object: Value,
    bytes: usize,
}

#[derive(Default)]
struct All {
    kept: HashMap<String, Kept>,
    order: VecDeque<String>,
    bytes: usize,
}

/// The answers of a server.
#[derive(Default)]
pub(crate) struct Store(Mutex<All>);

/// An id that nobody can guess: who knows it may go on with the conversation.
pub(crate) fn new_id() -> String {
    let random = || RandomState::new().build_hasher().finish();
    format!("resp_{:016x}{:016x}", random(), random())
}

impl Store {
    fn all(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps an answer, its conversation included; one that is too large by itself is not kept.
    pub(crate) fn keep(&self, id: &str, holder: u64, messages: Vec<Message>, object: Value) {
        let bytes = size_of(&messages) + object.to_string().len();
        if bytes > BODY {
            return;
        }
        let mut all = self.all();
        while all.kept.len() >= RESPONSES || all.bytes + bytes > RESPONSES_BYTES {
            let Some(oldest) = all.order.pop_front() else { break };
            all.forget(&oldest);
        }
        all.bytes += bytes;
        all.order.push_back(id.to_owned());
        all.kept.insert(id.to_owned(), Kept { holder, messages, object, bytes });
    }

    /// What was said up to the end of this answer.
    pub(crate) fn messages(&self, id: &str, holder: u64) -> Result<Vec<Message>, Refusal> {
        let all = self.all();
        let kept = all.kept.get(id).filter(|kept| kept.holder == holder);
        kept.map(|kept| kept.messages.clone()).ok_or_else(|| {
            let what = format!("this server does not keep `{}` (any more)", short(id));
            let refusal = Refusal::field("previous_response_id", what);
            Refusal { code: Some("previous_response_not_found"), ..refusal }
        })
    }

    pub(crate) fn object(&self, id: &str, holder: u64) -> Result<Value, Refusal> {
        let all = self.all();
        let kept = all.kept.get(id).filter(|kept| kept.holder == holder);
        kept.map(|kept| kept.object.clone()).ok_or_else(|| Refusal::not_found(&short(id)))
    }

    /// An item of a kept answer, by its own id, which holds the answer's.
    pub(crate) fn item(&self, id: &str, holder: u64) -> Option<Value> {
        let answer = id.split_once('_')?.1.get(..32)?;
        let all = self.all();
        let kept = all.kept.get(&format!("resp_{answer}")).filter(|kept| kept.holder == holder)?;
        kept.object["output"].as_array()?.iter().find(|item| item["id"] == id).cloned()
    }

    pub(crate) fn remove(&self, id: &str, holder: u64) -> Result<(), Refusal> {
        self.object(id, holder)?;
        let mut all = self.all();
        all.order.retain(|other| other != id);
        all.forget(id);
        Ok(())
    }
}

impl All {
    fn forget(&mut self, id: &str) {
        if let Some(kept) = self.kept.remove(id) {
            self.bytes -= kept.bytes;
        }
    }
}

/// Bytes of these messages, roughly.
pub(super) fn size_of(messages: &[Message]) -> usize {
    messages.iter().map(size).sum()
}

fn size(message: &Message) -> usize {
    let content = match &message.content {
        Some(Content::Text(text)) => text.len(),
        Some(Content::Parts(parts)) => {
            parts.iter().map(|part| 64 + part.text.as_ref().map_or(0, String::len)).sum()
        }
        None => 0,
    };
    let calls = message.tool_calls.iter().flatten();
    128 + content + calls.map(|call| 128 + call.function.arguments.to_string().len()).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_oldest_leave_first_and_strangers_find_nothing() {
        let store = Store::default();
        let keep = |id: &str, bytes: usize| {
            store.keep(
                id,
                1,
                vec![Message::new("user", "x".repeat(bytes))],
                json!({"output": [{"id": "msg_1"}]}),
            );
        };
        let there = |id: &str| store.messages(id, 1).is_ok();
        for at in 0..=RESPONSES {
            keep(&format!("resp_{at}"), 1);
        }
        assert!(!there("resp_0") && there("resp_1"));
        assert_eq!(store.all().kept.len(), RESPONSES);
        for at in 0..RESPONSES_BYTES / BODY {
            keep(&format!("large_{at}"), BODY - 1000);
        }
        assert!(there("large_0") && !there("resp_900"), "room was made");
        assert!(store.all().bytes <= RESPONSES_BYTES);
        keep("larger", BODY);
        assert!(!there("larger") && there("large_0"));
        assert!(store.messages("large_0", 2).is_err(), "another caller's");
        assert_eq!(store.messages("no", 1).unwrap_err().code, Some("previous_response_not_found"));
        assert!(store.remove("large_0", 2).is_err() && there("large_0"));
        store.remove("large_0", 1).unwrap();
        assert!(!there("large_0"));
        let all = store.all();
        assert_eq!(all.bytes, all.kept.values().map(|kept| kept.bytes).sum::<usize>());
        assert_ne!(new_id(), new_id());
    }
}
