//! Running the tests, each between two measurements of what the machine can do.

use std::time::{Duration, Instant};

use tern::{
    Activity, CHUNK, Config, Cost, Embedder, Head, Logits, Model, Row, Sampler, Sampling, Scratch, Sequence,
    UnitReads,
};
use tern_eval::Meter;
use tern_kernels::ceiling::{Cached, Region, dot_peak};

use super::test::{Test, Work};
use crate::failure::{Failure, Outcome};
use crate::machine::{self, Machine};
use crate::model::Loaded;

/// The likeliest token is all that a greedy text wants.
const GREEDY: Logits = Logits::Top(1);

/// Steps after which it is settled whether closed units are left out: a hundred, and one for each layer.
const SETTLES: usize = 1000;

/// Bytes that are read to measure the memory: far more than any cache holds.
const REGION: u64 = 1 << 30;

/// What the machine could do in the moment of a repetition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ceilings {
    /// Bytes a second that all threads together read.
    pub(super) read: f64,
    /// Multiply-adds a second of the instruction set's products of bytes, those of tiles where the test takes them.
    pub(super) dots: f64,
    /// Multiply-adds a second of the ternary kernels over data in cache, with as many rows as the test has.
    pub(super) cached: f64,
}

/// One repetition of a test.
#[derive(Clone, Copy, Debug)]
pub(super) struct Round {
    /// Tokens a second.
    pub(super) speed: f64,
    pub(super) ceilings: Ceilings,
    /// For a token.
    pub(super) joules: Option<f64>,
    pub(super) head: HeadReads,
    pub(super) units: Units,
}

/// What a step of one text found behind its gates, on the average; all 0 where there is nothing of the kind.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Units {
    /// Hidden units of all layers.
    pub(super) all: f64,
    /// The share of closed gates.
    pub(super) closed: f64,
    /// The share of zeros in front of `down`.
    pub(super) zeros: f64,
    /// Bytes that were not read for it.
    pub(super) unread: f64,
}

/// What a step read of the output head, on the average.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeadReads {
    pub(super) bytes: f64,
    /// Rows that were computed in full.
    pub(super) rows: f64,
}

/// A test and its repetitions.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) test: Test,
    pub(super) rounds: Vec<Round>,
}

/// Times and sizes that are measured once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    pub(super) load: Duration,
    /// From opening the file to the first token after a prompt of one.
    pub(super) first_token: Duration,
    /// Most bytes held up to there.
    pub(super) memory: Option<u64>,
}

impl Start {
    /// Takes the first token of a model that has just been loaded.
    pub(super) fn measure(loaded: &Loaded) -> Outcome<Self> {
        let (model, load) = (&loaded.model, loaded.load_time);
        let before = Instant::now();
        let first = token(model.config(), 0);
        if embeds(model) {
            Embedder::new(model, None)?.embed(&[vec![first]], |_| {})?;
        } else {
            read(model, &mut Scratch::default(), &mut [Sequence::new(model, 1)], &[first], true)?;
        }
        Ok(Self { load, first_token: load + before.elapsed(), memory: machine::peak_memory() })
    }
}

/// All that is needed to measure.
pub(super) struct Bench {
    pub(super) model: Model,
    pub(super) machine: Machine,
    pub(super) start: Start,
    pub(super) meter: Result<Meter, String>,
    pub(super) region: Region,
    /// By number of rows.
    cached: Vec<(usize, Cached)>,
    /// Sequences filled to each depth that is asked for, shallow first.
    filled: Vec<Sequence>,
    scratch: Scratch,
    pub(super) tests: Vec<Measured>,
}

