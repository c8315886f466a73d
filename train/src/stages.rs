//! How numbers are rounded as a run goes: activations in eight bits at first if that is wanted, then as the finished model has
//! them; and all that is rounded by little and little, where the model was one of floats.

use tern::Scheme;

/// The schemes of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stages {
    /// The last.
    pub last: Scheme,
    /// Steps before it, in eight bits.
    pub before: u64,
    /// Steps in which rounding grows from nothing to all of it.
    pub growing: u64,
}

impl Stages {
    /// The scheme of step `step`, counted from 1, and of the model after it.
    pub fn at(self, step: u64) -> Scheme {
        if step <= self.before { self.last.in_eight_bits() } else { self.last }
    }

    /// How far weights and inputs are rounded in step `step`, counted from 1: from 0 to 1.
    pub fn share(self, step: u64) -> f32 {
        if step > self.growing { 1.0 } else { (step - 1) as f32 / self.growing as f32 }
    }
}
