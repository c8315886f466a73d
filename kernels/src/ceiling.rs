//! What this machine can do at most: how fast its memory reads, how fast the dot products of an instruction set are, and
//! how fast the ternary kernels are where memory does not matter. A measured speed is told as a share of these.
//!
//! Every probe runs on all threads of a pool at once, takes some milliseconds, and measures time only: what it computes
//! is thrown away. They are short so that they can stand between the repetitions of a benchmark; on a machine that is
//! shared with others, only what was measured in the same minute can be compared.

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::activations::Activations;
use crate::buffer::Buffer;
use crate::cpu::{Cpu, TileKernel};
use crate::isa::{Block, Isa, Kernel};
use crate::matmul::LEAST_TILED;
use crate::packing::{Packing, ROWS};
use crate::pool::Pool;
use crate::scales::Scales;
use crate::ternary::Ternary;
use crate::tiles::{FOUR, SIDE, Tiles};

/// Independent places at which a thread reads at once: on some machines several plain streams were faster than one, on the
/// others as fast.
const STREAMS: usize = 4;

/// Blocks that a stream reads before the next one has its turn: half a KiB.
const RUN: usize = 8;

/// Memory to be read from end to end.
#[derive(Debug)]
pub struct Region {
    bytes: Buffer,
}

impl Region {
    /// A region of `len` bytes, on huge pages where the system has them. Every page is written once, on the threads of
    /// the pool: until then the system shows one page of zeros everywhere.
    ///
    /// # Panics
    /// Ends the process where the system does not give so much.
    pub fn new(len: usize, pool: &Pool) -> Self {
        let mut bytes = Buffer::zeroed(len);
        let share = len.div_ceil(pool.threads()).max(1);
        pool.for_chunks(&mut bytes, share, |_, part| part.fill(1));
        Self { bytes }
    }

    /// Its bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there is nothing to read.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Reads it all once, each thread a part in four streams; gives bytes a second.
    pub fn read(&self, cpu: Cpu, pool: &Pool) -> f64 {
        let (blocks, _) = self.bytes.as_chunks::<64>();
        let start = Instant::now();
        pool.for_each(pool.threads(), |nth| {
            cpu.run(Read { blocks: &blocks[pool.share(blocks.len(), nth)] });
        });
        size_of_val(blocks) as f64 / start.elapsed().as_secs_f64()
    }
}

struct Read<'a> {
    blocks: &'a [Block],
}

impl Kernel for Read<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let part = self.blocks.len() / STREAMS;
        let mut all = [isa.splat(255); STREAMS];
        let mut at = 0;
        while at < part {
            let end = (at + RUN).min(part);
            for stream in 0..STREAMS {
                for block in &self.blocks[stream * part..][at..end] {
                    all[stream] = isa.and(all[stream], isa.load(block));
                }
            }
            at = end;
        }
        black_box(all);
    }
}

/// Runs `job(rounds)` on every thread, with rounds enough for some milliseconds; gives rounds a second of one thread.
fn rate(pool: &Pool, job: impl Fn(usize) + Sync) -> f64 {
    const LONG: Duration = Duration::from_millis(4);
    let mut rounds = 1;
    loop {
        let start = Instant::now();
        pool.for_each(pool.threads(), |_| job(rounds));
        let time = start.elapsed();
        if time >= LONG || rounds > usize::MAX / 4 {
            return rounds as f64 / time.as_secs_f64();
        }
        let wanted = LONG.as_secs_f64() * 1.2 / time.as_secs_f64().max(1e-9);
        rounds = (rounds as f64 * wanted.clamp(2.0, 1000.0)) as usize;
    }
}

/// Multiply-adds a second of the instruction set's products of bytes on all threads, with sums in registers, as products of
/// `rows` rows of activations use them: those of tiles where these take tiles, else of its `dot`, the best of some shapes of
/// tile, with operands from the nearest cache and with operands that stay in registers.
pub fn dot_peak(cpu: Cpu, pool: &Pool, rows: usize) -> f64 {
    if cpu.has_tiles(rows >= LEAST_TILED) {
        let products = rate(pool, |rounds| cpu.run_tiled(TilePeak { rounds })) * (HELD * FOUR) as f64;
        return products * pool.threads() as f64;
    }
    let of = |tile: (usize, usize), held: bool| {
        let products = STEPS * tile.0 * tile.1 * size_of::<Block>();
        rate(pool, |rounds| cpu.run(Peak { rounds, tile, held })) * products as f64
    };
    let all = TILES.iter().flat_map(|&tile| [of(tile, false), of(tile, true)]);
    all.fold(0.0, f64::max) * pool.threads() as f64
}

/// Times four products in a round.
const HELD: usize = 64;

/// Products of tiles that stay in registers.
struct TilePeak {
    rounds: usize,
}

impl TileKernel for TilePeak {
    fn height(&self) -> usize {
        SIDE
    }

    #[inline(always)]
    fn run<I: Isa, T: Tiles>(self, _: I, mut tiles: T) {
        tiles.repeat(&[[1; 64]; SIDE], HELD * self.rounds);
    }
}

/// Row groups and tokens of the tiles tried: sets differ in registers and in the delay of a product.
const TILES: [(usize, usize); 5] = [(4, 6), (4, 4), (2, 4), (1, 6), (1, 4)];

struct Peak {
    rounds: usize,
    tile: (usize, usize),
    /// Whether every step has the operands of the first, which then stay in registers.
    held: bool,
}

/// Blocks that each row group of a tile walks in a round.
const STEPS: usize = 48;

impl Peak {
    #[inline(always)]
    fn tile<I: Isa, const G: usize, const C: usize>(&self, isa: I) {
        match self.held {
            true => self.steps::<I, G, C, true>(isa),
            false => self.steps::<I, G, C, false>(isa),
        }
    }

