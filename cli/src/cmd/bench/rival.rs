//! Other programs, run in turns with our own tests. What they print is the JSON of `llama-bench -o json`: an array of
//! objects, one for each test, of which these keys are read:
//!
//! | key | |
//! |---|---|
//! | `n_prompt`, `n_gen` | tokens read and written; one of them is 0 |
//! | `n_depth` | tokens there before (0 if missing); `"test": "tg32@pp128"` is a text at depth 128 |
//! | `n_sequences` | texts written at once (1 if missing; our own key, llama-bench knows one) |
//! | `n_threads` | any number, if missing |
//! | `avg_ts`, or else `samples_ts` | tokens a second |
//!
//! `tern bench -o json` prints such objects as well, under `tests`.

use std::process::{Command, Stdio};

use serde_json::Value;

use super::test::{Test, Work};
use crate::failure::{Failure, Outcome};

/// A command and what it printed, round by round.
#[derive(Debug)]
pub(super) struct Rival {
    command: String,
    pub(super) results: Vec<RivalTest>,
}

/// One test of a rival.
#[derive(Debug)]
pub(super) struct RivalTest {
    /// Its name there, or what we call it.
    pub(super) name: String,
    /// What it is to us; `None` for a test that has no counterpart.
    work: Option<Work>,
    depth: usize,
    pub(super) threads: Option<usize>,
    /// Tokens a second in each round.
    pub(super) speeds: Vec<f64>,
}

impl RivalTest {
    /// Whether it measures the same.
    pub(super) fn is(&self, test: &Test) -> bool {
        // Other programs call the reading of a text a prompt, vector or not.
        let work = match test.work {
            Work::Vectors { tokens, texts: 1 } => Work::Prompt(tokens),
            work => work,
        };
        self.work == Some(work)
            && self.depth == test.depth
            && self.threads.is_none_or(|threads| threads == test.threads)
    }

    fn same(&self, other: &RivalTest) -> bool {
        (&self.name, self.work, self.depth, self.threads)
            == (&other.name, other.work, other.depth, other.threads)
    }
}

impl Rival {
    pub(super) fn new(command: &str) -> Self {
        Self { command: command.to_owned(), results: Vec::new() }
    }

    pub(super) fn command(&self) -> &str {
        &self.command
    }

    /// Forgets what was measured so far.
    pub(super) fn forget(&mut self) {
        self.results.clear();
    }

    /// Runs it once.
    pub(super) fn run(&mut self) -> Outcome {
        let failed = |what: String| Failure::failed(format!("--vs `{}`: {what}", self.command));
        let mut shell = if cfg!(windows) { Command::new("cmd") } else { Command::new("sh") };
        shell.args([if cfg!(windows) { "/C" } else { "-c" }, &self.command]).stdin(Stdio::null());
        let done = shell.output().map_err(|e| failed(e.to_string()))?;
        if !done.status.success() {
            let said = String::from_utf8_lossy(&done.stderr);
            let last =
                said.lines().rfind(|line| !line.trim().is_empty()).map(|line| format!(": {}", short(line)));
            return Err(failed(format!("{}{}", done.status, last.unwrap_or_default())));
        }
        let tests = parse(&String::from_utf8_lossy(&done.stdout))
            .map_err(|what| failed(what).hint("llama-bench prints what is expected with `-o json`"))?;
        for test in tests {
            match self.results.iter_mut().find(|known| known.same(&test)) {
                Some(known) => known.speeds.extend(test.speeds),
                None => self.results.push(test),
            }
        }
        Ok(())
    }
}

/// The tests in the output of a rival.
fn parse(text: &str) -> Result<Vec<RivalTest>, String> {
    let expected = "expected the JSON array of llama-bench on standard output";
    let value: Value = serde_json::from_str(text.trim()).map_err(|_| match text.trim() {
        "" => format!("{expected}, found nothing"),
        text => format!("{expected}, found `{}`", short(text)),
    })?;
    let list = value.get("tests").unwrap_or(&value).as_array();
    let list = list
        .filter(|list| !list.is_empty())
        .ok_or_else(|| format!("{expected}, found `{}`", short(&value.to_string())))?;
    list.iter().enumerate().map(|(at, test)| one(test).map_err(|what| format!("test {at}: {what}"))).collect()
}

