//! Texts a second of an embedding model: `embed_rate MODEL THREADS TEXTS TOKENS ROUNDS` prints the median, the least and the most.

use std::error::Error;
use std::time::Instant;

use tern::{Embedder, Model, Options};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [path, threads, texts, tokens, rounds] = &args[..] else {
        return Err("expected: MODEL THREADS TEXTS TOKENS ROUNDS".into());
    };
    let model =
        Model::open(path.as_ref(), &Options { threads: Some(threads.parse()?), ..Options::default() })?;
    let (texts, tokens, rounds): (usize, usize, usize) = (texts.parse()?, tokens.parse()?, rounds.parse()?);
    let vocab = model.config().vocab;
    let text = |nth: usize| (0..tokens).map(|at| ((nth * 31 + at * 7919 + 11) % vocab) as u32).collect();
    let texts: Vec<Vec<u32>> = (0..texts).map(text).collect();
    let mut embedder = Embedder::new(&model, None)?;
    let mut rates = Vec::new();
    // The first round warms up.
    for _ in 0..=rounds.max(1) {
        let start = Instant::now();
        embedder.embed(&texts, |_| {})?;
        rates.push(texts.len() as f64 / start.elapsed().as_secs_f64());
    }
    let rates = &mut rates[1..];
    rates.sort_by(f64::total_cmp);
    println!("{:.2} ({:.2} to {:.2})", rates[rates.len() / 2], rates[0], rates[rates.len() - 1]);
    Ok(())
}
