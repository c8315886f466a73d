//! The shapes of real models, and three that nobody has trained.

use tern::{Config, Graph, Pairing, Pooling, Rope, Scaling, Scheme, Sliding, Yarn};
use tern_kernels::Activation;

/// The sizes of a model.
#[derive(Clone, Debug)]
pub struct Shape {
    /// The name used in options and messages.
    pub name: &'static str,
    /// Whether the embedding serves as the output head.
    pub tied: bool,
    /// Columns that share a scale; `None` where a matrix has one.
    pub group: Option<usize>,
    /// Whether the embedding, and the head with it, are ternary.
    pub ternary_embedding: bool,
    /// The sizes and choices.
    pub config: Config,
}

impl Shape {
    /// Every shape.
    pub fn all() -> Vec<Shape> {
        vec![
            // dim, hidden, layers, heads, kv_heads, vocab, context
            bitnet("tiny", [256, 768, 2, 4, 2, 512, 512]), // for tests and first tries
            bitnet("bitnet-2b-4t", [2560, 6912, 30, 20, 5, 128_256, 4096]),
            a48("bitnet-a4.8-2b", [2560, 6912, 30, 20, 5, 128_256, 4096]), // nobody's: the one above with fewer bits
            bitllm("bitnet-large", [1536, 4096, 24, 16, 16, 32_002, 2048]),
            bitllm("bitnet-3b", [3200, 8640, 26, 32, 32, 32_002, 2048]),
            llama("llama3-8b", [4096, 14_336, 32, 32, 8, 128_256, 8192]),
            falcon3("falcon3-10b", [3072, 23_040, 40, 12, 4, 131_072, 32_768]),
            // Llama-2 70B's blocks under Llama-3's vocabulary: 70.6 billion parameters, 68.5 of them ternary.
            llama("70b", [8192, 28_672, 80, 64, 8, 128_256, 8192]),
            // A Llama of our own design: 100.4 billion parameters, 97.8 of them ternary.
            llama("100b", [10_240, 28_672, 88, 80, 8, 128_256, 8192]),
            bonsai("bonsai-1.7b", [2048, 6144, 28, 16, 8, 151_936, 32_768], true),
            bonsai("bonsai-4b", [2560, 9728, 36, 32, 8, 151_936, 32_768], true),
            bonsai("bonsai-8b", [4096, 12_288, 36, 32, 8, 151_936, 65_536], false),
            bitcpm_llama("bitcpm-1b", [2048, 6144, 28, 16, 2, 73_448, 32_768]),
            bitcpm("bitcpm-8b", [4096, 16_384, 32, 32, 2, 73_448, 32_768]),
            vibevoice("vibevoice-1.5b-lm", [1536, 8960, 28, 12, 2, 151_936, 65_536]),
            embed_qwen("embed-0.6b", [1024, 3072, 28, 16, 8, 151_936, 32_768]),
            embed_gemma("embed-270m", [640, 2048, 18, 4, 1, 262_144, 32_768]),
        ]
    }

    /// The shape of this name.
    pub fn from_name(name: &str) -> Option<Shape> {
        Self::all().into_iter().find(|shape| shape.name == name)
    }
}

/// dim, hidden, layers, heads, kv_heads, vocab, context
type Sizes = [usize; 7];

fn bitnet(name: &'static str, sizes: Sizes) -> Shape {
    let [dim, hidden, layers, heads, kv_heads, vocab, context] = sizes;
    let config = Config {
        family: "BitNet b1.58",
        dim,
        hidden,
        layers,
        heads,
        kv_heads,
        head_dim: dim / heads,
        vocab,
        context,
        norm_eps: 1e-5,
        activation: Activation::Relu2,
        sub_norms: true,
        rope: Rope::new(500_000.0, Pairing::Halves),
        graph: Graph::default(),
        pooling: None,
    };
    Shape { name, tied: true, group: None, ternary_embedding: false, config }
}

fn a48(name: &'static str, sizes: Sizes) -> Shape {
    let mut shape = bitnet(name, sizes);
    shape.config.family = "BitNet a4.8";
    shape.config.graph.scheme = Scheme::A48;
    shape
}

