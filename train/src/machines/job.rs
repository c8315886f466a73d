//! What a worker must know to compute a batch: the shape of the model and of its batches. And a number by which two machines
//! know that they compute alike.

use serde::{Deserialize, Serialize};
use tern::{Config, Graph, KvFormat, Pairing, Rope, Scheme};
use tern_kernels::Activation;

use crate::corpus::Sequences;
use crate::network::Network;
use crate::ops::Machine;
use crate::ops::loss::NONE;
use crate::ops::quantiser::Quantiser;
use crate::ops::rope::Angles;
use crate::params::Layout;
use crate::random::{Random, hash};
use crate::stages::Stages;
use crate::step;

/// Most tokens of a batch, as a configuration's.
const MAX_ROWS: usize = 1 << 16;
/// Most parameters: 64 GB of them.
const MAX_PARAMS: u128 = 1 << 34;

/// The shape of a model and of its batches. Floats travel as their bits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Job {
    dim: usize,
    hidden: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    vocab: usize,
    norm_eps: u32,
    activation: String,
    sub_norms: bool,
    tied: bool,
    /// By what a position turns each pair of a head.
    frequencies: Vec<u32>,
    magnitude: u32,
    scales: String,
    group: usize,
    length: usize,
    sequences: usize,
    recompute: bool,
    /// The scheme of activations at the end, and the steps in eight bits before.
    activations: String,
    a8_steps: u64,
    /// The cache that keys and values are rounded for, as `--kv` names it.
    kv: String,
}

const ACTIVATIONS: [(&str, Activation); 3] =
    [("relu2", Activation::Relu2), ("silu", Activation::Silu), ("gelu", Activation::GeluTanh)];

impl Job {
    /// Of a run.
    pub(crate) fn new(
        config: &Config,
        stages: Stages,
        layout: &Layout,
        run: &crate::config::Run,
    ) -> crate::Result<Self> {
        if !config.is_llama() {
            let what = format!(
                "a {} model: workers know Llama's graph only; train it without `--listen`",
                config.family
            );
            return Err(crate::Error::Input(what));
        }
        let quantiser = run.quantiser()?;
        let (scales, group) = match quantiser {
            Quantiser::Float => ("none", 0),
            Quantiser::Matrix => ("matrix", 0),
            Quantiser::Row => ("row", 0),
            Quantiser::Group(size) => ("group", size),
        };
        let activation = ACTIVATIONS.iter().find(|(_, found)| *found == config.activation);
        Ok(Self {
            dim: config.dim,
            hidden: config.hidden,
            layers: config.layers,
            heads: config.heads,
            kv_heads: config.kv_heads,
            head_dim: config.head_dim,
            vocab: config.vocab,
            norm_eps: config.norm_eps.to_bits(),
            activation: activation.map_or("", |(name, _)| *name).to_owned(),
            sub_norms: config.sub_norms,
            tied: layout.head == layout.embedding,
            frequencies: config.rope.frequencies(config.head_dim).into_iter().map(f32::to_bits).collect(),
            magnitude: config.rope.magnitude().to_bits(),
            scales: scales.to_owned(),
            group,
            length: run.length,
            sequences: run.sequences,
            recompute: run.recompute,
            activations: stages.last.name().to_owned(),
            a8_steps: stages.before,
            kv: stages.kv.to_string(),
        })
    }

    /// How activations are rounded as the run goes.
    pub(crate) fn stages(&self) -> Result<Stages, String> {
        let last = Scheme::from_name(&self.activations);
        let last = last.ok_or_else(|| format!("activations of `{}`", self.activations))?;
        let kv = KvFormat::from_name(&self.kv).ok_or_else(|| format!("keys and values of `{}`", self.kv))?;
        Ok(Stages { last, kv, before: self.a8_steps, growing: 0 })
    }

