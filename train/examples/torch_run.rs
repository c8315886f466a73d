//! One side of the comparison with PyTorch (`bench/torch/compare.py` is the other): writes a fresh model's masters and the
//! order of tokens, then trains and writes the losses.
//! `cargo run --release -p tern-train --example torch_run CONFIG.toml OUT`: `OUT/masters`, `OUT/tokens.bin` (u32, steps by
//! rows + 1 target column as `NONE` for nothing), `OUT/losses.txt`.

use std::io::Write;
use std::path::Path;

use tern_kernels::{Cpu, Pool};
use tern_train::config::Run;
use tern_train::corpus::{Corpus, Place, Sequences};
use tern_train::ops::Machine;
use tern_train::run::{Event, train};
use tern_train::start::Start;
use tern_train::{Result, export};

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let (config, out) = (args.next().expect("CONFIG.toml"), args.next().expect("OUT"));
    let run = Run::open(Path::new(&config), &[])?;
    let start = Start::of(&run)?;
    let out = Path::new(&out);
    std::fs::create_dir_all(out).expect("a directory to write");
    let Start { config, layout, params, tokenizer, files, .. } = &start;
    let pool = Pool::new(1);
    export::masters(
        Machine { cpu: Cpu::best(), pool: &pool },
        &run,
        config,
        layout,
        params,
        files,
        &out.join("masters"),
    )?;
    let mut corpus = Corpus::open(&run, tokenizer, start.end()?, &mut |note| eprintln!("{note}"))?;
    let mut file = std::io::BufWriter::new(std::fs::File::create(out.join("tokens.bin")).expect("a file"));
    let (mut place, mut batch) = (Place::default(), Sequences::default());
    for _ in 0..run.steps * run.accumulate as u64 {
        corpus.next(&mut place, run.sequences, run.length, &mut batch)?;
        for numbers in [&batch.tokens, &batch.targets, &batch.starts] {
            for number in numbers {
                file.write_all(&number.to_le_bytes()).expect("room on the disk");
            }
        }
    }
    file.flush().expect("room on the disk");
    let mut losses = String::new();
    train(&run, &|| false, &mut |event| {
        if let Event::Step(step) = event {
            losses += &format!("{} {:.6} {:.1}\n", step.step, step.loss, step.tokens_per_second);
        }
    })?;
    std::fs::write(out.join("losses.txt"), losses).expect("room on the disk");
    Ok(())
}