impl Bench {
    /// Takes the memory to read, and makes the sequences that the tests begin with.
    pub(super) fn new(model: Model, start: Start, region: Option<usize>, tests: &[Test]) -> Outcome<Self> {
        let machine = Machine::look();
        let free = machine.memory.map(|(_, free)| free);
        let region = match (region, free) {
            (Some(asked), Some(free)) if asked as u64 > free => {
                let (asked, free) = (asked >> 20, free >> 20);
                return Err(Failure::failed(format!(
                    "--probe {asked}: expected less than the {free} MiB that are free"
                )));
            }
            (Some(asked), _) => asked,
            (None, free) => free.map_or(REGION, |free| REGION.min(free / 4)) as usize,
        };
        let mut rows: Vec<usize> = tests.iter().map(Test::rows).collect();
        rows.sort_unstable();
        rows.dedup();
        let (packing, cols) = (model.packing(), model.config().dim);
        let mut bench = Self {
            machine,
            start,
            meter: Meter::new(),
            region: Region::new(region, model.pool()),
            cached: rows.into_iter().map(|rows| (rows, Cached::new(packing, cols, rows))).collect(),
            filled: Vec::new(),
            scratch: Scratch::default(),
            tests: tests.iter().map(|&test| Measured { test, rounds: Vec::new() }).collect(),
            model,
        };
        bench.fill()?;
        Ok(bench)
    }

    /// One sequence for each depth; a deeper one begins where the one before it ends.
    fn fill(&mut self) -> Outcome {
        let mut depths: Vec<usize> = self.tests.iter().map(|measured| measured.test.depth).collect();
        depths.sort_unstable();
        depths.dedup();
        let config = self.model.config();
        let mut sequence = [Sequence::new(&self.model, config.context)];
        for depth in depths {
            let first = sequence[0].tokens().len();
            let tokens: Vec<u32> = (first..depth).map(|at| token(config, at)).collect();
            read(&self.model, &mut self.scratch, &mut sequence, &tokens, false)?;
            self.filled.push(sequence[0].clone());
        }
        Ok(())
    }

    /// A short run of a test: threads awake, pages there. A text alone goes on until it is settled whether closed units are left
    /// out.
    pub(super) fn warm_up(&mut self, test: &Test) -> Outcome {
        if let Work::Text { sequences: 1, .. } = test.work {
            self.use_threads(test.threads);
            for _ in 0..SETTLES {
                if self.model.zeros_settled() {
                    break;
                }
                self.time(&Test { work: Work::Text { tokens: 1, sequences: 1 }, ..*test })?;
            }
        }
        let work = match test.work {
            Work::Prompt(tokens) => Work::Prompt(tokens.min(CHUNK)),
            Work::Text { tokens, sequences } => Work::Text { tokens: tokens.min(2), sequences },
            Work::Vectors { tokens, .. } => Work::Vectors { tokens: tokens.min(CHUNK), texts: 1 },
        };
        self.use_threads(test.threads);
        self.ceilings(test);
        self.time(&Test { work, ..*test }).map(drop)
    }

    /// One more repetition of a test.
    pub(super) fn measure(&mut self, index: usize) -> Outcome {
        let test = self.tests[index].test;
        self.use_threads(test.threads);
        let before = self.ceilings(&test);
        let (time, joules, head, units) = self.time(&test)?;
        let after = self.ceilings(&test);
        let tokens = test.tokens() as f64;
        self.tests[index].rounds.push(Round {
            speed: tokens / time.as_secs_f64().max(1e-9),
            ceilings: Ceilings {
                read: (before.read + after.read) / 2.0,
                // Arithmetic has a limit of its own; what is below it was taken by somebody else.
                dots: before.dots.max(after.dots),
                cached: before.cached.max(after.cached),
            },
            joules: joules.map(|joules| joules / tokens),
            head,
            units,
        });
        Ok(())
    }

    /// What share of the parameters takes part in a token such as these tests read; nothing of a model that makes vectors.
    pub(super) fn activity(&self) -> Outcome<Option<Activity>> {
        const TOKENS: usize = 128;
        let config = self.model.config();
        if embeds(&self.model) {
            return Ok(None);
        }
        let tokens: Vec<u32> = (0..TOKENS.min(config.context)).map(|at| token(config, at)).collect();
        Ok(Some(self.model.activity(&tokens)?))
    }

