//! The models that a server has: their names, which of them are loaded, and which may go when others need the memory.
//!
//! A model is in use while anybody beside this list holds its [`Ready`]. Whoever asks for one gets it under the list's
//! lock, so that a model which nobody holds can be unloaded without a request losing it.

use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tern::{Config, KvFormat};
use tokio::sync::watch;

use crate::error::{Refusal, short};
use crate::ready::Ready;
use crate::served::Served;

/// How far a model is.
enum State {
    Cold,
    /// Being loaded; so many bytes are kept free for it.
    Loading(u64),
    Loaded(Loaded),
    /// It could not be loaded, and why.
    Failed(Refusal, Instant),
}

struct Loaded {
    ready: Arc<Ready>,
    /// When it was last asked for, or seen in use.
    used: Instant,
    /// How long it stays after that; for good if `None`.
    keep: Option<Duration>,
    /// Its weights with its keys and values.
    bytes: u64,
}

impl Loaded {
    fn is_idle(&self) -> bool {
        Arc::strong_count(&self.ready) == 1
    }
}

struct Entry {
    served: Arc<Served>,
    /// Bytes that are kept free for it before it is loaded.
    needed: u64,
    state: State,
    /// The thread that owns the model.
    thread: Option<JoinHandle<()>>,
}

impl Entry {
    fn is_cold(&self) -> bool {
        matches!(self.state, State::Cold | State::Failed(..))
    }

    fn bytes(&self) -> u64 {
        match &self.state {
            State::Loading(bytes) => *bytes,
            State::Loaded(loaded) => loaded.bytes,
            State::Cold | State::Failed(..) => 0,
        }
    }
}

/// A model as it is listed.
pub(crate) struct Listed {
    pub(crate) served: Arc<Served>,
    pub(crate) ready: Option<Arc<Ready>>,
    pub(crate) state: &'static str,
    /// Its bytes while it is loaded.
    pub(crate) bytes: u64,
    /// After which time without a request it is unloaded; never if `None`.
    pub(crate) expires: Option<Duration>,
}

impl Listed {
    pub(crate) fn config(&self) -> Option<&Config> {
        self.ready.as_ref().map(|ready| ready.model.config()).or(self.served.config.as_ref())
    }

    /// The source of its chat template; empty where there is none.
    pub(crate) fn template(&self) -> &str {
        match &self.ready {
            Some(ready) => ready.template(),
            None => self.served.template.as_deref().unwrap_or_default(),
        }
    }

    /// Tokens of one sequence; while it is not loaded, those that it was made for.
    pub(crate) fn context(&self) -> usize {
        let ready = self.ready.as_ref().map(|ready| ready.context);
        ready.or(self.served.config.as_ref().map(|config| config.context)).unwrap_or(0)
    }
}

/// What is to be done for a model that was asked for.
pub(crate) enum Found {
    Ready(Arc<Ready>),
    /// It has to be loaded first, by the caller. Those who were unloaded for it are gone when these threads end.
    Load(usize, Arc<Served>, Vec<JoinHandle<()>>),
    /// There is no room for it while all loaded models have requests to answer; this is told to whoever does not wait.
    Busy(Refusal),
    /// Somebody loads it already.
    Wait(watch::Receiver<()>),
}

/// The threads of models that were unloaded for another.
type Gone = Option<Vec<JoinHandle<()>>>;

/// How long a request wants its model to stay: nothing said, for good, or for so long.
pub(crate) type Keep = Option<Option<Duration>>;

pub(crate) struct Models {
    list: Mutex<Vec<Entry>>,
    /// Bytes of all loaded models together.
    most: u64,
    /// How long a model stays without requests.
    keep: Option<Duration>,
    changed: watch::Sender<()>,
}

/// How long the reason is told why a model could not be loaded before that is tried again.
const RETRY: Duration = Duration::from_secs(5);

impl Models {
    /// With so many bytes for all models, and for the keys and values of each where that is said.
    pub(crate) fn new(served: Vec<Served>, most: u64, kv: Option<u64>, keep: Option<Duration>) -> Self {
        let entry = |served: Served| Entry {
            // The one model without a way to load it is being loaded from the start.
            state: if served.load.is_some() { State::Cold } else { State::Loading(0) },
            needed: needed(&served, kv),
            served: Arc::new(served),
            thread: None,
        };
        let list = Mutex::new(served.into_iter().map(entry).collect());
        Self { list, most, keep, changed: watch::Sender::new(()) }
    }

