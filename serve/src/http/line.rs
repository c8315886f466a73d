//! The line that the log gets about a request, written when the last byte of its answer was handed over or its client left.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::response::Response;
use http_body::{Body as _, Frame, SizeHint};
use serde_json::{Value, json};

use crate::app::App;
use crate::log::{Log, now};
use crate::note::{End, Note};

/// Who asked for what; dropped before its time, it says that the client left.
pub(crate) struct Line {
    pub(crate) app: Arc<App>,
    pub(crate) note: Arc<Note>,
    pub(crate) start: Instant,
    pub(crate) id: String,
    pub(crate) client: String,
    /// Which key it brought, counted from 1. The key itself is never told.
    pub(crate) key: Option<usize>,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) status: Option<u16>,
    /// Bytes of the answer's body that were handed over.
    pub(crate) bytes: usize,
    pub(crate) told: bool,
}

/// The status that servers write for a client that left before it got one.
const LEFT: u16 = 499;

impl Line {
    fn tell(&mut self, whole: bool) {
        if std::mem::replace(&mut self.told, true) {
            return;
        }
        let time = self.start.elapsed();
        self.app.metrics.request.observe(time);
        let ms = |time: Duration| (time.as_secs_f64() * 1e4).round() / 10.0;
        let mut entry = json!({
            "time": now(),
            "id": self.id,
            "client": self.client,
            "method": self.method,
            "path": self.path,
            "status": self.status.unwrap_or(LEFT),
            "bytes": self.bytes,
            "ms": ms(time),
        });
        if let Some(key) = self.key {
            entry["key"] = json!(key);
        }
        let known = self.note.known();
        if !known.warnings.is_empty() {
            entry["warning"] = json!(known.warnings.join("; "));
        }
        if known.text {
            entry["model"] = json!(known.model);
            entry["prompt_tokens"] = json!(known.prompt);
            entry["cached_tokens"] = json!(known.cached);
            entry["completion_tokens"] = json!(known.tokens);
            entry["first_token_ms"] = known.first.map_or(Value::Null, |first| json!(ms(first)));
        }
        let end = match (known.end, self.status) {
            (Some(end @ (End::Timeout | End::Error)), _) => end.name(),
            _ if !whole => End::Cancelled.name(),
            (_, Some(408)) => End::Timeout.name(),
            (_, Some(400..500)) => "refused",
            (_, Some(500..)) => End::Error.name(),
            (Some(end), _) => end.name(),
            (None, _) => "done",
        };
        entry["end"] = end.into();
        self.app.options.log.tell(entry);
    }

    /// Puts itself around the body of an answer, to see its end.
    pub(crate) fn follow(mut self, response: Response) -> Response {
        self.status = Some(response.status().as_u16());
        // Nothing of the body of such an answer is asked for.
        let bare = self.method == "HEAD";
        response.map(|inner| Body::new(Followed { inner, line: self, bare }))
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.tell(false);
    }
}

/// The line about what was no request: its head could not be read, and this was the answer.
pub(crate) fn unread(log: &Log, peer: SocketAddr, answer: &[u8]) {
    let status = answer.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<u16>().ok());
    log.tell(json!({
        "time": now(),
        "id": "-",
        "client": peer.ip().to_canonical().to_string(),
        "method": "-",
        "path": "-",
        "status": status,
        "bytes": answer.len(),
        "ms": 0.0,
        "end": "refused",
    }));
}

/// A body that tells its line when it ends.
struct Followed {
    inner: Body,
    line: Line,
    bare: bool,
}

impl Drop for Followed {
    fn drop(&mut self) {
        // A body without bytes is not asked for any.
        self.line.tell(self.bare || self.inner.is_end_stream());
    }
}

impl http_body::Body for Followed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        let frame = Pin::new(&mut this.inner).poll_frame(cx);
        match &frame {
            Poll::Ready(Some(Ok(frame))) => this.line.bytes += frame.data_ref().map_or(0, Bytes::len),
            Poll::Ready(None) => this.line.tell(true),
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
