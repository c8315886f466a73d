//! The models that a server has: their names, which of them are loaded, and which may go when others need the memory.
//!
//! A model is in use while anybody beside this list holds its [`Ready`]. Whoever asks for one gets it under the list's
//! lock, so that a model which nobody holds can be unloaded without a request losing it.

mod change;

use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tern::{Config, KvFormat};
use tokio::sync::watch;

use crate::error::{Refusal, short};
use crate::ready::Ready;
use crate::served::{Served, Serving};

pub(crate) use change::{Deleted, Taken};

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
    /// Names that clients have given it.
    copies: Vec<String>,
    /// Bytes that are kept free for it before it is loaded.
    needed: u64,
    state: State,
    /// The thread that owns the model.
    thread: Option<JoinHandle<()>>,
}

/// Whether two names are the same. Ollama's clients put `:latest` behind a name.
fn is_same(name: &str, asked: &str) -> bool {
    let plain = |name: &str| name.strip_suffix(":latest").unwrap_or(name).len();
    name[..plain(name)] == asked[..plain(asked)]
}

impl Entry {
    fn new(served: Served, state: State, kv: Option<u64>) -> Self {
        let needed = needed(&served, kv);
        Self { served: Arc::new(served), copies: Vec::new(), needed, state, thread: None }
    }

    /// Whether a client means this model.
    fn is_called(&self, asked: &str) -> bool {
        let names = [&self.served.name].into_iter().chain(&self.served.aliases).chain(&self.copies);
        let is_adapted = || match &self.state {
            State::Loaded(loaded) => loaded.ready.adapted().any(|name| is_same(&name, asked)),
            State::Cold | State::Loading(_) | State::Failed(..) => false,
        };
        names.into_iter().any(|name| is_same(name, asked)) || is_adapted()
    }

    fn is_idle(&self) -> bool {
        matches!(&self.state, State::Loaded(loaded) if loaded.is_idle())
    }

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
    /// Names that clients have given it.
    pub(crate) copies: Vec<String>,
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

