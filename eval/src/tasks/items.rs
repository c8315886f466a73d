//! Items: lines of a JSON lines file become questions. What is wrong with a line is said by its number.

use serde_json::{Map, Value};

use super::numbers::{last_number, strict_number};
use super::task::{Kind, Task};
use tern::quoted;

/// A question, ready to be put.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// Its line in the file, from 1.
    pub line: usize,
    /// What is asked.
    pub ask: Ask,
}

/// What is asked of the model.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    /// How likely ends are after beginnings.
    Choice {
        /// Beginning and end of each choice.
        pairs: Vec<(String, String)>,
        /// Letters of each choice, without what stands before it.
        letters: Vec<usize>,
        /// The beginning after which the ends are scored alone.
        unconditional: Option<String>,
        /// The right one.
        gold: usize,
    },
    /// Whether this end is what the model would write.
    Cloze {
        /// The beginning.
        prompt: String,
        /// The end.
        end: String,
    },
    /// A text to be continued.
    Write {
        /// The beginning.
        prompt: String,
        /// What the answer is held against.
        gold: Gold,
    },
}

/// Names of rules and the arguments of each.
pub type Rules = Vec<(String, Map<String, Value>)>;

/// What a written answer is held against.
#[derive(Clone, Debug, PartialEq)]
pub enum Gold {
    /// A number, as [`super::grade`] extracts it.
    Number(String),
    /// Names of rules and their arguments.
    Rules(Rules),
}

/// What a file of items holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Read {
    /// What can be asked.
    pub questions: Vec<Question>,
    /// What cannot: the line, and why.
    pub bad: Vec<(usize, String)>,
}

impl Read {
    /// Keeps the first so many questions, and what is bad before the last of them.
    pub fn limit(&mut self, count: usize) {
        self.questions.truncate(count);
        if let Some(last) = self.questions.last().map(|question| question.line) {
            self.bad.retain(|(line, _)| *line < last);
        }
    }
}

/// Reads the items of a task; empty lines are none, every other line is a question or is told as bad.
pub fn read(task: &Task, text: &str) -> Read {
    let mut read = Read::default();
    let mut items: Vec<(usize, Map<String, Value>)> = Vec::new();
    for (nth, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        match serde_json::from_str(line) {
            Ok(Value::Object(item)) => items.push((nth + 1, item)),
            Ok(_) => read.bad.push((nth + 1, "expected a JSON object".to_owned())),
            Err(error) => read.bad.push((nth + 1, format!("is not JSON: {error}"))),
        }
    }
    let shots: Vec<&(usize, Map<String, Value>)> =
        items.iter().filter(|(_, item)| task.shots > 0 && matches(item, &task.shots_where)).collect();
    for (line, item) in items.iter().filter(|(_, item)| matches(item, &task.filter)) {
        let ask = examples(task, item, *line, &shots).and_then(|before| Fields { task, item }.ask(&before));
        match ask {
            Ok(ask) => read.questions.push(Question { line: *line, ask }),
            Err(what) => read.bad.push((*line, what)),
        }
    }
    read.bad.sort_by_key(|(line, _)| *line);
    read
}

fn matches(item: &Map<String, Value>, filter: &std::collections::BTreeMap<String, Value>) -> bool {
    filter.iter().all(|(field, value)| item.get(field) == Some(value))
}

/// Preamble and solved examples.
fn examples(
    task: &Task,
    item: &Map<String, Value>,
    line: usize,
    shots: &[&(usize, Map<String, Value>)],
) -> Result<String, String> {
    let mut text = Fields { task, item }.fill(&task.preamble)?;
    let same = |shot: &&&(usize, Map<String, Value>)| {
        shot.0 != line && task.shots_same.as_ref().is_none_or(|field| shot.1.get(field) == item.get(field))
    };
    let mut found = 0;
    for (shot_line, shot) in shots.iter().filter(same).take(task.shots).map(|shot| (shot.0, &shot.1)) {
        let fields = Fields { task, item: shot };
        let solved = fields.solved().map_err(|what| format!("its example on line {shot_line}: {what}"))?;
        text.push_str(&solved);
        text.push_str(&task.separator);
        found += 1;
    }
    if found < task.shots {
        return Err(format!("expected {} examples for it in the file, found {found}", task.shots));
    }
    Ok(text)
}

