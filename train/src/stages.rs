//! How activations are rounded as a run goes: in eight bits at first if that is wanted, then as the finished model has them.

use tern::Scheme;

/// The schemes of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stages {
    /// The last.
    pub last: Scheme,
    /// Steps before it, in eight bits.
    pub before: u64,
}

impl Stages {
    /// The scheme of step `step`, counted from 1, and of the model after it.
    pub fn at(self, step: u64) -> Scheme {
        if step <= self.before { self.last.in_eight_bits() } else { self.last }
    }
}
