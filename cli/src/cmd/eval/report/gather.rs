//! Measurements out of JSON files, and the tables and plots that they fill.

use std::path::Path;

use serde_json::Value;
use tern_train::svg::escaped;

use super::Table;
use super::draw::{self, Bar, Group};
use crate::failure::{Failure, Outcome};

/// Everything that was measured.
#[derive(Default)]
pub(super) struct Report {
    /// Names of models in the order of the files.
    models: Vec<String>,
    ppl: Vec<Value>,
    tasks: Vec<Value>,
    compare: Vec<Value>,
    needle: Vec<Value>,
    bench: Vec<Value>,
}

impl Report {
    /// Adds the measurements of a file: one JSON object, or several.
    pub(super) fn take(&mut self, path: &Path, text: &str) -> Outcome {
        let wrong = |what: String| Failure::failed(format!("{}: {what}", path.display()));
        let mut any = false;
        for value in serde_json::Deserializer::from_str(text).into_iter::<Value>() {
            let value = value.map_err(|error| wrong(format!("is not JSON: {error}")))?;
            let list = match &value {
                value if value.get("perplexity").is_some() => &mut self.ppl,
                value if value["tasks"].is_array() => &mut self.tasks,
                value if value.get("kl").is_some() => &mut self.compare,
                value if value["needle"].is_array() => &mut self.needle,
                value if value["tests"].is_array() => &mut self.bench,
                _ => {
                    return Err(wrong("holds no measurement that is known here".to_owned())
                        .hint("expected what `tern eval … --json` or `tern bench -o json` prints"));
                }
            };
            list.push(value.clone());
            let name = name(&value);
            if value.get("kl").is_none() && !self.models.contains(&name) {
                self.models.push(name);
            }
            any = true;
        }
        if any { Ok(()) } else { Err(wrong("expected JSON, found nothing".to_owned())) }
    }

    pub(super) fn tables(&self) -> Vec<Table> {
        let mut tables = Vec::new();
        let mut push = |title, about: &str, head: &[&'static str], rows: Vec<Vec<String>>| {
            if !rows.is_empty() {
                tables.push(Table { title, about: about.to_owned(), head: head.to_vec(), rows });
            }
        };
        push(
            "Tasks",
            "In percent, log-probabilities in nats; ± is one standard error. * marks the figure that stands for its task.",
            &["model", "task", "figure", "value", "±", "items", "shots"],
            self.task_rows(),
        );
        push(
            "Perplexity",
            "Perplexities compare only over the same text, under the same convention, and by the same tokenizer; bits per byte by any.",
            &["model", "text", "convention", "perplexity", "±", "bits/byte", "tokens"],
            self.ppl.iter().map(ppl_row).collect(),
        );
        push(
            "Divergence",
            "Of the second's probabilities from the first's. Identical: every bit of every logit is the same.",
            &[
                "first",
                "second",
                "nats a token",
                "same likeliest",
                "identical",
                "largest difference",
                "tokens",
            ],
            self.compare.iter().map(compare_row).collect(),
        );
        push(
            "Needle",
            "",
            &["model", "tokens", "depth", "found", "log-probability"],
            self.needle.iter().flat_map(needle_rows).collect(),
        );
        push(
            "Speed and energy",
            &self.energy(),
            &["model", "test", "threads", "tokens/s", "J/token"],
            self.bench.iter().flat_map(bench_rows).collect(),
        );
        push("What was measured", "", &["what", "how", "SHA-256"], self.sources());
        tables
    }

    /// Why energy is missing, where it is.
    fn energy(&self) -> String {
        let known = |v: &&Value| v["energy"]["missing"].is_string();
        let missing = self.bench.iter().find(known).map(|v| text(&v["energy"]["missing"]));
        missing.map_or(String::new(), |why| format!("Energy was not measured: {why}."))
    }

