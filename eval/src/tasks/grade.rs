//! Answers become grades, and grades figures with their standard errors.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::instructions;
use super::items::{Ask, Gold, Question};
use super::numbers::{last_number, strict_number};
use super::task::Task;

/// What a model said to a question.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Log-likelihood of each choice, and of each alone where that is wanted.
    Choice {
        /// After its beginning.
        likelihoods: Vec<f64>,
        /// After the beginning that all share.
        alone: Option<Vec<f64>>,
    },
    /// Log-likelihood of the end, and whether the model would have written it.
    Cloze {
        /// Of all its tokens.
        likelihood: f64,
        /// Each was the likeliest.
        best: bool,
    },
    /// What the model wrote.
    Text(String),
}

/// One graded item, as it stands in a log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its line in the file of items.
    pub line: usize,
    /// Its grades by figure: a number, or several where one item counts several times.
    pub grades: Map<String, Value>,
    /// What led to them.
    pub detail: Value,
}

/// Grades an answer.
pub fn grade(question: &Question, answer: &Answer) -> Record {
    let mut grades = Map::new();
    let mut put = |name: &str, value: Value| grades.insert(name.to_owned(), value);
    let detail = match (&question.ask, answer) {
        (Ask::Choice { letters, gold, .. }, Answer::Choice { likelihoods, alone }) => {
            let by = |score: &dyn Fn(usize) -> f64| {
                Value::from(u8::from(first_best(likelihoods.len(), score) == *gold))
            };
            put("acc", by(&|at| likelihoods[at]));
            put("acc_norm", by(&|at| likelihoods[at] / letters[at] as f64));
            if let Some(alone) = alone {
                put("acc_uncond", by(&|at| likelihoods[at] - alone[at]));
            }
            json!({ "logprobs": likelihoods, "alone": alone, "gold": gold })
        }
        (Ask::Cloze { end, .. }, Answer::Cloze { likelihood, best }) => {
            put("acc", u8::from(*best).into());
            put("logprob", (*likelihood).into());
            json!({ "end": end })
        }
        (Ask::Write { gold: Gold::Number(gold), .. }, Answer::Text(text)) => {
            let (strict, last) = (strict_number(text), last_number(text));
            put("exact", u8::from(strict.as_ref() == Some(gold)).into());
            put("exact_flexible", u8::from(last.as_ref() == Some(gold)).into());
            json!({ "gold": gold, "found": strict, "last": last, "text": text })
        }
        (Ask::Write { gold: Gold::Rules(rules), .. }, Answer::Text(text)) => {
            let strict: Vec<bool> =
                rules.iter().map(|(name, arguments)| instructions::follows(name, arguments, text)).collect();
            let loose: Vec<bool> = rules
                .iter()
                .map(|(name, arguments)| {
                    instructions::loosened(text)
                        .iter()
                        .any(|text| instructions::follows(name, arguments, text))
                })
                .collect();
            let all = |rules: &[bool]| Value::from(u8::from(rules.iter().all(|is| *is)));
            let each = |rules: &[bool]| rules.iter().map(|is| Value::from(u8::from(*is))).collect::<Vec<_>>();
            put("prompt_strict", all(&strict));
            put("prompt_loose", all(&loose));
            put("instruction_strict", each(&strict).into());
            put("instruction_loose", each(&loose).into());
            let names: Vec<&String> = rules.iter().map(|(name, _)| name).collect();
            json!({ "rules": names, "text": text })
        }
        (ask, answer) => unreachable!("{answer:?} is no answer to {ask:?}"),
    };
    Record { line: question.line, grades, detail }
}

/// The largest, the first among equals.
fn first_best(count: usize, score: &dyn Fn(usize) -> f64) -> usize {
    (1..count).fold(0, |best, at| if score(at) > score(best) { at } else { best })
}

/// A figure over all items.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Total {
    /// The mean.
    pub value: f64,
    /// Its standard error: that of a sample's mean.
    pub error: f64,
    /// Grades in it.
    pub count: usize,
}

/// Adds grades up.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    sums: Vec<(&'static str, usize, f64, f64)>,
}

impl Tally {
    /// For the figures of a task.
    pub fn new(task: &Task) -> Self {
        Self { sums: task.metrics().iter().map(|name| (*name, 0, 0.0, 0.0)).collect() }
    }

    /// Counts an item.
    pub fn add(&mut self, record: &Record) {
        for (name, count, sum, squares) in &mut self.sums {
            let grades = match record.grades.get(*name) {
                Some(Value::Array(list)) => list.as_slice(),
                Some(one) => std::slice::from_ref(one),
                None => &[],
            };
            for grade in grades.iter().filter_map(Value::as_f64) {
                (*count, *sum, *squares) = (*count + 1, *sum + grade, *squares + grade * grade);
            }
        }
    }

    /// The figures so far, in the order of the task.
    pub fn totals(&self) -> Vec<(&'static str, Total)> {
        let total = |&(name, count, sum, squares): &(&'static str, usize, f64, f64)| {
            let n = count as f64;
            let mean = sum / n;
            let error = ((squares / n - mean * mean).max(0.0) / (n - 1.0)).sqrt();
            (name, Total { value: mean, error, count })
        };
        self.sums.iter().filter(|(_, count, ..)| *count > 0).map(total).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_equal_choices_wins_and_lengths_count() {
        let ask = Ask::Choice { pairs: Vec::new(), letters: vec![4, 1], unconditional: None, gold: 0 };
        let question = Question { line: 3, ask };
        let answer = Answer::Choice { likelihoods: vec![-2.0, -2.0], alone: Some(vec![-1.0, -3.0]) };
        let record = grade(&question, &answer);
        assert_eq!(record.grades["acc"], 1);
        assert_eq!(record.grades["acc_norm"], 1);
        assert_eq!(record.grades["acc_uncond"], 0);
    }

    #[test]
    fn the_error_is_that_of_a_mean() {
        let task = Task::named("copa").unwrap();
        let mut tally = Tally::new(&task);
        for grade in [1, 0, 1, 1] {
            let grades = json!({ "acc": grade }).as_object().unwrap().clone();
            tally.add(&Record { line: 1, grades, detail: Value::Null });
        }
        let [("acc", total)] = tally.totals()[..] else { panic!() };
        assert!((total.value - 0.75).abs() < 1e-12 && (total.error - 0.25).abs() < 1e-12, "{total:?}");
    }
}
