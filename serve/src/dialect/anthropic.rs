//! Anthropic's dialect, `/v1/messages`: translated into the common request and back.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::answer::{Envelope, call_id};
use crate::app::{App, Caller};
use crate::error::Refusal;
use crate::error::short;
use crate::json::{self, Json};
use crate::parts::{Part, Parts, Spoken};
use crate::prepare::{Kind, Shape, chat};
use crate::ready::Ready;
use crate::refused::{self, Setting};
use crate::stream::{self, Dialect, named};
use crate::tools::Tools;
use crate::wire;
use crate::worker::{Event, Reason};

#[derive(Deserialize)]
pub(crate) struct Request {
    model: Option<String>,
    messages: Vec<Message>,
    #[serde(default)]
    system: Option<wire::Content>,
    max_tokens: Option<i64>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<i64>,
    stop_sequences: Option<Vec<String>>,
    stream: Option<bool>,
    tools: Option<Vec<Tool>>,
    tool_choice: Option<Value>,
    output_config: Option<Value>,
    /// The older name of `output_config.format`.
    output_format: Option<Value>,
}

impl json::Body for Request {
    const REFUSED: &'static [Setting] = refused::ANTHROPIC;
}

/// Kinds of tools that Anthropic runs itself.
const HOSTED: [&str; 5] = ["web_search_", "web_fetch_", "code_execution_", "tool_search_", "mcp_toolset"];

#[derive(Deserialize)]
struct Message {
    role: String,
    content: Value,
}

#[derive(Deserialize)]
struct Tool {
    #[serde(rename = "type", default)]
    kind: Option<String>,
    #[serde(default)]
    name: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    input_schema: Option<Value>,
    #[serde(default)]
    strict: Option<bool>,
}

impl Request {
    fn common(self) -> Result<wire::Request, Refusal> {
        let mut messages = Vec::new();
        let mut system = match &self.system {
            None => Vec::new(),
            Some(system) => vec![system.text().map_err(|kind| {
                Refusal::field("system", format!("expected text, found a block of type `{}`", short(kind)))
            })?],
        };
        let mut continued = false;
        for (at, message) in self.messages.into_iter().enumerate() {
            // Claude Code tells more of the system's wishes among the messages; templates know them at the head only.
            if message.role == "system" {
                let mut more = Vec::new();
                blocks(&message, at, &mut more)?;
                let texts = more.into_iter().filter_map(|message| message.content?.text().ok());
                system.extend(texts);
                continue;
            }
            if !["user", "assistant"].contains(&message.role.as_str()) {
                let what = format!("expected user or assistant, found `{}`", short(&message.role));
                return Err(Refusal::field(format!("messages[{at}].role"), what));
            }
            let before = messages.len();
            blocks(&message, at, &mut messages)?;
            continued =
                message.role == "assistant" && messages[before..].iter().all(|m| m.tool_calls.is_none());
        }
        if messages.is_empty() {
            return Err(Refusal::field("messages", "expected at least one message of the user"));
        }
        if !system.is_empty() {
            messages.insert(0, wire::Message::new("system", system.join("\n\n")));
        }
        let tools = self.tools.map(|tools| {
            // What runs at Anthropic is not here, and is never called.
            let here = |tool: &Tool| {
                let kind = tool.kind.as_deref().unwrap_or_default();
                !HOSTED.iter().any(|hosted| kind.starts_with(hosted))
            };
            let tool = |tool: Tool| wire::Tool {
                kind: None,
                function: wire::Function {
                    name: tool.name,
                    description: tool.description,
                    parameters: tool.input_schema,
                    strict: tool.strict,
                },
            };
            tools.into_iter().filter(here).map(tool).collect()
        });
        let choice = self.tool_choice.as_ref().unwrap_or(&Value::Null);
        let parallel_tool_calls = choice["disable_parallel_tool_use"].as_bool().map(|one| !one);
        let formats =
            self.output_config.map(|config| config["format"].clone()).into_iter().chain(self.output_format);
        let response_format = formats.into_iter().find(|format| !format.is_null());
        let tool_choice = self.tool_choice.map(|choice| match choice["type"].as_str() {
            Some("tool") => json!({"name": choice["name"]}),
            Some(word) => json!(word),
            None => choice,
        });
        Ok(wire::Request {
            model: self.model,
            messages: Some(messages),
            max_tokens: self.max_tokens,
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            stop: self.stop_sequences.map(wire::OneOrMany::Many),
            stream: self.stream,
            tools,
            tool_choice,
            parallel_tool_calls,
            response_format,
            // An answer that was begun is continued.
            add_generation_prompt: Some(!continued),
            ..wire::Request::default()
        })
    }
}

