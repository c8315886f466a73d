//! MiniCPM4: BitCPM. Llama with a factor on the embedding, on each branch and on the logits, and LongRoPE.

use super::{Family, llama};

pub(super) const FAMILY: Family = Family {
    name: "MiniCPM",
    gguf: &["minicpm"],
    hf: &["MiniCPMForCausalLM"],
    model_types: &["minicpm", "minicpm4"],
    ..llama::FAMILY
};
