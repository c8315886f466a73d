//! How numbers are rounded as a run goes: activations in eight bits at first if that is wanted, then as the finished model has
//! them, keys and values likewise; and all that is rounded by little and little, where the model was one of floats.

use tern::{KvFormat, Scheme};

/// The schemes of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stages {
    /// The last.
    pub last: Scheme,
    /// The cache whose rounding keys and values get with it.
    pub kv: KvFormat,
    /// Steps before it, in eight bits.
    pub before: u64,
    /// Steps in which rounding grows from nothing to all of it.
    pub growing: u64,
}

impl Default for Stages {
    fn default() -> Self {
        Self { last: Scheme::default(), kv: KvFormat::F32, before: 0, growing: 0 }
    }
}

impl Stages {
    /// The scheme of step `step`, counted from 1, and of the model after it.
    pub fn at(self, step: u64) -> Scheme {
        if step <= self.before { self.last.in_eight_bits() } else { self.last }
    }

    /// How keys and values are rounded in step `step`, counted from 1.
    pub fn kv_at(self, step: u64) -> KvFormat {
        if step <= self.before { KvFormat::F32 } else { self.kv }
    }

    /// How far weights and inputs are rounded in step `step`, counted from 1: from 0 to 1.
    pub fn share(self, step: u64) -> f32 {
        if step > self.growing { 1.0 } else { (step - 1) as f32 / self.growing as f32 }
    }
}
