//! `tern serve`: a server that OpenAI's, Anthropic's and Ollama's clients can use, and a page for people.
//!
//! One thread owns the model and steps all requests together (`worker`); tasks read requests and write answers. A
//! request goes `wire` → `prepare` → `worker`, its events come back through one channel and are written by a dialect
//! (`openai`, `anthropic`, `ollama`). Adding an endpoint is a handler and one line in `routes`.

mod anthropic;
mod app;
mod connection;
mod door;
mod error;
pub mod fuzzing;
mod guide;
mod info;
mod json;
mod limits;
mod memory;
mod metrics;
mod ollama;
mod openai;
mod openapi;
mod page;
mod prepare;
mod routes;
mod run;
mod server;
mod stops;
mod stream;
mod text;
pub mod tls;
mod tools;
mod wire;
mod worker;

pub use run::serve_until_told;
pub use server::{Error, Options, run};
