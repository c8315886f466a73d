//! What is counted before anything is compiled: cheap, and told by name. What passes may still be too much; that shows
//! in the process that tries it.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::regex;
use crate::limits::{
    ALTERNATIVES, GRAMMAR, MEMBERS, PATTERN_PROPERTIES, PATTERNS, PROPERTIES, REFERENCE_DEPTH, REFERENCES,
    SCHEMA_DEPTH, TIMES, at_most,
};

/// Counts of a whole schema.
#[derive(Default)]
struct Counts {
    patterns: usize,
    references: usize,
}

pub(super) fn schema(schema: &Value) -> Result<(), String> {
    at_most(SCHEMA_DEPTH, levels(schema), "levels")?;
    at_most(GRAMMAR, schema.to_string().len(), "bytes")?;
    let mut counts = Counts::default();
    count(schema, &mut counts)?;
    at_most(PATTERNS, counts.patterns, "patterns in a schema")?;
    at_most(REFERENCES, counts.references, "references in a schema")?;
    follow(schema, schema, &mut HashSet::new(), 0)
}

fn levels(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(levels).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(levels).max().unwrap_or(0),
        _ => 0,
    }
}

fn count(value: &Value, counts: &mut Counts) -> Result<(), String> {
    match value {
        Value::Array(list) => list.iter().try_for_each(|value| count(value, counts)),
        Value::Object(map) => {
            members(map, counts)?;
            map.values().try_for_each(|value| count(value, counts))
        }
        _ => Ok(()),
    }
}

/// What one schema counts by itself. A property of an object can have a keyword's name; then its value is no such thing
/// as a keyword has.
fn members(map: &Map<String, Value>, counts: &mut Counts) -> Result<(), String> {
    for (key, value) in map {
        match (key.as_str(), value) {
            ("pattern", Value::String(text)) => {
                counts.patterns += 1;
                regex::check(text)?;
            }
            ("patternProperties", Value::Object(patterns)) => {
                at_most(PATTERN_PROPERTIES, patterns.len(), "patternProperties in an object")?;
                counts.patterns += patterns.len();
                patterns.keys().try_for_each(|text| regex::check(text))?;
            }
            ("properties", Value::Object(properties)) => {
                at_most(PROPERTIES, properties.len(), "properties in an object")?;
            }
            ("required", Value::Array(names)) => at_most(PROPERTIES, names.len(), "names in `required`")?,
            ("anyOf" | "oneOf" | "enum" | "type" | "prefixItems" | "items", Value::Array(list)) => {
                at_most(ALTERNATIVES, list.len(), &format!("members of `{key}`"))?;
            }
            ("allOf", Value::Array(list)) => at_most(MEMBERS, list.len(), "members of `allOf`")?,
            ("$ref", Value::String(_)) => counts.references += 1,
            (
                "minItems" | "maxItems" | "minLength" | "maxLength" | "minProperties" | "maxProperties",
                Value::Number(number),
            ) if number.as_f64().is_some_and(|number| number > TIMES as f64) => {
                return Err(format!("expected at most {TIMES} in `{key}`, found {number}"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// References within references, as the compiler goes through them: each is entered once.
fn follow<'a>(
    root: &'a Value,
    value: &'a Value,
    seen: &mut HashSet<&'a str>,
    depth: usize,
) -> Result<(), String> {
    match value {
        Value::Array(list) => list.iter().try_for_each(|value| follow(root, value, seen, depth)),
        Value::Object(map) => {
            if let Some(Value::String(name)) = map.get("$ref")
                && seen.insert(name)
                && let Some(target) = name.strip_prefix('#').and_then(|pointer| root.pointer(pointer))
            {
                at_most(REFERENCE_DEPTH, depth + 1, "references within references")?;
                follow(root, target, seen, depth + 1)?;
            }
            map.iter()
                .filter(|(key, _)| !matches!(key.as_str(), "$defs" | "definitions"))
                .try_for_each(|(_, value)| follow(root, value, seen, depth))
        }
        _ => Ok(()),
    }
}
