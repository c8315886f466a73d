//! The screened int8 head writes what the whole int8 head writes, token for token, and reads less.

use std::path::{Path, PathBuf};

use tern::{Dry, Generation, Head, Logits, Model, Options, Row, Sampling, Scratch, Sequence};
use tern_convert::Target;
use tern_convert::dummy::{DummyOptions, Shape, dummy};

/// Golden checkpoints, and a dummy whose vocabulary is worth screening.
fn models(dir: &Path) -> Vec<PathBuf> {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/golden");
    let names =
        ["bitnet_online_bf16", "bitnet_packed_autobitlinear", "llama_packed_bitlinear", "bitnet_1bitllm_f16"];
    let mut paths: Vec<_> = names.iter().map(|name| golden.join(name)).collect();
    let mut shape = Shape::from_name("tiny").unwrap();
    shape.config.vocab = 6_000;
    paths.push(dir.join("dummy.gguf"));
    dummy(&shape, paths.last().unwrap(), &DummyOptions::new(Target::I2), &mut |_, _| {}).unwrap();
    paths
}

fn open(path: &Path, head: Head) -> Model {
    let options = Options { head, threads: Some(1), ..Options::default() };
    Model::open(path, &options).unwrap_or_else(|error| panic!("{error}"))
}

/// The ids of a text.
fn text(model: &Model, sampling: Sampling, logprobs: bool, start: u32) -> Vec<u32> {
    let mut generation = Generation::new(model, model.config().context.min(60), sampling).unwrap();
    if logprobs {
        generation = generation.with_logprobs();
    }
    generation.prompt(&[start, 1, 2]).unwrap();
    while generation.next().unwrap().is_some() {}
    generation.tokens()
}

#[test]
fn every_way_to_sample_draws_the_same_from_few_logits_as_from_all() {
    let dir = tempfile::tempdir().unwrap();
    let base =
        Sampling { temperature: 1.0, top_k: 3, top_p: 0.9, min_p: 0.02, seed: 3, ..Sampling::default() };
    let samplings = [
        Sampling::greedy(),
        Sampling { repeat_penalty: 1.3, ..Sampling::greedy() },
        Sampling { repeat_penalty: 0.7, ..Sampling::greedy() },
        base.clone(),
        Sampling { presence_penalty: 0.5, frequency_penalty: 0.2, ..Sampling::greedy() },
        Sampling { dry: Dry { multiplier: 2.0, allowed: 1, ..Dry::default() }, ..Sampling::greedy() },
        Sampling { top_k: 40, ..base.clone() },
        Sampling { top_k: 40, typical: 0.3, ..base.clone() },
        Sampling { repeat_penalty: 1.2, ..base.clone() },
        Sampling { top_k: 0, ..base },
    ];
    for path in models(dir.path()) {
        let model = open(&path, Head::Int8);
        for sampling in &samplings {
            for start in [3, 5] {
                let (few, all) = (
                    text(&model, sampling.clone(), false, start),
                    text(&model, sampling.clone(), true, start),
                );
                assert_eq!(few, all, "{} {sampling:?}", path.display());
                assert!(few.len() > 20, "{}", few.len());
            }
        }
    }
}

