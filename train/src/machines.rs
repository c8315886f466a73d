//! Training on several machines: a leader, which owns the run, and workers, which compute some of the batches of a step.
//!
//! A worker holds no data, no optimiser and no state: with each step it gets the weights, with each batch its tokens, and gives
//! back the batch's loss and gradient. The leader computes batches too, adds all of them up in their order and takes the step.
//! So any number of workers comes to the same bits; one that is lost has its batch computed by another; and one may
//! come at any time.
//!
//! ```text
//! worker                                     leader
//!   Hello      version, arithmetic, nonce  ─►          another version, other arithmetic: Refused
//!                        nonce, proof      ◄─  Welcome
//!   Proof      of the token                ─►          another token: Refused
//!                                          ◄─  Job       the shape of the model
//!                                          ◄─  Weights   of a step, if it has a batch for this worker
//!                                          ◄─  Batch     tokens, targets, starts
//!   Alive      every two seconds           ─►
//!   Gradient   loss, gradient              ─►          ... the next batch or step
//!                                          ◄─  Done
//!
//! a message:  "Trn1"  u32: kind  u64: bytes of the body  body  u64: checksum of all before it
//! ```

pub mod frame;
pub mod job;
pub mod leader;
pub mod proof;
pub mod worker;

#[cfg(test)]
mod tests;

use std::time::Duration;

/// How long a side that has something to say may be silent, or one that is told something may refuse to read.
pub(crate) const SILENCE: Duration = Duration::from_secs(20);
/// How often a worker that computes says that it lives.
pub(crate) const ALIVE: Duration = Duration::from_secs(2);
/// How long the whole greeting may take.
pub(crate) const GREETING: Duration = Duration::from_secs(10);
/// How long a worker may hear nothing between two steps: the leader validates, samples and saves there.
pub(crate) const BETWEEN: Duration = Duration::from_secs(600);
/// The version of this build, which a worker must have too: another may round another way.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
