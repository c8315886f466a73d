//! `/v1/completions`.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tern::Scored;

use crate::answer::{Envelope, Progress, Usage, finish_reason, timings};
use crate::app::{App, Caller};
use crate::error::Refusal;
use crate::json::Json;
use crate::prepare::{Kind, Shape};
use crate::stream::{self, Answer, Dialect, sse};
use crate::wire::Request;
use crate::worker::{Event, Reason};

pub(crate) async fn completions(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<Request>,
) -> Result<Response, Refusal> {
    let running = app.start(request, Kind::Completion, &caller).await?;
    let envelope = Envelope::new(&app, &running, "cmpl-");
    let shape = running.shape.clone();
    if shape.stream {
        return Ok(stream::response(running, Chunks::new(envelope, shape)));
    }
    let answers = stream::collect(running).await?;
    Ok(axum::Json(whole(&envelope, &shape, &answers)).into_response())
}

/// The stop token, where everything is told: who sums up probabilities counts on one token more than the prompt.
fn last_token<'a>(shape: &Shape, reason: &'a Reason) -> Option<&'a Scored> {
    match reason {
        Reason::Stop(token) if shape.echo.is_some() && shape.logprobs.is_some() => Some(token),
        _ => None,
    }
}

fn whole(envelope: &Envelope, shape: &Shape, answers: &[Answer]) -> Value {
    let mut usage = Usage::new(shape);
    let choices = answers.iter().enumerate().map(|(index, answer)| {
        usage.add(shape, index, &answer.done.times);
        let echo = shape.echo.as_ref().map(|texts| texts[index / shape.n].clone()).unwrap_or_default();
        let logprobs = shape.logprobs.map(|_| {
            let tokens = answer.prompt.iter().chain(&answer.tokens);
            let tokens: Vec<Scored> = tokens.chain(last_token(shape, &answer.done.reason)).cloned().collect();
            envelope.parallel_logprobs(&tokens, &mut 0, shape.echo.is_some().then_some(echo.as_str()))
        });
        json!({
            "index": index,
            "text": format!("{echo}{}", answer.text),
            "logprobs": logprobs,
            "finish_reason": finish_reason(&answer.done.reason, 0),
        })
    });
    let mut object = envelope.object("text_completion", choices.collect());
    object["usage"] = usage.json();
    object["timings"] = usage.timings();
    object
}

struct Chunks {
    envelope: Envelope,
    shape: Shape,
    usage: Usage,
    /// Where each answer's next token begins.
    offsets: Vec<usize>,
    progress: Progress,
    /// Told with the next piece.
    times: Option<Value>,
}

impl Chunks {
    fn new(envelope: Envelope, shape: Shape) -> Self {
        let (usage, progress) = (Usage::new(&shape), Progress::new(&shape));
        Self { envelope, usage, progress, offsets: vec![0; shape.choices], shape, times: None }
    }

    /// More of the prompt was read.
    fn read(&mut self, choice: usize, read: (usize, Option<usize>, Duration), out: &mut String) {
        let mut frame = self.envelope.object("text_completion", Vec::new());
        frame["choices"] = json!([{"index": choice, "text": "", "logprobs": null, "finish_reason": null}]);
        let chunks = self.progress.objects(&self.shape, choice, read, &frame);
        chunks.iter().for_each(|chunk| sse(out, chunk));
    }

    fn send(&mut self, choice: usize, text: &str, tokens: &[Scored], finish: Option<&str>, out: &mut String) {
        // The prompt comes first, and as a whole.
        let echo = self.shape.echo.as_ref().map(|texts| texts[choice / self.shape.n].as_str());
        let logprobs = match self.shape.logprobs {
            Some(_) if !tokens.is_empty() => {
                self.envelope.parallel_logprobs(tokens, &mut self.offsets[choice], echo)
            }
            _ => Value::Null,
        };
        let choice = json!({"index": choice, "text": text, "logprobs": logprobs, "finish_reason": finish});
        let mut chunk = self.envelope.object("text_completion", vec![choice]);
        if self.shape.usage {
            chunk["usage"] = Value::Null;
        }
        if finish.is_some() {
            chunk["timings"] = self.usage.timings();
        } else if let Some(times) = self.times.take() {
            chunk["timings"] = times;
        }
        sse(out, &chunk);
    }
}

impl Dialect for Chunks {
    fn event(&mut self, choice: usize, event: Event, out: &mut String) {
        match event {
            Event::Reading { cached, read, spent } => self.read(choice, (cached, Some(read), spent), out),
            Event::Read { scored, cached, spent } => {
                self.read(choice, (cached, None, spent), out);
                if let Some(texts) = self.shape.echo.clone() {
                    self.send(choice, &texts[choice / self.shape.n], &scored, None, out);
                }
            }
            Event::Piece { text, tokens, times } => {
                self.times = self.shape.timings.then(|| timings(&times));
                // Without text, too, where a character is not whole yet: whoever counts pieces counts tokens.
                self.send(choice, &text, &tokens, None, out);
            }
            Event::Done(done) => {
                self.usage.add(&self.shape, choice, &done.times);
                let last: Vec<Scored> = last_token(&self.shape, &done.reason).cloned().into_iter().collect();
                self.send(choice, "", &last, Some(finish_reason(&done.reason, 0)), out);
            }
            Event::Failed(_) => {}
        }
    }

    fn end(&mut self, out: &mut String) {
        if self.shape.usage {
            let mut chunk = self.envelope.object("text_completion", Vec::new());
            chunk["usage"] = self.usage.json();
            sse(out, &chunk);
        }
        out.push_str("data: [DONE]\n\n");
    }

    fn fail(&mut self, refusal: &Refusal, out: &mut String) {
        sse(out, &refusal.json());
    }
}
