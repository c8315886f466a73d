//! What the answers of all dialects have in common: their envelope, usage, and what was said and called.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tern::{Drafted, Model, Scored};

use crate::app::{App, Running};
use crate::prepare::Shape;
use crate::worker::{Reason, Times};
use tern::date::now;

/// What every object of one answer carries.
#[derive(Clone)]
pub(crate) struct Envelope {
    pub(crate) id: String,
    pub(crate) created: u64,
    pub(crate) name: String,
    pub(crate) model: Arc<Model>,
}

impl Envelope {
    pub(crate) fn new(app: &App, running: &Running, prefix: &str) -> Self {
        let (id, name) = (app.id(prefix), running.name.clone());
        Self { id, created: now(), name, model: running.ready.model.clone() }
    }

    pub(crate) fn object(&self, object: &str, choices: Vec<Value>) -> Value {
        json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.name,
            "system_fingerprint": concat!("b-tern-", env!("CARGO_PKG_VERSION")),
            "choices": choices,
        })
    }

    /// How a token reads by itself, and its bytes.
    pub(crate) fn token(&self, id: u32) -> (String, Vec<u8>) {
        match self.model.tokenizer() {
            Ok(tokenizer) => {
                let (bytes, _) = tokenizer.token_bytes(id).unwrap_or_default();
                (String::from_utf8_lossy(&bytes).into_owned(), bytes)
            }
            Err(_) => (id.to_string(), Vec::new()),
        }
    }

    fn is_special(&self, id: u32) -> bool {
        let bytes = self.model.tokenizer().ok().and_then(|tokenizer| tokenizer.token_bytes(id));
        bytes.is_some_and(|(_, special)| special)
    }

    /// Chat's form: one object for each token.
    pub(crate) fn logprobs(&self, tokens: &[Scored]) -> Value {
        let one = |id: u32, logprob: f32| {
            let (token, bytes) = self.token(id);
            json!({"token": token, "logprob": logprob, "bytes": bytes})
        };
        let list = tokens.iter().map(|scored| {
            let mut object = one(scored.id, scored.logprob.unwrap_or(0.0));
            object["top_logprobs"] = scored.top.iter().map(|&(id, logprob)| one(id, logprob)).collect();
            object
        });
        json!({"content": list.collect::<Vec<_>>(), "refusal": null})
    }

    /// Completions' form: parallel lists. `offset` is where the first token's text begins, in characters. An `echo` begins
    /// without what was put before the prompt: a begin-of-text token, the space of a first word.
    pub(crate) fn parallel_logprobs(
        &self,
        tokens: &[Scored],
        offset: &mut usize,
        echo: Option<&str>,
    ) -> Value {
        let (mut texts, mut offsets) = (Vec::new(), Vec::new());
        for scored in tokens {
            let (token, _) = self.token(scored.id);
            offsets.push(*offset);
            *offset += match echo {
                Some(echo) if *offset == 0 && !echo.starts_with(&token) => match token.strip_prefix(' ') {
                    Some(rest) if echo.starts_with(rest) => rest.chars().count(),
                    _ if self.is_special(scored.id) => 0,
                    _ => token.chars().count(),
                },
                _ => token.chars().count(),
            };
            texts.push(token);
        }
        let top = |scored: &Scored| {
            scored.logprob?;
            let mut map = Map::new();
            for &(id, logprob) in &scored.top {
                // Two tokens can read alike; the likelier came first.
                map.entry(self.token(id).0).or_insert_with(|| json!(logprob));
            }
            Some(map)
        };
        json!({
            "tokens": texts,
            "token_logprobs": tokens.iter().map(|scored| scored.logprob).collect::<Vec<_>>(),
            "top_logprobs": tokens.iter().map(top).collect::<Vec<_>>(),
            "text_offset": offsets,
        })
    }
}

/// One answer's id is unique, and so are its calls'.
pub(crate) fn call_id(id: &str, choice: usize, at: usize) -> String {
    format!("call_{}{choice:02}{at:02}", id.rsplit('-').next().unwrap_or(id))
}

