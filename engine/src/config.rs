//! What a model is: the numbers and choices of its architecture. Nothing here is guessed; `family` reads it all from
//! the file.

use tern_kernels::{Activation, Heads, KvFormat, MAX_HEAD_DIM};

use crate::rope::Rope;

mod graph;
mod scheme;

pub use self::graph::{Graph, Pooling, Sliding};
pub use self::scheme::{Inlet, Scheme};

/// The architecture of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The family it was read as.
    pub family: &'static str,
    /// Width of the residual stream.
    pub dim: usize,
    /// Width of the feed-forward layer.
    pub hidden: usize,
    /// Number of blocks.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; each serves `heads / kv_heads` query heads.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Rows of the embedding.
    pub vocab: usize,
    /// Most positions the model was made for.
    pub context: usize,
    /// Epsilon of every RMSNorm.
    pub norm_eps: f32,
    /// Between gate and up.
    pub activation: Activation,
    /// Whether there is a norm before the output projection and one before the down projection.
    pub sub_norms: bool,
    /// Rotary positions.
    pub rope: Rope,
    /// Where its graph differs from Llama's besides.
    pub graph: Graph,
    /// How a text becomes one vector: of an embedding model, which writes no text.
    pub pooling: Option<Pooling>,
}

impl Config {
    /// Says which number cannot be. Keys are those of Hugging Face's `config.json`, the field's common tongue.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let sizes = [
            ("hidden_size", self.dim, 1 << 20),
            ("intermediate_size", self.hidden, 1 << 22),
            ("num_hidden_layers", self.layers, 1 << 12),
            ("num_attention_heads", self.heads, 1 << 14),
            ("num_key_value_heads", self.kv_heads, 1 << 14),
            ("head_dim", self.head_dim, MAX_HEAD_DIM),
            ("vocab_size", self.vocab, 1 << 24),
            ("max_position_embeddings", self.context, 1 << 24),
        ];
        for (key, value, most) in sizes {
            if value == 0 || value > most {
                return Err((key, format!("{value}: expected 1 to {most}")));
            }
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            let what = format!("{}: expected a divisor of the {} query heads", self.kv_heads, self.heads);
            return Err(("num_key_value_heads", what));
        }
        if !self.head_dim.is_multiple_of(2) {
            return Err(("head_dim", format!("{}: expected an even number", self.head_dim)));
        }
        if !(self.norm_eps > 0.0 && self.norm_eps < 1.0) {
            return Err(("rms_norm_eps", format!("{}: expected a number between 0 and 1", self.norm_eps)));
        }
        self.rope.check(self.head_dim)?;
        self.graph.check(self.layers, self.head_dim)
    }

    /// Width of all query heads together.
    pub fn q_dim(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all key (or value) heads together.
    pub fn kv_dim(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Numbers in an input of these projections.
    pub fn width(&self, inlet: Inlet) -> usize {
        match inlet {
            Inlet::Qkv | Inlet::GateUp => self.dim,
            Inlet::O => self.q_dim(),
            Inlet::Down => self.hidden,
        }
    }

    /// Bytes of key-value cache for one position.
    pub fn kv_bytes(&self, format: KvFormat) -> usize {
        self.layers * self.kv_heads * format.bytes(self.head_dim)
    }

    /// The heads of its attention.
    pub(crate) fn attention_heads(&self) -> Heads {
        Heads { query: self.heads, kv: self.kv_heads, dim: self.head_dim, pairing: self.rope.pairing }
    }
}
