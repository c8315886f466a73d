//! Models on their way to this machine: each on a thread of its own, once for all who ask for it, and for as long as
//! somebody does.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard};

use serde_json::json;
use tokio::sync::watch;

use crate::app::App;
use crate::error::Refusal;
use crate::library::{Arriving, Library, Named, Wrong};
use crate::limits::DOWNLOADS;
use crate::ready::Phase;
use crate::served::Served;
use crate::turns::at_low_priority;

/// How far a download is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Step {
    /// The Hub is asked what there is.
    Asks,
    Comes(Arriving),
    Done,
    Failed(Refusal),
}

/// Gets the newest step of a download, which ends when nobody has one of these any more.
pub(crate) type Steps = watch::Receiver<Step>;

#[derive(Default)]
struct State {
    /// By the model's name: the place where it will be kept, and those who wait.
    running: HashMap<String, (String, watch::Sender<Step>)>,
    /// Places that are being removed.
    closed: HashSet<String>,
}

#[derive(Default)]
pub(crate) struct Downloads(Mutex<State>);

/// A place into which nothing is downloaded while this is held.
pub(crate) struct Closed {
    downloads: Arc<Downloads>,
    place: String,
}

impl Drop for Closed {
    fn drop(&mut self) {
        self.downloads.state().closed.remove(&self.place);
    }
}

impl Downloads {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Begins a download, or joins the one that is under way.
    pub(crate) fn join(app: &Arc<App>, library: &Arc<dyn Library>, named: Named) -> Result<Steps, Refusal> {
        app.models.has_room()?;
        let mut state = app.downloads.state();
        if let Some((_, steps)) = state.running.get(&named.name) {
            return Ok(steps.subscribe());
        }
        if state.closed.contains(&named.kept_in) {
            return Err(Refusal::conflict(format!("`{}` is being deleted", named.name)));
        }
        if state.running.len() >= DOWNLOADS {
            let what =
                format!("{DOWNLOADS} models are being downloaded already: try again when one is there");
            return Err(Refusal { retry_after: Some(30), ..Refusal::too_many(what) });
        }
        let (sender, steps) = watch::channel(Step::Asks);
        // The app ends while this goes on where it waits for the network.
        let (weak, downloads, library) = (Arc::downgrade(app), app.downloads.clone(), library.clone());
        let phase = app.phase.subscribe();
        let (name, kept_in, told) = (named.name.clone(), named.kept_in.clone(), sender.clone());
        let thread = move || {
            at_low_priority();
            let mut goes_on = |arriving: Arriving| {
                let step = Step::Comes(arriving);
                told.send_if_modified(|last| {
                    let changed = *last != step;
                    *last = step;
                    changed
                });
                *phase.borrow() != Phase::Draining && !downloads.is_left(&named.name)
            };
            let pulled = catch_unwind(AssertUnwindSafe(|| library.pull(&named, &mut goes_on)));
            let pulled =
                pulled.unwrap_or_else(|_| Err(Wrong { status: 500, message: "internal error".to_owned() }));
            let step = match weak.upgrade() {
                Some(app) => came(&app, &named, pulled),
                None => Step::Failed(Refusal::unavailable("the server is shutting down")),
            };
            let mut state = downloads.state();
            // Nobody waits for the step of one that was left; there may be another of the same name already.
            if state.running.get(&named.name).is_some_and(|(_, steps)| steps.same_channel(&told)) {
                state.running.remove(&named.name);
            }
            told.send_replace(step);
        };
        let spawned = std::thread::Builder::new().name("tern-pull".to_owned()).spawn(thread);
        spawned.map_err(|error| Refusal::unavailable(format!("no thread for a download: {error}")))?;
        state.running.insert(name, (kept_in, sender));
        Ok(steps)
    }

    /// Whether nobody waits for a download any more; then nobody can join it either.
    fn is_left(&self, name: &str) -> bool {
        let mut state = self.state();
        let left = state.running.get(name).is_none_or(|(_, steps)| steps.receiver_count() == 0);
        if left {
            state.running.remove(name);
        }
        left
    }

    /// Closes a place; not while something is downloaded into it.
    pub(crate) fn close(self: &Arc<Self>, place: &str) -> Result<Closed, Refusal> {
        let mut state = self.state();
        let comes = state.running.iter().find(|(_, (kept_in, _))| kept_in == place);
        if let Some((name, _)) = comes {
            return Err(Refusal::conflict(format!("`{name}` is being downloaded: end that first")));
        }
        if !state.closed.insert(place.to_owned()) {
            return Err(Refusal::conflict("it is being deleted already"));
        }
        Ok(Closed { downloads: self.clone(), place: place.to_owned() })
    }
}

/// What became of a download.
fn came(app: &App, named: &Named, pulled: Result<Served, Wrong>) -> Step {
    match pulled {
        Ok(served) => {
            app.options.log.event("pulled", json!({"model": served.name, "message": served.name}));
            app.models.add(served);
            Step::Done
        }
        Err(wrong) => {
            app.options.log.event("not pulled", json!({"model": named.name, "message": wrong.message}));
            Step::Failed(wrong.into())
        }
    }
}
