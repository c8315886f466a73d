//! Every trained number of a model, in one buffer of named slices; gradients and the optimiser's moments are buffers of the
//! same layout.

use std::ops::Range;

use tern::{Config, Graph};

use crate::error::{Error, Result};
use crate::ops::lora::Pair;
use crate::ops::quantiser::Quantiser;
use crate::random::Random;
use crate::rebuilt;

/// What a slice is, which decides how it is initialised and whether it decays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Embedding or output head.
    Embedding,
    /// A matrix of a block, ternary in the forward pass.
    Matrix,
    /// A norm's weight.
    Norm,
    /// A projection's bias.
    Bias,
    /// A norm's weight or a bias of a base beside which an adapter is trained: it stays as it is.
    Frozen,
    /// One of an adapter's two matrices.
    Adapter,
}

/// One named slice.
#[derive(Clone, Debug)]
pub struct Slice {
    /// The canonical (GGUF) name: `blk.0.attn_q.weight`.
    pub name: String,
    /// Outputs; 1 for a norm and a bias.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// Where it lies.
    pub range: Range<usize>,
    /// What it is.
    pub kind: Kind,
}

impl Slice {
    /// Its name in a model of which these layers are taken.
    fn name_in(&self, layers: &[usize]) -> String {
        let mut parts = self.name.splitn(3, '.');
        match (parts.next(), parts.next().and_then(|layer| layer.parse::<usize>().ok()), parts.next()) {
            (Some("blk"), Some(layer), Some(rest)) => format!("blk.{}.{rest}", layers[layer]),
            _ => self.name.clone(),
        }
    }
}

/// Slices of one block.
#[derive(Clone, Debug)]
pub struct Block {
    /// `(dim)`.
    pub attn_norm: Range<usize>,
    /// `(q_dim, dim)`.
    pub q: Range<usize>,
    /// `(kv_dim, dim)`.
    pub k: Range<usize>,
    /// `(kv_dim, dim)`.
    pub v: Range<usize>,
    /// `(q_dim)`, `(kv_dim)` and `(kv_dim)`, if q, k and v have biases.
    pub biases: Option<[Range<usize>; 3]>,
    /// `(head_dim)` each, if the heads of q and k are normed.
    pub head_norms: Option<[Range<usize>; 2]>,
    /// `(q_dim)`, if the model has sub-norms.
    pub attn_sub_norm: Option<Range<usize>>,
    /// `(dim, q_dim)`.
    pub o: Range<usize>,
    /// `(dim)`, if what attention gives is normed.
    pub attn_post_norm: Option<Range<usize>>,
    /// `(dim)`.
    pub ffn_norm: Range<usize>,
    /// `(hidden, dim)`.
    pub gate: Range<usize>,
    /// `(hidden, dim)`.
    pub up: Range<usize>,
    /// `(hidden)`, if the model has sub-norms.
    pub ffn_sub_norm: Option<Range<usize>>,
    /// `(dim, hidden)`.
    pub down: Range<usize>,
    /// `(dim)`, if what the feed-forward layer gives is normed.
    pub ffn_post_norm: Option<Range<usize>>,
    /// Adapters beside the seven projections, in the order of their names in [`tern::family::PROJECTIONS`].
    pub adapters: [Option<Pair>; 7],
}

/// Where everything lies.
#[derive(Clone, Debug)]
pub struct Layout {
    /// In the order of the buffer.
    pub slices: Vec<Slice>,
    /// `(vocab, dim)`.
    pub embedding: Range<usize>,
    /// `(vocab, dim)`; the embedding itself where they are tied.
    pub head: Range<usize>,
    /// One of each layer.
    pub blocks: Vec<Block>,
    /// `(dim)`.
    pub norm: Range<usize>,
    /// Numbers in all.
    pub len: usize,
}

