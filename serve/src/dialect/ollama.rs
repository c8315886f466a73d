//! Ollama's dialect: lines of JSON, durations in nanoseconds.

pub(crate) mod cards;
pub(crate) mod embed;
mod keep;
pub(crate) mod manage;

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use tern::Scored;

use crate::answer::Envelope;
use crate::app::{App, Caller};
use crate::error::Refusal;
use crate::json::{self, Json};
use crate::models::Keep;
use crate::parts::{Call, Part, Parts, Spoken, THINK};
use crate::prepare::{ASKS, Kind, Shape};
use crate::refused::{self, Setting};
use crate::stream::{self, Dialect};
use crate::wire;
use crate::worker::{Done, Event, Reason};
use tern::date::{now, utc};

#[derive(Deserialize)]
pub(crate) struct Request {
    model: Option<String>,
    /// How long the model stays loaded afterwards.
    keep_alive: Option<Value>,
    messages: Option<Vec<wire::Message>>,
    prompt: Option<String>,
    system: Option<String>,
    raw: Option<bool>,
    stream: Option<bool>,
    format: Option<Value>,
    tools: Option<Vec<wire::Tool>>,
    /// `true`, `false`, or how hard.
    think: Option<Value>,
    logprobs: Option<bool>,
    top_logprobs: Option<usize>,
    options: Option<Settings>,
}

