//! `tern serve`: a server that OpenAI's, Anthropic's and Ollama's clients can use, and a page for people.
//!
//! One thread owns the model and steps all requests together (`worker`); tasks read requests and write answers. A
//! request goes `wire` → `prepare` → `worker`, its events come back through one channel and are written by a dialect
//! (`dialect/`), which knows `answer` and no other dialect. Adding an endpoint is a handler and one line in
//! `http/routes.rs`.

mod answer;
mod app;
mod asked;
mod budget;
mod dialect;
mod embed;
mod error;
pub mod fuzzing;
mod grammar;
mod http;
mod json;
mod library;
mod limits;
mod local;
mod log;
mod memory;
mod metrics;
mod models;
mod names;
mod note;
mod options;
mod page;
mod parts;
mod patience;
mod prepare;
mod ready;
mod refused;
mod run;
mod served;
mod server;
mod stops;
mod stream;
mod system;
mod tools;
mod turns;
mod wire;
mod worker;

pub use grammar::{Start, try_grammars};
pub use http::tls;
pub use library::{Arriving, Library, Named, Wrong};
pub use local::{Answer, Local};
pub use log::Log;
pub use options::Options;
pub use run::serve_until_told;
pub use served::{Load, Served, Serving};
pub use server::{Error, run};
