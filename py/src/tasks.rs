//! `tern.eval.tasks`: the tasks of `tern eval tasks`, by the same functions.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

use pyo3::prelude::*;
use serde_json::{Value, json};
use tern::Model;
use tern_eval::Scorer;
use tern_eval::tasks::{self, Asker, Done, Record, Task};

use crate::engine::Engine;
use crate::errors::{engine, failed, wrong};
use crate::wait::{Stop, from_outside, work};

/// Bad items that an error names.
const SHOWN: usize = 3;

/// A task with its items.
struct Loaded {
    task: Task,
    data: PathBuf,
    read: tasks::Read,
}

/// What ends a run: the model's error or Python's.
enum Ended {
    Engine(tern::Error),
    Python(PyErr),
}

impl From<tern::Error> for Ended {
    fn from(error: tern::Error) -> Self {
        Self::Engine(error)
    }
}

/// A task by a word or from its text, and its items from its file.
fn load(word: &str, is_text: bool, folder: &Path, limit: Option<usize>) -> PyResult<Loaded> {
    let (task, beside) = match is_text {
        true => (Task::parse(word).map_err(|what| wrong(format!("a task: {what}")))?, None),
        false => Task::find(Path::new(word)).map_err(wrong)?.ok_or_else(|| {
            wrong(format!("no task is called `{}`; a task of your own is a .json file", word.escape_debug()))
        })?,
    };
    let folders: Vec<&Path> = [Some(folder), beside.as_deref()].into_iter().flatten().collect();
    let data = task.items(&folders).map_err(wrong)?;
    let (mut file, _) = tern_train::data::open(&data).map_err(wrong)?;
    let mut text = String::new();
    file.read_to_string(&mut text).map_err(|error| wrong(format!("{}: {error}", data.display())))?;
    let mut read = tasks::read(&task, &text);
    if let Some(limit) = limit {
        read.limit(limit);
    }
    Ok(Loaded { task, data, read })
}

/// Bad items are an error, unless they are left out on purpose; and so is it if nothing is left.
fn check(loaded: &Loaded, skip_bad: bool) -> PyResult<()> {
    let Loaded { task, data, read } = loaded;
    let bad = &read.bad;
    if !skip_bad && !bad.is_empty() {
        let line = |(line, what): &(usize, String)| format!("line {line}: {what}");
        let mut told: Vec<String> = bad.iter().take(SHOWN).map(line).collect();
        told.extend((bad.len() > SHOWN).then(|| "...".to_owned()));
        let what = format!("{} items of {} cannot be asked; skip_bad leaves them out", bad.len(), task.name);
        return Err(wrong(format!("{}: {}; {what}", data.display(), told.join("; "))));
    }
    match read.questions.is_empty() {
        true => Err(wrong(format!("{}: no item of {} can be asked", data.display(), task.name))),
        false => Ok(()),
    }
}

/// Puts a task's items; `each` hears how many are done.
fn run(
    model: &Model,
    loaded: &Loaded,
    scorer: &mut Scorer,
    each: &dyn Fn(usize, usize) -> PyResult<()>,
) -> PyResult<Value> {
    let Loaded { task, data, read } = loaded;
    let start = Instant::now();
    let asker = Asker::new(model, task).map_err(engine)?;
    let all = read.questions.len();
    let told = |done, _: &[Record]| each(done, all).map_err(Ended::Python);
    let Done { records, tally, rows, .. } =
        asker.run(scorer, &read.questions, Vec::new(), told).map_err(|ended| match ended {
            Ended::Engine(error) => engine(error),
            Ended::Python(error) => error,
        })?;
    Ok(json!({
        "task": task.name,
        "metric": task.metric,
        "figures": tally.totals().into_iter().map(|(name, total)| (name.to_owned(), json!(total)))
            .collect::<serde_json::Map<_, _>>(),
        "items": records,
        "bad": read.bad,
        "data": data.display().to_string(),
        "seconds": start.elapsed().as_secs_f64(),
        "tokens": rows,
    }))
}

#[pymethods]
impl Engine {
    /// Puts tasks, each a word (a name, a file) or with `true` the text of a definition; what came out of them, as JSON.
    /// `callback(task, done, all)` is called before and after every batch.
    #[pyo3(signature = (tasks, folder, limit, batch, skip_bad, callback=None))]
    #[expect(clippy::too_many_arguments, reason = "keywords")]
    fn tasks(
        &self,
        py: Python<'_>,
        tasks: Vec<(String, bool)>,
        folder: PathBuf,
        limit: Option<usize>,
        batch: usize,
        skip_bad: bool,
        callback: Option<Py<PyAny>>,
    ) -> PyResult<String> {
        let open = self.opened()?;
        let model = open.model().clone();
        model.writes().map_err(engine)?;
        if batch == 0 || limit == Some(0) {
            return Err(wrong("batch and limit: expected at least 1"));
        }
        let job = move |stop: &Stop| {
            // Everything that can be wrong with items is said before the first is asked.
            let mut all = Vec::new();
            for (word, is_text) in &tasks {
                let mut loaded = load(word, *is_text, &folder, limit)?;
                Asker::new(&model, &loaded.task).map_err(engine)?.fit(&mut loaded.read);
                check(&loaded, skip_bad)?;
                all.push(loaded);
            }
            let most = all.iter().map(|loaded| loaded.read.questions.len()).max().unwrap_or(1);
            let mut scorer = Scorer::new(&model, batch.min(most));
            let mut done = Vec::new();
            for loaded in &all {
                let each = |done: usize, of: usize| {
                    if stop.is_told() {
                        return Err(failed("stopped"));
                    }
                    let Some(callback) = &callback else { return Ok(()) };
                    let called = from_outside(|py| callback.call1(py, (&loaded.task.name, done, of)));
                    called.map_or(Ok(()), |called| called.map(|_| ()))
                };
                done.push(run(&model, loaded, &mut scorer, &each)?);
            }
            Ok(Value::Array(done).to_string())
        };
        work(py, open.runtime(), job)
    }
}
