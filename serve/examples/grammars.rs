//! Fuzzes grammars, schemas, expressions and tools with the server's real limits, on a stable tool chain:
//!
//! ```text
//! cargo run --release -p tern-serve --example grammars -- SECONDS [SEED]
//! ```
//!
//! Texts are made from seeds by cutting, doubling, swapping and nesting; each is counted, tried in the process beside
//! this one, compiled and followed for some tokens. This process gets 512 MiB and an 8 MiB stack (Linux); whatever
//! ends it is a finding, and so is memory that grows, a refusal without a reason or a step that takes long. The line
//! that it prints once a minute tells seeds, so that a finding can be made again.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tern_serve::fuzzing::{Followable, Kind};

#[path = "../tests/common/bombs.rs"]
mod bombs;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == "try-grammars") {
        return if tern_serve::try_grammars().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let seconds = args.first().and_then(|arg| arg.parse().ok()).unwrap_or(60);
    let seed = args.get(1).and_then(|arg| arg.parse().ok()).unwrap_or(1);
    bound();
    // The main thread's stack is the shell's affair.
    let thread = std::thread::Builder::new().stack_size(8 << 20).spawn(move || fuzz(seconds, seed));
    match thread.map(std::thread::JoinHandle::join) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

#[cfg(target_os = "linux")]
fn bound() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let limit = Some(512 << 20);
    let _ = setrlimit(Resource::Data, Rlimit { current: limit, maximum: limit });
}

#[cfg(not(target_os = "linux"))]
fn bound() {}

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

fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
}

fn fuzz(seconds: u64, seed: u64) {
    let start = Arc::new(|| {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap_or_default());
        command.arg("try-grammars");
        command
    });
    let Some(story) = Followable::story(Some(start)) else { panic!("the built-in model has a tokenizer") };
    let seeds = seeds();
    let (begin, mut told) = (Instant::now(), Instant::now());
    let (mut count, mut followed, mut astray, mut late) = (0_u64, 0_u64, 0_u64, 0_u64);
    let (mut slowest, mut longest) = (Duration::ZERO, Duration::ZERO);
    let mut kinds = [0_u64; 4];
    while begin.elapsed() < Duration::from_secs(seconds) {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(count) | 1);
        for _ in 0..8 {
            dice.below(2);
        }
        let (kind, text) = &seeds[dice.below(seeds.len())];
        let mut text = text.clone().into_bytes();
        let other = seeds[dice.below(seeds.len())].1.as_bytes();
        for _ in 0..dice.below(6) {
            change(&mut text, other, &mut dice);
        }
        text.truncate(300_000);
        let text = String::from_utf8_lossy(&text);
        let steps = dice.below(60);
        let one = Instant::now();
        let mut step = Instant::now();
        let result = story.follow(*kind, &text, steps, |allowed| {
            longest = longest.max(step.elapsed());
            step = Instant::now();
            dice.below(allowed)
        });
        slowest = slowest.max(one.elapsed());
        match result {
            Ok(Ok(_)) => followed += 1,
            Ok(Err(what)) => {
                astray += 1;
                assert!(!what.is_empty() && what.lines().count() == 1, "{kind:?} {count}: {what}");
            }
            Err(what) => {
                late += u64::from(what.contains("in time"));
                assert!(!what.is_empty() && !what.contains("has ended"), "{kind:?} {count}: {what}");
            }
        }
        kinds[*kind as usize] += 1;
        count += 1;
        if told.elapsed() > Duration::from_secs(60) {
            told = Instant::now();
            println!(
                "seed {seed}, {:?}: {count} texts (schemas, grammars, expressions, tools: {kinds:?}), {followed} followed, \
                 {astray} of them not to the end, {late} not tried in time; {} MiB, slowest text {slowest:?}, compiling and \
                 a step at most {longest:?}",
                begin.elapsed(),
                memory()
            );
        }
    }
    println!(
        "seed {seed}: {count} texts in {:?} {kinds:?}, {followed} followed, {astray} astray, {late} late, {} MiB, slowest {slowest:?}",
        begin.elapsed(),
        memory()
    );
}