    fn task_rows(&self) -> Vec<Vec<String>> {
        let mut rows = Vec::new();
        for (v, task) in self.each_task() {
            for (figure, total) in task["figures"].as_object().into_iter().flatten() {
                let scale = if figure == "logprob" { 1.0 } else { 100.0 };
                let show =
                    |key: &str| total[key].as_f64().map_or("–".into(), |x| format!("{:.2}", x * scale));
                let main = if task["metric"] == figure.as_str() { " *" } else { "" };
                let figure = format!("{figure}{main}");
                rows.push(vec![
                    name(v),
                    text(&task["task"]),
                    figure,
                    show("value"),
                    show("error"),
                    text(&total["count"]),
                    text(&task["shots"]),
                ]);
            }
        }
        rows
    }

    /// Every task of every file.
    fn each_task(&self) -> impl Iterator<Item = (&Value, &Value)> {
        self.tasks.iter().flat_map(|v| v["tasks"].as_array().into_iter().flatten().map(move |task| (v, task)))
    }

    /// Models, settings and hashes; data files and theirs.
    fn sources(&self) -> Vec<Vec<String>> {
        let mut rows: Vec<Vec<String>> = Vec::new();
        let mut add = |what: String, how: String, hash: &Value| {
            let row = vec![what, how, hash.as_str().unwrap_or("–").to_owned()];
            if !rows.contains(&row) {
                rows.push(row);
            }
        };
        for v in self.ppl.iter().chain(&self.tasks).chain(&self.needle) {
            add(name(v), settings(&v["settings"]), &v["model_sha256"]);
        }
        for side in self.compare.iter().flat_map(|v| [&v["a"], &v["b"]]) {
            add(name(side), settings(&side["settings"]), &side["model_sha256"]);
        }
        for v in &self.bench {
            let machine = &v["machine"];
            let kernels = text(&machine["kernel_used"]);
            let how =
                format!("speed on {}, {kernels}, {} cores", text(&machine["cpu"]), machine["cores_allowed"]);
            add(name(v), how, &Value::Null);
        }
        for v in &self.ppl {
            add(base(&v["file"]), "text".to_owned(), &v["file_sha256"]);
        }
        for (_, task) in self.each_task() {
            add(base(&task["data"]), "items".to_owned(), &task["data_sha256"]);
        }
        rows
    }

    /// Titles, explanations and pictures.
    pub(super) fn plots(&self) -> Vec<(&'static str, String, String)> {
        let mut plots = Vec::new();
        let colour = |model: &str| self.models.iter().position(|name| name == model).unwrap_or(0);
        let mut groups: Vec<Group> = Vec::new();
        for (v, task) in self.each_task() {
            let (label, total) =
                (text(&task["task"]), &task["figures"][task["metric"].as_str().unwrap_or("")]);
            let Some(value) = total["value"].as_f64() else { continue };
            let error = total["error"].as_f64().unwrap_or(0.0);
            let [value, from, to] = [value, value - error, value + error].map(|share| 100.0 * share);
            let bar = Bar { colour: colour(&name(v)), value, from, to };
            group(&mut groups, label).push(bar);
        }
        if !groups.is_empty() {
            let about = "Each task's main figure in percent; whiskers are one standard error.".to_owned();
            plots.push(("Scores", about, draw::bars(&groups, &self.models, Some(100.0), "%")));
        }
        for v in &self.needle {
            let cells: Vec<[f64; 3]> = v["needle"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|c| Some([c["length"].as_f64()?, c["depth"].as_f64()?, c["found"].as_f64()?]))
                .collect();
            if !cells.is_empty() {
                let about = format!(
                    "Of {}: the share of sentences found, by the text's length in tokens and how deep in it they lie.",
                    escaped(&name(v))
                );
                plots.push(("Needle", about, draw::grid(&cells)));
            }
        }
        for (title, key, unit) in [("Speed", "avg_ts", "tokens/s"), ("Energy", "joules_per_token", "J/token")]
        {
            let mut groups: Vec<Group> = Vec::new();
            for v in &self.bench {
                for test in v["tests"].as_array().into_iter().flatten() {
                    let Some(value) = test[key].as_f64() else { continue };
                    let threads = text(&test["n_threads"]);
                    let plural = if threads == "1" { "" } else { "s" };
                    let label = format!("{}, {threads} thread{plural}", text(&test["test"]));
                    // Speeds have no common error; the slowest and the fastest round stand for it.
                    let round = |key: &str| test[key].as_f64().filter(|_| title == "Speed").unwrap_or(value);
                    let (from, to) = (round("min_ts"), round("max_ts"));
                    group(&mut groups, label).push(Bar { colour: colour(&name(v)), value, from, to });
                }
            }
            if !groups.is_empty() {
                let about = if title == "Speed" {
                    format!("In {unit}; whiskers span the slowest and the fastest round.")
                } else {
                    format!("In {unit}, by the machine's counters.")
                };
                plots.push((title, about, draw::bars(&groups, &self.models, None, "")));
            }
        }
        plots
    }
}

