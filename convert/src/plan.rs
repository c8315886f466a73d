//! What goes where: each tensor of the model, its name and encoding in the output, and the order of its rows.

use crate::keys::{activation_name, hf_family};
use crate::options::{ConvertOptions, Engine, Floats, Target};
use tern::codec;
use tern::family::{self, Detected, FAMILIES, Family, PROJECTIONS};
use tern::file::{File, Metadata};
use tern::{Config, Encoding, Error, Result, Scaling, Tensor};

/// One tensor of the output.
#[derive(Debug)]
pub(crate) struct Item<'a> {
    /// Where it comes from.
    pub(crate) tensor: &'a Tensor,
    /// Its name in the output.
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) order: Order,
    /// The input has the numbers less 1, as Hugging Face stores Gemma's norms.
    pub(crate) less_one: bool,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// A ternary matrix.
    Trits(Encoding),
    /// The scale of the ternary matrix before it, where that is a tensor of its own.
    Scale,
    /// Numbers.
    Floats(Encoding),
}

impl Item<'_> {
    pub(crate) fn encoding(&self) -> Encoding {
        match self.kind {
            Kind::Trits(encoding) | Kind::Floats(encoding) => encoding,
            Kind::Scale => Encoding::F32,
        }
    }

    /// Whether floats become trits here.
    pub(crate) fn is_float(&self) -> bool {
        matches!(self.kind, Kind::Trits(_)) && !self.tensor.encoding.is_ternary()
    }
}

/// How the rows of q and k are permuted. Rotary positions turn pairs of a head's elements: GGUFs of architecture
/// `llama` keep the two of a pair side by side, everything else half a head apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Same,
    /// From halves to neighbours.
    Interleave {
        head_dim: usize,
    },
    /// From neighbours to halves.
    Separate {
        head_dim: usize,
    },
}

impl Order {
    /// The row of the input that becomes row `row` of the output.
    pub(crate) fn source(self, row: usize) -> usize {
        match self {
            Self::Same => row,
            Self::Interleave { head_dim } => {
                let (head, at) = (row / head_dim, row % head_dim);
                head * head_dim + at / 2 + at % 2 * (head_dim / 2)
            }
            Self::Separate { head_dim } => {
                let (head, at) = (row / head_dim, row % head_dim);
                let half = head_dim / 2;
                head * head_dim + at % half * 2 + at / half
            }
        }
    }
}

/// The family whose GGUF architecture fits a model: the architecture implies the activation. llama.cpp has but one for
/// models with sub-norms, and reads their activation in a key.
pub(crate) fn gguf_family(detected: &Detected, engine: Option<Engine>) -> &'static Family {
    if engine == Some(Engine::LlamaCpp) && detected.config.sub_norms {
        let bitnet = FAMILIES.iter().find(|family| family.gguf.contains(&"bitnet"));
        return bitnet.copied().unwrap_or(detected.family);
    }
    let act = activation_name(detected.config.activation);
    let Config { sub_norms, ref graph, .. } = detected.config;
    let fits = |family: &&Family| {
        let is_graph = family.sub_norms.is_some() == sub_norms && family.schemes.contains(&graph.scheme);
        is_graph && family.gguf_act == act
    };
    if fits(&detected.family) {
        return detected.family;
    }
    FAMILIES.iter().copied().find(fits).unwrap_or(detected.family)
}

/// A tensor with which a program computes something else than the model does, and why.
pub(crate) fn other_graph(
    file: &File,
    detected: &Detected,
    engine: Option<Engine>,
) -> Option<(String, String)> {
    let Config { dim, sub_norms, .. } = detected.config;
    if engine != Some(Engine::LlamaCpp) || !sub_norms {
        return None;
    }
    if detected.own_head(file).is_some() {
        let head = detected.name(HEAD);
        let what = "numbers of its own, and llama.cpp takes the embedding for the output head of a `bitnet`";
        return Some((head, what.to_owned()));
    }
    let q_dim = detected.config.q_dim();
    (q_dim != dim).then(|| {
        let what = format!("{q_dim} rows, and llama.cpp wants {dim} of a `bitnet`, as wide as the model");
        (detected.name("blk.0.attn_q.weight"), what)
    })
}

