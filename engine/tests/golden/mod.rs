//! Recorded models and what a model makes of their prompts.
#![allow(dead_code, reason = "each test file uses some of this")]

use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use tern::{Generation, Head, KvFormat, Logits, Model, Options, Row, Sampling, Scratch, Sequence};

pub(crate) fn golden(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/golden").join(path)
}

/// Tensors of a `golden.safetensors`.
pub(crate) struct Golden(Vec<u8>);

impl Golden {
    pub(crate) fn open(model: &str) -> Self {
        Self(std::fs::read(golden(model).join("golden.safetensors")).unwrap())
    }
    pub(crate) fn ids(&self, name: &str) -> Vec<u32> {
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        let bytes = tensors.tensor(name).unwrap().data();
        bytes.as_chunks::<8>().0.iter().map(|id| u64::from_le_bytes(*id) as u32).collect()
    }
    pub(crate) fn floats(&self, name: &str) -> Vec<f32> {
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        let bytes = tensors.tensor(name).unwrap().data();
        bytes.as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value)).collect()
    }
}

pub(crate) fn open(path: &Path, options: Options) -> Model {
    Model::open(path, &options).unwrap_or_else(|error| panic!("{error}"))
}

/// With the head's own numbers and unrounded keys and values, as the reference has them.
pub(crate) fn exact() -> Options {
    Options { head: Head::Stored, kv: KvFormat::F32, ..Options::default() }
}

/// Logits after every one of the ids, in one forward pass.
pub(crate) fn logits(model: &Model, ids: &[u32]) -> Vec<f32> {
    let mut sequences = [Sequence::new(model, ids.len())];
    let rows: Vec<Row> = ids.iter().map(|&token| Row { sequence: 0, token, logits: Logits::All }).collect();
    model.forward(&mut Scratch::default(), &mut sequences, &rows).unwrap().to_vec()
}

pub(crate) fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

pub(crate) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// The prompt and what the model most likely writes after it, up to `len` tokens.
pub(crate) fn greedy(model: &Model, prompt: &[u32], len: usize) -> Vec<u32> {
    let mut generation = Generation::new(model, model.config().context, Sampling::greedy()).unwrap();
    generation.prompt(prompt).unwrap();
    while generation.tokens().len() < len {
        generation.next().unwrap().expect("no stop tokens without a tokenizer");
    }
    generation.tokens().to_vec()
}