impl Layout {
    /// The layout of a model.
    pub fn new(config: &Config, tied: bool) -> Self {
        let mut slices = Vec::new();
        let mut len = 0;
        let mut add = |name: String, rows: usize, cols: usize, kind: Kind| {
            let range = len..len + rows * cols;
            len = range.end;
            slices.push(Slice { name, rows, cols, range: range.clone(), kind });
            range
        };
        let Config { dim, hidden, vocab, head_dim, .. } = *config;
        let Graph { biases, head_norms, post_norms, .. } = config.graph;
        let (q_dim, kv_dim) = (config.q_dim(), config.kv_dim());
        let embedding = add("token_embd.weight".into(), vocab, dim, Kind::Embedding);
        let blocks = (0..config.layers)
            .map(|layer| {
                let mut slice = |module: &str, rows, cols, kind| {
                    let what = if kind == Kind::Bias { "bias" } else { "weight" };
                    add(format!("blk.{layer}.{module}.{what}"), rows, cols, kind)
                };
                Block {
                    attn_norm: slice("attn_norm", 1, dim, Kind::Norm),
                    q: slice("attn_q", q_dim, dim, Kind::Matrix),
                    k: slice("attn_k", kv_dim, dim, Kind::Matrix),
                    v: slice("attn_v", kv_dim, dim, Kind::Matrix),
                    biases: biases.then(|| {
                        [("attn_q", q_dim), ("attn_k", kv_dim), ("attn_v", kv_dim)]
                            .map(|(module, len)| slice(module, 1, len, Kind::Bias))
                    }),
                    head_norms: head_norms.then(|| {
                        ["attn_q_norm", "attn_k_norm"].map(|module| slice(module, 1, head_dim, Kind::Norm))
                    }),
                    attn_sub_norm: config.sub_norms.then(|| slice("attn_sub_norm", 1, q_dim, Kind::Norm)),
                    o: slice("attn_output", dim, q_dim, Kind::Matrix),
                    attn_post_norm: post_norms.then(|| slice("post_attention_norm", 1, dim, Kind::Norm)),
                    ffn_norm: slice("ffn_norm", 1, dim, Kind::Norm),
                    gate: slice("ffn_gate", hidden, dim, Kind::Matrix),
                    up: slice("ffn_up", hidden, dim, Kind::Matrix),
                    ffn_sub_norm: config.sub_norms.then(|| slice("ffn_sub_norm", 1, hidden, Kind::Norm)),
                    down: slice("ffn_down", dim, hidden, Kind::Matrix),
                    ffn_post_norm: post_norms.then(|| slice("post_ffw_norm", 1, dim, Kind::Norm)),
                    adapters: Default::default(),
                }
            })
            .collect();
        let norm = add("output_norm.weight".into(), 1, dim, Kind::Norm);
        let head =
            if tied { embedding.clone() } else { add("output.weight".into(), vocab, dim, Kind::Embedding) };
        Self { slices, embedding, head, blocks, norm, len }
    }

    /// Fresh numbers: norms 1; matrices normal with deviation `std`, those that write to the residual stream smaller by
    /// the root of the number of such writes; the embedding normal with `std` too.
    pub fn initial(&self, std: f32, seed: u64) -> Vec<f32> {
        let mut values = vec![0f32; self.len];
        let writes = (2.0 * self.blocks.len() as f32).sqrt();
        for (nth, slice) in self.slices.iter().enumerate() {
            let out = &mut values[slice.range.clone()];
            let into_stream =
                slice.name.ends_with("attn_output.weight") || slice.name.ends_with("ffn_down.weight");
            let std = if into_stream { std / writes } else { std };
            match slice.kind {
                Kind::Norm => out.fill(1.0),
                Kind::Bias | Kind::Frozen | Kind::Adapter => {}
                Kind::Embedding | Kind::Matrix => Random::new(seed, nth as u64).normals(std, out),
            }
        }
        values
    }

    /// Numbers that steps change.
    pub fn trained(&self) -> usize {
        let trained = self.slices.iter().filter(|slice| slice.kind != Kind::Frozen);
        trained.map(|slice| slice.range.len()).sum()
    }

    /// The tensors in the engine's terms, to be written.
    pub fn masters<'a>(&self, values: &'a [f32]) -> Vec<tern_convert::masters::Master<'a>> {
        let dims = |slice: &Slice| match slice.kind {
            Kind::Norm | Kind::Bias => vec![slice.cols],
            _ => vec![slice.rows, slice.cols],
        };
        let master = |slice: &Slice| tern_convert::masters::Master {
            name: slice.name.clone(),
            dims: dims(slice),
            values: &values[slice.range.clone()],
        };
        self.slices.iter().map(master).collect()
    }

    /// The numbers of a model, and how many matrices had only their trits, of which masters were [made
    /// again](crate::rebuilt) for this quantiser.
    pub fn read(
        &self,
        from: &tern_convert::masters::Masters,
        quantiser: Quantiser,
    ) -> Result<(Vec<f32>, usize)> {
        self.read_layers(from, quantiser, &(0..self.blocks.len()).collect::<Vec<_>>())
    }

    /// The same of a model of which these layers become this one's, in their order. Sub-norms that it has not begin at 1.
    pub fn read_layers(
        &self,
        from: &tern_convert::masters::Masters,
        quantiser: Quantiser,
        layers: &[usize],
    ) -> Result<(Vec<f32>, usize)> {
        let (mut values, mut rebuilt, mut trits) = (vec![0f32; self.len], 0, Vec::new());
        for slice in &self.slices {
            let out = &mut values[slice.range.clone()];
            if slice.name.ends_with("_sub_norm.weight") && !from.config().sub_norms {
                out.fill(1.0);
                continue;
            }
            let name = slice.name_in(layers);
            if slice.kind == Kind::Matrix {
                trits.resize(out.len(), 0i8);
                if let Some(scales) = from.trits(&name, slice.rows, &mut trits)? {
                    rebuilt::matrix(&trits, &scales, slice.cols, quantiser, out)
                        .map_err(|what| Error::Input(format!("tensor {name}: {what}")))?;
                    rebuilt += 1;
                    continue;
                }
            }
            from.read(&name, slice.rows, out)?;
        }
        Ok((values, rebuilt))
    }
}
