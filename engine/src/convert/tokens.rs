//! The tokenizer of a model on its way: whole as `tokenizer.huggingface.json`, and as the `tokenizer.ggml` arrays that
//! other programs read.

use crate::error::{Error, Result};
use crate::file::gguf::{Array, Pairs, Value};
use crate::file::hf_write;
use crate::file::write::Draft;
use serde::Deserialize;
use serde_json::{Map, Value as Json, json};
use std::collections::HashMap;
use std::path::Path;

/// The key that holds a whole `tokenizer.json`.
const WHOLE: &str = "tokenizer.huggingface.json";
const TEMPLATE: &str = "tokenizer.chat_template";
const FILE: &str = "tokenizer.json";
/// Far above the largest real ones.
const LIMIT: u64 = 64 << 20;

/// What a checkpoint directory keeps beside its weights that belongs to its text.
const COPIED: [&str; 9] = [
    FILE,
    "tokenizer_config.json",
    "generation_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
];

/// Special tokens that end a turn, for models whose configuration names only the end of the text.
const TURN_ENDS: [&str; 4] = ["<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>"];

/// The JSON files of a checkpoint directory.
pub(super) struct Hf<'a> {
    pub(super) dir: &'a Path,
    pub(super) config: &'a Json,
    pub(super) tokenizer_config: &'a Option<Json>,
    pub(super) generation_config: &'a Option<Json>,
}

/// Copies the text files of a directory.
pub(super) fn copied(dir: &Path, draft: &Draft) -> Result<Vec<String>> {
    for name in COPIED {
        let path = dir.join(name);
        if !path.exists() {
            continue;
        }
        let mut from = std::fs::File::open(&path).map_err(|e| Error::io(&path, e))?;
        let mut out = draft.create(name)?;
        let to = draft.path().join(name);
        std::io::copy(&mut from, &mut out).map_err(|e| Error::io(&to, e))?;
        out.finish().map_err(|e| Error::io(&to, e))?;
    }
    Ok(match dir.join(FILE).exists() || dir.join("tokenizer.model").exists() {
        true => Vec::new(),
        false => vec!["the input has no tokenizer, so the output has none".into()],
    })
}

/// Writes the text files that a GGUF's keys amount to.
pub(super) fn from_gguf(pairs: &Pairs, draft: &Draft) -> Result<Vec<String>> {
    let put = |name: &str, bytes: &[u8]| hf_write::put(draft, name, bytes);
    let tokens = pairs.strings("tokenizer.ggml.tokens")?;
    let id = |name: &str| pairs.u32(&format!("tokenizer.ggml.{name}_token_id"));
    let (bos, eos, eot) = (id("bos")?, id("eos")?, id("eot")?);
    let text = |id: Option<u32>| Some((*tokens.as_ref()?.get(id? as usize)?).to_owned());
    let mut config = Map::new();
    config.insert("tokenizer_class".into(), "PreTrainedTokenizerFast".into());
    for (key, id) in [("bos_token", bos), ("eos_token", eos)] {
        if let Some(text) = text(id) {
            config.insert(key.into(), text.into());
        }
    }
    if let Some(template) = pairs.str(TEMPLATE)? {
        config.insert("chat_template".into(), template.into());
    }
    let mut stops: Vec<u32> = [eos, eot].into_iter().flatten().collect();
    stops.dedup();
    if !stops.is_empty() {
        let generation = json!({ "bos_token_id": bos, "eos_token_id": stops });
        put("generation_config.json", super::keys::pretty(&generation).as_bytes())?;
    }
    let Some(whole) = pairs.str(WHOLE)? else {
        let what = "the input has no tokenizer in Hugging Face's form, so the output has none; copy its tokenizer.json there";
        return Ok(vec![what.into()]);
    };
    put("tokenizer_config.json", super::keys::pretty(&Json::Object(config)).as_bytes())?;
    put(FILE, whole.as_bytes())?;
    Ok(Vec::new())
}

/// Puts the tokenizer and the chat template of a directory into keys.
pub(super) fn to_gguf(hf: &Hf, vocab: usize, pairs: &mut Pairs) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    if let Some(template) = template(hf)? {
        pairs.insert(TEMPLATE, Value::String(template));
    }
    let path = hf.dir.join(FILE);
    let Some(text) = read(&path)? else {
        notes.push(format!("the input has no {FILE}, so the output has no tokenizer"));
        return Ok(notes);
    };
    match Vocabulary::parse(&text) {
        Some(vocabulary) => notes.extend(vocabulary.insert(hf, vocab, pairs)),
        None => {
            notes.push("this kind of tokenizer has no GGUF form; only Tern will read the output's".into())
        }
    }
    pairs.insert(WHOLE, Value::String(text));
    Ok(notes)
}

