//! Dummies are valid files of their formats, the same for the same seed, and say what they are.

mod checkpoints;

use checkpoints::{matrices, numbers, open};
use std::path::Path;
use tern::file::Metadata;
use tern::{Generation, Head, Logits, Model, Options, Rounding, Row, Sampling, Scratch, Sequence, Zeros};
use tern_convert::dummy::{DummyOptions, Shape, dummy};
use tern_convert::{ConvertOptions, Floats, Target, convert};

fn tiny(output: &Path, options: DummyOptions) -> u64 {
    let shape = Shape::from_name("tiny").unwrap();
    let mut last = (0, 1);
    let made = dummy(&shape, output, &options, &mut |done, total| last = (done, total)).unwrap();
    assert_eq!(last.0, last.1);
    made.weights
}

#[test]
fn every_format_is_valid_and_marked() {
    let dir = tempfile::tempdir().unwrap();
    for target in Target::ALL {
        let output = dir.path().join(target.name());
        let weights = tiny(&output, DummyOptions::new(target));
        let file = open(&output);
        match &file.metadata {
            Metadata::Gguf(pairs) => {
                assert_eq!(pairs.bool(tern::keys::DUMMY).unwrap(), Some(true));
                assert!(pairs.str("general.name").unwrap().unwrap().starts_with("tern dummy tiny"));
            }
            Metadata::Hf { config, .. } => assert_eq!(config[tern::keys::DUMMY], true),
        }
        let matrices = matrices(&file);
        assert_eq!(matrices.len(), 14);
        let trits: Vec<i8> = matrices.values().flat_map(|(trits, _)| trits).copied().collect();
        assert_eq!(trits.len() as u64, weights);
        let share = |wanted: i8| trits.iter().filter(|&&trit| trit == wanted).count() as f64 / weights as f64;
        assert!((0.39..0.41).contains(&share(0)), "{}: {} zeros", target.name(), share(0));
        assert!((0.29..0.31).contains(&share(1)), "{}: {} ones", target.name(), share(1));
        for (name, (trits, scales)) in &matrices {
            assert_eq!(scales.len(), 1, "{name}");
            // Inputs of variance 1 give outputs of variance 1.
            let cols = file.tensor(name).unwrap().cols();
            let variance = f32::from_bits(scales[0]).powi(2) * 0.6 * cols as f32;
            assert!((variance - 1.0).abs() < 1e-3, "{name}: {variance}");
            let (a, b) = (&trits[..cols], &trits[cols..2 * cols]);
            assert_ne!(a, b, "{name}: its rows repeat");
        }
        // Nothing that converting refuses: own padding and TQ scales are as they should be.
        let again = dir.path().join(format!("{}-again", target.name()));
        convert(&output, &again, &ConvertOptions::new(target), &mut |_, _| {}).unwrap();
        let (file, again) = (open(&output), open(&again));
        for tensor in file.tensors() {
            let other = again.tensor(&tensor.name).unwrap();
            assert!(tensor.bytes[..] == other.bytes[..] && tensor.scale == other.scale, "{}", tensor.name);
        }
    }
}

#[test]
fn shapes_with_group_scales_and_ternary_embeddings_run() {
    let dir = tempfile::tempdir().unwrap();
    let targets = [Target::I2, Target::T5, Target::Q2_0, Target::Pq2_0];
    for (to, group) in targets.map(|to| (to, 128)).into_iter().chain([(Target::Tq2_0, 256)]) {
        let mut shape = Shape::from_name("tiny").unwrap();
        (shape.group, shape.ternary_embedding) = (Some(group), true);
        let output = dir.path().join(format!("{}.gguf", to.name()));
        dummy(&shape, &output, &DummyOptions::new(to), &mut |_, _| {}).unwrap();
        for (name, (_, scales)) in matrices(&open(&output)) {
            let cols = open(&output).tensor(&name).unwrap().cols();
            let rows = open(&output).tensor(&name).unwrap().rows();
            assert_eq!(scales.len(), rows * cols / group, "{name}");
            // Inputs of variance 1 give outputs of variance near 1.
            let power = scales.iter().map(|bits| f32::from_bits(*bits).powi(2)).sum::<f32>();
            let variance = power / scales.len() as f32 * 0.6 * cols as f32;
            assert!((0.5..2.0).contains(&variance), "{name}: {variance}");
        }
        let model = Model::open(&output, &Options::default()).unwrap();
        let is_ternary = to != Target::Tq2_0;
        assert_eq!(model.head_form(), if is_ternary { Head::Ternary } else { Head::Int8 });
        assert_eq!(model.activations(), Rounding::Group.name());
        let mut generation = Generation::new(&model, 8, Sampling::greedy()).unwrap();
        generation.prompt(&[1, 2, 3]).unwrap();
        assert!(generation.next().unwrap().is_some());
    }
}

