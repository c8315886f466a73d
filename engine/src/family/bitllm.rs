//! The 1bitLLM reproductions (`1bitLLM/bitnet_b1_58-large`, `-xl`, `-3B`): SiLU, sub-norms under other names, float
//! masters. Their `config.json` may call itself `llama`; the architecture string (small n in "Bitnet") tells.

use super::{Family, llama};

pub(super) const FAMILY: Family = Family {
    name: "1bitLLM BitNet b1.58",
    gguf: &["bitnet"],
    hf: &["BitnetForCausalLM"],
    sub_norms: Some(["self_attn.inner_attn_ln", "mlp.ffn_layernorm"]),
    permuted: false,
    masters: true,
    ..llama::FAMILY
};
