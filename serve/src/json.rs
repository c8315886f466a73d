//! Bodies in: bounded in size, depth and time, and read as JSON.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;

use axum::extract::{FromRequest, Request};
use http_body::Body as _;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::app::{App, Caller};
use crate::error::{Refusal, short};
use crate::limits::{BODY, BODY_PAUSE, BODY_TIME};
use crate::note::Note;
use crate::refused::{self, Setting};

/// A body that was read as JSON.
pub(crate) struct Json<T>(pub(crate) T);

/// What a body can be read as.
pub(crate) trait Body: DeserializeOwned {
    /// Settings that it must not have.
    const REFUSED: &'static [Setting] = &[];
}

impl Body for Value {}

/// What is larger is read in turn, apart from the threads that serve.
const SMALL: usize = 64 << 10;

impl<T: Body + Send + 'static> FromRequest<Arc<App>> for Json<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Refusal> {
        let (head, body) = request.into_parts();
        let caller = head.extensions.get::<Caller>();
        let (owner, note) =
            (caller.map_or(0, |caller| caller.owner), caller.map(|caller| caller.note.clone()));
        let bytes = read(body, note.as_deref()).await?;
        let small = bytes.len() <= SMALL;
        let read = move || {
            note.map_or(Ok(()), |note| note.body(bytes.len(), values(&bytes)))?;
            let parsed = parse(&bytes)?;
            refused::check(&bytes, T::REFUSED)?;
            Ok(Self(parsed))
        };
        if small { read() } else { app.read(owner, read).await }
    }
}

/// Bytes that JSON takes once it is read, at most: its texts, and a value for each of its marks outside of them.
fn values(json: &[u8]) -> usize {
    /// A member of an object of any shape, with its share of the table.
    const VALUE: usize = 100;
    let (mut marks, mut text, mut escaped) = (1, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => text = !text,
            b',' | b':' | b'[' | b'{' if !text => marks += 1,
            _ => {}
        }
    }
    json.len() + marks * VALUE
}

/// The most levels of arrays and objects in each other.
const LEVELS: usize = 127;

/// Whether JSON is nested deeper than [`LEVELS`]. serde_json refuses that itself, but for what it skips.
fn is_deep(bytes: &[u8]) -> bool {
    let (mut level, mut in_string, mut escaped) = (0usize, false, false);
    bytes.iter().any(|byte| {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b'[' | b'{') => level += 1,
            (false, b']' | b'}') => level = level.saturating_sub(1),
            _ => {}
        }
        level > LEVELS
    })
}

/// Reads JSON; what is wrong is told with its place.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    if is_deep(bytes) {
        return Err(Refusal::bad(format!(
            "the body is nested deeper than {LEVELS} levels (recursion limit)"
        )));
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let what = short(&error.inner().to_string());
        if path == "." || error.inner().is_syntax() || error.inner().is_eof() {
            Refusal::bad(format!("the body is not the JSON that was expected: {what}"))
        } else {
            Refusal::field(short(&path), what)
        }
    })?;
    reader.end().map_err(|error| Refusal::bad(format!("the body goes on after its JSON: {error}")))?;
    Ok(value)
}

async fn read(body: axum::body::Body, note: Option<&Note>) -> Result<Vec<u8>, Refusal> {
    let too_large = || Refusal::too_large(format!("the body is larger than {BODY} bytes"));
    if body.size_hint().lower() > BODY as u64 {
        return Err(too_large());
    }
    let mut body = pin!(body);
    let collect = async {
        let mut bytes = Vec::new();
        loop {
            let frame = poll_fn(|context| body.as_mut().poll_frame(context));
            let frame = tokio::time::timeout(BODY_PAUSE, frame).await;
            let frame = frame.map_err(|_| Refusal::timeout("the body stopped coming"))?;
            let Some(frame) = frame else { return Ok(bytes) };
            let frame = frame.map_err(|error| {
                Refusal::bad(format!("the body broke off: {}", short(&error.to_string())))
            })?;
            if let Ok(data) = frame.into_data() {
                if bytes.len() + data.len() > BODY {
                    return Err(too_large());
                }
                note.map_or(Ok(()), |note| note.takes(data.len()))?;
                // No more than that: twice as much at each turn would be memory that nobody counted.
                if bytes.capacity() - bytes.len() < data.len() {
                    bytes.reserve_exact(data.len().max(bytes.len() / 4));
                }
                bytes.extend_from_slice(&data);
            }
        }
    };
    let all = tokio::time::timeout(BODY_TIME, collect).await;
    all.map_err(|_| Refusal::timeout("the body took too long to come"))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire;

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (body, param, expected) in [
            ("{", None, "EOF"),
            ("{} {}", None, "goes on"),
            ("{\"temperature\": \"hot\"}", Some("temperature"), "invalid type"),
            ("{\"messages\": [{\"role\": 1}]}", Some("messages[0].role"), "invalid type"),
            ("{\"messages\": [{\"content\": \"\"}]}", Some("messages[0]"), "missing field `role`"),
            ("{\"stop\": 5}", Some("stop"), "expected a text or a list of texts"),
        ] {
            let refusal = parse::<wire::Request>(body.as_bytes()).unwrap_err();
            assert_eq!(refusal.param.as_deref(), param, "{body:.60}: {refusal:?}");
            assert!(refusal.message.contains(expected), "{body:.60}: {refusal:?}");
        }
        let deep = parse::<serde_json::Value>("[".repeat(200_000).as_bytes()).unwrap_err();
        assert!(deep.message.contains("recursion limit"), "{deep:?}");
        // In a field that nobody reads, too, and brackets in strings are text.
        let nested = |levels: usize| format!("{{\"other\": {}{}}}", "[".repeat(levels), "]".repeat(levels));
        let deep = parse::<wire::Request>(nested(50_000).as_bytes()).unwrap_err();
        assert!(deep.message.contains("127 levels"), "{deep:?}");
        parse::<wire::Request>(nested(126).as_bytes()).unwrap();
        parse::<wire::Request>(nested(127).as_bytes()).unwrap_err();
        parse::<wire::Request>(format!("{{\"other\": \"{}\\\"[\"}}", "[".repeat(500)).as_bytes()).unwrap();
        let request: wire::Request = parse(b"{\"n\": null, \"no such thing\": [1]}").unwrap();
        assert_eq!(request.n, None);
    }
}
