//! Students of float models: the graphs of Mistral, Qwen2, Qwen3 and Gemma3 with the two sub-norms of BitNet b1.58 (SubLN) and
//! ternary weights, as distillation makes them. Nobody else writes such files, so the names are Tern's own, and no other program
//! takes one of these for what it knows. A Llama with sub-norms has no name here: it is a BitNet b1.58 with SiLU.

use super::{Family, bitnet, gemma3, mistral, qwen2, qwen3};

pub(super) const MISTRAL: Family = Family {
    name: "Mistral with sub-norms",
    gguf: &["mistral-subln"],
    hf: &["MistralSubLNForCausalLM"],
    model_types: &["mistral-subln"],
    sub_norms: bitnet::FAMILY.sub_norms,
    permuted: false,
    masters: true,
    ..mistral::FAMILY
};

pub(super) const QWEN2: Family = Family {
    name: "Qwen2 with sub-norms",
    gguf: &["qwen2-subln"],
    hf: &["Qwen2SubLNForCausalLM"],
    model_types: &["qwen2-subln"],
    sub_norms: bitnet::FAMILY.sub_norms,
    masters: true,
    ..qwen2::FAMILY
};

pub(super) const QWEN3: Family = Family {
    name: "Qwen3 with sub-norms",
    gguf: &["qwen3-subln"],
    hf: &["Qwen3SubLNForCausalLM"],
    model_types: &["qwen3-subln"],
    sub_norms: bitnet::FAMILY.sub_norms,
    masters: true,
    embeds: false,
    ..qwen3::FAMILY
};

/// Norms lie as they are: less 1 they would be rounded, and a checkpoint is what was trained to the bit.
pub(super) const GEMMA3: Family = Family {
    name: "Gemma 3 with sub-norms",
    gguf: &["gemma3-subln"],
    hf: &["Gemma3SubLNForCausalLM"],
    model_types: &["gemma3-subln"],
    sub_norms: bitnet::FAMILY.sub_norms,
    masters: true,
    embeds: false,
    less_one: false,
    ..gemma3::FAMILY
};
