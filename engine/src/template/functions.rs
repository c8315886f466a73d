//! What a template can call: the operators that [`rewrite`](super::rewrite) made into calls, filters, tests and global
//! functions. Those that come from minijinja are wrapped so that they pay; those that could make far more than they
//! are given are written here.

use std::sync::Arc;

use minijinja::value::{Kwargs, Rest, Tuple, Value, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, State, filters, functions, tests};

use super::budget::{Budget, items, wrong};
use super::namespace::Namespace;
use super::{json, methods, rewrite};

/// All arguments, with the named ones as the last.
type Args = Rest<ValueOrKwargs>;

/// Installs everything; `budget` is this rendering's.
pub(super) fn install(environment: &mut Environment, budget: &Arc<Budget>) {
    operators(environment, budget);
    safe_filters(environment, budget);
    own_filters(environment, budget);
    simple_tests(environment);

    let paying = budget.clone();
    environment.add_function("range", move |state: &mut State, args: Args| {
        let range = Value::from_function(functions::range).call(state, &args.into_values())?;
        plain(&paying, range)
    });
    let paying = budget.clone();
    environment.add_function("dict", move |state: &mut State, args: Args| {
        let dict = Value::from_function(functions::dict).call(state, &args.into_values())?;
        paying.elements(&dict).map(|()| dict)
    });
    environment.add_function("namespace", |args: Args| {
        let namespace = Namespace::default();
        for pairs in args.into_values() {
            for name in pairs.try_iter()? {
                assign(&namespace, &name, pairs.get_item(&name)?)?;
            }
        }
        Ok::<_, Error>(Value::from_object(namespace))
    });
    environment.add_function("raise_exception", |message: Value| -> Result<Value, Error> {
        Err(wrong(message.as_str().unwrap_or("it raised an exception")))
    });
    let paying = budget.clone();
    environment.add_function("strftime_now", move |format: &str| {
        paying.make(32 * format.len())?;
        super::clock::strftime(format).map_err(wrong)
    });

    let paying = budget.clone();
    environment.set_unknown_method_callback(move |_, value, method, args| {
        paying.contents(value)?;
        plain(&paying, methods::call(&paying, value, method, args)?)
    });
    let paying = budget.clone();
    environment.set_formatter(move |out, _, value| {
        if value.is_undefined() {
            return Ok(());
        }
        if let Some(text) = value.as_str() {
            paying.make(text.len())?;
            return out.write_str(text).map_err(Error::from);
        }
        out.write_str(&paying.text(value)?).map_err(Error::from)
    });
}

/// A value whose lists are lists, not something lazy that holds the list it came from, which holds another ...
fn plain(budget: &Budget, value: Value) -> Result<Value, Error> {
    let value = match value.kind() {
        ValueKind::Iterable => Value::from(items(budget, &value)?),
        ValueKind::Seq if !value.is_tuple() => Value::from(items(budget, &value)?),
        _ => value,
    };
    budget.elements(&value)?;
    Ok(value)
}

fn is_list(value: &Value) -> bool {
    matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable)
}

fn assign(namespace: &Namespace, name: &Value, value: Value) -> Result<(), Error> {
    if value.downcast_object_ref::<Namespace>().is_some() {
        return Err(wrong("a namespace cannot be part of another value"));
    }
    namespace.set(name.as_str().ok_or_else(|| wrong("names in a namespace are strings"))?, value);
    Ok(())
}

