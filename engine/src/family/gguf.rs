//! A [`Config`] out of GGUF metadata. Keys are prefixed by the architecture.

mod keys;

use super::hf::parse_activation;
use super::{FAMILIES, Family, known_gguf};
use crate::config::Config;
use crate::error::{Error, Result, quoted};
use crate::file::File;
use crate::file::gguf::Pairs;
use crate::rope::{Pairing, Rope, Scaling, Yarn};

pub(super) fn detect(file: &File, pairs: &Pairs) -> Result<(&'static Family, Config, bool)> {
    const ARCHITECTURE: &str = "general.architecture";
    let missing = |key: &str| Error::key(&file.path, key, "missing, and nothing stands in for it");
    let architecture = pairs.str(ARCHITECTURE)?.ok_or_else(|| missing(ARCHITECTURE))?;
    let family =
        FAMILIES.iter().find(|family| family.gguf.contains(&architecture)).copied().ok_or_else(|| {
            let norm = |tensor: &crate::tensor::Tensor| tensor.name.ends_with("_norm_in.weight");
            let what = match file.tensors().iter().any(norm) {
                true => super::embedding(architecture),
                false => format!("expected one of {}, found `{}`", known_gguf(), quoted(architecture)),
            };
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
    let config = Config {
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
            let what = format!("expected `relu2` or `silu`, found `{}`", quoted(act));
            Error::key(&file.path, &named, what)
        })?,
        sub_norms: family.sub_norms.is_some(),
        rope: Rope {
            // The container's own default, for architectures whose converters leave the key out at that value.
            base: pairs.f32(&key(base))?.unwrap_or(10_000.0),
            pairing: if family.permuted { Pairing::Neighbours } else { Pairing::Halves },
            scaling: scaling(file, pairs, &key("rope.scaling"), size("context_length")?)?,
        },
    };
    Ok((family, config, family.masters))
}

/// Llama 3.1's scaling as converters write it: what the frequency of each pair is divided by.
pub(crate) const DIVISORS: &str = "rope_freqs.weight";

/// How positions are stretched; `keys` is the prefix of what speaks of it.
fn scaling(file: &File, pairs: &Pairs, keys: &str, context: Option<usize>) -> Result<Scaling> {
    let key = |name: &str| format!("{keys}.{name}");
    let number = |name: &str| pairs.f32(&key(name));
    let wrong = |name: &str, what: String| Err(Error::key(&file.path, &key(name), what));
    let factor = number("factor")?;
    // A factor alone is linear scaling: the container's own default.
    let kind = pairs.str(&key("type"))?.unwrap_or(if factor.is_some() { "linear" } else { "none" });
    if let Some(tensor) = file.tensor(DIVISORS) {
        if kind != "none" {
            let what = format!("expected `none` beside the tensor `{DIVISORS}`, found `{}`", quoted(kind));
            return wrong("type", what);
        }
        let [len] = tensor.dims[..] else {
            return Err(file.error(DIVISORS, format!("expected one dimension, found {:?}", tensor.dims)));
        };
        let mut divisors = vec![0.0; len];
        crate::codec::floats(tensor, 0, &mut divisors).map_err(|what| file.error(DIVISORS, what))?;
        return Ok(Scaling::Divisors(divisors));
    }
    let needed =
        || factor.ok_or_else(|| Error::key(&file.path, &key("factor"), "missing, and never guessed"));
    match kind {
        "none" => Ok(Scaling::None),
        "linear" => Ok(Scaling::Linear { factor: needed()? }),
        "yarn" => {
            let factor = needed()?;
            let original = pairs.u32(&key("original_context_length"))?.map(|n| n as usize);
            let scale = number("attn_factor")?.unwrap_or(1.0);
            Ok(Scaling::Yarn(Yarn {
                factor,
                original: original.or(context).unwrap_or(0),
                fast: number("yarn_beta_fast")?.unwrap_or(32.0),
                slow: number("yarn_beta_slow")?.unwrap_or(1.0),
                truncate: true,
                // The key is a factor on top of the paper's own.
                attention: scale * Yarn::sharpening(factor, 1.0),
            }))
        }
        other => wrong("type", format!("expected `none`, `linear` or `yarn`, found `{}`", quoted(other))),
    }
}
