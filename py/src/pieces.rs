//! Answers on their way to Python: one after the other as they come, or handed to a callback.

use std::sync::{Arc, Mutex};

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::task::{AbortHandle, JoinSet};

use crate::errors::failed;
use crate::open::{Open, here};
use crate::wait::{from_outside, wait};

/// Pieces that wait for their reader; beyond these the work for it stands still.
const WAITING: usize = 64;

/// Which request it belongs to, its status, its bytes.
pub(crate) type Piece = (usize, u16, Vec<u8>);

/// An iterator of `(index, status, bytes)`.
#[pyclass(frozen, module = "tern._tern")]
pub(crate) struct Pieces {
    pid: u32,
    open: Arc<Open>,
    task: AbortHandle,
    pieces: Mutex<Option<Receiver<Piece>>>,
}

/// A request whose pieces go to a callback.
#[pyclass(frozen, module = "tern._tern")]
pub(crate) struct Task {
    pid: u32,
    task: AbortHandle,
    _open: Arc<Open>,
}

impl Drop for Pieces {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[pymethods]
impl Pieces {
    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<(usize, u16, Bound<'py, PyBytes>)>> {
        here(self.pid)?;
        let taken = self.pieces.lock().map_err(failed)?.take();
        let Some(mut pieces) = taken else { return Ok(None) };
        let piece = wait(py, self.open.runtime(), pieces.recv());
        match piece {
            Ok(Some((index, status, bytes))) => {
                *self.pieces.lock().map_err(failed)? = Some(pieces);
                Ok(Some((index, status, PyBytes::new(py, &bytes))))
            }
            Ok(None) => Ok(None),
            Err(error) => {
                self.task.abort();
                Err(error)
            }
        }
    }

    /// Cancels what has not ended.
    fn close(&self) -> PyResult<()> {
        here(self.pid)?;
        self.task.abort();
        *self.pieces.lock().map_err(failed)? = None;
        Ok(())
    }
}

#[pymethods]
impl Task {
    /// Cancels it.
    fn cancel(&self) -> PyResult<()> {
        here(self.pid)?;
        self.task.abort();
        Ok(())
    }
}

/// Posts one body; each piece of its answer is one of the iterator's.
pub(crate) fn stream(open: Arc<Open>, path: String, body: Vec<u8>) -> Pieces {
    let local = open.local.clone();
    let (sender, pieces) = channel(WAITING);
    let task = open.runtime().spawn(async move {
        let mut answer = local.post(&path, body).await;
        let status = answer.status();
        while let Some(piece) = answer.next().await {
            if sender.send((0, status, piece.to_vec())).await.is_err() {
                return;
            }
        }
    });
    new(open, task.abort_handle(), pieces)
}

/// Posts many bodies, at most so many at a time; each whole answer is one of the iterator's, as they end.
pub(crate) fn many(open: Arc<Open>, path: String, bodies: Vec<Vec<u8>>, most: usize) -> Pieces {
    let local = open.local.clone();
    let (sender, pieces) = channel(WAITING);
    let task = open.runtime().spawn(async move {
        let mut running = JoinSet::new();
        let mut bodies = bodies.into_iter().enumerate();
        loop {
            while running.len() < most
                && let Some((index, body)) = bodies.next()
            {
                let (local, path) = (local.clone(), path.clone());
                running.spawn(async move {
                    let answer = local.post(&path, body).await;
                    (index, answer.status(), answer.whole().await)
                });
            }
            // With none left, or its reader gone, all has ended; what still runs is cancelled with the set.
            let Some(Ok(piece)) = running.join_next().await else { return };
            if sender.send(piece).await.is_err() {
                return;
            }
        }
    });
    new(open, task.abort_handle(), pieces)
}

/// Posts one body; `callback(status, bytes)` gets each piece of its answer, and at its end `callback(status, None)`.
pub(crate) fn call(open: Arc<Open>, path: String, body: Vec<u8>, callback: Py<PyAny>) -> Task {
    let local = open.local.clone();
    let task = open.runtime().spawn(async move {
        let mut answer = local.post(&path, body).await;
        let status = answer.status();
        let callback = Arc::new(callback);
        loop {
            let piece = answer.next().await;
            let (ended, callback) = (piece.is_none(), callback.clone());
            let tell = move || {
                // There is nobody to tell when the interpreter is ending.
                from_outside(|py| {
                    let bytes = piece.as_ref().map(|piece| PyBytes::new(py, piece));
                    callback.call1(py, (status, bytes)).is_ok()
                })
            };
            let told = tokio::task::spawn_blocking(tell).await;
            if ended || !matches!(told, Ok(Some(true))) {
                return;
            }
        }
    });
    Task { pid: std::process::id(), task: task.abort_handle(), _open: open }
}

fn new(open: Arc<Open>, task: AbortHandle, pieces: Receiver<Piece>) -> Pieces {
    Pieces { pid: std::process::id(), open, task, pieces: Mutex::new(Some(pieces)) }
}
