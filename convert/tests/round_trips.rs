//! Every trit and every scale survives every format.

mod checkpoints;

use checkpoints::{Sizes, golden, masters, matrices, numbers, open};
use proptest::prelude::*;
use std::path::{Path, PathBuf};
use tern::{Head, Logits, Model, Options, Row, Scratch, Sequence};
use tern_convert::{ConvertOptions, Floats, Target, convert};

fn to(input: &Path, dir: &Path, target: Target) -> Result<PathBuf, String> {
    let name = input.file_stem().unwrap().to_string_lossy();
    let output = dir.join(format!("{name}-{}", target.name()));
    let result = convert(input, &output, &ConvertOptions::new(target), &mut |_, _| {});
    result.map(|_| output).map_err(|e| e.to_string())
}

/// Converts from format to format and back to `hf`, comparing after each step.
fn chain(input: &Path, dir: &Path, targets: &[Target]) {
    let original = matrices(&open(input));
    assert!(!original.is_empty());
    let mut last = input.to_owned();
    let mut in_gguf = None;
    for &target in targets {
        last = to(&last, dir, target).unwrap_or_else(|e| panic!("{}: {e}", target.name()));
        let found = matrices(&open(&last));
        if target == Target::Hf {
            assert!(found == original, "{} changed something", target.name());
        } else {
            // Names differ from the original's, and so may the rows' order; among GGUFs neither does.
            let first = in_gguf.get_or_insert_with(|| found.clone());
            assert!(found == *first, "{} changed something", target.name());
            let scales = |m: &std::collections::BTreeMap<_, checkpoints::Matrix>| {
                let mut scales: Vec<_> = m.values().map(|(_, scales)| scales.clone()).collect();
                scales.sort();
                scales
            };
            assert_eq!(scales(&found), scales(&original), "{}", target.name());
        }
    }
}

const EVERY: [Target; 11] = [
    Target::I2S,
    Target::Q2_0,
    Target::Tq2_0,
    Target::Pq2_0,
    Target::Tq1_0,
    Target::I2,
    Target::T5,
    Target::Hf,
    Target::T5,
    Target::Tq1_0,
    Target::Hf,
];
const ANY_SHAPE: [Target; 5] = [Target::I2, Target::T5, Target::I2, Target::Hf, Target::T5];

#[test]
fn golden_checkpoints_survive_every_format_that_holds_them() {
    for name in
        ["bitnet_online_bf16", "bitnet_packed_autobitlinear", "llama_packed_bitlinear", "bitnet_1bitllm_f16"]
    {
        let dir = tempfile::tempdir().unwrap();
        let targets = [Target::I2S, Target::I2, Target::T5, Target::Hf, Target::I2S];
        if name == "bitnet_1bitllm_f16" {
            // Its names in a checkpoint made from a GGUF are those that transformers knows.
            chain(&golden(name), dir.path(), &targets[..3]);
            chain(&golden(name), &dir.path().join("."), &[Target::Hf]);
        } else {
            chain(&golden(name), dir.path(), &targets);
        }
    }
}

#[test]
fn golden_ggufs_survive_the_way_through_a_checkpoint() {
    for name in ["gguf/bitnet_b158_i2s.gguf", "gguf/llama_i2s_permuted.gguf"] {
        let dir = tempfile::tempdir().unwrap();
        let original = open(&golden(name));
        let hf = to(&golden(name), dir.path(), Target::Hf).unwrap();
        let back = to(&hf, dir.path(), Target::I2S).unwrap();
        let back = open(&back);
        assert!(matrices(&back) == matrices(&original), "{name}");
        for tensor in ["token_embd.weight", "output_norm.weight", "blk.0.attn_norm.weight"] {
            assert_eq!(numbers(&back, tensor), numbers(&original, tensor), "{name} {tensor}");
        }
    }
}