/// The tensors of a GGUF that a Hugging Face directory has as keys: LongRoPE's factors.
pub(crate) fn factors(file: &File, detected: &Detected, to: Target) -> Vec<Tensor> {
    let Scaling::Long { short, long, .. } = &detected.config.rope.scaling else { return Vec::new() };
    if to == Target::Hf || matches!(file.metadata, Metadata::Gguf(_)) {
        return Vec::new();
    }
    let tensor = |name: &str, factors: &[f32]| {
        let bytes: Vec<u8> = factors.iter().flat_map(|factor| factor.to_le_bytes()).collect();
        Tensor::new(name, [factors.len()], Encoding::F32, bytes)
    };
    let both = [tensor(SHORT, short), tensor(LONG, long)];
    both.into_iter().filter(|tensor| !tensor.bytes.is_empty()).collect()
}

/// Every tensor that the output holds; `factors` are those of [`factors`].
pub(crate) fn items<'a>(
    file: &'a File,
    factors: &'a [Tensor],
    detected: &Detected,
    options: &ConvertOptions,
) -> Result<Vec<Item<'a>>> {
    let config = &detected.config;
    let from_gguf = matches!(file.metadata, Metadata::Gguf(_));
    let to_gguf = options.to != Target::Hf;
    let permuted_in = from_gguf && detected.family.permuted;
    let permuted_out = to_gguf && gguf_family(detected, options.engine()).permuted;
    let head_dim = config.head_dim;
    let order = match (permuted_in, permuted_out) {
        (false, true) => Order::Interleave { head_dim },
        (true, false) => Order::Separate { head_dim },
        _ => Order::Same,
    };
    let mut plan = Plan { file, detected, options, items: Vec::new() };
    let has_head = detected.own_head(file).is_some();
    for Part { name, dims, role } in parts(config, has_head || adds_head(file, detected, options)) {
        match role {
            Role::Head if !has_head => plan.ready_head(&name, &dims)?,
            Role::Embedding => plan.floats(&name, &dims, options.embedding)?,
            Role::Head => plan.floats(&name, &dims, options.head)?,
            // Every reader of GGUF wants norms in f32.
            Role::Norm => plan.floats(&name, &dims, if to_gguf { Floats::F32 } else { Floats::Keep })?,
            Role::Projection { rotates } => {
                plan.trits(&name, &dims, if rotates { order } else { Order::Same })?
            }
        }
    }
    // What frequencies are divided by lies in tensors of a GGUF.
    for tensor in file.tensors().iter().filter(|tensor| to_gguf && from_gguf && is_factor(&tensor.name)) {
        plan.floats(&tensor.name, &tensor.dims, Floats::F32)?;
    }
    let kind = Kind::Floats(Encoding::F32);
    plan.items.extend(factors.iter().map(|tensor| Item {
        tensor,
        name: tensor.name.clone(),
        kind,
        order: Order::Same,
        less_one: false,
    }));
    Ok(plan.items)
}

/// Whether the embedding is written once more, as the head that the engine makes of it.
pub(crate) fn adds_head(file: &File, detected: &Detected, options: &ConvertOptions) -> bool {
    let tied = detected.own_head(file).is_none() && detected.config.pooling.is_none();
    tied && options.head == Floats::Int8 && options.embedding != Floats::Int8
}

/// LongRoPE's factors within the first context, and beyond it.
const SHORT: &str = "rope_factors_short.weight";
const LONG: &str = "rope_factors_long.weight";

/// Whether a GGUF's tensor holds what frequencies are divided by.
fn is_factor(name: &str) -> bool {
    ["rope_freqs.weight", SHORT, LONG].contains(&name)
}

/// The canonical name of the output head.
const HEAD: &str = "output.weight";

/// What a tensor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Embedding,
    Head,
    Norm,
    /// A ternary matrix; q and k `rotate`.
    Projection {
        rotates: bool,
    },
}

/// One tensor that a model must have.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// Canonical.
    pub(crate) name: String,
    pub(crate) dims: Vec<usize>,
    pub(crate) role: Role,
}

