//! The server as a whole: loading, accepting, ending.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak, mpsc};
use std::time::Duration;

use serde_json::json;
use tern::{Batch, Bounds, Dry, Model};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use crate::app::App;
use crate::embed;
use crate::error::Refusal;
use crate::http::connection;
use crate::http::routes::routes;
use crate::limits::CONNECTIONS;
use crate::memory;
use crate::metrics::Metrics;
use crate::options::Options;
use crate::ready::{Phase, Ready};
use crate::worker::{self, Inbox, Message};
use tern::date::now;

/// Why a server ended by itself.
#[derive(Debug)]
pub enum Error {
    /// The model cannot be loaded or run.
    Model(tern::Error),
    /// The settings do not go together with the model or the machine.
    Settings(String),
    /// The address cannot be listened on.
    Address(SocketAddr, io::Error),
    /// The listener is broken.
    Listener(io::Error),
    /// The thread that owns the model is gone.
    Worker,
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Model(error) => error.fmt(f),
            Self::Settings(what) => f.write_str(what),
            Self::Address(address, error) => write!(f, "cannot listen on {address}: {error}"),
            Self::Listener(error) => write!(f, "cannot accept connections: {error}"),
            Self::Worker => f.write_str("the thread that runs the model has ended"),
        }
    }
}

impl std::error::Error for Error {}

/// Serves until `shutdown` is ready and all that ran has ended. Connections are taken at once; until `load` has given
/// the model, they are told to wait.
pub async fn run(
    listener: TcpListener,
    load: impl FnOnce() -> tern::Result<Model> + Send + 'static,
    options: Options,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let app = Arc::new(App::new(options));
    let served = serve(listener, load, &app, shutdown).await;
    // The last lines get a moment, as far as somebody reads them.
    let log = app.options.log.clone();
    let _ = tokio::task::spawn_blocking(move || log.settle(LAST_LINES)).await;
    served
}

async fn serve(
    listener: TcpListener,
    load: impl FnOnce() -> tern::Result<Model> + Send + 'static,
    app: &Arc<App>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let log = &app.options.log;
    let scheme = if app.options.tls.is_some() { "https" } else { "http" };
    let address = listener.local_addr().map_err(Error::Listener)?;
    log.event("listening", json!({"url": format!("{scheme}://{address}")}));
    let (ended, mut worker_ended) = oneshot::channel();
    {
        // Weak, because the app holds the sender of the worker's inbox: the thread ends when the app is gone.
        let (app, metrics) = (Arc::downgrade(app), app.metrics.clone());
        let thread = std::thread::Builder::new().name("tern-model".to_owned());
        let spawned = thread.spawn(move || {
            let _ = ended.send(own_model(&app, &metrics, load));
        });
        spawned.map_err(Error::Listener)?;
    }
    tern::keep_little();
    let router = routes(app.clone());
    let budget = app.budget.clone();
    let _trimmer = Aborted(tokio::spawn(async move {
        loop {
            budget.freed.notified().await;
            // After the last of it is freed; and not all the time, it holds the allocator up.
            tokio::time::sleep(Duration::from_millis(500)).await;
            // On a thread of its own: those that prepare requests run at low priority, and it holds locks.
            let _ = std::thread::Builder::new().name("tern-trim".to_owned()).spawn(tern::give_back);
        }
    }));
    let tls = app.options.tls.clone().map(TlsAcceptor::from);
    let open = app.connections.clone();
    let mut shutdown = std::pin::pin!(shutdown);
    let mut end: Option<std::pin::Pin<Box<dyn Future<Output = ()> + Send>>> = None;
    loop {
        let mut told = false;
        let draining = end.is_some();
        let ending = async {
            match &mut end {
                Some(end) => end.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, peer)) if open.load(Ordering::Relaxed) < CONNECTIONS => {
                    let _ = socket.set_nodelay(true);
                    open.fetch_add(1, Ordering::Relaxed);
                    let (open, router, tls, log) = (open.clone(), router.clone(), tls.clone(), log.clone());
                    let phase = app.phase.subscribe();
                    tokio::spawn(async move {
                        let _one = One(open);
                        connection::serve(socket, peer, tls, router, log, phase).await;
                    });
                }
                // One too many is closed at once.
                Ok(_) => {}
                // Most errors are those of one connection, or pass (no file descriptors): wait a little and go on.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            () = &mut shutdown, if !draining => {
                app.phase.send_replace(Phase::Draining);
                told = true;
            }
            () = ending => return Ok(()),
            result = &mut worker_ended => {
                app.phase.send_replace(Phase::Draining);
                wait(LAST_WORDS, || open.load(Ordering::Relaxed) == 0).await;
                return match result {
                    Ok(Err(error)) => Err(error),
                    Ok(Ok(())) | Err(_) => Err(Error::Worker),
                };
            }
        }
        if told {
            end = Some(Box::pin(drain(app.clone(), open.clone())));
        }
    }
}

