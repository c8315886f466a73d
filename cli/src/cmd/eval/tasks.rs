//! `tern eval tasks`: public test sets, put to a model and graded.

mod log;
mod show;

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use serde_json::{Value, json};
use tern::Model;
use tern_eval::Scorer;
use tern_eval::tasks::{self, Asker, Task};

use super::{Common, hash};
use crate::failure::{Failure, Outcome};
use crate::progress::Bar;
use crate::sampling::at_least_one;
use crate::signal;
use crate::terminal;
use log::Log;

const EXAMPLES: &str = "\
A task is the name of a built-in one (--list) or a JSON file of your own (docs/eval.md). Its items are JSON lines on your \
disk, in the directory of --data or beside the task's file.

Examples:
  tern eval tasks --list
  tern eval tasks model.gguf arc_easy piqa --data eval/
  tern eval tasks model.gguf my_task.json --log-items logs/ --resume --json";

/// Accuracy in tasks, on items from local files
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Tasks {
    /// The model: a file, a directory, or `story` (built in)
    #[arg(required_unless_present = "list")]
    model: Option<PathBuf>,
    /// Tasks: names, or files that define one
    #[arg(value_name = "TASK", required_unless_present = "list")]
    tasks: Vec<PathBuf>,
    /// List the built-in tasks and the files that they read
    #[arg(long)]
    list: bool,
    /// The directory with the files of items
    #[arg(long, value_name = "DIR", default_value = ".")]
    data: PathBuf,
    /// Ask the first N items of each task only
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = at_least_one)]
    limit: Option<usize>,
    /// Items worked on side by side; more need more memory
    #[arg(long, value_name = "N", default_value = "16", allow_negative_numbers = true, value_parser = at_least_one)]
    batch: usize,
    /// Write each item's answer and grades to DIR/TASK.jsonl
    #[arg(long, value_name = "DIR")]
    log_items: Option<PathBuf>,
    /// Go on where the logs of --log-items end
    #[arg(long, requires = "log_items")]
    resume: bool,
    /// Leave items out that cannot be asked, and say how many, instead of stopping
    #[arg(long)]
    skip_bad: bool,
    #[command(flatten)]
    common: Common,
}

/// A task with its items.
struct Loaded {
    task: Task,
    data: PathBuf,
    data_sha256: String,
    read: tasks::Read,
}

/// What came out of a task.
struct Done {
    loaded: Loaded,
    done: tasks::Done,
    seconds: f64,
}

impl Tasks {
    pub(super) fn run(self) -> Outcome {
        if self.list {
            return show::list();
        }
        signal::listen()?;
        let path = self.model.as_deref().expect("clap asks for it");
        // Everything that can be wrong with items is said before a model is loaded.
        let mut loaded = Vec::new();
        for task in &self.tasks {
            loaded.push(self.load(task)?);
        }
        let told = self.common.json || self.log_items.is_some();
        let hash = told.then(|| hash::Later::of(path));
        let opened = self.common.open(path)?;
        let model = &opened.model;
        for task in &mut loaded {
            self.fit(model, task)?;
        }
        let hash = hash.and_then(hash::Later::get);
        let mut scorer = Scorer::new(model, self.batch);
        let mut done = Vec::new();
        for task in loaded {
            done.push(self.ask(model, &mut scorer, task, path, hash.as_deref())?);
        }
        if self.common.json {
            let tasks: Vec<Value> = done.iter().map(show::json).collect();
            return terminal::print_json(&json!({
                "tasks": tasks,
                "settings": super::settings(model),
                "model": path.display().to_string(),
                "model_sha256": hash,
            }));
        }
        terminal::print(&show::table(&done))
    }

    /// A task and its items.
    fn load(&self, word: &Path) -> Outcome<Loaded> {
        let found = Task::find(word).map_err(Failure::failed)?;
        let (task, beside) = found.ok_or_else(|| {
            Failure::misused(format!("no task is called `{}`", word.display()))
                .hint("`tern eval tasks --list` lists them; a task of your own is a .json file")
        })?;
        let folders: Vec<&Path> =
            [Some(&self.data), beside.as_ref()].into_iter().flatten().map(|p| &**p).collect();
        let data = task.items(&folders).map_err(|what| {
            Failure::failed(what)
                .hint("--data DIR says where the files of items are; `tern eval tasks --list` names them")
        })?;
        let text = super::ppl::read(&data)?;
        let mut read = tasks::read(&task, &text);
        if let Some(limit) = self.limit {
            read.limit(limit);
        }
        let loaded = Loaded { task, data_sha256: hash::hex(text.as_bytes()), data, read };
        self.check(&loaded)?;
        if loaded.read.questions.is_empty() {
            return Err(Failure::failed(format!(
                "{}: no item of {} is in it",
                loaded.data.display(),
                loaded.task.name
            )));
        }
        Ok(loaded)
    }

    /// Bad items end the run, or are told and left out.
    fn check(&self, loaded: &Loaded) -> Outcome {
        const SHOWN: usize = 20;
        let path = loaded.data.display();
        let line = |(line, what): &(usize, String)| format!("{path}: line {line}: {what}");
        let told: Vec<String> = loaded.read.bad.iter().take(SHOWN).map(line).collect();
        if told.is_empty() {
            return Ok(());
        }
        if self.skip_bad {
            told.iter().for_each(|line| terminal::warning(line));
            return Ok(());
        }
        told.iter().for_each(|line| terminal::error(line));
        let count = loaded.read.bad.len();
        Err(Failure::failed(format!("{}: {count} items cannot be asked", loaded.task.name))
            .hint("--skip-bad leaves them out"))
    }

    /// Finds items that are too long for the model.
    fn fit(&self, model: &Model, loaded: &mut Loaded) -> Outcome {
        let already = loaded.read.bad.len();
        Asker::new(model, &loaded.task)?.fit(&mut loaded.read);
        if loaded.read.bad.len() > already {
            self.check(loaded)?;
        }
        if loaded.read.questions.is_empty() {
            return Err(Failure::failed(format!(
                "no item of {} can be asked of this model",
                loaded.task.name
            )));
        }
        Ok(())
    }

    fn ask(
        &self,
        model: &Model,
        scorer: &mut Scorer,
        loaded: Loaded,
        path: &Path,
        hash: Option<&str>,
    ) -> Outcome<Done> {
        let asker = Asker::new(model, &loaded.task)?;
        let mut settings = super::settings(model);
        // The others change no answer.
        if let Some(settings) = settings.as_object_mut() {
            settings.retain(|key, _| ["head", "kv", "activations"].contains(&key.as_str()));
        }
        let header = json!({
            "tern_eval": 1,
            "task": loaded.task,
            "data_sha256": loaded.data_sha256,
            "model": path.display().to_string(),
            "model_sha256": hash,
            "settings": settings,
        });
        let mut log = match &self.log_items {
            None => Log::none(),
            Some(dir) => Log::open(dir, &loaded.task.name, &header, self.resume)?,
        };
        let (known, start) = (log.take(), Instant::now());
        let mut bar = Bar::steps();
        let questions = &loaded.read.questions;
        let done = asker.run(scorer, questions, known, |count, new| {
            bar.step(count, questions.len(), loaded.task.name.clone());
            new.iter().try_for_each(|record| log.write(record))
        });
        bar.clear();
        Ok(Done { done: done?, seconds: start.elapsed().as_secs_f64(), loaded })
    }
}
