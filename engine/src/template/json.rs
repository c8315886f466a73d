//! `tojson` as transformers has it: Python's `json.dumps` without escaping letters that are not ASCII.

use minijinja::Error;
use minijinja::value::{Kwargs, Value, ValueKind};

use super::budget::{Budget, items, wrong};

struct Writer<'b> {
    out: String,
    budget: &'b Budget,
    indent: Option<usize>,
    /// Between elements and between key and value.
    separators: (String, String),
    sort: bool,
    ascii: bool,
}

pub(super) fn dumps(budget: &Budget, value: &Value, kwargs: &Kwargs) -> Result<Value, Error> {
    let indent = kwargs.get::<Option<usize>>("indent")?;
    if indent.is_some_and(|indent| indent > 64) {
        return Err(wrong("tojson: an indentation of more than 64"));
    }
    let given = kwargs.get::<Option<Value>>("separators")?;
    let separators = match given.filter(|given| !given.is_none()) {
        Some(given) => {
            let at = |at: usize| given.get_item_by_index(at).and_then(|part| budget.text(&part));
            (at(0)?, at(1)?)
        }
        None => ((if indent.is_some() { "," } else { ", " }).to_owned(), ": ".to_owned()),
    };
    let sort = kwargs.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    let ascii = kwargs.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false);
    kwargs.assert_all_used()?;
    let mut writer = Writer { out: String::new(), budget, indent, separators, sort, ascii };
    // The walk below is as deep as the value: this pays for it and bounds it.
    budget.elements(value)?;
    writer.value(value, 0)?;
    Ok(Value::from(writer.out))
}

impl Writer<'_> {
    fn put(&mut self, text: &str) -> Result<(), Error> {
        self.budget.make(text.len())?;
        self.out.push_str(text);
        Ok(())
    }

    fn line(&mut self, depth: usize) -> Result<(), Error> {
        match self.indent {
            Some(indent) => self.put(&format!("\n{}", " ".repeat(indent * depth))),
            None => Ok(()),
        }
    }

    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        match value.kind() {
            ValueKind::Undefined | ValueKind::None => self.put("null"),
            ValueKind::Bool => self.put(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.put(&value.to_string()),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let items = items(self.budget, value)?;
                self.list(('[', ']'), items.len(), depth, |writer, at| writer.value(&items[at], depth + 1))
            }
            ValueKind::Map => {
                let mut keys = items(self.budget, value)?;
                if self.sort {
                    keys.sort();
                }
                self.list(('{', '}'), keys.len(), depth, |writer, at| {
                    let key = writer.budget.text(&keys[at])?;
                    writer.string(&key)?;
                    writer.put(&writer.separators.1.clone())?;
                    writer.value(&value.get_item(&keys[at])?, depth + 1)
                })
            }
            other => Err(wrong(format!("tojson: {other} is no JSON"))),
        }
    }

    fn list(
        &mut self,
        (open, close): (char, char),
        len: usize,
        depth: usize,
        mut each: impl FnMut(&mut Self, usize) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.put(open.encode_utf8(&mut [0; 4]))?;
        for at in 0..len {
            if at > 0 {
                self.put(&self.separators.0.clone())?;
            }
            self.line(depth + 1)?;
            each(self, at)?;
        }
        if len > 0 {
            self.line(depth)?;
        }
        self.put(close.encode_utf8(&mut [0; 4]))
    }

    fn string(&mut self, text: &str) -> Result<(), Error> {
        self.budget.make(text.len() + 2)?;
        self.out.push('"');
        for char in text.chars() {
            match char {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                char if char < ' ' || (self.ascii && !char.is_ascii()) => {
                    self.budget.make(12)?;
                    for unit in char.encode_utf16(&mut [0; 2]) {
                        self.out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                char => self.out.push(char),
            }
        }
        self.out.push('"');
        Ok(())
    }
}
