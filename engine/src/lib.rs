//! Tern: ternary (BitNet b1.58) language models on ordinary CPUs.

mod error;

pub use error::{Error, Result};
