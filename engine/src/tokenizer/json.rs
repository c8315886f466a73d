//! Hugging Face's `tokenizer.json`.

use std::borrow::Cow;

use serde::de::{self, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::added::{Added, AddedToken};
use super::bpe::{Bpe, Pairs, Rules, Unit, byte_tokens};
use super::cut::Cut;
use super::normal::Normal;
use super::stream::Script;
use super::vocabulary::{MAX_IDS, Vocabulary};
use super::{Tokenizer, alphabet};
use crate::error::quoted;

#[derive(Deserialize)]
struct Json<'j> {
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    #[serde(default)]
    decoder: Value,
    #[serde(borrow)]
    model: Model<'j>,
}

#[derive(Deserialize)]
struct Model<'j> {
    #[serde(rename = "type")]
    kind: Option<String>,
    dropout: Option<f32>,
    unk_token: Option<String>,
    continuing_subword_prefix: Option<String>,
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    fuse_unk: Option<bool>,
    #[serde(default)]
    byte_fallback: Option<bool>,
    #[serde(default)]
    ignore_merges: Option<bool>,
    #[serde(borrow)]
    vocab: Vocab<'j>,
    #[serde(borrow, default)]
    merges: Vec<Merge<'j>>,
}

/// The pieces in the file's order; a map of strings is not needed.
struct Vocab<'j>(Vec<(Text<'j>, u32)>);

/// `"a b"` or `["a", "b"]`.
struct Merge<'j>(Text<'j>, Text<'j>);

/// A string of the file, without a copy where it has no escapes: there are half a million of them.
struct Text<'j>(Cow<'j, str>);

pub(super) fn read(json: &[u8]) -> Result<Tokenizer, String> {
    let json: Json = serde_json::from_slice(json).map_err(|e| quoted(&e.to_string()))?;
    let model = &json.model;
    match &model.kind {
        Some(kind) if kind != "BPE" => {
            return Err(format!("the model type `{}` is not supported", quoted(kind)));
        }
        _ => {}
    }
    let affix = [&model.continuing_subword_prefix, &model.end_of_word_suffix];
    if affix.iter().any(|affix| affix.as_ref().is_some_and(|affix| !affix.is_empty())) {
        return Err("word prefixes and suffixes in a BPE model are not supported".to_owned());
    }
    if model.dropout.is_some_and(|dropout| dropout != 0.0) {
        return Err("a BPE model with dropout is not supported".to_owned());
    }

    let normal = Normal::from_json(&json.normalizer)?;
    let (cut, bytes) = Cut::from_json(&json.pre_tokenizer)?;
    let vocabulary = vocabulary(&model.vocab.0, bytes)?;
    let rules = Rules::Pairs(pairs(&model.merges, &vocabulary, bytes)?);
    let unit = if bytes {
        Unit::Byte
    } else {
        let unknown = match &model.unk_token {
            Some(token) => {
                let id = vocabulary.find(token.as_bytes());
                Some(id.ok_or_else(|| format!("unk_token `{}` is not in the vocabulary", quoted(token)))?)
            }
            None => None,
        };
        let fallback = model.byte_fallback == Some(true);
        let bytes = if fallback { byte_tokens(&vocabulary) } else { None };
        Unit::Char { bytes, unknown, fuse: model.fuse_unk == Some(true) }
    };
    let bpe = Bpe::new(vocabulary, rules, unit, model.ignore_merges == Some(true));
    if let Some(token) = json.added_tokens.iter().find(|t| t.id as usize >= MAX_IDS) {
        return Err(format!("added token id {} is above the limit of {MAX_IDS}", token.id));
    }
    let added = Added::new(json.added_tokens, |text| normal.apply(text).map(|text| text.into_owned()))?;
    let (before, after) = around(&json.post_processor)?;
    let script = script(&json.decoder, bytes)?;
    let mut tokenizer = Tokenizer::new(bpe, added, normal, cut, script).beginning_with(before);
    tokenizer.after = after;
    Ok(tokenizer)
}

fn vocabulary(pieces: &[(Text, u32)], bytes: bool) -> Result<Vocabulary, String> {
    let mut vocabulary = Vocabulary::with_capacity(pieces.len());
    let mut raw = Vec::new();
    for (Text(piece), id) in pieces {
        raw.clear();
        if !bytes {
            vocabulary.insert(*id, piece.as_bytes())?;
        } else if alphabet::append(piece, &mut raw) {
            vocabulary.insert(*id, &raw)?;
        } else {
            // A piece that is not in the byte alphabet never comes out of a text.
            vocabulary.name(*id, piece.as_bytes())?;
        }
    }
    Ok(vocabulary)
}

fn pairs(merges: &[Merge], vocabulary: &Vocabulary, bytes: bool) -> Result<Pairs, String> {
    let merges = merges.iter().map(|Merge(left, right)| (&*left.0, &*right.0));
    super::bpe::pairs(merges, vocabulary, |piece, to| {
        if bytes {
            alphabet::append(piece, to);
        } else {
            to.extend_from_slice(piece.as_bytes());
        }
    })
}

