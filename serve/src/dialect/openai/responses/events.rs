//! The answer of `/v1/responses`: its items one after the other, as events or as one object. Both come out of the same
//! steps.

use std::sync::Arc;

use serde_json::{Value, json};
use tern::{Scored, Specials};

use super::tools::{Kinds, ToolKind};
use crate::answer::{Envelope, Progress, call_id, timings};
use crate::app::App;
use crate::error::Refusal;
use crate::parts::{Part, Parts};
use crate::prepare::Shape;
use crate::stream::{Answer, Dialect, named};
use crate::wire::{CalledFunction, Message, ToolCall};
use crate::worker::{Done, Event, Reason, Times};

/// The item that is being written.
enum Open {
    Thought(String),
    Text(String),
    Call { at: usize, name: String, arguments: String },
}

/// Where an answer is kept when it is whole: whose it is, and what was said before.
pub(super) type Keep = Option<(Arc<App>, u64, Vec<Message>)>;

pub(super) struct Events {
    envelope: Envelope,
    shape: Shape,
    echo: Value,
    kinds: Kinds,
    keep: Keep,
    parts: Parts,
    progress: Progress,
    /// Events so far.
    sent: usize,
    open: Option<Open>,
    output: Vec<Value>,
    /// Tokens whose probabilities were not told yet, and those of the open text.
    tokens: Vec<Scored>,
    told: Vec<Value>,
    times: Option<Times>,
    thought_tokens: usize,
    done: Option<Done>,
}

impl Events {
    pub(super) fn new(envelope: Envelope, shape: Shape, echo: Value, kinds: Kinds, keep: Keep) -> Self {
        let (parts, progress) = (Parts::new(shape.format), Progress::new(&shape));
        Self {
            envelope,
            shape,
            echo,
            kinds,
            keep,
            parts,
            progress,
            sent: 0,
            open: None,
            output: Vec::new(),
            tokens: Vec::new(),
            told: Vec::new(),
            times: None,
            thought_tokens: 0,
            done: None,
        }
    }

    /// All of it as one object.
    pub(super) fn whole(&mut self, answer: Answer) -> Value {
        let mut unseen = String::new();
        self.tokens = answer.tokens;
        for part in self.parts.push(&answer.text) {
            self.part(part, &mut unseen);
        }
        self.finish(answer.done, &mut unseen);
        self.object()
    }

    /// The answer as far as it came.
    fn object(&mut self) -> Value {
        let cut = self.done.as_ref().is_some_and(|done| done.reason == Reason::Length);
        let mut object = self.echo.clone();
        object["id"] = json!(self.envelope.id);
        object["object"] = json!("response");
        object["created_at"] = json!(self.envelope.created);
        object["model"] = json!(self.envelope.name);
        object["status"] = json!(match &self.done {
            None => "in_progress",
            Some(_) if cut => "incomplete",
            Some(_) => "completed",
        });
        object["output"] = json!(self.output);
        object["error"] = Value::Null;
        object["incomplete_details"] = if cut { json!({"reason": "max_output_tokens"}) } else { Value::Null };
        object["usage"] = self.done.as_ref().map_or(Value::Null, |done| {
            let times = done.times;
            json!({
                "input_tokens": times.prompt_tokens,
                "input_tokens_details": {"cached_tokens": times.cached_tokens},
                "output_tokens": times.tokens,
                "output_tokens_details": {"reasoning_tokens": self.thought_tokens.min(times.tokens)},
                "total_tokens": times.prompt_tokens + times.tokens,
            })
        });
        object
    }

    fn send(&mut self, name: &str, mut data: Value, out: &mut String) {
        data["type"] = json!(name);
        data["sequence_number"] = json!(self.sent);
        self.sent += 1;
        named(out, name, &data);
    }

    /// The id of the item that is open: its place, and the answer's id, by which it is found again.
    fn item_id(&self, kind: &str) -> String {
        format!("{kind}_{}{:02}", self.envelope.id.trim_start_matches("resp_"), self.output.len())
    }

    /// About the open item, or a part of it.
    fn place(&self, kind: &str, more: (&str, Value)) -> Value {
        let mut data = json!({"item_id": self.item_id(kind), "output_index": self.output.len()});
        data[more.0] = more.1;
        data
    }

    fn part_of(&self, kind: &str, more: (&str, Value)) -> Value {
        let mut data = self.place(kind, more);
        data["content_index"] = json!(0);
        data
    }

