//! Answers out: piece by piece in a dialect's own frames, or all at once.

use std::convert::Infallible;
use std::fmt::Write;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use http_body::Frame;
use serde_json::Value;
use tern::Scored;
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use crate::app::Running;
use crate::error::Refusal;
use crate::limits::KEEP_ALIVE;
use crate::worker::{Done, Event};

/// How a dialect writes a stream. What it appends to `out` goes to the client.
pub(crate) trait Dialect: Send + Unpin + 'static {
    /// `Content-Type`.
    const TYPE: &'static str = "text/event-stream; charset=utf-8";

    /// Before anything has happened.
    fn begin(&mut self, _out: &mut String) {}
    /// Something happened to one answer; never [`Event::Failed`].
    fn event(&mut self, choice: usize, event: Event, out: &mut String);
    /// All answers have ended.
    fn end(&mut self, out: &mut String);
    /// The request failed after its stream had begun.
    fn fail(&mut self, refusal: &Refusal, out: &mut String);
    /// Nothing has happened for a while.
    fn alive(&mut self, out: &mut String) {
        out.push_str(": keep-alive\n\n");
    }
}

/// One event of a stream.
pub(crate) fn sse(out: &mut String, data: &Value) {
    let _ = write!(out, "data: {data}\n\n");
}

/// One event with a name.
pub(crate) fn named(out: &mut String, name: &str, data: &Value) {
    let _ = write!(out, "event: {name}\ndata: {data}\n\n");
}

struct Stream<D> {
    events: Receiver<(usize, Event)>,
    dialect: D,
    /// Answers that have not ended.
    left: usize,
    keep: Interval,
    begun: bool,
    ended: bool,
}

/// The response of a stream.
pub(crate) fn response<D: Dialect>(running: Running, dialect: D) -> Response {
    let mut keep = interval_at(Instant::now() + KEEP_ALIVE, KEEP_ALIVE);
    keep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let left = running.shape.choices;
    let body = Stream { events: running.events, dialect, left, keep, begun: false, ended: false };
    streamed(D::TYPE, body)
}

/// A response that comes piece by piece.
pub(crate) fn streamed(
    kind: &'static str,
    body: impl http_body::Body<Data = Bytes, Error = Infallible> + Send + 'static,
) -> Response {
    let mut response = Response::new(Body::new(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Proxies that gather answers would turn a stream into a wait.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

impl<D: Dialect> http_body::Body for Stream<D> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        /// Bytes of one frame: what a slow client makes wait is in the channel, not here.
        const ENOUGH: usize = 16 << 10;
        let this = self.get_mut();
        let mut out = String::new();
        if !this.begun {
            this.begun = true;
            this.dialect.begin(&mut out);
        }
        while !this.ended && out.len() < ENOUGH {
            match this.events.poll_recv(cx) {
                Poll::Ready(Some((_, Event::Failed(refusal)))) => {
                    this.ended = true;
                    this.dialect.fail(&refusal, &mut out);
                }
                Poll::Ready(Some((choice, event))) => {
                    let done = matches!(event, Event::Done(_));
                    this.dialect.event(choice, event, &mut out);
                    if done {
                        this.left -= 1;
                        if this.left == 0 {
                            this.ended = true;
                            this.dialect.end(&mut out);
                        }
                    }
                }
                Poll::Ready(None) => {
                    this.ended = true;
                    this.dialect.fail(
                        &Refusal::unavailable("the server stopped in the middle of this answer"),
                        &mut out,
                    );
                }
                Poll::Pending => break,
            }
        }
        if !out.is_empty() {
            this.keep.reset();
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from(out)))));
        }
        if this.ended {
            return Poll::Ready(None);
        }
        while this.keep.poll_tick(cx).is_ready() {
            this.dialect.alive(&mut out);
            if !out.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(Bytes::from(out)))));
            }
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        false
    }
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) text: String,
    pub(crate) tokens: Vec<Scored>,
    /// The prompt's tokens, where their probabilities were asked for.
    pub(crate) prompt: Vec<Scored>,
    pub(crate) done: Done,
}

/// Bytes that tokens take until they are written: as they are, and those whose probabilities are told as JSON.
fn told(tokens: &[Scored]) -> usize {
    /// Bytes of one token as a JSON object in memory.
    const OBJECT: usize = 500;
    let objects = |token: &Scored| if token.logprob.is_some() { 1 + token.top.len() } else { 0 };
    size_of_val(tokens) + tokens.iter().map(objects).sum::<usize>() * OBJECT
}

/// Waits for all answers.
pub(crate) async fn collect(mut running: Running) -> Result<Vec<Answer>, Refusal> {
    #[derive(Default)]
    struct Parts {
        text: String,
        tokens: Vec<Scored>,
        prompt: Vec<Scored>,
        done: Option<Done>,
    }
    let mut parts: Vec<Parts> = Vec::new();
    parts.resize_with(running.shape.choices, Default::default);
    let mut left = parts.len();
    while left > 0 {
        match running.events.recv().await {
            Some((_, Event::Failed(refusal))) => return Err(refusal),
            Some((choice, event)) => {
                let part = &mut parts[choice];
                match event {
                    Event::Read { scored, .. } => {
                        running.note.takes(told(&scored))?;
                        part.prompt = scored;
                    }
                    Event::Piece { text, tokens, .. } => {
                        running.note.takes(2 * text.len() + told(&tokens))?;
                        part.text.push_str(&text);
                        part.tokens.extend(tokens);
                    }
                    Event::Done(done) => {
                        part.done = Some(done);
                        left -= 1;
                    }
                    Event::Reading { .. } | Event::Failed(_) => {}
                }
            }
            None => return Err(Refusal::unavailable("the server stopped in the middle of this answer")),
        }
    }
    let answers = parts.into_iter().filter_map(|Parts { text, tokens, prompt, done }| {
        Some(Answer { text, tokens, prompt, done: done? })
    });
    Ok(answers.collect())
}
