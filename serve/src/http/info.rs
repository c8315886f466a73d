//! What the server says about itself.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::app::App;
use crate::asked::params;
use crate::error::Refusal;
use crate::metrics::{Counter, Moment};
use crate::models::Listed;
use crate::parts::THINK;
use crate::ready::Phase;
use crate::served::ByName;

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

/// A model and, as models of their own, the same with each of its adapters.
fn cards(app: &App, model: &Listed) -> Vec<Value> {
    let base = card(app, model);
    let with = |name: String| {
        let mut card = base.clone();
        (card["id"], card["aliases"], card["parent"]) = (json!(name), json!([]), base["id"].clone());
        card
    };
    let adapted: Vec<Value> = model.adapted().into_iter().map(with).collect();
    std::iter::once(base).chain(adapted).collect()
}

/// One model of the list. llama.cpp's router tells its state in the same place.
fn card(app: &App, model: &Listed) -> Value {
    let served = &model.served;
    let mut card = json!({
        "id": served.name,
        "object": "model",
        "created": model.ready.as_ref().map_or(app.options.started, |ready| ready.loaded),
        "owned_by": "tern",
        "aliases": served.aliases.iter().chain(&model.copies).collect::<Vec<_>>(),
        "status": {"value": model.state},
    });
    if let Some(config) = model.config() {
        let template = model.template();
        card["max_model_len"] = json!(model.context());
        card["meta"] = json!({
            "family": config.family,
            "n_vocab": config.vocab,
            "n_ctx_train": config.context,
            "n_embd": config.dim,
            "embeds": config.pooling.is_some(),
            "chat_template": !template.is_empty(),
            // Tools are told to whatever has a template.
            "tools": !template.is_empty() && config.pooling.is_none(),
            "thinks": template.contains(THINK),
            "size": served.file_bytes,
        });
    }
    card
}

pub(crate) async fn models(State(app): State<Arc<App>>) -> Result<axum::Json<Value>, Refusal> {
    app.there()?;
    let cards: Vec<Value> = app.models.all().iter().flat_map(|model| cards(&app, model)).collect();
    Ok(axum::Json(json!({"object": "list", "data": cards})))
}

pub(crate) async fn model(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<axum::Json<Value>, Refusal> {
    let listed = app.models.named(&id)?;
    app.there()?;
    let mut cards = cards(&app, &listed);
    let at = cards.iter().position(|card| card["id"] == id.as_str()).unwrap_or(0);
    Ok(axum::Json(cards.swap_remove(at)))
}

/// What llama.cpp's clients ask first.
pub(crate) async fn props(
    State(app): State<Arc<App>>,
    Query(asked): Query<ByName>,
) -> Result<axum::Json<Value>, Refusal> {
    let ready = app.model(asked.model.as_deref()).await?;
    let tokenizer = ready.model.tokenizer().ok();
    let template = tokenizer.and_then(|tokenizer| tokenizer.template()).map(|template| template.source());
    let text = |id: Option<u32>| id.and_then(|id| tokenizer?.token_text(id));
    let mut params = params(&ready.sampling);
    params["seed"] = json!(app.options.seed.map_or(-1, u64::cast_signed));
    Ok(axum::Json(json!({
        "model_alias": ready.served.name,
        "model_path": ready.served.file,
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