/// All tensors of a model, in the order in which they are written.
pub(crate) fn parts(config: &Config, has_head: bool) -> Vec<Part> {
    let Config { dim, hidden, vocab, head_dim, ref graph, .. } = *config;
    let (q_dim, kv_dim) = (config.q_dim(), config.kv_dim());
    let part = |name: &str, dims: &[usize], role| Part { name: name.to_owned(), dims: dims.to_vec(), role };
    let mut parts = vec![part("token_embd.weight", &[vocab, dim], Role::Embedding)];
    for layer in 0..config.layers {
        let mut push = |module: &str, dims: &[usize], role| {
            parts.push(part(&format!("blk.{layer}.{module}"), dims, role));
        };
        push("attn_norm.weight", &[dim], Role::Norm);
        for (module, _) in PROJECTIONS {
            let dims = match module {
                "attn_q" => [q_dim, dim],
                "attn_k" | "attn_v" => [kv_dim, dim],
                "attn_output" => [dim, q_dim],
                "ffn_down" => [dim, hidden],
                _ => [hidden, dim],
            };
            let rotates = matches!(module, "attn_q" | "attn_k");
            push(&format!("{module}.weight"), &dims, Role::Projection { rotates });
            if graph.biases && (rotates || module == "attn_v") {
                push(&format!("{module}.bias"), &dims[..1], Role::Norm);
            }
            if graph.input_norms {
                push(&format!("{module}_norm_in.weight"), &dims[1..], Role::Norm);
            }
        }
        push("ffn_norm.weight", &[dim], Role::Norm);
        let more = [
            (config.sub_norms, "attn_sub_norm", q_dim),
            (config.sub_norms, "ffn_sub_norm", hidden),
            (graph.head_norms, "attn_q_norm", head_dim),
            (graph.head_norms, "attn_k_norm", head_dim),
            (graph.post_norms, "post_attention_norm", dim),
            (graph.post_norms, "post_ffw_norm", dim),
        ];
        for (_, module, len) in more.into_iter().filter(|(is, ..)| *is) {
            push(&format!("{module}.weight"), &[len], Role::Norm);
        }
    }
    parts.push(part("output_norm.weight", &[dim], Role::Norm));
    if has_head {
        parts.push(part(HEAD, &[vocab, dim], Role::Head));
    }
    parts
}

struct Plan<'a, 'p> {
    file: &'a File,
    detected: &'p Detected,
    options: &'p ConvertOptions,
    items: Vec<Item<'a>>,
}

