//! IFEval's rules: what a program can check about an answer. After the descriptions of Zhou and others (2023) and the
//! arguments of their data; sentences and languages are told by simpler means (`words.rs`, `language.rs`).

use serde_json::{Map, Value};

use super::{language, words};
use tern::quoted;

type Arguments = Map<String, Value>;

/// The rules and the arguments that each needs.
const RULES: [(&str, &[&str]); 25] = [
    ("keywords:existence", &["keywords"]),
    ("keywords:frequency", &["keyword", "frequency", "relation"]),
    ("keywords:forbidden_words", &["forbidden_words"]),
    ("keywords:letter_frequency", &["letter", "let_frequency", "let_relation"]),
    ("language:response_language", &["language"]),
    ("length_constraints:number_sentences", &["num_sentences", "relation"]),
    ("length_constraints:number_paragraphs", &["num_paragraphs"]),
    ("length_constraints:number_words", &["num_words", "relation"]),
    ("length_constraints:nth_paragraph_first_word", &["num_paragraphs", "nth_paragraph", "first_word"]),
    ("detectable_content:number_placeholders", &["num_placeholders"]),
    ("detectable_content:postscript", &["postscript_marker"]),
    ("detectable_format:number_bullet_lists", &["num_bullets"]),
    ("detectable_format:constrained_response", &[]),
    ("detectable_format:number_highlighted_sections", &["num_highlights"]),
    ("detectable_format:multiple_sections", &["section_spliter", "num_sections"]),
    ("detectable_format:json_format", &[]),
    ("detectable_format:title", &[]),
    ("combination:two_responses", &[]),
    ("combination:repeat_prompt", &["prompt_to_repeat"]),
    ("startend:end_checker", &["end_phrase"]),
    ("startend:quotation", &[]),
    ("change_case:capital_word_frequency", &["capital_frequency", "capital_relation"]),
    ("change_case:english_capital", &[]),
    ("change_case:english_lowercase", &[]),
    ("punctuation:no_comma", &[]),
];

/// Says what is wrong with a rule of an item.
pub(super) fn check_rule(name: &str, arguments: &Arguments) -> Result<(), String> {
    let Some((_, needed)) = RULES.iter().find(|(rule, _)| *rule == name) else {
        return Err(format!("instruction `{}` is not known", quoted(name)));
    };
    for argument in *needed {
        let value = arguments.get(*argument).filter(|value| !value.is_null());
        let value = value.ok_or_else(|| format!("`{name}`: argument `{argument}` is missing"))?;
        let fits = match *argument {
            "keywords" | "forbidden_words" => strings(value).is_some(),
            "relation" | "let_relation" | "capital_relation" => {
                matches!(value.as_str(), Some("at least" | "less than"))
            }
            "language" => value.as_str().is_some_and(language::is_known),
            text if text.starts_with("num_") || text.ends_with("frequency") || text.starts_with("nth_") => {
                value.as_f64().is_some_and(|n| (0.0..1e9).contains(&n))
            }
            _ => value.as_str().is_some_and(|text| !text.is_empty()),
        };
        if !fits {
            return Err(format!("`{name}`: argument `{argument}` cannot be {}", quoted(&value.to_string())));
        }
    }
    Ok(())
}

fn strings(value: &Value) -> Option<Vec<&str>> {
    value.as_array()?.iter().map(Value::as_str).collect()
}

