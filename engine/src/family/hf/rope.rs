//! How a `config.json` asks for stretched positions: `rope_scaling`, or since transformers 5 `rope_parameters`.

use serde_json::Value;

use super::Json;
use crate::error::Result;
use crate::rope::{Pairing, Rope, Scaling, Yarn};

/// One of the two objects, with errors that name its keys.
struct Keys<'a> {
    json: &'a Json<'a>,
    object: String,
    values: &'a Value,
}

impl Keys<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key).filter(|value| !value.is_null())
    }

    fn number(&self, key: &str) -> Result<Option<f32>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let number = value.as_f64().map(|n| Some(n as f32));
        number.ok_or_else(|| self.wrong(key, "a number", value))
    }

    fn needed(&self, key: &str) -> Result<f32> {
        self.number(key)?.ok_or_else(|| self.wrong(key, "a number", &Value::Null))
    }

    /// The context before scaling. Both ways of leaving it out are the reference's.
    fn original(&self) -> Result<usize> {
        const KEY: &str = "original_max_position_embeddings";
        let value =
            self.get(KEY).or_else(|| self.json.get(KEY)).or_else(|| self.json.get("max_position_embeddings"));
        let value = value.unwrap_or(&Value::Null);
        let size = value.as_u64().and_then(|n| usize::try_from(n).ok());
        size.ok_or_else(|| self.wrong(KEY, "a whole number", value))
    }

    fn wrong(&self, key: &str, expected: &str, found: &Value) -> crate::error::Error {
        self.json.wrong(&format!("{}.{key}", self.object), expected, found)
    }
}

/// The rotary positions of one kind of layer: those that see all, or those that slide. Gemma's have a base each, which
/// transformers 5 writes in `rope_parameters` under the name of the kind and older versions as `rope_local_base_freq`.
pub(super) fn rope(json: &Json, kind: &str) -> Result<Rope> {
    let local = json.number("rope_local_base_freq")?.filter(|_| kind == "sliding_attention");
    let base = match local {
        Some(base) => base,
        None => base(json, kind)?,
    };
    let scaling = if local.is_some() { Scaling::None } else { scaling(json, kind)? };
    Ok(Rope { base, pairing: Pairing::Halves, scaling })
}

/// The object that speaks of this kind of layer, and its name.
fn object<'a>(json: &Json<'a>, object: &str, kind: &str) -> Option<(String, &'a Value)> {
    let values = json.get(object)?;
    match values.get(kind) {
        Some(inner) => Some((format!("{object}.{kind}"), inner)),
        None => Some((object.to_owned(), values)),
    }
}

/// `rope_theta`, at the top or (transformers 5) in `rope_parameters`.
fn base(json: &Json, kind: &str) -> Result<f32> {
    let top = json.number("rope_theta")?;
    let nested = object(json, "rope_parameters", kind);
    let nested =
        nested.and_then(|(name, rope)| Some((name, rope.get("rope_theta").filter(|v| !v.is_null())?)));
    if let Some((name, value)) = nested {
        let wrong = |expected: &str| json.wrong(&format!("{name}.rope_theta"), expected, value);
        let base = value.as_f64().ok_or_else(|| wrong("a number"))? as f32;
        return match top.filter(|top| *top != base && name == "rope_parameters") {
            Some(top) => Err(wrong(&format!("{top}, as `rope_theta` says"))),
            None => Ok(base),
        };
    }
    top.ok_or_else(|| json.error("rope_theta", "missing, and the base is never guessed"))
}

/// What `config.json` says about scaling.
fn scaling(json: &Json, kind: &str) -> Result<Scaling> {
    let mut found = Scaling::None;
    for name in ["rope_parameters", "rope_scaling"] {
        let Some((object, values)) = object(json, name, kind) else { continue };
        let scaling = read(&Keys { json, object, values })?;
        // Files of two eras carry both; where both say something they must say the same.
        if found != Scaling::None && scaling != Scaling::None && found != scaling {
            return Err(json.wrong(name, "what `rope_parameters` says", values));
        }
        found = if scaling == Scaling::None { found } else { scaling };
    }
    Ok(found)
}

/// The context up to which LongRoPE's short factors hold: beyond it, all positions would turn otherwise.
pub(super) fn short_of(json: &Json) -> Result<Option<usize>> {
    for name in ["rope_parameters", "rope_scaling"] {
        let Some(values) = json.get(name) else { continue };
        let kind = values.get("rope_type").or(values.get("type"));
        if kind.is_some_and(|kind| kind == "longrope") {
            return Keys { json, object: name.to_owned(), values }.original().map(Some);
        }
    }
    Ok(None)
}