/// `stop`, `length` or `tool_calls`. What the limit cut is not finished, calls or no calls.
pub(crate) fn finish_reason(reason: &Reason, calls: usize) -> &'static str {
    match reason {
        Reason::Length => "length",
        _ if calls > 0 => "tool_calls",
        Reason::Stop(_) | Reason::Text(_) | Reason::Complete => "stop",
    }
}

/// Tokens of all answers together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) prompt: usize,
    pub(crate) cached: usize,
    pub(crate) completion: usize,
    drafted: Drafted,
    last: Times,
}

impl Usage {
    pub(crate) fn new(shape: &Shape) -> Self {
        Self { prompt: shape.prompt_tokens.iter().sum(), ..Self::default() }
    }

    /// Adds an answer; a prompt counts once, with its first answer.
    pub(crate) fn add(&mut self, shape: &Shape, choice: usize, times: &Times) {
        if choice.is_multiple_of(shape.n) {
            self.cached += times.cached_tokens;
        }
        self.completion += times.tokens;
        self.drafted.add(times.drafted);
        self.last = *times;
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached},
            "completion_tokens_details": {
                "accepted_prediction_tokens": self.drafted.accepted,
                "rejected_prediction_tokens": self.drafted.tokens - self.drafted.accepted,
            },
        })
    }

    /// Times of the answer that ended last.
    pub(crate) fn timings(&self) -> Value {
        timings(&self.last)
    }
}

/// llama.cpp's `timings`.
pub(crate) fn timings(times: &Times) -> Value {
    let &Times { prompt_tokens, cached_tokens, tokens, drafted, first, rest } = times;
    let ms = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
    let (read, later) = (prompt_tokens - cached_tokens, tokens.saturating_sub(1));
    let per_second = |count: usize, time: Duration| match ms(time) {
        0.0 => 0.0,
        ms => 1e3 / ms * count as f64,
    };
    let per_token = |count: usize, time: Duration| if count == 0 { 0.0 } else { ms(time) / count as f64 };
    json!({
        "cache_n": cached_tokens,
        "prompt_n": read,
        "prompt_ms": ms(first),
        "prompt_per_token_ms": per_token(read, first),
        "prompt_per_second": per_second(read, first),
        "predicted_n": tokens,
        "predicted_ms": ms(rest),
        // The first token comes out of the prompt's last step.
        "predicted_per_token_ms": per_token(later, rest),
        "predicted_per_second": per_second(later, rest),
        "draft_n": drafted.tokens,
        "draft_n_accepted": drafted.accepted,
    })
}

/// llama.cpp's `prompt_progress`: what is told of the reading of prompts.
pub(crate) struct Progress {
    begun: Vec<bool>,
}

impl Progress {
    pub(crate) fn new(shape: &Shape) -> Self {
        Self { begun: vec![false; shape.choices] }
    }

    /// The objects that tell how far an answer's prompt was read, if that was asked for; the first one says what was
    /// known before. All of it if `read` is `None`.
    pub(crate) fn objects(
        &mut self,
        shape: &Shape,
        choice: usize,
        (cached, read, spent): (usize, Option<usize>, Duration),
        frame: &Value,
    ) -> Vec<Value> {
        if !shape.progress {
            return Vec::new();
        }
        let total = shape.prompt_tokens[choice / shape.n];
        let first = !std::mem::replace(&mut self.begun[choice], true);
        let known = first.then_some((cached, Duration::ZERO));
        let object = |(read, spent): (usize, Duration)| {
            let mut object = frame.clone();
            let ms = spent.as_millis() as u64;
            object["prompt_progress"] =
                json!({"total": total, "cache": cached, "processed": read, "time_ms": ms});
            if shape.timings {
                let times =
                    Times { prompt_tokens: read, cached_tokens: cached, first: spent, ..Times::default() };
                object["timings"] = timings(&times);
            }
            object
        };
        known.into_iter().chain([(read.unwrap_or(total), spent)]).map(object).collect()
    }
}
