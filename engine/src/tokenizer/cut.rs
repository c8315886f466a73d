//! Cutting a text into the pieces that are encoded one by one ("pre-tokenizing").
//!
//! Patterns with look-ahead run on `fancy-regex`, which gives up after a million steps back: that is an error here.
//! (The `tokenizers` crate's own `Split` ends the search silently instead and encodes the rest as one piece, which
//! is why splitting by a pattern is done here; the rarer cutters are the crate's.)

use std::cell::Cell;
use std::ops::Range;
use std::time::Duration;

use fancy_regex::{Regex, RegexBuilder};
use serde::Deserialize;
use serde_json::{Value, json};
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, PreTokenizerWrapper};

use super::pre::GPT2;
use crate::clock::Instant;
use crate::error::quoted;

const MAX_STEPS: usize = 64;
const MAX_PATTERN: usize = 4096;
/// Bytes of a text that is worth an expression of its own.
const LONG: usize = 64 << 10;

/// The steps of a tokenizer, in order.
#[derive(Default)]
pub(crate) struct Cut {
    steps: Vec<Step>,
    /// The pieces come in GPT-2's printable alphabet, one character a byte, because a later step needed it so.
    pub(crate) printable: bool,
}

enum Step {
    Pattern {
        regex: Box<Regex>,
        behavior: Behavior,
        invert: bool,
    },
    /// A space before pieces that have none.
    Space,
    /// One of the crate's; `rest` for all parts of a text but the first.
    Other {
        first: Box<PreTokenizerWrapper>,
        rest: Box<PreTokenizerWrapper>,
    },
}

/// What becomes of the matches.
#[derive(Clone, Copy, PartialEq, Deserialize)]
enum Behavior {
    Removed,
    Isolated,
    MergedWithPrevious,
    MergedWithNext,
    Contiguous,
}

impl Cut {
    /// Each pattern cuts what the one before left; matches stand alone.
    pub(crate) fn patterns(patterns: &[&str]) -> Result<Self, String> {
        let mut cut = Self::default();
        for pattern in patterns {
            cut.pattern(pattern, Behavior::Isolated, false)?;
        }
        Ok(cut)
    }

    /// The `pre_tokenizer` of a tokenizer.json; also whether it works on bytes.
    pub(crate) fn from_json(value: &Value) -> Result<(Self, bool), String> {
        let mut cut = Self::default();
        let mut bytes = false;
        let mut waiting = vec![value];
        while let Some(value) = waiting.pop() {
            if value.is_null() {
                continue;
            }
            let kind = value["type"].as_str().unwrap_or("");
            if cut.steps.len() > MAX_STEPS || waiting.len() > MAX_STEPS {
                return Err(format!("more than {MAX_STEPS} pre-tokenizers"));
            }
            if bytes && !cut.printable && kind != "Sequence" {
                // Something works on the printable alphabet after all.
                cut.other(&json!({
                    "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false,
                }))?;
                cut.printable = true;
            }
            match kind {
                "Sequence" => {
                    let inner = value["pretokenizers"].as_array();
                    waiting.extend(inner.ok_or("pre-tokenizer Sequence without a list")?.iter().rev());
                }
                "Split" => {
                    let behavior = Behavior::deserialize(&value["behavior"])
                        .map_err(|e| format!("pre-tokenizer Split: behavior: {e}"))?;
                    let invert = value["invert"].as_bool().unwrap_or(false);
                    match (value["pattern"]["Regex"].as_str(), value["pattern"]["String"].as_str()) {
                        (Some(pattern), _) => cut.pattern(pattern, behavior, invert)?,
                        (_, Some(text)) => cut.pattern(&fancy_regex::escape(text), behavior, invert)?,
                        _ => return Err("pre-tokenizer Split: no pattern".to_owned()),
                    }
                }
                "ByteLevel" if bytes => return Err("two pre-tokenizers ByteLevel".to_owned()),
                "ByteLevel" => {
                    bytes = true;
                    if value["add_prefix_space"].as_bool().unwrap_or(true) {
                        cut.steps.push(Step::Space);
                    }
                    if value["use_regex"].as_bool().unwrap_or(true) {
                        cut.pattern(GPT2, Behavior::Isolated, false)?;
                    }
                }
                "Digits" | "Punctuation" | "Metaspace" | "Whitespace" | "WhitespaceSplit" => {
                    cut.other(value)?
                }
                _ => return Err(format!("the pre-tokenizer `{}` is not supported", quoted(kind))),
            }
        }
        Ok((cut, bytes))
    }