/// What the two objects can hold: their forms since transformers 4.43 and before, and what 5 moved there.
const KNOWN: [&str; 16] = [
    "short_factor",
    "long_factor",
    "rope_type",
    "type",
    "rope_theta",
    "factor",
    "original_max_position_embeddings",
    "low_freq_factor",
    "high_freq_factor",
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "mscale",
    "mscale_all_dim",
    "truncate",
    "partial_rotary_factor",
];

fn read(keys: &Keys) -> Result<Scaling> {
    let Some(object) = keys.values.as_object() else {
        return Err(keys.json.wrong(&keys.object, "an object with a `rope_type`", keys.values));
    };
    let unknown = object.iter().find(|(key, value)| !value.is_null() && !KNOWN.contains(&key.as_str()));
    if let Some((key, value)) = unknown {
        return Err(keys.wrong(key, "no such key (it may change what positions do)", value));
    }
    if let (Some(new), Some(old)) = (keys.get("rope_type"), keys.get("type"))
        && new != old
    {
        return Err(keys.wrong("type", "what `rope_type` says", old));
    }
    if let Some(partial) = keys.get("partial_rotary_factor").filter(|factor| factor.as_f64() != Some(1.0)) {
        return Err(keys.wrong("partial_rotary_factor", "1", partial));
    }
    let Some(kind) = keys.get("rope_type").or(keys.get("type")) else {
        return match keys.get("factor") {
            None => Ok(Scaling::None),
            Some(_) => {
                Err(keys.wrong("rope_type", "the kind of scaling that `factor` belongs to", &Value::Null))
            }
        };
    };
    let factors = ["short_factor", "long_factor"].into_iter().find(|key| keys.get(key).is_some());
    if let Some(key) = factors.filter(|_| kind != "longrope") {
        return Err(keys.wrong(
            key,
            "no such key beside this `rope_type`",
            keys.get(key).unwrap_or(&Value::Null),
        ));
    }
    Ok(match kind.as_str() {
        Some("default") => Scaling::None,
        Some("linear") => Scaling::Linear { factor: keys.needed("factor")? },
        Some("llama3") => Scaling::Llama3 {
            factor: keys.needed("factor")?,
            low: keys.needed("low_freq_factor")?,
            high: keys.needed("high_freq_factor")?,
            original: keys.original()?,
        },
        Some("yarn") => Scaling::Yarn(yarn(keys)?),
        Some("longrope") => long(keys)?,
        _ => {
            let expected = "\"default\", \"linear\", \"llama3\", \"yarn\" or \"longrope\"";
            return Err(keys.wrong("rope_type", expected, kind));
        }
    })
}

fn yarn(keys: &Keys) -> Result<Yarn> {
    let factor = keys.needed("factor")?;
    let given = keys.number("attention_factor")?;
    // 0 is absent, as the reference treats it.
    let scale = |key| Ok::<_, crate::error::Error>(keys.number(key)?.filter(|scale| *scale != 0.0));
    let attention = match (given, scale("mscale")?, scale("mscale_all_dim")?) {
        (Some(given), ..) => given,
        (None, Some(one), Some(all)) => Yarn::sharpening(factor, one) / Yarn::sharpening(factor, all),
        _ => Yarn::sharpening(factor, 1.0),
    };
    let truncate = match keys.get("truncate") {
        None => true,
        Some(value) => value.as_bool().ok_or_else(|| keys.wrong("truncate", "true or false", value))?,
    };
    let slope =
        |key, usual| Ok::<_, crate::error::Error>(keys.number(key)?.filter(|n| *n != 0.0).unwrap_or(usual));
    Ok(Yarn {
        factor,
        original: keys.original()?,
        fast: slope("beta_fast", 32.0)?,
        slow: slope("beta_slow", 1.0)?,
        truncate,
        attention,
    })
}

/// The factors, and what cosines and sines are multiplied by: more, the further the long ones reach.
fn long(keys: &Keys) -> Result<Scaling> {
    let list = |key: &str, value: &Value| {
        let expected = "a list of numbers";
        let list = value.as_array().ok_or_else(|| keys.wrong(key, expected, value))?;
        let number = |n: &Value| n.as_f64().map(|n| n as f32).ok_or_else(|| keys.wrong(key, expected, n));
        list.iter().map(number).collect::<Result<Vec<f32>>>()
    };
    let short = list("short_factor", keys.get("short_factor").unwrap_or(&Value::Null))?;
    let long = keys.get("long_factor").map_or(Ok(Vec::new()), |value| list("long_factor", value))?;
    let original = keys.original()?;
    let factor = match keys.number("factor")? {
        Some(factor) => f64::from(factor),
        None => keys.json.needed_size("max_position_embeddings")? as f64 / original as f64,
    };
    let attention = match keys.number("attention_factor")? {
        Some(given) => given,
        None if factor <= 1.0 => 1.0,
        None => (1.0 + factor.ln() / (original as f64).ln()).sqrt() as f32,
    };
    Ok(Scaling::Long { short, long, attention })
}
