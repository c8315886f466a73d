//! What the server says about itself.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::app::App;
use crate::asked::params;
use crate::error::Refusal;
use crate::metrics::{Counter, Moment};
use crate::ready::{Phase, Ready};

pub(crate) async fn health(State(app): State<Arc<App>>) -> Response {
    let phase = *app.phase.borrow();
    match phase {
        Phase::Serving => axum::Json(json!({"status": "ok"})).into_response(),
        Phase::Loading => Refusal::unavailable("the model is being loaded").into_response(),
        Phase::Draining => Refusal::unavailable("the server is shutting down").into_response(),
    }
}

pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Response {
    let log_dropped = Counter::default();
    log_dropped.add(app.options.log.dropped());
    let connections = app.connections.load(Ordering::Relaxed);
    let moment = Moment {
        requests: app.active(),
        connections,
        memory: app.budget.used(),
        memory_limit: app.budget.most(),
        log_dropped,
        started: app.options.started,
    };
    let text = app.metrics.text(&moment);
    (StatusCode::OK, [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
        .into_response()
}

fn card(app: &App, ready: &Ready) -> Value {
    let config = ready.model.config();
    json!({
        "id": app.options.name,
        "object": "model",
        "created": ready.loaded,
        "owned_by": "tern",
        "aliases": app.options.aliases,
        "max_model_len": ready.context,
        "meta": {
            "family": config.family,
            "n_vocab": config.vocab,
            "n_ctx_train": config.context,
            "n_embd": config.dim,
        },
    })
}

pub(crate) async fn models(State(app): State<Arc<App>>) -> Result<axum::Json<Value>, Refusal> {
    let card = card(&app, app.ready()?);
    Ok(axum::Json(json!({"object": "list", "data": [card]})))
}

pub(crate) async fn model(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<axum::Json<Value>, Refusal> {
    if id != app.options.name && !app.options.aliases.contains(&id) {
        let mut refusal = Refusal::not_found("");
        let name: String = id.chars().take(100).collect();
        refusal.message = format!("there is no model `{name}` here: this server has `{}`", app.options.name);
        refusal.code = Some("model_not_found");
        return Err(refusal);
    }
    Ok(axum::Json(card(&app, app.ready()?)))
}

/// What llama.cpp's clients ask first.
pub(crate) async fn props(State(app): State<Arc<App>>) -> Result<axum::Json<Value>, Refusal> {
    let ready = app.ready()?;
    let tokenizer = ready.model.tokenizer().ok();
    let template = tokenizer.and_then(|tokenizer| tokenizer.template()).map(|template| template.source());
    let text = |id: Option<u32>| id.and_then(|id| tokenizer?.token_text(id));
    let mut params = params(&ready.sampling);
    params["seed"] = json!(app.options.seed.map_or(-1, u64::cast_signed));
    Ok(axum::Json(json!({
        "model_alias": app.options.name,
        "model_path": app.options.file,
        "modalities": {"vision": false, "audio": false},
        "bos_token": text(tokenizer.and_then(|tokenizer| tokenizer.bos())),
        "eos_token": text(tokenizer.and_then(|tokenizer| tokenizer.stops().first().copied())),
        // Where the model is told of tools; a template that drops system messages would hide them.
        "tools_offered_in": if ready.keeps_system() { "system message" } else { "first user message" },
        "total_slots": app.options.parallel,
        "n_ctx": ready.context,
        "chat_template": template,
        "build_info": concat!("tern ", env!("CARGO_PKG_VERSION")),
        "default_generation_settings": {
            "n_ctx": ready.context,
            "params": params,
        },
    })))
}