fn operators(environment: &mut Environment, budget: &Arc<Budget>) {
    let b = budget.clone();
    environment.add_function(rewrite::ADD, move |left: Value, right: Value| {
        if let (Some(left), Some(right)) = (left.as_str(), right.as_str()) {
            b.make(left.len() + right.len())?;
            return Ok(Value::from([left, right].concat()));
        }
        if is_list(&left) && is_list(&right) {
            let mut all = items(&b, &left)?;
            all.extend(items(&b, &right)?);
            return Ok(Value::from(all));
        }
        arithmetic("+", &left, &right, i128::checked_add, |a, b| a + b)
    });
    let b = budget.clone();
    environment.add_function(rewrite::MULTIPLY, move |left: Value, right: Value| {
        let (what, times) = if right.is_integer() { (&left, &right) } else { (&right, &left) };
        let times = times.as_i64().map(|times| times.max(0) as usize);
        match (what.as_str(), times) {
            (Some(text), Some(times)) => {
                b.make(text.len().saturating_mul(times))?;
                Ok(Value::from(text.repeat(times)))
            }
            (None, Some(times)) if is_list(what) => {
                let items = items(&b, what)?;
                b.make(items.len().saturating_mul(times).saturating_mul(32))?;
                Ok(Value::from(vec![items; times].concat()))
            }
            _ => arithmetic("*", &left, &right, i128::checked_mul, |a, b| a * b),
        }
    });
    let b = budget.clone();
    environment.add_function(rewrite::JOIN, move |left: Value, right: Value| {
        let mut joined = b.text(&left)?;
        joined.push_str(&b.text(&right)?);
        Ok::<_, Error>(joined)
    });
    let b = budget.clone();
    environment.add_function(rewrite::LIST, move |items: Rest<Value>| {
        let list = Value::from(items.0);
        b.elements(&list).map(|()| list)
    });
    let b = budget.clone();
    environment.add_function(rewrite::TUPLE, move |items: Rest<Value>| {
        let tuple = Value::from(Tuple::from(items.0));
        b.elements(&tuple).map(|()| tuple)
    });
    let b = budget.clone();
    environment.add_function(rewrite::MAP, move |pairs: Rest<Value>| {
        let (pairs, _) = pairs.0.as_chunks::<2>();
        let map = Value::from_pairs(pairs.iter().cloned().map(|[key, value]| (key, value)));
        b.elements(&map).map(|()| map)
    });
    let b = budget.clone();
    environment.add_function(rewrite::SLICE, move |of: Value, start: Value, stop: Value, step: Value| {
        slice(&b, &of, [&start, &stop, &step])
    });
    let b = budget.clone();
    environment.add_function(rewrite::ITEM, move |of: Value, key: Value| {
        if of.as_str().is_some() {
            b.contents(&of)?;
        }
        b.contents(&key)?;
        of.get_item(&key)
    });
    environment.add_function(rewrite::ASSIGN, |of: Value, name: Value, value: Value| {
        let namespace = of.downcast_object_ref::<Namespace>();
        assign(namespace.ok_or_else(|| wrong("only a namespace can be assigned to"))?, &name, value)
    });
    let b = budget.clone();
    environment.add_function(rewrite::READ, move |value: Value| b.contents(&value).map(|()| value));
    let b = budget.clone();
    environment.add_function(rewrite::EACH, move |value: Value| b.elements(&value).map(|()| value));
}

fn arithmetic(
    name: &str,
    left: &Value,
    right: &Value,
    whole: impl Fn(i128, i128) -> Option<i128>,
    real: impl Fn(f64, f64) -> f64,
) -> Result<Value, Error> {
    let number = |value: &Value| value.is_number() || value.kind() == ValueKind::Bool;
    if number(left) && number(right) {
        if let (Ok(a), Ok(b)) = (i128::try_from(left.clone()), i128::try_from(right.clone()))
            && !(is_float(left) || is_float(right))
        {
            let result = whole(a, b).ok_or_else(|| wrong(format!("{name}: the result is too large")))?;
            return Ok(i64::try_from(result).map_or_else(|_| Value::from(result), Value::from));
        }
        if let (Ok(a), Ok(b)) = (f64::try_from(left.clone()), f64::try_from(right.clone())) {
            return Ok(Value::from(real(a, b)));
        }
    }
    Err(wrong(format!("cannot use {name} between {} and {}", left.kind(), right.kind())))
}

fn is_float(value: &Value) -> bool {
    value.is_number() && !value.is_integer()
}

