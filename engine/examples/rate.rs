//! Tokens a second of one model: `rate MODEL|story THREADS decode|prefill TOKENS ROUNDS` prints the median, the least and the
//! most. `bench/busy` runs it beside other programs; `tern bench` is for everything else.

use std::error::Error;
use std::time::Instant;

use tern::{Drafts, Generation, Model, Options, Sampling};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [path, threads, what, tokens, rounds] = &args[..] else {
        return Err("expected: MODEL|story THREADS decode|prefill TOKENS ROUNDS".into());
    };
    let options = Options { threads: Some(threads.parse()?), ..Options::default() };
    let model = if path == "story" { Model::story(&options)? } else { Model::open(path.as_ref(), &options)? };
    let (tokens, rounds): (usize, usize) = (tokens.parse()?, rounds.parse()?);
    let ids: Vec<u32> = (0..tokens as u32).map(|i| (i * 7919 + 11) % model.config().vocab as u32).collect();
    let mut rates = Vec::new();
    // The first round warms up.
    for _ in 0..=rounds.max(1) {
        let sampling = Sampling { seed: 1, temperature: 0.8, ..Sampling::default() };
        // Random weights repeat themselves: guesses would be right as they never are in a text.
        let generation = Generation::new(&model, model.config().context, sampling)?;
        let mut generation = generation.with_drafts(Drafts::NONE);
        let decodes = what == "decode";
        let prompt = if decodes { &ids[..tokens.min(8)] } else { &ids[..] };
        let mut start = Instant::now();
        generation.prompt(prompt)?;
        if decodes {
            start = Instant::now();
            for _ in 0..tokens {
                if generation.next()?.is_none() {
                    generation.prompt(&ids[..1])?;
                }
            }
        }
        rates.push(tokens as f64 / start.elapsed().as_secs_f64());
    }
    let rates = &mut rates[1..];
    rates.sort_by(f64::total_cmp);
    println!("{:.2} ({:.2} to {:.2})", rates[rates.len() / 2], rates[0], rates[rates.len() - 1]);
    Ok(())
}
