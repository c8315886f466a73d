//! `/v1/responses`: the newer of OpenAI's two chats, without its memory: every request brings its conversation.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::answer::{Envelope, call_id, spoken};
use crate::app::{App, Caller};
use crate::error::Refusal;
use crate::json::{Json, short};
use crate::prepare::{Kind, Shape};
use crate::stream::{self, Dialect, named};
use crate::tools::{Call, Calls, Part};
use crate::wire;
use crate::worker::{Done, Event, Reason};

#[derive(Deserialize)]
pub(crate) struct Request {
    model: Option<String>,
    input: Value,
    instructions: Option<String>,
    max_output_tokens: Option<i64>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    stream: Option<bool>,
    tools: Option<Vec<Value>>,
    tool_choice: Option<Value>,
    text: Option<Value>,
    previous_response_id: Option<Value>,
    background: Option<bool>,
}

impl Request {
    fn common(self) -> Result<wire::Request, Refusal> {
        if self.previous_response_id.is_some_and(|id| !id.is_null()) {
            let what = "this server keeps no answers: send the whole conversation in `input`";
            return Err(Refusal::field("previous_response_id", what));
        }
        if self.background == Some(true) {
            return Err(Refusal::field("background", "this server answers while the client waits"));
        }
        let system = self.instructions.map(|text| message("system", text));
        let mut messages: Vec<wire::Message> = system.into_iter().collect();
        match self.input {
            Value::String(text) => messages.push(message("user", text)),
            Value::Array(items) => {
                for (at, item) in items.into_iter().enumerate() {
                    messages.push(item_message(item, at)?);
                }
            }
            _ => return Err(Refusal::field("input", "expected a text or a list of items")),
        }
        let mut tools = Vec::new();
        for (at, tool) in self.tools.unwrap_or_default().into_iter().enumerate() {
            // What runs at OpenAI (web search and the like) is not here.
            if tool["type"] != "function" {
                let what = format!(
                    "expected `function`, found `{}`",
                    short(tool["type"].as_str().unwrap_or("none"))
                );
                return Err(Refusal::field(format!("tools[{at}].type"), what));
            }
            let function = serde_json::from_value(tool)
                .map_err(|error| Refusal::field(format!("tools[{at}]"), short(&error.to_string())))?;
            tools.push(wire::Tool { kind: None, function });
        }
        let format = self.text.map(|text| text["format"].clone()).filter(|format| !format.is_null());
        Ok(wire::Request {
            model: self.model,
            messages: Some(messages),
            max_tokens: self.max_output_tokens,
            temperature: self.temperature,
            top_p: self.top_p,
            stream: self.stream,
            tools: Some(tools).filter(|tools| !tools.is_empty()),
            tool_choice: self.tool_choice,
            response_format: format,
            ..wire::Request::default()
        })
    }
}

fn message(role: &str, text: String) -> wire::Message {
    wire::Message { role: role.to_owned(), content: Some(wire::Content::Text(text)), tool_calls: None }
}

