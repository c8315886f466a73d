//! What all requests share, and how one of them becomes events.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use tokio::sync::mpsc::Receiver;
use tokio::sync::{Semaphore, watch};

use crate::error::Refusal;
use crate::limits::{EVENTS, PREPARING};
use crate::metrics::Metrics;
use crate::options::Options;
use crate::prepare::{Kind, Prepared, Shape, prepare};
use crate::ready::{Phase, Ready};
use crate::wire::Request;
use crate::worker::{Event, Message, Work};

/// Who sent a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    /// Callers of different realms share no memory of prompts.
    pub(crate) realm: u64,
}

/// What all requests share.
pub(crate) struct App {
    pub(crate) options: Options,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) phase: watch::Sender<Phase>,
    pub(crate) ready: OnceLock<Ready>,
    /// Requests that may run or wait.
    pub(crate) places: Arc<Semaphore>,
    preparing: Semaphore,
    ids: AtomicU64,
}

/// Events on their way, and how their answer is to look.
pub(crate) struct Running {
    pub(crate) events: Receiver<(usize, Event)>,
    pub(crate) shape: Shape,
}

impl App {
    pub(crate) fn new(options: Options) -> Self {
        let places = Arc::new(Semaphore::new(options.parallel + options.queue));
        Self {
            options,
            metrics: Arc::default(),
            phase: watch::Sender::new(Phase::Loading),
            ready: OnceLock::new(),
            places,
            preparing: Semaphore::new(PREPARING),
            ids: AtomicU64::new(0),
        }
    }

    /// The model, if it is there and new requests are still taken.
    pub(crate) fn ready(&self) -> Result<&Ready, Refusal> {
        match (*self.phase.borrow(), self.ready.get()) {
            (Phase::Draining, _) => Err(Refusal::unavailable("the server is shutting down")),
            (_, Some(ready)) => Ok(ready),
            (_, None) => Err(Refusal::unavailable("the model is being loaded")),
        }
    }

    /// Requests that run or wait.
    pub(crate) fn active(&self) -> usize {
        (self.options.parallel + self.options.queue).saturating_sub(self.places.available_permits())
    }

    /// A name for a request or an answer: the start's time keeps it apart from those before a restart.
    pub(crate) fn id(&self, prefix: &str) -> String {
        let count = self.ids.fetch_add(1, Ordering::Relaxed);
        format!("{prefix}{:08x}{count:08x}", self.options.started as u32)
    }

    /// Prepares something on a thread that may take its time.
    pub(crate) async fn apart<T: Send + 'static>(
        self: &Arc<Self>,
        job: impl FnOnce(&Ready) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        self.ready()?;
        let permit = self.preparing.acquire().await;
        let app = self.clone();
        let done = tokio::task::spawn_blocking(move || job(app.ready()?)).await;
        drop(permit);
        done.unwrap_or_else(|_| {
            Err(Refusal::internal("the server made a mistake while reading this request"))
        })
    }

    /// Takes a request in: from here on it runs until it ends or the events are dropped.
    pub(crate) async fn start(
        self: &Arc<Self>,
        request: Request,
        kind: Kind,
        realm: u64,
    ) -> Result<Running, Refusal> {
        let received = Instant::now();
        self.ready()?;
        // The place comes first: a full server does no work for those it turns away.
        let Ok(permit) = self.places.clone().try_acquire_owned() else {
            self.metrics.refused_busy.add(1);
            return Err(Refusal::busy(self.options.parallel + self.options.queue));
        };
        let Prepared { jobs, shape } = self.apart(move |ready| prepare(ready, &request, kind, realm)).await?;
        let (sender, events) = tokio::sync::mpsc::channel(EVENTS + Event::PER_STEP * jobs.len());
        let deadline = received + self.options.request_time;
        let work = Work { jobs, events: sender, permit, received, deadline };
        let sent = self.ready()?.worker.send(Message::Work(Box::new(work)));
        sent.map_err(|_| Refusal::unavailable("the model has stopped"))?;
        Ok(Running { events, shape })
    }
}
