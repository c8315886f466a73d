//! What all requests share, and how one of them becomes events.

pub(crate) mod downloads;
pub(crate) mod load;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use tokio::sync::mpsc::Receiver;
use tokio::sync::{Semaphore, watch};

use crate::budget::Budget;
use crate::dialect::openai::responses::store::Store;
use crate::error::Refusal;
use crate::grammar::Found as Known;
use crate::limits::{COMPILING, EVENTS, LOOK, PREPARING, PROMPTS, REST, ROOM};
use crate::metrics::Metrics;
use crate::models::{Found, Keep, Models};
use crate::names;
use crate::note::Note;
use crate::options::Options;
use crate::patience::Patience;
use crate::prepare::{Kind, Prepared, Shape, grammar, has_grammar, prepare};
use crate::ready::{Phase, Ready};
use crate::served::Serving;
use crate::turns::{Turns, at_low_priority};
use crate::wire::{Prompt, Request};
use crate::worker::{Event, Message, Place, Wanted, Work};
use downloads::Downloads;

/// Who sent a request.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// Callers with different salts share no prefix cache.
    pub(crate) salt: u64,
    /// Who shares the model with others in equal parts: a key, or an address where there are no keys.
    pub(crate) owner: u64,
    /// Which key it was.
    pub(crate) key: Option<usize>,
    /// What becomes known of the request, for its line in the log.
    pub(crate) note: Arc<Note>,
}

impl Caller {
    /// Whose kept answers it may go on from: those of its key.
    pub(crate) fn holder(&self) -> u64 {
        self.key.map_or(0, |key| key as u64 + 1)
    }
}

/// What all requests share.
pub(crate) struct App {
    pub(crate) options: Options,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) phase: watch::Sender<Phase>,
    pub(crate) models: Models,
    /// Answers that may run or wait.
    places: Arc<Semaphore>,
    /// Those of each key, where there are several: no key may take all of them.
    shares: Vec<Arc<Semaphore>>,
    preparing: Arc<Turns>,
    compiling: Arc<Turns>,
    /// Memory of all requests together.
    pub(crate) budget: Arc<Budget>,
    pub(crate) patience: Patience,
    pub(crate) downloads: Arc<Downloads>,
    /// Open connections.
    pub(crate) connections: Arc<AtomicUsize>,
    /// Answers that can be gone on from.
    pub(crate) responses: Store,
    ids: AtomicU64,
}

/// How many answers a request asks for, before it is checked.
fn answers(request: &Request) -> usize {
    let prompts = match &request.prompt {
        Some(Prompt::Texts(texts)) => texts.len(),
        Some(Prompt::Lists(lists)) => lists.len(),
        Some(Prompt::Mixed(items)) => items.len(),
        _ => 1,
    };
    prompts.saturating_mul(request.n.unwrap_or(1)).clamp(1, PROMPTS)
}

/// Whether there is a system message in it.
fn gives_system(request: &Request) -> bool {
    let messages = request.messages.as_deref().unwrap_or_default();
    messages.iter().any(|message| ["system", "developer"].contains(&message.role.as_str()))
}

/// Events on their way, and how their answer is to look.
pub(crate) struct Running {
    pub(crate) events: Receiver<(usize, Event)>,
    pub(crate) shape: Shape,
    /// The model that answers; it stays loaded while this is held.
    pub(crate) ready: Arc<Ready>,
    /// The name under which it answers.
    pub(crate) name: String,
    /// The request's line in the log, which also holds its memory.
    pub(crate) note: Arc<Note>,
}

impl App {
    pub(crate) fn new(options: Options, models: Serving) -> Self {
        // One model is loaded at the start and stays, whatever it takes.
        let most = match models {
            Serving::One(_) => u64::MAX,
            Serving::Several(_) => {
                options.model_memory.or(tern::free_memory().map(|free| free / 4 * 3)).unwrap_or(u64::MAX)
            }
        };
        let all = options.parallel + options.queue;
        let places = Arc::new(Semaphore::new(all));
        let keys = if options.keys.len() > 1 { options.keys.len() } else { 0 };
        let share = || Arc::new(Semaphore::new(options.parallel.max(all / 2)));
        let shares = (0..keys).map(|_| share()).collect();
        Self {
            budget: Budget::new(options.request_memory),
            models: Models::new(models, most, options.kv_memory, options.keep_alive),
            options,
            metrics: Arc::default(),
            phase: watch::Sender::new(Phase::Loading),
            places,
            shares,
            preparing: Turns::new(PREPARING, PREPARING / 2, REST),
            compiling: Turns::new(COMPILING, COMPILING / 2, REST),
            patience: Patience::default(),
            downloads: Arc::default(),
            connections: Arc::default(),
            responses: Store::default(),
            ids: AtomicU64::new(0),
        }
    }

