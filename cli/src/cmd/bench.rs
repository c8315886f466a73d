//! `tern bench`: how fast a model runs here, and how much of what this machine could do that is.
//!
//! Speeds on a machine that is shared with others move within minutes. So everything is measured in rounds: in each,
//! every test runs once with the machine's ceilings measured right before and after it, and every rival runs once; shares
//! and ratios are formed within a round, and the medians of those are told.

mod measure;
mod plot;
mod report;
mod rival;
mod table;
mod test;

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use tern::file::Whole;
use tern_kernels::default_threads;

use crate::failure::{Failure, Outcome};
use crate::model::{self, MachineArgs, threads};
use crate::progress::Bar;
use crate::sampling::{at_least_one, count, number};
use crate::signal;
use crate::terminal;
use measure::{Bench as Measurement, Start};
use report::Report;
use rival::Rival;
use test::{Test, Work};

const EXAMPLES: &str = "\
A test is a prompt of -p tokens (pp) or a text of -n tokens (tg), after -d others, on -t threads; a text also as -b texts \
at once, whose tokens count together. Every combination of the lists is measured. An embedding model makes vectors of -b \
texts of -p tokens (emb).

A terminal gets a table of 80 columns: the speed, how far it moved, and how much of the lowest ceiling it is. A file or a \
pipe gets all columns in Markdown, as -o md does.

Ceilings: the memory's reading speed over the bytes that a token needs; the int8 products of the instruction set, those of \
tiles where it has them and the test has 16 rows; the ternary kernels over data in cache. A text is held against the lower \
of memory and kernels, a prompt against the int8 products, counted on the ternary products alone.

Examples:
  tern bench model.gguf
  tern bench model.gguf -t 1,2 -d 0,4096 -b 1,4,16 --plot speed.svg
  tern bench model.gguf -p 0 -n 64 -r 9 --json > record.json
  tern bench model.gguf --vs 'llama-bench -m other.gguf -t 2 -r 1 -o json'";

/// Measure a model's speed, and this machine's ceilings beside it
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Bench {
    /// The model: a file, a directory, or `story` (built in)
    model: PathBuf,
    /// Lengths of prompts; 0 for no such test
    #[arg(short, long, value_name = "LIST", default_value = "512", value_delimiter = ',', allow_negative_numbers = true, value_parser = count)]
    prompt: Vec<usize>,
    /// Lengths of texts; 0 for no such test
    #[arg(short = 'n', long = "tokens", value_name = "LIST", default_value = "128", value_delimiter = ',', allow_negative_numbers = true, value_parser = count)]
    tokens: Vec<usize>,
    /// Depths: tokens before the prompt or the text
    #[arg(short, long, value_name = "LIST", default_value = "0", value_delimiter = ',', allow_negative_numbers = true, value_parser = count)]
    depth: Vec<usize>,
    /// Batches: texts written at once
    #[arg(short, long, value_name = "LIST", default_value = "1", value_delimiter = ',', allow_negative_numbers = true, value_parser = at_least_one)]
    batch: Vec<usize>,
    /// Rounds: how often everything is repeated
    #[arg(
        short,
        long,
        value_name = "N",
        default_value = "5",
        allow_negative_numbers = true,
        value_parser = at_least_one
    )]
    rounds: usize,
    /// How to print the results: `table` fits 80 columns, `md` has all [default: table on a terminal, md elsewhere]
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<Format>,
    /// Print one JSON object, as `-o json` does
    #[arg(long, conflicts_with = "output")]
    json: bool,
    /// Draw tokens/s against threads, depth and batch into this SVG file
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Run this in every round and compare; it must print JSON as llama-bench does (can be repeated)
    #[arg(long, value_name = "COMMAND")]
    vs: Vec<String>,
    /// Put these words into the record: the commit, what else ran
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
    /// Memory to read for the ceiling, in MiB [default: 1024, or a quarter of what is free]
    #[arg(long, value_name = "MIB", allow_negative_numbers = true, value_parser = mib)]
    probe: Option<usize>,
    /// Numbers of threads [default: one for each core]
    #[arg(short, long, value_name = "LIST", value_delimiter = ',', allow_negative_numbers = true, value_parser = threads, help_heading = "Machine")]
    threads: Vec<usize>,
    #[command(flatten)]
    machine: MachineArgs,
}