/// Whether an answer follows a rule that [`check_rule`] let pass; an empty one follows none.
pub(super) fn follows(name: &str, arguments: &Arguments, answer: &str) -> bool {
    if answer.trim().is_empty() {
        return false;
    }
    let word = |key: &str| arguments.get(key).and_then(Value::as_str).unwrap_or_default();
    let number = |key: &str| arguments.get(key).and_then(Value::as_f64).unwrap_or(0.0) as usize;
    let list = |key: &str| arguments.get(key).and_then(strings).unwrap_or_default();
    let compare = |found: usize, relation: &str, wanted: usize| match word(relation) {
        "less than" => found < wanted,
        _ => found >= wanted,
    };
    let lines = || answer.lines().map(str::trim);
    match name {
        "keywords:existence" => list("keywords").iter().all(|word| words::occurrences(answer, word) > 0),
        "keywords:frequency" => {
            compare(words::occurrences(answer, word("keyword")), "relation", number("frequency"))
        }
        "keywords:forbidden_words" => {
            !list("forbidden_words").iter().any(|word| words::has_word(answer, word))
        }
        "keywords:letter_frequency" => {
            let letter = word("letter").to_lowercase();
            compare(answer.to_lowercase().matches(&letter).count(), "let_relation", number("let_frequency"))
        }
        "language:response_language" => language::of(answer).is_none_or(|found| found == word("language")),
        "length_constraints:number_sentences" => {
            compare(words::sentences(answer), "relation", number("num_sentences"))
        }
        "length_constraints:number_words" => {
            compare(words::words(answer).len(), "relation", number("num_words"))
        }
        "length_constraints:number_paragraphs" => parts(answer, "***") == Some(number("num_paragraphs")),
        "length_constraints:nth_paragraph_first_word" => {
            paragraphs_with(answer, number("nth_paragraph"), word("first_word"))
                == Some(number("num_paragraphs"))
        }
        "detectable_content:number_placeholders" => enclosed(answer, '[', ']') >= number("num_placeholders"),
        "detectable_content:postscript" => has_postscript(answer, word("postscript_marker")),
        "detectable_format:number_bullet_lists" => {
            let bullet =
                |line: &str| (line.starts_with('*') && !line.starts_with("**")) || line.starts_with('-');
            lines().filter(|line| bullet(line)).count() == number("num_bullets")
        }
        "detectable_format:constrained_response" => {
            ["My answer is yes.", "My answer is no.", "My answer is maybe."]
                .iter()
                .any(|text| answer.contains(text))
        }
        "detectable_format:number_highlighted_sections" => highlights(answer) >= number("num_highlights"),
        "detectable_format:multiple_sections" => {
            sections(answer, word("section_spliter")) >= number("num_sections")
        }
        "detectable_format:json_format" => is_json(answer.trim()),
        "detectable_format:title" => answer.lines().any(has_title),
        "combination:two_responses" => are_two(answer),
        "combination:repeat_prompt" => {
            let wanted = word("prompt_to_repeat").trim().to_lowercase();
            answer.trim().to_lowercase().starts_with(&wanted)
        }
        "startend:end_checker" => {
            let ending = word("end_phrase").trim().to_lowercase();
            answer.trim().trim_matches('"').to_lowercase().ends_with(&ending)
        }
        "startend:quotation" => {
            let text = answer.trim();
            text.len() > 1 && text.starts_with('"') && text.ends_with('"')
        }
        "change_case:capital_word_frequency" => {
            compare(capitals(answer), "capital_relation", number("capital_frequency"))
        }
        "change_case:english_capital" => in_english(answer) && !answer.chars().any(char::is_lowercase),
        "change_case:english_lowercase" => in_english(answer) && !answer.chars().any(char::is_uppercase),
        "punctuation:no_comma" => !answer.contains(','),
        _ => false,
    }
}

/// How many paragraphs there are, where the nth begins with this word.
fn paragraphs_with(answer: &str, nth: usize, word: &str) -> Option<usize> {
    let paragraphs: Vec<&str> = answer.split("\n\n").filter(|part| !part.trim().is_empty()).collect();
    let first =
        nth.checked_sub(1).and_then(|nth| paragraphs.get(nth)).and_then(|p| p.split_whitespace().next());
    let first = first.unwrap_or_default().trim_start_matches(['"', '\'']);
    let first: String = first.chars().take_while(|c| !".,?!'\"".contains(*c)).collect();
    (first.to_lowercase() == word.to_lowercase()).then_some(paragraphs.len())
}

/// Whether a line holds this marker, however it is spaced.
fn has_postscript(answer: &str, marker: &str) -> bool {
    let squeezed = |text: &str| text.to_lowercase().replace(' ', "");
    answer.lines().any(|line| squeezed(line).contains(&squeezed(marker)))
}

/// Whether a text is JSON, fenced or not.
fn is_json(text: &str) -> bool {
    let fence = ["```json", "```Json", "```JSON", "```"].iter().find_map(|fence| text.strip_prefix(fence));
    let text = fence.unwrap_or(text).trim_end_matches("```").trim();
    serde_json::from_str::<Value>(text).is_ok()
}

