//! What lies where in a run's folder.

use std::path::PathBuf;

use crate::config::Run;

/// Where a run leaves its finished model.
pub(crate) const FINISHED: &str = "masters";

/// The finished model of a run.
pub fn finished(run: &Run) -> PathBuf {
    run.out.join(FINISHED)
}

/// Where a run leaves its finished adapter.
pub fn finished_adapter(run: &Run) -> PathBuf {
    run.out.join("adapter")
}

/// Where a run keeps the best of its checkpoints, if it looks for one.
pub(crate) fn best(run: &Run) -> PathBuf {
    run.out.join("best")
}

/// Where a run keeps its checkpoints.
pub fn checkpoints(run: &Run) -> PathBuf {
    run.out.join("checkpoints")
}