/// Python's slices of strings (by characters) and lists.
fn slice(budget: &Budget, of: &Value, [start, stop, step]: [&Value; 3]) -> Result<Value, Error> {
    let number = |value: &Value| -> Result<Option<i64>, Error> {
        if value.is_none() || value.is_undefined() {
            return Ok(None);
        }
        value.as_i64().map(Some).ok_or_else(|| wrong("the ends of a slice are integers"))
    };
    let (start, stop) = (number(start)?, number(stop)?);
    let step = number(step)?.unwrap_or(1);
    if step == 0 {
        return Err(wrong("a slice cannot have step 0"));
    }
    let picked = |len: usize| -> Box<dyn Iterator<Item = usize>> {
        let len = len as i64;
        let from_end = |at: i64| if at < 0 { at.saturating_add(len) } else { at };
        if step > 0 {
            let start = from_end(start.unwrap_or(0)).clamp(0, len);
            let stop = from_end(stop.unwrap_or(len)).clamp(0, len).max(start);
            Box::new((start as usize..stop as usize).step_by(step as usize))
        } else {
            let start = start.map_or(len - 1, |at| from_end(at).clamp(-1, len - 1));
            let stop = stop.map_or(-1, |at| from_end(at).clamp(-1, len - 1)).min(start);
            let step = step.unsigned_abs() as usize;
            Box::new(
                (0..(start - stop) as usize).step_by(step).map(move |back| (start - back as i64) as usize),
            )
        }
    };
    if let Some(text) = of.as_str() {
        budget.make(text.len().saturating_mul(5))?;
        let chars: Vec<char> = text.chars().collect();
        return Ok(Value::from(picked(chars.len()).map(|at| chars[at]).collect::<String>()));
    }
    if of.is_none() || of.is_undefined() {
        return Ok(Value::from(Vec::<Value>::new()));
    }
    let items = items(budget, of)?;
    Ok(Value::from(picked(items.len()).map(|at| items[at].clone()).collect::<Vec<_>>()))
}

/// Filters that make little more than they are given.
fn safe_filters(environment: &mut Environment, budget: &Arc<Budget>) {
    let all = [
        ("abs", Value::from_function(filters::abs)),
        ("attr", Value::from_function(filters::attr)),
        ("bool", Value::from_function(filters::bool)),
        ("capitalize", Value::from_function(filters::capitalize)),
        ("count", Value::from_function(filters::length)),
        ("d", Value::from_function(filters::default)),
        ("default", Value::from_function(filters::default)),
        ("dictsort", Value::from_function(filters::dictsort)),
        ("e", Value::from_function(filters::escape)),
        ("escape", Value::from_function(filters::escape)),
        ("first", Value::from_function(filters::first)),
        ("float", Value::from_function(filters::float)),
        ("int", Value::from_function(filters::int)),
        ("items", Value::from_function(filters::items)),
        ("last", Value::from_function(filters::last)),
        ("length", Value::from_function(filters::length)),
        ("lines", Value::from_function(filters::lines)),
        ("list", Value::from_function(filters::list)),
        ("lower", Value::from_function(filters::lower)),
        ("map", Value::from_function(filters::map)),
        ("max", Value::from_function(filters::max)),
        ("min", Value::from_function(filters::min)),
        ("reject", Value::from_function(filters::reject)),
        ("rejectattr", Value::from_function(filters::rejectattr)),
        ("reverse", Value::from_function(filters::reverse)),
        ("safe", Value::from_function(|value: Value| value)),
        ("select", Value::from_function(filters::select)),
        ("selectattr", Value::from_function(filters::selectattr)),
        ("sort", Value::from_function(filters::sort)),
        ("split", Value::from_function(filters::split)),
        ("title", Value::from_function(filters::title)),
        ("trim", Value::from_function(filters::trim)),
        ("unique", Value::from_function(filters::unique)),
        ("upper", Value::from_function(filters::upper)),
    ];
    for (name, filter) in all {
        let budget = budget.clone();
        // Sorting looks at each item some log2(n) times; making copies costs as much as the other half.
        let times = if matches!(name, "sort" | "dictsort" | "unique") { 20 } else { 4 };
        environment.add_filter(name, move |state: &mut State, args: Args| {
            let args = args.into_values();
            for _ in 0..times {
                args.iter().try_for_each(|arg| budget.contents(arg))?;
            }
            plain(&budget, filter.call(state, &args)?)
        });
    }
}

