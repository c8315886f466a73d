//! The dialects: each translates requests into the common one (`wire`) and events back; none knows another.

pub(crate) mod anthropic;
pub(crate) mod llama_cpp;
pub(crate) mod ollama;
pub(crate) mod openai;