/// A task that ends with what it is for.
struct Aborted(tokio::task::JoinHandle<()>);

impl Drop for Aborted {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Counts a connection while it lives.
struct One(Arc<AtomicUsize>);

impl Drop for One {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Waits for what runs, ends it when the time is over, and waits for the last words to be sent.
async fn drain(app: Arc<App>, open: Arc<AtomicUsize>) {
    wait(app.options.grace, || app.active() == 0).await;
    if let Some(ready) = app.ready.get().filter(|_| app.active() > 0) {
        let refusal = Refusal::unavailable("the server is shutting down: this answer was cut short");
        let _ = ready.worker.send(Message::Abort(refusal));
    }
    wait(LAST_WORDS, || open.load(Ordering::Relaxed) == 0).await;
}

/// How long the ends of answers may take to be sent.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// How long the last lines of the log may take to be written.
const LAST_LINES: Duration = Duration::from_millis(500);

/// Waits until it is done, but not for longer than this.
async fn wait(time: Duration, done: impl Fn() -> bool) {
    let looks = async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let _ = tokio::time::timeout(time, looks).await;
}

/// The thread that owns the model: loads it, tells that it is there, and runs it.
fn own_model(
    app: &Weak<App>,
    metrics: &Metrics,
    load: impl FnOnce() -> tern::Result<Model>,
) -> Result<(), Error> {
    let model = Arc::new(load().map_err(Error::Model)?);
    let Some((bounds, inbox)) = open(app, &model)? else { return Ok(()) };
    if model.config().pooling.is_some() {
        let pooling = app.upgrade().and_then(|app| app.options.pooling);
        return embed::run(&model, pooling, &inbox, metrics).map_err(Error::Model);
    }
    worker::run(&model, bounds, &inbox, metrics).map_err(Error::Model)
}

/// Makes the loaded model known to the app and begins to serve; `None` where the server ended during loading.
fn open(app: &Weak<App>, model: &Arc<Model>) -> Result<Option<(Bounds, Inbox)>, Error> {
    let Some(app) = app.upgrade() else { return Ok(None) };
    let options = &app.options;
    let (context, pages) = match model.config().pooling {
        None => memory::plan(model, options).map_err(Error::Settings)?,
        // Its texts are through at once: nothing of them is kept.
        Some(_) => (options.context.unwrap_or(usize::MAX).min(model.config().context), 0),
    };
    let mut sampling = options.sampling.clone();
    if let Ok(tokenizer) = model.tokenizer() {
        sampling.dry.breakers = Dry::breakers(tokenizer, &options.breakers);
    }
    let vocab = model.config().vocab;
    if let Some((id, _)) = sampling.logit_bias.iter().find(|(id, _)| *id as usize >= vocab) {
        return Err(Error::Settings(format!("bias of token {id}: expected ids below {vocab}")));
    }
    let bounds = Bounds { parallel: options.parallel, context, pages, pause: options.pause };
    let (sender, work) = mpsc::channel();
    let ready = Ready {
        model: model.clone(),
        context,
        sampling,
        seed: options.seed,
        loaded: now(),
        worker: sender,
        try_grammars: options.try_grammars.clone(),
        grammars: std::sync::OnceLock::new(),
        reads_system: std::sync::OnceLock::new(),
    };
    let _ = app.ready.set(ready);
    app.phase.send_if_modified(|phase| {
        let loading = *phase == Phase::Loading;
        if loading {
            *phase = Phase::Serving;
        }
        loading
    });
    let entry = json!({
        "model": options.name,
        "load_ms": model.load_time().as_millis() as u64,
        "context": context,
        "parallel": options.parallel,
        "kv_pages": pages,
        "kv_bytes": pages * Batch::page_bytes(model),
    });
    for warning in model.warnings() {
        options.log.event("warning", json!({"message": warning}));
    }
    options.log.event("ready", entry);
    Ok(Some((bounds, Inbox { work })))
}