    fn part(&mut self, part: Part, out: &mut String) {
        match part {
            Part::Thought(text) => {
                if !matches!(self.open, Some(Open::Thought(_))) {
                    self.begin(Open::Thought(String::new()), out);
                }
                if let Some(Open::Thought(all)) = &mut self.open {
                    all.push_str(&text);
                }
                self.send("response.reasoning_text.delta", self.part_of("rs", ("delta", json!(text))), out);
            }
            Part::Text(text) => self.say(&text, out),
            Part::Call { at, name } => {
                self.begin(Open::Call { at, name, arguments: String::new() }, out);
            }
            Part::Arguments(piece) => {
                let Some(Open::Call { name, arguments, .. }) = &mut self.open else { return };
                arguments.push_str(&piece);
                // A text is unpacked when its JSON is whole.
                if self.kinds.get(name) != Some(&ToolKind::Custom) {
                    let data = self.place("fc", ("delta", json!(piece)));
                    self.send("response.function_call_arguments.delta", data, out);
                }
            }
            Part::End => self.close(true, out),
        }
    }

    fn say(&mut self, text: &str, out: &mut String) {
        if !matches!(self.open, Some(Open::Text(_))) {
            self.begin(Open::Text(String::new()), out);
        }
        if let Some(Open::Text(all)) = &mut self.open {
            all.push_str(text);
        }
        let logprobs = self.logprobs();
        let mut data = self.part_of("msg", ("delta", json!(text)));
        data["logprobs"] = json!(logprobs);
        if let Some(times) = self.times.filter(|_| self.shape.timings) {
            data["timings"] = timings(&times);
        }
        self.told.extend(logprobs);
        if !text.is_empty() {
            self.send("response.output_text.delta", data, out);
        }
    }

    /// The probabilities of the tokens since the last time.
    fn logprobs(&mut self) -> Vec<Value> {
        let tokens = std::mem::take(&mut self.tokens);
        match self.shape.logprobs {
            Some(_) => self.envelope.logprobs(&tokens)["content"].as_array().cloned().unwrap_or_default(),
            None => Vec::new(),
        }
    }

    fn begin(&mut self, open: Open, out: &mut String) {
        self.close(true, out);
        let item = self.item(&open, "in_progress");
        let (kind, text) = match &open {
            Open::Thought(_) => ("rs", Some(json!({"type": "reasoning_text", "text": ""}))),
            Open::Text(_) => ("msg", Some(self.said(""))),
            Open::Call { .. } => ("fc", None),
        };
        self.open = Some(open);
        let at = self.output.len();
        self.send("response.output_item.added", json!({"output_index": at, "item": item}), out);
        if let Some(part) = text {
            self.send("response.content_part.added", self.part_of(kind, ("part", part)), out);
        }
    }

    /// Ends the open item.
    fn close(&mut self, whole: bool, out: &mut String) {
        let Some(open) = self.open.take() else { return };
        let item = self.item(&open, if whole { "completed" } else { "incomplete" });
        match &open {
            Open::Thought(text) => {
                let tokenizer = self.envelope.model.tokenizer();
                let ids = tokenizer.and_then(|tokenizer| tokenizer.encode(text, false, Specials::Text));
                self.thought_tokens += ids.map_or(0, |ids| ids.len());
                self.send("response.reasoning_text.done", self.part_of("rs", ("text", json!(text))), out);
                let part = json!({"type": "reasoning_text", "text": text});
                self.send("response.content_part.done", self.part_of("rs", ("part", part)), out);
            }
            Open::Text(text) => {
                let mut data = self.part_of("msg", ("text", json!(text)));
                data["logprobs"] = json!(self.told);
                self.send("response.output_text.done", data, out);
                let part = self.said(text);
                self.send("response.content_part.done", self.part_of("msg", ("part", part)), out);
                self.told.clear();
            }
            Open::Call { name, arguments, .. } if self.kinds.get(name) == Some(&ToolKind::Custom) => {
                let input = input(arguments);
                let data = self.place("fc", ("delta", json!(input)));
                self.send("response.custom_tool_call_input.delta", data, out);
                let data = self.place("fc", ("input", json!(input)));
                self.send("response.custom_tool_call_input.done", data, out);
            }
            Open::Call { name, arguments, .. } => {
                let mut data = self.place("fc", ("arguments", json!(arguments)));
                data["name"] = json!(name);
                self.send("response.function_call_arguments.done", data, out);
            }
        }
        let at = self.output.len();
        self.send("response.output_item.done", json!({"output_index": at, "item": item}), out);
        self.output.push(item);
    }

