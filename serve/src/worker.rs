//! The one thread that owns the model: takes requests in, steps the batch, sends events out.
//!
//! A request's receiver is its life: when it is dropped, its sequences end within a step. A reader that is slow makes
//! its own sequences wait, and nobody else's.

use std::cell::Cell;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use tern::{Batch, Bounds, Drafted, Drafts, Finish, Job, Model, Output, Scored, Ticket};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use crate::error::Refusal;
use crate::metrics::Metrics;
use crate::note::{End, Note};
use crate::stops::{Ripe, Stops};

/// A request as the worker takes it.
pub(crate) struct Work {
    /// Every answer that is wanted, in order.
    pub(crate) jobs: Vec<Wanted>,
    /// So many of them in a row have the same prompt.
    pub(crate) shared: usize,
    pub(crate) events: mpsc::Sender<(usize, Event)>,
    /// Its places among those that may run or wait.
    pub(crate) place: Place,
    /// What the log is to know.
    pub(crate) note: Arc<Note>,
    pub(crate) received: Instant,
    pub(crate) deadline: Instant,
}

impl Work {
    pub(crate) fn refuse(self, refusal: Refusal) {
        self.note.ended(End::Error);
        drop(self.events.try_send((0, Event::Failed(refusal))));
    }
}

/// Texts that are to become vectors.
pub(crate) struct Texts {
    pub(crate) texts: Vec<Vec<u32>>,
    pub(crate) reply: oneshot::Sender<Result<Vec<Vec<f32>>, Refusal>>,
    pub(crate) note: Arc<Note>,
    pub(crate) deadline: Instant,
    pub(crate) _place: Place,
}

impl Texts {
    pub(crate) fn refuse(self, refusal: Refusal) {
        self.note.ended(End::Error);
        drop(self.reply.send(Err(refusal)));
    }
}

/// One answer.
pub(crate) struct Wanted {
    pub(crate) job: Job,
    pub(crate) stops: Vec<String>,
    /// The answer is a text of its own, not the continuation of its prompt's last word.
    pub(crate) fresh: bool,
    /// Tell how far its prompt was read.
    pub(crate) progress: bool,
}

/// What happened to one answer.
#[derive(Debug)]
pub(crate) enum Event {
    /// So many tokens of its prompt were read, those that were known included; told where it was asked for.
    Reading { cached: usize, read: usize, spent: Duration },
    /// Its prompt was read.
    Read { cached: usize, scored: Vec<Scored>, spent: Duration },
    /// More of its text. The tokens' text may come a little later than they do.
    Piece { text: String, tokens: Vec<Scored>, times: Times },
    /// It ended well.
    Done(Done),
    /// It ended badly, and with it the request.
    Failed(Refusal),
}

/// Places among the answers that may run or wait; free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) _all: OwnedSemaphorePermit,
    pub(crate) _share: Option<OwnedSemaphorePermit>,
}

impl Event {
    /// Most events of one answer in a step: its prompt is read, a text for its next token and each that was guessed, the rest of
    /// it, its end.
    pub(crate) const PER_STEP: usize = 4 + Drafts::MOST;

    /// How far the prompt was read: the tokens that were known, those that are read (all if `None`), the time it took.
    pub(crate) fn read(&self) -> Option<(usize, Option<usize>, Duration)> {
        match self {
            Self::Reading { cached, read, spent } => Some((*cached, Some(*read), *spent)),
            Self::Read { cached, spent, .. } => Some((*cached, None, *spent)),
            _ => None,
        }
    }
}

/// How an answer ended.
#[derive(Clone, Debug)]
pub(crate) struct Done {
    pub(crate) reason: Reason,
    pub(crate) times: Times,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Reason {
    /// The model ended it, with this token.
    Stop(Scored),
    /// A stop text was reached.
    Text(String),
    /// The grammar has nothing more to say.
    Complete,
    Length,
}

/// Counts and times of one answer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Times {
    pub(crate) prompt_tokens: usize,
    pub(crate) cached_tokens: usize,
    pub(crate) tokens: usize,
    pub(crate) drafted: Drafted,
    /// From the request to its first token.
    pub(crate) first: Duration,
    /// From the first token to the last.
    pub(crate) rest: Duration,
}

/// What is known of an answer in the making.
struct Live<'m> {
    index: usize,
    stops: Stops<'m>,
    times: Times,
    received: Instant,
    note: Arc<Note>,
    /// Its prompt is that of the answer before it, and counts there.
    again: bool,
    /// Its reader does not keep up.
    behind: Cell<bool>,
    first: Option<Instant>,
    deadline: Instant,
    progress: bool,
    events: mpsc::Sender<(usize, Event)>,
    _place: Arc<Place>,
}

/// When the last one of these is dropped or `stop` is called, the worker ends.
pub(crate) struct Inbox {
    pub(crate) work: Receiver<Message>,
}

