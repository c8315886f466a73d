//! Ternary Llamas: Llama3-8B-1.58, Falcon3-1.58bit, Falcon-E, TriLM. The plain Llama graph, from which the other families
//! say how they differ. Float weights are a float model's unless they are ternary already or `quantization_config` says
//! that the model was trained ternary.

use super::Family;
use crate::config::Scheme;

pub(super) const FAMILY: Family = Family {
    name: "Llama",
    gguf: &["llama"],
    hf: &["LlamaForCausalLM"],
    model_types: &["bitnet", "llama"],
    sub_norms: None,
    norms: &[],
    biases: false,
    gguf_act: "silu",
    permuted: true,
    masters: false,
    embeds: false,
    windows: false,
    gemma: false,
    less_one: false,
    schemes: &[Scheme::A8],
};