impl json::Body for Request {
    const REFUSED: &'static [Setting] = refused::OLLAMA;
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Settings {
    num_predict: Option<i64>,
    temperature: Option<f32>,
    top_k: Option<i64>,
    top_p: Option<f32>,
    min_p: Option<f32>,
    typical_p: Option<f32>,
    seed: Option<i64>,
    stop: Option<wire::OneOrMany>,
    repeat_penalty: Option<f32>,
    presence_penalty: Option<f32>,
    frequency_penalty: Option<f32>,
    mirostat: Option<f32>,
    tfs_z: Option<f32>,
}

impl Settings {
    fn check(&self) -> Result<(), Refusal> {
        let off = [("mirostat", self.mirostat, 0.0), ("tfs_z", self.tfs_z, 1.0)];
        match off.into_iter().find(|(_, value, off)| value.is_some_and(|value| value != *off)) {
            Some((name, ..)) => {
                let what = "not supported here: `temperature`, `top_k`, `top_p`, `min_p` and `typical_p` choose tokens";
                Err(Refusal::field(format!("options.{name}"), what))
            }
            None => Ok(()),
        }
    }
}

impl Request {
    fn common(self) -> wire::Request {
        let options = self.options.unwrap_or_default();
        let Settings { num_predict, temperature, top_k, top_p, min_p, seed, stop, .. } = options;
        let silent = self.think.as_ref() == Some(&json!(false));
        let format = self.format.filter(|format| !format.is_null() && format != "");
        let response_format = format.map(|format| match format {
            Value::String(word) if word == "json" => json!({"type": "json_object"}),
            schema => json!({"type": "json_schema", "schema": schema}),
        });
        wire::Request {
            model: self.model,
            messages: self.messages,
            // Theirs goes on without an end below zero, too.
            max_tokens: num_predict.map(|most| most.max(-1)),
            stream: Some(self.stream != Some(false)),
            temperature,
            top_k,
            top_p,
            min_p,
            typical_p: options.typical_p,
            seed,
            stop,
            repeat_penalty: options.repeat_penalty,
            presence_penalty: options.presence_penalty,
            frequency_penalty: options.frequency_penalty,
            logprobs: self.logprobs.map(wire::Logprobs::Flag),
            top_logprobs: self.top_logprobs.filter(|_| self.logprobs == Some(true)),
            chat_template_kwargs: silent.then_some(wire::TemplateWords { enable_thinking: Some(false) }),
            response_format,
            tools: self.tools.filter(|tools| !tools.is_empty()),
            ..wire::Request::default()
        }
    }
}

pub(crate) fn error(refusal: &Refusal) -> Response {
    refusal.response_with(&json!({"error": refusal.message}))
}

/// What can be told before anything is prepared.
async fn check(app: &Arc<App>, request: &Request) -> Result<(), Refusal> {
    request.options.as_ref().map_or(Ok(()), Settings::check)?;
    let Some(think) = request.think.as_ref().filter(|think| !think.is_null()) else { return Ok(()) };
    let ready = app.model(request.model.as_deref()).await?;
    let thinks = ready.template().contains(THINK);
    match (thinks, think == &json!(false)) {
        (false, false) => {
            Err(Refusal::field("think", format!("`{}` does not think: leave it out", ready.served.name)))
        }
        (true, true) if !ready.template().contains(ASKS) => {
            Err(Refusal::field("think", "this model thinks before it answers, and cannot be told not to"))
        }
        _ => Ok(()),
    }
}

/// The answer to nothing: clients ask so to have a model loaded, or unloaded where it is to stay for no time.
async fn loaded(app: &Arc<App>, request: &Request, chat: bool) -> Result<Response, Refusal> {
    let (asked, keep) = (request.model.as_deref(), keep::read(request.keep_alive.as_ref())?);
    let (name, reason) = match keep {
        Some(Some(Duration::ZERO)) => {
            app.there()?;
            app.models.let_go(asked)?;
            (app.models.one(asked)?.served.name.clone(), "unload")
        }
        keep => (app.model_for(asked, keep).await?.served.name.clone(), "load"),
    };
    let mut line = json!({
        "model": name,
        "created_at": utc(now()),
        "done": true,
        "done_reason": reason,
    });
    match chat {
        true => line["message"] = json!({"role": "assistant", "content": ""}),
        false => line["response"] = json!(""),
    }
    Ok(axum::Json(line).into_response())
}

pub(crate) async fn chat(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    body: Result<Json<Request>, Refusal>,
) -> Response {
    let answered = async {
        let Json(request) = body?;
        check(&app, &request).await?;
        if request.messages.as_ref().is_none_or(Vec::is_empty) {
            return loaded(&app, &request, true).await;
        }
        let keep = keep::read(request.keep_alive.as_ref())?;
        answer(app, caller, request.common(), keep, Kind::Chat, true).await
    };
    answered.await.unwrap_or_else(|refusal| error(&refusal))
}

pub(crate) async fn generate(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    body: Result<Json<Request>, Refusal>,
) -> Response {
    generated(app, caller, body).await.unwrap_or_else(|refusal| error(&refusal))
}

async fn generated(
    app: Arc<App>,
    caller: Caller,
    body: Result<Json<Request>, Refusal>,
) -> Result<Response, Refusal> {
    let Json(mut asked) = body?;
    check(&app, &asked).await?;
    if asked.prompt.as_ref().is_none_or(String::is_empty) {
        return loaded(&app, &asked, false).await;
    }
    let (prompt, system) = (asked.prompt.take().unwrap_or_default(), asked.system.take());
    let keep = keep::read(asked.keep_alive.as_ref())?;
    let raw = asked.raw == Some(true);
    let mut request = asked.common();
    let kind = if raw {
        request.prompt = Some(wire::Prompt::Text(prompt));
        request.max_tokens = request.max_tokens.or(Some(-1));
        Kind::Completion
    } else {
        let system = system.map(|text| wire::Message::new("system", text));
        request.messages = Some(system.into_iter().chain([wire::Message::new("user", prompt)]).collect());
        Kind::Chat
    };
    answer(app, caller, request, keep, kind, false).await
}

async fn answer(
    app: Arc<App>,
    caller: Caller,
    request: wire::Request,
    keep: Keep,
    kind: Kind,
    chat: bool,
) -> Result<Response, Refusal> {
    let running = app.start_for(request, kind, &caller, keep).await?;
    let envelope = Envelope::new(&app, &running, "");
    let shape = running.shape.clone();
    let parts = Parts::new(shape.format);
    let mut lines = Lines { envelope, shape, chat, parts, call: None, tokens: Vec::new() };
    if lines.shape.stream {
        return Ok(stream::response(running, lines));
    }
    let answers = stream::collect(running).await?;
    let Some(answer) = answers.first() else { return Err(Refusal::internal("there is no answer")) };
    let cut = answer.done.reason == Reason::Length;
    let mut spoken = Spoken::of(lines.shape.format, &answer.text, cut);
    // Arguments are an object here: a call that was cut is none.
    spoken.calls.retain(|call| call.whole);
    lines.tokens.clone_from(&answer.tokens);
    Ok(axum::Json(lines.last(&spoken, &answer.done)).into_response())
}

struct Lines {
    envelope: Envelope,
    shape: Shape,
    chat: bool,
    parts: Parts,
    /// The call that is being written.
    call: Option<(String, String)>,
    /// Tokens whose probabilities were not told yet.
    tokens: Vec<Scored>,
}

impl Lines {
    fn line(&mut self, spoken: &Spoken) -> Value {
        let text = spoken.text.as_deref().unwrap_or_default();
        let mut line = json!({"model": self.envelope.name, "created_at": utc(now()), "done": false});
        if self.chat {
            line["message"] = json!({"role": "assistant", "content": text});
            if !spoken.calls.is_empty() {
                let arguments =
                    |call: &Call| serde_json::from_str::<Value>(&call.arguments).unwrap_or_default();
                let call =
                    |call: &Call| json!({"function": {"name": call.name, "arguments": arguments(call)}});
                line["message"]["tool_calls"] = spoken.calls.iter().map(call).collect();
            }
        } else {
            line["response"] = json!(text);
        }
        if let Some(thought) = &spoken.thought {
            let place = if self.chat { &mut line["message"] } else { &mut line };
            place["thinking"] = json!(thought);
        }
        if self.shape.logprobs.is_some() {
            let tokens = std::mem::take(&mut self.tokens);
            line["logprobs"] = self.envelope.logprobs(&tokens)["content"].take();
        }
        line
    }