/// Filters that could make a large text of small ones.
fn own_filters(environment: &mut Environment, budget: &Arc<Budget>) {
    let b = budget.clone();
    environment.add_filter("string", move |value: Value| b.text(&value));
    let b = budget.clone();
    environment.add_filter("replace", move |text: Value, from: Value, to: Value, count: Option<i64>| {
        let (text, from, to) = (b.text(&text)?, b.text(&from)?, b.text(&to)?);
        methods::replace(&b, &text, &from, &to, count.unwrap_or(-1))
    });
    let b = budget.clone();
    environment.add_filter("join", move |list: Value, with: Option<Value>, kwargs: Kwargs| {
        let with = with.map_or_else(|| Ok(String::new()), |with| b.text(&with))?;
        let attribute = kwargs.get::<Option<&str>>("attribute")?;
        let mut all = items(&b, &list)?;
        if let Some(attribute) = attribute {
            all = all.iter().map(|item| item.get_attr(attribute)).collect::<Result<_, _>>()?;
        }
        methods::join(&b, &with, &all)
    });
    let b = budget.clone();
    environment.add_filter("indent", move |text: Value, width: Option<Value>, kwargs: Kwargs| {
        let text = b.text(&text)?;
        let width = match width {
            Some(width) => Some(width),
            None => kwargs.get::<Option<Value>>("width")?,
        };
        let indent = match width {
            None => "    ".to_owned(),
            Some(width) => match width.as_usize() {
                Some(width) => {
                    b.make(width)?;
                    " ".repeat(width)
                }
                None => b.text(&width)?,
            },
        };
        let first = kwargs.get::<Option<bool>>("first")?.unwrap_or(false);
        let blank = kwargs.get::<Option<bool>>("blank")?.unwrap_or(false);
        kwargs.assert_all_used()?;
        b.make(text.len().saturating_add(indent.len().saturating_mul(text.matches('\n').count() + 1)))?;
        let mut done = String::new();
        for (number, line) in text.split('\n').enumerate() {
            if number > 0 {
                done.push('\n');
            }
            if if number == 0 { first } else { blank || !line.is_empty() } {
                done.push_str(&indent);
            }
            done.push_str(line);
        }
        Ok::<_, Error>(done)
    });
    let b = budget.clone();
    environment.add_filter("tojson", move |value: Value, kwargs: Kwargs| json::dumps(&b, &value, &kwargs));
}

fn simple_tests(environment: &mut Environment) {
    // The arguments are paid for where they are written.
    let all = [
        ("boolean", Value::from_function(tests::is_boolean)),
        ("defined", Value::from_function(tests::is_defined)),
        ("divisibleby", Value::from_function(tests::is_divisibleby)),
        ("endingwith", Value::from_function(tests::is_endingwith)),
        ("eq", Value::from_function(tests::is_eq)),
        ("==", Value::from_function(tests::is_eq)),
        ("equalto", Value::from_function(tests::is_eq)),
        ("even", Value::from_function(tests::is_even)),
        ("false", Value::from_function(tests::is_false)),
        ("float", Value::from_function(tests::is_float)),
        ("ge", Value::from_function(tests::is_ge)),
        ("gt", Value::from_function(tests::is_gt)),
        ("in", Value::from_function(tests::is_in)),
        ("int", Value::from_function(tests::is_integer)),
        ("integer", Value::from_function(tests::is_integer)),
        ("iterable", Value::from_function(tests::is_iterable)),
        ("le", Value::from_function(tests::is_le)),
        ("lower", Value::from_function(tests::is_lower)),
        ("lt", Value::from_function(tests::is_lt)),
        ("mapping", Value::from_function(tests::is_mapping)),
        ("ne", Value::from_function(tests::is_ne)),
        ("!=", Value::from_function(tests::is_ne)),
        ("none", Value::from_function(tests::is_none)),
        ("number", Value::from_function(tests::is_number)),
        ("odd", Value::from_function(tests::is_odd)),
        ("sameas", Value::from_function(tests::is_sameas)),
        ("sequence", Value::from_function(tests::is_sequence)),
        ("startingwith", Value::from_function(tests::is_startingwith)),
        ("string", Value::from_function(tests::is_string)),
        ("true", Value::from_function(tests::is_true)),
        ("undefined", Value::from_function(tests::is_undefined)),
        ("upper", Value::from_function(tests::is_upper)),
    ];
    for (name, test) in all {
        environment.add_test(name, move |state: &mut State, args: Args| {
            test.call(state, &args.into_values()).map(|answer| answer.is_true())
        });
    }
}
