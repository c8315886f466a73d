//! What is done to a text before it is cut: Unicode forms, and SentencePiece's `▁` for spaces.
//!
//! Replacing and prepending are done here because a tokenizer of forty replacements `a` -> `aa` must not fill the
//! memory; the Unicode forms are the `tokenizers` crate's.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;
use tokenizers::{NormalizedString, Normalizer, NormalizerWrapper};

use crate::error::quoted;

const MAX_STEPS: usize = 64;

/// The steps, in order; none for most byte-level tokenizers.
#[derive(Default)]
pub(crate) struct Normal(Vec<Step>);

enum Step {
    Prepend(String),
    Replace(String, String),
    Unicode(Box<NormalizerWrapper>),
}

impl Normal {
    /// SentencePiece's: spaces become `▁`, and one is put before the text if `prefix`.
    pub(crate) fn sentencepiece(prefix: bool) -> Self {
        let mut steps = Vec::new();
        if prefix {
            steps.push(Step::Prepend("▁".to_owned()));
        }
        steps.push(Step::Replace(" ".to_owned(), "▁".to_owned()));
        Self(steps)
    }

    /// The `normalizer` of a tokenizer.json.
    pub(crate) fn from_json(value: &Value) -> Result<Self, String> {
        let mut steps = Vec::new();
        let mut waiting = vec![value];
        while let Some(value) = waiting.pop() {
            if value.is_null() {
                continue;
            }
            let kind = value["type"].as_str().unwrap_or("");
            let text = |key: &str| {
                value[key].as_str().map(str::to_owned).ok_or(format!("normalizer {kind}: no string `{key}`"))
            };
            match kind {
                "Sequence" => {
                    let inner =
                        value["normalizers"].as_array().ok_or("normalizer Sequence without a list")?;
                    waiting.extend(inner.iter().rev());
                }
                "Prepend" => steps.push(Step::Prepend(text("prepend")?)),
                "Replace" => {
                    let from = value["pattern"]["String"].as_str().filter(|from| !from.is_empty());
                    let from =
                        from.ok_or("normalizer Replace: only a non-empty `String` pattern is supported")?;
                    steps.push(Step::Replace(from.to_owned(), text("content")?));
                }
                "NFC" | "NFD" | "NFKC" | "NFKD" | "Lowercase" | "Strip" | "StripAccents" | "Nmt" => {
                    let step = NormalizerWrapper::deserialize(value);
                    steps.push(Step::Unicode(Box::new(step.map_err(|e| format!("normalizer {kind}: {e}"))?)));
                }
                _ => return Err(format!("the normalizer `{}` is not supported", quoted(kind))),
            }
            if steps.len() > MAX_STEPS || waiting.len() > MAX_STEPS {
                return Err(format!("more than {MAX_STEPS} normalizers"));
            }
        }
        Ok(Self(steps))
    }

    /// The normalised text. It may be longer than the given one, but only so much.
    pub(crate) fn apply<'t>(&self, text: &'t str) -> Result<Cow<'t, str>, String> {
        // NFKD can make 18 characters of one; `▁` is three bytes for a space's one.
        let limit = text.len().saturating_mul(32).saturating_add(4096);
        let mut text = Cow::Borrowed(text);
        for step in &self.0 {
            let len = match step {
                Step::Prepend(prefix) => text.len().saturating_add(prefix.len()),
                Step::Replace(from, to) => {
                    let more = to.len().saturating_sub(from.len());
                    text.len().saturating_add(text.matches(from.as_str()).count().saturating_mul(more))
                }
                Step::Unicode(_) => text.len(),
            };
            if len > limit {
                return Err("the normalizers make a text more than 32 times as long".to_owned());
            }
            match step {
                Step::Prepend(prefix) => text.to_mut().insert_str(0, prefix),
                Step::Replace(from, to) => text = Cow::Owned(text.replace(from.as_str(), to)),
                Step::Unicode(step) => {
                    let mut changed = NormalizedString::from(text.as_ref());
                    step.normalize(&mut changed).map_err(|e| format!("normalizer: {e}"))?;
                    text = Cow::Owned(changed.get().to_owned());
                }
            }
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn steps_are_taken_in_order() {
        let n = Normal::from_json(&json!({"type": "Sequence", "normalizers": [
            {"type": "NFC"}, {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}))
        .unwrap();
        assert_eq!(n.apply("e\u{301} x").unwrap(), "▁é▁x");
    }

    #[test]
    fn doubling_normalizers_are_refused() {
        let double = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"});
        let n = Normal::from_json(&json!({"type": "Sequence", "normalizers": vec![double; 40]})).unwrap();
        assert!(n.apply("a").unwrap_err().contains("32 times"));
        let regex = json!({"type": "Replace", "pattern": {"Regex": "(a+)+b"}, "content": ""});
        assert!(Normal::from_json(&regex).is_err());
    }
}
