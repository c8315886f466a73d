//! Grammars, schemas, expressions and tools made from seeds by chance, compiled with the server's own limits and followed.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tern_serve::fuzzing::{Followable, Kind};

use super::bombs;

/// What was seen so far.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) texts: u64,
    /// Those that compiled.
    pub(crate) followed: u64,
    /// Those of them that their grammar, or a limit, ended.
    pub(crate) astray: u64,
    /// Those for which the clock ran out: the machine was busy.
    pub(crate) late: u64,
    /// The most work of this process for one text, and for one step of an answer (or compiling), with the number of the
    /// text: a machine that is busy does not make it more.
    pub(crate) slowest: (Duration, u64),
    pub(crate) longest: (Duration, u64),
}

/// A small generator of numbers (xorshift), so that a seed makes the same texts everywhere.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound.max(1) as u64) as usize
    }
}

fn seeds() -> Vec<(Kind, String)> {
    let small = [
        (
            Kind::Grammar,
            "start: (a | B)* C?\na: \"x\" a? \"y\" | C\nB: /[a-c]{1,4}/\nC: \"d\"~1..3\n%ignore / +/\n",
        ),
        (
            Kind::Grammar,
            "start: head body\nhead[lazy]: /.*/ \"\\n\"\nbody: %json {\"type\": \"array\", \"items\": {\"type\": \"integer\"}}\n",
        ),
        (
            Kind::Grammar,
            "root ::= (expr \"=\" ws term \"\\n\")+\nexpr ::= term ([-+*/] term)*\nterm ::= [a-z] [a-z0-9_]* ws | [0-9]+ ws | \"(\" ws expr \")\" ws\nws ::= [ \\t\\n]*\n",
        ),
        (
            Kind::Schema,
            "{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"string\",\"pattern\":\"^[a-z]{1,9}$\"},\"b\":{\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/c\"},\"maxItems\":5}},\"required\":[\"a\"],\"$defs\":{\"c\":{\"anyOf\":[{\"type\":\"integer\",\"minimum\":0,\"maximum\":255},{\"enum\":[\"x\",null]},{\"$ref\":\"#\"}]}}}",
        ),
        (
            Kind::Schema,
            "{\"allOf\":[{\"type\":\"string\",\"minLength\":2},{\"pattern\":\"a+(b|c)*\"},{\"maxLength\":40}]}",
        ),
        (
            Kind::Schema,
            "{\"type\":\"object\",\"patternProperties\":{\"^n[0-9]+$\":{\"type\":\"number\",\"multipleOf\":0.5}},\"additionalProperties\":{\"oneOf\":[{\"type\":\"null\"},{\"const\":[1,{\"x\":true}]}]},\"minProperties\":1}",
        ),
        (Kind::Regex, "(a|b)*c{2,5}[^x-z]?\\d+"),
        (Kind::Regex, "^[\\w.+-]{1,64}@([a-z0-9-]+\\.)+(com|org|\\p{L}{2})$"),
        (
            Kind::Tools,
            "[{\"type\":\"function\",\"function\":{\"name\":\"weather\",\"description\":\"d\",\"parameters\":{\"type\":\"object\",\"properties\":{\"city\":{\"type\":\"string\"},\"days\":{\"type\":\"integer\",\"minimum\":1,\"maximum\":9}},\"required\":[\"city\"]}}},{\"type\":\"function\",\"function\":{\"name\":\"stop\"}}]",
        ),
    ];
    let mut seeds: Vec<(Kind, String)> =
        small.into_iter().map(|(kind, text)| (kind, text.to_owned())).collect();
    for bomb in bombs::all() {
        let field = |name: &str| Some(bomb.body.get(name)?.clone());
        let text = |name: &str| Some(field(name)?.as_str()?.to_owned());
        let found = text("grammar")
            .map(|text| (Kind::Grammar, text))
            .or_else(|| text("regex").map(|text| (Kind::Regex, text)))
            .or_else(|| field("tools").map(|tools| (Kind::Tools, tools.to_string())))
            .or_else(|| {
                Some((Kind::Schema, bomb.body.pointer("/response_format/json_schema/schema")?.to_string()))
            });
        seeds.extend(found.filter(|(_, text)| text.len() < 40_000));
    }
    seeds
}

