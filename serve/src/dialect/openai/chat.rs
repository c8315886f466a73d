//! `/v1/chat/completions`.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tern::Scored;

use crate::answer::{Envelope, Progress, Usage, call_id, finish_reason, timings};
use crate::app::{App, Caller};
use crate::asked::Asked;
use crate::error::Refusal;
use crate::json::Json;
use crate::parts::{Call, Part, Parts, Spoken};
use crate::prepare::{Kind, Shape, chat as chat_ids};
use crate::ready::Ready;
use crate::stream::{self, Answer, Dialect, sse};
use crate::tools::Tools;
use crate::wire::Request;
use crate::worker::{Event, Reason};

pub(crate) async fn chat(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<Request>,
) -> Result<Response, Refusal> {
    let running = app.start(request, Kind::Chat, &caller).await?;
    let envelope = Envelope::new(&app, &running, "chatcmpl-");
    let shape = running.shape.clone();
    if shape.stream {
        return Ok(stream::response(running, Chunks::new(envelope, shape)));
    }
    let answers = stream::collect(running).await?;
    Ok(axum::Json(whole(&envelope, &shape, &answers)).into_response())
}

/// How many tokens a conversation has.
pub(crate) async fn input_tokens(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<Request>,
) -> Result<axum::Json<Value>, Refusal> {
    let ready = app.model(request.model.as_deref()).await?;
    let count =
        move |ready: &Ready| chat_ids(ready, &request, Tools::of(&request)?.as_ref()).map(|ids| ids.len());
    let count = app.blocking(caller.owner, &ready, count);
    Ok(axum::Json(json!({"object": "chat.completion.input_tokens", "input_tokens": count.await?})))
}

fn whole(envelope: &Envelope, shape: &Shape, answers: &[Answer]) -> Value {
    let mut usage = Usage::new(shape);
    let choices = answers.iter().enumerate().map(|(index, answer)| {
        usage.add(shape, index, &answer.done.times);
        let cut = answer.done.reason == Reason::Length;
        let Spoken { thought, text, calls } = Spoken::of(shape.format, &answer.text, cut);
        let mut message = json!({"role": "assistant", "content": text, "refusal": null});
        if let Some(thought) = thought {
            message["reasoning_content"] = json!(thought);
        }
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
    if let Some(asked) = &shape.asked {
        object["__verbose"] = verbose(asked, answers);
    }
    object
}

/// llama.cpp's `__verbose`: what the model read and wrote.
fn verbose(asked: &Asked, answers: &[Answer]) -> Value {
    let content = answers.first().map(|answer| &answer.text);
    json!({"prompt": asked.prompts.first(), "content": content, "generation_settings": asked.json()})
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
    parts: Vec<Parts>,
    /// Tokens whose probabilities wait for text.
    tokens: Vec<Vec<Scored>>,
    progress: Progress,
    begun: Vec<bool>,
}

impl Chunks {
    fn new(envelope: Envelope, shape: Shape) -> Self {
        let usage = Usage::new(&shape);
        let parts = (0..shape.choices).map(|_| Parts::new(shape.format)).collect();
        let tokens = vec![Vec::new(); shape.choices];
        let (progress, begun) = (Progress::new(&shape), vec![false; shape.choices]);
        Self { envelope, shape, usage, parts, tokens, progress, begun }
    }

    fn chunk(&self, choice: usize, delta: Value, logprobs: Value, finish: Option<&str>) -> Value {
        let choice = json!({"index": choice, "delta": delta, "logprobs": logprobs, "finish_reason": finish});
        let mut chunk = self.envelope.object("chat.completion.chunk", vec![choice]);
        if self.shape.usage {
            chunk["usage"] = Value::Null;
        }
        chunk
    }

    /// Before anything else, who speaks.
    fn begin(&mut self, choice: usize, out: &mut String) {
        if std::mem::replace(&mut self.begun[choice], true) {
            return;
        }
        let delta = json!({"role": "assistant", "content": null});
        sse(out, &self.chunk(choice, delta, Value::Null, None));
    }

    /// More of the prompt was read.
    fn read(&mut self, choice: usize, read: (usize, Option<usize>, Duration), out: &mut String) {
        self.begin(choice, out);
        let frame = self.chunk(choice, json!({}), Value::Null, None);
        let chunks = self.progress.objects(&self.shape, choice, read, &frame);
        chunks.iter().for_each(|chunk| sse(out, chunk));
    }

    /// What a client is sent of a part; nothing where a call ends.
    fn delta(&self, choice: usize, part: Part) -> Option<Value> {
        let at = self.parts[choice].calls.saturating_sub(1);
        let call = |call: Value| Some(json!({"tool_calls": [call]}));
        match part {
            Part::Text(text) => Some(json!({"content": text})),
            Part::Thought(text) => Some(json!({"reasoning_content": text})),
            Part::Call { at, name } => {
                let id = call_id(&self.envelope.id, choice, at);
                call(
                    json!({"index": at, "id": id, "type": "function", "function": {"name": name, "arguments": ""}}),
                )
            }
            Part::Arguments(piece) => call(json!({"index": at, "function": {"arguments": piece}})),
            Part::End => None,
        }
    }

    fn tell(&mut self, choice: usize, parts: Vec<Part>, times: Option<Value>, out: &mut String) {
        let mut deltas: Vec<Value> = parts.into_iter().filter_map(|part| self.delta(choice, part)).collect();
        let probable = self.shape.logprobs.is_some() && !self.tokens[choice].is_empty();
        if deltas.is_empty() && probable && !self.shape.format.tools {
            // Whoever counts probabilities counts tokens, also where a character is not whole yet.
            deltas.push(json!({"content": ""}));
        }
        for delta in deltas {
            let logprobs = match self.shape.logprobs {
                Some(_) => self.envelope.logprobs(&std::mem::take(&mut self.tokens[choice])),
                None => Value::Null,
            };
            let mut chunk = self.chunk(choice, delta, logprobs, None);
            if let Some(times) = &times {
                chunk["timings"] = times.clone();
            }
            sse(out, &chunk);
        }
    }
}

impl Dialect for Chunks {
    fn event(&mut self, choice: usize, event: Event, out: &mut String) {
        match event {
            Event::Reading { cached, read, spent } => self.read(choice, (cached, Some(read), spent), out),
            Event::Read { cached, spent, .. } => self.read(choice, (cached, None, spent), out),
            Event::Piece { text, tokens, times } => {
                self.tokens[choice].extend(tokens);
                let parts = self.parts[choice].push(&text);
                let times = self.shape.timings.then(|| timings(&times));
                self.tell(choice, parts, times, out);
            }
            Event::Done(done) => {
                let parts = self.parts[choice].finish(done.reason == Reason::Length);
                self.tell(choice, parts, None, out);
                self.usage.add(&self.shape, choice, &done.times);
                let finish = finish_reason(&done.reason, self.parts[choice].calls);
                let rest = std::mem::take(&mut self.tokens[choice]);
                let probable = self.shape.logprobs.is_some() && !rest.is_empty();
                let logprobs = if probable { self.envelope.logprobs(&rest) } else { Value::Null };
                let mut chunk = self.chunk(choice, json!({}), logprobs, Some(finish));
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
