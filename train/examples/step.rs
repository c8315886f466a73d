//! Tokens a second of whole training steps: forward, backward, clipping and AdamW, on random tokens.
//! `cargo run --release -p tern-train --example step [THREADS [STEPS [float]]]`; the model is 384 wide, 6 layers, FFN 1024,
//! 4096 tokens, 8 sequences of 256.

use std::time::Instant;

use tern::{Config, Pairing, Rope};
use tern_kernels::{Activation, Cpu, Pool};
use tern_train::network::{Batch, Gradients, Network};
use tern_train::ops::Machine;
use tern_train::ops::loss::RowLoss;
use tern_train::ops::quantiser::Quantiser;
use tern_train::ops::rope::Angles;
use tern_train::optimiser::{AdamW, Rates, squares};
use tern_train::params::Layout;
use tern_train::random::Random;

fn main() {
    let mut args = std::env::args().skip(1);
    let mut number = |default: usize| args.next().and_then(|n| n.parse().ok()).unwrap_or(default);
    let (threads, steps) = (number(2), number(10));
    let quantiser = match std::env::args().nth(3).as_deref() {
        None => Quantiser::Matrix,
        Some("group") => Quantiser::Group(128),
        Some(_) => Quantiser::Float,
    };
    let config = Config {
        family: "BitNet b1.58",
        dim: 384,
        hidden: 1024,
        layers: 6,
        heads: 6,
        kv_heads: 6,
        head_dim: 64,
        vocab: 4096,
        context: 256,
        norm_eps: 1e-5,
        activation: Activation::Relu2,
        sub_norms: true,
        rope: Rope { base: 10000.0, pairing: Pairing::Halves, scaling: Default::default() },
        graph: Default::default(),
        pooling: None,
    };
    let (sequences, positions) = (8, 256);
    let rows = sequences * positions;
    let layout = Layout::new(&config, true);
    let mut params = layout.initial(0.02, 1);
    let (mut grads, mut m, mut v) = (vec![0.0; layout.len], vec![0.0; layout.len], vec![0.0; layout.len]);
    let pool = Pool::new(threads);
    let on = Machine { cpu: Cpu::best(), pool: &pool };
    let angles = Angles::new(&config.rope, config.head_dim, positions);
    let mut network = Network::new(&config, &layout, angles, quantiser, false);
    let mut random = Random::new(1, 2);
    let tokens: Vec<u32> = (0..=rows).map(|_| random.below(4096) as u32).collect();
    let starts = vec![0; rows];
    let mut losses = vec![RowLoss::default(); rows];
    let adam = AdamW { beta1: 0.9, beta2: 0.95, eps: 1e-8 };
    println!("{} parameters, {threads} threads, {}", layout.len, on.cpu.name());
    let mut best = f64::MAX;
    for step in 1..=steps {
        let start = Instant::now();
        network.prepare(on, &params).unwrap();
        let prepared = start.elapsed();
        let batch = Batch { tokens: &tokens[..rows], targets: &tokens[1..], starts: &starts };
        let back = Gradients { values: &mut grads, factor: 1.0 / rows as f32, weights: None, lesson: None };
        network.run(on, &params, batch, &mut losses, Some(back)).expect("finite numbers");
        let ran = start.elapsed();
        let norm = squares(on, &grads).sqrt();
        let rates = Rates { rate: 1e-3, decay: 0.1, clip: (1.0 / norm).min(1.0) as f32, step: step as u64 };
        adam.step(on, rates, &mut params, &grads, &mut m, &mut v);
        let all = start.elapsed();
        best = best.min(all.as_secs_f64());
        let loss = losses.iter().map(|row| row.loss).sum::<f32>() / rows as f32;
        println!(
            "loss {loss:.4}, gradient {norm:.3}: prepare {:.1} ms, run {:.1}, step {:.1}; {:.0} tokens/s",
            prepared.as_secs_f64() * 1e3,
            (ran - prepared).as_secs_f64() * 1e3,
            (all - ran).as_secs_f64() * 1e3,
            rows as f64 / all.as_secs_f64()
        );
    }
    println!("best {:.0} tokens/s", rows as f64 / best);
}