/// A message's blocks: text, calls of tools, and what tools answered, which is a message of its own.
fn blocks(message: &Message, at: usize, messages: &mut Vec<wire::Message>) -> Result<(), Refusal> {
    let place = || format!("messages[{at}].content");
    let text_of = |value: &Value| -> Result<String, Refusal> {
        match value {
            Value::Null => Ok(String::new()),
            Value::String(text) => Ok(text.clone()),
            other => {
                let content: wire::Content = serde_json::from_value(other.clone())
                    .map_err(|_| Refusal::field(place(), "expected a text or a list of blocks"))?;
                content.text().map_err(|kind| {
                    Refusal::field(place(), format!("expected text, found a block of type `{}`", short(kind)))
                })
            }
        }
    };
    let Value::Array(list) = &message.content else {
        messages.push(wire::Message::new(&message.role, text_of(&message.content)?));
        return Ok(());
    };
    let (mut text, mut calls) = (String::new(), Vec::new());
    for block in list {
        match block["type"].as_str() {
            Some("text") => text.push_str(block["text"].as_str().unwrap_or_default()),
            Some("thinking" | "redacted_thinking") => {}
            Some("tool_use") => {
                let name = block["name"].as_str().unwrap_or_default().to_owned();
                let function = wire::CalledFunction { name, arguments: block["input"].clone() };
                calls.push(wire::ToolCall { function });
            }
            Some("tool_result") => messages.push(wire::Message::new("tool", text_of(&block["content"])?)),
            other => {
                let what =
                    format!("expected text, found a block of type `{}`", short(other.unwrap_or("none")));
                return Err(Refusal::field(place(), what));
            }
        }
    }
    if !text.is_empty() || !calls.is_empty() || list.is_empty() {
        let tool_calls = Some(calls).filter(|calls| !calls.is_empty());
        messages.push(wire::Message { tool_calls, ..wire::Message::new(&message.role, text) });
    }
    Ok(())
}

/// Their error object.
fn error(refusal: &Refusal) -> Value {
    let kind = match refusal.status.as_u16() {
        401 => "authentication_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        503 => "overloaded_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    };
    json!({"type": "error", "error": {"type": kind, "message": refusal.message}})
}

pub(crate) async fn messages(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    body: Result<Json<Request>, Refusal>,
) -> Response {
    answer(app, caller, body).await.unwrap_or_else(|refusal| refusal.response_with(&error(&refusal)))
}

async fn answer(
    app: Arc<App>,
    caller: Caller,
    body: Result<Json<Request>, Refusal>,
) -> Result<Response, Refusal> {
    let Json(request) = body?;
    if request.max_tokens.is_none() {
        return Err(Refusal::field("max_tokens", "expected a number, found none"));
    }
    let running = app.start(request.common()?, Kind::Chat, &caller).await?;
    let envelope = Envelope::new(&app, &running, "msg_");
    let shape = running.shape.clone();
    if shape.stream {
        return Ok(stream::response(running, Blocks::new(envelope, shape)));
    }
    let answers = stream::collect(running).await?;
    let Some(answer) = answers.first() else { return Err(Refusal::internal("there is no answer")) };
    let cut = answer.done.reason == Reason::Length;
    let Spoken { thought, text, calls } = Spoken::of(shape.format, &answer.text, cut);
    let thought = thought.map(|text| json!({"type": "thinking", "thinking": text, "signature": ""}));
    let text = text.filter(|text| !text.is_empty()).map(|text| json!({"type": "text", "text": text}));
    let calls_json = calls.iter().map(|call| tool_use(&envelope, call.at, &call.name, &call.arguments));
    let content: Vec<Value> = thought.into_iter().chain(text).chain(calls_json).collect();
    let (reason, sequence) = stop_reason(&answer.done.reason, calls.len());
    let times = answer.done.times;
    let mut body = message(&envelope, content);
    body["stop_reason"] = json!(reason);
    body["stop_sequence"] = sequence;
    body["usage"] = json!({
        "input_tokens": times.prompt_tokens - times.cached_tokens,
        "cache_read_input_tokens": times.cached_tokens,
        "cache_creation_input_tokens": 0,
        "output_tokens": times.tokens,
    });
    Ok(axum::Json(body).into_response())
}

fn message(envelope: &Envelope, content: Vec<Value>) -> Value {
    json!({
        "id": envelope.id,
        "type": "message",
        "role": "assistant",
        "model": envelope.name,
        "content": content,
        "stop_reason": null,
        "stop_sequence": null,
    })
}

/// A call; what was cut in its arguments has no input.
fn tool_use(envelope: &Envelope, at: usize, name: &str, arguments: &str) -> Value {
    let input = serde_json::from_str(arguments).unwrap_or_else(|_| json!({}));
    let id = call_id(&envelope.id, 0, at).replace("call_", "toolu_").replace("msg_", "");
    json!({"type": "tool_use", "id": id, "name": name, "input": input})
}

