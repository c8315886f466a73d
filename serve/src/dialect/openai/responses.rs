//! `/v1/responses`: the newer of OpenAI's two chats. Answers are kept for a while, so that the next request need not bring
//! its conversation (`store`).

mod events;
mod items;
pub(crate) mod store;
mod tools;

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use self::events::Events;
use self::store::Store;
use self::tools::Kinds;
use crate::answer::Envelope;
use crate::app::{App, Caller};
use crate::error::Refusal;
use crate::json::{self, Json};
use crate::limits::TOP_LOGPROBS;
use crate::prepare::{Kind, chat};
use crate::ready::Ready;
use crate::refused::{self, Setting};
use crate::stream;
use crate::tools::Tools;
use crate::wire::{self, Logprobs};

#[derive(Deserialize)]
pub(crate) struct Request {
    model: Option<String>,
    input: Option<Value>,
    instructions: Option<String>,
    max_output_tokens: Option<i64>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_logprobs: Option<usize>,
    stream: Option<bool>,
    tools: Option<Vec<Value>>,
    tool_choice: Option<Value>,
    parallel_tool_calls: Option<bool>,
    text: Option<Value>,
    previous_response_id: Option<String>,
    store: Option<bool>,
    include: Option<Vec<String>>,
    metadata: Option<Value>,
    reasoning: Option<Value>,
    timings_per_token: Option<bool>,
    return_progress: Option<bool>,
}

impl json::Body for Request {
    const REFUSED: &'static [Setting] = refused::RESPONSES;
}

/// A request translated, and what its answer needs beside it.
struct Common {
    request: wire::Request,
    /// What the answer repeats of the request.
    echo: Value,
    kinds: Kinds,
    /// The conversation without its instructions, if it is to be kept.
    kept: Option<Vec<wire::Message>>,
}

impl Request {
    fn common(self, store: &Store, caller: &Caller) -> Result<Common, Refusal> {
        let holder = caller.holder();
        let format = self.text.as_ref().map(|text| text["format"].clone()).filter(|format| !format.is_null());
        let echo = json!({
            "instructions": self.instructions,
            "max_output_tokens": self.max_output_tokens,
            "metadata": self.metadata.unwrap_or_else(|| json!({})),
            "parallel_tool_calls": self.parallel_tool_calls != Some(false),
            "previous_response_id": self.previous_response_id,
            "reasoning": self.reasoning,
            "store": self.store != Some(false),
            "temperature": self.temperature,
            "text": self.text.unwrap_or_else(|| json!({"format": {"type": "text"}})),
            "tool_choice": self.tool_choice.clone().unwrap_or_else(|| json!("auto")),
            "tools": self.tools.clone().unwrap_or_default(),
            "top_p": self.top_p,
            "truncation": "disabled",
        });
        let mut messages = match self.previous_response_id.as_deref() {
            Some(id) => store.messages(id, holder)?,
            None => Vec::new(),
        };
        match self.input {
            Some(Value::String(text)) => messages.push(wire::Message::new("user", text)),
            Some(Value::Array(list)) => items::read(list, store, holder, &mut messages)?,
            None | Some(Value::Null) if !messages.is_empty() => {}
            _ => return Err(Refusal::field("input", "expected a text or a list of items")),
        }
        // What was kept is read again, beside the body.
        caller.note.takes(store::size_of(&messages))?;
        let kept = (self.store != Some(false)).then(|| messages.clone());
        if let Some(text) = self.instructions {
            messages.insert(0, wire::Message::new("system", text));
        }
        items::join_system(&mut messages);
        let (list, tool_choice, kinds) = tools::read(self.tools.unwrap_or_default(), self.tool_choice)?;
        let included =
            self.include.is_some_and(|list| list.iter().any(|name| name == "message.output_text.logprobs"));
        let top = self.top_logprobs.unwrap_or(0);
        if top > TOP_LOGPROBS {
            return Err(Refusal::field(
                "top_logprobs",
                format!("expected at most {TOP_LOGPROBS}, found {top}"),
            ));
        }
        let request = wire::Request {
            model: self.model,
            messages: Some(messages),
            max_tokens: self.max_output_tokens,
            temperature: self.temperature,
            top_p: self.top_p,
            stream: self.stream,
            tools: Some(list).filter(|tools| !tools.is_empty()),
            tool_choice,
            parallel_tool_calls: self.parallel_tool_calls,
            response_format: format,
            logprobs: (included || top > 0).then_some(Logprobs::Flag(true)),
            top_logprobs: Some(top),
            timings_per_token: self.timings_per_token,
            return_progress: self.return_progress,
            ..wire::Request::default()
        };
        Ok(Common { request, echo, kinds, kept })
    }
}

pub(crate) async fn responses(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<Request>,
) -> Result<Response, Refusal> {
    let holder = caller.holder();
    let Common { request, echo, kinds, kept } = request.common(&app.responses, &caller)?;
    let running = app.start(request, Kind::Chat, &caller).await?;
    let envelope = Envelope { id: store::new_id(), ..Envelope::new(&app, &running, "resp_") };
    let shape = running.shape.clone();
    let kept = kept.map(|messages| (app.clone(), holder, messages));
    let mut events = Events::new(envelope, shape, echo, kinds, kept);
    if running.shape.stream {
        return Ok(stream::response(running, events));
    }
    let answers = stream::collect(running).await?;
    let Some(answer) = answers.into_iter().next() else {
        return Err(Refusal::internal("there is no answer"));
    };
    Ok(axum::Json(events.whole(answer)).into_response())
}

/// How many tokens a request would read.
pub(crate) async fn input_tokens(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<Request>,
) -> Result<axum::Json<Value>, Refusal> {
    let Common { request, .. } = request.common(&app.responses, &caller)?;
    let ready = app.model(request.model.as_deref()).await?;
    let count =
        move |ready: &Ready| chat(ready, &request, Tools::of(&request)?.as_ref()).map(|ids| ids.len());
    let count = app.blocking(caller.owner, &ready, count);
    Ok(axum::Json(json!({"object": "response.input_tokens", "input_tokens": count.await?})))
}

/// An answer that is kept.
pub(crate) async fn get(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<axum::Json<Value>, Refusal> {
    app.responses.object(&id, caller.holder()).map(axum::Json)
}

/// Forgets an answer.
pub(crate) async fn delete(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<axum::Json<Value>, Refusal> {
    app.responses.remove(&id, caller.holder())?;
    Ok(axum::Json(json!({"id": id, "object": "response", "deleted": true})))
}
