//! What share of a model's ternary parameters takes part in a token: those that meet a zero change nothing. It is counted as the
//! paper of BitNet a4.8 counts it: a zero of a projection's input leaves out a column; where the gate gives zero, the row of
//! up is left out besides, whatever its input.

mod count;

use tern_kernels::{Activation, Activations};

use crate::config::{Config, Inlet};
use crate::family::PROJECTIONS;

/// Sums over tokens and blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// Tokens that were read.
    pub tokens: u64,
    /// Parameters that took part and all there are, for each of [`PROJECTIONS`].
    counts: [(u64, u64); 7],
}

impl Activity {
    /// The share of each projection's parameters that took part in a token, by its canonical name.
    pub fn shares(&self) -> [(&'static str, f64); 7] {
        std::array::from_fn(|nth| (PROJECTIONS[nth].0, share(self.counts[nth])))
    }

    /// The share of all ternary parameters.
    pub fn share(&self) -> f64 {
        share(self.counts.iter().fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1)))
    }

    /// Adds rows of an input; `gate` is what that projection gave for these rows, of [`Inlet::GateUp`].
    pub(crate) fn add(&mut self, inlet: Inlet, config: &Config, input: &Activations, gate: &[f32]) {
        let Config { dim, hidden, activation, .. } = *config;
        let (q_dim, kv_dim) = (config.q_dim(), config.kv_dim());
        for row in 0..input.rows() {
            let (live, all) = (input.cols() - input.zeros(row), input.cols());
            let mut add = |nth: usize, rows: usize, of: usize| {
                self.counts[nth].0 += (rows * live) as u64;
                self.counts[nth].1 += (of * all) as u64;
            };
            match inlet {
                Inlet::Qkv => [q_dim, kv_dim, kv_dim]
                    .into_iter()
                    .enumerate()
                    .for_each(|(nth, rows)| add(nth, rows, rows)),
                Inlet::O => add(3, dim, dim),
                Inlet::GateUp => {
                    let opens = |gate: &&f32| match activation {
                        Activation::Relu2 => **gate > 0.0,
                        Activation::Silu | Activation::GeluTanh => **gate != 0.0,
                    };
                    let open = gate[row * hidden..][..hidden].iter().filter(opens).count();
                    add(4, hidden, hidden);
                    add(5, open, hidden);
                }
                Inlet::Down => add(6, dim, dim),
            }
        }
    }
}

fn share((part, all): (u64, u64)) -> f64 {
    part as f64 / all.max(1) as f64
}
