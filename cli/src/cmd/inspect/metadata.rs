//! Metadata of both formats as JSON values, shortened: a vocabulary is no reading.

use serde_json::{Value, json};
use tern::file::Metadata;
use tern::file::gguf;

/// What stands for an array longer than this.
const MOST_ELEMENTS: usize = 8;
/// What a line of text may take.
const MOST_CHARS: usize = 80;

/// The key-value pairs of a file in its order; long arrays are objects `{"array_of", "len", "first"}`.
pub(super) fn entries(metadata: &Metadata) -> Box<dyn Iterator<Item = (String, Value)> + '_> {
    match metadata {
        Metadata::Gguf(pairs) => {
            Box::new(pairs.iter().map(|(key, value)| (key.to_owned(), from_gguf(value))))
        }
        Metadata::Hf { config, tokenizer_config, generation_config, .. } => {
            let prefixed = |prefix: &'static str, value: Option<&Value>| {
                let object = value.and_then(Value::as_object).cloned().unwrap_or_default();
                object.into_iter().map(move |(key, value)| (format!("{prefix}{key}"), value))
            };
            Box::new(
                prefixed("", Some(config))
                    .chain(prefixed("tokenizer_config.", tokenizer_config.as_ref()))
                    .chain(prefixed("generation_config.", generation_config.as_ref())),
            )
        }
    }
}

fn from_gguf(value: &gguf::Value) -> Value {
    match value {
        gguf::Value::F32(x) => crate::answer::float(*x),
        gguf::Value::F64(x) => json!(Some(x).filter(|x| x.is_finite())),
        gguf::Value::Bool(x) => json!(x),
        gguf::Value::String(x) => json!(x),
        gguf::Value::U64(x) => json!(x),
        gguf::Value::Array(array) if array.len() > MOST_ELEMENTS => {
            let first: Vec<_> = array.iter().take(MOST_ELEMENTS).map(|value| from_gguf(&value)).collect();
            json!({"array_of": array.kind().name(), "len": array.len(), "first": first})
        }
        gguf::Value::Array(array) => array.iter().map(|value| from_gguf(&value)).collect(),
        integer => json!(integer.integer().and_then(|x| i64::try_from(x).ok())),
    }
}

/// A value for `--json`: long arrays of a JSON file are shortened like those of a GGUF.
pub(super) fn value_json(value: Value) -> Value {
    match value {
        Value::Array(list) if list.len() > MOST_ELEMENTS => {
            let (len, first) = (list.len(), list.into_iter().take(MOST_ELEMENTS).collect::<Vec<_>>());
            json!({"len": len, "first": first})
        }
        Value::Object(map) if map.len() > 4 * MOST_ELEMENTS => {
            let len = map.len();
            json!({"len": len, "first": map.into_iter().take(MOST_ELEMENTS).collect::<serde_json::Map<_, _>>()})
        }
        value => value,
    }
}

/// A value on one short line; control characters of hostile files are escaped.
pub(super) fn value_text(value: &Value) -> String {
    if let Some(len) = value.get("len").filter(|_| value.get("first").is_some()) {
        let what = value.get("array_of").and_then(Value::as_str).unwrap_or("value");
        let first: Vec<_> = value["first"].as_array().into_iter().flatten().map(Value::to_string).collect();
        return format!("{len} of {what}: {}, …", cut(&first.join(", ")));
    }
    match value {
        Value::String(text) => cut(text),
        value => cut(&value.to_string()),
    }
}

fn cut(text: &str) -> String {
    let mut short: String = text.chars().take(MOST_CHARS).flat_map(escaped).collect();
    if text.chars().nth(MOST_CHARS).is_some() {
        short.push('…');
    }
    short
}

/// The character, or its escape if it could move a terminal's cursor.
fn escaped(c: char) -> impl Iterator<Item = char> {
    let mut escape = c.is_control().then(|| c.escape_default());
    let mut plain = escape.is_none().then_some(c);
    std::iter::from_fn(move || plain.take().or_else(|| escape.as_mut()?.next()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_and_hostile_values_become_one_short_line() {
        assert_eq!(value_text(&json!("a\nb\x1b")), "a\\nb\\u{1b}");
        assert_eq!(value_text(&json!("x".repeat(100))), format!("{}…", "x".repeat(80)));
        assert_eq!(
            value_text(&value_json(json!((0..20).collect::<Vec<_>>()))),
            "20 of value: 0, 1, 2, 3, 4, 5, 6, 7, …"
        );
        assert_eq!(value_text(&json!({"a": [1, 2]})), "{\"a\":[1,2]}");
    }
}
