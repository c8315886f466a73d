//! `/completion`: a text continued, in llama.cpp's own shape.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use tern::Scored;

use crate::answer::{Envelope, Progress, timings};
use crate::app::{App, Caller};
use crate::error::Refusal;
use crate::json::Json;
use crate::prepare::{Kind, Shape};
use crate::stream::{self, Answer, Dialect, sse};
use crate::wire::{self, Logprobs};
use crate::worker::{Done, Event, Reason, Times};

/// What is told beside the text.
struct Told {
    tokens: bool,
    fields: Vec<String>,
}

pub(crate) async fn completion(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Json(mut request): Json<wire::Request>,
) -> Result<Response, Refusal> {
    // Without a number it writes on until it ends.
    request.n_predict = request.n_predict.or(request.max_tokens).or(Some(-1));
    (request.max_tokens, request.max_completion_tokens) = (None, None);
    request.n = request.n.or(request.n_cmpl);
    request.logprobs = request.n_probs.filter(|count| *count > 0).map(Logprobs::Count).or(request.logprobs);
    request.verbose = Some(true);
    let list = match &request.prompt {
        Some(wire::Prompt::Mixed(items)) => !items.iter().any(|item| matches!(item, wire::PromptItem::Id(_))),
        Some(wire::Prompt::Texts(_) | wire::Prompt::Lists(_)) => true,
        _ => request.n.is_some_and(|n| n > 1),
    };
    let told = Told {
        tokens: request.return_tokens == Some(true),
        fields: request.response_fields.take().unwrap_or_default(),
    };
    let running = app.start(request, Kind::Completion, &caller).await?;
    let envelope = Envelope::new(&app, &running, "");
    let shape = running.shape.clone();
    if shape.stream {
        return Ok(stream::response(running, Chunks::new(envelope, shape, told)));
    }
    let answers = stream::collect(running).await?;
    let mut objects: Vec<Value> = answers
        .iter()
        .enumerate()
        .map(|(index, answer)| whole(&envelope, &shape, &told, index, answer))
        .collect();
    Ok(match list {
        true => axum::Json(Value::Array(objects)).into_response(),
        false => axum::Json(objects.swap_remove(0)).into_response(),
    })
}

fn whole(envelope: &Envelope, shape: &Shape, told: &Told, index: usize, answer: &Answer) -> Value {
    let mut object = last(envelope, shape, index, &answer.text, &answer.done);
    let ids: Vec<u32> = answer.tokens.iter().map(|token| token.id).collect();
    object["tokens"] = json!(if told.tokens { ids } else { Vec::new() });
    if shape.logprobs.is_some() {
        object["completion_probabilities"] = probabilities(envelope, &answer.tokens);
    }
    only(object, &told.fields)
}

/// The fields that were asked for; `/` leads into an object.
fn only(object: Value, fields: &[String]) -> Value {
    if fields.is_empty() {
        return object;
    }
    let found = fields.iter().filter_map(|field| {
        let value = object.pointer(&format!("/{field}"))?;
        Some((field.clone(), value.clone()))
    });
    Value::Object(found.collect::<Map<_, _>>())
}

/// What is known at the end of an answer.
fn last(envelope: &Envelope, shape: &Shape, index: usize, text: &str, done: &Done) -> Value {
    let times = &done.times;
    let asked = shape.asked.as_ref();
    let context = asked.map_or(usize::MAX, |asked| asked.context);
    let full = times.prompt_tokens + times.tokens >= context;
    let (stop, word) = match &done.reason {
        Reason::Stop(_) | Reason::Complete => ("eos", ""),
        Reason::Text(word) => ("word", word.as_str()),
        Reason::Length => ("limit", ""),
    };
    json!({
        "index": index,
        "id_slot": index,
        "content": text,
        "stop": true,
        "model": envelope.name,
        "tokens_predicted": times.tokens,
        "tokens_evaluated": times.prompt_tokens,
        "tokens_cached": times.prompt_tokens + times.tokens,
        "generation_settings": asked.map(|asked| asked.json()),
        "prompt": asked.and_then(|asked| asked.prompts.get(index / shape.n)),
        "has_new_line": text.contains('\n'),
        "truncated": done.reason == Reason::Length && full,
        "stop_type": stop,
        "stopping_word": word,
        "timings": timings(times),
    })
}

fn probabilities(envelope: &Envelope, tokens: &[Scored]) -> Value {
    let one = |id: u32, logprob: f32| {
        let (token, bytes) = envelope.token(id);
        json!({"id": id, "token": token, "bytes": bytes, "logprob": logprob})
    };
    let told = tokens.iter().map(|scored| {
        let mut object = one(scored.id, scored.logprob.unwrap_or(0.0));
        object["top_logprobs"] = scored.top.iter().map(|&(id, logprob)| one(id, logprob)).collect();
        object
    });
    told.collect()
}

struct Chunks {
    envelope: Envelope,
    shape: Shape,
    told: Told,
    progress: Progress,
    /// Whether each answer has had a line break.
    lines: Vec<bool>,
}

impl Chunks {
    fn new(envelope: Envelope, shape: Shape, told: Told) -> Self {
        let (progress, lines) = (Progress::new(&shape), vec![false; shape.choices]);
        Self { envelope, shape, told, progress, lines }
    }

    fn piece(&self, choice: usize, text: &str, tokens: &[Scored], times: &Times) -> Value {
        let mut object = json!({
            "index": choice,
            "id_slot": choice,
            "content": text,
            "tokens": tokens.iter().map(|token| token.id).collect::<Vec<_>>(),
            "stop": false,
            "tokens_predicted": times.tokens,
            "tokens_evaluated": times.prompt_tokens,
        });
        if self.shape.timings && times.tokens > 0 {
            object["timings"] = timings(times);
        }
        object
    }
}

impl Dialect for Chunks {
    fn event(&mut self, choice: usize, event: Event, out: &mut String) {
        if let Some(read) = event.read() {
            let frame = self.piece(choice, "", &[], &Times::default());
            let objects = self.progress.objects(&self.shape, choice, read, &frame);
            objects.iter().for_each(|object| sse(out, object));
        }
        match event {
            Event::Piece { text, tokens, times } => {
                self.lines[choice] |= text.contains('\n');
                let mut object = self.piece(choice, &text, &tokens, &times);
                if self.shape.logprobs.is_some() && !tokens.is_empty() {
                    object["completion_probabilities"] = probabilities(&self.envelope, &tokens);
                }
                sse(out, &only(object, &self.told.fields));
            }
            Event::Done(done) => {
                let mut object = last(&self.envelope, &self.shape, choice, "", &done);
                object["tokens"] = json!([]);
                object["has_new_line"] = json!(self.lines[choice]);
                sse(out, &only(object, &self.told.fields));
            }
            Event::Reading { .. } | Event::Read { .. } | Event::Failed(_) => {}
        }
    }

    fn end(&mut self, _: &mut String) {}

    fn fail(&mut self, refusal: &Refusal, out: &mut String) {
        sse(out, &refusal.json());
    }
}
