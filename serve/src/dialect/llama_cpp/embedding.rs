//! llama.cpp's `/embedding`: a list of texts, and for each the vectors of its pooling, which here is one.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use crate::app::{App, Caller};
use crate::embed::{Asked, Vectors};
use crate::error::Refusal;
use crate::json::{self, Json};
use crate::wire::Prompt;

#[derive(Deserialize)]
pub(crate) struct Request {
    model: Option<String>,
    #[serde(alias = "input")]
    content: Option<Prompt>,
    embd_normalize: Option<i64>,
    dimensions: Option<usize>,
}

impl json::Body for Request {}

#[derive(Serialize)]
pub(crate) struct Item {
    index: usize,
    embedding: [Vec<f32>; 1],
}

pub(crate) async fn embedding(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<Request>,
) -> Result<axum::Json<Vec<Item>>, Refusal> {
    if request.embd_normalize.is_some_and(|norm| norm != 2) {
        return Err(Refusal::field("embd_normalize", "expected 2: vectors have length 1 here"));
    }
    let (input, dimensions, model) = (request.content, request.dimensions, request.model);
    let asked = Asked { model, keep: None, field: "content", input, dimensions, cut: false };
    let Vectors { vectors, .. } = app.vectors(asked, &caller).await?;
    let each = vectors.into_iter().enumerate();
    Ok(axum::Json(each.map(|(index, vector)| Item { index, embedding: [vector] }).collect()))
}