/// Whether a line holds a title between double angle brackets.
fn has_title(line: &str) -> bool {
    let title = line.split_once("<<").and_then(|(_, rest)| rest.split_once(">>"));
    title.is_some_and(|(title, _)| !title.trim().is_empty())
}

/// Whether these are two different answers with six stars between.
fn are_two(answer: &str) -> bool {
    let parts: Vec<&str> = answer.split("******").map(str::trim).collect();
    let inner = |at: usize| at > 0 && at + 1 < parts.len();
    let empty_inside = parts.iter().enumerate().any(|(at, part)| part.is_empty() && inner(at));
    let said: Vec<&&str> = parts.iter().filter(|part| !part.is_empty()).collect();
    !empty_inside && said.len() == 2 && said[0] != said[1]
}

/// Words in capital letters.
fn capitals(answer: &str) -> usize {
    let capital = |word: &&str| word.chars().any(char::is_uppercase) && !word.chars().any(char::is_lowercase);
    answer
        .split(|c: char| c.is_whitespace() || (c.is_ascii_punctuation() && !"'-".contains(c)))
        .filter(capital)
        .count()
}

/// The variants that count as the answer where small framing is forgiven: without the first line, the last, both; each
/// also without asterisks.
pub(super) fn loosened(answer: &str) -> Vec<String> {
    let lines: Vec<&str> = answer.split('\n').collect();
    let cut = |from: usize, to: usize| {
        lines.get(from..to.max(from)).unwrap_or_default().join("\n").trim().to_owned()
    };
    let (len, last) = (lines.len(), lines.len() - 1);
    let plain = [answer.to_owned(), cut(1, len), cut(0, last), cut(1, last)];
    plain.iter().cloned().chain(plain.iter().map(|text| text.replace('*', ""))).collect()
}

/// Parts between marks; `None` where one inside is empty.
fn parts(answer: &str, mark: &str) -> Option<usize> {
    let parts: Vec<bool> = answer.split(mark).map(|part| part.trim().is_empty()).collect();
    let inside = parts.len().saturating_sub(1).max(1);
    if parts.get(1..inside).is_some_and(|inner| inner.contains(&true)) {
        return None;
    }
    Some(parts.iter().filter(|empty| !**empty).count())
}

/// How many `[…]` there are on single lines.
fn enclosed(text: &str, open: char, close: char) -> usize {
    let mut rest = text;
    let mut count = 0;
    while let Some(at) = rest.find(open) {
        rest = &rest[at + open.len_utf8()..];
        let Some(end) = rest.find(close) else { break };
        if !rest[..end].contains('\n') {
            count += 1;
            rest = &rest[end + close.len_utf8()..];
        }
    }
    count
}

/// `*such*` and `**such**` pieces that hold something.
fn highlights(text: &str) -> usize {
    let mut count = 0;
    for line in text.lines() {
        for mark in ["**", "*"] {
            let line = if mark == "*" { line.replace("**", "\n") } else { line.to_owned() };
            let pieces: Vec<&str> = line.split(mark).collect();
            let inside = pieces.iter().skip(1).step_by(2).take(pieces.len().saturating_sub(1) / 2);
            count += inside.filter(|piece| !piece.trim().is_empty()).count();
        }
    }
    count
}

/// Sections that begin with the splitter and a number.
fn sections(text: &str, splitter: &str) -> usize {
    let numbered = |(at, found): &(usize, &str)| {
        text[at + found.len()..].trim_start().starts_with(|c: char| c.is_ascii_digit())
    };
    text.match_indices(splitter.trim()).filter(numbered).count()
}

