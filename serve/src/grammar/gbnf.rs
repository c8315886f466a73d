//! GBNF, the grammars of llama.cpp, as Lark.
//!
//! llama.cpp follows a grammar character by character, `llguidance` word by word, where a word is the longest text that
//! fits. A grammar without recursion becomes one word: then both allow the same texts. What recursion separates is cut
//! into words at the names of recursive rules; what may be empty at the end of such a word is written by character, so
//! that a word does not swallow what follows white space.

use std::collections::HashMap;
use std::fmt::Write;

use crate::error::short;
use crate::limits::{RULES, TIMES};

/// Whether a text's first rule is written as GBNF writes it.
pub(super) fn is(text: &str) -> bool {
    let rule = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .find(|line| !line.is_empty());
    rule.and_then(|rule| rule.split_once("::=")).is_some_and(|(name, _)| name.trim().chars().all(in_name))
}

pub(super) fn to_lark(text: &str) -> Result<String, String> {
    let mut parser = Parser { rest: text, line: 1, names: HashMap::new(), rules: Vec::new() };
    parser.rules().map_err(|what| format!("GBNF, line {}: {what}", parser.line))?;
    let Parser { names, rules, .. } = parser;
    let Some(&root) = names.get("root") else {
        return Err("GBNF: expected a rule `root`, found none".to_owned());
    };
    let mut name_of = vec![""; rules.len()];
    for (name, at) in &names {
        name_of[*at] = name;
    }
    let bodies = rules
        .into_iter()
        .zip(&name_of)
        .map(|(body, name)| body.ok_or_else(|| format!("GBNF: there is no rule `{}`", short(name))));
    let bodies = bodies.collect::<Result<Vec<Part>, _>>()?;
    let order = regular(&bodies);
    let mut writer = Writer {
        bodies: &bodies,
        regular: vec![false; bodies.len()],
        empty: vec![false; bodies.len()],
        words: 0,
        loose: Vec::new(),
        is_loose: vec![false; bodies.len()],
        out: String::new(),
    };
    for at in order {
        writer.empty[at] = writer.may_be_empty(&bodies[at]);
        writer.regular[at] = true;
    }
    let start = writer.reference(root);
    let _ = writeln!(writer.out, "start: {start}");
    for (at, body) in bodies.iter().enumerate() {
        let name = writer.reference(at);
        let body = if writer.regular[at] { writer.word(body) } else { writer.rule(body) };
        let _ = writeln!(writer.out, "{name}: {body}");
    }
    while let Some(at) = writer.loose.pop() {
        let body = writer.characters(&bodies[at]);
        let _ = writeln!(writer.out, "c{at}: {body}");
    }
    Ok(writer.out)
}

/// What a rule is made of.
enum Part {
    Text(String),
    /// A regular expression for one character.
    Class(String),
    Rule(usize),
    All(Vec<Part>),
    Any(Vec<Part>),
    Times(Box<Part>, usize, Option<usize>),
}

fn in_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

struct Parser<'a> {
    rest: &'a str,
    line: usize,
    /// Numbers of the rules.
    names: HashMap<&'a str, usize>,
    rules: Vec<Option<Part>>,
}

/// Groups within groups.
const NESTING: usize = 24;

impl<'a> Parser<'a> {
    fn rules(&mut self) -> Result<(), String> {
        loop {
            self.space(true);
            if self.rest.is_empty() {
                return Ok(());
            }
            let name = self.name().ok_or_else(|| self.unexpected("a rule's name"))?;
            let at = self.number(name)?;
            self.space(false);
            if !self.take("::=") {
                return Err(self.unexpected("`::=`"));
            }
            self.space(true);
            let body = self.alternatives(0)?;
            if self.rules[at].replace(body).is_some() {
                return Err(format!("there are two rules `{}`", short(name)));
            }
            if !self.rest.is_empty() && !self.rest.starts_with(['\n', '\r']) {
                return Err(self.unexpected("the end of the rule"));
            }
        }
    }

    /// A rule's number, whether it was seen before or not.
    fn number(&mut self, name: &'a str) -> Result<usize, String> {
        let next = self.names.len();
        let at = *self.names.entry(name).or_insert(next);
        if at == next {
            if next == RULES {
                return Err(format!("expected at most {RULES} rules"));
            }
            self.rules.push(None);
        }
        Ok(at)
    }