    /// The names of the model with one of its adapters, once it is loaded.
    pub(crate) fn adapted(&self) -> Vec<String> {
        self.ready.iter().flat_map(|ready| ready.adapted()).collect()
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
    Load(Arc<Served>, Vec<JoinHandle<()>>),
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
    /// The server has but one model, which answers to every name.
    one: bool,
    /// Bytes of each model's keys and values, where that is said.
    kv: Option<u64>,
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
    pub(crate) fn new(models: Serving, most: u64, kv: Option<u64>, keep: Option<Duration>) -> Self {
        let (list, one) = match models {
            Serving::One(served) => (vec![Entry::new(*served, State::Loading(0), kv)], true),
            Serving::Several(all) => {
                (all.into_iter().map(|served| Entry::new(served, State::Cold, kv)).collect(), false)
            }
        };
        Self { list: Mutex::new(list), one, kv, most, keep, changed: watch::Sender::new(()) }
    }

    fn list(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.list.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Which model is meant. Without a name it is the first.
    fn position(&self, list: &[Entry], asked: Option<&str>) -> Result<usize, Refusal> {
        let asked = asked.filter(|asked| !asked.is_empty() && !self.one);
        let found = match asked {
            Some(asked) => list.iter().position(|entry| entry.is_called(asked)),
            None => (!list.is_empty()).then_some(0),
        };
        found.ok_or_else(|| Self::unknown(list, asked.unwrap_or_default()))
    }

    /// Which model has exactly this name, also where but one answers to all names.
    fn exact(list: &[Entry], asked: &str) -> Result<usize, Refusal> {
        let found = list.iter().position(|entry| entry.is_called(asked));
        found.ok_or_else(|| Self::unknown(list, asked))
    }

    fn unknown(list: &[Entry], asked: &str) -> Refusal {
        Refusal::no_model(&short(asked), &Self::names_of(list))
    }

    fn names_of(list: &[Entry]) -> String {
        if list.is_empty() {
            return "none".to_owned();
        }
        let (names, more) =
            (list.iter().take(8).map(|entry| format!("`{}`", entry.served.name)), list.len() > 8);
        names.chain(more.then(|| "more".to_owned())).collect::<Vec<_>>().join(", ")
    }

    /// Finds a model, and begins its loading where it is not loaded. `keep` is how long it is to stay afterwards, where the
    /// request says so.
    pub(crate) fn find(&self, asked: Option<&str>, keep: Keep) -> Result<Found, Refusal> {
        let mut list = self.list();
        let at = self.position(&list, asked)?;
        match &mut list[at].state {
            State::Loaded(loaded) => {
                loaded.used = Instant::now();
                if let Some(keep) = keep {
                    loaded.keep = keep;
                }
                return Ok(Found::Ready(loaded.ready.clone()));
            }
            State::Loading(_) if self.one => {
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
                Ok(Found::Load(served, gone))
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
        if list.iter().filter(|entry| !entry.is_idle()).map(Entry::bytes).sum::<u64>() > most - needed {
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
    pub(crate) fn room_for(&self, served: &Arc<Served>) -> u64 {
        let list = self.list();
        let others = list.iter().filter(|entry| !Arc::ptr_eq(&entry.served, served));
        self.most.saturating_sub(others.map(Entry::bytes).sum())
    }

    /// Changes the entry of this model.
    fn change(&self, served: &Arc<Served>, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.list().iter_mut().find(|entry| Arc::ptr_eq(&entry.served, served)) {
            change(entry);
        }
        self.changed.send_replace(());
    }

    pub(crate) fn runs_on(&self, served: &Arc<Served>, thread: JoinHandle<()>) {
        self.change(served, |entry| entry.thread = Some(thread));
    }

    /// A model is there.
    pub(crate) fn loaded(&self, served: &Arc<Served>, ready: Ready, bytes: u64) {
        let (ready, keep) = (Arc::new(ready), self.keep);
        let loaded = Loaded { ready, used: Instant::now(), keep, bytes };
        self.change(served, |entry| entry.state = State::Loaded(loaded));
    }

    /// A model could not be loaded, or its thread has ended because of this.
    pub(crate) fn failed(&self, served: &Arc<Served>, refusal: Refusal) {
        self.change(served, |entry| entry.state = State::Failed(refusal, Instant::now()));
    }

    /// Unloads what was not used for as long as it was to stay; tells the names.
    pub(crate) fn age(&self) -> Vec<String> {
        let mut names = Vec::new();
        for entry in self.list().iter_mut().filter(|_| !self.one) {
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
        let at = self.position(&list, asked)?;
        let entry = &mut list[at];
        let State::Loaded(loaded) = &mut entry.state else { return Ok(false) };
        if !self.one {
            loaded.keep = Some(Duration::ZERO);
            if loaded.is_idle() {
                unload(entry);
            }
        }
        Ok(true)
    }

    /// All models, in the order in which they were given.
    pub(crate) fn all(&self) -> Vec<Listed> {
        self.list().iter().map(|entry| self.listed(entry)).collect()
    }

    /// One of them, as it is.
    pub(crate) fn one(&self, asked: Option<&str>) -> Result<Listed, Refusal> {
        let list = self.list();
        Ok(self.listed(&list[self.position(&list, asked)?]))
    }

    /// The one of exactly this name, also where but one answers to all names.
    pub(crate) fn named(&self, asked: &str) -> Result<Listed, Refusal> {
        let list = self.list();
        Ok(self.listed(&list[Self::exact(&list, asked)?]))
    }

    fn listed(&self, entry: &Entry) -> Listed {
        let (ready, state, expires) = match &entry.state {
            State::Cold => (None, "unloaded", None),
            State::Loading(_) => (None, "loading", None),
            State::Failed(..) => (None, "failed", None),
            State::Loaded(loaded) => {
                let left = |keep: Duration| match loaded.is_idle() {
                    true => keep.saturating_sub(loaded.used.elapsed()),
                    false => keep,
                };
                let expires = loaded.keep.filter(|_| !self.one).map(left);
                (Some(loaded.ready.clone()), "loaded", expires)
            }
        };
        let (served, copies) = (entry.served.clone(), entry.copies.clone());
        Listed { served, copies, ready, state, bytes: entry.bytes(), expires }
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

/// Its thread ends when its last sender is gone, and gives the memory back.
fn unload(entry: &mut Entry) {
    entry.state = State::Cold;
}
