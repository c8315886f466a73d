//! Waiting for work of other threads: the interpreter's lock is released meanwhile, and its signals are heard.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::errors::failed;

/// How often Python is asked for signals.
const TICK: Duration = Duration::from_millis(50);

/// Waits for what a future gives; an exception of a signal's handler (Ctrl-C) ends the waiting.
pub(crate) fn wait<T: Send>(
    py: Python<'_>,
    runtime: &Handle,
    future: impl Future<Output = T> + Send,
) -> PyResult<T> {
    let mut future = Box::pin(future);
    loop {
        let step = || runtime.block_on(async { timeout(TICK, future.as_mut()).await.ok() });
        if let Some(done) = py.detach(step) {
            return Ok(done);
        }
        py.check_signals()?;
    }
}

/// Whether somebody wants a piece of work to end.
#[derive(Clone, Default)]
pub(crate) struct Stop(Arc<AtomicBool>);

impl Stop {
    pub(crate) fn is_told(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn tell(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Tells the work to stop when it goes.
struct Told(Stop);

impl Drop for Told {
    fn drop(&mut self) {
        self.0.tell();
    }
}

/// Does work that takes its time on another thread. It looks at its [`Stop`] now and then; a panic in it is an exception.
pub(crate) fn work<T: Send + 'static>(
    py: Python<'_>,
    runtime: &Handle,
    job: impl FnOnce(&Stop) -> PyResult<T> + Send + 'static,
) -> PyResult<T> {
    let stop = Stop::default();
    let told = Told(stop.clone());
    let task = runtime.spawn_blocking(move || job(&stop));
    let done = wait(py, runtime, task)?;
    drop(told);
    done.unwrap_or_else(|_| Err(failed("internal error: please report it")))
}

/// Threads of ours that call Python, or wait for its lock to do so.
static CALLING: AtomicUsize = AtomicUsize::new(0);
static LEAVING: AtomicBool = AtomicBool::new(false);
/// How long the interpreter's end waits for them.
const LAST: Duration = Duration::from_secs(10);

/// Calls Python from a thread of ours; `None` where the interpreter is about to end. An interpreter that ends kills threads that
/// wait for its lock, and with them, since they are not its own, the process.
pub(crate) fn from_outside<T>(job: impl FnOnce(Python<'_>) -> T) -> Option<T> {
    struct Calling;
    impl Drop for Calling {
        fn drop(&mut self) {
            CALLING.fetch_sub(1, Ordering::SeqCst);
        }
    }
    CALLING.fetch_add(1, Ordering::SeqCst);
    let _calling = Calling;
    if LEAVING.load(Ordering::SeqCst) { None } else { Python::try_attach(job) }
}

/// Lets the threads that call Python come to their end, and no other begin: before the interpreter ends.
#[pyfunction]
pub(crate) fn leave(py: Python<'_>) {
    py.detach(|| {
        LEAVING.store(true, Ordering::SeqCst);
        let begin = Instant::now();
        while CALLING.load(Ordering::SeqCst) > 0 && begin.elapsed() < LAST {
            std::thread::sleep(Duration::from_millis(1));
        }
    });
}