/// How results are printed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Md,
    Json,
    Csv,
}

impl Bench {
    pub(crate) fn run(self) -> Outcome {
        signal::listen()?;
        model::find(&self.model)?;
        let threads = if self.threads.is_empty() { vec![default_threads()] } else { self.threads.clone() };
        let mut tests = Test::all(&self.prompt, &self.tokens, &self.depth, &self.batch, &threads);
        if tests.is_empty() {
            return Err(Failure::misused("-p 0 -n 0: expected something to measure"));
        }
        // A file that cannot be written is better known before the measurement than after it.
        let plot = self.plot.as_deref().map(Whole::begin).transpose()?;
        let most = *threads.iter().max().expect("there is a number of threads");
        let loaded = model::open(&self.model, &self.machine, Some(most))?;
        if measure::embeds(&loaded.model) {
            tests = Test::vectors(&self.prompt, &self.batch, &threads);
            if self.plot.is_some() {
                return Err(Failure::misused(
                    "--plot draws prompts and texts: an embedding model has neither",
                ));
            }
            if tests.is_empty() || self.depth != [0] {
                return Err(Failure::misused(
                    "an embedding model writes nothing and begins with every text: expected a -p above 0 and no -d",
                ));
            }
        }
        let start = Start::measure(&loaded)?;
        let context = loaded.model.config().context;
        if let Some(test) = tests.iter().find(|test| test.positions() > context) {
            return Err(too_long(test, context));
        }

        let mut rivals: Vec<Rival> = self.vs.iter().map(|command| Rival::new(command)).collect();
        let each = tests.len() + rivals.len();
        let all = each * (self.rounds + 1);
        let mut bar = Bar::steps();
        let mut done = 0;
        let mut step = |what: String| {
            bar.step(done, all, what);
            done += 1;
        };
        // Round 0 warms up and is not counted. Rivals go first in it: a command that does not work should not cost the
        // rest of the round.
        for rival in &mut rivals {
            step(format!("warming up: {}", rival.command()));
            rival.run()?;
        }
        let mut bench = Measurement::new(loaded.model, start, self.probe.map(|mib| mib << 20), &tests)?;
        for test in &tests {
            step(format!("warming up: {test}"));
            bench.warm_up(test)?;
        }
        rivals.iter_mut().for_each(Rival::forget);
        for round in 1..=self.rounds {
            for index in 0..tests.len() {
                step(format!("round {round}: {}", tests[index]));
                bench.measure(index)?;
            }
            for rival in &mut rivals {
                step(format!("round {round}: {}", rival.command()));
                rival.run()?;
            }
        }
        bar.clear();

        let report = Report::of(bench, &self.model, self.note.as_deref(), rivals)?;
        terminal::print(&match self.format() {
            Format::Table => table::text(&report),
            Format::Md => report.markdown(),
            Format::Json => format!("{}\n", report.json()),
            Format::Csv => report.csv(),
        })?;
        if let Some(plot) = plot {
            plot.publish(plot::svg(&report).as_bytes())?;
        }
        Ok(())
    }
}

impl Bench {
    fn format(&self) -> Format {
        match self.output {
            _ if self.json => Format::Json,
            Some(format) => format,
            None if terminal::output_is_terminal() => Format::Table,
            None => Format::Md,
        }
    }
}

fn too_long(test: &Test, context: usize) -> Failure {
    let (flag, tokens) = match test.work {
        Work::Prompt(tokens) => ("-p", tokens),
        Work::Text { tokens, .. } => ("-n", tokens),
        Work::Vectors { tokens, .. } => ("-p", tokens),
    };
    let failure = Failure::misused(format!(
        "{test}: expected at most {context} tokens, the context of this model, found {}",
        test.positions()
    ));
    failure.hint(match context.checked_sub(test.depth) {
        Some(room) if room > 0 && room < tokens => {
            format!("`{flag} {room}` fits, and `{flag} 0` leaves this test out")
        }
        _ => format!("depth and length together must fit: `-d {}` leaves half of it", context / 2),
    })
}

/// Parses a size in MiB that no machine lacks for want of digits.
fn mib(text: &str) -> Result<usize, &'static str> {
    number(text, "expected a whole number from 1 to 65536", |mib| (1..=65536).contains(mib))
}