    fn last(&mut self, spoken: &Spoken, done: &Done) -> Value {
        let times = done.times;
        let mut line = self.line(spoken);
        line["done"] = json!(true);
        line["done_reason"] = json!(if done.reason == Reason::Length { "length" } else { "stop" });
        line["total_duration"] = json!((times.first + times.rest).as_nanos() as u64);
        line["load_duration"] = json!(0);
        line["prompt_eval_count"] = json!(times.prompt_tokens);
        line["prompt_eval_duration"] = json!(times.first.as_nanos() as u64);
        line["eval_count"] = json!(times.tokens);
        line["eval_duration"] = json!(times.rest.as_nanos() as u64);
        line
    }

    fn part(&mut self, part: Part, out: &mut String) {
        let mut spoken = Spoken::default();
        match part {
            Part::Text(text) => spoken.text = Some(text),
            Part::Thought(text) => spoken.thought = Some(text),
            Part::Call { name, .. } => self.call = Some((name, String::new())),
            Part::Arguments(piece) => self.call.iter_mut().for_each(|(_, all)| all.push_str(&piece)),
            Part::End => spoken.calls.extend(self.call.take().map(|(name, arguments)| {
                let at = self.parts.calls.saturating_sub(1);
                Call { at, name, arguments, whole: true }
            })),
        }
        if spoken != Spoken::default() {
            let line = self.line(&spoken);
            let _ = writeln!(out, "{line}");
        }
    }
}

impl Dialect for Lines {
    const TYPE: &'static str = "application/x-ndjson";

    fn event(&mut self, _: usize, event: Event, out: &mut String) {
        match event {
            Event::Reading { .. } | Event::Read { .. } | Event::Failed(_) => {}
            Event::Piece { text, tokens, .. } => {
                self.tokens.extend(tokens);
                for part in self.parts.push(&text) {
                    self.part(part, out);
                }
            }
            Event::Done(done) => {
                for part in self.parts.finish(done.reason == Reason::Length) {
                    self.part(part, out);
                }
                let line = self.last(&Spoken::default(), &done);
                let _ = writeln!(out, "{line}");
            }
        }
    }

    fn end(&mut self, _: &mut String) {}

    fn fail(&mut self, refusal: &Refusal, out: &mut String) {
        let _ = writeln!(out, "{}", json!({"error": refusal.message}));
    }

    // Lines have no comments.
    fn alive(&mut self, _: &mut String) {}
}

/// A model that a request names.
#[derive(Deserialize)]
pub(crate) struct ByName {
    #[serde(alias = "name")]
    model: Option<String>,
    stream: Option<bool>,
}

impl json::Body for ByName {}

/// What this server has no part in.
pub(crate) async fn other() -> Response {
    error(&Refusal::not_supported(
        "this server makes no models and uploads none: `tern convert` and `tern train` make some",
    ))
}

pub(crate) async fn version() -> axum::Json<Value> {
    axum::Json(json!({"version": env!("CARGO_PKG_VERSION")}))
}
