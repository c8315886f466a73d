//! What Ollama's clients are told of the models: which there are, which are loaded, and one of them in full.

use std::path::Path;
use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tern::Config;
use tern::date::{now, utc};

use super::{ByName, error};
use crate::app::App;
use crate::error::Refusal;
use crate::json::Json;
use crate::models::Listed;
use crate::parts::THINK;

/// A name as Ollama's clients look for it.
fn tagged(name: &str) -> String {
    if name.contains(':') { name.to_owned() } else { format!("{name}:latest") }
}

fn card(app: &App, model: &Listed) -> Value {
    let (name, bytes) = (&model.served.name, model.served.file_bytes);
    let config = model.config();
    // As theirs it names what the card describes, not the bytes of the weights, which would all have to be read.
    let described = match config {
        Some(config) => format!("{name} {bytes} {config:?}"),
        None => format!("{name} {bytes}"),
    };
    let digest: String = Sha256::digest(described).iter().map(|byte| format!("{byte:02x}")).collect();
    let family = config.map(|config| config.family).unwrap_or_default();
    let format = if model.served.file.ends_with(".safetensors") || Path::new(&model.served.file).is_dir() {
        "safetensors"
    } else {
        "gguf"
    };
    json!({
        "name": tagged(name),
        "model": tagged(name),
        "modified_at": utc(model.ready.as_ref().map_or(app.options.started, |ready| ready.loaded)),
        "size": bytes,
        "digest": digest,
        "details": {
            "parent_model": "",
            "format": format,
            "family": family,
            "families": [family],
            "parameter_size": config.map(parameters).unwrap_or_default(),
            "quantization_level": "ternary",
        },
    })
}

/// How many parameters a model has, in the short form that people use: its matrices, the embedding once.
fn parameters(config: &Config) -> String {
    let block = config.dim * (2 * config.q_dim() + 2 * config.kv_dim() + 3 * config.hidden);
    let count = (config.layers * block + config.vocab * config.dim) as f64;
    match count {
        1e9.. => format!("{:.1}B", count / 1e9),
        1e6.. => format!("{:.0}M", count / 1e6),
        _ => format!("{:.0}K", count / 1e3),
    }
}

/// All models, and the names that clients gave them as models of their own.
pub(crate) async fn tags(State(app): State<Arc<App>>) -> Response {
    let listed = || {
        app.there()?;
        let mut cards = Vec::new();
        for model in app.models.all() {
            let card = card(&app, &model);
            for name in model.copies.iter().cloned().chain(model.adapted()) {
                let mut card = card.clone();
                (card["name"], card["model"]) = (tagged(&name).into(), tagged(&name).into());
                cards.push(card);
            }
            cards.push(card);
        }
        Ok(cards)
    };
    match listed() {
        Ok(cards) => axum::Json(json!({ "models": cards })).into_response(),
        Err(refusal) => error(&refusal),
    }
}

/// What is loaded, and until when.
pub(crate) async fn ps(State(app): State<Arc<App>>) -> Response {
    let shown = || {
        app.there()?;
        let all = app.models.all();
        let loaded = all.iter().filter(|model| model.ready.is_some()).map(|model| {
            let mut card = card(&app, model);
            if model.bytes > 0 {
                card["size"] = json!(model.bytes);
            }
            card["size_vram"] = json!(0);
            card["expires_at"] = match model.expires {
                Some(left) => json!(utc(now() + left.as_secs())),
                None => json!("9999-12-31T23:59:59Z"),
            };
            card["context_length"] = json!(model.context());
            card
        });
        Ok(loaded.collect::<Vec<_>>())
    };
    match shown() {
        Ok(cards) => axum::Json(json!({ "models": cards })).into_response(),
        Err(refusal) => error(&refusal),
    }
}

pub(crate) async fn show(State(app): State<Arc<App>>, body: Result<Json<ByName>, Refusal>) -> Response {
    let shown = || {
        let Json(ByName { model, .. }) = body?;
        app.there()?;
        let model = match model {
            Some(asked) => app.models.named(&asked)?,
            None => app.models.one(None)?,
        };
        let mut shown = card(&app, &model);
        let Some(config) = model.config() else {
            return Err(Refusal::unavailable("nothing is known of this model before it is loaded"));
        };
        let template = Some(model.template()).filter(|template| !template.is_empty());
        let embeds = config.pooling.is_some();
        let mut capabilities = vec![if embeds { "embedding" } else { "completion" }];
        if let Some(source) = template.filter(|_| !embeds) {
            capabilities.push("tools");
            if source.contains(THINK) {
                capabilities.push("thinking");
            }
        }
        shown["template"] = json!(template);
        shown["capabilities"] = json!(capabilities);
        shown["model_info"] = json!({
            "general.architecture": config.family,
            "context_length": model.context(),
            "embedding_length": config.dim,
            // As a GGUF file of this architecture names them.
            (format!("{}.context_length", config.family)): config.context,
            (format!("{}.embedding_length", config.family)): config.dim,
            (format!("{}.block_count", config.family)): config.layers,
            (format!("{}.feed_forward_length", config.family)): config.hidden,
            (format!("{}.attention.head_count", config.family)): config.heads,
            (format!("{}.attention.head_count_kv", config.family)): config.kv_heads,
        });
        Ok(shown)
    };
    match shown() {
        Ok(shown) => axum::Json(shown).into_response(),
        Err(refusal) => error(&refusal),
    }
}
