//! How long attention takes in the shape of BitNet 2B4T (20 query heads on 5 of keys and values, 128 wide), for every way of keeping
//! keys and values: the layers of a prompt in pieces of 256, and those of one token after it, medians in ms and the least.
//!
//! `cargo run --release -p tern-kernels --example attention [THREADS] [DEPTH] [ROUNDS] [FORMAT,..] [prompt|token|both] [SET]`

use std::time::Instant;

use tern_kernels::{Attention, Cache, Cpu, Heads, KvFormat, Pairing, Place, Pool, Random, Rows};

const HEADS: Heads = Heads { query: 20, kv: 5, dim: 128, pairing: Pairing::Halves };
/// Tokens of a piece of a prompt.
const PIECE: usize = 256;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let number =
        |at: usize, otherwise: usize| args.get(at).map_or(otherwise, |n| n.parse().expect("a number"));
    let (threads, depth, rounds) = (number(1, 1), number(2, 2048), number(3, 5));
    let all = KvFormat::ALL.map(|format| format.to_string()).join(",");
    let formats = args.get(4).unwrap_or(&all);
    let what = args.get(5).map_or("both", String::as_str);
    let cpu = match args.get(6) {
        Some(name) => Cpu::by_name(name).expect("a set of this CPU"),
        None => Cpu::best(),
    };
    let pool = Pool::new(threads);
    println!(
        "{} on {threads} threads, {depth} positions: ms for a layer of the prompt, for one of a token",
        cpu.name()
    );
    let formats: Vec<KvFormat> =
        formats.split(',').map(|name| KvFormat::from_name(name).expect("a format")).collect();
    let mut times = vec![(Vec::new(), Vec::new()); formats.len()];
    for _ in 0..rounds {
        for (format, (prompt, token)) in formats.iter().zip(&mut times) {
            if what != "token" {
                prompt.push(one_prompt(cpu, &pool, *format, depth));
            }
            if what != "prompt" {
                token.push(one_token(cpu, &pool, *format, depth));
            }
        }
    }
    for (format, (prompt, token)) in formats.iter().zip(&mut times) {
        println!(
            "{:>8} {:8.2} ({:.2}) {:8.4} ({:.4})",
            format.to_string(),
            median(prompt),
            prompt.first().unwrap_or(&f64::NAN),
            median(token),
            token.first().unwrap_or(&f64::NAN)
        );
    }
}

/// One layer's caches and rows.
struct Layers<'a> {
    cpu: Cpu,
    pool: &'a Pool,
    format: KvFormat,
    attention: Attention,
    cache: [Cache; 1],
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    angles: Vec<f32>,
    out: Vec<f32>,
}

impl<'a> Layers<'a> {
    fn new(cpu: Cpu, pool: &'a Pool, format: KvFormat, layers: usize, positions: usize) -> Self {
        let mut cache = Cache::new(format, layers, HEADS.kv, HEADS.dim);
        cache.reserve(0, positions).expect("memory for a cache");
        let mut random = Random(7);
        let mut floats = |n: usize| -> Vec<f32> { (0..n).map(|_| 4.0 * random.unit() - 2.0).collect() };
        let (q, kv) = (PIECE * HEADS.query * HEADS.dim, PIECE * HEADS.kv * HEADS.dim);
        let turn = |i: usize| if i % HEADS.dim < HEADS.dim / 2 { 0.8 } else { 0.6 };
        Self {
            cpu,
            pool,
            format,
            attention: Attention::default(),
            cache: [cache],
            queries: floats(q),
            keys: floats(kv),
            values: floats(kv),
            angles: (0..PIECE * HEADS.dim).map(turn).collect(),
            out: vec![0.0; q],
        }
    }

    /// Milliseconds that these rows take in one layer.
    fn step(&mut self, layer: usize, start: usize, count: usize, window: usize) -> f64 {
        let (q, kv) = (count * HEADS.query * HEADS.dim, count * HEADS.kv * HEADS.dim);
        let places = (start..start + count).map(|position| Place { sequence: 0, position });
        self.attention.plan(HEADS, self.format, self.pool.threads(), places);
        let mut queries = self.queries[..q].to_vec();
        let rows = Rows {
            q: &mut queries,
            k: &self.keys[..kv],
            v: &self.values[..kv],
            angles: &self.angles[..count * HEADS.dim],
            out: &mut self.out[..q],
            window,
        };
        let clock = Instant::now();
        self.attention.run(self.cpu, self.pool, layer, rows, &mut self.cache).expect("finite keys");
        1e3 * clock.elapsed().as_secs_f64()
    }

    fn pieces(&mut self, layer: usize, depth: usize, window: usize) -> f64 {
        (0..depth).step_by(PIECE).map(|start| self.step(layer, start, PIECE.min(depth - start), window)).sum()
    }
}

fn one_prompt(cpu: Cpu, pool: &Pool, format: KvFormat, depth: usize) -> f64 {
    Layers::new(cpu, pool, format, 1, depth).pieces(0, depth, usize::MAX)
}

fn one_token(cpu: Cpu, pool: &Pool, format: KvFormat, depth: usize) -> f64 {
    /// So many that one token's keys and values come from memory.
    const LAYERS: usize = 30;
    const TOKENS: usize = 8;
    let mut layers = Layers::new(cpu, pool, format, LAYERS, depth + TOKENS);
    for layer in 0..LAYERS {
        // What is kept is the same with a window of one position, and sooner done.
        layers.pieces(layer, depth, 1);
    }
    let mut step = |token: usize| -> f64 {
        (0..LAYERS).map(|layer| layers.step(layer, depth + token, 1, usize::MAX)).sum::<f64>() / LAYERS as f64
    };
    median(&mut (0..TOKENS).map(&mut step).collect::<Vec<f64>>())
}

/// NaN of nothing.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
