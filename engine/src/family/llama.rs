//! Ternary Llamas: Llama3-8B-1.58, Falcon3-1.58bit, Falcon-E. The plain Llama graph; float weights are a float model's
//! unless `quantization_config` says that the model was trained ternary.

use super::Family;

pub(super) const FAMILY: Family = Family {
    name: "Llama",
    gguf: &["llama"],
    hf: &["LlamaForCausalLM"],
    sub_norms: None,
    gguf_act: "silu",
    permuted: true,
    masters: false,
};
