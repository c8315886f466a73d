//! How fast products are with a scale for a matrix, a row, or groups of columns, and with activations by token or by group:
//! billions of multiply-adds a second, in turns, the best of the rounds, and each as a share of one scale for the matrix. One
//! thread is measured by its time on a core where the system tells it, so that other programs disturb little.
//!
//! `cargo run --release -p tern-kernels --example groups [THREADS] [NAME] [ROUNDS]` (a set's name, to see one only)

mod trits;

use std::time::Instant;

use tern_kernels::{Activations, Cpu, Packing, Pool, Rounding, Scales, Ternary};

const ROWS: usize = 6144;
const COLS: usize = 4096;
/// 150 MB at two bits a weight: larger than any cache.
const MATRICES: usize = 24;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let threads = args.get(1).map_or(1, |n| n.parse().expect("a number of threads"));
    let rounds = args.get(3).map_or(5, |n| n.parse().expect("a number of rounds"));
    let pool = Pool::new(threads);
    let sizes = [0, COLS, 256, 128, 64, 32];
    for cpu in Cpu::available().into_iter().filter(|cpu| args.get(2).is_none_or(|name| cpu.name() == name)) {
        for packing in Packing::ALL {
            // Without a group: the matrix, its row, the groups; then groups of 128 with activations by group.
            let all: Vec<Vec<Ternary>> = sizes
                .iter()
                .map(|size| (0..MATRICES).map(|_| matrix(packing, *size, &pool)).collect())
                .collect();
            for (label, tokens, count) in [("1 token", 1, MATRICES), ("256 tokens", 256, 1)] {
                let mut best = vec![0f64; sizes.len() + 2];
                for _ in 0..rounds {
                    for (nth, best) in best.iter_mut().enumerate() {
                        let (rounding, which) = match nth {
                            6 => (Rounding::Group, 3),
                            7 => (Rounding::Group, 0),
                            nth => (Rounding::Token, nth),
                        };
                        *best = best.max(speed(cpu, &pool, rounding, &all[which][..count], tokens));
                    }
                }
                print!("{:>8} {} {label:>10}:", cpu.name(), packing.name());
                let names = ["matrix", "row", "256", "128", "64", "32", "128 by group", "matrix by group"];
                for (name, speed) in names.into_iter().zip(&best) {
                    print!("  {name} {speed:.1} ({:.0} %)", 100.0 * speed / best[0]);
                }
                println!();
            }
        }
    }
}

fn matrix(packing: Packing, size: usize, pool: &Pool) -> Ternary {
    let scales = match size {
        0 => Scales::One(0.0625),
        size => Scales::Groups {
            size,
            values: (0..ROWS * COLS / size).map(|i| (i % 61) as f32 / 1024.0).collect(),
        },
    };
    trits::matrix(packing, ROWS, COLS, scales, pool)
}

fn speed(cpu: Cpu, pool: &Pool, rounding: Rounding, matrices: &[Ternary], tokens: usize) -> f64 {
    let values: Vec<f32> = (0..COLS * tokens).map(|i| (i * 7919 % 1013) as f32 - 506.0).collect();
    let mut x = Activations::default();
    x.set(rounding, cpu, pool, &values, COLS, None).expect("finite");
    let mut out = vec![0.0; ROWS * tokens];
    let (start, on_core) = (Instant::now(), on_core());
    matrices.iter().for_each(|matrix| matrix.matmul(cpu, pool, &mut x, &mut out));
    let seconds = match (on_core, self::on_core()) {
        (Some(before), Some(after)) if pool.threads() == 1 => (after - before) as f64 / 1e9,
        _ => start.elapsed().as_secs_f64(),
    };
    (ROWS * COLS * tokens * matrices.len()) as f64 / seconds / 1e9
}

/// Nanoseconds that this thread was on a core.
fn on_core() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split_whitespace().next()?.parse().ok()
}
