//! Every key of a `config.json` is honoured, known to mean nothing for what a model computes here, or refused by name.

use serde_json::Value;

use super::super::Family;
use super::Json;
use crate::error::Result;

/// Keys that are read where their meaning is: sizes and choices here, ids and template by the tokenizer, Tern's own.
const HONOURED: &[&str] = &[
    "architectures",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
    "max_position_embeddings",
    "original_max_position_embeddings",
    "rms_norm_eps",
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "vocab_size",
    "tie_word_embeddings",
    "quantization_config",
    "quantization", // MLX's: file/hf.rs
    "bos_token_id",
    "eos_token_id",
    "attention_bias",
    "mlp_bias",
    "hidden_activation",
    "query_pre_attn_scalar",
    "scale_emb",
    "scale_depth",
    "dim_model_base",
    "rope_local_base_freq",
    "sliding_window",
    "use_sliding_window",
    "max_window_layers",
    "layer_types",
    "sliding_window_pattern",
    "_sliding_window_pattern",
];

/// A key, its one value in words, and whether a value is that.
type Fixed = (&'static str, &'static str, fn(&Value) -> bool);

/// Keys that may stand there with one value only: with any other the model is another one.
const FIXED: &[Fixed] = &[
    ("weight_bits", "1 (ternary weights)", |value| value.as_f64() == Some(1.0)),
    ("input_bits", "8 (activations of 8 bits)", |value| value.as_f64() == Some(8.0)),
    ("partial_rotary_factor", "1 (positions turn whole heads)", |value| value.as_f64() == Some(1.0)),
    ("use_bidirectional_attention", "false (no position sees those after it)", |value| value == false),
    ("attn_logit_softcapping", "null", |_| false),
    ("final_logit_softcapping", "null", |_| false),
    ("use_mrope", "false", |value| value == false),
    ("num_experts", "0", |value| value == 0),
    ("is_encoder_decoder", "false", |value| value == false),
    ("add_cross_attention", "false", |value| value == false),
    ("is_bitnet_config", "true or false", Value::is_boolean),
];

/// Keys that change nothing that is computed here, by the reason.
const MEANINGLESS: &[(&str, &[&str])] = &[
    (
        "who made the file, with what",
        &[
            "_name_or_path",
            "name_or_path",
            "transformers_version",
            "_commit_hash",
            "unsloth_version",
            "unsloth_fixed",
        ],
    ),
    (
        "which code of other programs reads it",
        &["auto_map", "custom_pipelines", "tokenizer_class", "model_max_length"],
    ),
    (
        "training: initial weights, dropout, the loss",
        &[
            "initializer_range",
            "mup_denominator",
            "attention_dropout",
            "hidden_dropout",
            "resid_pdrop",
            "embd_pdrop",
            "problem_type",
            "gradient_checkpointing",
        ],
    ),
    (
        "the format of numbers and the kernel in which other programs compute; here the weights' own format counts",
        &[
            "torch_dtype",
            "dtype",
            "use_bfloat16",
            "torchscript",
            "tf_legacy_loss",
            "_attn_implementation",
            "attn_implementation",
            "_attn_implementation_autoset",
            "_flash_attn_2_enabled",
            "pretraining_tp",
            "chunk_size_feed_forward",
            "use_cache",
            "cache_implementation",
            "return_dict",
            "return_dict_in_generate",
            "output_attentions",
            "output_hidden_states",
            "output_scores",
            "pruned_heads",
        ],
    ),
    (
        "tokens that a decoder which continues a text has no use for",
        &[
            "pad_token_id",
            "sep_token_id",
            "decoder_start_token_id",
            "forced_bos_token_id",
            "forced_eos_token_id",
        ],
    ),
    (
        "models of other kinds: encoders, classifiers",
        &[
            "is_decoder",
            "cross_attention_hidden_size",
            "tie_encoder_decoder",
            "finetuning_task",
            "id2label",
            "label2id",
            "num_labels",
            "task_specific_params",
            "prefix",
        ],
    ),
    (
        "sampling, which old versions of transformers wrote here; `generation_config.json` took its place",
        &[
            "do_sample",
            "temperature",
            "top_k",
            "top_p",
            "typical_p",
            "repetition_penalty",
            "length_penalty",
            "no_repeat_ngram_size",
            "encoder_no_repeat_ngram_size",
            "bad_words_ids",
            "suppress_tokens",
            "begin_suppress_tokens",
            "exponential_decay_length_penalty",
            "remove_invalid_values",
            "max_length",
            "min_length",
            "max_new_tokens",
            "early_stopping",
            "num_beams",
            "num_beam_groups",
            "num_return_sequences",
            "diversity_penalty",
        ],
    ),
];

/// Tern's own keys begin so; the ones that mean something are read elsewhere.
const OWN: &str = "tern.";

/// Refuses the first key that may change what the model computes and is not understood.
pub(super) fn check(json: &Json, family: &Family) -> Result<()> {
    let Some(keys) = json.config.as_object() else { return Ok(()) };
    for (key, value) in keys.iter().filter(|(_, value)| !value.is_null()) {
        if key == "model_type" {
            let known = |value: &str| family.model_types.contains(&value);
            if !value.as_str().is_some_and(known) {
                let names: Vec<_> = family.model_types.iter().map(|name| format!("\"{name}\"")).collect();
                return Err(json.wrong(key, &names.join(" or "), value));
            }
            continue;
        }
        if let Some((_, expected, fits)) = FIXED.iter().find(|(fixed, ..)| fixed == key) {
            if !fits(value) {
                return Err(json.wrong(key, expected, value));
            }
            continue;
        }
        let key = key.as_str();
        let meaningless = || MEANINGLESS.iter().any(|(_, keys)| keys.contains(&key));
        if !HONOURED.contains(&key) && !meaningless() && !key.starts_with(OWN) {
            let what = "is not a key that Tern knows, so it may change what the model computes; take it out of the file \
                        if it does not";
            return Err(json.error(key, what));
        }
    }
    Ok(())
}
