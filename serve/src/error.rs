//! What a client is told when something cannot be done, in each dialect's shape.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// One line of a client's words.
pub(crate) fn short(text: &str) -> String {
    let mut short: String = text.chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(200).is_some() {
        short.push('…');
    }
    short
}

/// A request that failed: one clear line and what programs need.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    /// OpenAI's `type`.
    pub(crate) kind: &'static str,
    pub(crate) code: Option<&'static str>,
    /// The field it is about.
    pub(crate) param: Option<String>,
    /// Tokens of a prompt that is too long, and of the context.
    pub(crate) tokens: Option<Box<(usize, usize)>>,
    /// Seconds after which it may be tried again.
    pub(crate) retry_after: Option<u64>,
}

impl Refusal {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { status, message, kind, code: None, param: None, tokens: None, retry_after: None }
    }

    /// The request cannot be meant.
    pub(crate) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }

    /// The same, for one field.
    pub(crate) fn field(param: impl Into<String>, message: impl Into<String>) -> Self {
        let param = param.into();
        let message = format!("`{param}`: {}", message.into());
        Self { param: Some(param), ..Self::bad(message) }
    }

    pub(crate) fn prompt_too_long(tokens: usize, context: usize) -> Self {
        let message = format!(
            "the prompt has {tokens} tokens, which exceeds the available context size of {context}, the answer included"
        );
        Self {
            kind: "exceed_context_size_error",
            code: Some("context_length_exceeded"),
            tokens: Some(Box::new((tokens, context))),
            ..Self::bad(message)
        }
    }

    pub(crate) fn unauthorized() -> Self {
        Self {
            code: Some("invalid_api_key"),
            ..Self::new(
                StatusCode::UNAUTHORIZED,
                "authentication_error",
                "expected a key of this server: `Authorization: Bearer KEY`",
            )
        }
    }

    pub(crate) fn not_found(path: &str) -> Self {
        let path: String = path.chars().take(100).collect();
        Self {
            code: Some("not_found"),
            ..Self::new(StatusCode::NOT_FOUND, "not_found_error", format!("there is no `{path}` here"))
        }
    }

    /// The owner of the server does not want it.
    pub(crate) fn forbidden(what: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "permission_error", what)
    }

    /// It does not go together with what is or runs now.
    pub(crate) fn conflict(what: impl Into<String>) -> Self {
        Self { code: Some("conflict"), ..Self::new(StatusCode::CONFLICT, "invalid_request_error", what) }
    }

    pub(crate) fn no_model(name: &str, names: &str) -> Self {
        let message = format!("there is no model `{name}` here: this server has {names}");
        Self { message, code: Some("model_not_found"), ..Self::not_found("") }
    }

    pub(crate) fn method(method: &str, path: &str) -> Self {
        let path: String = path.chars().take(100).collect();
        let message = format!("`{path}` does not know the method {method}");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", message)
    }

    pub(crate) fn too_large(what: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", what)
    }

    pub(crate) fn timeout(what: impl Into<String>) -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, "timeout_error", what)
    }

    pub(crate) fn not_supported(what: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, "not_supported_error", what)
    }

    pub(crate) fn too_many(what: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", what)
    }

    pub(crate) fn busy(queue: usize) -> Self {
        let what = format!("{queue} answers are running or waiting already: try again in a moment");
        Self { code: Some("queue_full"), retry_after: Some(2), ..Self::too_many(what) }
    }

    pub(crate) fn memory() -> Self {
        Self {
            code: Some("memory_full"),
            retry_after: Some(2),
            ..Self::unavailable("the memory for requests is in use: try again in a moment")
        }
    }

    pub(crate) fn unavailable(what: impl Into<String>) -> Self {
        Self { retry_after: Some(5), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable_error", what) }
    }

    pub(crate) fn internal(what: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", what)
    }

    /// A panic ended this request; the others go on.
    pub(crate) fn panicked() -> Self {
        Self::internal("internal error; this request was ended and the others go on")
    }

    pub(crate) fn too_slow() -> Self {
        Self::timeout("the request took longer than this server allows")
    }

    pub(crate) fn model_changed() -> Self {
        Self::unavailable("the model's file was changed: the server ends")
    }

    /// As OpenAI writes it.
    pub(crate) fn json(&self) -> Value {
        let mut error = json!({
            "message": self.message,
            "type": self.kind,
            "param": self.param,
            "code": self.code,
        });
        if let Some((prompt, context)) = self.tokens.as_deref() {
            error["n_prompt_tokens"] = json!(prompt);
            error["n_ctx"] = json!(context);
        }
        json!({ "error": error })
    }

    /// With another body, for the other dialects.
    pub(crate) fn response_with(&self, body: &Value) -> Response {
        let mut response = (self.status, axum::Json(body)).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl Refusal {
    /// In the shape of the dialect to which this path belongs.
    pub(crate) fn response_for(&self, path: &str) -> Response {
        if path.starts_with("/api/") {
            return self.response_with(&json!({"error": self.message}));
        }
        self.response_with(&self.json())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        self.response_with(&self.json())
    }
}

/// What the engine refuses is the request's fault.
impl From<tern::Error> for Refusal {
    fn from(error: tern::Error) -> Self {
        match error {
            tern::Error::Numeric(what) => Self::internal(what),
            error => Self::bad(error.to_string()),
        }
    }
}