    fn use_threads(&mut self, threads: usize) {
        if self.model.threads() != threads {
            self.model.set_threads(threads);
        }
    }

    fn ceilings(&self, test: &Test) -> Ceilings {
        let (cpu, pool) = (self.model.cpu(), self.model.pool());
        let cached = self.cached.iter().find(|(rows, _)| *rows == test.rows());
        Ceilings {
            read: self.region.read(cpu, pool),
            dots: dot_peak(cpu, pool, test.rows()),
            cached: cached.expect("one for the rows of every test").1.products(cpu, pool),
        }
    }

    /// Runs a test: its time, the joules it took if they can be measured, and what its steps read of the head and found behind
    /// the gates.
    fn time(&mut self, test: &Test) -> Outcome<(Duration, Option<f64>, HeadReads, Units)> {
        self.use_threads(test.threads);
        let filled = self.filled.iter().find(|sequence| sequence.tokens().len() == test.depth);
        let filled = filled.expect("a sequence for the depth of every test");
        let (model, scratch) = (&self.model, &mut self.scratch);
        let config = model.config();
        let meter = self.meter.as_ref().ok();
        let mut steps = 1;
        let mut head = HeadReads { bytes: 0.0, rows: 0.0 };
        let mut units = Units::default();
        let (time, joules) = match test.work {
            Work::Prompt(tokens) => {
                let mut sequence = [filled.clone()];
                let tokens: Vec<u32> = (0..tokens).map(|at| token(config, test.depth + at)).collect();
                // The caches are given their room, which the clone does not have.
                read(model, scratch, &mut sequence, &tokens[..1], false)?;
                sequence[0].truncate(test.depth);
                let timed = timed(meter, || read(model, scratch, &mut sequence, &tokens, true))?;
                head.add(model, scratch);
                timed
            }
            Work::Text { tokens, sequences } => {
                let mut texts = vec![filled.clone(); sequences];
                let mut writer = Writer::new(config, sequences)?;
                writer.step(model, scratch, &mut texts)?;
                texts.iter_mut().for_each(|text| text.truncate(test.depth));
                steps = tokens;
                timed(meter, || {
                    (0..tokens).try_for_each(|_| {
                        writer.step(model, scratch, &mut texts)?;
                        head.add(model, scratch);
                        units.add(scratch);
                        Ok(())
                    })
                })?
            }
            Work::Vectors { tokens, texts } => {
                let text = |nth: usize| (0..tokens).map(|at| token(config, nth * tokens + at)).collect();
                let texts: Vec<Vec<u32>> = (0..texts).map(text).collect();
                let mut embedder = Embedder::new(model, None)?;
                // The caches are given their room.
                embedder.embed(&texts[..1], |_| {})?;
                timed(meter, || Ok(embedder.embed(&texts, |_| {}).map(drop)?))?
            }
        };
        if let Some(Err(why)) = &joules {
            self.meter = Err(why.clone());
        }
        head.bytes /= steps as f64;
        head.rows /= steps as f64;
        Ok((time, joules.and_then(Result::ok), head, units.of(steps as f64)))
    }
}

impl HeadReads {
    /// Adds what the last step read.
    fn add(&mut self, model: &Model, scratch: &Scratch) {
        let (bytes, rows) = match model.head_form() {
            Head::Int8 => scratch.head_reads(),
            Head::Stored | Head::Ternary => (model.cost().head, model.config().vocab as u64),
        };
        self.bytes += bytes as f64;
        self.rows += rows as f64;
    }
}

impl Units {
    /// Adds what the last step found.
    fn add(&mut self, scratch: &Scratch) {
        let UnitReads { units, closed, zeros, unread } = scratch.unit_reads();
        self.all += units as f64;
        self.closed += closed as f64;
        self.zeros += zeros as f64;
        self.unread += unread as f64;
    }

    /// The average of so many steps.
    fn of(self, steps: f64) -> Self {
        let share = |units: f64| if self.all > 0.0 { units / self.all } else { 0.0 };
        let (closed, zeros) = (share(self.closed), share(self.zeros));
        Self { all: self.all / steps, closed, zeros, unread: self.unread / steps }
    }
}