    fn pattern(&mut self, pattern: &str, behavior: Behavior, invert: bool) -> Result<(), String> {
        if pattern.len() > MAX_PATTERN {
            return Err(format!("a split pattern of {} bytes, more than {MAX_PATTERN}", pattern.len()));
        }
        let regex = RegexBuilder::new(pattern)
            .delegate_size_limit(1 << 19)
            .delegate_dfa_size_limit(1 << 19)
            .build()
            .map_err(|e| format!("split pattern `{}`: {}", quoted(pattern), quoted(&e.to_string())))?;
        self.steps.push(Step::Pattern { regex: Box::new(regex), behavior, invert });
        Ok(())
    }

    fn other(&mut self, value: &Value) -> Result<(), String> {
        let read = |value: &Value| {
            PreTokenizerWrapper::deserialize(value)
                .map(Box::new)
                .map_err(|e| format!("pre-tokenizer {}: {}", value["type"], quoted(&e.to_string())))
        };
        let mut rest = value.clone();
        if value["prepend_scheme"] == "first" {
            rest["prepend_scheme"] = "never".into();
        }
        self.steps.push(Step::Other { first: read(value)?, rest: read(&rest)? });
        Ok(())
    }

    /// Calls `each` with every piece of the text. `first`: nothing stands before this text.
    pub(crate) fn apply(
        &self,
        text: &str,
        first: bool,
        clock: &Clock,
        mut each: impl FnMut(&str) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut text = std::borrow::Cow::Borrowed(text);
        let whole = 0..text.len();
        let mut pieces = vec![whole];
        for step in &self.steps {
            let mut cut = Vec::with_capacity(pieces.len());
            match step {
                Step::Pattern { regex, behavior, invert } => {
                    // Threads that search with one expression wait for each other; a copy costs as much as a short text.
                    let own = (text.len() > LONG).then(|| regex.clone());
                    let regex = own.as_ref().unwrap_or(regex);
                    for piece in pieces {
                        let matches = matches(regex, &text[piece.clone()], *invert, clock)?;
                        gather(*behavior, piece.start, matches, &mut cut);
                    }
                }
                Step::Space => {
                    let mut spaced = String::with_capacity(text.len() + 1);
                    for piece in pieces {
                        let start = spaced.len();
                        if !text[piece.clone()].starts_with(' ') {
                            spaced.push(' ');
                        }
                        spaced.push_str(&text[piece]);
                        cut.push(start..spaced.len());
                    }
                    text = spaced.into();
                }
                Step::Other { first: cutter, rest } => {
                    let mut changed = String::with_capacity(text.len());
                    for (at, piece) in pieces.into_iter().enumerate() {
                        let mut parts = PreTokenizedString::from(&text[piece]);
                        let cutter = if first && at == 0 { cutter } else { rest };
                        cutter.pre_tokenize(&mut parts).map_err(|e| quoted(&e.to_string()))?;
                        for (part, ..) in parts.get_splits(OffsetReferential::Normalized, OffsetType::None) {
                            let start = changed.len();
                            changed.push_str(part);
                            cut.push(start..changed.len());
                        }
                        clock.check()?;
                    }
                    text = changed.into();
                }
            }
            pieces = cut;
        }
        pieces.into_iter().filter(|piece| !piece.is_empty()).try_for_each(|piece| each(&text[piece]))
    }
}

/// The ranges of a text that match, and those between them, in order.
fn matches(
    regex: &Regex,
    text: &str,
    invert: bool,
    clock: &Clock,
) -> Result<Vec<(Range<usize>, bool)>, String> {
    let mut all = Vec::new();
    let mut from = 0;
    for found in regex.find_iter(text) {
        let found = found.map_err(|e| format!("a split pattern gave up: {}", quoted(&e.to_string())))?;
        clock.check()?;
        if from < found.start() {
            all.push((from..found.start(), invert));
        }
        if !found.range().is_empty() {
            all.push((found.range(), !invert));
        }
        from = found.end();
    }
    if from < text.len() {
        all.push((from..text.len(), invert));
    }
    Ok(all)
}

fn gather(behavior: Behavior, at: usize, matches: Vec<(Range<usize>, bool)>, pieces: &mut Vec<Range<usize>>) {
    // Whether the last piece still takes what comes next, and whether it was a match.
    let (mut open, mut last) = (false, None);
    for (range, matched) in matches {
        let range = range.start + at..range.end + at;
        let joins = match behavior {
            Behavior::Removed if matched => continue,
            Behavior::Removed | Behavior::Isolated => false,
            Behavior::Contiguous => last == Some(matched),
            Behavior::MergedWithPrevious => matched && last == Some(false),
            Behavior::MergedWithNext => open && !matched,
        };
        open = matched;
        last = Some(matched);
        match pieces.last_mut() {
            Some(piece) if joins => piece.end = range.end,
            _ => pieces.push(range),
        }
    }
}

/// Ends work on one text that takes far longer than any honest tokenizer needs: a pattern may take a million steps
/// at every letter and still match.
pub(crate) struct Clock {
    last: Cell<Instant>,
    spent: Cell<Duration>,
    limit: Duration,
}

