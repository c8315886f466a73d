//! Tasks: questions of public test sets, how they are put to a model, and how its answers are graded.
//!
//! A task is a small JSON file ([`Task`]); those in `tasks/builtin/` are built in, and a user's own work the same way.
//! Nothing here runs a model: questions come out as texts to be scored or continued, answers go in, grades come out.

mod grade;
mod instructions;
mod items;
mod language;
mod numbers;
mod task;
mod words;

pub use grade::{Answer, Record, Tally, Total, grade};
pub use items::{Ask, Gold, Question, Read, Rules, read};
pub use task::{Kind, Task, builtin};
