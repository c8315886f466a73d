//! The tokens of a text as JSON, written piece by piece: the text may have millions, and a value for each would take a
//! hundred times as much memory as the text.

use std::convert::Infallible;
use std::fmt::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use http_body::Frame;
use serde_json::json;
use tern::Model;

/// Bytes that are written at a time, about.
pub(super) const PIECE: usize = 64 << 10;

struct Tokens {
    model: Arc<Model>,
    ids: std::vec::IntoIter<u32>,
    /// With the text of each.
    pieces: bool,
    begun: bool,
    /// What comes after the last one; taken when it was written.
    end: Option<String>,
}

/// `{"tokens": [...], "count": ..., "max_model_len": ...}`
pub(super) fn response(model: Arc<Model>, context: usize, ids: Vec<u32>, pieces: bool) -> Response {
    let end = Some(format!("],\"count\":{},\"max_model_len\":{context}}}", ids.len()));
    let tokens = Tokens { model, ids: ids.into_iter(), pieces, begun: false, end };
    let mut response = Response::new(Body::new(tokens));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

impl Tokens {
    fn write(&self, id: u32, out: &mut String) {
        if !self.pieces {
            let _ = write!(out, "{id}");
            return;
        }
        let bytes = self.model.tokenizer().ok().and_then(|tokenizer| tokenizer.token_bytes(id));
        let (bytes, _) = bytes.unwrap_or_default();
        // A part of a character is told as its bytes.
        let piece =
            String::from_utf8(bytes).map_or_else(|error| json!(error.into_bytes()), |text| json!(text));
        let _ = write!(out, "{{\"id\":{id},\"piece\":{piece}}}");
    }
}

impl http_body::Body for Tokens {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        if this.end.is_none() {
            return Poll::Ready(None);
        }
        let mut out = String::with_capacity(PIECE + 1024);
        while out.len() < PIECE {
            let Some(id) = this.ids.next() else {
                if !std::mem::replace(&mut this.begun, true) {
                    out.push_str("{\"tokens\":[");
                }
                out.extend(this.end.take());
                break;
            };
            out.push_str(if std::mem::replace(&mut this.begun, true) { "," } else { "{\"tokens\":[" });
            this.write(id, &mut out);
        }
        Poll::Ready(Some(Ok(Frame::data(out.into()))))
    }
}
