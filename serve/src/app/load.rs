//! The thread that owns a model: loads it, tells that it is there, and runs it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock, Weak, mpsc};
use std::thread::JoinHandle;

use serde_json::json;
use tern::date::now;
use tern::{Adapter, Batch, Bounds, Dry, Model, Pooling};
use tokio::sync::oneshot;

use super::App;
use crate::embed;
use crate::error::Refusal;
use crate::memory;
use crate::metrics::Metrics;
use crate::options::Options;
use crate::ready::{Phase, Ready};
use crate::served::Served;
use crate::worker::{self, Ahead, Inbox};

/// Why a model's thread ended by itself.
pub(crate) enum Ended {
    Model(tern::Error),
    /// The settings do not go together with the model or the machine.
    Settings(String),
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Model(error) => error.fmt(f),
            Self::Settings(what) => f.write_str(what),
        }
    }
}

/// Starts the thread of the only model, with which the server ends.
pub(crate) fn one(app: &Arc<App>, ended: oneshot::Sender<Result<(), Ended>>) -> std::io::Result<()> {
    // Weak, because the app holds the sender of the worker's inbox: the thread ends when the app is gone.
    let (served, metrics) = (app.models.all().swap_remove(0).served, app.metrics.clone());
    let app = Arc::downgrade(app);
    let thread = std::thread::Builder::new().name("tern-model".to_owned());
    thread.spawn(move || drop(ended.send(own(&app, &served, &metrics))))?;
    Ok(())
}

/// Starts the thread of a model of several, once those that were unloaded for it have given their memory back.
pub(crate) fn begin(app: &Arc<App>, served: Arc<Served>, gone: Vec<JoinHandle<()>>) {
    let (weak, metrics, owned) = (Arc::downgrade(app), app.metrics.clone(), served.clone());
    let owner = move || {
        for thread in gone {
            let _ = thread.join();
        }
        tern::give_back();
        let owned = catch_unwind(AssertUnwindSafe(|| own(&weak, &served, &metrics)));
        metrics.unloaded(&served.name);
        let what = match owned {
            Ok(Ok(())) => return tern::give_back(),
            Ok(Err(ended)) => ended.to_string(),
            Err(_) => "internal error".to_owned(),
        };
        let Some(app) = weak.upgrade() else { return };
        app.options.log.event("error", json!({"model": served.name, "message": what}));
        // Its path is the owner's, and no client's.
        let what = match served.file.is_empty() {
            true => what,
            false => what.replace(&served.file, &served.name),
        };
        let refusal = Refusal::unavailable(format!("the model `{}` cannot be used: {what}", served.name));
        app.models.failed(&served, refusal);
    };
    let thread = std::thread::Builder::new().name("tern-model".to_owned());
    match thread.spawn(owner) {
        Ok(thread) => app.models.runs_on(&owned, thread),
        Err(error) => {
            app.models.failed(&owned, Refusal::unavailable(format!("no thread for a model: {error}")))
        }
    }
}

fn own(app: &Weak<App>, served: &Arc<Served>, metrics: &Metrics) -> Result<(), Ended> {
    let model = Arc::new((served.load)().map_err(Ended::Model)?);
    let Some(Opened { bounds, ahead, inbox, pooling }) = open(app, served, &model)? else { return Ok(()) };
    if model.config().pooling.is_some() {
        return embed::run(&model, pooling, &inbox, metrics).map_err(Ended::Model);
    }
    worker::run(&served.name, &model, bounds, ahead, &inbox, metrics).map_err(Ended::Model)
}

/// What a thread needs to run its model.
struct Opened {
    bounds: Bounds,
    ahead: Ahead,
    inbox: Inbox,
    pooling: Option<Pooling>,
}

/// The model that guesses for this one, if there is one.
fn draft_of(model: &Model, options: &Options) -> Result<Option<Arc<Model>>, Ended> {
    let Some((name, load)) = &options.draft else { return Ok(None) };
    let mut draft = load().map_err(Ended::Model)?;
    let fits = model.can_take_draft(&draft);
    fits.map_err(|error| Ended::Settings(format!("the draft model {name}: {error}")))?;
    draft.share_threads(model);
    Ok(Some(Arc::new(draft)))
}

/// The adapters of this model.
fn adapters_of(model: &Model, options: &Options) -> Result<Vec<(String, Arc<Adapter>)>, Ended> {
    let open = |(name, dir, scale): &(String, PathBuf, f32)| {
        let adapter = Adapter::open(dir, model.config());
        let wrong = |error| Ended::Settings(format!("the adapter {name}: {error}"));
        Ok((name.clone(), Arc::new(adapter.map_err(wrong)?.scaled(*scale))))
    };
    options.adapters.iter().map(open).collect()
}

/// Makes the loaded model known to the app and begins to serve; `None` where the server ended during loading.
fn open(app: &Weak<App>, served: &Arc<Served>, model: &Arc<Model>) -> Result<Option<Opened>, Ended> {
    let Some(app) = app.upgrade() else { return Ok(None) };
    let options = &app.options;
    let draft = draft_of(model, options)?;
    let adapters = adapters_of(model, options)?;
    let added: u64 = adapters.iter().map(|(_, adapter)| adapter.bytes()).sum();
    // Before it was loaded, the length of its file stood for this.
    let weights = model.weight_bytes() + draft.as_ref().map_or(0, |draft| draft.weight_bytes()) + added;
    let room = app.models.room_for(served).saturating_sub(weights);
    let (context, pages) = match model.config().pooling {
        None => memory::plan(model, draft.as_deref(), options, room).map_err(Ended::Settings)?,
        // Its texts are through at once: nothing of them is kept.
        Some(_) => (options.context.unwrap_or(usize::MAX).min(model.config().context), 0),
    };
    let mut sampling = options.sampling.clone();
    if let Ok(tokenizer) = model.tokenizer() {
        sampling.dry.breakers = Dry::breakers(tokenizer, &options.breakers);
    }
    let vocab = model.config().vocab;
    if let Some((id, _)) = sampling.logit_bias.iter().find(|(id, _)| *id as usize >= vocab) {
        return Err(Ended::Settings(format!("bias of token {id}: expected ids below {vocab}")));
    }
    let bounds = Bounds { parallel: options.parallel, context, pages, pause: options.pause };
    let (sender, work) = mpsc::channel();
    let ready = Ready {
        served: served.clone(),
        model: model.clone(),
        adapters,
        context,
        sampling,
        seed: options.seed,
        loaded: now(),
        worker: sender,
        try_grammars: options.try_grammars.clone(),
        grammars: OnceLock::new(),
        reads_system: OnceLock::new(),
    };
    let kv = pages as u64 * Batch::page_bytes(model) as u64;
    app.models.loaded(served, ready, weights + kv);
    app.phase.send_if_modified(|phase| {
        let loading = *phase == Phase::Loading;
        if loading {
            *phase = Phase::Serving;
        }
        loading
    });
    let entry = json!({
        "model": served.name,
        "load_ms": model.load_time().as_millis() as u64,
        "context": context,
        "parallel": options.parallel,
        "kv_pages": pages,
        "kv_bytes": kv,
    });
    for warning in model.warnings() {
        options.log.event("warning", json!({"message": warning}));
    }
    options.log.event("ready", entry);
    let ahead = Ahead { drafts: options.drafts, model: draft };
    Ok(Some(Opened { bounds, ahead, inbox: Inbox { work }, pooling: options.pooling }))
}