fn read(path: &Path) -> Result<Option<String>> {
    let io = |e| Error::io(path, e);
    match std::fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(io(e)),
        Ok(meta) if meta.len() > LIMIT => {
            return Err(Error::file(path, format!("expected at most {LIMIT} bytes, found {}", meta.len())));
        }
        Ok(_) => {}
    }
    std::fs::read_to_string(path).map(Some).map_err(io)
}

/// The chat template: a file of its own, or in `tokenizer_config.json`, alone or as the one called "default".
fn template(hf: &Hf) -> Result<Option<String>> {
    if let Some(template) = read(&hf.dir.join("chat_template.jinja"))? {
        return Ok(Some(template));
    }
    let Some(template) = hf.tokenizer_config.as_ref().and_then(|config| config.get("chat_template")) else {
        return Ok(None);
    };
    let named = || template.as_array()?.iter().find(|t| t["name"] == "default")?.get("template")?.as_str();
    Ok(template.as_str().or_else(named).map(str::to_owned))
}

/// A byte-pair vocabulary of `tokenizer.json`, of either kind.
#[derive(Deserialize)]
struct Vocabulary {
    model: Model,
    #[serde(default)]
    added_tokens: Vec<Added>,
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
struct Model {
    #[serde(default)]
    byte_fallback: bool,
    #[serde(default)]
    unk_token: Option<String>,
    vocab: HashMap<String, u32>,
    merges: Vec<Merge>,
}

#[derive(Deserialize)]
struct Added {
    id: u32,
    content: String,
    #[serde(default)]
    special: bool,
}

/// Both ways in which `tokenizer.json` writes a merge.
#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Spaced(String),
    Pair(String, String),
}

