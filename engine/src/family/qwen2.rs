//! Qwen2 with ternary projections: the language model of VibeVoice-ASR-BitNet, and BitDistill's. q, k and v have biases.

use super::{Family, llama};

pub(super) const FAMILY: Family = Family {
    name: "Qwen2",
    gguf: &["qwen2"],
    hf: &["Qwen2ForCausalLM"],
    model_types: &["qwen2"],
    biases: true,
    permuted: false,
    windows: true,
    ..llama::FAMILY
};
