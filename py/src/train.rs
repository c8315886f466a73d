//! `tern.train`: a run on a thread of its own, which tells what happens; what is told reaches Python on its own thread.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use pyo3::prelude::*;
use serde_json::json;
use tern_train::config::Run;
use tern_train::machines::leader::Leader;
use tern_train::machines::worker::Worker;
use tern_train::run::{End, Event};

use crate::errors::{failed, wrong};
use crate::wait::Stop;

fn told(error: tern_train::Error) -> PyErr {
    match error {
        tern_train::Error::Input(what) => wrong(what),
        other => failed(other),
    }
}

/// An event as JSON; `None` for what is told to people only.
fn event(event: Event, every: u64, steps: u64) -> Option<String> {
    let value = match event {
        Event::Note(text) => json!({"kind": "note", "text": text}),
        Event::Warning(text) => json!({"kind": "warning", "text": text}),
        Event::Begin { step, steps, params, threads, .. } => {
            json!({"kind": "begin", "step": step, "steps": steps, "params": params, "threads": threads})
        }
        Event::Step(step) if step.step.is_multiple_of(every) || step.step == steps => json!({
            "kind": "step", "step": step.step, "tokens": step.tokens, "epoch": step.epoch, "loss": step.loss,
            "rate": step.rate, "gradient": step.gradient, "tokens_per_second": step.tokens_per_second,
            "seconds": step.seconds,
        }),
        Event::Step(_) => return None,
        Event::Validation(found) => json!({
            "kind": "validation", "step": found.step, "loss": found.loss, "bits_per_char": found.bits_per_char,
        }),
        Event::Evaluation(found) => json!({
            "kind": "evaluation", "step": found.step, "task": found.task, "metric": found.metric, "value": found.value,
            "error": found.error, "items": found.items,
        }),
        Event::Sample { step, text } => json!({"kind": "sample", "step": step, "text": text}),
        Event::Saved(path) => json!({"kind": "saved", "path": path.to_string_lossy()}),
    };
    Some(value.to_string())
}

/// Does the work on a thread of its own, which tells lines; each reaches the callback here, on Python's. Where that returns
/// `True` or raises, or Ctrl-C comes, the work is told to stop.
fn attended<T: Send + 'static>(
    py: Python<'_>,
    callback: Option<&Py<PyAny>>,
    work: impl FnOnce(&Stop, &Sender<String>) -> tern_train::Result<T> + Send + 'static,
) -> PyResult<T> {
    let (stop, (sender, mut events)) = (Stop::default(), channel());
    let asked = stop.clone();
    let thread =
        std::thread::Builder::new().name("tern-train".to_owned()).spawn(move || work(&asked, &sender));
    let thread = thread.map_err(failed)?;
    let mut raised = None;
    loop {
        let found;
        (found, events) = py.detach(move || (events.recv_timeout(Duration::from_millis(50)), events));
        let heard = match found {
            Ok(line) => match callback {
                Some(callback) if raised.is_none() => {
                    callback.call1(py, (line,)).and_then(|answer| answer.is_truthy(py))
                }
                _ => Ok(false),
            },
            Err(RecvTimeoutError::Timeout) => py.check_signals().map(|()| false),
            Err(RecvTimeoutError::Disconnected) => break,
        };
        match heard {
            Ok(false) => {}
            Ok(true) => stop.tell(),
            Err(error) => {
                stop.tell();
                raised = raised.or(Some(error));
            }
        }
    }
    let ended = py.detach(|| thread.join());
    if let Some(error) = raised {
        return Err(error);
    }
    ended.map_err(|_| failed("internal error while training"))?.map_err(told)
}

/// Trains until all steps are done, the callback returns `True` or an exception comes, after which it has saved. Gives the
/// path of the model or of the checkpoint, and whether it is done. With `listen`, workers are let in there; where that is, is
/// told first.
#[pyfunction]
#[pyo3(signature = (path, text, folder, flags, callback=None, listen=None, token=String::new()))]
#[expect(clippy::too_many_arguments, reason = "the arguments of a Python function")]
pub(crate) fn train(
    py: Python<'_>,
    path: Option<PathBuf>,
    text: Option<String>,
    folder: PathBuf,
    flags: Vec<(String, String)>,
    callback: Option<Py<PyAny>>,
    listen: Option<String>,
    token: String,
) -> PyResult<(String, bool)> {
    let run = match (path, text) {
        (Some(path), None) => Run::open(&path, &flags),
        (None, Some(text)) => Run::parse(&text, &flags, &folder),
        _ => return Err(wrong("expected a file of a run or its text")),
    };
    let run = run.map_err(told)?;
    let address =
        listen.map(|text| text.parse::<SocketAddr>().map_err(|e| wrong(format!("listen: {text}: {e}"))));
    let mut leader = match address.transpose()? {
        Some(address) => Some(py.detach(|| Leader::listen(address, &token)).map_err(told)?),
        None => None,
    };
    let (every, steps) = (run.log_every.max(1), run.steps);
    let ended = attended(py, callback.as_ref(), move |stop, sender| {
        if let Some(leader) = &leader {
            let line = json!({"kind": "listening", "address": leader.address().to_string()});
            let _ = sender.send(line.to_string());
        }
        tern_train::run::lead(&run, leader.as_mut(), &|| stop.is_told(), &mut |found| {
            if let Some(line) = event(found, every, steps) {
                let _ = sender.send(line);
            }
        })
    })?;
    let (path, done) = match ended {
        End::Done(path) => (path, true),
        End::Stopped(path) => (path, false),
    };
    Ok((path.to_string_lossy().into_owned(), done))
}

/// Computes batches for a run that listens elsewhere, until it is done; gives their number.
#[pyfunction]
#[pyo3(signature = (address, token, threads, patience))]
pub(crate) fn train_worker(
    py: Python<'_>,
    address: String,
    token: String,
    threads: usize,
    patience: f64,
) -> PyResult<u64> {
    let patience = Duration::try_from_secs_f64(patience).map_err(|e| wrong(format!("patience: {e}")))?;
    let worker = Worker { address, token, threads, patience };
    attended(py, None, move |stop, _| worker.run(&|| stop.is_told(), &mut |_| {}))
}
