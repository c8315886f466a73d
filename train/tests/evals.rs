//! Tasks that are put to a model while it is trained, and runs that end early.

mod common;

use std::cell::Cell;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use common::{compare, folder, numbers, run};
use tern::{Adapter, Model, Options};
use tern_eval::Scorer;
use tern_eval::tasks::{self, Asker, Task};
use tern_train::config::Run;
use tern_train::metrics::{self, Evaluation, Line};
use tern_train::run::{End, Event, train};

/// A task of twelve questions about the folder's words, beside its items.
fn task(dir: &Path) {
    let words = ["the", "tern", "flies", "over", "a", "cold", "sea", "and", "sleeps", "on", "warm", "sand"];
    let item = |nth: usize| {
        let [a, b, c, d] = [nth, nth + 3, nth + 5, nth + 7].map(|at| words[at % words.len()]);
        format!("{{\"query\": \"{a} {b}\", \"choices\": [\"{c}\", \"{d} {a}\"], \"gold\": {}}}\n", nth % 2)
    };
    fs::write(dir.join("items.jsonl"), (0..12).map(item).collect::<String>()).unwrap();
    let text = r#"{"name": "words", "file": "items.jsonl", "kind": "choice", "prompt": "{query}", "choices": "choices",
        "gold": "gold", "metric": "acc"}"#;
    fs::write(dir.join("words.json"), text).unwrap();
}

const ASKED: &str = "eval_tasks = [\"words.json\"]\neval_every = 4\neval_items = 10";

fn evaluations(run: &Run) -> Vec<Evaluation> {
    let found = |line| if let Line::Evaluation(found) = line { Some(found) } else { None };
    metrics::read(&run.out).unwrap().into_iter().filter_map(found).collect()
}

fn held_out(run: &Run) -> Vec<(u64, f64)> {
    let found = |line| if let Line::Validation(found) = line { Some((found.step, found.loss)) } else { None };
    metrics::read(&run.out).unwrap().into_iter().filter_map(found).collect()
}

/// What a model comes to in the task by itself.
fn asked(dir: &Path, model: &Path, adapter: Option<&Path>) -> f64 {
    let (task, _) = Task::find(&dir.join("words.json")).unwrap().unwrap();
    let mut read = tasks::read(&task, &fs::read_to_string(dir.join("items.jsonl")).unwrap());
    read.limit(10);
    let model = Model::open(model, &Options::default()).unwrap();
    let adapter = adapter.map(|path| Arc::new(Adapter::open(path, model.config()).unwrap()));
    let mut scorer = Scorer::new(&model, 3).with_adapter(adapter);
    let asker = Asker::new(&model, &task).unwrap();
    let done = asker.run(&mut scorer, &read.questions, Vec::new(), |_, _| Ok::<_, tern::Error>(())).unwrap();
    done.tally.totals()[0].1.value
}

/// Trains, stopped once after this step.
fn interrupted(run: &Run, after: u64) -> End {
    let seen = Cell::new(0);
    let end = train(run, &|| seen.get() >= after, &mut |event| {
        if let Event::Step(step) = event {
            seen.set(step.step);
        }
    });
    assert!(matches!(end.unwrap(), End::Stopped(_)));
    train(run, &|| false, &mut |_| {}).unwrap()
}

#[test]
fn tasks_are_put_at_intervals_and_come_to_what_the_finished_model_does() {
    let dir = folder();
    task(dir.path());
    let whole = run(dir.path(), "whole", ASKED);
    let End::Done(model) = train(&whole, &|| false, &mut |_| {}).unwrap() else { panic!() };
    let found = evaluations(&whole);
    assert_eq!(found.iter().map(|one| one.step).collect::<Vec<_>>(), [4, 8, 12]);
    assert!(
        found.iter().all(|one| one.task == "words" && one.metric == "acc" && one.items == 10),
        "{found:?}"
    );
    assert_eq!(found[2].value, asked(dir.path(), &model, None));
    let report = fs::read_to_string(whole.out.join("report.html")).unwrap();
    assert!(report.contains("<h2>Tasks</h2>") && report.contains("aria-label=\"tasks\""), "{report}");
    // They change nothing of the training, and a stopped run finds the same.
    let plain = run(dir.path(), "plain", "");
    train(&plain, &|| false, &mut |_| {}).unwrap();
    let rest: Vec<String> =
        numbers(&whole.out).into_iter().filter(|line| !line.starts_with("words")).collect();
    assert_eq!(rest, numbers(&plain.out));
    let broken = run(dir.path(), "broken", &format!("{ASKED}\nthreads = 1"));
    interrupted(&broken, 6);
    assert_eq!(numbers(&broken.out), numbers(&whole.out));
    // Beside a base, too.
    let more = format!("{ASKED}\nfrom = \"{}\"\nlora = \"rank=2,targets=all\"\nrate = 5e-2", model.display());
    let tuned = run(dir.path(), "tuned", &more);
    let End::Done(adapter) = train(&tuned, &|| false, &mut |_| {}).unwrap() else { panic!() };
    assert_eq!(evaluations(&tuned)[2].value, asked(dir.path(), &model, Some(&adapter)));
}

