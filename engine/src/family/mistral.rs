//! Mistral: Llama with a window in every layer, or none. Its GGUFs call themselves `llama`.

use super::{Family, llama};

pub(super) const FAMILY: Family = Family {
    name: "Mistral",
    hf: &["MistralForCausalLM"],
    model_types: &["mistral"],
    windows: true,
    ..llama::FAMILY
};