/// One step from a text to another.
fn change(text: &mut Vec<u8>, other: &[u8], dice: &mut Dice) {
    const WORDS: [&str; 24] = [
        "{0,9}",
        "{3}",
        "{1,1000}",
        "*",
        "+",
        "?",
        "|",
        "(",
        ")",
        "\"allOf\":[",
        "\"anyOf\":[",
        "\"$ref\":\"#\"",
        "[^a]",
        "\\p{L}",
        "%json {}",
        "start",
        "root ::= ",
        "\"pattern\":\"a*b\"",
        "\"minItems\":99",
        " & ",
        "~",
        "99999",
        "{",
        "}",
    ];
    let at = dice.below(text.len() + 1);
    let len = dice.below(40).min(text.len() - at);
    match dice.below(8) {
        0 => drop(text.drain(at..at + len)),
        1 => drop(text.splice(at..at + len, WORDS[dice.below(WORDS.len())].bytes())),
        2 => drop(text.splice(at..at, WORDS[dice.below(WORDS.len())].bytes())),
        // The same again, several times.
        3 => {
            let piece = text[at..at + len].repeat(1 + dice.below(50));
            drop(text.splice(at..at, piece));
        }
        4 => {
            let from = dice.below(other.len() + 1);
            let piece = other[from..(from + dice.below(200)).min(other.len())].to_vec();
            drop(text.splice(at..at + len, piece));
        }
        5 if at < text.len() => text[at] = text[at].wrapping_add(1 + dice.below(3) as u8) & 0x7f,
        6 => {
            // A number becomes another one.
            if let Some(digit) = text[at..].iter().position(u8::is_ascii_digit) {
                let size = 1 << dice.below(24);
                let number = dice.below(size).to_string();
                drop(text.splice(at + digit..at + digit + 1, number.bytes()));
            }
        }
        _ => {
            // The whole within itself.
            let copy = text.clone();
            if copy.len() < 10_000 {
                drop(text.splice(at..at + len, copy));
            }
        }
    }
}

/// One step from JSON to other JSON: bytes that are changed are seldom JSON any more.
fn rebuild(root: &mut Value, other: &Value, dice: &mut Dice) {
    const KEYS: [&str; 22] = [
        "allOf",
        "anyOf",
        "oneOf",
        "not",
        "items",
        "prefixItems",
        "properties",
        "patternProperties",
        "additionalProperties",
        "required",
        "enum",
        "const",
        "pattern",
        "format",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "minimum",
        "multipleOf",
        "$ref",
        "type",
    ];
    let given = pick(&mut other.clone(), dice).clone();
    let key = KEYS[dice.below(KEYS.len())].to_owned();
    let place = pick(root, dice);
    match (dice.below(10), &mut *place) {
        (0, Value::Object(map)) => drop(map.insert(key, given)),
        (1, Value::Object(map)) => {
            let gone = map.keys().nth(dice.below(map.len())).cloned();
            drop(gone.and_then(|gone| map.shift_remove(&gone)));
        }
        (2, Value::Object(map)) => {
            // What one has, many have.
            let copies = 1 << dice.below(9);
            for at in 0..copies {
                map.insert(format!("n{at}"), given.clone());
            }
        }
        (2 | 3, Value::Array(list)) => {
            let copies = 1 << dice.below(9);
            list.extend(std::iter::repeat_n(given, copies));
        }
        (_, Value::Number(_)) => {
            let size = 1 << dice.below(40);
            let number = dice.below(size) as i64;
            *place = match dice.below(4) {
                0 => json!(number as f64 / 3.0),
                1 => json!(-number),
                _ => json!(number),
            };
        }
        (_, Value::String(text)) if dice.below(2) == 0 => {
            let mut bytes = std::mem::take(text).into_bytes();
            change(&mut bytes, b"(a|b)*c{2,5}[^x-z]?\\d+", dice);
            *text = String::from_utf8_lossy(&bytes).into_owned();
        }
        (4, _) => *place = json!({key: [place.take(), given]}),
        (5, _) => *place = json!({"type": "object", "properties": {"a": place.take(), "b": given}}),
        (6, _) => *place = json!({"type": "array", "items": place.take(), "maxItems": dice.below(2000)}),
        (7, _) => *place = json!({"$ref": "#"}),
        _ => *place = given,
    }
}

