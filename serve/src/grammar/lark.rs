//! What is counted in a Lark grammar before it is compiled. What cannot be read here is told by the compiler.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::bounds::schema;
use super::regex;
use crate::limits::{ALTERNATIVES, REGEX_SIZE, RULE_DEPTH, RULES, at_most};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Token<'a> {
    Newline,
    Name(&'a str),
    Number(usize),
    Regex(&'a str),
    /// A text, a special token: what matches by itself.
    Text,
    Sign(char),
}

pub(super) fn check(text: &str) -> Result<(), String> {
    let tokens = tokens(text)?;
    let mut rules: HashMap<&str, &[Token<'_>]> = HashMap::new();
    for (name, body) in split(&tokens) {
        let alternatives = body.iter().filter(|token| **token == Token::Sign('|')).count() + 1;
        at_most(
            ALTERNATIVES,
            alternatives,
            &format!("alternatives of a rule (`{}`)", crate::error::short(name)),
        )?;
        sizes(body)?;
        rules.insert(name, body);
    }
    at_most(RULES, rules.len(), "rules")?;
    follow("start", &rules, &mut HashSet::new(), 0)
}

/// Cuts a text into tokens; checks the regular expressions and schemas in it.
fn tokens(text: &str) -> Result<Vec<Token<'_>>, String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let mut len = first.len_utf8();
        let name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let while_in = |fits: &dyn Fn(char) -> bool| rest.find(|c| !fits(c)).unwrap_or(rest.len());
        match first {
            '\n' => tokens.push(Token::Newline),
            '#' => len = while_in(&|c| c != '\n'),
            '/' if rest.starts_with("//") => len = while_in(&|c| c != '\n'),
            '/' | '"' => {
                len = closed(rest, first);
                let inside = rest.get(1..len.saturating_sub(1)).unwrap_or_default();
                if first == '/' {
                    regex::check(inside)?;
                    tokens.push(Token::Regex(inside));
                } else {
                    tokens.push(Token::Text);
                }
            }
            '%' => {
                let word = 1 + rest[1..].find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len() - 1);
                len = word;
                if rest[..word].ends_with("json") {
                    let mut values = serde_json::Deserializer::from_str(&rest[word..]).into_iter::<Value>();
                    if let Some(Ok(value)) = values.next() {
                        schema(&value)?;
                        len += values.byte_offset();
                    }
                }
                tokens.push(Token::Text);
            }
            '0'..='9' => {
                len = while_in(&|c| c.is_ascii_digit());
                tokens.push(Token::Number(rest[..len].parse().unwrap_or(usize::MAX)));
            }
            c if c.is_ascii_alphabetic() || c == '_' => {
                len = while_in(&name);
                tokens.push(Token::Name(&rest[..len]));
            }
            c if c.is_whitespace() => {}
            sign => tokens.push(Token::Sign(sign)),
        }
        rest = &rest[len..];
    }
    Ok(tokens)
}

