//! Train ternary (BitNet b1.58) language models on ordinary CPUs: the engine's transformer forward and backward, AdamW,
//! data, checkpoints, export.
//!
//! There is no graph and no automatic differentiation: each operation in [`ops`] is a forward function with its backward
//! below it, and [`network`] calls them in order and in reverse.

pub mod check;
pub mod checkpoint;
pub mod config;
pub mod corpus;
pub mod data;
pub mod error;
mod evals;
pub mod export;
pub mod folder;
pub mod forecast;
pub mod lock;
pub mod lora;
pub mod machines;
pub mod metrics;
mod narrow;
pub mod network;
pub mod ops;
pub mod optimiser;
pub mod pairs;
pub mod params;
mod patience;
pub mod random;
pub mod rebuilt;
pub mod report;
pub mod run;
pub mod schedule;
pub mod stages;
pub mod start;
pub mod step;
pub mod sum;
pub mod svg;
mod teacher;
pub mod tensorboard;
pub mod tokenizer;

pub use error::{Error, Result};
