//! llama.cpp's own paths: completion, slots, and texts to tokens and back.

pub(crate) mod completion;
pub(crate) mod embedding;

mod tokens;

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Query, RawQuery, State};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};
use tern::Specials;

use crate::app::{App, Caller};
use crate::error::Refusal;
use crate::json::{self, Json};
use crate::limits::TEXT;
use crate::prepare::{chatting, conversation};
use crate::ready::Ready;
use crate::served::ByName;
use crate::tools::Tools;
use crate::wire::Request;

/// llama.cpp says `content`, vLLM `prompt`.
#[derive(Deserialize)]
pub(crate) struct Tokenize {
    model: Option<String>,
    #[serde(alias = "prompt", alias = "text")]
    content: Option<String>,
    add_special: Option<bool>,
    add_special_tokens: Option<bool>,
    parse_special: Option<bool>,
    with_pieces: Option<bool>,
}

impl json::Body for Tokenize {}

pub(crate) async fn tokenize(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Json(asked): Json<Tokenize>,
) -> Result<Response, Refusal> {
    let ready = app.model(asked.model.as_deref()).await?;
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
    let (model, context, ids) = app.blocking(caller.owner, &ready, encode).await?;
    Ok(tokens::response(model, context, ids, pieces))
}

#[derive(Deserialize)]
pub(crate) struct Detokenize {
    model: Option<String>,
    tokens: Option<Vec<u32>>,
}

impl json::Body for Detokenize {}

pub(crate) async fn detokenize(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Json(asked): Json<Detokenize>,
) -> Result<axum::Json<Value>, Refusal> {
    let ready = app.model(asked.model.as_deref()).await?;
    let answer = app.blocking(caller.owner, &ready, move |ready| {
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
    Extension(caller): Extension<Caller>,
    Json(request): Json<Request>,
) -> Result<axum::Json<Value>, Refusal> {
    let ready = app.model(request.model.as_deref()).await?;
    let answer = app.blocking(caller.owner, &ready, move |ready| {
        let tools = Tools::of(&request)?;
        let (messages, continued) =
            conversation(&request, tools.as_ref(), ready.keeps_system(), ready.template())?;
        let tokenizer = chatting(ready)?;
        let ids = tokenizer.encode_chat(&messages, continued)?;
        let mut answer = json!({"prompt": tokenizer.decode(&ids, true), "count": ids.len()});
        if request.return_tokens == Some(true) {
            answer["tokens"] = json!(ids);
        }
        Ok(answer)
    });
    Ok(axum::Json(answer.await?))
}

/// The model that is to be loaded or unloaded.
#[derive(Deserialize)]
pub(crate) struct Wanted {
    model: Option<String>,
}

impl json::Body for Wanted {}

/// As llama.cpp's router; the answer comes when the model is there.
pub(crate) async fn load(
    State(app): State<Arc<App>>,
    Json(wanted): Json<Wanted>,
) -> Result<axum::Json<Value>, Refusal> {
    app.model(wanted.model.as_deref()).await?;
    Ok(axum::Json(json!({"success": true})))
}

/// The same: once nobody uses it.
pub(crate) async fn unload(
    State(app): State<Arc<App>>,
    Json(wanted): Json<Wanted>,
) -> Result<axum::Json<Value>, Refusal> {
    let loaded = app.models.let_go(wanted.model.as_deref())?;
    Ok(axum::Json(json!({"success": loaded})))
}

/// What this server is working at, as llama.cpp's slots: no prompts, no texts.
pub(crate) async fn slots(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
    Query(asked): Query<ByName>,
) -> Result<axum::Json<Value>, Refusal> {
    let ready = app.model(asked.model.as_deref()).await?;
    let running = app.metrics.load(&ready.served.name).running;
    let parallel = app.options.parallel;
    if query.is_some_and(|query| query.contains("fail_on_no_slot=1")) && running >= parallel {
        return Err(Refusal::unavailable("every slot is taken"));
    }
    let slot = |id: usize| json!({"id": id, "n_ctx": ready.context, "speculative": false, "is_processing": id < running});
    Ok(axum::Json((0..parallel).map(slot).collect()))
}

/// vLLM's, for tools that tokenize by way of the server.
pub(crate) async fn tokenizer_info(
    State(app): State<Arc<App>>,
    Query(asked): Query<ByName>,
) -> Result<axum::Json<Value>, Refusal> {
    let ready = app.model(asked.model.as_deref()).await?;
    let tokenizer = ready.model.tokenizer()?;
    let text = |id: u32| tokenizer.token_text(id);
    Ok(axum::Json(json!({
        "tokenizer_class": "tern",
        "model_max_length": ready.context,
        "vocab_size": tokenizer.size(),
        "add_bos_token": tokenizer.adds_bos(),
        "bos_token": tokenizer.bos().and_then(text),
        "eos_token": tokenizer.stops().first().copied().and_then(text),
        "pad_token": null,
        "chat_template": tokenizer.template().map(|template| template.source()),
    })))
}
