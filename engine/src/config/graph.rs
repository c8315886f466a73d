//! Where the graph of a family differs from Llama's: each knob changes a line of the forward pass.

use super::Scheme;
use crate::rope::Rope;

/// The knobs; the default is Llama's graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Graph {
    /// Whether q, k and v have biases (Qwen2).
    pub biases: bool,
    /// Whether each head of q and k is normed before it is rotated (Qwen3, Gemma3).
    pub head_norms: bool,
    /// Whether each projection has a norm of its own in front (the BitNet embedding models).
    pub input_norms: bool,
    /// Whether what attention and feed-forward give is normed before it is added (Gemma3).
    pub post_norms: bool,
    /// What embedded tokens are multiplied by.
    pub embedding_scale: f32,
    /// What attention and feed-forward give is multiplied by before it is added.
    pub residual_scale: f32,
    /// What the last hidden state is divided by before the head.
    pub logit_scale: f32,
    /// What a query is multiplied by besides `1 / sqrt(head_dim)`.
    pub query_scale: f32,
    /// The layers that see the last positions only.
    pub sliding: Option<Sliding>,
    /// How the inputs of projections are rounded.
    pub scheme: Scheme,
}

impl Default for Graph {
    fn default() -> Self {
        Self {
            biases: false,
            head_norms: false,
            input_norms: false,
            post_norms: false,
            embedding_scale: 1.0,
            residual_scale: 1.0,
            logit_scale: 1.0,
            query_scale: 1.0,
            sliding: None,
            scheme: Scheme::A8,
        }
    }
}

/// Layers with a sliding window.
#[derive(Clone, Debug, PartialEq)]
pub struct Sliding {
    /// How many positions they see, the present one included.
    pub window: usize,
    /// For each layer whether it is one.
    pub layers: Vec<bool>,
    /// Their rotary positions.
    pub rope: Rope,
}

/// How the hidden states of a text become one vector, in llama.cpp's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// That of the last token.
    Last,
    /// Their mean.
    Mean,
    /// That of the first token.
    Cls,
}

impl Pooling {
    /// Every one.
    pub const ALL: [Pooling; 3] = [Pooling::Last, Pooling::Mean, Pooling::Cls];

    /// The name used in options and listings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Last => "last",
            Self::Mean => "mean",
            Self::Cls => "cls",
        }
    }

    /// The one of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|pooling| pooling.name() == name)
    }
}

impl Graph {
    /// Says which number cannot be.
    pub(super) fn check(&self, layers: usize, head_dim: usize) -> Result<(), (&'static str, String)> {
        let scales = [
            ("scale_emb", self.embedding_scale),
            ("scale_depth", self.residual_scale),
            ("dim_model_base", self.logit_scale),
            ("query_pre_attn_scalar", self.query_scale),
        ];
        for (key, scale) in scales {
            if !(scale > 0.0 && scale <= 1e6) {
                return Err((key, format!("gives a factor of {scale}: expected one above 0, up to 1000000")));
            }
        }
        if self.query_scale != 1.0 && !self.head_norms {
            return Err(("query_pre_attn_scalar", "stands in a model without norms of its heads".to_owned()));
        }
        let Some(sliding) = &self.sliding else { return Ok(()) };
        if sliding.window == 0 || sliding.window > 1 << 24 {
            return Err(("sliding_window", format!("{}: expected 1 to {}", sliding.window, 1 << 24)));
        }
        if sliding.layers.len() != layers {
            let what = format!("{} kinds for {layers} layers", sliding.layers.len());
            return Err(("layer_types", what));
        }
        sliding.rope.check(head_dim)
    }
}
