//! How tensors are called: canonical names are those of GGUF, and these are Hugging Face's words for them.

use super::Family;

/// What stands before Hugging Face's names: a language model of its own, one inside a model of several parts, an embedding
/// model.
pub(super) const PREFIXES: [&str; 3] = ["model.", VIBEVOICE, ""];
/// The language model among the parts of VibeVoice.
pub(super) const VIBEVOICE: &str = "model.language_model.";

/// The seven projections of a block: canonical and Hugging Face names.
pub const PROJECTIONS: [(&str, &str); 7] = [
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// What the norm in front of a projection adds to its canonical name.
pub(super) const NORM_IN: &str = "_norm_in";

/// A canonical name in Hugging Face's words.
pub fn hf_name(family: &Family, prefix: &str, canonical: &str) -> String {
    match canonical {
        "token_embd.weight" => return format!("{prefix}embed_tokens.weight"),
        "output_norm.weight" => return format!("{prefix}norm.weight"),
        "output.weight" => return "lm_head.weight".to_owned(),
        _ => {}
    }
    let mut parts = canonical.splitn(3, '.');
    let (Some("blk"), Some(layer), Some(rest)) = (parts.next(), parts.next(), parts.next()) else {
        return canonical.to_owned();
    };
    let (module, kind) = rest.rsplit_once('.').unwrap_or((rest, "weight"));
    let [attn_sub_norm, ffn_sub_norm] = family.sub_norms.unwrap_or(["", ""]);
    let own = family.norms.iter().chain(&PROJECTIONS).find(|(name, _)| *name == module);
    let hf = match (own, module) {
        (Some((_, hf)), _) => (*hf).to_owned(),
        (None, "attn_norm") => "input_layernorm".to_owned(),
        (None, "ffn_norm") => "post_attention_layernorm".to_owned(),
        (None, "attn_sub_norm") => attn_sub_norm.to_owned(),
        (None, "ffn_sub_norm") => ffn_sub_norm.to_owned(),
        (None, other) => {
            let before = other.strip_suffix(NORM_IN);
            let projection = PROJECTIONS.iter().find(|(name, _)| Some(*name) == before);
            projection.map_or(other.to_owned(), |(_, hf)| format!("{hf}.norm"))
        }
    };
    format!("{prefix}layers.{layer}.{hf}.{kind}")
}
