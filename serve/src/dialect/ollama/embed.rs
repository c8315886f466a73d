//! Ollama's `/api/embed`, and `/api/embeddings`, which it replaced.

use std::sync::Arc;
use std::time::Instant;

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::app::{App, Caller};
use crate::embed::{Asked, Vectors};
use crate::error::Refusal;
use crate::json::{self, Json};
use crate::wire::Prompt;

use super::error;

#[derive(Deserialize)]
pub(crate) struct Request {
    model: Option<String>,
    keep_alive: Option<Value>,
    input: Option<Prompt>,
    /// The older path's name for it.
    prompt: Option<String>,
    truncate: Option<bool>,
    dimensions: Option<usize>,
}

impl json::Body for Request {}

#[derive(Serialize)]
struct Answer {
    model: String,
    embeddings: Vec<Vec<f32>>,
    total_duration: u64,
    load_duration: u64,
    prompt_eval_count: usize,
}

#[derive(Serialize)]
struct One {
    embedding: Vec<f32>,
}

impl Request {
    fn asked(self) -> Result<Asked, Refusal> {
        let keep = super::keep::read(self.keep_alive.as_ref())?;
        let cut = self.truncate != Some(false);
        let field = if self.prompt.is_some() { "prompt" } else { "input" };
        let input = self.input.or(self.prompt.map(Prompt::Text));
        Ok(Asked { model: self.model, keep, field, input, dimensions: self.dimensions, cut })
    }
}

pub(crate) async fn embed(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    body: Result<Json<Request>, Refusal>,
) -> Response {
    let start = Instant::now();
    let answer = async {
        let Json(request) = body?;
        // Its clients send an empty list to load a model.
        let Vectors { vectors, tokens, model } = match &request.input {
            Some(Prompt::Ids(none)) if none.is_empty() => {
                let keep = super::keep::read(request.keep_alive.as_ref())?;
                let ready = app.model_for(request.model.as_deref(), keep).await?;
                crate::embed::embeds(&ready)?;
                Vectors { vectors: Vec::new(), tokens: 0, model: ready.served.name.clone() }
            }
            _ => app.vectors(request.asked()?, &caller).await?,
        };
        Ok::<_, Refusal>(Answer {
            model,
            embeddings: vectors,
            total_duration: start.elapsed().as_nanos() as u64,
            load_duration: 0,
            prompt_eval_count: tokens,
        })
    };
    answer.await.map_or_else(|refusal| error(&refusal), |answer| axum::Json(answer).into_response())
}

pub(crate) async fn embeddings(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    body: Result<Json<Request>, Refusal>,
) -> Response {
    let answer = async {
        let Json(request) = body?;
        let mut made = app.vectors(request.asked()?, &caller).await?;
        if made.vectors.len() > 1 {
            return Err(Refusal::field("prompt", "expected one text; `/api/embed` takes several"));
        }
        Ok::<_, Refusal>(One { embedding: made.vectors.pop().unwrap_or_default() })
    };
    answer.await.map_or_else(|refusal| error(&refusal), |answer| axum::Json(answer).into_response())
}
