//! `/v1/chat/completions`.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::answer::{Envelope, Usage, call_id, finish_reason, spoken};
use crate::app::{App, Caller};
use crate::error::Refusal;
use crate::json::Json;
use crate::prepare::{Kind, Shape};
use crate::stream::{self, Answer, Dialect, sse};
use crate::tools::{Call, Calls, Part};
use crate::wire::Request;
use crate::worker::Event;

pub(crate) async fn chat(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<Request>,
) -> Result<Response, Refusal> {
    let running = app.start(request, Kind::Chat, &caller).await?;
    let envelope = Envelope::new(&app, &app.ready()?.model, "chatcmpl-");
    let shape = running.shape.clone();
    if shape.stream {
        return Ok(stream::response(running, Chunks::new(envelope, shape)));
    }
    let answers = stream::collect(running).await?;
    Ok(axum::Json(whole(&envelope, &shape, &answers)).into_response())
}

fn whole(envelope: &Envelope, shape: &Shape, answers: &[Answer]) -> Value {
    let mut usage = Usage::new(shape);
    let choices = answers.iter().enumerate().map(|(index, answer)| {
        usage.add(shape, index, &answer.done.times);
        let (text, calls) = spoken(shape.tools, &answer.text);
        let mut message = json!({"role": "assistant", "content": text, "refusal": null});
        if !calls.is_empty() {
            let calls = calls.iter().map(|call| call_json(&envelope.id, index, call));
            message["tool_calls"] = calls.collect();
        }
        json!({
            "index": index,
            "message": message,
            "logprobs": shape.logprobs.map(|_| envelope.logprobs(&answer.tokens)),
            "finish_reason": finish_reason(&answer.done.reason, calls.len()),
        })
    });
    let mut object = envelope.object("chat.completion", choices.collect());
    object["usage"] = usage.json();
    object["timings"] = usage.timings();
    object
}

fn call_json(id: &str, choice: usize, call: &Call) -> Value {
    json!({
        "id": call_id(id, choice, call.at),
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    })
}

struct Chunks {
    envelope: Envelope,
    shape: Shape,
    usage: Usage,
    calls: Vec<Calls>,
}

impl Chunks {
    fn new(envelope: Envelope, shape: Shape) -> Self {
        let usage = Usage::new(&shape);
        let mut calls = Vec::new();
        calls.resize_with(shape.choices, Calls::default);
        Self { envelope, shape, usage, calls }
    }

    fn chunk(&self, choice: usize, delta: Value, logprobs: Value, finish: Option<&str>) -> Value {
        let choice = json!({"index": choice, "delta": delta, "logprobs": logprobs, "finish_reason": finish});
        let mut chunk = self.envelope.object("chat.completion.chunk", vec![choice]);
        if self.shape.usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }

    fn part(&self, choice: usize, part: Part, out: &mut String) {
        match part {
            Part::Text(text) => sse(out, &self.chunk(choice, json!({"content": text}), Value::Null, None)),
            Part::Call(call) => {
                let at = call.at;
                let id = call_id(&self.envelope.id, choice, at);
                let start = json!({"tool_calls": [{
                    "index": at, "id": id, "type": "function", "function": {"name": call.name, "arguments": ""},
                }]});
                sse(out, &self.chunk(choice, start, Value::Null, None));
                let rest = json!({"tool_calls": [{"index": at, "function": {"arguments": call.arguments}}]});
                sse(out, &self.chunk(choice, rest, Value::Null, None));
            }
        }
    }
}

impl Dialect for Chunks {
    fn event(&mut self, choice: usize, event: Event, out: &mut String) {
        match event {
            Event::Read { .. } => {
                let delta = json!({"role": "assistant", "content": null});
                sse(out, &self.chunk(choice, delta, Value::Null, None));
            }
            Event::Piece { text, tokens } if !self.shape.tools => {
                let logprobs = self.shape.logprobs.map_or(Value::Null, |_| self.envelope.logprobs(&tokens));
                if !text.is_empty() || !logprobs.is_null() {
                    sse(out, &self.chunk(choice, json!({"content": text}), logprobs, None));
                }
            }
            Event::Piece { text, .. } => {
                for part in self.calls[choice].push(&text) {
                    self.part(choice, part, out);
                }
            }
            Event::Done(done) => {
                if let Some(part) = self.calls[choice].finish() {
                    self.part(choice, part, out);
                }
                self.usage.add(&self.shape, choice, &done.times);
                let finish = finish_reason(&done.reason, self.calls[choice].found);
                let mut chunk = self.chunk(choice, json!({}), Value::Null, Some(finish));
                chunk["timings"] = self.usage.timings();
                sse(out, &chunk);
            }
            Event::Failed(_) => {}
        }
    }

    fn end(&mut self, out: &mut String) {
        if self.shape.usage {
            let mut chunk = self.envelope.object("chat.completion.chunk", Vec::new());
            chunk["usage"] = self.usage.json();
            chunk["timings"] = self.usage.timings();
            sse(out, &chunk);
        }
        out.push_str("data: [DONE]\n\n");
    }

    fn fail(&mut self, refusal: &Refusal, out: &mut String) {
        sse(out, &refusal.json());
    }
}
