//! Qwen3: Ternary-Bonsai, and the BitNet embedding model of 0.6 billion. Each head of q and k is normed before it is
//! rotated; a norm in front of every projection marks an embedding model, whose float weights are masters.

use super::{Family, llama};

pub(super) const FAMILY: Family = Family {
    name: "Qwen3",
    gguf: &["qwen3"],
    hf: &["Qwen3ForCausalLM", "Qwen3Model"],
    model_types: &["qwen3"],
    norms: &[("attn_q_norm", "self_attn.q_norm"), ("attn_k_norm", "self_attn.k_norm")],
    permuted: false,
    embeds: true,
    windows: true,
    ..llama::FAMILY
};
