//! The library behind `tern.h`: models for C, and for every language that calls C. The header is what its users read: it is made
//! from these functions and their comments (`tests/header.rs`).
//!
//! `border.rs` is what stands between both sides: no panic crosses it, nothing that comes over it is believed before it was
//! looked at, and what goes over it carries its size.

#![expect(
    clippy::missing_safety_doc,
    reason = "the rules are the same for all functions and stand once, at the top of the header"
)]

mod border;
mod generation;
mod model;
mod settings;

pub use border::{tern_free, tern_last_error, tern_version};
pub use generation::{
    Callback, Generation, TERN_CANCELLED, TERN_CONTEXT, TERN_ERROR, TERN_LENGTH, TERN_NO_TOKEN, TERN_STOP,
    tern_cancel, tern_generate, tern_generation_free, tern_generation_new,
};
pub use model::{
    MessageView, Model, tern_detokenize, tern_embed, tern_model_context, tern_model_free, tern_model_load,
    tern_tokenize, tern_tokenize_chat,
};