    /// Whether new requests are still taken.
    pub(crate) fn open(&self) -> Result<(), Refusal> {
        match *self.phase.borrow() {
            Phase::Draining => Err(Refusal::unavailable("the server is shutting down")),
            Phase::Loading | Phase::Serving => Ok(()),
        }
    }

    /// Whether the only model is loaded, or there are several, of which each is loaded when it is used.
    pub(crate) fn there(&self) -> Result<(), Refusal> {
        match *self.phase.borrow() {
            Phase::Loading => Err(Refusal::unavailable("the model is being loaded")),
            Phase::Serving | Phase::Draining => self.open(),
        }
    }

    /// The model of this name; without one, the first. It is loaded first where it is not loaded.
    pub(crate) async fn model(self: &Arc<Self>, asked: Option<&str>) -> Result<Arc<Ready>, Refusal> {
        self.model_for(asked, None).await
    }

    /// The same, to stay for so long after its last request.
    pub(crate) async fn model_for(
        self: &Arc<Self>,
        asked: Option<&str>,
        keep: Keep,
    ) -> Result<Arc<Ready>, Refusal> {
        let start = Instant::now();
        loop {
            self.open()?;
            let mut wait = match self.models.find(asked, keep)? {
                Found::Ready(ready) => return Ok(ready),
                Found::Wait(wait) => wait,
                Found::Busy(refusal) if start.elapsed() > ROOM => return Err(refusal),
                Found::Busy(_) => {
                    tokio::time::sleep(LOOK).await;
                    continue;
                }
                Found::Load(served, gone) => {
                    load::begin(self, served, gone);
                    continue;
                }
            };
            let _ = wait.changed().await;
        }
    }

    /// Places for an answer or several; `None` where there are too few, for all or for this key.
    fn place(&self, caller: &Caller, answers: usize) -> Option<Place> {
        let take = |from: &Arc<Semaphore>, most: usize| {
            // Who asks for more than there are at all gets all of them.
            let count = u32::try_from(answers.min(most)).unwrap_or(u32::MAX);
            from.clone().try_acquire_many_owned(count).ok()
        };
        let all = self.options.parallel + self.options.queue;
        let share = match caller.key.and_then(|key| self.shares.get(key)) {
            Some(share) => Some(take(share, self.options.parallel.max(all / 2))?),
            None => None,
        };
        Some(Place { _all: take(&self.places, all)?, _share: share })
    }

    /// A place for one answer, or what is told where there is none.
    pub(crate) fn room(&self, caller: &Caller) -> Result<Place, Refusal> {
        self.place(caller, 1).ok_or_else(|| {
            self.metrics.refused_busy.add(1);
            Refusal::busy(self.active())
        })
    }

    /// Answers that run or wait.
    pub(crate) fn active(&self) -> usize {
        (self.options.parallel + self.options.queue).saturating_sub(self.places.available_permits())
    }

    /// A new id for a request or an answer. It holds the time of the start, so that ids do not recur after a restart.
    pub(crate) fn id(&self, prefix: &str) -> String {
        let count = self.ids.fetch_add(1, Ordering::Relaxed);
        format!("{prefix}{:08x}{count:08x}", self.options.started as u32)
    }

