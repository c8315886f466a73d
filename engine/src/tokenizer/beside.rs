//! The tokenizer files of a Hugging Face model directory, and what the JSON files beside them add: the ids that end a
//! text, the chat template, tokens that a `tokenizer.model` lacks.

use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::added::AddedToken;
use super::{Tokenizer, sentencepiece, template_with};
use crate::file::gguf;
use crate::file::hf::{GENERATION, bytes_beside, json_beside};
use crate::file::map::regular;
use crate::{Error, Result};

/// The JSON files of a model that speak of its tokens; null where one is not there.
#[derive(Default)]
pub(super) struct Configs {
    pub(super) model: Value,
    pub(super) tokenizer: Value,
    pub(super) generation: Value,
}

impl Configs {
    pub(super) fn of(dir: &Path) -> Result<Self> {
        let read = |name: &str| Ok::<_, Error>(json_beside(&dir.join(name))?.unwrap_or(Value::Null));
        Ok(Self {
            model: read("config.json")?,
            tokenizer: read("tokenizer_config.json")?,
            generation: read(GENERATION)?,
        })
    }
}

/// The tokenizer of a model directory; `None` if there is no file of one.
pub(super) fn of_dir(dir: &Path, configs: &Configs) -> Result<Option<Tokenizer>> {
    let more = added_tokens(dir, configs)?;
    let mut found = None;
    for name in ["tokenizer.json", "tokenizer.model"] {
        let path = dir.join(name);
        if path.exists() {
            let mut tokenizer = of_file(&path, more)?;
            // A tokenizer.json says itself what it puts before a text.
            if name == "tokenizer.model" && configs.tokenizer["add_bos_token"] == false {
                tokenizer.before.clear();
            }
            found = Some(tokenizer);
            break;
        }
    }
    let Some(mut tokenizer) = found else { return Ok(None) };

    let named = |value: &Value| {
        let text = value.as_str().or_else(|| value["content"].as_str())?;
        tokenizer.token_id(text)
    };
    let ids = |value: &Value| -> Vec<u32> {
        let one = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        value
            .as_array()
            .map_or_else(|| one(value).into_iter().collect(), |all| all.iter().filter_map(one).collect())
    };
    let eos = named(&configs.tokenizer["eos_token"]);
    let of_model = ids(&configs.model["eos_token_id"]);
    let of_generation = ids(&configs.generation["eos_token_id"]);
    let bos = named(&configs.tokenizer["bos_token"])
        .or_else(|| ids(&configs.model["bos_token_id"]).first().copied())
        .filter(|&id| (id as usize) < tokenizer.size());
    let eos_text = eos.or_else(|| of_model.first().copied()).or_else(|| of_generation.first().copied());
    tokenizer.stop_at(eos.into_iter().chain(of_model).chain(of_generation));
    tokenizer.bos = tokenizer.bos.or(bos);
    if let Some(source) = template(dir, &configs.tokenizer)? {
        tokenizer.template = Some(template_with(&tokenizer, &source, tokenizer.bos, eos_text)?);
    }
    Ok(Some(tokenizer))
}

/// A `tokenizer.json`, a SentencePiece or a tiktoken `tokenizer.model`: they begin differently.
pub(super) fn of_file(path: &Path, more: Vec<AddedToken>) -> Result<Tokenizer> {
    let file = bytes_beside(path)?.ok_or_else(|| Error::file(path, "expected a tokenizer, found no file"))?;
    let first = file.iter().find(|byte| !byte.is_ascii_whitespace() || file[0] == b'\n');
    let tokenizer = match first {
        Some(b'{') => super::json::read(&file),
        // The tag of a SentencePiece model's first piece.
        Some(b'\n') => sentencepiece::read(&file, more).map(|tokenizer| {
            let bos = tokenizer.bos.into_iter().collect();
            tokenizer.beginning_with(bos)
        }),
        _ => super::tiktoken::read(&file),
    };
    tokenizer.map_err(|what| Error::file(path, what))
}

/// The tokens of a directory that its `tokenizer.model` does not hold.
pub fn added_beside(dir: &Path) -> Result<Vec<AddedToken>> {
    added_tokens(dir, &Configs::of(dir)?)
}

/// Whether a file begins as a GGUF does.
pub(super) fn is_gguf(path: &Path) -> Result<bool> {
    let mut start = Vec::new();
    let (file, length) = regular(path)?;
    if length == 0 {
        return Err(Error::file(path, "the file is empty"));
    }
    file.take(gguf::MAGIC.len() as u64).read_to_end(&mut start).map_err(|e| Error::io(path, e))?;
    Ok(start == gguf::MAGIC)
}

/// The tokens that a `tokenizer.model` does not hold: `added_tokens.json` and the tokenizer's configuration.
fn added_tokens(dir: &Path, configs: &Configs) -> Result<Vec<AddedToken>> {
    let mut tokens = Vec::new();
    if let Some(decoder) = configs.tokenizer["added_tokens_decoder"].as_object() {
        for (id, token) in decoder {
            let mut token = token.clone();
            token["id"] = id.parse::<u32>().ok().into();
            let token = AddedToken::deserialize(&token).map_err(|e| {
                let what = crate::error::quoted(&e.to_string());
                Error::key(&dir.join("tokenizer_config.json"), "added_tokens_decoder", what)
            })?;
            tokens.push(token);
        }
    }
    if let Some(Value::Object(named)) = json_beside(&dir.join("added_tokens.json"))? {
        for (content, id) in named {
            if let Some(id) = id.as_u64().and_then(|id| u32::try_from(id).ok())
                && !tokens.iter().any(|token| token.id == id)
            {
                tokens.push(AddedToken::new(id, &content, false));
            }
        }
    }
    Ok(tokens)
}

/// The chat template: a file of its own, or in the tokenizer's configuration, there perhaps one of several.
pub fn template(dir: &Path, config: &Value) -> Result<Option<String>> {
    let path = dir.join("chat_template.jinja");
    if let Some(text) = bytes_beside(&path)? {
        let text = String::from_utf8(text);
        return text.map(Some).map_err(|_| Error::file(&path, "expected UTF-8"));
    }
    let of = |value: &Value| -> Option<String> {
        let named = |all: &Vec<Value>| all.iter().find(|t| t["name"] == "default").cloned();
        let value = value.as_array().and_then(named).map_or_else(|| value.clone(), |t| t["template"].clone());
        value.as_str().map(str::to_owned)
    };
    if let Some(source) = of(&config["chat_template"]) {
        return Ok(Some(source));
    }
    Ok(json_beside(&dir.join("chat_template.json"))?.and_then(|value| of(&value["chat_template"])))
}