    fn alternatives(&mut self, depth: usize) -> Result<Part, String> {
        if depth > NESTING {
            return Err(format!("expected at most {NESTING} groups within each other"));
        }
        let mut list = vec![self.sequence(depth)?];
        loop {
            // An alternative can begin on a line of its own.
            let (rest, line) = (self.rest, self.line);
            self.space(true);
            if !self.take("|") {
                (self.rest, self.line) = if depth > 0 { (self.rest, self.line) } else { (rest, line) };
                break;
            }
            self.space(true);
            list.push(self.sequence(depth)?);
        }
        Ok(if list.len() == 1 { list.swap_remove(0) } else { Part::Any(list) })
    }

    fn sequence(&mut self, depth: usize) -> Result<Part, String> {
        let mut list = Vec::new();
        loop {
            self.space(depth > 0);
            let part = match self.rest.chars().next() {
                Some('"') => {
                    self.take("\"");
                    Part::Text(self.text()?)
                }
                Some('[') => {
                    self.take("[");
                    Part::Class(self.class()?)
                }
                Some('.') => {
                    self.take(".");
                    Part::Class("(?s:.)".to_owned())
                }
                Some('(') => {
                    self.take("(");
                    let group = self.alternatives(depth + 1)?;
                    if !self.take(")") {
                        return Err(self.unexpected("`)`"));
                    }
                    group
                }
                Some('<' | '!') => return Err("tokens (`<...>`) are not known here".to_owned()),
                Some(c) if in_name(c) => {
                    let name = self.name().unwrap_or_default();
                    Part::Rule(self.number(name)?)
                }
                _ => break,
            };
            let part = self.times(part)?;
            list.push(part);
        }
        Ok(if list.len() == 1 { list.swap_remove(0) } else { Part::All(list) })
    }

    /// `*`, `+`, `?`, `{2}`, `{2,}` or `{2,5}` after a part.
    fn times(&mut self, mut part: Part) -> Result<Part, String> {
        loop {
            self.space(false);
            let (least, most) = match self.rest.chars().next() {
                Some('*') => (0, None),
                Some('+') => (1, None),
                Some('?') => (0, Some(1)),
                Some('{') => {
                    let inside = self.rest[1..].split_once('}').ok_or_else(|| self.unexpected("`}`"))?.0;
                    let count = |text: &str| {
                        let count = text.trim().parse::<usize>().ok().filter(|count| *count <= TIMES);
                        count.ok_or_else(|| {
                            format!("expected a number up to {TIMES}, found `{}`", short(text))
                        })
                    };
                    let (least, most) = match inside.split_once(',') {
                        None => (count(inside)?, Some(count(inside)?)),
                        Some((least, most)) if most.trim().is_empty() => (count(least)?, None),
                        Some((least, most)) if least.trim().is_empty() => (0, Some(count(most)?)),
                        Some((least, most)) => (count(least)?, Some(count(most)?)),
                    };
                    if most.is_some_and(|most| most < least) {
                        return Err(format!("`{{{}}}`: the larger number comes first", short(inside)));
                    }
                    self.rest = &self.rest[inside.len() + 1..];
                    (least, most)
                }
                _ => return Ok(part),
            };
            self.rest = &self.rest[1..];
            part = Part::Times(Box::new(part), least, most);
        }
    }

    /// A text up to its closing sign.
    fn text(&mut self) -> Result<String, String> {
        let mut text = String::new();
        loop {
            match self.next("`\"`")? {
                '"' => return Ok(text),
                '\\' => text.push(self.escaped()?),
                c => text.push(c),
            }
        }
    }

    /// A class up to its closing bracket, as a regular expression.
    fn class(&mut self) -> Result<String, String> {
        let mut class = String::from(if self.take("^") { "[^" } else { "[" });
        let mut empty = true;
        loop {
            let one = |parser: &mut Self, class: &mut String| {
                let c = match parser.next("`]`")? {
                    '\\' => parser.escaped()?,
                    c => c,
                };
                let _ = write!(class, "\\x{{{:x}}}", u32::from(c));
                Ok::<_, String>(c)
            };
            if self.take("]") {
                break;
            }
            let first = one(self, &mut class)?;
            if self.rest.starts_with('-') && !self.rest.starts_with("-]") {
                self.take("-");
                class.push('-');
                if one(self, &mut class)? < first {
                    return Err("a range of characters ends before it begins".to_owned());
                }
            }
            empty = false;
        }
        match (empty, class.as_str()) {
            (true, "[^") => Ok("(?s:.)".to_owned()),
            (true, _) => Err("expected characters between `[` and `]`, found none".to_owned()),
            (false, _) => Ok(class + "]"),
        }
    }