fn in_english(text: &str) -> bool {
    language::of(text).is_none_or(|found| found == "en")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn follow(name: &str, arguments: Value, answer: &str) -> bool {
        let arguments = arguments.as_object().unwrap().clone();
        check_rule(name, &arguments).unwrap_or_else(|what| panic!("{what}"));
        follows(name, &arguments, answer)
    }

    #[test]
    fn every_rule_tells_a_good_answer_from_a_bad_one() {
        let none = json!({});
        let cases: Vec<(&str, Value, &str, &str)> = vec![
            ("keywords:existence", json!({"keywords": ["cat", "Dog"]}), "A dog, a CAT.", "A dog."),
            (
                "keywords:frequency",
                json!({"keyword": "tea", "frequency": 2, "relation": "at least"}),
                "tea Tea",
                "tea",
            ),
            ("keywords:forbidden_words", json!({"forbidden_words": ["cat"]}), "concatenate", "a cat"),
            (
                "keywords:letter_frequency",
                json!({"letter": "e", "let_frequency": 2, "let_relation": "less than"}),
                "tea",
                "see",
            ),
            (
                "language:response_language",
                json!({"language": "de"}),
                "Das ist nicht der Hund.",
                "This is not the dog.",
            ),
            (
                "length_constraints:number_sentences",
                json!({"num_sentences": 2, "relation": "less than"}),
                "One.",
                "One. Two.",
            ),
            (
                "length_constraints:number_paragraphs",
                json!({"num_paragraphs": 2}),
                "a\n***\nb",
                "a\n***\n***\nb",
            ),
            (
                "length_constraints:number_words",
                json!({"num_words": 3, "relation": "at least"}),
                "a b c",
                "a b",
            ),
            (
                "length_constraints:nth_paragraph_first_word",
                json!({"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "weekend"}),
                "a\n\nWeekend, b",
                "weekend\n\nb",
            ),
            ("detectable_content:number_placeholders", json!({"num_placeholders": 2}), "[a] and [b]", "[a]"),
            ("detectable_content:postscript", json!({"postscript_marker": "P.S."}), "Hi.\nP.S. bye", "Hi."),
            ("detectable_format:number_bullet_lists", json!({"num_bullets": 2}), "* a\n- b", "* a\n** b"),
            ("detectable_format:constrained_response", none.clone(), "My answer is no.", "No."),
            (
                "detectable_format:number_highlighted_sections",
                json!({"num_highlights": 2}),
                "*a* and **b**",
                "*a* and * *",
            ),
            (
                "detectable_format:multiple_sections",
                json!({"section_spliter": "SECTION", "num_sections": 2}),
                "SECTION 1\na\nSECTION 2\nb",
                "SECTION 1 of sections",
            ),
            ("detectable_format:json_format", none.clone(), "```json\n{\"a\": 1}\n```", "a: 1"),
            ("detectable_format:title", none.clone(), "<<A title>>\ntext", "<< >> text"),
            ("combination:two_responses", none.clone(), "one\n******\ntwo", "one\n******\none"),
            ("combination:repeat_prompt", json!({"prompt_to_repeat": "Say hi"}), "say hi\nhi", "hi"),
            ("startend:end_checker", json!({"end_phrase": "the end"}), "It is The End", "The end of it"),
            ("startend:quotation", none.clone(), "\"so\"", "so\""),
            (
                "change_case:capital_word_frequency",
                json!({"capital_frequency": 2, "capital_relation": "at least"}),
                "NASA is BIG",
                "Nasa is BIG",
            ),
            ("change_case:english_capital", none.clone(), "THE CAT AND THE DOG", "The cat"),
            ("change_case:english_lowercase", none.clone(), "the cat and the dog", "The cat"),
            ("punctuation:no_comma", none, "a b", "a, b"),
        ];
        assert_eq!(cases.len(), RULES.len());
        for (name, arguments, good, bad) in cases {
            assert!(follow(name, arguments.clone(), good), "{name}: {good}");
            assert!(!follow(name, arguments.clone(), bad), "{name}: {bad}");
            assert!(!follow(name, arguments, "  "), "{name}: nothing");
        }
    }

    #[test]
    fn rules_without_their_arguments_are_named() {
        let check = |name, arguments: Value| check_rule(name, arguments.as_object().unwrap());
        assert!(check("keywords:nothing", json!({})).unwrap_err().contains("not known"));
        assert!(check("keywords:existence", json!({})).unwrap_err().contains("missing"));
        assert!(check("language:response_language", json!({"language": "xx"})).unwrap_err().contains("xx"));
    }

    #[test]
    fn framing_is_forgiven_loosely() {
        assert!(loosened("Sure!\n\"so\"").iter().any(|text| text == "\"so\""));
        assert!(loosened("**a**").iter().any(|text| text == "a"));
    }
}