    /// Checks every number, then makes room: the network and how many parameters it has.
    pub(crate) fn network(&self) -> Result<(Network, usize), String> {
        let activation = ACTIVATIONS.iter().find(|(name, _)| *name == self.activation);
        let quantiser = match (self.scales.as_str(), self.group) {
            ("none", 0) => Quantiser::Float,
            ("matrix", 0) => Quantiser::Matrix,
            ("row", 0) => Quantiser::Row,
            ("group", size @ (32 | 64 | 128 | 256)) => Quantiser::Group(size),
            (other, group) => return Err(format!("scales `{other}` of {group}")),
        };
        let config = Config {
            family: "",
            dim: self.dim,
            hidden: self.hidden,
            layers: self.layers,
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            vocab: self.vocab,
            context: self.length,
            norm_eps: f32::from_bits(self.norm_eps),
            activation: activation.ok_or_else(|| format!("the activation `{}`", self.activation))?.1,
            sub_norms: self.sub_norms,
            // The frequencies are given.
            rope: Rope::new(10_000.0, Pairing::Halves),
            graph: Graph { scheme: self.stages()?.last, ..Graph::default() },
            pooling: None,
        };
        config.check().map_err(|(key, what)| format!("{key}: {what}"))?;
        let rows = self.length.checked_mul(self.sequences);
        if rows.is_none_or(|rows| rows == 0 || rows > MAX_ROWS) {
            return Err(format!("{} sequences of {} tokens", self.sequences, self.length));
        }
        if self.frequencies.len() != self.head_dim / 2 {
            return Err(format!("{} frequencies of heads of {}", self.frequencies.len(), self.head_dim));
        }
        if let Quantiser::Group(size) = quantiser
            && [config.dim, config.q_dim(), config.hidden].iter().any(|width| !width.is_multiple_of(size))
        {
            return Err(format!("groups of {size}, which do not divide the widths"));
        }
        let wide = |a: usize, b: usize| a as u128 * b as u128;
        let (dim, hidden) = (config.dim, config.hidden);
        let matrices = 2 * wide(config.q_dim(), dim) + 2 * wide(config.kv_dim(), dim) + 3 * wide(hidden, dim);
        let params = config.layers as u128 * matrices + 2 * wide(config.vocab, dim);
        if params > MAX_PARAMS {
            return Err(format!("{params} parameters: expected at most {MAX_PARAMS}"));
        }
        let layout = Layout::new(&config, self.tied);
        let frequencies: Vec<f32> = self.frequencies.iter().map(|bits| f32::from_bits(*bits)).collect();
        let magnitude = f32::from_bits(self.magnitude);
        let angles = Angles::turned(&frequencies, magnitude, Pairing::Halves, self.length);
        Ok((Network::new(&config, &layout, angles, quantiser, self.recompute), layout.len))
    }

    /// A small one, to compute something with.
    pub(crate) fn small(scales: &str, activation: &str, sub_norms: bool) -> Self {
        let rope = Rope::new(10_000.0, Pairing::Halves);
        Self {
            dim: 64,
            hidden: 96,
            layers: 2,
            heads: 4,
            kv_heads: 2,
            head_dim: 16,
            vocab: 67,
            norm_eps: 1e-5f32.to_bits(),
            activation: activation.to_owned(),
            sub_norms,
            tied: sub_norms,
            frequencies: rope.frequencies(16).into_iter().map(f32::to_bits).collect(),
            magnitude: 1f32.to_bits(),
            scales: scales.to_owned(),
            group: if scales == "group" { 32 } else { 0 },
            length: 24,
            sequences: 2,
            recompute: false,
            activations: Scheme::A8.name().to_owned(),
            a8_steps: 0,
            kv: KvFormat::F32.to_string(),
        }
    }

    /// Numbers for its parameters, and a batch. They come from a counter without the help of a logarithm, which may
    /// differ between systems.
    pub(crate) fn numbers(&self, params: usize, seed: u64) -> (Vec<f32>, Sequences) {
        let mut random = Random::new(seed, 7);
        let params: Vec<f32> = (0..params).map(|_| random.unit() as f32 - 0.5).collect();
        let vocab = self.vocab as u32;
        let tokens: Vec<u32> = (0..self.rows()).map(|_| random.below(self.vocab as u64) as u32).collect();
        let targets = tokens.iter().map(|token| (token * 5 + 1) % vocab).collect();
        let starts = (0..self.rows()).map(|row| if row % self.length < 9 { 0 } else { 9 }).collect();
        (params, Sequences { tokens, targets, starts, ..Default::default() })
    }

    /// Tokens of a batch.
    pub(crate) fn rows(&self) -> usize {
        self.length * self.sequences
    }

    /// What is wrong with a batch of this job.
    pub(crate) fn check(&self, batch: &Sequences) -> Result<(), String> {
        let Sequences { tokens, targets, starts, .. } = batch;
        let vocab = self.vocab as u32;
        if let Some(token) = tokens.iter().find(|token| **token >= vocab) {
            return Err(format!("token {token} of a vocabulary of {vocab}"));
        }
        if let Some(target) = targets.iter().find(|target| **target >= vocab && **target != NONE) {
            return Err(format!("target {target} of a vocabulary of {vocab}"));
        }
        for starts in starts.chunks(self.length) {
            let is_later = starts.iter().enumerate().any(|(at, start)| *start as usize > at);
            if is_later || starts.windows(2).any(|pair| pair[0] > pair[1]) {
                return Err("documents that do not begin in order".to_owned());
            }
        }
        Ok(())
    }
}

