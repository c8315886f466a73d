//! `/v1/embeddings`.

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
    input: Option<Prompt>,
    encoding_format: Option<String>,
    dimensions: Option<usize>,
}

impl json::Body for Request {}

#[derive(Serialize)]
pub(crate) struct Answer {
    object: &'static str,
    data: Vec<Item>,
    model: String,
    usage: Usage,
}

#[derive(Serialize)]
struct Item {
    object: &'static str,
    index: usize,
    embedding: Written,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Written {
    Numbers(Vec<f32>),
    Base64(String),
}

#[derive(Serialize)]
struct Usage {
    prompt_tokens: usize,
    total_tokens: usize,
}

pub(crate) async fn embeddings(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Json(request): Json<Request>,
) -> Result<axum::Json<Answer>, Refusal> {
    let base64 = match request.encoding_format.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(_) => return Err(Refusal::field("encoding_format", "expected `float` or `base64`")),
    };
    let (input, dimensions, model) = (request.input, request.dimensions, request.model);
    let asked = Asked { model, keep: None, field: "input", input, dimensions, cut: false };
    let Vectors { vectors, tokens, model } = app.vectors(asked, &caller).await?;
    let written = |vector: Vec<f32>| match base64 {
        true => Written::Base64(encode(&vector)),
        false => Written::Numbers(vector),
    };
    let item = |(index, vector)| Item { object: "embedding", index, embedding: written(vector) };
    Ok(axum::Json(Answer {
        object: "list",
        data: vectors.into_iter().enumerate().map(item).collect(),
        model,
        usage: Usage { prompt_tokens: tokens, total_tokens: tokens },
    }))
}

/// The numbers as little-endian f32 in Base64 (RFC 4648).
fn encode(vector: &[f32]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let word = three.iter().fold(0, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for at in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * at) & 63) as usize];
            text.push(if at <= three.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::encode;

    #[test]
    fn base64_of_floats() {
        assert_eq!(encode(&[]), "");
        assert_eq!(encode(&[1.0]), "AACAPw==");
        assert_eq!(encode(&[1.0, -2.0]), "AACAPwAAAMA=");
        assert_eq!(encode(&[1.0, -2.0, 0.5]), "AACAPwAAAMAAAAA/");
    }
}
