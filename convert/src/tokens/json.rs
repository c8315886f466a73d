//! A `tokenizer.json` out of the `tokenizer.ggml` arrays.

use serde_json::{Value as Json, json};
use std::collections::HashMap;
use tern::Result;
use tern::Tokenizer;
use tern::file::gguf::Pairs;
use tern::tokenizer::{Kind, cutting};

/// The vocabulary of these keys, which `tokenizer` was read from.
pub(super) fn write(pairs: &Pairs, tokenizer: &Tokenizer) -> Result<String> {
    let texts = pairs.strings("tokenizer.ggml.tokens")?.unwrap_or_default();
    let kinds = pairs.i32s("tokenizer.ggml.token_type")?.unwrap_or_default();
    let kind = |id: usize| kinds.get(id).and_then(|&kind| Kind::from_id(kind)).unwrap_or(Kind::Normal);
    let tokens: Vec<(&str, Kind)> =
        texts.into_iter().enumerate().map(|(id, text)| (text, kind(id))).collect();
    let byte_level = pairs.str("tokenizer.ggml.model")? == Some("gpt2");
    let mut json = match byte_level {
        true => byte_level_steps(pairs, tokens.len())?,
        false => sentencepiece_steps(pairs.bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true), &tokens),
    };
    json["added_tokens"] = added(&tokens);
    let first: Vec<String> = tokenizer.before().iter().filter_map(|&id| tokenizer.token_text(id)).collect();
    if !first.is_empty() {
        json["post_processor"] = beginning(&first, tokenizer);
    }
    // A map of the vocabulary and a list of the merges as JSON values would take some 100 MB: they are spliced in.
    let merges = match byte_level {
        true => pairs
            .strings("tokenizer.ggml.merges")?
            .unwrap_or_default()
            .into_iter()
            .map(str::to_owned)
            .collect(),
        false => merges(&tokens, &pairs.f32s("tokenizer.ggml.scores")?.unwrap_or_default()),
    };
    let frame = json.to_string();
    // The last ones: a token may read the same.
    let place = |mark| frame.rfind(mark).expect("the frame has both marks");
    let (vocab, list) = (place(VOCAB), place(MERGES));
    let mut out = String::with_capacity(frame.len() + 32 * (tokens.len() + merges.len()));
    out.push_str(&frame[..vocab]);
    out.push('{');
    let placed = tokens.iter().enumerate().filter(|(_, (_, kind))| is_piece(*kind, byte_level));
    for (nth, (id, (text, _))) in placed.enumerate() {
        out.push_str(if nth == 0 { "" } else { "," });
        out.push_str(&format!("{}:{id}", Json::from(*text)));
    }
    out.push('}');
    out.push_str(&frame[vocab + VOCAB.len()..list]);
    out.push('[');
    for (nth, merge) in merges.iter().enumerate() {
        out.push_str(if nth == 0 { "" } else { "," });
        out.push_str(&Json::from(merge.as_str()).to_string());
    }
    out.push(']');
    out.push_str(&frame[list + MERGES.len()..]);
    Ok(out)
}

/// Longer tokens are no words; trying all their parts would take long.
const LONGEST: usize = 256;

/// Where the vocabulary and the merges go, at the end of the frame.
const VOCAB: &str = "\"the vocabulary goes here\"";
const MERGES: &str = "\"the merges go here\"";

/// Whether the model's own vocabulary has it: a byte-level one holds no added tokens, SentencePiece's holds all.
fn is_piece(kind: Kind, byte_level: bool) -> bool {
    match byte_level {
        true => matches!(kind, Kind::Normal | Kind::Byte),
        false => kind != Kind::Unused,
    }
}

