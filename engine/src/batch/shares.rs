//! What each owner of jobs got of the model, so that who got least is next, and how many slots are an owner's part.
//!
//! An owner is known while a job of theirs waits or runs, and for a moment longer: who reads an answer and asks again has not
//! left. Who comes anew begins with what the one who got least has: not in debt for what was before, and without a
//! credit for the time of absence.

use std::collections::HashMap;
use std::time::Duration;

use crate::clock::Instant;

/// How long an owner without a job is still one who shares.
const LINGER: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Shares(HashMap<u64, Share>);

#[derive(Debug)]
struct Share {
    jobs: usize,
    spent: u64,
    /// When the last job ended, where there is none.
    left: Instant,
}

impl Shares {
    /// A job of this owner came.
    pub(super) fn enter(&mut self, owner: u64) {
        self.forget();
        let spent = self.0.values().map(|share| share.spent).min().unwrap_or(0);
        self.0.entry(owner).or_insert(Share { jobs: 0, spent, left: Instant::now() }).jobs += 1;
    }

    /// A job of this owner ended.
    pub(super) fn leave(&mut self, owner: u64) {
        if let Some(share) = self.0.get_mut(&owner) {
            share.jobs -= 1;
            share.left = Instant::now();
        }
    }

    /// Forgets those who have left, and counts the others.
    pub(super) fn forget(&mut self) -> usize {
        self.0.retain(|_, share| share.jobs > 0 || share.left.elapsed() < LINGER);
        self.0.len()
    }

    /// Counts what a job took.
    pub(super) fn spend(&mut self, owner: u64, cost: u64) {
        if let Some(share) = self.0.get_mut(&owner) {
            share.spent = share.spent.saturating_add(cost);
        }
    }

    /// What the owner got.
    pub(super) fn of(&self, owner: u64) -> u64 {
        self.0.get(&owner).map_or(0, |share| share.spent)
    }
}