    fn said(&self, text: &str) -> Value {
        json!({"type": "output_text", "text": text, "annotations": [], "logprobs": self.told})
    }

    fn item(&self, open: &Open, status: &str) -> Value {
        let begun = status == "in_progress";
        match open {
            Open::Thought(text) => {
                let content = json!([{"type": "reasoning_text", "text": text}]);
                json!({
                    "type": "reasoning", "id": self.item_id("rs"), "status": status, "summary": [],
                    "content": if begun { json!([]) } else { content }, "encrypted_content": null,
                })
            }
            Open::Text(text) => json!({
                "type": "message", "id": self.item_id("msg"), "status": status, "role": "assistant",
                "content": if begun { Vec::new() } else { vec![self.said(text)] },
            }),
            Open::Call { at, name, arguments } => {
                let call_id = call_id(&self.envelope.id.replace('_', "-"), 0, *at);
                let mut item =
                    json!({"id": self.item_id("fc"), "call_id": call_id, "name": name, "status": status});
                match self.kinds.get(name) {
                    Some(ToolKind::Custom) => {
                        item["type"] = json!("custom_tool_call");
                        item["input"] = json!(input(arguments));
                    }
                    kind => {
                        item["type"] = json!("function_call");
                        item["arguments"] = json!(arguments);
                        if let Some(ToolKind::Of(namespace)) = kind {
                            item["namespace"] = json!(namespace);
                        }
                    }
                }
                item
            }
        }
    }

    fn finish(&mut self, done: Done, out: &mut String) {
        let cut = done.reason == Reason::Length;
        for part in self.parts.finish(cut) {
            self.part(part, out);
        }
        if self.output.is_empty() && self.open.is_none() {
            self.begin(Open::Text(String::new()), out);
        }
        self.close(!cut, out);
        self.done = Some(done);
        if let Some((app, holder, mut messages)) = self.keep.take() {
            messages.push(self.message());
            let object = self.object();
            app.responses.keep(&self.envelope.id, holder, messages, object);
        }
    }

    /// The answer as the next request has it.
    fn message(&self) -> Message {
        let (mut text, mut calls) = (String::new(), Vec::new());
        for item in &self.output {
            let arguments = match item["type"].as_str() {
                Some("function_call") => item["arguments"].clone(),
                Some("custom_tool_call") => json!({"input": item["input"]}),
                Some("message") => {
                    text.push_str(item["content"][0]["text"].as_str().unwrap_or_default());
                    continue;
                }
                _ => continue,
            };
            let name = item["name"].as_str().unwrap_or_default().to_owned();
            calls.push(ToolCall { function: CalledFunction { name, arguments } });
        }
        let tool_calls = Some(calls).filter(|calls| !calls.is_empty());
        Message { tool_calls, ..Message::new("assistant", text) }
    }
}

/// The text that a tool of texts is called with.
fn input(arguments: &str) -> String {
    let value: Value = serde_json::from_str(arguments).unwrap_or_default();
    value["input"].as_str().unwrap_or_default().to_owned()
}

impl Dialect for Events {
    fn event(&mut self, choice: usize, event: Event, out: &mut String) {
        if let Some(read) = event.read() {
            let response = self.object();
            let frame = json!({ "response": response });
            if self.sent == 0 {
                self.send("response.created", frame.clone(), out);
                self.send("response.in_progress", frame.clone(), out);
            }
            for object in self.progress.objects(&self.shape, choice, read, &frame) {
                self.send("response.in_progress", object, out);
            }
        }
        match event {
            Event::Piece { text, tokens, times } => {
                self.tokens.extend(tokens);
                self.times = Some(times);
                for part in self.parts.push(&text) {
                    self.part(part, out);
                }
            }
            Event::Done(done) => self.finish(done, out),
            Event::Reading { .. } | Event::Read { .. } | Event::Failed(_) => {}
        }
    }

    fn end(&mut self, out: &mut String) {
        let cut = self.done.as_ref().is_some_and(|done| done.reason == Reason::Length);
        let mut data = json!({"response": self.object()});
        if let Some(done) = self.done.as_ref().filter(|_| self.shape.timings) {
            data["timings"] = timings(&done.times);
        }
        self.send(if cut { "response.incomplete" } else { "response.completed" }, data, out);
    }

    fn fail(&mut self, refusal: &Refusal, out: &mut String) {
        let mut response = self.object();
        response["status"] = json!("failed");
        response["error"] =
            json!({"code": refusal.code.unwrap_or("server_error"), "message": refusal.message});
        self.send("response.failed", json!({ "response": response }), out);
    }
}