/// A number that is the same on machines that compute the same bits: of the gradients of small models, ternary, with
/// activations in four bits, and with scales by group. Instruction sets that fuse multiplication and addition have another than those that do not, and so may
/// systems whose mathematical functions differ.
pub(crate) fn arithmetic(on: Machine) -> u64 {
    let mut sum = 0;
    let with =
        |scheme: Scheme| Job { activations: scheme.name().to_owned(), ..Job::small("matrix", "relu2", true) };
    let jobs = [with(Scheme::A8), Job::small("group", "silu", false), with(Scheme::A48), with(Scheme::V2A4)];
    for job in jobs {
        let (mut network, params) = job.network().expect("a shape that can be");
        let (params, batch) = job.numbers(params, 7);
        let (mut losses, mut gradient) = (Vec::new(), Vec::new());
        network.prepare(on, &params).expect("finite numbers");
        let loss =
            step::batch(&mut network, on, &params, &batch, 1.0 / 48.0, None, &mut losses, &mut gradient);
        sum = hash(sum, &loss.expect("finite numbers").cross.to_le_bytes());
        for value in gradient {
            sum = hash(sum, &value.to_bits().to_le_bytes());
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use tern_kernels::{Cpu, Pool};

    #[test]
    fn a_job_that_cannot_be_is_refused_before_room_is_made() {
        let good = serde_json::to_value(Job::small("matrix", "relu2", true)).unwrap();
        let job = |value: &serde_json::Value| serde_json::from_value::<Job>(value.clone()).unwrap();
        assert!(job(&good).network().is_ok());
        for (key, value, wanted) in [
            ("dim", serde_json::json!(0), "hidden_size: 0"),
            ("layers", 1_000_000_000u64.into(), "num_hidden_layers"),
            ("heads", 3.into(), "num_key_value_heads"),
            ("vocab", (1 << 24).into(), ""),
            ("length", 1_000_000.into(), "2 sequences of 1000000"),
            ("sequences", u64::MAX.into(), "sequences of 24"),
            ("frequencies", serde_json::json!([]), "0 frequencies"),
            ("scales", "column".into(), "scales `column`"),
            ("group", 7.into(), "scales `matrix` of 7"),
            ("activation", "tanh".into(), "the activation `tanh`"),
            ("activations", "a3".into(), "activations of `a3`"),
            ("kv", "q5".into(), "keys and values of `q5`"),
        ] {
            let mut bad = good.clone();
            bad[key] = value;
            if wanted.is_empty() {
                // The largest of all that may be: with the widest stream it is too much.
                (bad["dim"], bad["hidden"], bad["layers"]) =
                    ((1 << 20).into(), (1 << 22).into(), 4096.into());
            }
            let error = job(&bad).network().unwrap_err();
            let wanted = if wanted.is_empty() { "parameters: expected at most" } else { wanted };
            assert!(error.contains(wanted), "{key}: {error}");
        }
    }

    #[test]
    fn a_batch_is_checked_before_it_is_computed() {
        let job = Job { vocab: 5, length: 2, ..Job::small("matrix", "relu2", true) };
        let batch = |tokens: [u32; 4], targets: [u32; 4], starts: [u32; 4]| Sequences {
            tokens: tokens.to_vec(),
            targets: targets.to_vec(),
            starts: starts.to_vec(),
            ..Default::default()
        };
        assert!(job.check(&batch([0, 4, 1, 2], [NONE, 4, 0, 0], [0, 1, 0, 0])).is_ok());
        for (bad, wanted) in [
            (batch([0, 5, 1, 2], [0; 4], [0; 4]), "token 5"),
            (batch([0; 4], [0, 9, 0, 0], [0; 4]), "target 9"),
            (batch([0; 4], [0; 4], [1, 1, 0, 0]), "in order"),
            (batch([0; 4], [0; 4], [0, 0, 0, 2]), "in order"),
        ] {
            assert!(job.check(&bad).unwrap_err().contains(wanted));
        }
    }

    #[test]
    fn the_number_is_one_for_all_instruction_sets_but_the_one_that_fuses() {
        let (one, three) = (Pool::new(1), Pool::new(3));
        let known = arithmetic(Machine { cpu: Cpu::available()[0], pool: &one });
        for cpu in Cpu::available() {
            let found = arithmetic(Machine { cpu, pool: &three });
            assert_eq!(found, arithmetic(Machine { cpu, pool: &one }), "{}", cpu.name());
            // `kernels/src/dense.rs` says why.
            let fuses = ["avx512", "amx"].contains(&cpu.name());
            assert_eq!(found == known, !fuses, "{}", cpu.name());
        }
    }
}
