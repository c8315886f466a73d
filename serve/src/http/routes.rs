//! The route table: one line for each endpoint.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};

use crate::app::App;
use crate::dialect::{anthropic, llama_cpp, ollama, openai};
use crate::error::Refusal;
use crate::page;

use super::door::door;
use super::{info, openapi};

pub(crate) fn routes(app: Arc<App>) -> Router {
    type Table = Vec<(&'static str, MethodRouter<Arc<App>>)>;
    let table: Table = vec![
        ("/health", get(info::health)),
        ("/metrics", get(info::metrics)),
        ("/models", get(info::models)),
        ("/models/{*id}", get(info::model)),
        ("/props", get(info::props)),
        ("/openapi.json", get(openapi::document)),
        ("/chat/completions", post(openai::chat::chat)),
        ("/completions", post(openai::completions::completions)),
        ("/responses", post(openai::responses::responses)),
        ("/embeddings", post(info::embeddings)),
        ("/tokenize", post(llama_cpp::tokenize)),
        ("/detokenize", post(llama_cpp::detokenize)),
        ("/apply-template", post(llama_cpp::apply_template)),
        ("/messages", post(anthropic::messages)),
        ("/messages/count_tokens", post(anthropic::count_tokens)),
        ("/api/chat", post(ollama::chat)),
        ("/api/generate", post(ollama::generate)),
        ("/api/tags", get(ollama::tags)),
        ("/api/show", post(ollama::show)),
        ("/api/version", get(ollama::version)),
    ];
    let mut router = Router::new();
    for (path, handler) in table {
        // OpenAI's clients put /v1 before every path, llama.cpp's do not; Ollama's paths have their own.
        if !path.starts_with("/api/") {
            router = router.route(&format!("/v1{path}"), handler.clone());
        }
        router = router.route(path, handler);
    }
    for (path, ..) in page::FILES {
        router = router.route(path, get(page::file));
    }
    router
        .fallback(|request: Request| async move { Refusal::not_found(request.uri().path()) })
        .layer(from_fn(caught))
        .layer(from_fn_with_state(app.clone(), door))
        .with_state(app)
}

/// A panic while a request is handled ends that request.
async fn caught(request: Request, next: Next) -> Response {
    let mut answer = pin!(next.run(request));
    std::future::poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| answer.as_mut().poll(cx))) {
        Ok(Poll::Ready(response)) => Poll::Ready(Some(response)),
        Ok(Poll::Pending) => Poll::Pending,
        Err(_) => Poll::Ready(None),
    })
    .await
    .unwrap_or_else(|| Refusal::internal("the server made a mistake with this request").into_response())
}
