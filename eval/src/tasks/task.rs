//! What a task's file says.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How a task asks and grades.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The likeliest of several ends is the answer.
    Choice,
    /// Every token of the end must be the likeliest.
    Cloze,
    /// The model writes; the final number is compared.
    Number,
    /// The model writes; rules named in the item are checked.
    Instructions,
}

/// A task. In its texts `{field}` stands for a field of the item, `{field.0}` and `{field.key}` for a part of one, and
/// `{{` for a brace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// Its name in results.
    pub name: String,
    /// One line for people.
    #[serde(default)]
    pub about: String,
    /// The file of items, JSON lines, beside the task's own or in the directory of data.
    pub file: String,
    /// How it asks.
    pub kind: Kind,
    /// Items that count: fields and their values; all if absent.
    #[serde(default, rename = "where")]
    pub filter: BTreeMap<String, Value>,
    /// What stands before the first example or the prompt.
    #[serde(default)]
    pub preamble: String,
    /// The question.
    #[serde(default)]
    pub prompt: String,
    /// The field with a list of questions, one for each choice, where it is these that differ and not the ends.
    pub prompts: Option<String>,
    /// The field with the choices: a list, or an object of letters and texts.
    pub choices: Option<String>,
    /// The choices themselves, the same for all items.
    pub options: Option<Vec<String>>,
    /// The end, where there is but one.
    pub end: Option<String>,
    /// The field with the answer: an index from 0, a letter of an object, or the text of a choice.
    pub gold: Option<String>,
    /// Stands between prompt and end.
    #[serde(default = "space")]
    pub delimiter: String,
    /// The beginning after which choices are scored alone, for the accuracy that takes their own likelihood off.
    pub unconditional: Option<String>,
    /// Solved examples before the question.
    #[serde(default)]
    pub shots: usize,
    /// Items that examples are taken from, the first of them in the file.
    #[serde(default)]
    pub shots_where: BTreeMap<String, Value>,
    /// A field whose value an example must share with the question.
    pub shots_same: Option<String>,
    /// Stands after each example.
    #[serde(default = "empty_line")]
    pub separator: String,
    /// Fields whose underscores are spaces.
    #[serde(default)]
    pub spaced: Vec<String>,
    /// Where a written answer ends.
    #[serde(default)]
    pub stop: Vec<String>,
    /// Most tokens of a written answer.
    #[serde(default)]
    pub tokens: usize,
    /// Ask through the model's chat template, if it has one.
    #[serde(default)]
    pub chat: bool,
    /// The figure that stands for the task.
    pub metric: String,
}

fn space() -> String {
    " ".to_owned()
}

fn empty_line() -> String {
    "\n\n".to_owned()
}

macro_rules! builtin {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("builtin/", $name, ".json")))),*]
    };
}

/// The one list: names and definitions of the tasks that are built in.
const BUILTIN: &[(&str, &str)] = builtin![
    "arc_easy",
    "arc_challenge",
    "piqa",
    "openbook_qa",
    "commonsense_qa",
    "siqa",
    "copa",
    "winogrande",
    "boolq",
    "hellaswag",
    "lambada",
    "mmlu",
    "gsm8k",
    "ifeval",
];

/// Every task that is built in.
pub fn builtin() -> Vec<Task> {
    let parse = |(name, text): &(&str, &str)| {
        Task::parse(text).unwrap_or_else(|what| panic!("the built-in task {name}: {what}"))
    };
    BUILTIN.iter().map(parse).collect()
}

impl Task {
    /// The built-in task of this name.
    pub fn named(name: &str) -> Option<Self> {
        builtin().into_iter().find(|task| task.name == name)
    }

