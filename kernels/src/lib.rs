//! The arithmetic of ternary models: packed matrices, the kernels of each instruction set, the thread pool.
//!
//! Everything that is `unsafe` for speed lives in this crate. Nothing here knows files, models or tokens.

mod bytes;

pub use bytes::{Bytes, Owner};