impl<'a> Plan<'a, '_> {
    fn tensor(&self, canonical: &str, dims: &[usize]) -> Result<&'a Tensor> {
        let name = self.detected.name(canonical);
        let wrong = |what: String| Error::tensor(&self.file.path, &name, what);
        let tensor =
            self.file.tensor(&name).ok_or_else(|| wrong("missing; the model is not whole".into()))?;
        if tensor.dims != dims {
            return Err(wrong(format!(
                "expected dimensions {dims:?} by the configuration, found {:?}",
                tensor.dims
            )));
        }
        // An encoding that cannot be read says so itself.
        let mut row = vec![0.0; tensor.cols()];
        codec::floats(tensor, 0, &mut row).map_err(wrong)?;
        tensor.bytes.release();
        Ok(tensor)
    }

    /// The name in the output.
    fn name(&self, canonical: &str) -> String {
        match self.options.to {
            Target::Hf => family::hf_name(hf_family(self.detected), "model.", canonical),
            _ => canonical.to_owned(),
        }
    }

    fn floats(&mut self, canonical: &str, dims: &[usize], wanted: Floats) -> Result<()> {
        let tensor = self.tensor(canonical, dims)?;
        let less_one = dims.len() == 1 && self.detected.less_one(canonical);
        let wrong = |what: String| Err(Error::tensor(&self.file.path, &tensor.name, what));
        let fits = || self.options.to.encoding().bytes(dims).is_some();
        let keeps = self.options.to.keeps_ternary() && wanted.encoding().is_none() && fits();
        if keeps && codec::is_ternary(tensor) {
            return self.trits(canonical, dims, Order::Same);
        }
        if wanted == Floats::Int8 && codec::is_ternary(tensor) {
            return wrong("holds trits, which are used as they are; choose keep".to_owned());
        }
        let holds = |encoding: &Encoding| match self.options.to {
            Target::I2 | Target::T5 => encoding.gguf_type().is_some(),
            _ if *encoding == Encoding::H8 => false,
            Target::Hf => matches!(encoding, Encoding::F32 | Encoding::F16 | Encoding::Bf16),
            _ => encoding.gguf_type().is_some(),
        };
        let encoding = match wanted.encoding() {
            Some(encoding) if !holds(&encoding) => {
                return wrong(match self.options.to {
                    Target::Hf => format!(
                        "a Hugging Face checkpoint cannot hold {encoding}; choose keep, f32, f16 or bf16"
                    ),
                    to => format!("{} has no int8 head; choose keep, or `--to i2` or t5", to.name()),
                });
            }
            Some(encoding) => encoding,
            // PyTorch on a CPU adds and multiplies f32 and bf16, and not f16 with either.
            None if self.options.to == Target::Hf && tensor.encoding == Encoding::F16 => Encoding::F32,
            None => Some(tensor.encoding).filter(holds).unwrap_or(Encoding::F32),
        };
        let item = Item {
            tensor,
            name: self.name(canonical),
            kind: Kind::Floats(encoding),
            order: Order::Same,
            less_one,
        };
        self.items.push(item);
        Ok(())
    }

    /// The head that the engine makes of the embedding.
    fn ready_head(&mut self, name: &str, dims: &[usize]) -> Result<()> {
        self.floats("token_embd.weight", dims, Floats::Int8)?;
        if let Some(item) = self.items.last_mut() {
            item.name = name.to_owned();
        }
        Ok(())
    }

    fn trits(&mut self, canonical: &str, dims: &[usize], order: Order) -> Result<()> {
        let tensor = self.tensor(canonical, dims)?;
        let name = self.name(canonical);
        let scale = format!("{name}_scale");
        let kind = Kind::Trits(self.options.to.encoding());
        self.items.push(Item { tensor, name, kind, order, less_one: false });
        if self.options.to == Target::Hf {
            let (kind, order) = (Kind::Scale, Order::Same);
            self.items.push(Item { tensor, name: scale, kind, order, less_one: false });
        }
        Ok(())
    }
}

/// Why an encoding cannot hold a matrix of this shape, and what can.
pub(crate) fn misfit(encoding: Encoding, rows: usize, cols: usize) -> String {
    match encoding {
        Encoding::I2S => {
            format!(
                "I2_S needs a multiple of 128 weights, this has {rows} x {cols}; `--to i2` holds any shape"
            )
        }
        Encoding::Tq1_0 | Encoding::Tq2_0 => {
            format!(
                "{encoding} needs a multiple of 256 columns, this has {cols}; for bitnet.cpp and ik_llama.cpp `--to i2s` \
                 needs 128 weights in all, for Tern `--to i2` holds any shape"
            )
        }
        Encoding::Q2_0 | Encoding::Pq2_0 => {
            let weights = if encoding == Encoding::Q2_0 { 64 } else { 128 };
            format!(
                "{encoding} needs a multiple of {weights} columns, this has {cols}; `--to i2` holds any shape"
            )
        }
        Encoding::Packed => {
            format!(
                "a packed checkpoint needs a multiple of 4 rows, this has {rows}; `--to i2` holds any shape"
            )
        }
        Encoding::Q8_0 => format!("Q8_0 needs a multiple of 32 columns, this has {cols}; choose f16"),
        _ => format!("{encoding} cannot hold {rows} x {cols}"),
    }
}

#[cfg(test)]
mod tests {
    use super::Order;

    #[test]
    fn orders_are_inverse_and_stay_inside_heads() {
        for head_dim in [2, 4, 64, 100] {
            let (there, back) = (Order::Interleave { head_dim }, Order::Separate { head_dim });
            for row in 0..3 * head_dim {
                assert_eq!(there.source(back.source(row)), row);
                assert_eq!(there.source(row) / head_dim, row / head_dim);
            }
        }
        let rows: Vec<_> = (0..8).map(|row| Order::Interleave { head_dim: 4 }.source(row)).collect();
        assert_eq!(rows, [0, 2, 1, 3, 4, 6, 5, 7]);
    }
}
