//! Small models for the tests of converting, and what their weights are.
#![allow(dead_code, reason = "each test file uses some of this")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tern::codec::{Trits, floats};
use tern::file::{self, File, OpenOptions};
use tern_kernels::half::f32_to_bf16;

/// The recorded models.
pub(crate) fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/golden").join(name)
}

pub(crate) fn open(path: &Path) -> File {
    file::open(path, OpenOptions::default()).unwrap_or_else(|e| panic!("{e}"))
}

/// Trits and the bits of the scales of a matrix.
pub(crate) type Matrix = (Vec<i8>, Vec<u32>);

/// All ternary matrices of a file by name.
pub(crate) fn matrices(file: &File) -> BTreeMap<String, Matrix> {
    let names = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"];
    let is_matrix = |name: &str| {
        name.ends_with("_proj.weight") || names.iter().any(|part| name.ends_with(&format!(".{part}.weight")))
    };
    let matrices = file.tensors().iter().filter(|tensor| is_matrix(&tensor.name)).map(|tensor| {
        let opened = Trits::open(tensor).unwrap_or_else(|e| panic!("{}: {e}", tensor.name));
        let (rows, cols) = (tensor.rows(), tensor.cols());
        let mut trits = vec![0; rows * cols];
        for (row, trits) in trits.chunks_mut(cols).enumerate() {
            opened.row(row, trits).unwrap_or_else(|e| panic!("{}: {e}", tensor.name));
        }
        let scales = match opened.scales() {
            tern_kernels::Scales::One(scale) => vec![scale.to_bits()],
            tern_kernels::Scales::Groups { values, .. } => values.iter().map(|v| v.to_bits()).collect(),
        };
        (tensor.name.clone(), (trits, scales))
    });
    matrices.collect()
}

/// The numbers of a tensor as bits.
pub(crate) fn numbers(file: &File, name: &str) -> Vec<u32> {
    let tensor = file.tensor(name).unwrap_or_else(|| panic!("no {name}"));
    let mut out = vec![0.0; tensor.cols()];
    let mut all = Vec::new();
    for row in 0..tensor.rows() {
        floats(tensor, row, &mut out).unwrap();
        all.extend(out.iter().map(|v| v.to_bits()));
    }
    all
}

/// The sizes of a small model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) dim: usize,
    pub(crate) hidden: usize,
    pub(crate) vocab: usize,
    /// Llama's graph, without sub-norms and with a head of its own.
    pub(crate) llama: bool,
}

/// Writes bf16 masters from a seed, as a checkpoint directory.
pub(crate) fn masters(dir: &Path, sizes: Sizes, seed: u64) {
    let Sizes { layers, heads, kv_heads, head_dim, dim, hidden, vocab, llama } = sizes;
    std::fs::create_dir_all(dir).unwrap();
    let architecture = if llama { "LlamaForCausalLM" } else { "BitNetForCausalLM" };
    let config = serde_json::json!({
        "architectures": [architecture], "model_type": if llama { "llama" } else { "bitnet" },
        "vocab_size": vocab, "hidden_size": dim, "intermediate_size": hidden, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": head_dim,
        "hidden_act": if llama { "silu" } else { "relu2" }, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "max_position_embeddings": 64, "tie_word_embeddings": !llama,
        "quantization_config":
            { "quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online" },
    });
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let mut tensors = vec![("model.embed_tokens.weight".to_owned(), vec![vocab, dim])];
    for layer in 0..layers {
        let mut push = |name: &str, dims: &[usize]| {
            tensors.push((format!("model.layers.{layer}.{name}.weight"), dims.to_vec()));
        };
        push("input_layernorm", &[dim]);
        push("post_attention_layernorm", &[dim]);
        push("self_attn.q_proj", &[heads * head_dim, dim]);
        push("self_attn.k_proj", &[kv_heads * head_dim, dim]);
        push("self_attn.v_proj", &[kv_heads * head_dim, dim]);
        push("self_attn.o_proj", &[dim, heads * head_dim]);
        push("mlp.gate_proj", &[hidden, dim]);
        push("mlp.up_proj", &[hidden, dim]);
        push("mlp.down_proj", &[dim, hidden]);
        if !llama {
            push("self_attn.attn_sub_norm", &[heads * head_dim]);
            push("mlp.ffn_sub_norm", &[hidden]);
        }
    }
    tensors.push(("model.norm.weight".into(), vec![dim]));
    if llama {
        tensors.push(("lm_head.weight".into(), vec![vocab, dim]));
    }
    let mut random = tern::Random(seed);
    let mut next = || random.bits();
    let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .into_iter()
        .map(|(name, dims)| {
            // Sizes from 2^-14 to 2: real masters lie in between, and f16 would lose the small ones.
            let size = 2f32.powi(-((next() % 16) as i32) + 1);
            let number = |word: u64| match word % 11 {
                0 => 0.0,
                1 => f32::MIN_POSITIVE,
                _ => ((word >> 40) as f32 / (1 << 24) as f32 - 0.5) * size,
            };
            let n = dims.iter().product::<usize>();
            let bytes = (0..n).flat_map(|_| f32_to_bf16(number(next())).to_le_bytes()).collect();
            (name, dims, bytes)
        })
        .collect();
    let views = bytes.iter().map(|(name, dims, bytes)| {
        let view =
            safetensors::tensor::TensorView::new(safetensors::Dtype::BF16, dims.clone(), bytes).unwrap();
        (name.clone(), view)
    });
    safetensors::serialize_to_file(views, None, &dir.join("model.safetensors")).unwrap();
}
