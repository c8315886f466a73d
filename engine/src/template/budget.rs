//! What one rendering may cost. minijinja counts instructions, but one instruction can copy a gigabyte; so everything
//! that reads or makes text or lists also pays here, by size.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind};

/// Values nested deeper than any template needs would exhaust the stack when they are compared, printed or dropped.
const MAX_DEPTH: usize = 32;

/// An error about what a template does.
pub(super) fn wrong(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, what.into())
}

/// The items of a list, paid for one by one.
pub(super) fn items(budget: &Budget, list: &Value) -> Result<Vec<Value>, Error> {
    let mut items = Vec::new();
    for item in list.try_iter()?.checked() {
        budget.make(32)?;
        items.push(item?);
    }
    Ok(items)
}

/// One unit buys 16 bytes read or 4 bytes made.
pub(super) struct Budget(AtomicU64);

/// Looking at one element of a list takes some 100 ns.
const ELEMENT: usize = 8;

impl Budget {
    /// Enough for 24 MB of new text or 800 000 elements, and more where the messages themselves are many or long.
    pub(super) fn new(messages: usize, bytes: usize) -> Self {
        Self(AtomicU64::new((6 << 20) + 4096 * messages as u64 + 8 * bytes as u64))
    }

    fn spend(&self, units: usize) -> Result<(), Error> {
        let spent =
            self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(units as u64));
        spent
            .map(drop)
            .map_err(|_| Error::new(ErrorKind::OutOfFuel, "it makes too much text or too large lists"))
    }

    /// Pays for reading this many bytes.
    pub(super) fn read(&self, bytes: usize) -> Result<(), Error> {
        self.spend(bytes / 16 + 1)
    }

    /// Pays for making this many bytes.
    pub(super) fn make(&self, bytes: usize) -> Result<(), Error> {
        self.spend(bytes / 4 + 1)
    }

    /// Pays for every element in a value, and refuses one that must not be part of another value.
    pub(super) fn elements(&self, value: &Value) -> Result<(), Error> {
        self.walk(value, 0, false)
    }

    /// Pays for everything in a value, down to its texts.
    pub(super) fn contents(&self, value: &Value) -> Result<(), Error> {
        self.walk(value, 0, true)
    }

    fn walk(&self, value: &Value, depth: usize, texts: bool) -> Result<(), Error> {
        if let Some(text) = value.as_str() {
            return if texts { self.read(text.len()) } else { self.spend(ELEMENT) };
        }
        self.spend(ELEMENT)?;
        // Namespaces could hold themselves; loops and the like live shorter than what holds them.
        if depth > 0 && value.kind() == ValueKind::Plain {
            return Err(Error::new(ErrorKind::InvalidOperation, "that cannot be part of another value"));
        }
        if depth > MAX_DEPTH {
            let what = format!("values nested deeper than {MAX_DEPTH}");
            return Err(Error::new(ErrorKind::InvalidOperation, what));
        }
        match value.kind() {
            ValueKind::Map => {
                for key in value.try_iter()? {
                    self.walk(&key, depth + 1, texts)?;
                    self.walk(&value.get_item(&key)?, depth + 1, texts)?;
                }
            }
            ValueKind::Seq | ValueKind::Iterable => {
                for item in value.try_iter()? {
                    self.walk(&item, depth + 1, texts)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The text of a value, paid for as it is written.
    pub(super) fn text(&self, value: &Value) -> Result<String, Error> {
        if let Some(text) = value.as_str() {
            self.make(text.len())?;
            return Ok(text.to_owned());
        }
        let mut text = Limited { text: String::new(), budget: self };
        match fmt::Write::write_fmt(&mut text, format_args!("{value}")) {
            Ok(()) => Ok(text.text),
            Err(_) => Err(Error::new(ErrorKind::OutOfFuel, "it makes too much text")),
        }
    }
}

struct Limited<'b> {
    text: String,
    budget: &'b Budget,
}

impl fmt::Write for Limited<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.budget.make(text.len()).map_err(|_| fmt::Error)?;
        self.text.push_str(text);
        Ok(())
    }
}