#[test]
fn floats_keep_their_values() {
    let dir = tempfile::tempdir().unwrap();
    let input = golden("llama_packed_bitlinear");
    let original = open(&input);
    let gguf = open(&to(&input, dir.path(), Target::T5).unwrap());
    for (hf, name) in [
        ("model.embed_tokens.weight", "token_embd.weight"),
        ("lm_head.weight", "output.weight"),
        ("model.norm.weight", "output_norm.weight"),
        ("model.layers.1.input_layernorm.weight", "blk.1.attn_norm.weight"),
        ("model.layers.1.post_attention_layernorm.weight", "blk.1.ffn_norm.weight"),
    ] {
        assert_eq!(numbers(&gguf, name), numbers(&original, hf), "{name}");
    }
    let mut options = ConvertOptions::new(Target::I2);
    options.head = Floats::Q8_0;
    options.embedding = Floats::F16;
    let output = dir.path().join("small");
    convert(&input, &output, &options, &mut |_, _| {}).unwrap();
    let small = open(&output);
    for (name, encoding, step) in
        [("token_embd.weight", "F16", 1.0 / 1024.0), ("output.weight", "Q8_0", 1.0 / 100.0)]
    {
        assert_eq!(small.tensor(name).unwrap().encoding.name(), encoding);
        let (exact, rounded) = (numbers(&gguf, name), numbers(&small, name));
        let most = exact.iter().map(|&bits| f32::from_bits(bits).abs()).fold(0.0, f32::max);
        for (&exact, &rounded) in exact.iter().zip(&rounded) {
            let difference = f32::from_bits(exact) - f32::from_bits(rounded);
            assert!(difference.abs() <= most * step, "{name}");
        }
    }
}

/// Logits after a few tokens.
fn logits(path: &Path) -> Vec<f32> {
    let model = Model::open(path, &Options { head: Head::Stored, ..Options::default() })
        .unwrap_or_else(|e| panic!("{e}"));
    let mut sequences = [Sequence::new(&model, 8)];
    let rows: Vec<Row> = (1..9).map(|token| Row { sequence: 0, token, logits: Logits::All }).collect();
    model.forward(&mut Scratch::default(), &mut sequences, &rows).unwrap().to_vec()
}

#[test]
fn converted_models_compute_the_same_numbers() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/models/page/page.gguf");
    let small = [Target::I2S, Target::I2, Target::T5, Target::Hf];
    let models = [
        (golden("bitnet_online_bf16"), &small[..]),
        (golden("bitnet_packed_autobitlinear"), &small),
        (golden("bitnet_1bitllm_f16"), &small),
        (golden("llama_packed_bitlinear"), &small),
        (golden("gguf/llama_i2s_permuted.gguf"), &small),
        (page, &Target::ALL),
    ];
    for (input, targets) in models {
        let dir = tempfile::tempdir().unwrap();
        let want = logits(&input);
        for &target in targets {
            let got = logits(&to(&input, dir.path(), target).unwrap());
            let worst = want.iter().zip(&got).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            // Permuted heads add up q times k in another order.
            let permuted = input.to_string_lossy().contains("llama")
                && input.extension().is_some() == (target == Target::Hf);
            let limit = if permuted { 1e-4 } else { 0.0 };
            assert!(worst <= limit, "{} as {}: {worst}", input.display(), target.name());
        }
    }
}

/// A checkpoint of floats that are ternary with a scale for `group` columns of each row, embedding and head too.
fn ternary_floats(dir: &Path, group: usize) {
    let sizes = Sizes {
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 64,
        dim: 256,
        hidden: 512,
        vocab: 48,
        llama: true,
    };
    masters(dir, sizes, 3);
    let edit = |name: &str, edit: &dyn Fn(&[u8]) -> Vec<u8>| {
        let path = dir.join(name);
        std::fs::write(&path, edit(&std::fs::read(&path).unwrap())).unwrap();
    };
    edit("config.json", &|bytes| {
        let mut config: serde_json::Value = serde_json::from_slice(bytes).unwrap();
        config.as_object_mut().unwrap().remove("quantization_config");
        config.to_string().into_bytes()
    });
    edit("model.safetensors", &|bytes| {
        let file = safetensors::SafeTensors::deserialize(bytes).unwrap();
        let tensors: Vec<_> = file
            .tensors()
            .into_iter()
            .map(|(name, view)| {
                let mut data = view.data().to_vec();
                if let [_, cols] = view.shape()[..] {
                    let (words, _) = data.as_chunks_mut::<2>();
                    for (at, word) in words.iter_mut().enumerate() {
                        let trit = f32::from(((at * 2_654_435_761) >> 7) as u8 % 3) - 1.0;
                        // Of 7 bits, as a bf16 has them, and different from group to group.
                        let scale = (129 + at / cols * 31 % 64 + at % cols / group * 7 % 63) as f32 / 4096.0;
                        let bits = tern_kernels::half::f32_to_bf16(trit * scale);
                        *word = bits.to_le_bytes();
                    }
                }
                (name, view.shape().to_vec(), data)
            })
            .collect();
        let views = tensors.iter().map(|(name, dims, data)| {
            let dtype = safetensors::Dtype::BF16;
            (name.clone(), safetensors::tensor::TensorView::new(dtype, dims.clone(), data).unwrap())
        });
        safetensors::serialize(views, None).unwrap()
    });
}

