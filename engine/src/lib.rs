//! Tern: ternary (BitNet b1.58) language models on ordinary CPUs.

pub mod codec;
mod error;
pub mod file;
mod template;
mod tokenizer;

pub use error::{Error, Result};
pub use template::{Message, Template};
pub use tokenizer::{Decoder, Specials, Tokenizer};
