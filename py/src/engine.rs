//! A model that answers: loaded once, served in this process, closed once.

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use tern::file::{self, OpenOptions};
use tern::{Drafts, Head, KvFormat, Model, Options, Packing, Pooling, Rounding, STORY, Zeros};
use tern_serve::{Load, Local, Served};
use tokio::runtime::Builder;

use crate::errors::{engine, failed, wrong};
use crate::open::{Open, here};
use crate::pieces::{Pieces, Task, call, many, stream};
use crate::wait::wait;

/// A request may wait for as long as its caller does.
const LONG: Duration = Duration::from_secs(100 * 365 * 86400);
/// Requests that may wait: the caller's memory bounds them, not this.
const QUEUE: usize = 1 << 20;
/// Threads that read requests and write answers; the model's own do the work.
const THREADS: usize = 2;

/// A loaded model.
#[pyclass(frozen, module = "tern._tern")]
pub(crate) struct Engine {
    pid: u32,
    open: RwLock<Option<Arc<Open>>>,
}

fn named<T>(
    what: &str,
    name: Option<&str>,
    find: impl Fn(&str) -> Option<T>,
    names: &[&str],
) -> PyResult<Option<T>> {
    let Some(name) = name else { return Ok(None) };
    let found = find(name);
    found
        .map(Some)
        .ok_or_else(|| wrong(format!("{what} `{}`: expected {}", name.escape_debug(), names.join(", "))))
}

impl Engine {
    /// What is there, while it is open.
    pub(crate) fn opened(&self) -> PyResult<Arc<Open>> {
        here(self.pid)?;
        let open = self.open.read().map_err(failed)?;
        open.clone().ok_or_else(|| failed("the model is closed"))
    }
}