#[test]
fn floats_that_are_ternary_by_group_run_the_same_in_every_format_with_room() {
    for group in [64, 128, 256] {
        let dir = tempfile::tempdir().unwrap();
        let input = dir.path().join("unpacked");
        ternary_floats(&input, group);
        let model = Model::open(&input, &Options::default()).unwrap();
        assert_eq!((model.head_form(), model.activations()), (Head::Ternary, "int8-group"));
        let want = logits(&input);
        for target in Target::ALL {
            let made = to(&input, dir.path(), target);
            let room = match target {
                Target::I2 | Target::T5 => 0,
                Target::Q2_0 => 64,
                Target::Pq2_0 => 128,
                Target::Tq1_0 | Target::Tq2_0 => 256,
                Target::Hf | Target::I2S => usize::MAX,
            };
            if group < room {
                let error = made.unwrap_err();
                assert!(error.contains(".weight`: has ") && error.contains("--to i2"), "{error}");
                continue;
            }
            let made = made.unwrap_or_else(|error| panic!("{group} {}: {error}", target.name()));
            // q and k change the order of their rows, and their scales with them.
            let worst = want.iter().zip(logits(&made)).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst <= 1e-4, "{group} as {}: {worst}", target.name());
            let again = to(&made, dir.path(), Target::Q2_0).unwrap();
            let there = matrices(&open(&made));
            assert!(matrices(&open(&again)) == there, "{group} as {} and back", target.name());
        }
    }
}

fn sizes(multiple: usize) -> impl Strategy<Value = Sizes> {
    (1..3usize, 1..4usize, 1..3usize, 1..8usize, 1..50usize, 1..50usize, 1..40usize, any::<bool>()).prop_map(
        move |(layers, kv_heads, group, half, dim, hidden, vocab, llama)| {
            let wide = |n: usize| if multiple == 1 { n } else { (n % 3 + 1) * multiple };
            // With heads of 64 and 4 kv heads, q and k are a multiple of 256 rows wide.
            let (kv_heads, head_dim) = if multiple == 1 { (kv_heads, 2 * half) } else { (4, 64) };
            let (heads, dim, hidden) = (group * kv_heads, wide(dim), wide(hidden));
            Sizes { layers, heads, kv_heads, head_dim, dim, hidden, vocab, llama }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn masters_survive_every_format(sizes in sizes(256), seed: u64) {
        let dir = tempfile::tempdir().unwrap();
        let input = dir.path().join("masters");
        masters(&input, sizes, seed);
        chain(&input, dir.path(), &EVERY);
    }

    #[test]
    fn masters_of_odd_shapes_survive_every_format_that_holds_them(sizes in sizes(1), seed: u64) {
        let dir = tempfile::tempdir().unwrap();
        let input = dir.path().join("masters");
        masters(&input, sizes, seed);
        chain(&input, dir.path(), &ANY_SHAPE[..2]);
        let Sizes { heads, kv_heads, head_dim, dim, hidden, .. } = sizes;
        let (q, kv) = (heads * head_dim, kv_heads * head_dim);
        for target in Target::ALL {
            let holds = match target {
                Target::I2 | Target::T5 => true,
                Target::I2S => [q * dim, kv * dim, dim * hidden].iter().all(|n| n % 128 == 0),
                Target::Tq1_0 | Target::Tq2_0 => [dim, q, hidden].iter().all(|n| n % 256 == 0),
                Target::Q2_0 => [dim, q, hidden].iter().all(|n| n % 64 == 0),
                Target::Pq2_0 => [dim, q, hidden].iter().all(|n| n % 128 == 0),
                Target::Hf => [dim, q, kv, hidden].iter().all(|n| n % 4 == 0),
            };
            match to(&input, dir.path(), target) {
                Ok(_) => prop_assert!(holds, "{} holds {sizes:?}", target.name()),
                Err(e) => {
                    prop_assert!(!holds, "{e}");
                    // It names the tensor, what it needs, and what to do.
                    prop_assert!(e.contains("_proj.weight") && e.contains("multiple of") && e.contains("--to i2"), "{e}");
                }
            }
        }
    }
}
