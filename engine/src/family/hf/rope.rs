//! How a `config.json` asks for stretched positions: `rope_scaling`, or since transformers 5 `rope_parameters`.

use serde_json::Value;

use super::Json;
use crate::error::Result;
use crate::rope::{Scaling, Yarn};

/// One of the two objects, with errors that name its keys.
struct Keys<'a> {
    json: &'a Json<'a>,
    object: &'static str,
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

/// What `config.json` says about scaling.
pub(super) fn scaling(json: &Json) -> Result<Scaling> {
    let mut found = Scaling::None;
    for object in ["rope_parameters", "rope_scaling"] {
        let Some(values) = json.get(object) else { continue };
        let scaling = read(&Keys { json, object, values })?;
        // Files of two eras carry both; where both say something they must say the same.
        if found != Scaling::None && scaling != Scaling::None && found != scaling {
            return Err(json.wrong(object, "what `rope_parameters` says", values));
        }
        found = if scaling == Scaling::None { found } else { scaling };
    }
    Ok(found)
}

/// What the two objects can hold: their forms since transformers 4.43 and before, and what 5 moved there.
const KNOWN: [&str; 14] = [
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
        return Err(keys.json.wrong(keys.object, "an object with a `rope_type`", keys.values));
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
        _ => {
            let expected = "\"default\", \"linear\", \"llama3\" or \"yarn\"";
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
