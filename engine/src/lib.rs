//! Tern: ternary (BitNet b1.58) language models on ordinary CPUs.

mod batch;
pub mod codec;
mod config;
pub mod convert;
mod cost;
pub mod dummy;
mod energy;
mod error;
mod family;
pub mod file;
mod forward;
mod generate;
mod head;
pub mod masters;
mod model;
mod sampler;
mod sequence;
mod story;
mod template;
mod tokenizer;
mod weights;

pub use batch::{Batch, Bounds, Finish, Guide, Job, Load, Output, Scored, Ticket};
pub use config::{Config, Pairing, Rope};
pub use cost::{Cost, Step};
pub use energy::{Measure, Meter};
pub use error::{Error, Result};
pub use forward::{Row, Scratch};
pub use generate::{CHUNK, Generation, Stop, Token};
pub use head::{Head, Logits};
pub use model::{MAX_THREADS, Model, Options};
pub use sampler::{Allowed, Past, Sampler, Sampling};
pub use sequence::Sequence;
pub use story::{STORY, story_file};
pub use template::{Message, Template};
pub use tokenizer::{Decoder, Specials, Tokenizer};