/// Bytes up to the sign that closes what this one opened.
fn closed(text: &str, sign: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '\n' => return at,
            c if c == sign => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Rules by their names: a name at the beginning of a line, and a colon in it.
fn split<'a, 't>(tokens: &'t [Token<'a>]) -> Vec<(&'a str, &'t [Token<'a>])> {
    let mut heads = Vec::new();
    let mut fresh = true;
    for (at, token) in tokens.iter().enumerate() {
        if let (true, Token::Name(name)) = (fresh, token) {
            let line = tokens[at..].iter().take_while(|token| **token != Token::Newline);
            if line.into_iter().any(|token| *token == Token::Sign(':')) {
                heads.push((at, *name));
            }
        }
        // A rule's name may have signs before it, and one within braces begins there.
        fresh = matches!(token, Token::Newline | Token::Sign('{' | '!' | '?'));
    }
    let ends = heads.iter().skip(1).map(|(at, _)| *at).chain([tokens.len()]);
    heads.iter().zip(ends).map(|((at, name), end)| (*name, &tokens[at + 1..end])).collect()
}

/// Bounds a rule with its repetitions written out, those of groups within groups, too.
fn sizes(body: &[Token<'_>]) -> Result<(), String> {
    // What is open: the size so far, and that of the last part.
    let mut open = vec![(0_usize, 0_usize)];
    let mut numbers: Option<usize> = None;
    for token in body {
        let depth = open.len();
        let Some((all, last)) = open.last_mut() else { return Ok(()) };
        match token {
            Token::Sign('(' | '[') => open.push((0, 0)),
            Token::Sign(')' | ']') if depth > 1 => {
                let size = open.pop().map_or(0, |(all, _)| all);
                if let Some((all, last)) = open.last_mut() {
                    *all = all.saturating_add(size);
                    *last = size;
                }
            }
            Token::Sign('{' | '~') => numbers = Some(0),
            Token::Number(number) => {
                if let Some(times) = numbers.filter(|times| number > times) {
                    *all = all.saturating_add(last.saturating_mul(number - times));
                    numbers = Some(*number);
                }
            }
            Token::Sign('}') => numbers = None,
            Token::Name(_) | Token::Text | Token::Regex(_) => {
                (*all, *last) = (all.saturating_add(1), 1);
                numbers = None;
            }
            _ => {}
        }
    }
    let all = open.iter().fold(0_usize, |all, (size, _)| all.saturating_add(*size));
    at_most(REGEX_SIZE, all, "parts in a rule with its repetitions")
}

/// Rules within rules, as the compiler goes through them: each is entered once.
fn follow<'a>(
    name: &'a str,
    rules: &HashMap<&'a str, &[Token<'a>]>,
    seen: &mut HashSet<&'a str>,
    depth: usize,
) -> Result<(), String> {
    at_most(RULE_DEPTH, depth, "rules within rules")?;
    for token in rules.get(name).copied().unwrap_or_default() {
        if let Token::Name(inner) = token
            && rules.contains_key(inner)
            && seen.insert(inner)
        {
            follow(inner, rules, seen, depth + 1)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_counted_with_what_they_hold() {
        let chain = |links: usize| {
            let links: String = (0..links).map(|at| format!("r{at}: \"x\" r{}\n", at + 1)).collect();
            format!("start: r0\n{links}")
        };
        for good in [
            "start: \"a\" | \"b\" // r: x{99999}\n".to_owned(),
            "start: x~2..4 y{3}\n?x: /[a-z]{1,9}/\n!y[capture]: \"\\\"|\"\n".to_owned(),
            "start: %json {\"type\": \"object\", \"properties\": {\"x\": {\"pattern\": \"a\"}}} \"|\"\n"
                .to_owned(),
            chain(200),
            "start: a\na: b\nb: a\n".to_owned(),
            "not a grammar at all / \" { ( %".to_owned(),
        ] {
            assert_eq!(check(&good), Ok(()), "{good:.60}");
        }
        for (bad, what) in [
            (chain(300), "rules within rules, found 257"),
            ((0..5000).map(|at| format!("r{at}: \"x\"\n")).collect(), "rules, found 5000"),
            (
                format!("start: \"a\"{}\n", " | \"b\"".repeat(1000)),
                "alternatives of a rule (`start`), found 1001",
            ),
            ("start: ((\"a\"{200}){200}){200}\n".to_owned(), "parts in a rule"),
            ("start: (\"a\" \"b\"){3,50000}\n".to_owned(), "parts in a rule"),
            ("start: /((a{200}){200})/\n".to_owned(), "characters in a regular expression"),
            ("start: %json {\"allOf\": [{\"pattern\": \"(a{200}){200}\"}]}\n".to_owned(), "characters"),
        ] {
            let refusal = check(&bad).unwrap_err();
            assert!(refusal.contains(what), "{bad:.60}: {refusal}");
        }
    }
}
