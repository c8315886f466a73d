//! Answers that follow a grammar, bounded in what each step and all of them together may cost.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use llguidance::{CancellationHandle, TokenParser};
use tern::Guide;

use super::compile::{Compiled, told};
use super::watch::Watch;
use crate::limits::{ITEM_BYTES, LEXER_BYTES, LEXERS_BYTES, STEP_TIME};

/// What all answers with grammars hold together.
#[derive(Debug)]
pub(crate) struct Room {
    bytes: AtomicUsize,
    answers: AtomicUsize,
    watch: Watch,
}

impl Default for Room {
    fn default() -> Self {
        let (bytes, answers) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { bytes, answers, watch: Watch::new(STEP_TIME) }
    }
}

/// One answer's place in its grammar.
pub(crate) struct Followed {
    parser: TokenParser,
    /// What ends a step of the parser.
    end: CancellationHandle,
    /// Bytes counted in `room`.
    held: usize,
    /// Items that tokens added for good.
    items: usize,
    room: Arc<Room>,
    /// Why it cannot go on.
    lost: Option<String>,
}

impl Followed {
    pub(crate) fn new(compiled: &Compiled, room: &Arc<Room>) -> Self {
        room.answers.fetch_add(1, Ordering::Relaxed);
        room.bytes.fetch_add(compiled.bytes, Ordering::Relaxed);
        let mut parser = compiled.parser.deep_clone();
        let end = parser.enable_cancellation();
        Self { parser, end, held: compiled.bytes, items: 0, room: room.clone(), lost: None }
    }

    /// One step of the parser. A panic of it ends this answer only.
    fn step<T>(&mut self, step: impl FnOnce(&mut TokenParser) -> Result<T, String>) -> Result<T, String> {
        if let Some(lost) = &self.lost {
            return Err(lost.clone());
        }
        let watched = self.room.watch.begin(&self.end);
        let stepped = catch_unwind(AssertUnwindSafe(|| step(&mut self.parser)));
        drop(watched);
        let done = stepped.unwrap_or_else(|_| Err("it cannot be followed".to_owned()));
        let done = done.and_then(|done| self.weigh().map(|()| done));
        done.map_err(|what| {
            let what = match self.end.is_cancelled() {
                true => format!("a step of it takes longer than {} s", STEP_TIME.as_secs()),
                false => what,
            };
            let lost = format!("the grammar of the answer cannot be followed any further: {}", told(&what));
            self.lost = Some(lost.clone());
            lost
        })
    }

    /// A step is bounded by the crate's own limits; what steps leave behind is bounded here.
    fn weigh(&mut self) -> Result<(), String> {
        let held = self.parser.parser.lexer_stats().num_bytes + self.items * ITEM_BYTES;
        self.room.bytes.fetch_add(held, Ordering::Relaxed);
        let all = self.room.bytes.fetch_sub(self.held, Ordering::Relaxed) - self.held;
        self.held = held;
        let share = LEXERS_BYTES / self.room.answers.load(Ordering::Relaxed).max(1);
        if held > LEXER_BYTES || all > LEXERS_BYTES && held > share {
            return Err(format!("it needs more than {} MiB", held >> 20));
        }
        Ok(())
    }
}

#[cfg(test)]
impl Room {
    /// Bytes, and answers.
    pub(super) fn held(&self) -> (usize, usize) {
        (self.bytes.load(Ordering::Relaxed), self.answers.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
impl Followed {
    /// As if a step had taken too long.
    pub(super) fn give_up(&self) {
        self.end.cancel();
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.room.bytes.fetch_sub(self.held, Ordering::Relaxed);
        self.room.answers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Guide for Followed {
    fn allow(&mut self, bits: &mut Vec<u32>) -> Result<(), String> {
        bits.clear();
        if self.parser.stopped() && self.lost.is_none() {
            return Ok(());
        }
        let mask = self.step(|parser| parser.compute_mask().map_err(|error| error.to_string()))?;
        bits.extend_from_slice(mask.as_slice());
        Ok(())
    }

    fn accept(&mut self, id: u32) -> Result<(), String> {
        let before = self.parser.parser_stats().all_items;
        self.step(|parser| {
            let back = parser.consume_token(id).map_err(|error| error.to_string())?;
            if back > 0 {
                return Err("it asks for tokens back".to_owned());
            }
            parser.check_stop().map_err(|error| error.to_string())?;
            Ok(())
        })?;
        self.items += self.parser.parser_stats().all_items.saturating_sub(before);
        Ok(())
    }
}
