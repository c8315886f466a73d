//! A small corpus, runs of a tiny model, and what they come to.
#![allow(dead_code, reason = "each test file uses some of this")]

pub(crate) mod beside;

use std::fs;
use std::path::{Path, PathBuf};

use tern::file::OpenOptions;
use tern::{Head, Model, Options};
use tern_convert::ConvertOptions;
use tern_kernels::{KvFormat, Rounding};
use tern_train::check::{Check, check};
use tern_train::config::Run;
use tern_train::data::Rules;
use tern_train::metrics::{self, Line};
use tern_train::random::Random;
use tern_train::tokenizer;

/// A directory with texts, chats and a tokenizer.
pub(crate) fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random::new(1, 1);
    let words = ["the", "tern", "flies", "over", "a", "cold", "sea", "and", "sleeps", "on", "warm", "sand"];
    let mut sentence = |count: u64| {
        let words = (0..count).map(|_| words[random.below(words.len() as u64) as usize]);
        words.collect::<Vec<_>>().join(" ")
    };
    let texts: Vec<String> = (0..120).map(|nth| sentence(5 + nth % 40)).collect();
    fs::write(dir.path().join("a.txt"), texts.join("<|endoftext|>\n")).unwrap();
    let chat = |nth: u64, question: String, answer: String| {
        format!(
            "{{\"messages\": [{{\"role\": \"user\", \"content\": \"{question}\"}}, {{\"role\": \"assistant\", \"content\": \"{answer} {nth}\"}}]}}\n"
        )
    };
    let chats: String = (0..20).map(|nth| chat(nth, sentence(4), sentence(6))).collect();
    fs::write(dir.path().join("b.jsonl"), chats).unwrap();
    let files = [dir.path().join("a.txt"), dir.path().join("b.jsonl")];
    let rules = Rules { text_key: "text", separator: "<|endoftext|>", join_lines: false };
    tokenizer::train(&files, rules, 300, &dir.path().join("tok"), &mut |_| {}).unwrap();
    dir
}

pub(crate) fn run(dir: &Path, out: &str, more: &str) -> Run {
    // Later lines win, as flags over a file.
    let mut lines = std::collections::BTreeMap::new();
    let text = format!(
        "out = \"{out}\"\ntrain = [\"a.txt\", \"b.jsonl\"]\ntokenizer = \"tok\"\nvalidation = 0.1\ndim = 32\nlayers = 2\n\
         hidden = 48\nheads = 2\nkv_heads = 1\nhead_dim = 16\nlength = 32\nsequences = 3\naccumulate = 2\nsteps = 12\n\
         warmup = 2\nlog_every = 1\nvalidate_every = 5\nsave_every = 4\nthreads = 2\nrate = 5e-3\n{more}\n"
    );
    for line in text.lines().filter(|line| !line.is_empty()) {
        lines.insert(line.split(" = ").next().unwrap(), line);
    }
    Run::parse(&lines.into_values().collect::<Vec<_>>().join("\n"), &[], dir).unwrap()
}

/// The numbers of a run that do not depend on the clock.
pub(crate) fn numbers(out: &Path) -> Vec<String> {
    let line = |line: Line| match line {
        Line::Step(s) => format!(
            "{} {} {} {:x} {:x} {:x}",
            s.step,
            s.tokens,
            s.epoch,
            s.loss.to_bits(),
            s.gradient.to_bits(),
            s.rate.to_bits()
        ),
        Line::Validation(v) => format!("validation {} {:x}", v.step, v.loss.to_bits()),
        Line::Evaluation(e) => format!("{} {} {:x}", e.task, e.step, e.value.to_bits()),
        Line::Sample { step, text } => format!("sample {step} {text}"),
    };
    metrics::read(out).unwrap().into_iter().map(line).collect()
}

/// `tern convert` into this folder.
pub(crate) fn convert_from(model: &Path, dir: &Path, name: &str, options: &ConvertOptions) -> PathBuf {
    let out = dir.join(name);
    tern_convert::convert(model, &out, options, &mut |_, _| {}).unwrap();
    out
}

/// `tern train check`.
pub(crate) fn compare(run: &Run, path: &Path) -> tern_train::Result<Check> {
    let activations = run.quantiser().unwrap().is_weight_only().then_some(Rounding::None);
    let options = Options {
        head: Head::Stored,
        kv: run.kv().unwrap().unwrap_or(KvFormat::F32),
        threads: Some(1),
        activations,
        floats: !run.ternary,
        ..Options::default()
    };
    let file = tern::file::open(path, OpenOptions::default()).unwrap();
    check(run, &file, &Model::from_file(&file, &options).unwrap(), &mut |_| {})
}