    fn escaped(&mut self) -> Result<char, String> {
        let digits = match self.next("a character")? {
            'x' => 2,
            'u' => 4,
            'U' => 8,
            'n' => return Ok('\n'),
            'r' => return Ok('\r'),
            't' => return Ok('\t'),
            c @ ('\\' | '"' | '[' | ']' | '-' | '^' | '/') => return Ok(c),
            c => return Err(format!("`\\{c}` is not known")),
        };
        let code = self.rest.get(..digits).and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let c = code.and_then(char::from_u32).ok_or_else(|| self.unexpected("a character's number"))?;
        self.rest = &self.rest[digits..];
        Ok(c)
    }

    fn next(&mut self, expected: &str) -> Result<char, String> {
        let c = self.rest.chars().next().filter(|c| *c != '\n').ok_or_else(|| self.unexpected(expected))?;
        self.rest = &self.rest[c.len_utf8()..];
        Ok(c)
    }

    fn name(&mut self) -> Option<&'a str> {
        let len = self.rest.find(|c| !in_name(c)).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(len);
        self.rest = rest;
        (len > 0).then_some(name)
    }

    fn take(&mut self, sign: &str) -> bool {
        let rest = self.rest.strip_prefix(sign);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Goes over white space and comments.
    fn space(&mut self, lines: bool) {
        loop {
            match self.rest.chars().next() {
                Some(' ' | '\t') => self.rest = &self.rest[1..],
                Some('\n' | '\r') if lines => {
                    self.line += usize::from(self.rest.starts_with('\n'));
                    self.rest = &self.rest[1..];
                }
                Some('#') => self.rest = &self.rest[self.rest.find('\n').unwrap_or(self.rest.len())..],
                _ => return,
            }
        }
    }

    fn unexpected(&self, expected: &str) -> String {
        match self.rest.lines().next().filter(|_| !self.rest.is_empty()) {
            Some(found) => {
                format!("expected {expected}, found `{}`", found.chars().take(20).collect::<String>())
            }
            None => format!("expected {expected}, found the end"),
        }
    }
}

/// The rules that reach no rule that reaches itself, each after those that it uses.
fn regular(rules: &[Part]) -> Vec<usize> {
    fn uses(part: &Part, used: &mut Vec<usize>) {
        match part {
            Part::Text(_) | Part::Class(_) => {}
            Part::Rule(at) => used.push(*at),
            Part::All(list) | Part::Any(list) => list.iter().for_each(|part| uses(part, used)),
            Part::Times(part, ..) => uses(part, used),
        }
    }
    let mut open: Vec<Vec<usize>> = Vec::new();
    let mut users = vec![Vec::new(); rules.len()];
    for (at, rule) in rules.iter().enumerate() {
        let mut used = Vec::new();
        uses(rule, &mut used);
        used.sort_unstable();
        used.dedup();
        used.iter().for_each(|used| users[*used].push(at));
        open.push(used);
    }
    // From the rules that use none upwards; what is in a circle, or above one, is never reached.
    let mut left: Vec<usize> = open.iter().map(Vec::len).collect();
    let mut next: Vec<usize> = (0..rules.len()).filter(|at| left[*at] == 0).collect();
    let mut regular = Vec::new();
    while let Some(at) = next.pop() {
        regular.push(at);
        for user in &users[at] {
            left[*user] -= 1;
            if left[*user] == 0 {
                next.push(*user);
            }
        }
    }
    regular
}

struct Writer<'a> {
    bodies: &'a [Part],
    /// Whether a rule has no recursion.
    regular: Vec<bool>,
    /// Whether a rule without recursion may be empty.
    empty: Vec<bool>,
    /// Words that were written for parts of rules.
    words: usize,
    /// Rules that are to be written by character, and those that were or will be.
    loose: Vec<usize>,
    is_loose: Vec<bool>,
    out: String,
}

impl<'a> Writer<'a> {
    fn reference(&self, rule: usize) -> String {
        if self.regular[rule] { format!("W{rule}") } else { format!("r{rule}") }
    }

    fn is_regular(&self, part: &Part) -> bool {
        match part {
            Part::Text(_) | Part::Class(_) => true,
            Part::Rule(at) => self.regular[*at],
            Part::All(list) | Part::Any(list) => list.iter().all(|part| self.is_regular(part)),
            Part::Times(part, ..) => self.is_regular(part),
        }
    }

    fn may_be_empty(&self, part: &Part) -> bool {
        match part {
            Part::Text(text) => text.is_empty(),
            Part::Class(_) => false,
            Part::Rule(at) => self.empty[*at],
            Part::All(list) => list.iter().all(|part| self.may_be_empty(part)),
            Part::Any(list) => list.iter().any(|part| self.may_be_empty(part)),
            Part::Times(part, least, _) => *least == 0 || self.may_be_empty(part),
        }
    }

