//! The route table: one line for each endpoint.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use axum::Router;
use axum::extract::Request;
use axum::handler::Handler;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{self, MethodRouter};

use crate::app::App;
use crate::dialect::{anthropic, llama_cpp, ollama, openai};
use crate::error::Refusal;
use crate::page;

use super::door::door;
use super::{info, openapi};

/// A path with one of its methods.
struct Route {
    #[cfg_attr(not(test), expect(dead_code, reason = "the tests compare it with the document"))]
    method: &'static str,
    /// As it is asked for, with and without `/v1` where it has both.
    paths: Vec<String>,
    handler: MethodRouter<Arc<App>>,
}

impl Route {
    /// OpenAI's clients put /v1 before every path, llama.cpp's do not; Ollama's paths have their own.
    fn new(method: &'static str, path: &str, handler: MethodRouter<Arc<App>>) -> Self {
        let with = (!path.starts_with("/api/")).then(|| format!("/v1{path}"));
        Self { method, paths: with.into_iter().chain([path.to_owned()]).collect(), handler }
    }

    /// At this path only.
    fn only(mut self) -> Self {
        self.paths.drain(..self.paths.len() - 1);
        self
    }
}

fn get<H: Handler<T, Arc<App>>, T: 'static>(path: &str, handler: H) -> Route {
    Route::new("get", path, routing::get(handler))
}

fn post<H: Handler<T, Arc<App>>, T: 'static>(path: &str, handler: H) -> Route {
    Route::new("post", path, routing::post(handler))
}

fn delete<H: Handler<T, Arc<App>>, T: 'static>(path: &str, handler: H) -> Route {
    Route::new("delete", path, routing::delete(handler))
}

fn table() -> Vec<Route> {
    vec![
        get("/health", info::health),
        get("/metrics", info::metrics),
        get("/models", info::models),
        get("/models/{*id}", info::model),
        post("/models/load", llama_cpp::load).only(),
        post("/models/unload", llama_cpp::unload).only(),
        get("/props", info::props),
        get("/openapi.json", openapi::document),
        post("/chat/completions", openai::chat::chat),
        post("/chat/completions/input_tokens", openai::chat::input_tokens),
        // One path that two dialects have: with /v1 it is OpenAI's.
        post("/v1/completions", openai::completions::completions).only(),
        post("/completions", llama_cpp::completion::completion).only(),
        post("/completion", llama_cpp::completion::completion).only(),
        post("/responses", openai::responses::responses),
        post("/responses/input_tokens", openai::responses::input_tokens),
        get("/responses/{id}", openai::responses::get),
        delete("/responses/{id}", openai::responses::delete),
        post("/embeddings", openai::embeddings::embeddings),
        post("/embedding", llama_cpp::embedding::embedding).only(),
        post("/tokenize", llama_cpp::tokenize),
        post("/detokenize", llama_cpp::detokenize),
        post("/apply-template", llama_cpp::apply_template),
        get("/slots", llama_cpp::slots),
        get("/tokenizer_info", llama_cpp::tokenizer_info),
        post("/messages", anthropic::messages),
        post("/messages/count_tokens", anthropic::count_tokens),
        post("/api/chat", ollama::chat),
        post("/api/generate", ollama::generate),
        get("/api/tags", ollama::cards::tags),
        post("/api/show", ollama::cards::show),
        get("/api/ps", ollama::cards::ps),
        post("/api/pull", ollama::manage::pull),
        post("/api/embed", ollama::embed::embed),
        post("/api/embeddings", ollama::embed::embeddings),
        post("/api/create", ollama::other),
        post("/api/copy", ollama::manage::copy),
        post("/api/push", ollama::other),
        delete("/api/delete", ollama::manage::delete),
        get("/api/version", ollama::version),
    ]
}

pub(crate) fn routes(app: Arc<App>) -> Router {
    let mut router = Router::new();
    for Route { paths, handler, .. } in table() {
        for path in paths {
            router = router.route(&path, handler.clone());
        }
    }
    let page: &[(&str, &str, &str)] = if app.options.page { &page::FILES } else { &[] };
    for (path, ..) in page {
        router = router.route(path, routing::get(page::file));
    }
    router
        .fallback(|request: Request| async move {
            let path = request.uri().path();
            Refusal::not_found(path).response_for(path)
        })
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
    .unwrap_or_else(|| Refusal::internal("internal error while answering this request").into_response())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde::de::{Deserialize, Deserializer, Visitor, value};
    use serde_json::Value;

    use super::*;
    use crate::wire;

    fn document() -> Value {
        serde_json::from_str(include_str!("openapi.json")).unwrap()
    }

    #[test]
    fn the_document_has_every_path_and_no_other() {
        let document = document();
        let paths = document["paths"].as_object().unwrap();
        let told: BTreeSet<(&str, &str)> = paths
            .iter()
            .flat_map(|(path, methods)| {
                methods.as_object().unwrap().keys().map(|method| (method.as_str(), path.as_str()))
            })
            .collect();
        let mut served = BTreeSet::new();
        for Route { method, paths, .. } in table() {
            let paths: Vec<String> = paths.iter().map(|path| path.replace("{*", "{")).collect();
            let known = paths.iter().any(|path| told.contains(&(method, path.as_str())));
            assert!(known, "{method} {paths:?} is not in the document");
            served.extend(paths.into_iter().map(|path| (method, path)));
        }
        for (method, path) in told {
            assert!(served.contains(&(method, path.to_owned())), "{method} {path} is in the document only");
        }
    }

    /// Tells the names of a type's fields instead of reading one.
    struct Fields;

    impl<'de> Deserializer<'de> for Fields {
        type Error = value::Error;

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, value::Error> {
            Err(serde::de::Error::custom(fields.join(" ")))
        }

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, value::Error> {
            unreachable!("requests are structs")
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct
            seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    #[test]
    fn the_document_has_every_field_and_no_other() {
        let document = document();
        let fields = wire::Request::deserialize(Fields).unwrap_err().to_string();
        let read: BTreeSet<&str> = fields.split(' ').collect();
        let of = |schema: &str| document["components"]["schemas"][schema]["properties"].as_object().unwrap();
        let schemas = [of("ChatRequest"), of("CompletionRequest"), of("NativeRequest")];
        let told: BTreeSet<&str> =
            schemas.iter().flat_map(|fields| fields.keys().map(String::as_str)).collect();
        assert_eq!(read, told);
    }
}