/// What the post-processor puts before and after a text. (The `tokenizers` crate's own panics on tokens it does not know.)
fn around(value: &Value) -> Result<(Vec<u32>, Vec<u32>), String> {
    let id = |value: &Value| {
        let id = value.as_u64().filter(|&id| id < MAX_IDS as u64);
        id.map(|id| id as u32)
            .ok_or_else(|| format!("post-processor: `{}` is no token id", quoted(&value.to_string())))
    };
    let (mut before, mut after) = (Vec::new(), Vec::new());
    let steps = match value["type"].as_str() {
        Some("Sequence") => value["processors"].as_array().ok_or("post-processor Sequence without a list")?,
        _ => std::slice::from_ref(value),
    };
    for step in steps {
        match step["type"].as_str() {
            Some("ByteLevel") => {}
            None if step.is_null() => {}
            Some("BertProcessing" | "RobertaProcessing") => {
                before.push(id(&step["cls"][1])?);
                after.push(id(&step["sep"][1])?);
            }
            Some("TemplateProcessing") => {
                let parts =
                    step["single"].as_array().ok_or("post-processor TemplateProcessing without a list")?;
                let text = parts.iter().position(|part| !part["Sequence"].is_null());
                for (at, part) in parts.iter().enumerate().filter(|(_, part)| part["Sequence"].is_null()) {
                    let side = if text.is_none_or(|text| at < text) { &mut before } else { &mut after };
                    let name = part["SpecialToken"]["id"].as_str().unwrap_or("");
                    let ids = step["special_tokens"][name]["ids"].as_array();
                    let ids = ids.ok_or_else(|| format!("post-processor: no ids of `{}`", quoted(name)))?;
                    for value in ids {
                        side.push(id(value)?);
                    }
                }
            }
            other => {
                return Err(format!("the post-processor `{}` is not supported", quoted(other.unwrap_or(""))));
            }
        }
    }
    if before.len() > 16 || after.len() > 16 {
        let most = before.len().max(after.len());
        return Err(format!("post-processor: {most} tokens around every text"));
    }
    Ok((before, after))
}

fn script(value: &Value, bytes: bool) -> Result<Script, String> {
    let list = std::slice::from_ref(value);
    let steps = match value["type"].as_str() {
        Some("Sequence") => value["decoders"].as_array().map_or(&[][..], |steps| steps),
        _ => list,
    };
    let mut script = if bytes { Script::Bytes } else { Script::Spaces { strip: 0 } };
    for step in steps {
        let kind = step["type"].as_str().unwrap_or(if step.is_null() { "null" } else { "" });
        match (kind, &mut script) {
            ("ByteLevel", Script::Bytes) | ("ByteFallback" | "Fuse", Script::Spaces { .. }) => {}
            ("Replace", Script::Spaces { .. })
                if step["pattern"]["String"] == "▁" && step["content"] == " " => {}
            ("Strip", Script::Spaces { strip }) if step["content"] == " " && step["stop"] == 0 => {
                *strip = step["start"].as_u64().map_or(0, |start| start as usize);
            }
            ("Metaspace", Script::Spaces { strip }) if step["replacement"] == "▁" => {
                let never = step["prepend_scheme"] == "never" || step["add_prefix_space"] == false;
                *strip = usize::from(!never);
            }
            _ => return Err(format!("the decoder `{}` is not supported for this model", quoted(kind))),
        }
    }
    Ok(script)
}

impl<'de: 'j, 'j> Deserialize<'de> for Text<'j> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(text.into()))
            }
            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(text.to_owned().into()))
            }
        }
        deserializer.deserialize_str(Any)
    }
}

impl<'de: 'j, 'j> Deserialize<'de> for Vocab<'j> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pieces;
        impl<'de> Visitor<'de> for Pieces {
            type Value = Vocab<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a map from pieces to ids")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vocab<'de>, A::Error> {
                let mut pieces = Vec::new();
                while let Some(piece) = map.next_entry()? {
                    pieces.push(piece);
                }
                Ok(Vocab(pieces))
            }
        }
        deserializer.deserialize_map(Pieces)
    }
}

impl<'de: 'j, 'j> Deserialize<'de> for Merge<'j> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pair;
        fn split(text: &str) -> Option<(&str, &str)> {
            text.split_once(' ').filter(|(_, right)| !right.contains(' '))
        }
        impl<'de> Visitor<'de> for Pair {
            type Value = Merge<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a merge as `left right` or as a pair")
            }
            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Merge<'de>, E> {
                let (left, right) =
                    split(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))?;
                Ok(Merge(Text(left.into()), Text(right.into())))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Merge<'de>, E> {
                let (left, right) =
                    split(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))?;
                Ok(Merge(Text(left.to_owned().into()), Text(right.to_owned().into())))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Merge<'de>, A::Error> {
                let left = seq.next_element()?.ok_or_else(|| de::Error::invalid_length(0, &self))?;
                let right = seq.next_element()?.ok_or_else(|| de::Error::invalid_length(1, &self))?;
                Ok(Merge(left, right))
            }
        }
        deserializer.deserialize_any(Pair)
    }
}
