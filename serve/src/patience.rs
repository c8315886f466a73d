//! Who is refused over and over waits.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::limits::REFUSALS;

/// Counts who is refused again and again for want of a key, a place or memory.
#[derive(Debug)]
pub(crate) struct Patience(Mutex<(Instant, HashMap<u64, usize>)>);

impl Default for Patience {
    fn default() -> Self {
        Self(Mutex::new((Instant::now(), HashMap::new())))
    }
}

impl Patience {
    /// Whether this one was refused too often in this second: then its refusals wait, or it would ask again at once and
    /// keep the server busy with nothing else.
    pub(crate) fn is_lost(&self, owner: u64) -> bool {
        let mut counts = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if counts.0.elapsed() > Duration::from_secs(1) {
            *counts = (Instant::now(), HashMap::new());
        }
        let count = counts.1.entry(owner).or_default();
        *count += 1;
        *count > REFUSALS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_refused_often_waits_and_nobody_else() {
        let patience = Patience::default();
        let lost = (0..2 * REFUSALS).filter(|_| patience.is_lost(7)).count();
        assert_eq!(lost, REFUSALS);
        assert!(!patience.is_lost(8));
        patience.0.lock().unwrap().0 -= Duration::from_secs(2);
        assert!(!patience.is_lost(7), "another second");
    }
}
