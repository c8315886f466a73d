//! Tables and JSON of tasks.

use std::fmt::Write;

use serde_json::{Value, json};
use tern_eval::tasks;

use super::Done;
use crate::failure::Outcome;
use crate::terminal;

/// The built-in tasks.
pub(super) fn list() -> Outcome {
    let mut text = String::new();
    for task in tasks::builtin() {
        let _ = writeln!(text, "{:<16} {:<26} {}", task.name, task.file, task.about);
    }
    terminal::print(&text)
}

pub(super) fn table(done: &[Done]) -> String {
    let mut text = String::from("| task | items | figure | value | ± |\n|---|---:|---|---:|---:|\n");
    for Done { loaded, done, .. } in done {
        for (name, total) in done.tally.totals() {
            let main = if name == loaded.task.metric { " *" } else { "" };
            let (value, error) = figures(name, total);
            let _ = writeln!(
                text,
                "| {} | {} | {name}{main} | {value} | {error} |",
                loaded.task.name, total.count
            );
        }
    }
    for Done { loaded, done: tasks::Done { rows, resumed, .. }, seconds } in done {
        let _ =
            write!(text, "\n{}: {} items in {seconds:.1} s", loaded.task.name, loaded.read.questions.len());
        let _ = write!(text, ", {:.1} tokens/s", *rows as f64 / seconds.max(1e-9));
        if *resumed > 0 {
            let _ = write!(text, ", {resumed} of them from the log");
        }
        if !loaded.read.bad.is_empty() {
            let _ = write!(text, ", {} left out as bad", loaded.read.bad.len());
        }
    }
    text.push('\n');
    text
}

/// Shares in percent, logarithms as they are.
fn figures(name: &str, total: tasks::Total) -> (String, String) {
    if name == "logprob" {
        return (format!("{:.4}", total.value), format!("{:.4}", total.error));
    }
    (format!("{:.2}%", 100.0 * total.value), format!("{:.2}", 100.0 * total.error))
}

pub(super) fn json(done: &Done) -> Value {
    let Done { loaded, done: tasks::Done { tally, rows, resumed, .. }, seconds } = done;
    let figures: serde_json::Map<String, Value> =
        tally.totals().into_iter().map(|(name, total)| (name.to_owned(), json!(total))).collect();
    json!({
        "task": loaded.task.name,
        "metric": loaded.task.metric,
        "shots": loaded.task.shots,
        "figures": figures,
        "items": loaded.read.questions.len(),
        "bad": loaded.read.bad.iter().map(|(line, what)| json!({ "line": line, "what": what })).collect::<Vec<_>>(),
        "resumed": resumed,
        "seconds": seconds,
        "tokens": rows,
        "data": loaded.data.display().to_string(),
        "data_sha256": loaded.data_sha256,
    })
}