#[test]
fn floats_are_ordinary_numbers() {
    let dir = tempfile::tempdir().unwrap();
    // A head as the engine uses it is made by a conversion only (ready_head.rs).
    for floats in Floats::ALL.into_iter().filter(|floats| *floats != Floats::Int8) {
        let output = dir.path().join(floats.name());
        tiny(&output, DummyOptions { embedding: floats, ..DummyOptions::new(Target::I2) });
        let file = open(&output);
        let wanted = if floats == Floats::Keep { "F16" } else { floats.name() };
        assert!(file.tensor("token_embd.weight").unwrap().encoding.name().eq_ignore_ascii_case(wanted));
        let values: Vec<f32> = numbers(&file, "token_embd.weight").into_iter().map(f32::from_bits).collect();
        let power = values.iter().map(|v| v * v).sum::<f32>() / values.len() as f32;
        // 1 / sqrt(256) is 1/16.
        assert!((0.5..4.0).contains(&(power * 256.0)), "{}: {power}", floats.name());
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        assert!(mean.abs() < 0.002, "{}: {mean}", floats.name());
    }
}

#[test]
fn the_seed_decides() {
    let dir = tempfile::tempdir().unwrap();
    let made = |name: &str, seed: u64| {
        let output = dir.path().join(name);
        tiny(&output, DummyOptions { seed, ..DummyOptions::new(Target::T5) });
        std::fs::read(output).unwrap()
    };
    let first = made("a", 1);
    assert!(first == made("b", 1));
    assert!(first != made("c", 2));
}

#[test]
fn shapes_have_their_sizes() {
    let parameters = |name: &str| {
        let shape = Shape::from_name(name).unwrap();
        let c = &shape.config;
        let block = 2 * c.dim * c.q_dim() + 2 * c.dim * c.kv_dim() + 3 * c.dim * c.hidden;
        let embedding = c.vocab * c.dim * if shape.tied { 1 } else { 2 };
        (c.layers * block + embedding) as f64 / 1e9
    };
    for (name, billions) in [
        ("bitnet-2b-4t", 2.4),
        ("bitnet-large", 0.7),
        ("bitnet-3b", 3.3),
        ("llama3-8b", 8.0),
        ("falcon3-10b", 10.3),
        ("70b", 70.6),
        ("100b", 100.4),
        ("bitcpm-1b", 1.6),
        ("bitcpm-8b", 8.2),
    ] {
        assert!((parameters(name) - billions).abs() < 0.06, "{name}: {}", parameters(name));
    }
}

#[test]
fn a_format_that_cannot_hold_a_shape_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let shape = Shape::from_name("bitnet-3b").unwrap(); // 8640 columns
    let error = dummy(&shape, &dir.path().join("out"), &DummyOptions::new(Target::Tq2_0), &mut |_, _| {})
        .unwrap_err();
    let error = error.to_string();
    assert!(error.contains("blk.0.attn_q.weight") && error.contains("multiple of 256"), "{error}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn dummies_of_the_families_of_2026_can_be_run() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["bonsai-1.7b", "bitcpm-1b", "bitcpm-8b", "vibevoice-1.5b-lm", "embed-0.6b", "embed-270m"] {
        let mut shape = Shape::from_name(name).unwrap();
        // The same graph, small.
        let config = &mut shape.config;
        (config.dim, config.hidden, config.layers, config.vocab) = (256, 512, 2, 512);
        (config.heads, config.kv_heads, config.head_dim) = (4, 2, 64);
        if let Some(sliding) = &mut config.graph.sliding {
            sliding.layers = vec![true, false];
            config.graph.embedding_scale = 16.0;
        }
        let output = dir.path().join(name);
        dummy(&shape, &output, &DummyOptions::new(Target::I2), &mut |_, _| {}).unwrap();
        let model = tern::Model::open(&output, &tern::Options::default()).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(model.config().graph, shape.config.graph, "{name}");
        assert_eq!(model.config().rope.scaling, shape.config.rope.scaling, "{name}");
        match model.config().pooling {
            Some(_) => {
                let mut embedder = tern::Embedder::new(&model, None).unwrap();
                assert_eq!(embedder.embed(&[vec![1, 2, 3]], |_| {}).unwrap()[0].len(), 256, "{name}");
            }
            None => {
                let mut generation = tern::Generation::new(&model, 16, tern::Sampling::greedy()).unwrap();
                generation.prompt(&[1, 2]).unwrap();
            }
        }
    }
}

