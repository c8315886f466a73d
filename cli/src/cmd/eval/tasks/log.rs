//! The log of a task: a line that says what was asked of whom, then a line for each item. What is in it need not be asked
//! again.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tern_eval::tasks::Record;

use crate::failure::{Failure, Outcome};

/// A log being written, or none.
pub(super) struct Log {
    file: Option<(PathBuf, File)>,
    records: Vec<Record>,
}

impl Log {
    pub(super) fn none() -> Self {
        Self { file: None, records: Vec::new() }
    }

    /// Begins `DIR/TASK.jsonl`, or goes on with it where `resume` says so and it is about the same.
    pub(super) fn open(dir: &Path, task: &str, header: &Value, resume: bool) -> Outcome<Self> {
        let path = dir.join(format!("{task}.jsonl"));
        let failed = |error: std::io::Error| Failure::failed(format!("{}: {error}", path.display()));
        fs::create_dir_all(dir).map_err(failed)?;
        if !path.exists() {
            let mut file = OpenOptions::new().write(true).create_new(true).open(&path).map_err(failed)?;
            writeln!(file, "{header}").map_err(failed)?;
            return Ok(Self { file: Some((path, file)), records: Vec::new() });
        }
        if !resume {
            return Err(Failure::failed(format!("{}: there is a log already", path.display()))
                .hint("--resume goes on with it"));
        }
        let text = fs::read_to_string(&path).map_err(failed)?;
        // A process that was killed may have left half a line.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let mut lines = text[..whole].lines().enumerate();
        let wrong = |line: usize, what: String| {
            Failure::failed(format!("{}: line {}: {what}", path.display(), line + 1))
        };
        let mut records = Vec::new();
        match lines.next().map(|(_, line)| serde_json::from_str::<Value>(line)) {
            None => {}
            Some(Ok(found)) => {
                if let Some(key) = different(&found, header) {
                    return Err(wrong(
                        0,
                        format!("`{key}` is another than that of this run; its items do not count here"),
                    ));
                }
            }
            Some(Err(error)) => return Err(wrong(0, format!("is no log's first line: {error}"))),
        }
        for (nth, line) in lines {
            records.push(
                serde_json::from_str(line).map_err(|error| wrong(nth, format!("is no item: {error}")))?,
            );
        }
        let mut file = OpenOptions::new().append(true).open(&path).map_err(failed)?;
        file.set_len(whole as u64).map_err(failed)?;
        if whole == 0 {
            writeln!(file, "{header}").map_err(failed)?;
        }
        Ok(Self { file: Some((path, file)), records })
    }

    /// The items that were in it.
    pub(super) fn take(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.records)
    }

    pub(super) fn write(&mut self, record: &Record) -> Outcome {
        let Some((path, file)) = &mut self.file else { return Ok(()) };
        let line = serde_json::to_string(record).expect("a record is JSON");
        writeln!(file, "{line}").map_err(|error| Failure::failed(format!("{}: {error}", path.display())))
    }
}

/// The first key in which two headers differ.
fn different(found: &Value, wanted: &Value) -> Option<String> {
    // A file may have moved; its hash says whether it is the same. Without one the path must do.
    let moved = |key: &str| key == "model" && !wanted["model_sha256"].is_null();
    let wanted = wanted.as_object()?;
    wanted
        .iter()
        .find(|(key, value)| !moved(key) && found.get(key.as_str()) != Some(value))
        .map(|(key, _)| key.clone())
}
