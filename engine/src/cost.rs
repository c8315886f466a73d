//! What a step of a model costs: the bytes that must come from memory and the multiply-adds that must be done. Counted from
//! the shapes and the matrices as they lie in memory; nothing is measured here.

use crate::model::Model;
use crate::weights::{Layer, Output};

/// The parts of which every step is made up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// Bytes of packed trits in all layers.
    pub trits: u64,
    /// Bytes of their scales, and of the norms.
    pub scales: u64,
    /// Bytes of the whole output head. What a step reads of a screened one is measured ([`Scratch::head_reads`]).
    ///
    /// [`Scratch::head_reads`]: crate::Scratch::head_reads
    pub head: u64,
    /// Bytes of one embedded token.
    pub embedding: u64,
    /// Bytes of keys and values for one position.
    pub position: u64,
    /// Multiply-adds of the ternary products for one token.
    pub ternary_macs: u64,
    /// Multiply-adds of the head for one token.
    pub head_macs: u64,
    /// Multiply-adds of attention for one token and one position that it sees.
    pub position_macs: u64,
}

/// A step: several tokens that share one reading of the weights.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// Bytes that must be read at least.
    pub bytes: f64,
    /// Multiply-adds of the ternary products.
    pub ternary_macs: f64,
    /// All multiply-adds: ternary, head, attention.
    pub macs: f64,
}

impl Model {
    /// Bytes of memory that its weights take: all but the embedding, of which only the rows of tokens are read. Copies that may
    /// be made later ([`Zeros::Auto`](crate::Zeros::Auto)) are counted in.
    pub fn weight_bytes(&self) -> u64 {
        let cost = self.cost();
        let screened = match &self.weights.output {
            Output::Int8(head) => head.held_bytes(),
            Output::Stored(_) | Output::Ternary(_) | Output::None => cost.head,
        };
        cost.trits + cost.scales + screened + self.units.may_hold(&self.weights.layers)
    }

    /// What its steps cost.
    pub fn cost(&self) -> Cost {
        let config = &self.config;
        let layers = &self.weights.layers;
        let matrices = || layers.iter().flat_map(Layer::matrices);
        let norms = layers.iter().map(Layer::norm_len).sum::<usize>() + self.weights.norm.len();
        let head = match &self.weights.output {
            Output::Int8(head) => head.int8_bytes(),
            Output::Ternary(head) => (head.blocks().len() + head.scale_bytes()) as u64,
            Output::None => 0,
            Output::Stored(head) => head.as_ref().unwrap_or(&self.weights.embedding).bytes() as u64,
        };
        Cost {
            trits: matrices().map(|matrix| matrix.blocks().len() as u64).sum::<u64>()
                + layers.iter().map(|layer| layer.float_bytes() as u64).sum::<u64>(),
            scales: matrices().map(|matrix| matrix.scale_bytes() as u64).sum::<u64>() + 4 * norms as u64,
            head,
            embedding: (self.weights.embedding.bytes() / config.vocab) as u64,
            position: config.kv_bytes(self.kv()) as u64,
            ternary_macs: matrices().map(|matrix| matrix.rows() as u64 * matrix.cols() as u64).sum(),
            head_macs: config.vocab as u64 * config.dim as u64,
            position_macs: 2 * config.layers as u64 * config.q_dim() as u64,
        }
    }
}

impl Cost {
    /// One token for each of `sequences` texts, each of which has `depth` tokens before it: weights and head are read
    /// once for all, keys and values by everyone for himself. `head` is the bytes read of the head.
    pub fn decode(&self, sequences: usize, depth: f64, head: f64) -> Step {
        let tokens = sequences as f64;
        let seen = depth + 1.0;
        let shared = (self.trits + self.scales) as f64 + head;
        let ternary_macs = tokens * self.ternary_macs as f64;
        Step {
            bytes: shared + tokens * (self.embedding as f64 + seen * self.position as f64),
            ternary_macs,
            macs: ternary_macs + tokens * (self.head_macs as f64 + seen * self.position_macs as f64),
        }
    }

