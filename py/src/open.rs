//! What a loaded model keeps running, and in which process it may be used.

use std::sync::Arc;

use pyo3::PyResult;
use tern::Model;
use tern_serve::Local;
use tokio::runtime::{Handle, Runtime};

use crate::errors::failed;

/// What is there of a model until it is closed and all calls have ended that ran then.
pub(crate) struct Open {
    runtime: Option<Runtime>,
    pub(crate) local: Local,
    pub(crate) parallel: usize,
}

impl Open {
    pub(crate) fn new(runtime: Runtime, local: Local, parallel: usize) -> Self {
        Self { runtime: Some(runtime), local, parallel }
    }

    pub(crate) fn model(&self) -> &Arc<Model> {
        self.local.model()
    }

    pub(crate) fn runtime(&self) -> &Handle {
        self.runtime.as_ref().expect("it is there until this is dropped").handle()
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.local.end();
        // A text that is just being prepared is not worth waiting for.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Refuses to go on in a process that was forked off: none of the model's threads is there.
pub(crate) fn here(pid: u32) -> PyResult<()> {
    match std::process::id() == pid {
        true => Ok(()),
        false => Err(failed(
            "the model was loaded before this process was forked, and its threads are not here: load it in the process \
             that uses it, or start processes by `spawn`",
        )),
    }
}
