//! Which layers see the last positions only, and how a `config.json` says so.

use serde_json::Value;

use super::super::Family;
use super::{Json, rope};
use crate::config::Sliding;
use crate::error::Result;

const SLIDES: &str = "sliding_attention";
const SEES_ALL: &str = "full_attention";

/// The layers with a window, if there are any.
pub(super) fn sliding(json: &Json, family: &Family, layers: usize) -> Result<Option<Sliding>> {
    let kinds = match json.get("layer_types") {
        Some(value) => listed(json, value)?,
        None => implied(json, family, layers)?,
    };
    if !kinds.contains(&true) {
        return Ok(None);
    }
    if !family.windows {
        let kinds = json.get("layer_types").unwrap_or(&Value::Null);
        return Err(json.wrong("layer_types", "\"full_attention\" for every layer", kinds));
    }
    let window = json.needed_size("sliding_window")?;
    Ok(Some(Sliding { window, layers: kinds, rope: rope::rope(json, SLIDES)? }))
}

/// `layer_types`, a name for each layer.
fn listed(json: &Json, value: &Value) -> Result<Vec<bool>> {
    let expected = "\"full_attention\" or \"sliding_attention\" for each layer";
    let kinds = value.as_array().ok_or_else(|| json.wrong("layer_types", expected, value))?;
    let kind = |kind: &Value| match kind.as_str() {
        Some(SLIDES) => Ok(true),
        Some(SEES_ALL) => Ok(false),
        _ => Err(json.wrong("layer_types", expected, kind)),
    };
    kinds.iter().map(kind).collect()
}

/// What files of before `layer_types` mean: Mistral's window is every layer's, every sixth of Gemma's layers sees all, and of Qwen's those up to
/// `max_window_layers` where `use_sliding_window` says that there is a window.
fn implied(json: &Json, family: &Family, layers: usize) -> Result<Vec<bool>> {
    if family.gemma && json.get("sliding_window").is_some() {
        let every = match json.size("sliding_window_pattern")? {
            Some(every) => Some(every),
            None => json.size("_sliding_window_pattern")?,
        };
        let every = every.unwrap_or(6);
        return Ok((0..layers).map(|layer| every == 0 || !(layer + 1).is_multiple_of(every)).collect());
    }
    if json.is("use_sliding_window")? {
        if !family.windows {
            let found = Value::Bool(true);
            return Err(json.wrong("use_sliding_window", "false (each position sees all before it)", &found));
        }
        let first = json.needed_size("max_window_layers")?;
        return Ok((0..layers).map(|layer| layer >= first).collect());
    }
    if family.model_types.contains(&"mistral") && json.get("sliding_window").is_some() {
        return Ok(vec![true; layers]);
    }
    let windowless = json.get("use_sliding_window").is_some();
    match json.get("sliding_window").filter(|_| !windowless) {
        Some(value) => Err(json.wrong("sliding_window", "null (each position sees all before it)", value)),
        None => Ok(vec![false; layers]),
    }
}
