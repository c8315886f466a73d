//! Gemma3's text model: the BitNet embedding model of 270 million. Norms before and behind each branch and on each head,
//! GELU, layers with a sliding window and positions of their own, embedded tokens times the root of the width.

use super::{Family, llama};

pub(super) const FAMILY: Family = Family {
    name: "Gemma 3",
    gguf: &["gemma3"],
    hf: &["Gemma3TextModel", "Gemma3ForCausalLM"],
    model_types: &["gemma3_text"],
    norms: &[
        ("post_attention_norm", "post_attention_layernorm"),
        ("ffn_norm", "pre_feedforward_layernorm"),
        ("post_ffw_norm", "post_feedforward_layernorm"),
        ("attn_q_norm", "self_attn.q_norm"),
        ("attn_k_norm", "self_attn.k_norm"),
    ],
    gguf_act: "gelu_pytorch_tanh",
    permuted: false,
    embeds: true,
    windows: true,
    gemma: true,
    less_one: true,
    ..llama::FAMILY
};
