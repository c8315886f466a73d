//! A tokenizer as the arrays and ids of `tokenizer.ggml`.

use super::Hf;
use serde::Deserialize;
use serde_json::Value as Json;
use std::collections::HashMap;
use tern::file::gguf::{Array, Pairs, Value};
use tern::tokenizer::{AddedToken, Kind, MAX_IDS, Pieces, pre_name};

/// Special tokens that end a turn, for models whose configuration names only the end of the text.
const TURN_ENDS: [&str; 4] = ["<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>"];

/// The score that converters give to tokens beside the vocabulary.
const ADDED_SCORE: f32 = -1000.0;

/// A vocabulary on its way into keys.
pub(super) struct Vocabulary {
    /// Text and kind by id; `None` where no token has the id.
    tokens: Vec<Option<(String, Kind)>>,
    model: Model,
    unknown: Option<u32>,
    bos: Option<u32>,
    eos: Option<u32>,
    /// Whether the BOS comes before every text; `None` if nothing says.
    adds_bos: Option<bool>,
}

enum Model {
    /// Byte-level: pairs in the order in which they merge, and the name of the pattern that cuts words.
    Merges(Vec<String>, Option<&'static str>),
    /// SentencePiece: what merges first scores highest. `prefix` puts a space before every text.
    Scores { scores: Vec<f32>, prefix: bool },
}

/// What counts of a `tokenizer.json`.
#[derive(Deserialize)]
struct File {
    model: FileModel,
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
    #[serde(default)]
    pre_tokenizer: Json,
    #[serde(default)]
    decoder: Json,
    #[serde(default)]
    post_processor: Json,
    #[serde(default)]
    normalizer: Json,
}

#[derive(Deserialize)]
struct FileModel {
    #[serde(default)]
    byte_fallback: Option<bool>,
    #[serde(default)]
    ignore_merges: Option<bool>,
    #[serde(default)]
    unk_token: Option<String>,
    vocab: HashMap<String, u32>,
    merges: Vec<Merge>,
}

/// Both ways in which `tokenizer.json` writes a merge.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Spaced(String),
    Pair(String, String),
}

impl Merge {
    fn spaced(self) -> String {
        match self {
            Self::Spaced(text) => text,
            Self::Pair(left, right) => format!("{left} {right}"),
        }
    }

    fn joined(&self) -> String {
        match self {
            Self::Spaced(text) => text.replacen(' ', "", 1),
            Self::Pair(left, right) => format!("{left}{right}"),
        }
    }
}

impl Vocabulary {
    /// `None` for a tokenizer that is no byte-pair vocabulary, or one that no GGUF reader knows.
    pub(super) fn of_json(text: &[u8], hf: &Hf) -> Option<Self> {
        let file: File = serde_json::from_slice(text).ok()?;
        let byte_level = mentions(&file.decoder, "ByteLevel") || mentions(&file.pre_tokenizer, "ByteLevel");
        if !byte_level && file.model.byte_fallback != Some(true) {
            return None;
        }
        let mut tokens = Vec::new();
        for (text, &id) in &file.model.vocab {
            let is_byte = !byte_level && text.len() == 6 && text.starts_with("<0x") && text.ends_with('>');
            set(&mut tokens, id, text, if is_byte { Kind::Byte } else { Kind::Normal })?;
        }
        for added in &file.added_tokens {
            let is_unknown = file.model.unk_token.as_ref() == Some(&added.content);
            set(&mut tokens, added.id, &added.content, kind(added.special, is_unknown))?;
        }
        let unknown = file.model.unk_token.as_ref().and_then(|text| file.model.vocab.get(text).copied());
        let model = match byte_level {
            true => {
                let pre = pre(&file.pre_tokenizer, file.model.ignore_merges == Some(true));
                Model::Merges(file.model.merges.into_iter().map(Merge::spaced).collect(), pre)
            }
            false => Model::Scores { scores: scores(&file.model.merges, &tokens), prefix: prefix(&file) },
        };
        let bos = hf.id("bos_token", &tokens).or_else(|| hf.config["bos_token_id"].as_u64()?.try_into().ok());
        let text = bos.and_then(|bos| Some(&tokens.get(bos as usize)?.as_ref()?.0));
        let adds_bos = match (&file.post_processor, text) {
            (Json::Null, _) | (_, None) => None,
            (processor, Some(text)) => Some(mentions(processor, text)),
        };
        Some(Self { tokens, model, unknown, bos, eos: None, adds_bos })
    }