    #[inline(always)]
    fn steps<I: Isa, const G: usize, const C: usize, const HELD: bool>(&self, isa: I) {
        // Products of 1 with 1, -1, 1, -1 leave every sum at zero however long it runs.
        let codes: [[Block; G]; STEPS] = black_box([[[1; 64]; G]; STEPS]);
        let quads: [[[i8; 4]; C]; STEPS] = black_box([[[1, -1, 1, -1]; C]; STEPS]);
        let mut sums = [[isa.sums(); C]; G];
        for _ in 0..self.rounds {
            let mut start = 0;
            while start < STEPS {
                let end = start.saturating_add(I::DOTS).min(STEPS);
                // Nobody may find that a round is like the one before.
                let (codes, quads) = (black_box(&codes), black_box(&quads));
                let mut part = [[isa.part(); C]; G];
                for step in start..end {
                    // Sets whose product is several instructions would do but one of them anew with the same operands.
                    let step = if HELD && I::DOTS == usize::MAX { 0 } else { step };
                    let mut bytes = [isa.load(&codes[step][0]); G];
                    for g in 1..G {
                        bytes[g] = isa.load(&codes[step][g]);
                    }
                    for c in 0..C {
                        for g in 0..G {
                            part[g][c] = isa.dot(part[g][c], bytes[g], quads[step][c]);
                        }
                    }
                }
                for c in 0..C {
                    for g in 0..G {
                        sums[g][c] = isa.widen(sums[g][c], part[g][c]);
                    }
                }
                start = end;
            }
        }
        for c in 0..C {
            for g in 0..G {
                black_box(isa.store(sums[g][c]));
            }
        }
    }
}

impl Kernel for Peak {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        match self.tile {
            (4, 6) => self.tile::<I, 4, 6>(isa),
            (4, 4) => self.tile::<I, 4, 4>(isa),
            (2, 4) => self.tile::<I, 2, 4>(isa),
            (1, 6) => self.tile::<I, 1, 6>(isa),
            _ => self.tile::<I, 1, 4>(isa),
        }
    }
}

/// The ternary product of a few rows of activations with a matrix so small that it stays in the cache of a thread.
#[derive(Debug)]
pub struct Cached {
    matrix: Ternary,
    x: Activations,
}

impl Cached {
    /// Bytes of the matrix: in the second cache of a core of these days, with room for activations.
    const BYTES: usize = 256 << 10;

    /// A matrix of this packing and width.
    pub fn new(packing: Packing, cols: usize, tokens: usize) -> Self {
        let alone = Pool::new(1);
        let groups = (Self::BYTES / packing.group_len(cols)).clamp(1, 64);
        // Four row groups are worked on at once.
        let rows = ROWS * if groups > 4 { groups / 4 * 4 } else { groups };
        let trit = |row: usize, col: usize| ((row * 7 + col * 5) % 3) as i8 - 1;
        let matrix = Ternary::pack(packing, rows, cols, Scales::One(1.0), &alone, |row, out| {
            out.iter_mut().enumerate().for_each(|(col, out)| *out = trit(row, col));
            Ok::<(), ()>(())
        });
        let mut x = Activations::default();
        let values: Vec<f32> = (0..tokens * cols).map(|i| (i * 37 % 255) as f32 - 127.0).collect();
        x.quantise(Cpu::best(), &alone, &values, cols, None).expect("these numbers are finite");
        Self { matrix: matrix.expect("trits that are counted out"), x }
    }

    /// Multiply-adds a second on all threads, every one of which does the whole product by itself: no thread waits for
    /// another.
    pub fn products(&self, cpu: Cpu, pool: &Pool) -> f64 {
        let (rows, tokens) = (self.matrix.rows(), self.x.rows());
        let rounds = rate(pool, |rounds| {
            let alone = Pool::new(1);
            let (mut x, mut out) = (self.x.clone(), vec![0.0; tokens * rows]);
            for _ in 0..rounds {
                self.matrix.matmul(cpu, &alone, &mut x, &mut out);
            }
            black_box(out);
        });
        rounds * (rows * self.matrix.cols() * tokens * pool.threads()) as f64
    }
}

// WebAssembly by itself has neither threads nor a clock.
#[cfg(all(test, not(target_family = "wasm")))]
mod tests {
    use super::*;

    #[test]
    fn the_peak_of_tiles_is_that_of_sets_that_take_them() {
        let pool = Pool::new(2);
        for cpu in Cpu::with_tiles() {
            // An emulated product takes microseconds.
            let peak = dot_peak(cpu, &pool, LEAST_TILED);
            assert!(peak > 1e5 && peak < 1e16, "{}: {peak} products/s", cpu.name());
        }
    }

    #[test]
    fn every_probe_measures_something_on_every_set() {
        let pool = Pool::new(2);
        let region = Region::new(8 << 20, &pool);
        assert_eq!(region.len(), 8 << 20);
        for cpu in Cpu::available() {
            let read = region.read(cpu, &pool);
            assert!(read > 1e6 && read < 1e14, "{}: {read} bytes/s", cpu.name());
            let peak = dot_peak(cpu, &pool, 1);
            assert!(peak > 1e6 && peak < 1e16, "{}: {peak} products/s", cpu.name());
            for packing in Packing::ALL {
                for tokens in [1, 3] {
                    let cached = Cached::new(packing, 640, tokens).products(cpu, &pool);
                    // The same products with unpacking and sums on top; some slack for a busy machine.
                    assert!(cached > 1e5 && cached < peak * 2.0, "{}: {cached} of {peak}", cpu.name());
                }
            }
        }
    }
}
