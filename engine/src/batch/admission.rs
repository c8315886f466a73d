//! Who comes in: which job that waits runs next, and whether the KV cache has room for it.

use std::time::Duration;

use tern_kernels::{Cache, Chunk};

use super::prefixes::common;
use super::{Batch, Text, Ticket};
use crate::clock::Instant;
use crate::model::Model;
use crate::sequence::Sequence;

/// How long a sequence may run and not be ready before it gives its seat to one that waits.
const PATIENCE: Duration = Duration::from_millis(100);

/// Whether one that waits can come in.
enum Room {
    /// Yes; so many of its tokens lie in these pages.
    Now {
        found: usize,
        pages: Vec<Chunk>,
    },
    /// What it would read is just being read.
    Soon,
    None,
}

impl Batch {
    /// Lets in who is next as long as there is room.
    pub(super) fn admit(&mut self, model: &Model, ready: &impl Fn(Ticket) -> bool) {
        'next: while self.running.len() < self.bounds.parallel {
            for at in self.order(ready) {
                match self.room_for(at) {
                    Room::Soon => {}
                    Room::None => return,
                    Room::Now { found, pages } => {
                        let Some(mut text) = self.waiting.remove(at) else { return };
                        let mut sequence = Sequence::new(model, self.bounds.context)
                            .with_adapter(text.job.adapter.clone())
                            .counted(&self.count);
                        sequence.adopt(&text.tokens[..found], pages);
                        if !text.read {
                            text.cached = found;
                            text.scored.clear();
                        }
                        self.running.push(text);
                        self.sequences.push(sequence);
                        continue 'next;
                    }
                }
            }
            return;
        }
    }

    /// Those that wait and could go on, in the order in which they come in: who gave its pages up, then the
    /// owner who got least. No owner has more than an equal part of the slots beside others, also where some are free: each
    /// row slows all others down, and who only reads its answer finds its slot again.
    fn order(&mut self, ready: &impl Fn(Ticket) -> bool) -> Vec<usize> {
        let part = self.bounds.parallel.div_ceil(self.shares.forget().max(1));
        let running = |owner| self.running.iter().filter(|text| text.job.owner == owner).count();
        let may = |text: &Text| text.can_go_on(ready) && running(text.job.owner) < part;
        let mut order: Vec<usize> = (0..self.waiting.len()).filter(|&at| may(&self.waiting[at])).collect();
        order.sort_by_key(|&at| {
            let text = &self.waiting[at];
            (!text.read || text.aside, self.shares.of(text.job.owner), text.ticket)
        });
        order
    }

    /// Frees the slots of sequences whose readers stand still, as far as other jobs wait for one. Their pages stay until somebody
    /// needs them.
    pub(super) fn set_aside(&mut self, ready: &impl Fn(Ticket) -> bool) {
        let now = Instant::now();
        for text in &mut self.running {
            text.stalled = if text.can_go_on(ready) { None } else { text.stalled.or(Some(now)) };
        }
        for _ in 0..self.waiting.iter().filter(|text| text.can_go_on(ready)).count() {
            let long = |text: &Text| text.stalled.is_some_and(|since| now - since >= PATIENCE);
            let Some(at) = self.running.iter().position(long) else { return };
            let (text, sequence) = (self.running.remove(at), self.sequences.remove(at));
            self.prefixes.leave(text.job.realm(), sequence.tokens(), sequence.chunks());
            self.set_aside += 1;
            self.waiting.push_back(Text { stalled: None, aside: true, ..text });
        }
    }

    /// Whether the text that waits there can come in. A job whose prefix is being prefilled by another waits to reuse it.
    fn room_for(&mut self, at: usize) -> Room {
        let text = &self.waiting[at];
        let known = text.tokens.len() - 1;
        let (mut found, mut pages) = (0, Vec::new());
        if text.job.prompt_logprobs.is_none() && !text.alone {
            (found, pages) = self.prefixes.find(text.job.realm(), &text.tokens[..known]);
            for (other, sequence) in self.running.iter().zip(&self.sequences) {
                if other.job.realm() == text.job.realm() {
                    let shared = common(&other.tokens, &text.tokens[..known]);
                    let there = shared.min(sequence.tokens().len());
                    if there > found {
                        found = there;
                        pages = sequence.chunks()[..there.div_ceil(Cache::CHUNK)].to_vec();
                    }
                }
            }
            /// Tokens that are worth waiting for.
            const WORTH: usize = 16;
            let soon = self.running.iter().zip(&self.sequences).any(|(other, sequence)| {
                other.job.realm() == text.job.realm()
                    && !other.read
                    && common(&other.job.prompt, &text.tokens[..known])
                        .min(other.job.prompt.len())
                        .saturating_sub(sequence.tokens().len().max(found))
                        >= WORTH
            });
            if soon {
                return Room::Soon;
            }
        }
        if self.has_room(self.waiting[at].tokens.len() + 1, found) {
            Room::Now { found, pages }
        } else {
            Room::None
        }
    }

    /// Whether `tokens` fit beside what the running sequences are about to need, where the pages of the first `found`
    /// are there; kept pages give way.
    fn has_room(&mut self, tokens: usize, found: usize) -> bool {
        let pending = |(text, sequence): (&Text, &Sequence)| {
            sequence.missing((text.tokens.len() + 1).min(sequence.context()) - sequence.tokens().len())
        };
        let promised: usize = self.running.iter().zip(&self.sequences).map(pending).sum();
        let needed = tokens.min(self.bounds.context).div_ceil(Cache::CHUNK) - found / Cache::CHUNK;
        loop {
            if self.count.get() + promised + needed <= self.bounds.pages {
                return true;
            }
            if !self.prefixes.evict() {
                // Alone, it gets what it needs in `make_room`.
                return self.running.is_empty();
            }
        }
    }
}
