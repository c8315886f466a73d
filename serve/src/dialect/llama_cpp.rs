//! Texts to tokens and back, without the model's weights.

mod tokens;

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};
use tern::Specials;

use crate::app::{App, Caller};
use crate::error::Refusal;
use crate::json::Json;
use crate::limits::TEXT;
use crate::prepare::{chatting, conversation};
use crate::ready::Ready;
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
    Extension(caller): Extension<Caller>,
    Json(asked): Json<Tokenize>,
) -> Result<Response, Refusal> {
    let pieces = asked.with_pieces == Some(true);
    let encode = move |ready: &Ready| {
        let text = asked.content.ok_or_else(|| Refusal::field("content", "expected a text, found none"))?;
        if text.len() > TEXT {
            return Err(Refusal::too_large(format!("the text has more than {TEXT} bytes")));
        }
        caller.note.encodes()?;
        let tokenizer = ready.model.tokenizer()?;
        let bos = asked.add_special.or(asked.add_special_tokens).unwrap_or(false) && tokenizer.adds_bos();
        let specials = if asked.parse_special == Some(false) { Specials::Text } else { Specials::Parse };
        let ids = tokenizer.encode(&text, bos, specials)?;
        caller.note.holds(ids.capacity() * size_of::<u32>() + 2 * tokens::PIECE)?;
        Ok((ready.model.clone(), ready.context, ids))
    };
    let (model, context, ids) = app.apart(encode).await?;
    Ok(tokens::response(model, context, ids, pieces))
}

#[derive(Deserialize)]
pub(crate) struct Detokenize {
    tokens: Option<Vec<u32>>,
}

pub(crate) async fn detokenize(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
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
        // Few ids can be a long text: it is measured before it is made.
        let bytes = |id: &u32| tokenizer.token_bytes(*id).map_or(0, |(bytes, _)| bytes.len());
        let bytes: usize = ids.iter().map(bytes).sum();
        if bytes > TEXT {
            return Err(Refusal::too_large(format!("the text of these ids has more than {TEXT} bytes")));
        }
        // Twice in the answer, as values and written.
        caller.note.takes(8 * bytes)?;
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