impl Merge {
    fn spaced(&self) -> String {
        match self {
            Self::Spaced(text) => text.clone(),
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

/// The numbers of `tokenizer.ggml.token_type`.
mod kind {
    pub(super) const NORMAL: i32 = 1;
    pub(super) const UNKNOWN: i32 = 2;
    pub(super) const CONTROL: i32 = 3;
    pub(super) const USER_DEFINED: i32 = 4;
    pub(super) const UNUSED: i32 = 5;
    pub(super) const BYTE: i32 = 6;
}

impl Vocabulary {
    /// `None` for a tokenizer that is no byte-pair vocabulary, or one that no GGUF reader knows.
    fn parse(text: &str) -> Option<Self> {
        let vocabulary: Self = serde_json::from_str(text).ok()?;
        (vocabulary.is_byte_level() || vocabulary.model.byte_fallback).then_some(vocabulary)
    }

    fn is_byte_level(&self) -> bool {
        mentions(&self.decoder, "ByteLevel") || mentions(&self.pre_tokenizer, "ByteLevel")
    }

    fn insert(&self, hf: &Hf, rows: usize, pairs: &mut Pairs) -> Option<String> {
        let byte_level = self.is_byte_level();
        let mut put = |key: &str, value: Value| pairs.insert(&format!("tokenizer.ggml.{key}"), value);
        put("model", Value::String(if byte_level { "gpt2" } else { "llama" }.into()));
        let pre = self.pre();
        if let (true, Some(pre)) = (byte_level, pre) {
            put("pre", Value::String(pre.into()));
        }
        let (tokens, kinds) = self.tokens(rows, byte_level);
        if !byte_level {
            put("scores", Value::Array(Array::from_f32s(&self.scores(&tokens))));
            put("add_space_prefix", Value::Bool(mentions(&self.normalizer, "Prepend")));
        }
        put("tokens", Value::Array(Array::from_strings(&tokens)));
        put("token_type", Value::Array(Array::from_i32s(&kinds)));
        if byte_level {
            put("merges", Value::Array(Array::from_strings(self.model.merges.iter().map(Merge::spaced))));
        }
        let id =
            |text: &str| self.added_tokens.iter().find(|added| added.content == text).map(|added| added.id);
        let named = |key: &str| {
            // A string, or an object with the string in `content`.
            let token = hf.tokenizer_config.as_ref()?.get(key)?;
            id(token.as_str().or_else(|| token.get("content")?.as_str())?)
        };
        let stops = |config: &Json| -> Vec<u32> {
            let value = &config["eos_token_id"];
            let ids = value.as_array().into_iter().flatten().chain(std::iter::once(value));
            ids.filter_map(|id| u32::try_from(id.as_u64()?).ok()).collect()
        };
        let generation = hf.generation_config.as_ref().map(stops).unwrap_or_default();
        let config_stops = stops(hf.config);
        let bos = named("bos_token").or_else(|| u32::try_from(hf.config["bos_token_id"].as_u64()?).ok());
        let eos = config_stops.first().or(generation.first()).copied().or_else(|| named("eos_token"));
        let turn_end = generation.iter().chain(&config_stops).copied().find(|id| Some(*id) != eos);
        let eot = turn_end.or_else(|| TURN_ENDS.iter().find_map(|text| id(text)));
        let unknown = self.model.unk_token.as_ref().and_then(|text| self.model.vocab.get(text).copied());
        let ids =
            [("bos", bos), ("eos", eos), ("eot", eot), ("unknown", unknown), ("padding", named("pad_token"))];
        for (name, id) in ids {
            if let Some(id) = id {
                put(&format!("{name}_token_id"), Value::U32(id));
            }
        }
        if let Some(adds) = self.adds(bos, hf) {
            put("add_bos_token", Value::Bool(adds));
        }
        (byte_level && pre.is_none()).then(|| {
            "other programs may split words differently: GGUF has no name for this tokenizer's pattern".into()
        })
    }

    /// Token texts and types by id, as many as the embedding has rows: other programs count on that.
    fn tokens(&self, rows: usize, byte_level: bool) -> (Vec<String>, Vec<i32>) {
        let mut tokens: Vec<String> = (0..rows).map(|id| format!("[PAD{id}]")).collect();
        let mut kinds = vec![kind::UNUSED; rows];
        let mut set = |id: u32, text: &str, kind: i32| {
            if let (Some(token), Some(slot)) = (tokens.get_mut(id as usize), kinds.get_mut(id as usize)) {
                text.clone_into(token);
                *slot = kind;
            }
        };
        for (text, &id) in &self.model.vocab {
            let is_byte = !byte_level && text.len() == 6 && text.starts_with("<0x") && text.ends_with('>');
            set(id, text, if is_byte { kind::BYTE } else { kind::NORMAL });
        }
        for added in &self.added_tokens {
            let kind = match added.special {
                true if self.model.unk_token.as_ref() == Some(&added.content) => kind::UNKNOWN,
                true => kind::CONTROL,
                false => kind::USER_DEFINED,
            };
            set(added.id, &added.content, kind);
        }
        (tokens, kinds)
    }

    /// Scores that make the best-score-first merging of SentencePiece follow the ranks of the merges.
    fn scores(&self, tokens: &[String]) -> Vec<f32> {
        let mut ranks = HashMap::new();
        for (rank, merge) in self.model.merges.iter().enumerate() {
            ranks.entry(merge.joined()).or_insert(rank);
        }
        // No merge makes the others; they come last.
        let last = self.model.merges.len();
        tokens.iter().map(|token| -(ranks.get(token).copied().unwrap_or(last) as f32)).collect()
    }

    /// The GGUF name of the pattern that cuts text into words.
    fn pre(&self) -> Option<&'static str> {
        const LLAMA3: &str = r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
        const QWEN2: &str = r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
        const GPT2: &str = r"?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
        let patterns = patterns(&self.pre_tokenizer);
        let ends = |end: &str| patterns.iter().any(|pattern| pattern.ends_with(end));
        match patterns[..] {
            [_] if ends(LLAMA3) => Some("llama-bpe"),
            [_] if ends(QWEN2) => Some("qwen2"),
            [_] if ends(GPT2) => Some("gpt-2"),
            [] => Some("gpt-2"), // ByteLevel's own pattern
            _ => None,
        }
    }

    /// Whether the tokenizer puts the BOS in front of a text; `None` if nothing says.
    fn adds(&self, bos: Option<u32>, hf: &Hf) -> Option<bool> {
        let said = || hf.tokenizer_config.as_ref()?.get("add_bos_token")?.as_bool();
        let text = bos.and_then(|bos| self.added_tokens.iter().find(|added| added.id == bos));
        match (&self.post_processor, text) {
            (Json::Null, _) | (_, None) => said(),
            (processor, Some(bos)) => Some(mentions(processor, &bos.content)),
        }
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