    /// A task from the text of its file, or what is wrong with it in one line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let task: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        task.check()?;
        Ok(task)
    }

    /// A task by a word: the name of a built-in one, or a `.json` file, and then the folder of that. `None` where no task is
    /// called so.
    pub fn find(word: &Path) -> Result<Option<(Self, Option<PathBuf>)>, String> {
        if word.extension().is_none_or(|extension| extension != "json") {
            return Ok(word.to_str().and_then(Self::named).map(|task| (task, None)));
        }
        let wrong = |what: String| format!("{}: {what}", word.display());
        let text = fs::read_to_string(word).map_err(|error| wrong(error.to_string()))?;
        let task = Self::parse(&text).map_err(wrong)?;
        Ok(Some((task, Some(word.parent().unwrap_or(Path::new("")).to_owned()))))
    }

    /// The file of its items in the first of these folders that has it, as it is or compressed.
    pub fn items(&self, folders: &[&Path]) -> Result<PathBuf, String> {
        let inside =
            |folder: &&Path| ["", ".zst", ".gz"].map(|end| folder.join(format!("{}{end}", self.file)));
        let found = folders.iter().flat_map(inside).find(|path| path.is_file());
        found.ok_or_else(|| {
            let first = folders.first().copied().unwrap_or(Path::new("")).join(&self.file);
            format!("{}: no such file of items for {}", first.display(), self.name)
        })
    }

    fn check(&self) -> Result<(), String> {
        let ends = [self.choices.is_some(), self.options.is_some(), self.end.is_some()];
        let ends = ends.into_iter().filter(|given| *given).count();
        let (one, gold) = (ends == 1, self.gold.is_some());
        let wrong = match self.kind {
            Kind::Choice if !one => Some("`choice` wants one of `choices`, `options` and `end`"),
            Kind::Choice if self.end.is_some() != self.prompts.is_some() => {
                Some("`end` goes with `prompts`, several questions with one end")
            }
            Kind::Choice | Kind::Number if !gold => Some("`gold` is missing, the field with the answer"),
            Kind::Cloze if self.end.is_none() || ends > 1 => Some("`cloze` wants `end` and no choices"),
            Kind::Number | Kind::Instructions if self.tokens == 0 => {
                Some("`tokens` is missing, the most that an answer may have")
            }
            Kind::Number | Kind::Instructions if ends > 0 => Some("a written answer has no choices"),
            _ if self.prompt.is_empty() && self.prompts.is_none() => Some("`prompt` is missing"),
            _ if self.name.is_empty()
                || self.name.contains(|c: char| !c.is_ascii_alphanumeric() && c != '_') =>
            {
                Some("`name` wants letters, digits and `_`")
            }
            _ if !self.metrics().contains(&self.metric.as_str()) => {
                Some("`metric` names no figure of this kind")
            }
            _ => None,
        };
        wrong.map_or(Ok(()), |what| Err(what.to_owned()))
    }

    /// The figures that grading gives, in the order of tables.
    pub fn metrics(&self) -> &'static [&'static str] {
        match self.kind {
            Kind::Choice if self.unconditional.is_some() => &["acc", "acc_norm", "acc_uncond"],
            Kind::Choice => &["acc", "acc_norm"],
            Kind::Cloze => &["acc", "logprob"],
            Kind::Number => &["exact", "exact_flexible"],
            Kind::Instructions => {
                &["prompt_strict", "prompt_loose", "instruction_strict", "instruction_loose"]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_tasks_parse_under_their_own_names() {
        for (task, (name, _)) in builtin().iter().zip(BUILTIN) {
            assert_eq!(task.name, *name);
            assert!(task.metrics().contains(&task.metric.as_str()));
        }
        assert!(Task::named("nothing").is_none());
    }

    #[test]
    fn a_task_that_makes_no_sense_is_told() {
        let base = r#""name": "t", "file": "f", "metric": "acc", "kind": "#;
        for (rest, what) in [
            (r#""choice", "prompt": "p", "gold": "g""#, "one of"),
            (r#""choice", "prompt": "p", "choices": "c""#, "gold"),
            (r#""choice", "prompt": "p", "end": "c", "gold": "g""#, "prompts"),
            (r#""cloze", "prompt": "p""#, "end"),
            (r#""cloze", "end": "p""#, "prompt"),
            (r#""number", "prompt": "p", "gold": "g""#, "tokens"),
            (r#""choice", "prompt": "p", "choices": "c", "gold": "g", "colour": 1"#, "colour"),
            (r#""essay""#, "essay"),
        ] {
            let error = Task::parse(&format!("{{{base}{rest}}}")).unwrap_err();
            assert!(error.contains(what) && !error.contains('\n'), "{rest}: {error}");
        }
    }
}
