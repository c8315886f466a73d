//! How fast the ternary product is, for every instruction set, packing and number of tokens: billions of multiply-adds
//! a second, the best of many runs.
//!
//! `cargo run --release -p tern-kernels --example products [THREADS] [NAME]` (a set's name, to see one only)

mod trits;

use std::time::{Duration, Instant};

use tern_kernels::{Activations, Cpu, Packing, Pool, Scales, Ternary};

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let threads = args.get(1).map_or(1, |n| n.parse().expect("a number of threads"));
    let pool = Pool::new(threads);
    let (rows, cols) = (6912, 2560);
    for cpu in Cpu::available().into_iter().filter(|cpu| args.get(2).is_none_or(|name| cpu.name() == name)) {
        for packing in Packing::ALL {
            // 200 matrices (0.8 GB) are far larger than any cache; a small one stays in it.
            let many: Vec<Ternary> =
                (0..200).map(|_| trits::matrix(packing, rows, cols, Scales::One(0.02), &pool)).collect();
            let small = trits::matrix(packing, 1024, cols, Scales::One(0.02), &pool);
            print!("{:>8} {}", cpu.name(), packing.name());
            for (label, matrices, tokens) in [
                ("memory, 1 token", &many[..], 1),
                ("cache, 1", std::slice::from_ref(&small), 1),
                ("cache, 2", std::slice::from_ref(&small), 2),
                ("cache, 4", std::slice::from_ref(&small), 4),
                ("cache, 8", std::slice::from_ref(&small), 8),
                ("cache, 16", std::slice::from_ref(&small), 16),
                ("memory, 4", &many[..], 4),
                ("memory, 16", &many[..], 16),
                ("cache, 256", std::slice::from_ref(&small), 256),
                ("memory, 256", &many[..1], 256),
            ] {
                print!("   {label}: {:.1}", speed(cpu, &pool, matrices, tokens));
            }
            println!();
        }
    }
}

fn speed(cpu: Cpu, pool: &Pool, matrices: &[Ternary], tokens: usize) -> f64 {
    let (rows, cols) = (matrices[0].rows(), matrices[0].cols());
    let values: Vec<f32> = (0..cols * tokens).map(|i| (i * 7919 % 1013) as f32 - 506.0).collect();
    let mut x = Activations::default();
    x.quantise(cpu, pool, &values, cols, None).expect("finite");
    let mut out = vec![0.0; rows * tokens];
    let (mut best, start) = (f64::MAX, Instant::now());
    while start.elapsed() < Duration::from_millis(250) {
        let one = Instant::now();
        matrices.iter().for_each(|matrix| matrix.matmul(cpu, pool, &mut x, &mut out));
        best = best.min(one.elapsed().as_secs_f64());
    }
    (rows * cols * tokens * matrices.len()) as f64 / best / 1e9
}