/// Times some work and measures its joules.
fn timed(
    meter: Option<&Meter>,
    work: impl FnOnce() -> Result<(), Failure>,
) -> Outcome<(Duration, Option<Result<f64, String>>)> {
    let measure = meter.map(Meter::start);
    let start = Instant::now();
    work()?;
    let time = start.elapsed();
    Ok((time, measure.map(|measure| measure.and_then(tern_eval::Measure::joules))))
}

/// Tokens to read: all of the vocabulary, in no order that a model could know.
fn token(config: &Config, at: usize) -> u32 {
    (at.wrapping_mul(7919).wrapping_add(11) % config.vocab) as u32
}

/// Whether it makes vectors and no texts.
pub(super) fn embeds(model: &Model) -> bool {
    model.config().pooling.is_some()
}

/// Takes tokens through the model in chunks, as a prompt is.
fn read(
    model: &Model,
    scratch: &mut Scratch,
    sequence: &mut [Sequence; 1],
    tokens: &[u32],
    logits: bool,
) -> Outcome {
    let mut left = tokens.len();
    for chunk in tokens.chunks(CHUNK) {
        left -= chunk.len();
        let last = |n: usize| logits && left == 0 && n == chunk.len();
        let rows: Vec<Row> = (1..)
            .zip(chunk)
            .map(|(n, &token)| Row {
                sequence: 0,
                token,
                logits: if last(n) { GREEDY } else { Logits::None },
            })
            .collect();
        model.forward(scratch, sequence, &rows)?;
    }
    Ok(())
}

/// Writes the likeliest tokens, one in each sequence a step.
struct Writer {
    sampler: Sampler,
    rows: Vec<Row>,
}

impl Writer {
    fn new(config: &Config, sequences: usize) -> Outcome<Self> {
        let row = |sequence| Row { sequence, token: token(config, 1000 + sequence), logits: GREEDY };
        Ok(Self { sampler: Sampler::new(Sampling::greedy())?, rows: (0..sequences).map(row).collect() })
    }

    fn step(&mut self, model: &Model, scratch: &mut Scratch, texts: &mut [Sequence]) -> Outcome {
        let logits = model.forward(scratch, texts, &self.rows)?;
        for (row, logits) in self.rows.iter_mut().zip(logits.chunks_exact(model.config().vocab)) {
            row.token = self.sampler.choose(logits, &[]);
        }
        Ok(())
    }
}

impl Measured {
    /// What the rounds say about a number that each of them gives.
    pub(super) fn each(&self, number: impl Fn(&Round) -> f64) -> super::test::Spread {
        super::test::Spread::of(self.rounds.iter().map(number))
    }

    /// What one token costs: bytes from memory, and multiply-adds of ternary products.
    pub(super) fn cost(&self, cost: &Cost, dim: usize) -> (f64, f64) {
        let (bytes, macs) = self.test.cost(cost, self.each(|round| round.head.bytes).median);
        let unread = self.each(|round| round.units.unread).median;
        let undone = |units: &Units| match units.unread {
            0.0 => 0.0,
            _ => (units.closed + units.zeros) * units.all * dim as f64,
        };
        (bytes - unread, macs - self.each(|round| undone(&round.units)).median)
    }

    /// The speed that the ceilings allow in a round, and which of them is the lowest: `memory`, `kernels` or `int8`.
    pub(super) fn ceiling(&self, cost: &Cost, dim: usize, round: &Round) -> (f64, &'static str) {
        let (bytes, macs) = self.cost(cost, dim);
        let Ceilings { read, dots, cached } = round.ceilings;
        match self.test.work {
            Work::Prompt(_) | Work::Vectors { .. } => (dots / macs, "int8"),
            Work::Text { .. } if read / bytes <= cached / macs => (read / bytes, "memory"),
            Work::Text { .. } => (cached / macs, "kernels"),
        }
    }
}