fn stop_reason(reason: &Reason, calls: usize) -> (&'static str, Value) {
    match reason {
        Reason::Length => ("max_tokens", Value::Null),
        _ if calls > 0 => ("tool_use", Value::Null),
        Reason::Stop(_) | Reason::Complete => ("end_turn", Value::Null),
        Reason::Text(text) => ("stop_sequence", json!(text)),
    }
}

/// The kind of a block.
#[derive(Clone, Copy, PartialEq)]
enum Block {
    Thinking,
    Text,
    ToolUse,
}

struct Blocks {
    envelope: Envelope,
    shape: Shape,
    parts: Parts,
    /// Blocks that were begun, and the last one if it is open.
    blocks: usize,
    open: Option<Block>,
}

impl Blocks {
    fn new(envelope: Envelope, shape: Shape) -> Self {
        let parts = Parts::new(shape.format);
        Self { envelope, shape, parts, blocks: 0, open: None }
    }

    fn start(&mut self, kind: Block, block: Value, out: &mut String) {
        self.stop(out);
        let event = json!({"type": "content_block_start", "index": self.blocks, "content_block": block});
        named(out, "content_block_start", &event);
        self.blocks += 1;
        self.open = Some(kind);
    }

    fn delta(&self, delta: Value, out: &mut String) {
        let event = json!({"type": "content_block_delta", "index": self.blocks - 1, "delta": delta});
        named(out, "content_block_delta", &event);
    }

    fn stop(&mut self, out: &mut String) {
        if let Some(kind) = self.open.take() {
            // Their clients want one, and send it back; nothing is signed here.
            if kind == Block::Thinking {
                self.delta(json!({"type": "signature_delta", "signature": ""}), out);
            }
            named(
                out,
                "content_block_stop",
                &json!({"type": "content_block_stop", "index": self.blocks - 1}),
            );
        }
    }

    fn part(&mut self, part: Part, out: &mut String) {
        match part {
            Part::Thought(text) => {
                if self.open != Some(Block::Thinking) {
                    let block = json!({"type": "thinking", "thinking": "", "signature": ""});
                    self.start(Block::Thinking, block, out);
                }
                self.delta(json!({"type": "thinking_delta", "thinking": text}), out);
            }
            Part::Text(text) => {
                if self.open != Some(Block::Text) {
                    self.start(Block::Text, json!({"type": "text", "text": ""}), out);
                }
                self.delta(json!({"type": "text_delta", "text": text}), out);
            }
            Part::Call { at, name } => {
                self.start(Block::ToolUse, tool_use(&self.envelope, at, &name, ""), out);
            }
            Part::Arguments(piece) => {
                self.delta(json!({"type": "input_json_delta", "partial_json": piece}), out);
            }
            Part::End => self.stop(out),
        }
    }
}

impl Dialect for Blocks {
    fn event(&mut self, _: usize, event: Event, out: &mut String) {
        match event {
            Event::Read { cached, .. } => {
                let mut message = message(&self.envelope, Vec::new());
                let read = self.shape.prompt_tokens[0] - cached;
                message["usage"] =
                    json!({"input_tokens": read, "cache_read_input_tokens": cached, "output_tokens": 0});
                named(out, "message_start", &json!({"type": "message_start", "message": message}));
            }
            Event::Piece { text, .. } => {
                for part in self.parts.push(&text) {
                    self.part(part, out);
                }
            }
            Event::Done(done) => {
                for part in self.parts.finish(done.reason == Reason::Length) {
                    self.part(part, out);
                }
                self.stop(out);
                let (reason, sequence) = stop_reason(&done.reason, self.parts.calls);
                let delta = json!({"stop_reason": reason, "stop_sequence": sequence});
                let usage = json!({"output_tokens": done.times.tokens});
                named(
                    out,
                    "message_delta",
                    &json!({"type": "message_delta", "delta": delta, "usage": usage}),
                );
            }
            Event::Reading { .. } | Event::Failed(_) => {}
        }
    }

    fn end(&mut self, out: &mut String) {
        named(out, "message_stop", &json!({"type": "message_stop"}));
    }

    fn fail(&mut self, refusal: &Refusal, out: &mut String) {
        named(out, "error", &error(refusal));
    }

    fn alive(&mut self, out: &mut String) {
        named(out, "ping", &json!({"type": "ping"}));
    }
}

pub(crate) async fn count_tokens(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    body: Result<Json<Request>, Refusal>,
) -> Response {
    let count = async {
        let Json(request) = body?;
        let request = request.common()?;
        let model = request.model.clone();
        let count =
            move |ready: &Ready| chat(ready, &request, Tools::of(&request)?.as_ref()).map(|ids| ids.len());
        let ready = app.model(model.as_deref()).await?;
        app.blocking(caller.owner, &ready, count).await
    };
    match count.await {
        Ok(count) => axum::Json(json!({"input_tokens": count})).into_response(),
        Err(refusal) => refusal.response_with(&error(&refusal)),
    }
}