    /// A part without recursion, as a word's body.
    fn word(&self, part: &Part) -> String {
        match part {
            Part::Text(text) => quoted(text),
            Part::Class(class) => format!("/{class}/"),
            Part::Rule(at) => self.reference(*at),
            Part::All(list) if list.is_empty() => "\"\"".to_owned(),
            Part::All(list) => joined(list.iter().map(|part| self.word(part)), " "),
            Part::Any(list) => format!("({})", joined(list.iter().map(|part| self.word(part)), " | ")),
            Part::Times(part, least, most) => format!("({}){}", self.word(part), times(*least, *most)),
        }
    }

    /// A part with recursion, as a rule's body; its other parts become words.
    fn rule(&mut self, part: &'a Part) -> String {
        match part {
            _ if self.is_regular(part) => self.run(vec![part]),
            Part::All(list) => {
                let mut parts = Vec::new();
                let mut from = 0;
                while from < list.len() {
                    let run = list[from..].iter().take_while(|part| self.is_regular(part)).count();
                    if run > 0 {
                        parts.push(self.run(list[from..from + run].iter().collect()));
                    } else {
                        parts.push(self.rule(&list[from]));
                    }
                    from += run.max(1);
                }
                joined(parts.into_iter(), " ")
            }
            Part::Any(list) => {
                let parts: Vec<String> = list.iter().map(|part| self.rule(part)).collect();
                format!("({})", joined(parts.into_iter(), " | "))
            }
            Part::Times(part, least, most) => format!("({}){}", self.rule(part), times(*least, *most)),
            Part::Rule(at) => self.reference(*at),
            Part::Text(_) | Part::Class(_) => String::new(),
        }
    }

    /// Parts without recursion between others: a word, and after it character by character what may be empty at its
    /// end (white space, as a rule). A word takes all that fits, also what is to follow it; a character does not.
    fn run(&mut self, mut run: Vec<&'a Part>) -> String {
        let mut end = Vec::new();
        while let Some(&last) = run.last() {
            let inside = match last {
                _ if self.may_be_empty(last) => {
                    end.push(last);
                    &[]
                }
                Part::All(list) => &list[..],
                Part::Rule(at) => match &self.bodies[*at] {
                    Part::All(list) => &list[..],
                    _ => break,
                },
                _ => break,
            };
            run.pop();
            run.extend(inside);
        }
        let mut parts = Vec::new();
        if !run.is_empty() {
            let body = joined(run.into_iter().map(|part| self.word(part)), " ");
            let at = self.words;
            self.words += 1;
            let _ = writeln!(self.out, "P{at}: {body}");
            parts.push(format!("P{at}"));
        }
        parts.extend(end.into_iter().rev().map(|part| self.characters(part)));
        joined(parts.into_iter(), " ")
    }

    /// A part without recursion as a rule's body, of which each character is a word.
    fn characters(&mut self, part: &Part) -> String {
        match part {
            Part::Text(text) if text.is_empty() => "\"\"".to_owned(),
            Part::Text(text) => joined(text.chars().map(|c| quoted(c.encode_utf8(&mut [0; 4]))), " "),
            Part::Class(class) => format!("/{class}/"),
            Part::Rule(at) => {
                if !std::mem::replace(&mut self.is_loose[*at], true) {
                    self.loose.push(*at);
                }
                format!("c{at}")
            }
            Part::All(list) if list.is_empty() => "\"\"".to_owned(),
            Part::All(list) => {
                let parts: Vec<String> = list.iter().map(|part| self.characters(part)).collect();
                joined(parts.into_iter(), " ")
            }
            Part::Any(list) => {
                let parts: Vec<String> = list.iter().map(|part| self.characters(part)).collect();
                format!("({})", joined(parts.into_iter(), " | "))
            }
            Part::Times(part, least, most) => format!("({}){}", self.characters(part), times(*least, *most)),
        }
    }
}

fn joined(parts: impl Iterator<Item = String>, between: &str) -> String {
    parts.collect::<Vec<_>>().join(between)
}

fn times(least: usize, most: Option<usize>) -> String {
    match (least, most) {
        (0, None) => "*".to_owned(),
        (1, None) => "+".to_owned(),
        (0, Some(1)) => "?".to_owned(),
        (least, None) => format!("{{{least},}}"),
        (least, Some(most)) => format!("{{{least},{most}}}"),
    }
}

/// A text as Lark quotes it.
fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted + "\""
}
