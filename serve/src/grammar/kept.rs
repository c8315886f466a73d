//! Grammars that were compiled, by their text; also those that cannot be.

use std::collections::HashMap;
use std::sync::Arc;

use super::compile::Compiled;
use crate::limits::{KEPT_BYTES, KEPT_GRAMMARS};

/// The latest ones.
#[derive(Default)]
pub(super) struct Kept {
    known: HashMap<Vec<u8>, One>,
    bytes: usize,
    /// Counts uses.
    clock: u64,
}

/// Bytes of a compiled grammar beside its lexer, for each of its text: an estimate on the high side.
const TIMES: usize = 64;

struct One {
    compiled: Result<Arc<Compiled>, String>,
    bytes: usize,
    used: u64,
}

impl Kept {
    pub(super) fn get(&mut self, text: &[u8]) -> Option<Result<Arc<Compiled>, String>> {
        self.clock += 1;
        let one = self.known.get_mut(text)?;
        one.used = self.clock;
        Some(one.compiled.clone())
    }

    /// What was not used for the longest time goes, until this one has room.
    pub(super) fn put(&mut self, text: Vec<u8>, compiled: Result<Arc<Compiled>, String>) {
        // The rules of a grammar take a multiple of its text.
        let bytes = TIMES * text.len() + compiled.as_ref().map_or(0, |compiled| compiled.bytes);
        if bytes > KEPT_BYTES / 4 {
            return;
        }
        self.clock += 1;
        let one = One { compiled, bytes, used: self.clock };
        self.bytes += bytes;
        if let Some(before) = self.known.insert(text, one) {
            self.bytes -= before.bytes;
        }
        while self.bytes > KEPT_BYTES || self.known.len() > KEPT_GRAMMARS {
            let Some(oldest) =
                self.known.iter().min_by_key(|(_, one)| one.used).map(|(text, _)| text.clone())
            else {
                return;
            };
            if let Some(gone) = self.known.remove(&oldest) {
                self.bytes -= gone.bytes;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_goes_first() {
        let mut kept = Kept::default();
        let name = |at: usize| format!("grammar {at}").into_bytes();
        for at in 0..KEPT_GRAMMARS + 10 {
            kept.put(name(at), Err(format!("{at}")));
            assert!(kept.get(&name(0)).is_some(), "used all the time");
        }
        assert_eq!(kept.known.len(), KEPT_GRAMMARS);
        assert!(kept.get(&name(1)).is_none());
        assert!(kept.get(&name(KEPT_GRAMMARS + 9)).is_some());
        // A large one pushes out several, one that is too large none.
        let most = KEPT_BYTES / 4 / TIMES;
        kept.put(vec![b'x'; most], Err(String::new()));
        kept.put(vec![b'y'; most + 1], Err(String::new()));
        assert!(kept.get(&vec![b'x'; most]).is_some());
        assert!(kept.get(&vec![b'y'; most + 1]).is_none());
        assert_eq!(kept.bytes, kept.known.values().map(|one| one.bytes).sum::<usize>());
    }
}