    /// A SentencePiece model, and tokens beside it.
    pub(super) fn of_pieces(pieces: &Pieces, more: &[AddedToken], hf: &Hf) -> Self {
        let mut tokens: Vec<_> =
            pieces.pieces.iter().map(|piece| Some((piece.text.to_owned(), piece.kind))).collect();
        let mut scores: Vec<f32> = pieces.pieces.iter().map(|piece| piece.score).collect();
        for added in more.iter().filter(|added| added.id as usize >= pieces.pieces.len()) {
            // Ids are below a limit, by which the tokenizer checked them.
            if set(&mut tokens, added.id, &added.content, kind(added.special, false)).is_none() {
                break;
            }
        }
        scores.resize(tokens.len(), ADDED_SCORE);
        let unknown = pieces.pieces.iter().position(|piece| piece.kind == Kind::Unknown).map(|id| id as u32);
        let bos = hf.id("bos_token", &tokens).or(pieces.bos);
        let model = Model::Scores { scores, prefix: pieces.prefix };
        Self { tokens, model, unknown, bos, eos: pieces.eos, adds_bos: None }
    }

    /// Adds the keys; says what others will not read as it is. An array has as many entries as the embedding has
    /// `rows`: other programs count on that.
    pub(super) fn insert(mut self, hf: &Hf, rows: usize, pairs: &mut Pairs) -> Option<String> {
        let mut note = None;
        if self.tokens.len() > rows {
            note = Some(format!(
                "the tokenizer has {} tokens, the model {rows}: the others are left out",
                self.tokens.len()
            ));
        }
        let adds_bos =
            self.adds_bos.or_else(|| hf.tokenizer_config.as_ref()?.get("add_bos_token")?.as_bool());
        let ids = self.ids(hf);
        let byte_level = matches!(self.model, Model::Merges(..)); // whose names have defaults of their own
        self.tokens.resize(rows, None);
        let mut put = |key: &str, value: Value| pairs.insert(&format!("tokenizer.ggml.{key}"), value);
        match self.model {
            Model::Merges(merges, pre) => {
                put("model", Value::String("gpt2".into()));
                match pre {
                    Some(pre) => {
                        put("pre", Value::String(pre.into()));
                    }
                    None => {
                        let what = "other programs may split words differently: GGUF has no name for this \
                                    tokenizer's pattern";
                        note = note.or(Some(what.into()));
                    }
                }
                put("merges", Value::Array(Array::from_strings(merges)));
            }
            Model::Scores { mut scores, prefix } => {
                scores.resize(rows, ADDED_SCORE);
                put("model", Value::String("llama".into()));
                put("scores", Value::Array(Array::from_f32s(&scores)));
                put("add_space_prefix", Value::Bool(prefix));
            }
        }
        let kinds: Vec<i32> = self
            .tokens
            .iter()
            .map(|token| token.as_ref().map_or(Kind::Unused, |token| token.1) as i32)
            .collect();
        let names = self.tokens.iter().enumerate().map(|(id, token)| match token {
            Some((text, _)) => text.clone(),
            None => format!("[PAD{id}]"),
        });
        put("tokens", Value::Array(Array::from_strings(names)));
        put("token_type", Value::Array(Array::from_i32s(&kinds)));
        for (name, id) in ids {
            if let Some(id) = id.filter(|&id| (id as usize) < rows) {
                put(&format!("{name}_token_id"), Value::U32(id));
            }
        }
        if let Some(adds) = adds_bos.or(byte_level.then_some(false)) {
            put("add_bos_token", Value::Bool(adds));
        }
        note
    }

    /// The tokens with a role.
    fn ids(&self, hf: &Hf) -> [(&'static str, Option<u32>); 5] {
        let stops = |config: &Json| -> Vec<u32> {
            let value = &config["eos_token_id"];
            let ids = value.as_array().into_iter().flatten().chain(std::iter::once(value));
            ids.filter_map(|id| u32::try_from(id.as_u64()?).ok()).collect()
        };
        let of_generation = hf.generation_config.as_ref().map(stops).unwrap_or_default();
        let of_model = stops(hf.config);
        let mut all = of_model.iter().chain(&of_generation).copied();
        let eos =
            hf.id("eos_token", &self.tokens).filter(|_| of_model.is_empty()).or(all.next()).or(self.eos);
        let other = all.find(|id| Some(*id) != eos);
        let turn_end = other.or_else(|| TURN_ENDS.iter().find_map(|text| find(&self.tokens, text)));
        let padding = hf.id("pad_token", &self.tokens);
        [("bos", self.bos), ("eos", eos), ("eot", turn_end), ("unknown", self.unknown), ("padding", padding)]
    }
}

impl Hf<'_> {
    /// The id of the token that `tokenizer_config.json` names: by a string, or by an object with it in `content`.
    fn id(&self, key: &str, tokens: &[Option<(String, Kind)>]) -> Option<u32> {
        let token = self.tokenizer_config.as_ref()?.get(key)?;
        find(tokens, token.as_str().or_else(|| token.get("content")?.as_str())?)
    }
}

