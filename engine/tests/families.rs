//! The families of 2026 and the embedding models against what `transformers` computed (testdata/golden/gen/families.py and
//! models.py), as Hugging Face checkpoints and as their GGUF twins.

mod golden;

use golden::{Golden, exact, golden, greedy, largest_difference, logits, open};
use tern::{Head, Logits, Model, Options, Rounding, Row, Scratch, Sequence};

/// Families that were trained with int8 activations by token, and their twins.
const INT8: [(&str, &str); 1] = [("qwen2_vibevoice", "gguf/qwen2_vibevoice_i2s.gguf")];

/// Embedding models, which were trained so too.
const EMBEDDING: [(&str, &str); 2] = [
    ("qwen3_embedding_norm_bitlinear", "gguf/qwen3_embedding_norm_bitlinear_i2s.gguf"),
    ("gemma3_embedding_norm_bitlinear", "gguf/gemma3_embedding_norm_bitlinear_i2s.gguf"),
];

#[test]
fn logits_and_greedy_tokens_equal_the_reference() {
    for (name, twin) in INT8 {
        let reference = Golden::open(name);
        let (ids, want) = (reference.ids("input_ids"), reference.floats("logits"));
        let tokens = reference.ids("greedy_from_first_5");
        for path in [name, twin] {
            let model = open(&golden(path), exact());
            let apart = largest_difference(&logits(&model, &ids), &want);
            println!("{path}: largest difference {apart:.1e}");
            assert!(apart < 1e-4, "{path}: {apart}");
            assert_eq!(greedy(&model, &tokens[..5], tokens.len()), tokens, "{path}");
        }
    }
}

#[test]
fn vectors_equal_the_reference() {
    for (name, twin) in EMBEDDING {
        let reference = Golden::open(name);
        let (ids, want) = (reference.ids("input_ids"), reference.floats("embedding"));
        for path in [name, twin] {
            let model = open(&golden(path), exact());
            let apart = 1.0 - cosine(&last_hidden(&model, &ids), &want);
            println!("{path}: cosine distance {apart:.1e}");
            assert!(apart < 1e-5, "{path}: {apart}");
        }
    }
}

/// Families that were trained with float activations, and their twins.
const FLOATS: [(&str, &[&str]); 3] = [
    ("qwen3_bonsai", &["gguf/qwen3_bonsai_pq2_0.gguf", "gguf/qwen3_bonsai_q2_0_g64.gguf"]),
    ("llama_trilm", &["gguf/llama_trilm_f16.gguf"]),
    ("minicpm_bitcpm", &["gguf/minicpm_bitcpm_f16.gguf"]),
];

#[test]
fn families_of_float_activations_equal_the_reference_without_rounding() {
    for (name, twins) in FLOATS {
        let reference = Golden::open(name);
        let (ids, want) = (reference.ids("input_ids"), reference.floats("logits"));
        let tokens = reference.ids("greedy_from_first_5");
        for path in [name].iter().chain(twins) {
            let unrounded = Options { activations: Some(Rounding::None), ..exact() };
            let model = open(&golden(path), unrounded);
            let apart = largest_difference(&logits(&model, &ids), &want);
            println!("{path}: largest difference {apart:.1e}");
            assert!(apart < 1e-4, "{path}: {apart}");
            assert_eq!(greedy(&model, &tokens[..5], tokens.len()), tokens, "{path}");
        }
    }
}

#[test]
fn scales_in_rows_round_activations_by_group_and_twins_agree_to_the_bit() {
    let ids = Golden::open("qwen3_bonsai").ids("input_ids");
    let all: Vec<Vec<u32>> = [FLOATS[0].0]
        .iter()
        .chain(FLOATS[0].1)
        .map(|path| {
            let model = open(&golden(path), Options::default());
            assert_eq!((model.activations(), model.head_form()), ("int8-group", Head::Ternary), "{path}");
            golden::bits(&logits(&model, &ids))
        })
        .collect();
    assert!(all.iter().all(|bits| *bits == all[0]));
}

#[test]
fn every_directory_and_its_ggufs_agree() {
    let lone = INT8.iter().chain(&EMBEDDING).map(|(name, twin)| (*name, std::slice::from_ref(twin)));
    for (name, twins) in FLOATS.iter().map(|(name, twins)| (*name, *twins)).chain(lone) {
        let ids = Golden::open(name).ids("input_ids");
        let state = |path: &str| {
            let model = open(&golden(path), exact());
            (model.config().rope.pairing, last_hidden(&model, &ids))
        };
        let (pairing, want) = state(name);
        for twin in twins {
            let (other, found) = state(twin);
            if other == pairing {
                assert!(golden::bits(&found) == golden::bits(&want), "{twin}");
            } else {
                // The products of q and k are added up in another order.
                assert!(largest_difference(&found, &want) < 1e-5, "{twin}");
            }
        }
    }
}

/// The normed hidden state of the last token.
fn last_hidden(model: &Model, ids: &[u32]) -> Vec<f32> {
    let mut sequences = [Sequence::new(model, ids.len())];
    let last = ids.len() - 1;
    let wanted = |at| if at == last { Logits::All } else { Logits::None };
    let rows = ids.iter().enumerate().map(|(at, &token)| Row { sequence: 0, token, logits: wanted(at) });
    let rows: Vec<Row> = rows.collect();
    model.hidden(&mut Scratch::default(), &mut sequences, &rows).unwrap().to_vec()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    let dot =
        |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum() };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

#[test]
fn an_embedding_model_gives_no_logits() {
    let model = open(&golden(EMBEDDING[0].0), Options::default());
    let rows = [Row { sequence: 0, token: 1, logits: Logits::All }];
    let error = model.forward(&mut Scratch::default(), &mut [Sequence::new(&model, 4)], &rows).unwrap_err();
    assert_eq!(error.to_string(), "an embedding model writes no text; `tern embed` makes vectors with it");
}
