//! What clients change about the list: models that come, other names for them, models that go.

use std::thread::JoinHandle;

use super::{Entry, Models, State, is_same, unload};
use crate::error::Refusal;
use crate::limits::{COPIES, MODELS, NAME};
use crate::served::Served;

/// Models that were taken off the list, to be put back or forgotten.
pub(crate) struct Taken(Vec<Entry>);

impl Taken {
    /// The threads that own them, which end.
    pub(crate) fn threads(&mut self) -> Vec<JoinHandle<()>> {
        self.0.iter_mut().filter_map(|entry| entry.thread.take()).collect()
    }

    /// The names of all.
    pub(crate) fn names(&self) -> Vec<String> {
        self.0.iter().map(|entry| entry.served.name.clone()).collect()
    }
}

/// What is deleted.
pub(crate) enum Deleted {
    /// A name that a client had given.
    Copy,
    /// Models, and where a [`crate::Library`] keeps them.
    Models(Taken, String),
    /// Nothing yet: they have requests to answer.
    Busy(Refusal),
}

impl Models {
    /// Whether one more could be added.
    pub(crate) fn has_room(&self) -> Result<(), Refusal> {
        match self.list().len() < MODELS {
            true => Ok(()),
            false => Err(Refusal::conflict(format!(
                "this server has {MODELS} models already, and no room for more"
            ))),
        }
    }

    /// Adds a model that was not there before.
    pub(crate) fn add(&self, served: Served) {
        let mut list = self.list();
        // Somebody else may have been quicker.
        if !list.iter().any(|entry| entry.is_called(&served.name)) {
            list.push(Entry::new(served, State::Cold, self.kv));
        }
    }

    /// Gives a model another name.
    pub(crate) fn copy(&self, from: &str, to: &str) -> Result<(), Refusal> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-_.:/@".contains(c);
        if to.is_empty() || to.len() > NAME || !to.chars().all(fits) {
            let what =
                format!("expected a name of at most {NAME} letters, digits, `-`, `_`, `.`, `:`, `/` and `@`");
            return Err(Refusal::field("destination", what));
        }
        let mut list = self.list();
        let at = Self::exact(&list, from)?;
        match list.iter().position(|entry| entry.is_called(to)) {
            Some(other) if other == at => return Ok(()),
            Some(other) => {
                let what = format!("`{to}` is another model already: `{}`", list[other].served.name);
                return Err(Refusal::conflict(what));
            }
            None => {}
        }
        if list.iter().map(|entry| entry.copies.len()).sum::<usize>() >= COPIES {
            return Err(Refusal::conflict(format!("there are {COPIES} copies already: delete one first")));
        }
        list[at].copies.push(to.to_owned());
        Ok(())
    }

    /// Takes what has this name off the list: a name that a client gave, or a model with all that are kept in the same
    /// place.
    pub(crate) fn take(&self, asked: &str) -> Result<Deleted, Refusal> {
        let mut list = self.list();
        let at = Self::exact(&list, asked)?;
        let copies = &mut list[at].copies;
        if let Some(copy) = copies.iter().position(|copy| is_same(copy, asked)) {
            copies.remove(copy);
            return Ok(Deleted::Copy);
        }
        let name = list[at].served.name.clone();
        let Some(kept_in) = list[at].served.kept_in.clone() else {
            let what = "is a file or folder of the server's owner, not a downloaded model";
            return Err(Refusal::forbidden(format!("`{name}` {what}: clients cannot delete it")));
        };
        let is_there = |entry: &Entry| entry.served.kept_in.as_ref() == Some(&kept_in);
        let busy = |entry: &&Entry| is_there(entry) && !entry.is_cold() && !entry.is_idle();
        if let Some(entry) = list.iter().find(busy) {
            let what = "is being loaded or has requests to answer: try again when they have ended";
            return Ok(Deleted::Busy(Refusal::conflict(format!("`{}` {what}", entry.served.name))));
        }
        let mut taken: Vec<Entry> = list.extract_if(.., |entry| is_there(entry)).collect();
        taken.iter_mut().for_each(unload);
        Ok(Deleted::Models(Taken(taken), kept_in))
    }

    /// Puts back what could not be removed.
    pub(crate) fn put_back(&self, taken: Taken) {
        self.list().extend(taken.0);
    }
}