/// An added token with this text, or else any.
fn find(tokens: &[Option<(String, Kind)>], text: &str) -> Option<u32> {
    let is = |token: &Option<(String, Kind)>| token.as_ref().is_some_and(|(name, _)| name == text);
    let added = |token: &Option<(String, Kind)>| {
        is(token) && token.as_ref().is_some_and(|(_, kind)| !matches!(kind, Kind::Normal | Kind::Byte))
    };
    tokens.iter().position(added).or_else(|| tokens.iter().position(is)).map(|id| id as u32)
}

/// `None` for an id that no vocabulary has.
fn set(tokens: &mut Vec<Option<(String, Kind)>>, id: u32, text: &str, kind: Kind) -> Option<()> {
    let id = id as usize;
    if id >= MAX_IDS {
        return None;
    }
    if id >= tokens.len() {
        tokens.resize(id + 1, None);
    }
    tokens[id] = Some((text.to_owned(), kind));
    Some(())
}

fn kind(special: bool, is_unknown: bool) -> Kind {
    match (special, is_unknown) {
        (true, true) => Kind::Unknown,
        (true, false) => Kind::Control,
        (false, _) => Kind::UserDefined,
    }
}

/// Scores that make the best-score-first merging of SentencePiece follow the ranks of the merges.
fn scores(merges: &[Merge], tokens: &[Option<(String, Kind)>]) -> Vec<f32> {
    let mut ranks = HashMap::new();
    for (rank, merge) in merges.iter().enumerate() {
        ranks.entry(merge.joined()).or_insert(rank);
    }
    // No merge makes the others; they come last.
    let rank = |text: &str| ranks.get(text).copied().unwrap_or(merges.len());
    tokens.iter().map(|token| token.as_ref().map_or(ADDED_SCORE, |token| -(rank(&token.0) as f32))).collect()
}

/// Whether a space comes before every text: by the normaliser, or in newer files by the pre-tokenizer.
fn prefix(file: &File) -> bool {
    let scheme = |json: &Json| {
        mentions(json, "Metaspace") && !mentions(json, "never") && json["add_prefix_space"] != false
    };
    mentions(&file.normalizer, "Prepend") || scheme(&file.pre_tokenizer)
}

/// The GGUF name of the pattern that cuts text into words.
fn pre(pre_tokenizer: &Json, whole: bool) -> Option<&'static str> {
    // Contractions are written in several ways that match the same.
    const LLAMA3: &str =
        r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    const QWEN2: &str = r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    let patterns = patterns(pre_tokenizer);
    let contractions =
        |pattern: &str| ["(?i:'s|", "(?:'[sS]|"].iter().any(|start| pattern.starts_with(start));
    match patterns[..] {
        [] => Some("gpt-2"), // ByteLevel's own pattern
        [pattern] if contractions(pattern) && pattern.ends_with(LLAMA3) => Some("llama-bpe"),
        [pattern] if contractions(pattern) && pattern.ends_with(QWEN2) => Some("qwen2"),
        _ => pre_name(&patterns, whole),
    }
}

/// Whether a string occurs among the values of some JSON.
fn mentions(json: &Json, text: &str) -> bool {
    match json {
        Json::String(found) => found == text,
        Json::Array(items) => items.iter().any(|item| mentions(item, text)),
        Json::Object(items) => items.values().any(|item| mentions(item, text)),
        _ => false,
    }
}

/// The regular expressions of a pre-tokenizer, in order.
fn patterns(json: &Json) -> Vec<&str> {
    match json {
        Json::Array(items) => items.iter().flat_map(patterns).collect(),
        Json::Object(items) => match items.get("Regex").and_then(Json::as_str) {
            Some(pattern) => vec![pattern],
            None => items.values().flat_map(patterns).collect(),
        },
        _ => Vec::new(),
    }
}