#[test]
fn a_run_ends_when_nothing_better_comes_and_leaves_its_best() {
    let dir = folder();
    // A rate that is far too high: the loss falls at first, then goes up and down.
    let keys =
        "schedule = \"constant\"\nrate = 8e-2\nsteps = 200\nvalidate_every = 2\npatience = 4\nsave_every = 7";
    let whole = run(dir.path(), "whole", keys);
    let mut notes = String::new();
    let end = train(&whole, &|| false, &mut |event| {
        if let Event::Note(note) = event {
            notes += &note;
        }
    });
    let End::Done(model) = end.unwrap() else { panic!() };
    let losses = held_out(&whole);
    let (mut best, mut since, mut ends) = ((0, f64::INFINITY), 0, None);
    for (step, loss) in &losses {
        (best, since) = if *loss < best.1 { ((*step, *loss), 0) } else { (best, since + 1) };
        if since == 4 {
            ends = ends.or(Some(*step));
        }
    }
    let last = losses.last().unwrap().0;
    assert!(ends == Some(last) && best.0 == last - 8 && last < 200, "{losses:?}");
    assert!(notes.contains(&format!("the best is the model of step {}", best.0)), "{notes}");
    assert!(notes.contains(&format!("step {last}: nothing better came for 4 looks")), "{notes}");
    let found = compare(&whole, &model).unwrap();
    assert_eq!((found.step, found.recorded), (best.0, Some(found.unrounded)));
    assert_eq!(found.unrounded, best.1);
    // Stopped within the last look at the best, and begun again when it had ended: the same.
    let weights = |run: &Run| fs::read(run.out.join("masters/model.safetensors")).unwrap();
    for after in [best.0 - 1, best.0 + 1, last - 1] {
        let broken = run(dir.path(), &format!("after-{after}"), keys);
        interrupted(&broken, after);
        train(&broken, &|| false, &mut |_| {}).unwrap();
        assert!(
            weights(&broken) == weights(&whole) && numbers(&broken.out) == numbers(&whole.out),
            "{after}"
        );
    }
    // With more patience it goes on.
    let mut more = whole.clone();
    more.patience = 5;
    train(&more, &|| false, &mut |_| {}).unwrap();
    assert!(held_out(&more).len() > losses.len());
}

#[test]
fn a_task_can_be_what_ends_a_run() {
    let dir = folder();
    task(dir.path());
    // Nothing changes, so the first figure stays the best.
    let keys = "rate = 0.0\nstop_by = \"words\"\npatience = 2\neval_every = 2\nvalidate_every = 0";
    let still = run(dir.path(), "still", &format!("{ASKED}\n{keys}"));
    let End::Done(model) = train(&still, &|| false, &mut |_| {}).unwrap() else { panic!() };
    assert_eq!(evaluations(&still).iter().map(|one| one.step).collect::<Vec<_>>(), [2, 4, 6]);
    assert_eq!(compare(&still, &model).unwrap().step, 2);
}

#[test]
fn what_cannot_be_asked_or_watched_is_told_before_the_run() {
    let dir = folder();
    task(dir.path());
    fs::write(dir.path().join("bad.json"), "{\"name\": \"bad\"").unwrap();
    let gone = r#"{"name": "gone", "file": "gone.jsonl", "kind": "choice", "prompt": "x", "choices": "c", "gold": "g", "metric": "acc"}"#;
    fs::write(dir.path().join("gone.json"), gone).unwrap();
    let every = "eval_every = 4";
    for (more, wanted) in [
        (format!("eval_tasks = [\"nothing\"]\n{every}"), "key `eval_tasks`: no task is called `nothing`"),
        (format!("eval_tasks = [\"bad.json\"]\n{every}"), "bad.json"),
        (format!("eval_tasks = [\"gone.json\"]\n{every}"), "gone.jsonl"),
        (format!("eval_tasks = [\"words.json\", \"words.json\"]\n{every}"), "two are called `words`"),
        (format!("{ASKED}\nstop_by = \"other\""), "key `stop_by`: \"other\": expected loss, or the name"),
        ("patience = 2\nvalidate_every = 0".to_owned(), "key `patience`: watches the held-out loss"),
        ("patience = 2\nvalidation = 0.0".to_owned(), "key `patience`: watches the held-out loss"),
    ] {
        let error = train(&run(dir.path(), "x", &more), &|| false, &mut |_| {}).unwrap_err().to_string();
        assert!(error.contains(wanted) && !error.contains('\n'), "{more}: {error}");
    }
    let path = dir.path();
    let error = Run::parse(
        "out = \"o\"\ntrain = [\"a.txt\"]\ntokenizer = \"tok\"\neval_tasks = [\"copa\"]\n",
        &[],
        path,
    );
    assert!(error.unwrap_err().to_string().contains("key `eval_every`: 0"));
    let items = dir.path().join("items.jsonl");
    fs::write(&items, "{\"query\": \"x\", \"choices\": [\"a\", \"b\"], \"gold\": 7}\n").unwrap();
    let error = train(&run(dir.path(), "x", ASKED), &|| false, &mut |_| {}).unwrap_err().to_string();
    assert!(error.contains("items.jsonl, line 1"), "{error}");
}