fn byte_level_steps(pairs: &Pairs, tokens: usize) -> Result<Json> {
    let cut = cutting(pairs, tokens)?;
    let mut steps: Vec<Json> = Vec::new();
    for pattern in cut.patterns {
        let split = json!({ "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false });
        steps.push(split);
    }
    let byte_level =
        json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false });
    steps.push(byte_level.clone());
    let pre_tokenizer = json!({ "type": "Sequence", "pretokenizers": steps });
    Ok(frame(
        Json::Null,
        pre_tokenizer,
        byte_level,
        json!({ "unk_token": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": cut.whole }),
    ))
}

fn sentencepiece_steps(prefix: bool, tokens: &[(&str, Kind)]) -> Json {
    let unknown = tokens.iter().find(|(_, kind)| *kind == Kind::Unknown).map(|(text, _)| *text);
    let spaces = json!({ "type": "Replace", "pattern": { "String": " " }, "content": "▁" });
    let mut normalizers = vec![spaces];
    let mut decoders = vec![
        json!({ "type": "Replace", "pattern": { "String": "▁" }, "content": " " }),
        json!({ "type": "ByteFallback" }),
        json!({ "type": "Fuse" }),
    ];
    if prefix {
        normalizers.insert(0, json!({ "type": "Prepend", "prepend": "▁" }));
        decoders.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
    }
    frame(
        json!({ "type": "Sequence", "normalizers": normalizers }),
        Json::Null,
        json!({ "type": "Sequence", "decoders": decoders }),
        json!({ "unk_token": unknown, "fuse_unk": true, "byte_fallback": true, "ignore_merges": false }),
    )
}

fn frame(normalizer: Json, pre_tokenizer: Json, decoder: Json, mut model: Json) -> Json {
    model["type"] = "BPE".into();
    for absent in ["dropout", "continuing_subword_prefix", "end_of_word_suffix"] {
        model[absent] = Json::Null;
    }
    model["vocab"] = VOCAB.trim_matches('"').into();
    model["merges"] = MERGES.trim_matches('"').into();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer, "post_processor": null, "decoder": decoder, "model": model,
    })
}

fn added(tokens: &[(&str, Kind)]) -> Json {
    let added = tokens.iter().enumerate().filter_map(|(id, (text, kind))| {
        let special = match kind {
            Kind::Control | Kind::Unknown => true,
            Kind::UserDefined => false,
            Kind::Normal | Kind::Unused | Kind::Byte => return None,
        };
        Some(json!({
            "id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            "special": special,
        }))
    });
    added.collect()
}

/// The step that puts these tokens before every text.
fn beginning(first: &[String], tokenizer: &Tokenizer) -> Json {
    let special = |text: &String, kind: u32| json!({ "SpecialToken": { "id": text, "type_id": kind } });
    let with = |id: &str, kind: u32| -> Vec<Json> {
        let tail = std::iter::once(json!({ "Sequence": { "id": id, "type_id": kind } }));
        first.iter().map(|text| special(text, kind)).chain(tail).collect()
    };
    let ids: serde_json::Map<String, Json> = first
        .iter()
        .map(|text| {
            (text.clone(), json!({ "id": text, "ids": [tokenizer.token_id(text)], "tokens": [text] }))
        })
        .collect();
    let pair: Vec<Json> = with("A", 0).into_iter().chain(with("B", 1)).collect();
    json!({ "type": "TemplateProcessing", "single": with("A", 0), "pair": pair, "special_tokens": ids })
}

/// The merges that scores amount to: every way to make a token of two others, best score first.
fn merges(tokens: &[(&str, Kind)], scores: &[f32]) -> Vec<String> {
    let is_word = |(text, kind): &(&str, Kind)| *kind == Kind::Normal && text.len() <= LONGEST;
    let words = tokens.iter().enumerate().filter(|(_, token)| is_word(token));
    let ids: HashMap<&str, usize> = words.map(|(id, (text, _))| (*text, id)).collect();
    let score = |id: usize| scores.get(id).copied().unwrap_or(f32::NEG_INFINITY);
    let mut order: Vec<usize> = ids.values().copied().collect();
    order.sort_by(|&a, &b| score(b).total_cmp(&score(a)).then(a.cmp(&b)));
    let mut merges = Vec::new();
    for id in order {
        let text = tokens[id].0;
        let mut ways: Vec<(usize, usize)> = text
            .char_indices()
            .skip(1)
            .filter_map(|(at, _)| Some((*ids.get(&text[..at])?, *ids.get(&text[at..])?)))
            .collect();
        ways.sort();
        merges
            .extend(ways.into_iter().map(|(left, right)| format!("{} {}", tokens[left].0, tokens[right].0)));
    }
    merges
}
