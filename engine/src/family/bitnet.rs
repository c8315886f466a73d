//! BitNet b1.58 2B4T (`microsoft/bitnet-b1.58-2B-4T` and its bf16 and GGUF twins): ReLU² and sub-norms.

use super::{Family, llama};

pub(super) const FAMILY: Family = Family {
    name: "BitNet b1.58",
    gguf: &["bitnet-b1.58", "bitnet-25"],
    hf: &["BitNetForCausalLM"],
    sub_norms: Some(["self_attn.attn_sub_norm", "mlp.ffn_sub_norm"]),
    gguf_act: "relu2",
    permuted: false,
    masters: true,
    ..llama::FAMILY
};
