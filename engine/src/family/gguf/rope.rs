//! How a GGUF asks for stretched positions: keys under `rope.scaling`, or tensors of factors.

use crate::error::{Error, Result, quoted};
use crate::file::File;
use crate::file::gguf::Pairs;
use crate::rope::{Scaling, Yarn};
use crate::tensor::Tensor;

/// Llama 3.1's scaling as converters write it: what the frequency of each pair is divided by.
pub(crate) const DIVISORS: &str = "rope_freqs.weight";
/// LongRoPE's factors within the first context.
pub(crate) const SHORT: &str = "rope_factors_short.weight";
/// LongRoPE's factors beyond it.
pub(crate) const LONG: &str = "rope_factors_long.weight";

/// How positions are stretched; `keys` is the prefix of what speaks of it.
pub(super) fn scaling(file: &File, pairs: &Pairs, keys: &str, context: Option<usize>) -> Result<Scaling> {
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
        return Ok(Scaling::Divisors(numbers(file, tensor)?));
    }
    if let Some(tensor) = file.tensor(SHORT) {
        if !["none", "longrope"].contains(&kind) {
            let what = format!("expected `longrope` beside the tensor `{SHORT}`, found `{}`", quoted(kind));
            return wrong("type", what);
        }
        let attention = number("attn_factor")?.unwrap_or(1.0);
        let long = file.tensor(LONG).map_or(Ok(Vec::new()), |tensor| numbers(file, tensor))?;
        return Ok(Scaling::Long { short: numbers(file, tensor)?, long, attention });
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
        "longrope" => wrong("type", format!("`longrope`, and the file has no tensor `{SHORT}`")),
        other => wrong(
            "type",
            format!("expected `none`, `linear`, `yarn` or `longrope`, found `{}`", quoted(other)),
        ),
    }
}

/// A tensor of one dimension.
fn numbers(file: &File, tensor: &Tensor) -> Result<Vec<f32>> {
    let [len] = tensor.dims[..] else {
        return Err(file.error(&tensor.name, format!("expected one dimension, found {:?}", tensor.dims)));
    };
    let mut numbers = vec![0.0; len];
    crate::codec::floats(tensor, 0, &mut numbers).map_err(|what| file.error(&tensor.name, what))?;
    Ok(numbers)
}
