//! BitNet a4.8 and BitNet v2: the graph of BitNet b1.58 with other inputs of its projections (`config/scheme.rs`). Nobody has
//! published weights, so the names are Tern's own, and no other program takes one of these for what it knows.

use super::{Family, bitnet};
use crate::config::Scheme;

pub(super) const A48: Family = Family {
    name: "BitNet a4.8",
    gguf: &["bitnet-a4.8"],
    hf: &["BitNetA48ForCausalLM"],
    model_types: &["bitnet-a4.8"],
    schemes: &[Scheme::A48],
    ..bitnet::FAMILY
};

pub(super) const V2: Family = Family {
    name: "BitNet v2",
    gguf: &["bitnet-v2"],
    hf: &["BitNetV2ForCausalLM"],
    model_types: &["bitnet-v2"],
    gguf_act: "silu",
    schemes: &[Scheme::V2A8, Scheme::V2A4, Scheme::A4],
    ..bitnet::FAMILY
};
