//! Tokens written a second by a batch alone: `batch MODEL|story THREADS PARALLEL PAUSE_MS ROUNDS PROMPTS DRAFT_TOKENS KV_BYTES WRITTEN` continues the
//! prompts of bench/python-rate.py, which measures the Python package beside it, and prints a line for each round.

use std::error::Error;
use std::time::{Duration, Instant};

use tern::{Batch, Bounds, Drafts, Job, Model, Options, Output, Sampling};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [path, threads, parallel, pause, rounds, prompts, drafts, kv, most] = &args[..] else {
        return Err(
            "expected: MODEL|story THREADS PARALLEL PAUSE_MS ROUNDS PROMPTS DRAFT_TOKENS KV_BYTES WRITTEN"
                .into(),
        );
    };
    let options = Options { threads: Some(threads.parse()?), ..Options::default() };
    let model = if path == "story" { Model::story(&options)? } else { Model::open(path.as_ref(), &options)? };
    let (parallel, pause) = (parallel.parse()?, Duration::from_millis(pause.parse()?));
    let context = model.config().context.min(512);
    let most = most.parse::<usize>()?;
    let pages = kv.parse::<usize>()? / Batch::page_bytes(&model);
    let bounds = Bounds { parallel, context, pages, pause };
    let drafts = Drafts { tokens: drafts.parse()?, always: false };
    let mut batch = Batch::new(&model, bounds)?.with_drafts(drafts);
    // The first round warms up, with 64 prompts as the package's: the memory for keys and values is full then. Each has other prompts, so that none is known.
    let prompts = prompts.parse::<u32>()?;
    for round in 0..=rounds.parse::<u32>()? {
        let start = Instant::now();
        for n in 0..if round == 0 { prompts.min(64) } else { prompts } {
            let id = |i: u32| (i * 7919 + (n + 1000 * round) * 104_729 + 11) % 4000 + 50;
            let prompt = (0..4 + (n * 37) % 120).map(id).collect();
            batch.add(&model, Job { ignore_stops: true, ..Job::new(prompt, Sampling::greedy(), most) })?;
        }
        let mut written = 0;
        while !batch.is_idle() {
            let outputs = batch.step(&model, |_| true);
            written += outputs.iter().filter(|(_, output)| matches!(output, Output::Token(_))).count();
        }
        let rate = f64::from(u32::try_from(written)?) / start.elapsed().as_secs_f64();
        if round > 0 {
            println!("{rate:.1}");
        }
    }
    Ok(())
}
