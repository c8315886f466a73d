//! What a run of `tern train` needs, and what it leaves.

use std::fs;
use std::path::Path;

use crate::common::run;

/// A directory with texts, a tokenizer and a configuration of a tiny model.
pub(crate) fn folder(more: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let words = ["the", "tern", "flies", "over", "a", "cold", "sea", "and", "sleeps", "on", "sand"];
    let text = |nth: usize| {
        (0..5 + nth % 30).map(|i| words[(i * i + nth) % words.len()]).collect::<Vec<_>>().join(" ")
    };
    let texts: Vec<String> = (0..90).map(text).collect();
    fs::write(dir.path().join("a.txt"), texts.join("<|endoftext|>\n")).unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    run(&["train", "tokenizer", &path("a.txt"), "--vocab", "280", "--out", &path("tok")]).ok();
    let config = format!(
        "out = \"run\"\ntrain = [\"a.txt\"]\ntokenizer = \"tok\"\nvalidation = 0.1\ndim = 32\nlayers = 1\nhidden = 48\n\
         heads = 2\nkv_heads = 1\nhead_dim = 16\nlength = 32\nsequences = 2\nlog_every = 1\nwarmup = 2\nthreads = 1\n{more}"
    );
    fs::write(dir.path().join("c.toml"), config).unwrap();
    dir
}

pub(crate) fn config(dir: &Path) -> String {
    dir.join("c.toml").to_str().unwrap().to_owned()
}

/// The losses of a run, as they are written.
pub(crate) fn losses(out: &Path) -> Vec<String> {
    let text = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let loss = |line: &str| {
        let json: serde_json::Value = serde_json::from_str(line).unwrap();
        format!("{} {} {}", json["kind"], json["step"], json["loss"])
    };
    text.lines().map(loss).collect()
}
