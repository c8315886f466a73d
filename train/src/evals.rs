//! Tasks that are put to a model while it is trained: those of `tern eval tasks`, by the same functions.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use tern::{Adapter, Model};
use tern_eval::Scorer;
use tern_eval::tasks::{self, Asker, Task};

use crate::config::Run;
use crate::data;
use crate::error::{Error, Result};
use crate::metrics::Evaluation;

/// Questions that are put together.
const TOGETHER: usize = 16;

/// The tasks of a run, with their items.
#[derive(Debug)]
pub(crate) struct Tasks(Vec<(Task, tasks::Read)>);

impl Tasks {
    /// Reads them all; what is wrong with one is said before anything is trained.
    pub(crate) fn open(run: &Run) -> Result<Self> {
        let wrong = |what: String| Error::key("eval_tasks", what);
        let mut all: Vec<(Task, tasks::Read)> = Vec::new();
        for word in &run.eval_tasks {
            let found = Task::find(Path::new(word)).map_err(wrong)?;
            let (task, beside) = found.ok_or_else(|| {
                wrong(format!("no task is called `{word}`; `tern eval tasks --list` lists them, and one of your own is a .json file"))
            })?;
            if all.iter().any(|(other, _)| other.name == task.name) {
                return Err(wrong(format!("two are called `{}`", task.name)));
            }
            let folders: Vec<&Path> =
                [run.eval_data.as_deref(), beside.as_deref()].into_iter().flatten().collect();
            let path = task.items(&folders).map_err(|what| Error::key("eval_data", what))?;
            let (mut file, _) = data::open(&path)?;
            let mut text = String::new();
            file.read_to_string(&mut text).map_err(|e| Error::io(&path, e))?;
            let mut read = tasks::read(&task, &text);
            read.limit(run.eval_items);
            if let Some((line, what)) = read.bad.first() {
                return Err(Error::line(&path, *line as u64, what.clone()));
            }
            if read.questions.is_empty() {
                return Err(Error::file(&path, format!("expected items of {}, found none", task.name)));
            }
            all.push((task, read));
        }
        Ok(Self(all))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one is called that.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(task, _)| task.name == name)
    }

    /// What the model of step `step` comes to. Items that are too long for it are left out.
    pub(crate) fn put(
        &mut self,
        step: u64,
        model: &Model,
        adapter: Option<Arc<Adapter>>,
    ) -> Result<Vec<Evaluation>> {
        let mut found = Vec::new();
        for (task, read) in &mut self.0 {
            let asker = Asker::new(model, task)?;
            asker.fit(read);
            if read.questions.is_empty() {
                let what = format!("{}: its items are too long for the model", task.name);
                return Err(Error::key("eval_tasks", what));
            }
            let slots = TOGETHER.min(read.questions.len());
            let mut scorer = Scorer::new(model, slots).with_adapter(adapter.clone());
            let done = asker.run(&mut scorer, &read.questions, Vec::new(), |_, _| Ok::<_, Error>(()))?;
            let totals = done.tally.totals();
            let total = totals.iter().find(|(name, _)| *name == task.metric).map(|(_, total)| total);
            let total = total.expect("a task has the metric that it names");
            found.push(Evaluation {
                step,
                task: task.name.clone(),
                metric: task.metric.clone(),
                value: total.value,
                error: total.error,
                items: total.count as u64,
            });
        }
        Ok(found)
    }
}