    /// Prepares something on a thread that may take its time, in this owner's turn.
    pub(crate) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        owner: u64,
        ready: &Arc<Ready>,
        job: impl FnOnce(&Ready) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        self.blocking_with(&self.preparing, owner, ready, job).await
    }

    /// Reads what came, which can be large, the same way.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        owner: u64,
        job: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        in_turn(&self.preparing, owner, job).await
    }

    async fn blocking_with<T: Send + 'static>(
        self: &Arc<Self>,
        turns: &Arc<Turns>,
        owner: u64,
        ready: &Arc<Ready>,
        job: impl FnOnce(&Ready) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        self.open()?;
        let (app, ready) = (self.clone(), ready.clone());
        let job = move || {
            app.open()?;
            job(&ready)
        };
        in_turn(turns, owner, job).await
    }

    /// Queues a request for the worker. It runs until it ends or its receiver of events is dropped.
    pub(crate) async fn start(
        self: &Arc<Self>,
        request: Request,
        kind: Kind,
        caller: &Caller,
    ) -> Result<Running, Refusal> {
        self.start_for(request, kind, caller, None).await
    }

    /// The same; the model is to stay for so long afterwards.
    pub(crate) async fn start_for(
        self: &Arc<Self>,
        mut request: Request,
        kind: Kind,
        caller: &Caller,
        keep: Keep,
    ) -> Result<Running, Refusal> {
        let received = Instant::now();
        // The place comes first: a full server does no work for those it turns away, and loads nothing for them.
        let Some(place) = self.place(caller, answers(&request)) else {
            self.metrics.refused_busy.add(1);
            return Err(Refusal::busy(self.active()));
        };
        let ready = self.model_for(request.model.as_deref(), keep).await?;
        ready.model.writes()?;
        names::unify(&mut request)?;
        let (name, adapter) = ready.meant(request.model.as_deref())?;
        caller.note.answered_by(&name);
        let (salt, owner, note) = (caller.salt, caller.owner, caller.note.clone());
        // Whoever leaves, the place is taken until the work for it has ended: each job hands it on.
        let (request, place, grammar) = match has_grammar(&request) {
            false => (request, place, None),
            true => {
                let find = move |ready: &Ready| {
                    let found = grammar(&request, kind)?.map(|grammar| ready.grammars()?.find(grammar));
                    Ok((request, place, found.transpose()?))
                };
                match self.blocking(owner, &ready, find).await? {
                    (request, place, None) => (request, place, None),
                    (request, place, Some(Known::Known(compiled))) => (request, place, Some(compiled)),
                    (request, place, Some(Known::New(grammar))) => {
                        // Those who bring new grammars wait for each other, and nobody for them.
                        let compile = move |ready: &Ready| {
                            Ok((request, place, Some(ready.grammars()?.compile(grammar)?)))
                        };
                        let compiled = self.blocking_with(&self.compiling, owner, &ready, compile).await;
                        // It may have taken much for a moment, good or bad.
                        self.budget.freed.notify_one();
                        compiled?
                    }
                }
            }
        };
        if let Some(compiled) = &grammar {
            compiled.warnings.iter().for_each(|warning| note.warn(warning));
        }
        let prepare = {
            let note = note.clone();
            move |ready: &Ready| {
                note.encodes()?;
                if kind == Kind::Chat && gives_system(&request) && !ready.keeps_system() {
                    note.warn(
                        "this model's chat template leaves system messages out: the model does not read them",
                    );
                }
                let mut prepared = prepare(ready, &request, kind, salt, grammar.as_deref())?;
                drop(request);
                for Wanted { job, .. } in &mut prepared.jobs {
                    job.owner = owner;
                    job.adapter.clone_from(&adapter);
                }
                note.holds(prepared.bytes())?;
                Ok((prepared, place))
            }
        };
        let (Prepared { jobs, shape }, place) = self.blocking(owner, &ready, prepare).await?;
        note.asked(shape.prompt_tokens.iter().sum());
        let (sender, events) = tokio::sync::mpsc::channel(EVENTS + Event::PER_STEP * jobs.len());
        let deadline = received + self.options.request_time;
        let work =
            Work { jobs, shared: shape.n, events: sender, place, note: note.clone(), received, deadline };
        self.open()?;
        let sent = ready.worker.send(Message::Work(Box::new(work)));
        sent.map_err(|_| Refusal::unavailable("the model has stopped"))?;
        Ok(Running { events, shape, ready, name, note })
    }
}

/// Does a piece of work when it is its turn. The place is free again when the work has ended, even if nobody waits for
/// it any more.
async fn in_turn<T: Send + 'static>(
    turns: &Arc<Turns>,
    owner: u64,
    job: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    let turn = turns.take(owner).await;
    let done = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        at_low_priority();
        job()
    });
    done.await.unwrap_or_else(|_| Err(Refusal::internal("internal error while reading this request")))
}
