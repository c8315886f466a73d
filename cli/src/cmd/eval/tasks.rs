//! `tern eval tasks`: public test sets, put to a model and graded.

mod ask;
mod log;
mod show;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use serde_json::{Value, json};
use tern::Model;
use tern_eval::Scorer;
use tern_eval::tasks::{self, Question, Task};

use super::{Common, hash};
use crate::failure::{Failure, Outcome};
use crate::progress::Bar;
use crate::sampling::at_least_one;
use crate::signal;
use crate::terminal;
use ask::Asker;
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
    tasks: Vec<String>,
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
    questions: Vec<Question>,
    bad: Vec<(usize, String)>,
}

/// What came out of a task.
struct Done {
    loaded: Loaded,
    tally: tasks::Tally,
    seconds: f64,
    rows: u64,
    resumed: usize,
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
    fn load(&self, word: &str) -> Outcome<Loaded> {
        let (task, beside) = definition(word)?;
        let inside = |dir: &Path| {
            let names = ["", ".zst", ".gz"].map(|packed| dir.join(format!("{}{packed}", task.file)));
            names.into_iter().find(|path| path.is_file())
        };
        let data = inside(&self.data).or_else(|| beside.as_deref().and_then(inside)).ok_or_else(|| {
            let path = self.data.join(&task.file);
            Failure::failed(format!("{}: no such file of items for {}", path.display(), task.name))
                .hint("--data DIR says where the files of items are; `tern eval tasks --list` names them")
        })?;
        let text = super::ppl::read(&data)?;
        let mut read = tasks::read(&task, &text);
        read.questions.truncate(self.limit.unwrap_or(read.questions.len()));
        if let (Some(_), Some(last)) = (self.limit, read.questions.last().map(|question| question.line)) {
            read.bad.retain(|(line, _)| *line < last);
        }
        let loaded = Loaded {
            task,
            data_sha256: hash::hex(text.as_bytes()),
            data,
            questions: read.questions,
            bad: read.bad,
        };
        self.check(&loaded)?;
        if loaded.questions.is_empty() {
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
        let told: Vec<String> = loaded.bad.iter().take(SHOWN).map(line).collect();
        if told.is_empty() {
            return Ok(());
        }
        if self.skip_bad {
            told.iter().for_each(|line| terminal::warning(line));
            return Ok(());
        }
        told.iter().for_each(|line| terminal::error(line));
        let count = loaded.bad.len();
        Err(Failure::failed(format!("{}: {count} items cannot be asked", loaded.task.name))
            .hint("--skip-bad leaves them out"))
    }

    /// Finds items that are too long for the model.
    fn fit(&self, model: &Model, loaded: &mut Loaded) -> Outcome {
        let asker = Asker::new(model, &loaded.task)?;
        let already = loaded.bad.len();
        let mut bad = Vec::new();
        loaded.questions.retain(|question| match asker.check(question) {
            Ok(()) => true,
            Err(what) => {
                bad.push((question.line, what));
                false
            }
        });
        loaded.bad.extend(bad);
        if loaded.bad.len() > already {
            self.check(loaded)?;
        }
        if loaded.questions.is_empty() {
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
        let mut tally = tasks::Tally::new(&loaded.task);
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
        let mut records = log.take();
        let rest: Vec<&Question> = loaded
            .questions
            .iter()
            .filter(|question| !records.iter().any(|r| r.line == question.line))
            .collect();
        let resumed = loaded.questions.len() - rest.len();
        let (start, rows) = (Instant::now(), scorer.rows());
        let mut bar = Bar::steps();
        let batch = scorer.slots();
        for (nth, questions) in rest.chunks(batch).enumerate() {
            bar.step(resumed + nth * batch, loaded.questions.len(), loaded.task.name.clone());
            for record in asker.ask(scorer, questions)? {
                log.write(&record)?;
                records.push(record);
            }
        }
        bar.clear();
        // In the order of the file, whatever that of the log: the same sums to the last bit.
        for question in &loaded.questions {
            if let Some(record) = records.iter().find(|record| record.line == question.line) {
                tally.add(record);
            }
        }
        let (seconds, rows) = (start.elapsed().as_secs_f64(), scorer.rows() - rows);
        Ok(Done { loaded, tally, seconds, rows, resumed })
    }
}

/// A task by name or from a file, and the directory of that file.
fn definition(word: &str) -> Outcome<(Task, Option<PathBuf>)> {
    let path = Path::new(word);
    if path.extension().is_none_or(|extension| extension != "json") {
        let task = Task::named(word).ok_or_else(|| {
            Failure::misused(format!("no task is called `{word}`"))
                .hint("`tern eval tasks --list` lists them; a task of your own is a .json file")
        })?;
        return Ok((task, None));
    }
    let text = fs::read_to_string(path).map_err(|error| Failure::failed(format!("{word}: {error}")))?;
    let task = Task::parse(&text).map_err(|what| Failure::failed(format!("{word}: {what}")))?;
    Ok((task, Some(path.parent().unwrap_or(Path::new(".")).to_owned())))
}
