//! A [`Config`] out of GGUF metadata. Keys are prefixed by the architecture.

mod keys;
mod rope;

use super::hf::{has_input_norms, parse_activation};
use super::{FAMILIES, Family, known_gguf};
use crate::config::{Config, Graph, Pooling, Sliding};
use crate::error::{Error, Result, quoted};
use crate::file::File;
use crate::file::gguf::Pairs;
use crate::keys::ACTIVATIONS;
use crate::rope::{Pairing, Rope, Scaling};

pub(crate) use self::rope::DIVISORS;
pub(super) use self::rope::{LONG, SHORT};

pub(super) fn detect(file: &File, pairs: &Pairs) -> Result<(&'static Family, Config, bool, Vec<String>)> {
    const ARCHITECTURE: &str = "general.architecture";
    let missing = |key: &str| Error::key(&file.path, key, "missing, and nothing stands in for it");
    let architecture = pairs.str(ARCHITECTURE)?.ok_or_else(|| missing(ARCHITECTURE))?;
    let family =
        FAMILIES.iter().find(|family| family.gguf.contains(&architecture)).copied().ok_or_else(|| {
            let what = format!("expected one of {}, found `{}`", known_gguf(), quoted(architecture));
            Error::key(&file.path, ARCHITECTURE, what)
        })?;
    keys::check(pairs, architecture)?;
    let key = |name: &str| format!("{architecture}.{name}");
    let size = |name: &str| -> Result<Option<usize>> { Ok(pairs.u32(&key(name))?.map(|n| n as usize)) };
    let needed = |name: &str| size(name)?.ok_or_else(|| missing(&key(name)));
    let (dim, heads) = (needed("embedding_length")?, needed("attention.head_count")?);
    let head_dim = size("attention.key_length")?.unwrap_or(dim.checked_div(heads).unwrap_or(0));
    for name in ["attention.value_length", "rope.dimension_count"] {
        if let Some(found) = size(name)?.filter(|found| *found != head_dim) {
            let what = format!("expected {head_dim}, the width of a head, found {found}");
            return Err(Error::key(&file.path, &key(name), what));
        }
    }
    let embedding = file.tensor("token_embd.weight");
    let vocab = match (size("vocab_size")?, embedding) {
        (Some(vocab), _) => vocab,
        (None, Some(embedding)) if embedding.dims.len() == 2 => embedding.dims[0],
        _ => return Err(missing(&key("vocab_size"))),
    };
    let (base, eps) = ("rope.freq_base", "attention.layer_norm_rms_epsilon");
    let named = key("hidden_act");
    let act = pairs.str(&named)?.unwrap_or(family.gguf_act);
    let rope = Rope {
        // The container's own default, for architectures whose converters leave the key out at that value.
        base: pairs.f32(&key(base))?.unwrap_or(10_000.0),
        pairing: if family.permuted { Pairing::Neighbours } else { Pairing::Halves },
        scaling: rope::scaling(file, pairs, &key("rope.scaling"), size("context_length")?)?,
    };
    let mut config = Config {
        family: family.name,
        dim,
        hidden: needed("feed_forward_length")?,
        layers: needed("block_count")?,
        heads,
        kv_heads: size("attention.head_count_kv")?.unwrap_or(heads),
        head_dim,
        vocab,
        context: needed("context_length")?,
        norm_eps: pairs.f32(&key(eps))?.ok_or_else(|| missing(&key(eps)))?,
        activation: parse_activation(act).ok_or_else(|| {
            let what = format!("expected `relu2`, `silu` or `gelu_pytorch_tanh`, found `{}`", quoted(act));
            Error::key(&file.path, &named, what)
        })?,
        sub_norms: family.sub_norms.is_some(),
        graph: graph(file, pairs, family, architecture, &rope)?,
        pooling: pooling(file, pairs, family, architecture)?,
        rope,
    };
    if let (Scaling::Long { .. }, Some(original)) =
        (&config.rope.scaling, size("rope.scaling.original_context_length")?)
    {
        // Beyond it, all positions would turn otherwise.
        config.context = config.context.min(original);
    }
    let masters = family.masters || config.graph.input_norms;
    let warnings = lost_yarn(file, pairs, architecture, &config)?.into_iter().collect();
    Ok((family, config, masters, warnings))
}

