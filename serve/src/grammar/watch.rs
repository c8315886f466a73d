//! A clock beside the steps of answers with grammars: one that takes too long is told to give up. The crate's own limits
//! count expressions and places, which bounds a step by experience only, and a step holds every other answer up.

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use llguidance::CancellationHandle;

/// The clock; its thread ends with this value.
#[derive(Debug)]
pub(super) struct Watch(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    most: Duration,
    now: Mutex<Now>,
    begun: Condvar,
}

#[derive(Debug, Default)]
struct Now {
    /// Steps under way: their number, when they began, what ends them.
    steps: Vec<(u64, Instant, CancellationHandle)>,
    next: u64,
    /// Whether the thread sleeps until a step begins.
    asleep: bool,
    over: bool,
}

/// A step under way, until it is dropped.
pub(super) struct Step<'a> {
    watch: &'a Watch,
    number: u64,
}

impl Watch {
    /// Steps may take so long.
    pub(super) fn new(most: Duration) -> Self {
        let shared = Arc::new(Shared { most, now: Mutex::default(), begun: Condvar::new() });
        let own = shared.clone();
        // Without the thread, steps are bounded by what they count.
        let _ = std::thread::Builder::new().name("tern-steps".to_owned()).spawn(move || own.look());
        Self(shared)
    }

    /// A step begins that this ends.
    pub(super) fn begin(&self, end: &CancellationHandle) -> Step<'_> {
        let mut now = self.0.now();
        let number = now.next;
        now.next += 1;
        now.steps.push((number, Instant::now(), end.clone()));
        if std::mem::take(&mut now.asleep) {
            self.0.begun.notify_one();
        }
        Step { watch: self, number }
    }
}

impl Shared {
    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn look(&self) {
        let mut now = self.now();
        while !now.over {
            if now.steps.is_empty() {
                now.asleep = true;
                now = self.begun.wait(now).unwrap_or_else(|poisoned| poisoned.into_inner());
                continue;
            }
            for (_, begin, end) in &now.steps {
                if begin.elapsed() > self.most {
                    end.cancel();
                }
            }
            // Steps come and go a thousand times in that time; most of the time this thread sleeps.
            drop(now);
            std::thread::sleep(self.most / 4);
            now = self.now();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.now().over = true;
        self.0.begun.notify_one();
    }
}

impl Drop for Step<'_> {
    fn drop(&mut self) {
        self.watch.0.now().steps.retain(|(number, ..)| *number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_takes_too_long_is_told_so_and_no_other() {
        let watch = Watch::new(Duration::from_millis(20));
        let [short, long] = [(); 2].map(|()| CancellationHandle::default());
        drop(watch.begin(&short));
        let step = watch.begin(&long);
        let begin = Instant::now();
        while !long.is_cancelled() {
            assert!(begin.elapsed() < Duration::from_secs(30));
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(begin.elapsed() > Duration::from_millis(20));
        drop(step);
        assert!(!short.is_cancelled());
        assert!(watch.0.now().steps.is_empty());
    }
}
