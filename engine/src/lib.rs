//! Tern runs ternary (BitNet b1.58) language models on ordinary CPUs. This crate is the library behind the `tern` command:
//! it loads a model, writes with it, and serves many texts at once from one thread.
//!
//! Load a model and stream ten tokens:
//!
//! ```
//! use tern::{Generation, Model, Options, Sampling, Specials};
//!
//! # fn main() -> tern::Result<()> {
//! // Or `Model::open(path, …)` with a GGUF file, a safetensors file or a checkpoint directory.
//! let model = Model::story(&Options::default())?;
//! let tokenizer = model.tokenizer()?;
//! let prompt = tokenizer.encode("Once upon a time", tokenizer.adds_bos(), Specials::Text)?;
//!
//! let mut generation = Generation::new(&model, 256, Sampling::default())?;
//! generation.prompt(&prompt)?;
//! let mut decoder = tokenizer.decoder_after(&prompt);
//! for _ in 0..10 {
//!     let Some(token) = generation.next()? else { break };
//!     print!("{}", decoder.push(token.id).unwrap_or_default());
//! }
//! println!("{}", decoder.finish());
//! # Ok(())
//! # }
//! ```
//!
//! A [`Model`] is what a file holds: its [`Config`] (the numbers of the architecture), its weights, and a [`Tokenizer`],
//! which turns text into token ids and back. [`Options`] says how it is held in memory and on how many threads it runs;
//! none of them changes what the model is. A [`Generation`] is one text being continued: it prefills a prompt, then decodes
//! token by token, and a [`Sampler`] with its [`Sampling`] settings chooses each of them. A [`Batch`] steps many texts
//! through the model together in a bounded KV cache, as a server does. [`Model::forward`] is below both: rows of tokens
//! in, logits out.
//!
//! Models are read by [`file`](mod@file) (containers) and [`codec`] (encodings of weights). Every fault of a file or of an input is an
//! [`Error`] of one line that names what was wrong. What is read of a model beyond its use is public for the crates above:
//! [`family`](mod@family), [`keys`] and [`tokenizer`](mod@tokenizer) say what files call things.

mod activity;
pub mod adapter;
mod batch;
mod clock;
pub mod codec;
mod config;
mod cost;
pub mod date;
mod draft;
pub mod embed;
mod error;
pub mod family;
pub mod file;
mod forward;
mod generate;
mod head;
pub mod keys;
mod memory;
mod model;
mod rope;
mod sampler;
mod sequence;
mod story;
mod template;
mod tensor;
pub mod tokenizer;
mod units;
mod weights;

pub use activity::Activity;
pub use adapter::Adapter;
pub use batch::{Batch, Bounds, Finish, Guide, Job, Load, Output, Scored, Ticket};
pub use config::{Config, Graph, Inlet, Pooling, Scheme, Sliding};
pub use cost::{Cost, Step};
pub use draft::{Drafted, Drafts};
pub use embed::{BITS, Embedder};
pub use error::{Error, Result, quoted};
pub use forward::{Row, Scratch};
pub use generate::{CHUNK, Generation, Stop, Token};
pub use head::Logits;
pub use memory::free_memory;
pub use model::{MAX_THREADS, Model, Options};
pub use rope::{Pairing, Rope, Scaling, Yarn};
pub use sampler::{Allowed, Dry, LogSum, Past, Sampler, Sampling, likeliest};
pub use sequence::Sequence;
pub use story::{STORY, story_bytes, story_file};
pub use template::{Message, Template};
pub use tensor::{Affine, Encoding, Tensor};
// Types of the kernels that the types above take and return, so that callers need not depend on that crate.
pub use tern_kernels::{
    Activation, Bytes, Cpu, Kept, KvFormat, Packing, Pool, Random, Rounding, give_back, keep_little,
};
pub use tokenizer::{Decoder, Specials, Tokenizer};
pub use units::{UnitReads, Zeros};
pub use weights::Head;
