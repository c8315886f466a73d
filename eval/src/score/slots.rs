//! Which beginnings of texts are in memory already.

use super::{Job, Scorer};
use tern::{Error, Result};

/// Tokens that must be saved before a cache is copied from one slot to another: a copy is far cheaper than a token of
/// prompt, but not free.
const WORTH: usize = 32;

/// How many tokens two texts have in common at their beginnings.
pub(super) fn shared(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

impl Scorer<'_> {
    /// Brings each slot to the longest beginning of its context that is in memory, and says how long that is. The last
    /// token of a context is never kept: what it predicts is wanted.
    pub(super) fn settle(&mut self, contexts: &[&[u32]]) -> Result<Vec<usize>> {
        // What all have in common and no slot holds is computed once, in the first.
        if let [first, rest @ ..] = contexts
            && !rest.is_empty()
        {
            let most = first.len() - 1;
            let common = rest.iter().map(|other| shared(first, other).min(other.len() - 1)).min();
            let common = common.unwrap_or(most).min(most);
            let held =
                self.slots.iter().map(|slot| shared(slot.tokens(), &first[..common])).max().unwrap_or(0);
            if common >= held + WORTH {
                let kept = shared(self.slots[0].tokens(), &first[..common]);
                self.slots[0].truncate(kept);
                self.run(
                    &[Job { slot: 0, tokens: first[kept..common].to_vec(), targets: Vec::new() }],
                    &mut [],
                )?;
            }
        }
        // Copies first, from slots as they are: what one slot drops another may still want.
        let mut plan = Vec::with_capacity(contexts.len());
        for (slot, context) in contexts.iter().enumerate() {
            let useful = |other: usize| shared(self.slots[other].tokens(), &context[..context.len() - 1]);
            let own = useful(slot);
            let best = (0..self.slots.len()).map(|other| (useful(other), other)).max_by_key(|(len, _)| *len);
            let (len, from) = best.unwrap_or((own, slot));
            plan.push(if len >= own + WORTH { (len, from) } else { (own, slot) });
        }
        let copies: Vec<_> =
            plan.iter().map(|&(len, from)| (len, self.slots[from].tokens()[..len].to_vec())).collect();
        for (slot, &(len, from)) in plan.iter().enumerate() {
            // A source that was overwritten by a copy of its own still serves where the beginning is the same.
            let usable = shared(self.slots[from].tokens(), &copies[slot].1);
            if from != slot && usable >= shared(self.slots[slot].tokens(), &copies[slot].1) + WORTH {
                let mut copy = self.slots[from].clone();
                copy.truncate(usable.min(len));
                self.slots[slot] = copy;
            }
        }
        contexts
            .iter()
            .enumerate()
            .map(|(slot, context)| {
                let Some(last) = context.len().checked_sub(1) else {
                    return Err(Error::Input("an empty text has no likelihood".to_owned()));
                };
                let kept = shared(self.slots[slot].tokens(), &context[..last]);
                self.slots[slot].truncate(kept);
                Ok(kept)
            })
            .collect()
    }
}
