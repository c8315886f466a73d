//! Texts to tokens and back, without the model's weights.

use std::sync::Arc;

use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};
use tern::Specials;

use crate::app::App;
use crate::error::Refusal;
use crate::json::Json;
use crate::limits::TEXT;
use crate::prepare::{chatting, conversation};
use crate::tools::Tools;
use crate::wire::Request;

/// llama.cpp says `content`, vLLM `prompt`.
#[derive(Deserialize)]
pub(crate) struct Tokenize {
    #[serde(alias = "prompt", alias = "text")]
    content: Option<String>,
    add_special: Option<bool>,
    add_special_tokens: Option<bool>,
    parse_special: Option<bool>,
    with_pieces: Option<bool>,
}

pub(crate) async fn tokenize(
    State(app): State<Arc<App>>,
    Json(asked): Json<Tokenize>,
) -> Result<axum::Json<Value>, Refusal> {
    let answer = app.apart(move |ready| {
        let text = asked.content.ok_or_else(|| Refusal::field("content", "expected a text, found none"))?;
        if text.len() > TEXT {
            return Err(Refusal::too_large(format!("the text has more than {TEXT} bytes")));
        }
        let tokenizer = ready.model.tokenizer()?;
        let bos = asked.add_special.or(asked.add_special_tokens).unwrap_or(false) && tokenizer.adds_bos();
        let specials = if asked.parse_special == Some(false) { Specials::Text } else { Specials::Parse };
        let ids = tokenizer.encode(&text, bos, specials)?;
        let count = ids.len();
        let tokens: Vec<Value> = if asked.with_pieces == Some(true) {
            let piece = |id: u32| {
                let (bytes, _) = tokenizer.token_bytes(id).unwrap_or_default();
                String::from_utf8(bytes).map_or_else(|error| json!(error.into_bytes()), |text| json!(text))
            };
            ids.iter().map(|&id| json!({"id": id, "piece": piece(id)})).collect()
        } else {
            ids.iter().map(|id| json!(id)).collect()
        };
        Ok(json!({"tokens": tokens, "count": count, "max_model_len": ready.context}))
    });
    Ok(axum::Json(answer.await?))
}

#[derive(Deserialize)]
pub(crate) struct Detokenize {
    tokens: Option<Vec<u32>>,
}

pub(crate) async fn detokenize(
    State(app): State<Arc<App>>,
    Json(asked): Json<Detokenize>,
) -> Result<axum::Json<Value>, Refusal> {
    let answer = app.apart(move |ready| {
        let ids = asked
            .tokens
            .ok_or_else(|| Refusal::field("tokens", "expected a list of token ids, found none"))?;
        let tokenizer = ready.model.tokenizer()?;
        let size = tokenizer.size();
        if let Some(id) = ids.iter().find(|id| **id as usize >= size) {
            return Err(Refusal::field("tokens", format!("expected ids below {size}, found {id}")));
        }
        let text = tokenizer.decode(&ids, true);
        Ok(json!({"content": text, "prompt": text}))
    });
    Ok(axum::Json(answer.await?))
}

/// The text that a conversation becomes.
pub(crate) async fn apply_template(
    State(app): State<Arc<App>>,
    Json(request): Json<Request>,
) -> Result<axum::Json<Value>, Refusal> {
    let answer = app.apart(move |ready| {
        let tools = Tools::of(&request)?;
        let (messages, continued) = conversation(&request, tools.as_ref())?;
        let tokenizer = chatting(ready)?;
        let ids = tokenizer.encode_chat(&messages, continued)?;
        Ok(json!({"prompt": tokenizer.decode(&ids, true), "count": ids.len()}))
    });
    Ok(axum::Json(answer.await?))
}