#[pymethods]
impl Engine {
    #[new]
    #[pyo3(signature = (path, *, name, threads=None, context=None, parallel=16, kv=None, kv_memory=None, cpu=None, packing=None,
        head=None, activations=None, zeros=None, pooling=None, copy=false, floats=false, i2s_arm=false, draft=None, draft_tokens=Drafts::MOST,
        adapters=Vec::new(), grammar_process=Vec::new()))]
    #[expect(clippy::too_many_arguments, reason = "keywords")]
    fn new(
        py: Python<'_>,
        path: PathBuf,
        name: String,
        threads: Option<usize>,
        context: Option<usize>,
        parallel: usize,
        kv: Option<&str>,
        kv_memory: Option<u64>,
        cpu: Option<String>,
        packing: Option<&str>,
        head: Option<&str>,
        activations: Option<&str>,
        zeros: Option<&str>,
        pooling: Option<&str>,
        copy: bool,
        floats: bool,
        i2s_arm: bool,
        draft: Option<PathBuf>,
        draft_tokens: usize,
        adapters: Vec<(String, PathBuf, f32)>,
        grammar_process: Vec<String>,
    ) -> PyResult<Self> {
        if context == Some(0) || !(1..=4096).contains(&parallel) {
            return Err(wrong("expected a context of at least 1 token, and 1 to 4096 texts in parallel"));
        }
        if draft_tokens > Drafts::MOST {
            return Err(wrong(format!("draft_tokens {draft_tokens}: expected 0 to {}", Drafts::MOST)));
        }
        let options = Options {
            cpu,
            threads,
            packing: named("packing", packing, Packing::from_name, &Packing::ALL.map(Packing::name))?,
            head: named("head", head, Head::from_name, &Head::CHOICES.map(Head::name))?.unwrap_or_default(),
            kv: named("kv", kv, KvFormat::from_name, &KvFormat::NAMES)?.unwrap_or_default(),
            activations: named(
                "activations",
                activations,
                Rounding::from_name,
                &Rounding::ALL.map(Rounding::name),
            )?,
            zeros: named("zeros", zeros, Zeros::from_name, &Zeros::ALL.map(Zeros::name))?.unwrap_or_default(),
            floats,
            i2s_arm,
            copy,
        };
        let pooling = self::pooling(pooling)?;
        let serve = tern_serve::Options {
            parallel,
            queue: QUEUE,
            context,
            pooling,
            kv_memory,
            page: false,
            request_time: LONG,
            drafts: Drafts { tokens: draft_tokens, always: false },
            draft: draft.map(|path| guesser(path, &options)),
            adapters,
            try_grammars: start(grammar_process),
            ..tern_serve::Options::default()
        };
        let runtime = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("tern-python")
            .enable_time()
            .build()
            .map_err(failed)?;
        let load = loader(path, options);
        let started = wait(py, runtime.handle(), Local::start(Served::new(name, load), serve));
        let local = match started {
            Ok(Ok(local)) => local,
            Ok(Err(error)) => {
                runtime.shutdown_background();
                return Err(match error {
                    tern_serve::Error::Model(error) => engine(error),
                    other => wrong(other),
                });
            }
            Err(signal) => {
                runtime.shutdown_background();
                return Err(signal);
            }
        };
        let open = Open::new(runtime, local, parallel);
        Ok(Self { pid: std::process::id(), open: RwLock::new(Some(Arc::new(open))) })
    }

    /// Posts a body of JSON to a path of the server; the status and the whole answer.
    fn ask<'py>(&self, py: Python<'py>, path: String, body: Vec<u8>) -> PyResult<(u16, Bound<'py, PyBytes>)> {
        let open = self.opened()?;
        let post = async {
            let answer = open.local.post(&path, body).await;
            (answer.status(), answer.whole().await)
        };
        let (status, bytes) = wait(py, open.runtime(), post)?;
        Ok((status, PyBytes::new(py, &bytes)))
    }

    /// Posts one body; an iterator of `(0, status, bytes)`, the pieces of its answer.
    fn stream(&self, path: String, body: Vec<u8>) -> PyResult<Pieces> {
        Ok(stream(self.opened()?, path, body))
    }

    /// Posts many bodies; an iterator of `(index, status, bytes)`, whole answers as they end.
    fn many(&self, path: String, bodies: Vec<Vec<u8>>) -> PyResult<Pieces> {
        let open = self.opened()?;
        // Some more than run, so that the next ones are prepared when places become free.
        let most = 4 * open.parallel;
        Ok(many(open, path, bodies, most))
    }

    /// Posts one body; `callback(status, bytes or None)` gets the pieces of its answer on other threads.
    fn call(&self, path: String, body: Vec<u8>, callback: Py<PyAny>) -> PyResult<Task> {
        Ok(call(self.opened()?, path, body, callback))
    }

    /// Ends what runs and lets go of the model. Closed again, nothing happens.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        here(self.pid)?;
        let open = self.open.write().map_err(failed)?.take();
        py.detach(|| {
            if let Some(open) = &open {
                open.local.end();
            }
            drop(open);
        });
        Ok(())
    }
}

/// A pooling by its name.
pub(crate) fn pooling(name: Option<&str>) -> PyResult<Option<Pooling>> {
    named("pooling", name, Pooling::from_name, &Pooling::ALL.map(Pooling::name))
}

/// How a model is loaded.
fn loader(path: PathBuf, options: Options) -> Load {
    Arc::new(move || {
        let file = match path.as_os_str() == STORY {
            true => tern::story_file()?,
            false => file::open(&path, OpenOptions { i2s_arm: options.i2s_arm, copy: options.copy })?,
        };
        Model::from_file(&file, &options)
    })
}

/// The name of a model that guesses tokens ahead, and how it is loaded: on the same kind of processor, by one thread, because its
/// products are small.
fn guesser(path: PathBuf, options: &Options) -> (String, Load) {
    let options = Options { cpu: options.cpu.clone(), threads: Some(1), ..Options::default() };
    (path.display().to_string(), loader(path, options))
}

/// How the process is started that tries grammars.
fn start(words: Vec<String>) -> Option<tern_serve::Start> {
    let (program, rest) = words.split_first()?;
    let (program, rest) = (program.clone(), rest.to_vec());
    Some(Arc::new(move || {
        let mut command = Command::new(&program);
        command.args(&rest);
        command
    }))
}