fn item_message(item: Value, at: usize) -> Result<wire::Message, Refusal> {
    let wrong = |what: String| Refusal::field(format!("input[{at}]"), what);
    match item["type"].as_str() {
        None | Some("message") => {
            serde_json::from_value(item).map_err(|error| wrong(short(&error.to_string())))
        }
        Some("function_call") => {
            let name = item["name"].as_str().unwrap_or_default().to_owned();
            let function = wire::CalledFunction { name, arguments: item["arguments"].clone() };
            let tool_calls = Some(vec![wire::ToolCall { function }]);
            Ok(wire::Message { role: "assistant".to_owned(), content: None, tool_calls })
        }
        Some("function_call_output") => {
            let output = match &item["output"] {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            Ok(message("tool", output))
        }
        Some("reasoning") => Ok(message("assistant", String::new())),
        Some(other) => Err(wrong(format!("expected a message or a function call, found `{}`", short(other)))),
    }
}

pub(crate) async fn responses(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<Request>,
) -> Result<Response, Refusal> {
    let running = app.start(request.common()?, Kind::Chat, &caller).await?;
    let envelope = Envelope::new(&app, &app.ready()?.model, "resp_");
    let shape = running.shape.clone();
    if shape.stream {
        return Ok(stream::response(running, Events::new(envelope, shape)));
    }
    let answers = stream::collect(running).await?;
    let Some(answer) = answers.first() else { return Err(Refusal::internal("there is no answer")) };
    let (text, calls) = spoken(shape.tools, &answer.text);
    let text = text.map(|text| said(&envelope, &text, "completed"));
    let calls = calls.iter().map(|call| called(&envelope, call, true));
    let output = text.into_iter().chain(calls).collect();
    Ok(axum::Json(object(&envelope, output, Some(&answer.done))).into_response())
}

fn object(envelope: &Envelope, output: Vec<Value>, done: Option<&Done>) -> Value {
    let cut = done.is_some_and(|done| done.reason == Reason::Length);
    let status = match done {
        None => "in_progress",
        Some(_) if cut => "incomplete",
        Some(_) => "completed",
    };
    let usage = done.map(|done| {
        let times = done.times;
        json!({
            "input_tokens": times.prompt_tokens,
            "input_tokens_details": {"cached_tokens": times.cached_tokens},
            "output_tokens": times.tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": times.prompt_tokens + times.tokens,
        })
    });
    json!({
        "id": envelope.id,
        "object": "response",
        "created_at": envelope.created,
        "status": status,
        "model": envelope.name,
        "output": output,
        "usage": usage,
        "error": null,
        "incomplete_details": if cut { json!({"reason": "max_output_tokens"}) } else { Value::Null },
        "instructions": null,
        "metadata": {},
        "parallel_tool_calls": true,
        "temperature": null,
        "top_p": null,
        "tool_choice": "auto",
        "tools": [],
    })
}

fn item_id(envelope: &Envelope, kind: &str, at: usize) -> String {
    format!("{kind}_{}{at:02}", envelope.id.trim_start_matches("resp_"))
}

fn part(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
}

fn said(envelope: &Envelope, text: &str, status: &str) -> Value {
    let content = if status == "completed" { vec![part(text)] } else { Vec::new() };
    json!({
        "type": "message", "id": item_id(envelope, "msg", 0), "status": status, "role": "assistant", "content": content,
    })
}

fn called(envelope: &Envelope, call: &Call, whole: bool) -> Value {
    json!({
        "type": "function_call",
        "id": item_id(envelope, "fc", call.at),
        "call_id": call_id(&envelope.id.replace('_', "-"), 0, call.at),
        "name": call.name,
        "arguments": if whole { &call.arguments } else { "" },
        "status": if whole { "completed" } else { "in_progress" },
    })
}

struct Events {
    envelope: Envelope,
    shape: Shape,
    calls: Calls,
    /// Events so far.
    sent: usize,
    /// The text, once it has begun; and whether it is open.
    text: Option<String>,
    open: bool,
    output: Vec<Value>,
    done: Option<Done>,
}

impl Events {
    fn new(envelope: Envelope, shape: Shape) -> Self {
        let calls = Calls::default();
        Self { envelope, shape, calls, sent: 0, text: None, open: false, output: Vec::new(), done: None }
    }

    fn send(&mut self, name: &str, mut data: Value, out: &mut String) {
        data["type"] = json!(name);
        data["sequence_number"] = json!(self.sent);
        self.sent += 1;
        named(out, name, &data);
    }

    fn part(&mut self, piece: Part, out: &mut String) {
        match piece {
            Part::Text(text) => self.say(&text, out),
            Part::Call(call) => {
                self.hush(out);
                let (at, id) = (self.output.len(), item_id(&self.envelope, "fc", call.at));
                let item = called(&self.envelope, &call, false);
                self.send("response.output_item.added", json!({"output_index": at, "item": item}), out);
                let delta = json!({"item_id": id, "output_index": at, "delta": call.arguments});
                self.send("response.function_call_arguments.delta", delta, out);
                let done = json!({"item_id": id, "output_index": at, "name": call.name, "arguments": call.arguments});
                self.send("response.function_call_arguments.done", done, out);
                let item = called(&self.envelope, &call, true);
                self.send("response.output_item.done", json!({"output_index": at, "item": item}), out);
                self.output.push(item);
            }
        }
    }

    fn say(&mut self, text: &str, out: &mut String) {
        let (at, id) = (self.output.len(), item_id(&self.envelope, "msg", 0));
        if self.text.is_none() {
            self.open = true;
            self.text = Some(String::new());
            let item = said(&self.envelope, "", "in_progress");
            self.send("response.output_item.added", json!({"output_index": at, "item": item}), out);
            let added = json!({"item_id": id, "output_index": at, "content_index": 0, "part": part("")});
            self.send("response.content_part.added", added, out);
        }
        if !self.open || text.is_empty() {
            return;
        }
        if let Some(all) = &mut self.text {
            all.push_str(text);
        }
        let delta =
            json!({"item_id": id, "output_index": at, "content_index": 0, "delta": text, "logprobs": []});
        self.send("response.output_text.delta", delta, out);
    }

    /// Ends the text.
    fn hush(&mut self, out: &mut String) {
        if !std::mem::take(&mut self.open) {
            return;
        }
        let text = self.text.clone().unwrap_or_default();
        let (at, id) = (self.output.len(), item_id(&self.envelope, "msg", 0));
        let place = |more: (&str, Value)| {
            let mut data = json!({"item_id": id, "output_index": at, "content_index": 0});
            data[more.0] = more.1;
            data
        };
        let mut done = place(("text", json!(text)));
        done["logprobs"] = json!([]);
        self.send("response.output_text.done", done, out);
        self.send("response.content_part.done", place(("part", part(&text))), out);
        let item = said(&self.envelope, &text, "completed");
        self.send("response.output_item.done", json!({"output_index": at, "item": item}), out);
        self.output.push(item);
    }
}

impl Dialect for Events {
    fn event(&mut self, _: usize, event: Event, out: &mut String) {
        match event {
            Event::Read { .. } => {
                let response = object(&self.envelope, Vec::new(), None);
                self.send("response.created", json!({ "response": response }), out);
                self.send("response.in_progress", json!({ "response": response }), out);
            }
            Event::Piece { text, .. } if !self.shape.tools => self.part(Part::Text(text), out),
            Event::Piece { text, .. } => {
                for part in self.calls.push(&text) {
                    self.part(part, out);
                }
            }
            Event::Done(done) => {
                if let Some(part) = self.calls.finish() {
                    self.part(part, out);
                }
                if self.output.is_empty() {
                    self.say("", out);
                }
                self.hush(out);
                self.done = Some(done);
            }
            Event::Failed(_) => {}
        }
    }

    fn end(&mut self, out: &mut String) {
        let cut = self.done.as_ref().is_some_and(|done| done.reason == Reason::Length);
        let response = object(&self.envelope, std::mem::take(&mut self.output), self.done.as_ref());
        let name = if cut { "response.incomplete" } else { "response.completed" };
        self.send(name, json!({ "response": response }), out);
    }

    fn fail(&mut self, refusal: &Refusal, out: &mut String) {
        let mut response = object(&self.envelope, Vec::new(), None);
        response["status"] = json!("failed");
        response["error"] =
            json!({"code": refusal.code.unwrap_or("server_error"), "message": refusal.message});
        self.send("response.failed", json!({ "response": response }), out);
    }
}