fn bitllm(name: &'static str, sizes: Sizes) -> Shape {
    let mut shape = bitnet(name, sizes);
    shape.config.family = "1bitLLM BitNet b1.58";
    shape.config.activation = Activation::Silu;
    shape.config.rope.base = 10_000.0;
    shape
}

fn llama(name: &'static str, sizes: Sizes) -> Shape {
    let mut shape = bitnet(name, sizes);
    shape.tied = false;
    shape.config.family = "Llama";
    shape.config.activation = Activation::Silu;
    shape.config.sub_norms = false;
    shape
}

fn falcon3(name: &'static str, sizes: Sizes) -> Shape {
    let mut shape = llama(name, sizes);
    shape.config.norm_eps = 1e-6;
    shape.config.rope.base = 1_000_042.0;
    shape
}

/// Ternary-Bonsai: Qwen3, its context stretched four times; a scale for every 128 weights, the embedding's too.
fn bonsai(name: &'static str, sizes: Sizes, tied: bool) -> Shape {
    let mut shape = qwen3(name, sizes);
    (shape.tied, shape.group, shape.ternary_embedding) = (tied, Some(128), true);
    let yarn = Yarn {
        factor: 4.0,
        original: shape.config.context / 4,
        fast: 32.0,
        slow: 1.0,
        truncate: true,
        attention: 1.0 + 0.1 * 4f32.ln(),
    };
    shape.config.rope.scaling = Scaling::Yarn(yarn);
    shape
}

fn qwen3(name: &'static str, sizes: Sizes) -> Shape {
    let mut shape = llama(name, sizes);
    shape.tied = true;
    shape.config.family = "Qwen3";
    shape.config.head_dim = 128;
    shape.config.norm_eps = 1e-6;
    shape.config.rope.base = 1e6;
    shape.config.graph.head_norms = true;
    shape
}

/// BitCPM, published in blocks of 256; without LongRoPE's factors, which cost nothing and are tensors.
fn bitcpm(name: &'static str, sizes: Sizes) -> Shape {
    let mut shape = llama(name, sizes);
    shape.group = Some(256);
    shape.config.family = "MiniCPM";
    shape.config.norm_eps = 1e-6;
    shape.config.rope.base = 10_000.0;
    shape.config.graph.embedding_scale = 12.0;
    shape.config.graph.residual_scale = 1.4 / (shape.config.layers as f32).sqrt();
    shape.config.graph.logit_scale = 16.0;
    shape
}

/// BitCPM of a billion, a plain Llama. Widths and heads are those of its published file; the number of layers is inferred from the
/// size of a conversion, and nothing is known to confirm it.
fn bitcpm_llama(name: &'static str, sizes: Sizes) -> Shape {
    let mut shape = bitcpm(name, sizes);
    shape.config.family = "Llama";
    shape.config.graph = Graph::default();
    shape
}

/// The language model of VibeVoice-ASR-BitNet.
fn vibevoice(name: &'static str, sizes: Sizes) -> Shape {
    let mut shape = llama(name, sizes);
    shape.tied = true;
    shape.config.family = "Qwen2";
    shape.config.norm_eps = 1e-6;
    shape.config.rope.base = 1e6;
    shape.config.graph.biases = true;
    shape
}

/// The BitNet embedding model on Qwen3's backbone.
fn embed_qwen(name: &'static str, sizes: Sizes) -> Shape {
    let mut shape = qwen3(name, sizes);
    shape.config.graph.input_norms = true;
    shape.config.pooling = Some(Pooling::Last);
    shape
}

/// The one on Gemma 3's.
fn embed_gemma(name: &'static str, sizes: Sizes) -> Shape {
    let mut shape = embed_qwen(name, sizes);
    let config = &mut shape.config;
    config.family = "Gemma 3";
    config.head_dim = 256;
    config.activation = Activation::GeluTanh;
    config.rope.base = 1e6;
    config.graph.post_norms = true;
    config.graph.embedding_scale = (config.dim as f32).sqrt();
    let layers = (0..config.layers).map(|layer| !(layer + 1).is_multiple_of(6)).collect();
    config.graph.sliding = Some(Sliding { window: 512, layers, rope: Rope::new(10_000.0, Pairing::Halves) });
    shape
}