fn one(test: &Value) -> Result<RivalTest, String> {
    let count = |key: &str, missing: Option<usize>| match test.get(key) {
        None | Some(Value::Null) => missing.ok_or_else(|| format!("expected a key `{key}`, found none")),
        Some(value) => {
            let n = value.as_u64().and_then(|n| usize::try_from(n).ok());
            n.ok_or_else(|| {
                format!("key `{key}`: expected a whole number, found `{}`", short(&value.to_string()))
            })
        }
    };
    let (prompt, text) = (count("n_prompt", None)?, count("n_gen", None)?);
    let mut depth = count("n_depth", Some(0))?;
    let sequences = count("n_sequences", Some(1))?;
    let name = test.get("test").and_then(Value::as_str);
    let work = match (prompt, text) {
        (prompt, 0) => Some(Work::Prompt(prompt)),
        (0, tokens) => Some(Work::Text { tokens, sequences }),
        (prompt, tokens) if name.is_some_and(|name| name.contains("@pp")) => {
            depth += prompt;
            Some(Work::Text { tokens, sequences })
        }
        _ => None,
    };
    let threads = count("n_threads", Some(0))?;
    let speed = test.get("avg_ts").and_then(Value::as_f64).or_else(|| {
        let samples = test.get("samples_ts")?.as_array()?;
        Some(samples.iter().map(Value::as_f64).sum::<Option<f64>>()? / samples.len() as f64)
    });
    let speed = speed.filter(|speed| *speed > 0.0 && speed.is_finite());
    let speed = speed.ok_or("expected tokens per second above 0 as `avg_ts` or `samples_ts`")?;
    let ours = work.map(|work| Test { work, depth, threads }.to_string());
    Ok(RivalTest {
        name: ours.or(name.map(short)).unwrap_or_else(|| format!("pp{prompt}+tg{text}")),
        work,
        depth,
        threads: Some(threads).filter(|&threads| threads > 0),
        speeds: vec![speed],
    })
}

/// The beginning of a text that may be anything.
fn short(text: &str) -> String {
    let mut short: String = text.trim().chars().take(80).collect();
    if text.trim().chars().nth(80).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_of_llama_bench_is_understood() {
        let text = r#"[
          {"n_threads": 2, "n_prompt": 512, "n_gen": 0, "test": "pp512", "avg_ts": 105.5, "samples_ts": [105.5]},
          {"n_threads": 2, "n_prompt": 0, "n_gen": 128, "n_depth": 4096, "avg_ts": 15.2},
          {"n_prompt": 128, "n_gen": 32, "test": "tg32@pp128", "samples_ts": [10.0, 20.0]},
          {"n_prompt": 0, "n_gen": 32, "n_depth": 128, "n_sequences": 16, "avg_ts": 66.0},
          {"n_prompt": 512, "n_gen": 128, "test": "pp512+tg128", "avg_ts": 50.0}
        ]"#;
        let tests = parse(text).unwrap();
        let names: Vec<_> = tests.iter().map(|test| test.name.as_str()).collect();
        assert_eq!(names, ["pp512", "tg128 @ d4096", "tg32 @ d128", "tg32 x16 @ d128", "pp512+tg128"]);
        let prompt = Test { work: Work::Prompt(512), depth: 0, threads: 2 };
        assert!(tests[0].is(&prompt) && !tests[0].is(&Test { threads: 1, ..prompt }));
        let text = Test { work: Work::Text { tokens: 32, sequences: 1 }, depth: 128, threads: 7 };
        assert!(tests[2].is(&text) && !tests[3].is(&text) && !tests[1].is(&text));
        assert_eq!(tests[2].speeds, [15.0]);
        assert!(tests[4].work.is_none());
        // Our own output.
        assert_eq!(parse(r#"{"tests": [{"n_prompt": 1, "n_gen": 0, "avg_ts": 1}]}"#).unwrap().len(), 1);
    }

    #[test]
    fn anything_else_is_refused_in_a_sentence() {
        let array = "expected the JSON array of llama-bench on standard output";
        for (text, what) in [
            ("", format!("{array}, found nothing")),
            ("| model | t/s |", format!("{array}, found `| model | t/s |`")),
            ("[]", format!("{array}, found `[]`")),
            ("{}", format!("{array}, found `{{}}`")),
            ("[1]", "test 0: expected a key `n_prompt`, found none".into()),
            (
                r#"[{"n_prompt": -1, "n_gen": 0}]"#,
                "test 0: key `n_prompt`: expected a whole number, found `-1`".into(),
            ),
            (
                r#"[{"n_prompt": 1, "n_gen": 0, "avg_ts": 0}]"#,
                "test 0: expected tokens per second above 0 as `avg_ts` or `samples_ts`".into(),
            ),
            (
                r#"[{"n_prompt": 1, "n_gen": 0, "samples_ts": []}]"#,
                "test 0: expected tokens per second above 0 as `avg_ts` or `samples_ts`".into(),
            ),
        ] {
            assert_eq!(parse(text).unwrap_err(), what, "{text}");
        }
        assert!(parse(&"x".repeat(1000)).unwrap_err().len() < 200);
    }
}