/// The group of this label, made where there is none.
fn group(groups: &mut Vec<Group>, label: String) -> &mut Vec<Bar> {
    let at = groups.iter().position(|group| group.label == label).unwrap_or_else(|| {
        groups.push(Group { label, bars: Vec::new() });
        groups.len() - 1
    });
    &mut groups[at].bars
}

/// A model by the last part of its path; `tern bench` nests it.
fn name(value: &Value) -> String {
    match &value["model"] {
        Value::Object(model) => base(model.get("path").or(model.get("name")).unwrap_or(&Value::Null)),
        model => base(model),
    }
}

fn base(path: &Value) -> String {
    let path = path.as_str().unwrap_or("?");
    path.trim_end_matches(['/', '\\']).rsplit(['/', '\\']).next().unwrap_or(path).to_owned()
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "–".to_owned(),
        other => other.to_string(),
    }
}

fn number(value: &Value, digits: usize) -> String {
    value.as_f64().map_or("–".to_owned(), |x| format!("{x:.digits$}"))
}

fn settings(value: &Value) -> String {
    let shown = |(key, value): (&String, &Value)| format!("{key} {}", text(value));
    value.as_object().map_or(String::new(), |map| map.iter().map(shown).collect::<Vec<_>>().join(", "))
}

/// A row of `tern eval ppl`.
fn ppl_row(v: &Value) -> Vec<String> {
    let kind = match v["stride"].as_u64() {
        None => format!("chunks of {}, second halves", v["context"]),
        Some(stride) => format!("windows of {}, stride {stride}", v["context"]),
    };
    vec![
        name(v),
        base(&v["file"]),
        kind,
        number(&v["perplexity"], 4),
        number(&v["error"], 4),
        number(&v["bits_per_byte"], 4),
        text(&v["tokens_scored"]),
    ]
}

/// A row of `tern eval compare`.
fn compare_row(v: &Value) -> Vec<String> {
    let side = |side: &Value| format!("{} ({})", base(&side["model"]), settings(&side["settings"]));
    let percent = |value: &Value| format!("{:.3}%", 100.0 * value.as_f64().unwrap_or(f64::NAN));
    let kl = v["kl"].as_f64().map_or("–".into(), |kl| format!("{kl:.2e}"));
    let largest = v["largest_logit_difference"].as_f64().map_or("–".into(), |x| format!("{x:.2e}"));
    vec![
        side(&v["a"]),
        side(&v["b"]),
        kl,
        percent(&v["top1_agreement"]),
        percent(&v["identical"]),
        largest,
        text(&v["tokens"]),
    ]
}

/// The rows of `tern eval needle`.
fn needle_rows(v: &Value) -> Vec<Vec<String>> {
    let cells = v["needle"].as_array().map_or(&[][..], Vec::as_slice);
    let row = |c: &Value| {
        vec![
            name(v),
            text(&c["length"]),
            format!("{}%", c["depth"]),
            format!("{:.0}%", 100.0 * c["found"].as_f64().unwrap_or(f64::NAN)),
            number(&c["logprob"], 3),
        ]
    };
    cells.iter().map(row).collect()
}

/// The rows of `tern bench`.
fn bench_rows(v: &Value) -> Vec<Vec<String>> {
    let tests = v["tests"].as_array().map_or(&[][..], Vec::as_slice);
    let row = |t: &Value| {
        vec![
            name(v),
            text(&t["test"]),
            text(&t["n_threads"]),
            number(&t["avg_ts"], 2),
            number(&t["joules_per_token"], 3),
        ]
    };
    tests.iter().map(row).collect()
}
