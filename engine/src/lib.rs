//! Tern: ternary (BitNet b1.58) language models on ordinary CPUs.

pub mod codec;
mod error;
pub mod file;

pub use error::{Error, Result};