/// What the worker is told.
pub(crate) enum Message {
    Work(Box<Work>),
    /// Texts that become vectors: for an embedding model.
    Texts(Texts),
    /// End everything that runs, with this.
    Abort(Refusal),
}

/// How texts are guessed ahead.
pub(crate) struct Ahead {
    pub(crate) drafts: Drafts,
    /// The model that guesses beside the texts themselves.
    pub(crate) model: Option<Arc<Model>>,
}

impl Ahead {
    fn batch(&self, model: &Model, bounds: Bounds) -> tern::Result<Batch> {
        let batch = Batch::new(model, bounds)?.with_drafts(self.drafts);
        match &self.model {
            Some(draft) => batch.with_draft_model(model, draft.clone()),
            None => Ok(batch),
        }
    }
}

/// How long the worker sleeps where all readers are slow.
const WAIT: Duration = Duration::from_millis(5);

/// Runs until the senders are gone.
pub(crate) fn run(
    name: &str,
    model: &Model,
    bounds: Bounds,
    ahead: Ahead,
    inbox: &Inbox,
    metrics: &Metrics,
) -> tern::Result<()> {
    let batch = ahead.batch(model, bounds)?;
    let mut worker = Worker { name, model, bounds, ahead, batch, live: HashMap::new(), metrics };
    worker.tell_load();
    loop {
        if worker.batch.is_idle() {
            match inbox.work.recv() {
                Ok(message) => worker.take(message),
                Err(_) => return Ok(()),
            }
        }
        loop {
            match inbox.work.try_recv() {
                Ok(message) => worker.take(message),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) if worker.batch.is_idle() => return Ok(()),
                Err(TryRecvError::Disconnected) => break,
            }
        }
        worker.drop_the_gone();
        if !worker.step()? {
            match inbox.work.recv_timeout(WAIT) {
                Ok(message) => worker.take(message),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
        }
        worker.tell_load();
    }
}

struct Worker<'m> {
    name: &'m str,
    model: &'m Model,
    bounds: Bounds,
    ahead: Ahead,
    batch: Batch,
    live: HashMap<Ticket, Live<'m>>,
    metrics: &'m Metrics,
}

impl<'m> Worker<'m> {
    fn take(&mut self, message: Message) {
        let Work { jobs, shared, events, place, note, received, deadline } = match message {
            Message::Work(work) => *work,
            Message::Texts(texts) => {
                return texts.refuse(Refusal::internal("this server's model makes no vectors"));
            }
            Message::Abort(refusal) => return self.abort(&refusal),
        };
        if events.is_closed() {
            return note.ended(End::Cancelled);
        }
        let place = Arc::new(place);
        let tokenizer = self.model.tokenizer().ok();
        for (index, Wanted { job, stops, fresh, progress }) in jobs.into_iter().enumerate() {
            let decoder = tokenizer.map(|tokenizer| match fresh {
                true => tokenizer.decoder(),
                false => tokenizer.decoder_after(&job.prompt),
            });
            let times = Times { prompt_tokens: job.prompt.len(), ..Times::default() };
            match self.batch.add(self.model, job) {
                Ok(ticket) => {
                    let stops = Stops::new(decoder, stops);
                    let (events, _place) = (events.clone(), place.clone());
                    let (note, again) = (note.clone(), !index.is_multiple_of(shared));
                    let (first, behind) = (None, Cell::new(false));
                    let live = Live {
                        index,
                        stops,
                        times,
                        received,
                        note,
                        again,
                        behind,
                        first,
                        deadline,
                        progress,
                        events,
                        _place,
                    };
                    self.live.insert(ticket, live);
                }
                Err(error) => {
                    note.ended(End::Error);
                    drop(events.try_send((index, Event::Failed(error.into()))));
                }
            }
        }
    }

    /// Ends requests whose clients have gone, and those that have waited too long.
    fn drop_the_gone(&mut self) {
        let now = Instant::now();
        let gone: Vec<Ticket> = self
            .live
            .iter()
            .filter(|(_, live)| live.events.is_closed() || live.deadline <= now)
            .map(|(ticket, _)| *ticket)
            .collect();
        for ticket in gone {
            self.batch.cancel(ticket);
            if let Some(live) = self.live.remove(&ticket) {
                if live.events.is_closed() {
                    self.metrics.cancelled.add(1);
                    live.note.ended(End::Cancelled);
                } else {
                    self.metrics.timed_out.add(1);
                    live.note.ended(End::Timeout);
                    let refusal = Refusal::too_slow();
                    // A full channel is a reader that does not read: dropping the sender tells it, too.
                    let _ = live.events.try_send((live.index, Event::Failed(refusal)));
                }
            }
        }
    }

