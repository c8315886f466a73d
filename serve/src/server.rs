//! The server as a whole: loading, accepting, ending.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;

use crate::app::App;
use crate::app::load::{self, Ended};
use crate::error::Refusal;
use crate::http::connection;
use crate::http::routes::routes;
use crate::limits::CONNECTIONS;
use crate::options::Options;
use crate::ready::Phase;
use crate::served::Serving;
use crate::worker::Message;

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

impl Error {
    /// What the thread that owns the model left behind at its end.
    pub(crate) fn of(ended: Result<Result<(), Ended>, oneshot::error::RecvError>) -> Self {
        match ended {
            Ok(Err(Ended::Model(error))) => Self::Model(error),
            Ok(Err(Ended::Settings(what))) => Self::Settings(what),
            Ok(Ok(())) | Err(_) => Self::Worker,
        }
    }
}

/// Serves until `shutdown` is ready and all that ran has ended. Connections are taken at once; until the only model is
/// loaded, they are told to wait.
pub async fn run(
    listener: TcpListener,
    models: Serving,
    options: Options,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let one = matches!(models, Serving::One(_));
    let app = Arc::new(App::new(options, models));
    // Of several models none ends the server.
    let (ended, worker_ended) = oneshot::channel();
    let _never = if one {
        load::one(&app, ended).map_err(Error::Listener)?;
        None
    } else {
        app.phase.send_replace(Phase::Serving);
        Some(ended)
    };
    let served = serve(listener, &app, worker_ended, shutdown).await;
    // The last lines get a moment, as far as somebody reads them.
    let log = app.options.log.clone();
    let _ = tokio::task::spawn_blocking(move || log.settle(LAST_LINES)).await;
    served
}

async fn serve(
    listener: TcpListener,
    app: &Arc<App>,
    mut worker_ended: oneshot::Receiver<Result<(), Ended>>,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Error> {
    let log = &app.options.log;
    let scheme = if app.options.tls.is_some() { "https" } else { "http" };
    let address = listener.local_addr().map_err(Error::Listener)?;
    log.event("listening", json!({"url": format!("{scheme}://{address}")}));
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
    let _ager = Aborted(tokio::spawn(age(Arc::downgrade(app))));
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
                return Err(Error::of(result));
            }
        }
        if told {
            end = Some(Box::pin(drain(app.clone(), open.clone())));
        }
    }
}

/// Unloads models that were not used for a while.
async fn age(app: Weak<App>) {
    loop {
        tokio::time::sleep(Duration::from_millis(250)).await;
        let Some(app) = app.upgrade() else { return };
        for model in app.models.age() {
            app.options.log.event("unloaded", json!({"model": model}));
            app.budget.freed.notify_one();
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
    let refusal = Refusal::unavailable("the server is shutting down: this answer was cut short");
    for ready in app.models.all().into_iter().filter_map(|model| model.ready).filter(|_| app.active() > 0) {
        let _ = ready.worker.send(Message::Abort(refusal.clone()));
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
