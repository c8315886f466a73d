//! Tasks: questions of public test sets, how they are put to a model, and how its answers are graded.
//!
//! A task is a small JSON file ([`Task`]); those in `tasks/builtin/` are built in, and a user's own work the same way.
//! Lines of a file of items become questions ([`read`]), an [`Asker`] puts them to a model, and its answers are graded.

mod ask;
mod grade;
mod instructions;
mod items;
mod language;
mod numbers;
mod task;
mod words;

pub use ask::{Asker, Done};
pub use grade::{Answer, Record, Tally, Total, grade};
pub use items::{Ask, Gold, Question, Read, Rules, read};
pub use task::{Kind, Task, builtin};