/// Of the rows of `gate` so many are zeros that with half of the others so many gates are closed, in every format that can say
/// so; and an engine that leaves them out writes the same.
#[test]
fn gates_close_at_the_share_that_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    for to in [Target::I2, Target::T5] {
        for share in [0.5f32, 0.7, 1.0] {
            let output = dir.path().join(format!("{}-{share}.gguf", to.name()));
            tiny(&output, DummyOptions { closed_gates: Some(share), ..DummyOptions::new(to) });
            let file = open(&output);
            let (mut all, mut zero) = (0, 0);
            for (name, (trits, _)) in matrices(&file) {
                let rows = trits.chunks(file.tensor(&name).unwrap().cols());
                let zeros = rows.clone().filter(|row| row.iter().all(|&trit| trit == 0)).count();
                if name.ends_with("ffn_gate.weight") {
                    (all, zero) = (all + rows.count(), zero + zeros);
                } else {
                    assert_eq!(zeros, 0, "{name}");
                }
            }
            let found = 0.5 + 0.5 * zero as f32 / all as f32;
            assert!((found - share).abs() < 0.03, "{share}: {found}");
            let write = |zeros| {
                let model = Model::open(&output, &Options { zeros, ..Options::default() }).unwrap();
                let (mut scratch, mut sequence) = (Scratch::default(), [Sequence::new(&model, 40)]);
                let (mut logits, mut closed, mut units) = (Vec::new(), 0, 0);
                for token in 0..40 {
                    let row = Row { sequence: 0, token: token * 7, logits: Logits::All };
                    let found = model.forward(&mut scratch, &mut sequence, &[row]).unwrap();
                    logits.extend(found.iter().map(|logit| logit.to_bits()));
                    let reads = scratch.unit_reads();
                    (closed, units) = (closed + reads.closed, units + reads.units);
                }
                let found = closed as f32 / units as f32;
                assert!((found - share).abs() < 0.04, "{share}: {found} of the gates are closed");
                logits
            };
            assert!(write(Zeros::Read) == write(Zeros::Skip), "{share}");
        }
    }
    let refused = |name: &str, to| {
        let options = DummyOptions { closed_gates: Some(0.7), ..DummyOptions::new(to) };
        dummy(&Shape::from_name(name).unwrap(), &dir.path().join("no"), &options, &mut |_, _| {})
            .unwrap_err()
            .to_string()
    };
    assert!(refused("llama3-8b", Target::I2).contains("llama3-8b: gates that close are those of ReLU²"));
    assert!(refused("tiny", Target::Tq2_0).contains("i2 or t5"));
    assert!(!dir.path().join("no").exists());
}

/// Of BitNet a4.8: half of the columns of `o` meet a zero; who leaves them out, alone, writes the same.
#[test]
fn half_of_the_attentions_output_is_left_out_in_a_dummy_of_a48() {
    let dir = tempfile::tempdir().unwrap();
    let sizes = Shape::from_name("tiny").unwrap().config;
    let mut shape = Shape::from_name("bitnet-a4.8-2b").unwrap();
    let (family, graph) = (shape.config.family, shape.config.graph.clone());
    shape.config = tern::Config { family, graph, ..sizes };
    for (to, threads) in [(Target::I2, 1), (Target::T5, 3)] {
        let output = dir.path().join(format!("{}.gguf", to.name()));
        let options = DummyOptions { closed_gates: Some(0.7), ..DummyOptions::new(to) };
        dummy(&shape, &output, &options, &mut |_, _| {}).unwrap();
        let write = |zeros| {
            let options = Options { zeros, threads: Some(threads), ..Options::default() };
            let model = Model::open(&output, &options).unwrap();
            assert_eq!(model.config().family, "BitNet a4.8");
            let (mut scratch, mut sequence) = (Scratch::default(), [Sequence::new(&model, 40)]);
            let (mut logits, mut unread) = (Vec::new(), Vec::new());
            for token in 0..20 {
                let row = Row { sequence: 0, token: token * 7, logits: Logits::All };
                let found = model.forward(&mut scratch, &mut sequence, &[row]).unwrap();
                logits.extend(found.iter().map(|logit| logit.to_bits()));
                unread.push(scratch.unit_reads().unread);
            }
            (logits, unread, model.unit_bytes())
        };
        let (read, skip) = (write(Zeros::Read), write(Zeros::Skip));
        assert!(read.0 == skip.0, "{}", to.name());
        assert_eq!((read.1.iter().max(), read.2), (Some(&0), 0));
        // Two layers of 256 x 256 behind the attention and of twice 256 x 768 behind the gates: what is copied, and what is left out
        // at least: half of the one, and of the others the closed 0.7.
        let quarter = |weights: usize| if to == Target::I2 { weights / 4 } else { weights / 5 } as f64;
        let (o, behind) = (quarter(2 * 256 * 256), quarter(2 * 2 * 256 * 768));
        assert!(skip.2 as f64 >= o + behind, "{}", skip.2);
        for unread in skip.1 {
            assert!(unread as f64 > 0.5 * o + 0.6 * behind && (unread as f64) < o + behind, "{unread}");
        }
    }
    let no = dir.path().join("no.gguf");
    let error = dummy(&shape, &no, &DummyOptions::new(Target::Tq2_0), &mut |_, _| {}).unwrap_err();
    assert!(error.to_string().contains("bitnet-a4.8-2b: activations (a4.8) that no other program computes"));
    assert!(!no.exists());
}