#[test]
fn rows_with_different_wishes_share_a_pass() {
    let dir = tempfile::tempdir().unwrap();
    let model = open(&models(dir.path())[4], Head::Int8);
    let vocab = model.config().vocab;
    let forward = |wishes: &[Logits]| {
        let mut sequences = [Sequence::new(&model, 16)];
        let rows: Vec<Row> =
            (1..).zip(wishes).map(|(token, &logits)| Row { sequence: 0, token, logits }).collect();
        let mut scratch = Scratch::default();
        let logits = model.forward(&mut scratch, &mut sequences, &rows).unwrap().to_vec();
        (logits, scratch.head_reads())
    };
    let (all, (whole, computed)) = forward(&[Logits::All; 6]);
    assert_eq!(computed, vocab as u64);
    let wishes = [Logits::Top(1), Logits::None, Logits::All, Logits::Top(7), Logits::None, Logits::Top(2)];
    let (some, _) = forward(&wishes);
    assert_eq!(some.len(), 4 * vocab);
    for (some, row) in some.chunks_exact(vocab).zip([0, 2, 3, 5]) {
        let all = &all[row * vocab..][..vocab];
        let best = all.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        assert_eq!(some.iter().position(|&x| x == best), all.iter().position(|&x| x == best));
        assert!(some.iter().zip(all).all(|(some, all)| some == all || *some == f32::NEG_INFINITY));
        assert_eq!(row == 2, some == all);
    }
    let (_, (bytes, computed)) = forward(&[Logits::None, Logits::Top(1)]);
    assert!(computed < vocab as u64 / 50 && bytes * 2 < whole, "{computed} rows, {bytes} of {whole} bytes");
}

#[test]
fn a_head_that_is_no_number_is_refused_at_load_or_when_it_runs() {
    let dir = tempfile::tempdir().unwrap();
    let path = models(dir.path()).pop().unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    // The embedding, which serves as the head, comes first and is f16: its last quarter turns into NaN.
    let file = tern::file::open(&path, Default::default()).unwrap();
    let tensor = file.tensor("token_embd.weight").unwrap();
    let at = bytes.windows(64).position(|window| window == &tensor.bytes[..64]).unwrap();
    let row = at + 5_000 * tensor.cols() * 2;
    bytes[row..row + 2].copy_from_slice(&[0xff, 0x7f]);
    let broken = dir.path().join("broken.gguf");
    std::fs::write(&broken, bytes).unwrap();
    let error = Model::open(&broken, &Options::default()).unwrap_err().to_string();
    assert!(error.contains("token_embd.weight") && error.contains("row 5000"), "{error}");
    let model = open(&broken, Head::Stored);
    let mut generation = Generation::new(&model, 8, Sampling::greedy()).unwrap();
    let error = generation.prompt(&[1]).unwrap_err().to_string();
    assert!(error.contains("token 5000 is NaN"), "{error}");
}

#[test]
fn logits_that_no_number_holds_are_an_error_that_names_the_token() {
    let dir = tempfile::tempdir().unwrap();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/golden/bitnet_online_bf16");
    std::fs::copy(from.join("config.json"), dir.path().join("config.json")).unwrap();
    let mut bytes = std::fs::read(from.join("model.safetensors")).unwrap();
    let header = usize::try_from(u64::from_le_bytes(bytes[..8].try_into().unwrap())).unwrap();
    let about: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    let about = &about["model.embed_tokens.weight"];
    let [start, width] =
        [&about["data_offsets"][0], &about["shape"][1]].map(|n| n.as_u64().unwrap() as usize);
    // Tokens 90 and 91: the largest bf16 everywhere, and its negative, so that one of the two overflows upwards.
    for (token, high) in [(90, 0x7f), (91, 0xff)] {
        let row = &mut bytes[8 + header + start + 2 * token * width..][..2 * width];
        row.as_chunks_mut::<2>().0.fill([0x7f, high]);
    }
    std::fs::write(dir.path().join("model.safetensors"), bytes).unwrap();
    for head in [Head::Int8, Head::Stored] {
        let model = open(dir.path(), head);
        for rows in [1, 20] {
            let mut sequences = [Sequence::new(&model, 32)];
            let rows: Vec<Row> =
                (0..rows).map(|nth| Row { sequence: 0, token: 5 + nth, logits: Logits::All }).collect();
            let error =
                model.forward(&mut Scratch::default(), &mut sequences, &rows).unwrap_err().to_string();
            let named = error.contains("logit of token 90 is") || error.contains("logit of token 91 is");
            assert!(named, "{head:?}: {error}");
            assert!(sequences[0].tokens().is_empty());
        }
    }
}