    fn list(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.list.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Whether the server has but one model, which answers to every name.
    fn is_one(list: &[Entry]) -> bool {
        list.iter().all(|entry| entry.served.load.is_none())
    }

    /// Which model is meant. Without a name it is the first.
    fn position(list: &[Entry], asked: Option<&str>) -> Result<usize, Refusal> {
        let Some(asked) = asked.filter(|asked| !asked.is_empty() && !Self::is_one(list)) else {
            return Ok(0);
        };
        list.iter().position(|entry| entry.served.is_called(asked)).ok_or_else(|| Self::unknown(list, asked))
    }

    fn unknown(list: &[Entry], asked: &str) -> Refusal {
        Refusal::no_model(&short(asked), &Self::names_of(list))
    }

    fn names_of(list: &[Entry]) -> String {
        let (names, more) =
            (list.iter().take(8).map(|entry| format!("`{}`", entry.served.name)), list.len() > 8);
        names.chain(more.then(|| "more".to_owned())).collect::<Vec<_>>().join(", ")
    }

    /// The models' names, for messages: the first of many.
    pub(crate) fn names(&self) -> String {
        Self::names_of(&self.list())
    }

    /// Finds a model, and begins its loading where it is not loaded. `keep` is how long it is to stay afterwards, where the
    /// request says so.
    pub(crate) fn find(&self, asked: Option<&str>, keep: Keep) -> Result<Found, Refusal> {
        let mut list = self.list();
        let at = Self::position(&list, asked)?;
        let is_one = list[at].served.load.is_none();
        match &mut list[at].state {
            State::Loaded(loaded) => {
                loaded.used = Instant::now();
                if let Some(keep) = keep {
                    loaded.keep = keep;
                }
                return Ok(Found::Ready(loaded.ready.clone()));
            }
            State::Loading(_) if is_one => {
                return Err(Refusal::unavailable("the model is being loaded"));
            }
            State::Loading(_) => return Ok(Found::Wait(self.changed.subscribe())),
            State::Failed(refusal, when) if when.elapsed() < RETRY => return Err(refusal.clone()),
            State::Failed(..) | State::Cold => {}
        }
        let served = list[at].served.clone();
        let needed = list[at].needed.min(self.most);
        match self.make_room(&mut list, &served, needed)? {
            Some(gone) => {
                list[at].state = State::Loading(needed);
                Ok(Found::Load(at, served, gone))
            }
            None => {
                let what =
                    "the loaded models have requests to answer, and leave no memory for it: try again later";
                Ok(Found::Busy(Refusal::unavailable(format!(
                    "`{}` cannot be loaded yet: {what}",
                    served.name
                ))))
            }
        }
    }

    /// Unloads models that nobody uses, the one that was used longest ago first, until there is room for this one.
    /// Gives their threads; `None`, and unloads nothing, where there would not be enough room even so.
    fn make_room(&self, list: &mut [Entry], wanted: &Served, needed: u64) -> Result<Gone, Refusal> {
        let (name, bytes, most) = (&wanted.name, wanted.file_bytes, self.most);
        if bytes > most {
            let what = "takes more memory than `--model-memory` allows";
            return Err(Refusal::unavailable(format!("`{name}` {what}: {bytes} bytes of {most}")));
        }
        let is_idle = |entry: &Entry| matches!(&entry.state, State::Loaded(loaded) if loaded.is_idle());
        if list.iter().filter(|entry| !is_idle(entry)).map(Entry::bytes).sum::<u64>() > most - needed {
            return Ok(None);
        }
        while list.iter().map(Entry::bytes).sum::<u64>() > most - needed {
            let idle = list.iter_mut().filter_map(|entry| match &entry.state {
                State::Loaded(loaded) if loaded.is_idle() => Some((loaded.used, entry)),
                _ => None,
            });
            let Some((_, entry)) = idle.min_by_key(|(used, _)| *used) else { return Ok(None) };
            unload(entry);
        }
        Ok(Some(
            list.iter_mut().filter(|entry| entry.is_cold()).filter_map(|entry| entry.thread.take()).collect(),
        ))
    }

    /// Bytes that a model may have which is being loaded: what no other model has.
    pub(crate) fn room_for(&self, at: usize) -> u64 {
        let list = self.list();
        let others = list.iter().enumerate().filter(|(other, _)| *other != at);
        self.most.saturating_sub(others.map(|(_, entry)| entry.bytes()).sum())
    }

    pub(crate) fn runs_on(&self, at: usize, thread: JoinHandle<()>) {
        self.list()[at].thread = Some(thread);
    }

    /// A model is there.
    pub(crate) fn loaded(&self, at: usize, ready: Ready, bytes: u64) {
        let (ready, keep) = (Arc::new(ready), self.keep);
        self.list()[at].state = State::Loaded(Loaded { ready, used: Instant::now(), keep, bytes });
        self.changed.send_replace(());
    }

    /// A model could not be loaded, or its thread has ended because of this.
    pub(crate) fn failed(&self, at: usize, refusal: Refusal) {
        self.list()[at].state = State::Failed(refusal, Instant::now());
        self.changed.send_replace(());
    }

    /// Unloads what was not used for as long as it was to stay; tells the names.
    pub(crate) fn age(&self) -> Vec<String> {
        let mut names = Vec::new();
        for entry in self.list().iter_mut().filter(|entry| entry.served.load.is_some()) {
            let State::Loaded(loaded) = &mut entry.state else { continue };
            if !loaded.is_idle() {
                loaded.used = Instant::now();
            } else if loaded.keep.is_some_and(|keep| loaded.used.elapsed() >= keep) {
                names.push(entry.served.name.clone());
                unload(entry);
            }
        }
        names
    }

    /// Has a model unloaded as soon as nobody uses it. Whether it was loaded.
    pub(crate) fn let_go(&self, asked: Option<&str>) -> Result<bool, Refusal> {
        let mut list = self.list();
        let at = Self::position(&list, asked)?;
        let entry = &mut list[at];
        let State::Loaded(loaded) = &mut entry.state else { return Ok(false) };
        if entry.served.load.is_some() {
            loaded.keep = Some(Duration::ZERO);
            if loaded.is_idle() {
                unload(entry);
            }
        }
        Ok(true)
    }

    /// All models, in the order in which they were given.
    pub(crate) fn all(&self) -> Vec<Listed> {
        self.list().iter().map(listed).collect()
    }

    /// One of them, as it is.
    pub(crate) fn one(&self, asked: Option<&str>) -> Result<Listed, Refusal> {
        let list = self.list();
        Ok(listed(&list[Self::position(&list, asked)?]))
    }

    /// Whether there is a model of exactly this name, also where but one answers to all names.
    pub(crate) fn named(&self, asked: &str) -> Result<Listed, Refusal> {
        let list = self.list();
        let found = list.iter().find(|entry| entry.served.is_called(asked));
        found.map(listed).ok_or_else(|| Self::unknown(&list, asked))
    }
}

/// The weights, and the keys and values: as many as are asked for, or twice a whole conversation's, because a model gets
/// half of what is free for them.
fn needed(served: &Served, kv: Option<u64>) -> u64 {
    let writes = served.config.as_ref().filter(|config| config.pooling.is_none());
    let kv = match (kv, writes) {
        (_, None) if served.config.is_some() => 0,
        (Some(kv), _) => kv,
        (None, Some(config)) => 2 * (config.context.saturating_mul(config.kv_bytes(KvFormat::F16))) as u64,
        (None, None) => 0,
    };
    served.file_bytes.saturating_add(kv)
}

fn listed(entry: &Entry) -> Listed {
    let (ready, state, expires) = match &entry.state {
        State::Cold => (None, "unloaded", None),
        State::Loading(_) => (None, "loading", None),
        State::Failed(..) => (None, "failed", None),
        State::Loaded(loaded) => {
            let left = |keep: Duration| match loaded.is_idle() {
                true => keep.saturating_sub(loaded.used.elapsed()),
                false => keep,
            };
            let expires = loaded.keep.filter(|_| entry.served.load.is_some()).map(left);
            (Some(loaded.ready.clone()), "loaded", expires)
        }
    };
    Listed { served: entry.served.clone(), ready, state, bytes: entry.bytes(), expires }
}

/// Its thread ends when its last sender is gone, and gives the memory back.
fn unload(entry: &mut Entry) {
    entry.state = State::Cold;
}