    /// One step; `false` if nobody could take one. A panic ends the requests at hand, not the server; a model whose file
    /// was changed ends it.
    fn step(&mut self) -> tern::Result<bool> {
        let Self { model, batch, live, .. } = self;
        // Each answer may make so many events in a step, and all of a request's go the same way.
        let most = |live: &Live<'_>| Event::PER_STEP * (Arc::strong_count(&live._place));
        // Who once was too slow catches up first, or it would go on for a token at a time.
        let room = |live: &Live<'_>| match live.behind.get() {
            true => most(live).max(live.events.max_capacity() / 4 * 3),
            false => most(live),
        };
        let ready = |ticket: Ticket| {
            live.get(&ticket).is_none_or(|live| {
                let ready = live.events.capacity() >= room(live);
                live.behind.set(!ready);
                ready
            })
        };
        match catch_unwind(AssertUnwindSafe(|| batch.step(model, ready))) {
            Ok(outputs) => {
                // Before a word of it is said: it may not be the model's.
                if let Err(error) = self.model.unchanged() {
                    self.abort(&Refusal::model_changed());
                    return Err(error);
                }
                // Who has the whole answer and then asks what goes on must not find it running.
                self.tell_load();
                for (ticket, output) in outputs {
                    self.tell(ticket, output);
                }
                Ok(self.batch.rows() > 0)
            }
            Err(_) => {
                self.metrics.panics.add(1);
                self.abort(&Refusal::panicked());
                if let Ok(batch) = self.ahead.batch(self.model, self.bounds) {
                    self.batch = batch;
                }
                Ok(true)
            }
        }
    }

    fn abort(&mut self, refusal: &Refusal) {
        for (ticket, live) in self.live.drain() {
            self.batch.cancel(ticket);
            live.note.ended(End::Error);
            let _ = live.events.try_send((live.index, Event::Failed(refusal.clone())));
        }
    }

    fn tell(&mut self, ticket: Ticket, output: Output) {
        let Some(live) = self.live.get_mut(&ticket) else { return };
        let send = |live: &Live<'_>, event| {
            // There was room before the step, or the receiver is gone and this one will be, too.
            let _ = live.events.try_send((live.index, event));
        };
        match output {
            Output::Reading { cached, read } => {
                // It is not worth filling the channel of a slow reader.
                let room = Event::PER_STEP * Arc::strong_count(&live._place);
                if live.progress && live.events.capacity() > room {
                    send(live, Event::Reading { cached, read, spent: live.received.elapsed() });
                }
            }
            Output::Read { cached, scored } => {
                live.times.cached_tokens = cached;
                if !live.again {
                    live.note.cached(cached);
                }
                self.metrics.prompt(live.times.prompt_tokens, cached);
                send(live, Event::Read { cached, scored, spent: live.received.elapsed() });
            }
            Output::Drafted(drafted) => {
                live.times.drafted.add(drafted);
                self.metrics.drafted(drafted);
            }
            Output::Token(token) => {
                let now = Instant::now();
                live.times.tokens += 1;
                live.note.token(now - live.received);
                match live.first {
                    None => {
                        live.first = Some(now);
                        live.times.first = now - live.received;
                        self.metrics.first_token.observe(live.times.first);
                    }
                    Some(first) => {
                        let rest = now - first;
                        self.metrics.next_token.observe(rest - live.times.rest);
                        live.times.rest = rest;
                    }
                }
                self.metrics.tokens.add(1);
                let Ripe { text, tokens, stop } = live.stops.push(token);
                if !text.is_empty() || !tokens.is_empty() {
                    send(live, Event::Piece { text, tokens, times: live.times });
                }
                if let Some(stop) = stop
                    && let Some(live) = self.live.remove(&ticket)
                {
                    self.batch.cancel(ticket);
                    self.tell_load();
                    self.metrics.done.add(1);
                    live.note.ended(End::Stop);
                    send(&live, Event::Done(Done { reason: Reason::Text(stop), times: live.times }));
                }
            }
            Output::Done(finish) => {
                let Some(mut live) = self.live.remove(&ticket) else { return };
                let Ripe { text, tokens, stop } = live.stops.finish();
                if !text.is_empty() || !tokens.is_empty() {
                    send(&live, Event::Piece { text, tokens, times: live.times });
                }
                let reason = match (stop, finish) {
                    (Some(stop), _) => Reason::Text(stop),
                    (None, Finish::Stop(token)) => Reason::Stop(token),
                    (None, Finish::Complete) => Reason::Complete,
                    (None, Finish::Length) => Reason::Length,
                    // The request's fault: to send it again would not help.
                    (None, Finish::Astray(what)) => {
                        self.metrics.failed.add(1);
                        return send(&live, Event::Failed(Refusal::bad(what)));
                    }
                    (None, Finish::Failed(what)) => {
                        self.metrics.failed.add(1);
                        live.note.ended(End::Error);
                        return send(&live, Event::Failed(Refusal::internal(what)));
                    }
                };
                self.metrics.done.add(1);
                live.note.ended(if reason == Reason::Length { End::Length } else { End::Stop });
                if live.first.is_none() {
                    live.times.first = live.received.elapsed();
                }
                send(&live, Event::Done(Done { reason, times: live.times }));
            }
        }
    }

    fn tell_load(&self) {
        self.metrics.set_load(self.name, self.batch.load());
    }
}