/// An item under the eyes of its task.
struct Fields<'a> {
    task: &'a Task,
    item: &'a Map<String, Value>,
}

impl Fields<'_> {
    fn ask(&self, before: &str) -> Result<Ask, String> {
        let task = self.task;
        let prompt = || Ok::<_, String>(format!("{before}{}", self.fill(&task.prompt)?));
        Ok(match task.kind {
            Kind::Choice => {
                let texts = self.choices()?;
                let gold = self.gold(&texts)?;
                let end = |text: &str| format!("{}{text}", task.delimiter);
                let (pairs, letters) = match &task.prompts {
                    None => {
                        let prompt = prompt()?;
                        let pairs = texts.iter().map(|(_, text)| (prompt.clone(), end(text))).collect();
                        (pairs, texts.iter().map(|(_, text)| text.chars().count()).collect())
                    }
                    Some(_) => {
                        let one = self.fill(task.end.as_deref().unwrap_or_default())?;
                        if one.is_empty() {
                            return Err("the end is empty".to_owned());
                        }
                        let pairs =
                            texts.iter().map(|(_, text)| (format!("{before}{text}"), end(&one))).collect();
                        (pairs, vec![one.chars().count(); texts.len()])
                    }
                };
                Ask::Choice { pairs, letters, unconditional: task.unconditional.clone(), gold }
            }
            Kind::Cloze => {
                let end = self.fill(task.end.as_deref().unwrap_or_default())?;
                if end.is_empty() {
                    return Err("the end is empty".to_owned());
                }
                Ask::Cloze { prompt: prompt()?, end: format!("{}{end}", task.delimiter) }
            }
            Kind::Number => {
                let field = task.gold.as_deref().unwrap_or_default();
                let answer = self.text(field)?;
                let number = strict_number(&answer).or_else(|| last_number(&answer));
                let number = number.ok_or_else(|| format!("`{field}` holds no number"))?;
                Ask::Write { prompt: prompt()?, gold: Gold::Number(number) }
            }
            Kind::Instructions => Ask::Write { prompt: prompt()?, gold: Gold::Rules(self.rules()?) },
        })
    }

    /// The question with its answer.
    fn solved(&self) -> Result<String, String> {
        let task = self.task;
        let prompt = self.fill(&task.prompt)?;
        Ok(match task.kind {
            Kind::Choice => {
                let texts = self.choices()?;
                let gold = self.gold(&texts)?;
                match &task.prompts {
                    None => format!("{prompt}{}{}", task.delimiter, texts[gold].1),
                    Some(_) => {
                        let end = self.fill(task.end.as_deref().unwrap_or_default())?;
                        format!("{}{}{end}", texts[gold].1, task.delimiter)
                    }
                }
            }
            Kind::Cloze => {
                let end = self.fill(task.end.as_deref().unwrap_or_default())?;
                format!("{prompt}{}{end}", task.delimiter)
            }
            Kind::Number | Kind::Instructions => {
                let answer = self.text(task.gold.as_deref().unwrap_or_default())?;
                format!("{prompt}{}{answer}", task.delimiter)
            }
        })
    }

    /// Letters and texts of the choices (or of the beginnings).
    fn choices(&self) -> Result<Vec<(String, String)>, String> {
        let list: Vec<(String, Value)> = if let Some(options) = &self.task.options {
            options.iter().map(|option| (option.clone(), option.clone().into())).collect()
        } else {
            let field = self.task.choices.as_ref().or(self.task.prompts.as_ref()).map_or("", String::as_str);
            match self.value(field)? {
                Value::Array(list) => (0..).map(|n: usize| n.to_string()).zip(list.iter().cloned()).collect(),
                Value::Object(map) => map.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
                other => {
                    return Err(format!("`{field}`: expected a list of choices, found {}", short(other)));
                }
            }
        };
        if list.len() < 2 {
            return Err(format!("expected at least 2 choices, found {}", list.len()));
        }
        let text = |(nth, (letter, value)): (usize, (String, Value))| match value {
            Value::String(text) if !text.trim().is_empty() => Ok((letter, text)),
            Value::Number(number) => Ok((letter, number.to_string())),
            Value::String(_) => Err(format!("choice {} is empty", nth + 1)),
            other => Err(format!("choice {}: expected text, found {}", nth + 1, short(&other))),
        };
        list.into_iter().enumerate().map(text).collect()
    }

    fn gold(&self, choices: &[(String, String)]) -> Result<usize, String> {
        let field = self.task.gold.as_deref().unwrap_or_default();
        let value = self.value(field)?;
        let found = match value {
            Value::Number(number) => number.as_u64().map(|n| n as usize).filter(|n| *n < choices.len()),
            Value::String(text) => choices
                .iter()
                .position(|(letter, _)| letter == text)
                .or_else(|| choices.iter().position(|(_, choice)| choice == text)),
            _ => None,
        };
        found.ok_or_else(|| {
            format!("`{field}`: expected one of {} choices, found {}", choices.len(), short(value))
        })
    }

    fn rules(&self) -> Result<Rules, String> {
        let list = |field| match self.value(field)? {
            Value::Array(list) => Ok(list),
            other => Err(format!("`{field}`: expected a list, found {}", short(other))),
        };
        let (names, arguments) = (list("instruction_id_list")?, list("kwargs")?);
        if names.len() != arguments.len() || names.is_empty() {
            return Err(format!("{} instructions with {} sets of arguments", names.len(), arguments.len()));
        }
        let rule = |(name, arguments): (&Value, &Value)| match (name, arguments) {
            (Value::String(name), Value::Object(arguments)) => {
                super::instructions::check_rule(name, arguments)?;
                Ok((name.clone(), arguments.clone()))
            }
            _ => Err(format!("expected an instruction's name and arguments, found {}", short(name))),
        };
        names.iter().zip(arguments).map(rule).collect()
    }

    fn value(&self, path: &str) -> Result<&Value, String> {
        let mut parts = path.split('.');
        let first = parts.next().unwrap_or_default();
        let mut value = self.item.get(first).ok_or_else(|| format!("field `{first}` is missing"))?;
        for part in parts {
            let next = match value {
                Value::Array(list) => part.parse::<usize>().ok().and_then(|nth| list.get(nth)),
                Value::Object(map) => map.get(part),
                _ => None,
            };
            value = next.ok_or_else(|| format!("field `{path}` is missing"))?;
        }
        Ok(value)
    }

    fn text(&self, path: &str) -> Result<String, String> {
        let text = match self.value(path)? {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            other => return Err(format!("`{path}`: expected text, found {}", short(other))),
        };
        let spaced = self.task.spaced.iter().any(|field| field == path);
        Ok(if spaced { text.replace('_', " ") } else { text })
    }

    /// A template with its fields filled in.
    fn fill(&self, template: &str) -> Result<String, String> {
        let mut text = String::with_capacity(template.len());
        let mut rest = template;
        while let Some(at) = rest.find('{') {
            text.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('{') {
                text.push('{');
                rest = after;
                continue;
            }
            let end = rest.find('}').ok_or("a template's `{` has no `}`")?;
            text.push_str(&self.text(&rest[..end])?);
            rest = &rest[end + 1..];
        }
        text.push_str(rest);
        Ok(text)
    }
}

fn short(value: &Value) -> String {
    quoted(&value.to_string())
}
