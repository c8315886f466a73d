//! One budget of memory for everything that requests hold beside the model: bodies on their way in, what they are read
//! into, prompts as tokens, answers that wait for a client.
//!
//! What is held is counted before it is allocated, by what it costs at most. What finds no room is told to come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::error::Refusal;

/// The memory of all requests together.
#[derive(Debug)]
pub(crate) struct Budget {
    most: usize,
    used: AtomicUsize,
    /// The most that was used since freed memory was last given back to the system.
    high: AtomicUsize,
    /// Much was freed.
    pub(crate) freed: Notify,
}

/// What every request may hold even where the budget is used up: a client that fills it with large bodies keeps no small ones
/// out. The number of connections bounds the sum.
const SMALL: usize = 64 << 10;
/// Less than this is not worth giving back.
const MUCH: usize = 64 << 20;

impl Budget {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        let (used, high) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { most, used, high, freed: Notify::new() })
    }

    /// Nothing held yet.
    pub(crate) fn hold(self: &Arc<Self>) -> Hold {
        Hold { budget: self.clone(), bytes: 0 }
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    pub(crate) fn most(&self) -> usize {
        self.most
    }

    fn give(&self, bytes: usize) {
        let used = self.used.fetch_sub(bytes, Ordering::Relaxed) - bytes;
        let high = self.high.load(Ordering::Relaxed);
        if high > MUCH && used < high / 4 {
            self.high.store(used, Ordering::Relaxed);
            self.freed.notify_one();
        }
    }
}

/// What one request holds; it goes back when this is dropped.
#[derive(Debug)]
pub(crate) struct Hold {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Hold {
    /// It is so many bytes now, if there is room for them.
    pub(crate) fn set(&mut self, bytes: usize) -> Result<(), Refusal> {
        let budget = &self.budget;
        if bytes > budget.most.max(SMALL) {
            let most = budget.most >> 20;
            return Err(Refusal::too_large(format!(
                "this request needs {} MiB of memory; all requests together have {most} MiB (`--request-memory`)",
                bytes >> 20
            )));
        }
        if bytes <= self.bytes {
            budget.give(self.bytes - bytes);
        } else {
            let more = bytes - self.bytes;
            let used = budget.used.fetch_add(more, Ordering::Relaxed) + more;
            if bytes > SMALL && used > budget.most {
                budget.used.fetch_sub(more, Ordering::Relaxed);
                return Err(Refusal::memory());
            }
            budget.high.fetch_max(used, Ordering::Relaxed);
        }
        self.bytes = bytes;
        Ok(())
    }

    /// It is so many bytes more.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), Refusal> {
        self.set(self.bytes.saturating_add(bytes))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.budget.give(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_room_is_refused_and_small_things_always_find_some() {
        let budget = Budget::new(1 << 20);
        let (mut large, mut small) = (budget.hold(), budget.hold());
        assert_eq!(large.set((1 << 20) + 1).unwrap_err().status, 413);
        large.set(1 << 20).unwrap();
        small.set(SMALL).unwrap();
        let refusal = small.grow(1).unwrap_err();
        assert_eq!((refusal.status.as_u16(), refusal.retry_after.is_some()), (503, true));
        assert_eq!(budget.used(), (1 << 20) + SMALL, "what was refused is not counted");
        large.set(10).unwrap();
        small.grow(1).unwrap();
        drop((large, small));
        assert_eq!(budget.used(), 0);
    }
}
