//! Model files made out of other model files: conversions that change no trit and no scale, dummies with random weights
//! for measuring speed, the float masters that training starts from and leaves, and adapters.
//!
//! ```no_run
//! use tern_convert::{ConvertOptions, Target, convert};
//!
//! # fn main() -> tern::Result<()> {
//! let options = ConvertOptions::new(Target::I2);
//! let summary = convert("checkpoint".as_ref(), "model.gguf".as_ref(), &options, &mut |_done, _total| {})?;
//! println!("{} tensors, {} bytes", summary.tensors, summary.bytes);
//! # Ok(())
//! # }
//! ```
//!
//! Nothing here runs a model. Reading files, the encodings of tensors and writing a file whole or not at all are the
//! engine's ([`tern::file`], [`tern::codec`]).

pub mod adapter;
mod convert;
pub mod dummy;
mod keys;
pub mod masters;
mod options;
mod plan;
mod tokens;

pub use convert::{convert, convert_file};
pub use options::{ConvertOptions, Engine, Floats, Summary, Target};
pub use tokens::{Files, generation_config};