/// Where the graph differs from Llama's.
fn graph(file: &File, pairs: &Pairs, family: &Family, architecture: &str, rope: &Rope) -> Result<Graph> {
    let key = |name: &str| format!("{architecture}.{name}");
    let missing = |name: &str| Error::key(&file.path, &key(name), "missing, and nothing stands in for it");
    let needed = |name: &str| pairs.u32(&key(name))?.ok_or_else(|| missing(name));
    let mut graph = family.graph(needed("embedding_length")? as usize);
    graph.input_norms = family.embeds && has_input_norms(file);
    let scheme = family.scheme(pairs.str(ACTIVATIONS)?);
    graph.scheme = scheme.map_err(|what| Error::key(&file.path, ACTIVATIONS, what))?;
    if family.gguf == ["minicpm"] {
        let scale = |name: &str| pairs.f32(&key(name))?.ok_or_else(|| missing(name));
        graph.embedding_scale = scale("embedding_scale")?;
        graph.residual_scale = scale("residual_scale")?;
        graph.logit_scale = scale("logit_scale")?;
    }
    let window = pairs.u32(&key("attention.sliding_window"))?.filter(|window| *window > 0);
    // Mistral's and Qwen's own GGUFs have no word for windows; students' do.
    if let Some(window) = window.filter(|_| family.gemma || (family.windows && family.sub_norms.is_some())) {
        let layers = needed("block_count")? as usize;
        let kinds = match pairs.bools(&key("attention.sliding_window_pattern"))? {
            Some(kinds) => kinds,
            // What Gemma3's files without the key mean: every sixth layer sees all.
            None => (0..layers).map(|layer| !(layer + 1).is_multiple_of(6)).collect(),
        };
        let base = pairs.f32(&key("rope.freq_base_swa"))?.unwrap_or(10_000.0);
        let scaling = if family.gemma { Scaling::None } else { rope.scaling.clone() };
        let rope = Rope { base, scaling, ..rope.clone() };
        graph.sliding = Some(Sliding { window: window as usize, layers: kinds, rope });
    }
    Ok(graph)
}

/// How the vectors of an embedding model are made. The published converter writes "mean" where it does not know better,
/// and models with norms in front of their projections were trained with the last token's.
fn pooling(file: &File, pairs: &Pairs, family: &Family, architecture: &str) -> Result<Option<Pooling>> {
    let key = format!("{architecture}.pooling_type");
    let found = pairs.u32(&key)?;
    if family.embeds && has_input_norms(file) && found.is_none_or(|found| [0, 1, 3].contains(&found)) {
        return Ok(Some(Pooling::Last));
    }
    match found {
        None | Some(0) => Ok(None),
        Some(1) => Ok(Some(Pooling::Mean)),
        Some(2) => Ok(Some(Pooling::Cls)),
        Some(3) => Ok(Some(Pooling::Last)),
        Some(other) => {
            Err(pairs.error(&key, format!("expected 0 to 3 (none, mean, cls, last), found {other}")))
        }
    }
}

/// The YaRN keys that some copies of Bonsai have lost: all of its models read further than they were trained.
fn lost_yarn(file: &File, pairs: &Pairs, architecture: &str, config: &Config) -> Result<Option<String>> {
    let name = pairs.str("general.name")?.unwrap_or_default().to_lowercase();
    let stem = file.path.file_stem().unwrap_or_default().to_string_lossy().to_lowercase();
    let bonsai = name.contains("bonsai") || stem.contains("bonsai");
    let lost =
        architecture == "qwen3" && bonsai && config.context > 16_384 && config.rope.scaling == Scaling::None;
    Ok(lost.then(|| {
        format!(
            "{}: key `{architecture}.rope.scaling.type` is missing: Bonsai reads its context of {} by YaRN, and this copy has \
             lost the keys that say so; long texts will come out worse, another copy of the model may have them",
            file.path.display(),
            config.context
        )
    }))
}
