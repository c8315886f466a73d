//! The line that the log gets about a request: gathered while it is answered, written when the last byte of its answer
//! was handed over or its client left.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::response::Response;
use http_body::{Body as _, Frame, SizeHint};
use serde_json::{Value, json};

use crate::app::App;
use crate::budget::Hold;
use crate::error::Refusal;
use crate::http::connection::Peer;
use crate::log::{Log, now};

/// What becomes known of a request on its way; the model's thread adds to it.
#[derive(Debug)]
pub(crate) struct Note(Mutex<Known>);

#[derive(Debug)]
struct Known {
    memory: Hold,
    /// Bytes of its body.
    body: usize,
    /// Whether a text was asked for; only then are there tokens.
    text: bool,
    prompt: usize,
    cached: usize,
    tokens: usize,
    first: Option<Duration>,
    end: Option<End>,
    /// What the client should know about its answer.
    warnings: Vec<String>,
}

/// How a text ended. Of several texts the last of these counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    Stop,
    Length,
    Cancelled,
    Timeout,
    Error,
}

impl End {
    fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Cancelled => "cancelled",
            Self::Timeout => "timeout",
            Self::Error => "error",
        }
    }
}

impl Note {
    pub(crate) fn new(memory: Hold) -> Self {
        let (text, body, prompt, cached, tokens, warnings) = (false, 0, 0, 0, 0, Vec::new());
        Self(Mutex::new(Known {
            memory,
            body,
            text,
            prompt,
            cached,
            tokens,
            first: None,
            end: None,
            warnings,
        }))
    }

    /// The request takes so many bytes of memory now, if there is room.
    pub(crate) fn holds(&self, bytes: usize) -> Result<(), Refusal> {
        self.known().memory.set(bytes)
    }

    /// It takes so many bytes more.
    pub(crate) fn takes(&self, bytes: usize) -> Result<(), Refusal> {
        self.known().memory.grow(bytes)
    }

    /// Its body has so many bytes, read into values that take this many.
    pub(crate) fn body(&self, bytes: usize, values: usize) -> Result<(), Refusal> {
        let mut known = self.known();
        known.body = bytes;
        known.memory.set(bytes + values)
    }

    /// Its texts become tokens, which takes memory for a while: a tokenizer holds its merges for each byte of a word, and
    /// a body can be one word.
    pub(crate) fn encodes(&self) -> Result<(), Refusal> {
        const PER_BYTE: usize = 64;
        let mut known = self.known();
        let bytes = known.body * PER_BYTE;
        known.memory.grow(bytes)
    }

    /// Tells the client something about its answer, in the header `x-tern-warning`.
    pub(crate) fn warn(&self, warning: impl Into<String>) {
        self.known().warnings.push(warning.into());
    }

    pub(crate) fn warnings(&self) -> String {
        self.known().warnings.join("; ")
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// A text was asked for, whose prompts have so many tokens.
    pub(crate) fn asked(&self, prompt: usize) {
        let mut known = self.known();
        (known.text, known.prompt) = (true, prompt);
    }

    /// So many tokens of a prompt were there already.
    pub(crate) fn cached(&self, tokens: usize) {
        self.known().cached += tokens;
    }

    /// Another token of an answer, so long after the request.
    pub(crate) fn token(&self, after: Duration) {
        let mut known = self.known();
        known.tokens += 1;
        known.first.get_or_insert(after);
    }

    /// One of the answers ended.
    pub(crate) fn ended(&self, end: End) {
        let mut known = self.known();
        known.end = known.end.max(Some(end));
    }
}

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
            entry["model"] = json!(self.app.options.name);
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
pub(crate) fn unread(log: &Log, peer: Peer, answer: &[u8]) {
    let status = answer.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<u16>().ok());
    log.tell(json!({
        "time": now(),
        "id": "-",
        "client": peer.0.ip().to_canonical().to_string(),
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