/// Any value within this one.
fn pick<'a>(value: &'a mut Value, dice: &mut Dice) -> &'a mut Value {
    let members = match value {
        Value::Array(list) => list.len(),
        Value::Object(map) => map.len(),
        _ => 0,
    };
    if members == 0 || dice.below(4) == 0 {
        return value;
    }
    let at = dice.below(members);
    match value {
        Value::Array(list) => pick(&mut list[at], dice),
        Value::Object(map) => match map.values_mut().nth(at) {
            Some(member) => pick(member, dice),
            None => unreachable!("`at` is less than the number of members"),
        },
        other => other,
    }
}

/// Bytes of a text: a little more than a grammar may have.
const LARGEST: usize = 300_000;

/// A text that a seed may become.
fn text(seed: &str, other: &str, dice: &mut Dice) -> String {
    let steps = dice.below(6);
    if dice.below(4) > 0
        && let Ok(mut value) = serde_json::from_str::<Value>(seed)
    {
        let other =
            serde_json::from_str(other).unwrap_or_else(|_| json!({"type": "string", "pattern": other}));
        for _ in 0..steps {
            let before = value.clone();
            // Most of a tool is its parameters.
            let tools = value.as_array().map_or(0, Vec::len);
            let parameters = format!("/{}/function/parameters", dice.below(tools));
            match value.pointer_mut(&parameters) {
                Some(parameters) if dice.below(8) > 0 => rebuild(parameters, &other, dice),
                _ => rebuild(&mut value, &other, dice),
            }
            if value.to_string().len() > LARGEST {
                value = before;
            }
        }
        return value.to_string();
    }
    let mut bytes = seed.as_bytes().to_vec();
    for _ in 0..steps {
        change(&mut bytes, other.as_bytes(), dice);
    }
    bytes.truncate(LARGEST);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Time that this process has worked.
pub(crate) fn worked() -> Duration {
    #[cfg(target_os = "linux")]
    {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32)
    }
    #[cfg(not(target_os = "linux"))]
    {
        static START: std::sync::LazyLock<std::time::Instant> =
            std::sync::LazyLock::new(std::time::Instant::now);
        START.elapsed()
    }
}

/// Tries texts, of one kind or of all, as long as `more` says so. The processes beside this one are this program with
/// `try-grammars`. What must not be is a panic. `first` is the number of the first text.
pub(crate) fn fuzz(only: Option<Kind>, seed: u64, first: u64, mut more: impl FnMut(&Seen) -> bool) -> Seen {
    let start = Arc::new(|| {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap_or_default());
        command.arg("try-grammars");
        command
    });
    let Some(story) = Followable::story(Some(start)) else { panic!("the built-in model has a tokenizer") };
    let all = seeds();
    let chosen: Vec<&(Kind, String)> =
        all.iter().filter(|(kind, _)| only.is_none_or(|only| only == *kind)).collect();
    let mut seen = Seen { texts: first, ..Seen::default() };
    while more(&seen) {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(seen.texts) << 1 | 1);
        for _ in 0..8 {
            dice.below(2);
        }
        let (kind, from) = chosen[dice.below(chosen.len())];
        let text = text(from, &all[dice.below(all.len())].1, &mut dice);
        let steps = dice.below(60);
        let begin = worked();
        let mut step = begin;
        let result = story.follow(*kind, &text, steps, |allowed| {
            seen.longest = seen.longest.max((worked() - step, seen.texts));
            step = worked();
            dice.below(allowed)
        });
        seen.slowest = seen.slowest.max((worked() - begin, seen.texts));
        match result {
            Ok(Ok(_)) => seen.followed += 1,
            Ok(Err(what)) => {
                seen.followed += 1;
                seen.astray += 1;
                assert!(!what.is_empty() && what.lines().count() == 1, "{kind:?} {}: {what}", seen.texts);
            }
            Err(what) => {
                seen.late += u64::from(what.contains("in time"));
                assert!(!what.is_empty() && !what.contains("has ended"), "{kind:?} {}: {what}", seen.texts);
            }
        }
        seen.texts += 1;
    }
    seen
}
