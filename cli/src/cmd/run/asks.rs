//! Whether a prompt asks for an answer or begins a text that is to go on.
//!
//! The rule is told in `tern run --help`, so it stays one that a person can apply: a question mark at the end, or the
//! first words. Everything else is a beginning.

/// Words that ask for something when a prompt begins with them.
const REQUESTS: &[&str] = &[
    "answer",
    "calculate",
    "compare",
    "convert",
    "correct",
    "define",
    "describe",
    "explain",
    "give",
    "help",
    "imagine",
    "list",
    "make",
    "name",
    "please",
    "recommend",
    "rewrite",
    "say",
    "show",
    "solve",
    "suggest",
    "summarise",
    "summarize",
    "teach",
    "tell",
    "translate",
    "write",
];

/// A person who says these waits for an answer.
const GREETINGS: &[&str] = &["bye", "goodbye", "hello", "hey", "hi", "thank", "thanks"];

const QUESTION_WORDS: &[&str] = &["how", "what", "when", "where", "which", "who", "whose", "why"];

/// Verbs that begin a question, and that follow a question word in one (`when is`). In a beginning something else
/// follows it: `when Tom`, `where the river`.
const VERBS: &[&str] =
    &["am", "are", "can", "could", "did", "do", "does", "has", "is", "should", "was", "were", "would"];

/// More that makes a question of a question word. `Have`, `may` and `will` begin a text as easily as a question.
const AFTER_QUESTION_WORDS: &[&str] =
    &["about", "big", "color", "colour", "far", "have", "kind", "long", "many", "may", "much", "old", "will"];

/// Question and verb in one word.
const CONTRACTIONS: &[&str] = &["how's", "what're", "what's", "when's", "where's", "who's", "why's"];

/// Whether this is a question, a request or a greeting.
pub(super) fn asks(prompt: &str) -> bool {
    let end = prompt.trim_end_matches(|c: char| c.is_whitespace() || "\"'”’»)]*_".contains(c));
    // The question marks of Latin, Greek (written so), Arabic, Chinese and Japanese.
    if end.ends_with(['?', '\u{37e}', '؟', '？']) {
        return true;
    }
    let words = prompt.replace('’', "'").to_lowercase();
    let mut words = words.split(|c: char| !c.is_alphanumeric() && c != '\'').filter(|word| !word.is_empty());
    let (first, second) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let is = |list: &[&str], word: &str| list.contains(&word);
    [REQUESTS, GREETINGS, VERBS, CONTRACTIONS].iter().any(|list| is(list, first))
        || (is(QUESTION_WORDS, first) && (is(VERBS, second) || is(AFTER_QUESTION_WORDS, second)))
}

#[cfg(test)]
mod tests {
    use super::asks;

    #[test]
    fn questions_requests_and_greetings_ask() {
        for prompt in [
            "Why is the sky blue?",
            "why is the sky blue",
            "What's your name",
            "What is 2+2",
            "The sky is blue. Is it?",
            "\"Who are you?\" ",
            "How many legs has a cat",
            "Tell me a story about a dog named Rex.",
            "Please help",
            "Hello",
            "hi there!",
            "Thank you.",
            "Can you sing",
            "Что это？",
            "Write a poem\nabout the sea",
        ] {
            assert!(asks(prompt), "{prompt}");
        }
    }

    #[test]
    fn everything_else_is_a_beginning() {
        for prompt in [
            "Once upon a time",
            "When Tom woke up, he",
            "Where the river bends, there",
            "Will was a small boy who",
            "May had a red ball. She",
            "What a lovely day it was when",
            "How I wish that",
            "Lily asked, \"Where are you?\" and",
            "\"Tellers of tales\" said",
            "Isabel",
            "1, 2, 3,",
            "",
            "…",
        ] {
            assert!(!asks(prompt), "{prompt}");
        }
    }
}
