//! Files that lie: each gives a file or one line that names it and the tensor or key, never a panic, and soon.

mod fields;
mod gguf;
#[path = "../gguf_bytes/mod.rs"]
mod gguf_bytes;
mod hostile;
mod places;
mod safetensors;
