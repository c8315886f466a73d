//! Python's methods of strings and dictionaries, as templates written for transformers use them.

use minijinja::value::{Kwargs, Value, ValueKind, from_args};
use minijinja::{Error, ErrorKind};

use super::budget::{Budget, items, wrong};

/// Calls a method; the caller has paid for reading `value`.
pub(super) fn call(budget: &Budget, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    match value.kind() {
        ValueKind::String => string(budget, value.as_str().unwrap_or_default(), method, args),
        ValueKind::Map => map(budget, value, method, args),
        ValueKind::Seq | ValueKind::Iterable => list(budget, value, method, args),
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

/// The text with `from` replaced, `count` times or everywhere if that is negative.
pub(super) fn replace(budget: &Budget, text: &str, from: &str, to: &str, count: i64) -> Result<Value, Error> {
    budget.read(text.len())?;
    let all = if from.is_empty() { text.chars().count() + 1 } else { text.matches(from).count() };
    let count = usize::try_from(count).map_or(all, |count| count.min(all));
    budget.make(text.len().saturating_add(count.saturating_mul(to.len())))?;
    Ok(Value::from(text.replacen(from, to, count)))
}

/// The texts of the items with `with` between them.
pub(super) fn join(budget: &Budget, with: &str, items: &[Value]) -> Result<Value, Error> {
    let mut joined = String::new();
    for (number, item) in items.iter().enumerate() {
        if number > 0 {
            budget.make(with.len())?;
            joined.push_str(with);
        }
        joined.push_str(&budget.text(item)?);
    }
    Ok(Value::from(joined))
}

fn string(budget: &Budget, text: &str, method: &str, args: &[Value]) -> Result<Value, Error> {
    // No method below makes more than three times the text, but for those that pay by themselves.
    budget.make(text.len().saturating_mul(3))?;
    let strip = |start: bool, end: bool| -> Result<Value, Error> {
        let (chars,): (Option<&str>,) = from_args(args)?;
        budget.read(text.len().saturating_mul(chars.map_or(1, str::len)))?;
        let strips = |c: char| chars.map_or(c.is_whitespace(), |chars| chars.contains(c));
        let text = if start { text.trim_start_matches(strips) } else { text };
        Ok(Value::from(if end { text.trim_end_matches(strips) } else { text }))
    };
    let any = |of: &Value, test: &dyn Fn(&str) -> bool| -> Result<Value, Error> {
        let options = if of.as_str().is_some() { vec![of.clone()] } else { items(budget, of)? };
        Ok(Value::from(options.iter().filter_map(Value::as_str).any(test)))
    };
    let position = |at: Option<usize>| Value::from(at.map_or(-1, |at| text[..at].chars().count() as i64));
    match method {
        "strip" => strip(true, true),
        "lstrip" => strip(true, false),
        "rstrip" => strip(false, true),
        "upper" => from_args::<()>(args).map(|()| Value::from(text.to_uppercase())),
        "lower" => from_args::<()>(args).map(|()| Value::from(text.to_lowercase())),
        "title" => from_args::<()>(args).map(|()| Value::from(title(text))),
        "capitalize" => {
            let () = from_args(args)?;
            let mut chars = text.chars();
            let first = chars.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
            Ok(Value::from(first + &chars.as_str().to_lowercase()))
        }
        "startswith" => {
            from_args(args).and_then(|(with,): (&Value,)| any(with, &|with| text.starts_with(with)))
        }
        "endswith" => from_args(args).and_then(|(with,): (&Value,)| any(with, &|with| text.ends_with(with))),
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Ok(Value::from(text.strip_prefix(prefix).unwrap_or(text)))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Ok(Value::from(text.strip_suffix(suffix).unwrap_or(text)))
        }
        "replace" => {
            let (from, to, count): (&str, &str, Option<i64>) = from_args(args)?;
            replace(budget, text, from, to, count.unwrap_or(-1))
        }
        "split" | "rsplit" => {
            let (by, most, kwargs): (Option<&str>, Option<i64>, Kwargs) = from_args(args)?;
            let by = by.map_or_else(|| kwargs.get::<Option<&str>>("sep"), |by| Ok(Some(by)))?;
            let most = most.map_or_else(|| kwargs.get::<Option<i64>>("maxsplit"), |most| Ok(Some(most)))?;
            kwargs.assert_all_used()?;
            budget.make(text.len().saturating_mul(24))?;
            split(text, by, most.and_then(|most| usize::try_from(most).ok()), method == "rsplit")
        }
        "splitlines" => {
            let (keep,): (Option<bool>,) = from_args(args)?;
            budget.make(text.len().saturating_mul(24))?;
            let lines = text.split_inclusive('\n');
            let bare = |line: &str| {
                line.strip_suffix('\n').map_or(line, |l| l.strip_suffix('\r').unwrap_or(l)).to_owned()
            };
            Ok(lines
                .map(|line| Value::from(if keep == Some(true) { line.to_owned() } else { bare(line) }))
                .collect())
        }
        "join" => {
            let (list,): (&Value,) = from_args(args)?;
            join(budget, text, &items(budget, list)?)
        }
        "find" => from_args(args).map(|(what,): (&str,)| position(text.find(what))),
        "rfind" => from_args(args).map(|(what,): (&str,)| position(text.rfind(what))),
        "count" => {
            let (what,): (&str,) = from_args(args)?;
            Ok(Value::from(if what.is_empty() {
                text.chars().count() + 1
            } else {
                text.matches(what).count()
            }))
        }
        "isdigit" | "isnumeric" => Ok(Value::from(!text.is_empty() && text.chars().all(char::is_numeric))),
        "isalpha" => Ok(Value::from(!text.is_empty() && text.chars().all(char::is_alphabetic))),
        "isalnum" => Ok(Value::from(!text.is_empty() && text.chars().all(char::is_alphanumeric))),
        "isspace" => Ok(Value::from(!text.is_empty() && text.chars().all(char::is_whitespace))),
        "isupper" => {
            Ok(Value::from(text.chars().any(char::is_uppercase) && !text.chars().any(char::is_lowercase)))
        }
        "islower" => {
            Ok(Value::from(text.chars().any(char::is_lowercase) && !text.chars().any(char::is_uppercase)))
        }
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

/// Python's `str.title`: a letter after anything else is large, all others small.
fn title(text: &str) -> String {
    let mut after_letter = false;
    let mut titled = String::with_capacity(text.len());
    for char in text.chars() {
        if after_letter {
            titled.extend(char.to_lowercase());
        } else {
            titled.extend(char.to_uppercase());
        }
        after_letter = char.is_alphabetic();
    }
    titled
}

fn split(text: &str, by: Option<&str>, most: Option<usize>, from_end: bool) -> Result<Value, Error> {
    let limit = most.map_or(usize::MAX, |most| most.saturating_add(1));
    let parts: Vec<&str> = match by {
        Some("") => return Err(wrong("split: the separator is empty")),
        Some(by) if from_end => {
            let mut parts: Vec<&str> = text.rsplitn(limit, by).collect();
            parts.reverse();
            parts
        }
        Some(by) => text.splitn(limit, by).collect(),
        None if from_end && most.is_some() => return Err(wrong("rsplit: a limit needs a separator")),
        None => {
            let (mut rest, mut parts) = (text.trim_start(), Vec::new());
            while !rest.is_empty() {
                let end =
                    rest.find(char::is_whitespace).filter(|_| parts.len() + 1 < limit).unwrap_or(rest.len());
                parts.push(&rest[..end]);
                rest = rest[end..].trim_start();
            }
            if let Some(last) = parts.last_mut() {
                *last = last.trim_end();
            }
            parts
        }
    };
    Ok(parts.into_iter().map(Value::from).collect())
}

fn map(budget: &Budget, map: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let value = |key: &Value| map.get_item(key);
    match method {
        "get" => {
            let (key, other): (&Value, Option<Value>) = from_args(args)?;
            let found = value(key)?;
            Ok(if found.is_undefined() { other.unwrap_or(Value::from(())) } else { found })
        }
        "keys" => from_args::<()>(args).and_then(|()| items(budget, map)).map(Value::from),
        "values" => {
            let () = from_args(args)?;
            items(budget, map)?.iter().map(value).collect::<Result<Vec<_>, _>>().map(Value::from)
        }
        "items" => {
            let () = from_args(args)?;
            let pair = |key: &Value| Ok::<_, Error>(Value::from(vec![key.clone(), value(key)?]));
            items(budget, map)?.iter().map(pair).collect::<Result<Vec<_>, _>>().map(Value::from)
        }
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

fn list(budget: &Budget, list: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let of = |what: &Value| -> Result<Vec<bool>, Error> {
        budget.contents(what)?;
        Ok(items(budget, list)?.iter().map(|item| item == what).collect())
    };
    match method {
        "count" => from_args(args)
            .and_then(|(what,): (&Value,)| of(what))
            .map(|same| Value::from(same.into_iter().filter(|&same| same).count())),
        "index" => {
            let (what,): (&Value,) = from_args(args)?;
            let at = of(what)?.into_iter().position(|same| same);
            at.map(Value::from).ok_or_else(|| wrong("index: it is not in the list"))
        }
        "append" | "extend" | "insert" | "pop" => {
            Err(wrong(format!("lists cannot be changed: use a namespace and + instead of `{method}`")))
        }
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}