    /// A prompt of `tokens` after `depth` others, taken `chunk` tokens at a time: each chunk reads the weights once and
    /// the keys and values of all before its end once; the head is asked once, at the end, and reads `head` bytes.
    pub fn prefill(&self, tokens: usize, depth: usize, chunk: usize, head: f64) -> Step {
        let (mut bytes, mut seen, mut done) = (head, 0.0, 0);
        while done < tokens {
            let rows = chunk.clamp(1, tokens - done);
            done += rows;
            let end = (depth + done) as f64;
            bytes += (self.trits + self.scales) as f64 + end * self.position as f64;
            bytes += rows as f64 * self.embedding as f64;
            // Each row sees itself and all before it.
            seen += rows as f64 * (end - (rows as f64 - 1.0) / 2.0);
        }
        let ternary_macs = tokens as f64 * self.ternary_macs as f64;
        let macs = ternary_macs + self.head_macs as f64 + seen * self.position_macs as f64;
        Step { bytes, ternary_macs, macs }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Options;

    #[test]
    fn the_parts_are_those_of_the_built_in_model() {
        let options = Options { packing: Some(tern_kernels::Packing::I2), ..Options::default() };
        let model = Model::story(&options).unwrap();
        let (config, cost) = (model.config(), model.cost());
        let weights = config.layers
            * (config.dim * (2 * config.q_dim() + 2 * config.kv_dim()) + 3 * config.dim * config.hidden);
        assert_eq!(cost.ternary_macs, weights as u64);
        // I2 is a quarter of a byte for each weight, filled up to whole blocks.
        assert!(cost.trits >= weights as u64 / 4 && cost.trits < weights as u64 / 3, "{cost:?}");
        // A byte for each weight of the int8 head, filled up to whole pieces, and some for each row.
        assert!(cost.head >= cost.head_macs && cost.head < 3 * cost.head_macs, "{cost:?}");
        // The screen adds 3 bits a weight.
        assert!(model.weight_bytes() > cost.trits + cost.scales + cost.head * 11 / 8, "{cost:?}");
        assert_eq!(cost.position_macs, (config.layers * config.heads * config.head_dim * 2) as u64);
    }

    const COST: Cost = Cost {
        trits: 1000,
        scales: 100,
        head: 500,
        embedding: 10,
        position: 2,
        ternary_macs: 4000,
        head_macs: 700,
        position_macs: 3,
    };

    #[test]
    fn sequences_share_the_weights_and_nothing_else() {
        let alone = COST.decode(1, 9.0, 500.0);
        assert_eq!(alone.bytes, 1000.0 + 100.0 + 500.0 + 10.0 + 20.0);
        assert_eq!((alone.ternary_macs, alone.macs), (4000.0, 4000.0 + 700.0 + 30.0));
        let four = COST.decode(4, 9.0, 500.0);
        assert_eq!(four.bytes, 1600.0 + 4.0 * 30.0);
        assert_eq!(four.macs, 4.0 * alone.macs);
    }

    #[test]
    fn a_prompt_reads_the_weights_once_a_chunk() {
        // Chunks of 2, 2 and 1 tokens that end at positions 12, 14 and 15.
        let step = COST.prefill(5, 10, 2, 500.0);
        assert_eq!(step.bytes, 500.0 + 3.0 * 1100.0 + 5.0 * 10.0 + 2.0 * (12 + 14 + 15) as f64);
        assert_eq!(step.ternary_macs, 5.0 * 4000.0);
        assert_eq!(step.macs, 20000.0 + 700.0 + 3.0 * (11 + 12 + 13 + 14 + 15) as f64);
        assert_eq!(COST.prefill(1, 9, 256, 500.0).macs, COST.decode(1, 9.0, 500.0).macs);
    }
}
