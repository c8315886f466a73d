//! Early stopping: a run ends when what it is watched by has not become better for a while, and its best is what is exported.
//! The best has a checkpoint of its own, in a folder beside the others.

use std::path::PathBuf;

use crate::checkpoint::{self, State};
use crate::config::Run;
use crate::error::{Error, Result};
use crate::folder;

/// How long a run waits for a better figure.
#[derive(Debug)]
pub(crate) struct Patience {
    limit: u64,
    /// The task that is watched; the held-out loss without one.
    task: Option<String>,
    dir: PathBuf,
}

impl Patience {
    /// That of a run which holds documents out, or not. The best of steps that the run goes back behind is not its best.
    pub(crate) fn of(run: &Run, holds_out: bool, step: u64) -> Result<Self> {
        let (limit, dir) = (run.patience, folder::best(run));
        let task = (run.stop_by != "loss").then(|| run.stop_by.clone());
        if limit > 0 && task.is_none() && !(holds_out && run.validate_every > 0) {
            let what = "watches the held-out loss: `validation` and `validate_every` must be above 0";
            return Err(Error::key("patience", what));
        }
        for (of, path) in checkpoint::list(&dir) {
            if of > step {
                std::fs::remove_file(&path).map_err(|e| Error::io(&path, e))?;
            }
        }
        Ok(Self { limit, task, dir })
    }

    /// The name of the task that is watched.
    pub(crate) fn task(&self) -> Option<&str> {
        self.task.as_deref()
    }

    /// Whether the run has waited long enough.
    pub(crate) fn is_over(&self, state: &State) -> bool {
        self.limit > 0 && state.since >= self.limit
    }

    /// Takes a new figure in; a better one is kept with all numbers. Of losses the lower is better, of tasks the higher.
    pub(crate) fn see(&self, state: &mut State, figure: f64, numbers: [&[f32]; 3]) -> Result<()> {
        let better = |best: f64| if self.task.is_some() { figure > best } else { figure < best };
        if state.best.is_some_and(|best| !better(best)) {
            state.since += 1;
            return Ok(());
        }
        (state.best, state.since) = (Some(figure), 0);
        if self.limit > 0 {
            checkpoint::save(&self.dir, state, numbers, 1)?;
        }
        Ok(())
    }

    /// Reads the best into the buffers, if there is one; the step that it is of.
    pub(crate) fn best(&self, numbers: checkpoint::Buffers) -> Result<Option<u64>> {
        if self.limit == 0 {
            return Ok(None);
        }
        let state = checkpoint::latest(&self.dir, numbers, &mut |_| {})?;
        Ok(state.map(|state| state.step))
    }
}
