//! Writes a greedy text with the screened head and with the whole int8 head and compares them, token by token:
//! `cargo run --release -p tern --example screened -- model.gguf 10000` (docs/screened-head.md).

use std::path::Path;
use std::time::{Duration, Instant};

use tern::{Logits, Model, Options, Result, Row, Scratch, Sequence};

/// Tokens of one text before the next begins: contexts are short and attention is not what is compared.
const LENGTH: usize = 64;

fn main() -> Result<()> {
    let mut words = std::env::args().skip(1);
    let path = words.next().unwrap_or_else(|| usage());
    let count: usize = words.next().and_then(|word| word.parse().ok()).unwrap_or_else(|| usage());
    let model = Model::open(Path::new(&path), &Options::default())?;
    let mut scratch = Scratch::default();
    let (mut compared, mut bytes, mut rows, mut whole) = (0usize, 0u64, 0u64, 0u64);
    let (mut screened_time, mut whole_time) = (Duration::ZERO, Duration::ZERO);
    while compared < count {
        // Another first token for each text.
        let start = (compared / LENGTH * 7919 % model.config().vocab) as u32;
        let mut sequences = [Sequence::new(&model, LENGTH), Sequence::new(&model, LENGTH)];
        let mut token = start;
        for _ in 0..LENGTH.min(count - compared) {
            let mut step = |sequence: usize, logits: Logits| {
                let begin = Instant::now();
                let rows = [Row { sequence: 0, token, logits }];
                let logits = model.forward(&mut scratch, &mut sequences[sequence..=sequence], &rows)?;
                let best =
                    (0..logits.len()).fold(0, |best, id| if logits[id] > logits[best] { id } else { best });
                let logit = logits[best].to_bits();
                Ok::<_, tern::Error>((best as u32, logit, scratch.head_reads(), begin.elapsed()))
            };
            let (few, few_logit, reads, few_time) = step(0, Logits::Top(1))?;
            let (all, all_logit, all_reads, all_time) = step(1, Logits::All)?;
            assert_eq!((few, few_logit), (all, all_logit), "token {compared}");
            (bytes, rows, whole) = (bytes + reads.0, rows + reads.1, whole + all_reads.0);
            (screened_time, whole_time) = (screened_time + few_time, whole_time + all_time);
            token = all;
            compared += 1;
        }
    }
    let tokens = compared as f64;
    println!("{compared} tokens equal");
    println!(
        "screened: {:.2} MB a token, {:.1} rows computed, {:.2} ms with the layers",
        bytes as f64 / 1e6 / tokens,
        rows as f64 / tokens,
        screened_time.as_secs_f64() * 1e3 / tokens
    );
    println!(
        "whole int8: {:.2} MB a token, {:.2} ms with the layers; the screened head reads {:.4} of it",
        whole as f64 / 1e6 / tokens,
        whole_time.as_secs_f64() * 1e3 / tokens,
        bytes as f64 / whole as f64
    );
    Ok(())
}

fn usage() -> ! {
    eprintln!("usage: screened MODEL TOKENS");
    std::process::exit(2)
}
