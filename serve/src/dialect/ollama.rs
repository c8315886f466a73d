//! Ollama's dialect: lines of JSON, durations in nanoseconds.

use std::fmt::Write;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::answer::{Envelope, spoken};
use crate::app::{App, Caller};
use crate::error::Refusal;
use crate::json::Json;
use crate::prepare::{Kind, Shape};
use crate::stream::{self, Dialect};
use crate::tools::{Call, Calls, Part};
use crate::wire;
use crate::worker::{Done, Event, Reason};

#[derive(Deserialize)]
pub(crate) struct Request {
    model: Option<String>,
    messages: Option<Vec<wire::Message>>,
    prompt: Option<String>,
    system: Option<String>,
    raw: Option<bool>,
    stream: Option<bool>,
    format: Option<Value>,
    tools: Option<Vec<wire::Tool>>,
    #[serde(default)]
    options: Settings,
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
}

impl Request {
    fn common(self) -> wire::Request {
        let Settings { num_predict, temperature, top_k, top_p, min_p, seed, stop, .. } = self.options;
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
            typical_p: self.options.typical_p,
            seed,
            stop,
            repeat_penalty: self.options.repeat_penalty,
            presence_penalty: self.options.presence_penalty,
            frequency_penalty: self.options.frequency_penalty,
            response_format,
            tools: self.tools.filter(|tools| !tools.is_empty()),
            ..wire::Request::default()
        }
    }
}

fn error(refusal: &Refusal) -> Response {
    refusal.response_with(&json!({"error": refusal.message}))
}

pub(crate) async fn chat(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    body: Result<Json<Request>, Refusal>,
) -> Response {
    let request = match body {
        Ok(Json(request)) => request.common(),
        Err(refusal) => return error(&refusal),
    };
    answer(app, caller, request, Kind::Chat, true).await.unwrap_or_else(|refusal| error(&refusal))
}

pub(crate) async fn generate(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    body: Result<Json<Request>, Refusal>,
) -> Response {
    let mut asked = match body {
        Ok(Json(request)) => request,
        Err(refusal) => return error(&refusal),
    };
    let (prompt, system) = (asked.prompt.take().unwrap_or_default(), asked.system.take());
    let raw = asked.raw == Some(true);
    let mut request = asked.common();
    let kind = if raw {
        request.prompt = Some(wire::Prompt::Text(prompt));
        request.max_tokens = request.max_tokens.or(Some(-1));
        Kind::Completion
    } else {
        let message = |role: &str, text: String| wire::Message {
            role: role.to_owned(),
            content: Some(wire::Content::Text(text)),
            tool_calls: None,
        };
        let system = system.map(|text| message("system", text));
        request.messages = Some(system.into_iter().chain([message("user", prompt)]).collect());
        Kind::Chat
    };
    answer(app, caller, request, kind, false).await.unwrap_or_else(|refusal| error(&refusal))
}

async fn answer(
    app: Arc<App>,
    caller: Caller,
    request: wire::Request,
    kind: Kind,
    chat: bool,
) -> Result<Response, Refusal> {
    let running = app.start(request, kind, &caller).await?;
    let envelope = Envelope::new(&app, &app.ready()?.model, "");
    let shape = running.shape.clone();
    let mut lines = Lines { envelope, shape, chat, calls: Calls::default() };
    if lines.shape.stream {
        return Ok(stream::response(running, lines));
    }
    let answers = stream::collect(running).await?;
    let Some(answer) = answers.first() else { return Err(Refusal::internal("there is no answer")) };
    let (text, calls) = spoken(lines.shape.tools, &answer.text);
    Ok(axum::Json(lines.last(&text.unwrap_or_default(), &calls, &answer.done)).into_response())
}

struct Lines {
    envelope: Envelope,
    shape: Shape,
    chat: bool,
    calls: Calls,
}

impl Lines {
    fn line(&self, text: &str, calls: &[Call]) -> Value {
        let mut line =
            json!({"model": self.envelope.name, "created_at": rfc3339(crate::ready::now()), "done": false});
        if self.chat {
            line["message"] = json!({"role": "assistant", "content": text});
            if !calls.is_empty() {
                let arguments =
                    |call: &Call| serde_json::from_str::<Value>(&call.arguments).unwrap_or_default();
                let call =
                    |call: &Call| json!({"function": {"name": call.name, "arguments": arguments(call)}});
                line["message"]["tool_calls"] = calls.iter().map(call).collect();
            }
        } else {
            line["response"] = json!(text);
        }
        line
    }

    fn last(&mut self, text: &str, calls: &[Call], done: &Done) -> Value {
        let times = done.times;
        let mut line = self.line(text, calls);
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

    fn part(&self, part: Part, out: &mut String) {
        let line = match part {
            Part::Text(text) => self.line(&text, &[]),
            Part::Call(call) => self.line("", &[call]),
        };
        let _ = writeln!(out, "{line}");
    }
}

impl Dialect for Lines {
    const TYPE: &'static str = "application/x-ndjson";

    fn event(&mut self, _: usize, event: Event, out: &mut String) {
        match event {
            Event::Read { .. } | Event::Failed(_) => {}
            Event::Piece { text, .. } if text.is_empty() => {}
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
                let line = self.last("", &[], &done);
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

fn card(app: &App) -> Result<Value, Refusal> {
    let ready = app.ready()?;
    let config = ready.model.config();
    Ok(json!({
        "name": app.options.name,
        "model": app.options.name,
        "modified_at": rfc3339(ready.loaded),
        "size": 0,
        "digest": "",
        "details": {
            "format": "gguf",
            "family": config.family,
            "families": [config.family],
            "parameter_size": "",
            "quantization_level": "ternary",
        },
    }))
}

pub(crate) async fn tags(State(app): State<Arc<App>>) -> Response {
    match card(&app) {
        Ok(card) => axum::Json(json!({ "models": [card] })).into_response(),
        Err(refusal) => error(&refusal),
    }
}

#[derive(Deserialize)]
pub(crate) struct Show {
    #[serde(alias = "name")]
    model: Option<String>,
}

pub(crate) async fn show(State(app): State<Arc<App>>, body: Result<Json<Show>, Refusal>) -> Response {
    let shown = || {
        let Json(Show { model }) = body?;
        let name = &app.options.name;
        if model.is_some_and(|asked| asked.trim_end_matches(":latest") != name) {
            return Err(Refusal::not_found("that model"));
        }
        let mut shown = card(&app)?;
        let ready = app.ready()?;
        let config = ready.model.config();
        let tokenizer = ready.model.tokenizer().ok();
        shown["template"] = json!(tokenizer.and_then(|t| t.template()).map(|template| template.source()));
        shown["capabilities"] = json!(["completion", "tools"]);
        shown["model_info"] = json!({
            "general.architecture": config.family,
            "context_length": ready.context,
            "embedding_length": config.dim,
        });
        Ok(shown)
    };
    match shown() {
        Ok(shown) => axum::Json(shown).into_response(),
        Err(refusal) => error(&refusal),
    }
}

pub(crate) async fn version() -> axum::Json<Value> {
    axum::Json(json!({"version": env!("CARGO_PKG_VERSION")}))
}

/// Seconds since 1970 as a date and a time (H. Hinnant's days-to-civil rule).
fn rfc3339(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468; // from 0000-03-01
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::rfc3339;

    #[test]
    fn dates() {
        for (seconds, date) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_827_696, "2000-02-29T12:34:56Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(seconds), date);
        }
    }
}