/// The most that passes between two looks at the clock by working; what is above it, the process was stopped or waited for
/// a processor.
const WORK: Duration = Duration::from_millis(50);

impl Clock {
    /// Half a second and ten seconds for each megabyte; real patterns take 0.1 s for a megabyte.
    pub(crate) fn new(text: &str) -> Self {
        let limit = Duration::from_millis(500 + text.len() as u64 / 100);
        Self { last: Cell::new(Instant::now()), spent: Cell::default(), limit }
    }

    fn check(&self) -> Result<(), String> {
        let now = Instant::now();
        let passed = now.duration_since(self.last.replace(now)).min(WORK);
        self.spent.set(self.spent.get() + passed);
        if self.spent.get() > self.limit {
            return Err("the split patterns take too long for this text".to_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::pre::{LLAMA3, QWEN2};
    use super::*;

    fn pieces(cut: &Cut, text: &str) -> Vec<String> {
        let mut pieces = Vec::new();
        let each = |piece: &str| {
            pieces.push(piece.to_owned());
            Ok(())
        };
        cut.apply(text, true, &Clock::new(text), each).unwrap();
        pieces
    }

    #[test]
    fn patterns_cut_as_recorded() {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/golden/tokenizers");
        for (name, pattern) in [("bpe_llama3_tiny", LLAMA3), ("bpe_qwen2_tiny", QWEN2)] {
            let cases = std::fs::read(dir.join(format!("{name}.pretok.json"))).unwrap();
            let cases: Vec<(String, Vec<String>)> = serde_json::from_slice(&cases).unwrap();
            assert_eq!(cases.len(), 27);
            let cut = Cut::patterns(&[pattern]).unwrap();
            for (text, expected) in cases {
                assert_eq!(pieces(&cut, &text), expected, "{name}: {text:?}");
            }
        }
    }

    #[test]
    fn behaviors_do_with_matches_what_they_say() {
        let cases = [
            ("Removed", false, vec!["a", "b", "c"]),
            ("Isolated", false, vec!["a", "-", "b", "-", "-", "c"]),
            ("MergedWithPrevious", false, vec!["a-", "b-", "-", "c"]),
            ("MergedWithNext", false, vec!["a", "-b", "-", "-c"]),
            ("Contiguous", false, vec!["a", "-", "b", "--", "c"]),
            ("Removed", true, vec!["-", "-", "-"]),
        ];
        for (behavior, invert, expected) in cases {
            let split =
                json!({"type": "Split", "pattern": {"String": "-"}, "behavior": behavior, "invert": invert});
            let (cut, bytes) = Cut::from_json(&split).unwrap();
            assert_eq!(
                (pieces(&cut, "a-b--c"), bytes),
                (expected.iter().map(|p| p.to_string()).collect(), false),
                "{behavior}"
            );
            // The crate does the same.
            let mut theirs = PreTokenizedString::from("a-b--c");
            PreTokenizerWrapper::deserialize(&split).unwrap().pre_tokenize(&mut theirs).unwrap();
            let theirs = theirs.get_splits(OffsetReferential::Original, OffsetType::None);
            assert_eq!(theirs.iter().map(|(piece, ..)| *piece).collect::<Vec<_>>(), expected, "{behavior}");
        }
    }

    #[test]
    fn a_byte_level_step_before_others_gives_the_printable_alphabet() {
        let steps = json!({"type": "Sequence", "pretokenizers": [
            {"type": "ByteLevel", "add_prefix_space": true, "use_regex": true},
            {"type": "Digits", "individual_digits": true}]});
        let (cut, bytes) = Cut::from_json(&steps).unwrap();
        assert_eq!(
            (pieces(&cut, "a 12"), bytes, cut.printable),
            (["Ġa", "Ġ", "1", "2"].map(str::to_owned).into(), true, true)
        );
    }

    #[test]
    fn a_process_that_was_stopped_for_a_while_has_not_taken_long() {
        let clock = Clock::new("a text");
        clock.check().unwrap();
        std::thread::sleep(Duration::from_millis(700));
        clock.check().unwrap();
    }

    #[test]
    fn patterns_that_are_slow_everywhere_are_stopped() {
        // Each match takes some 100 000 steps, below what one match may take.
        let cut = Cut::patterns(&["a*?a*?a*?(?=b)c|."]).unwrap();
        let text = format!("{}\n", "a".repeat(80)).repeat(2000);
        let start = Instant::now();
        let error = cut.apply(&text, true, &Clock::new(&text), |_| Ok(())).unwrap_err();
        assert!(error.contains("take too long"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn a_pattern_that_gives_up_is_an_error() {
        let cut = Cut::patterns(&["(a|a)*(?=b)c"]).unwrap();
        let text = "a".repeat(100);
        let error = cut.apply(&text, true, &Clock::new(&text), |_| Ok(())).unwrap_err();
        assert!(error.contains("gave up"), "{error}");
    }
}
