//! Added tokens: strings that become one id wherever they stand in a text, before anything else is done to it.
//!
//! *Special* ones (GGUF: control and unknown) steer the model and are recognised only where the caller trusts the
//! text. The others (GGUF: user-defined; runs of spaces, say) are ordinary text with an id of their own and are
//! always recognised.

use std::collections::HashMap;
use std::ops::Range;

use aho_corasick::{AhoCorasick, Input, MatchKind};
use serde::Deserialize;

/// No real special token is longer; the limit bounds the work of making user text inert.
const MAX_BYTES: usize = 1024;
const MAX_TOKENS: usize = 1 << 16;
const MAX_ALL_BYTES: usize = 1 << 22;

/// A string that becomes one id wherever it stands in a text, as a `tokenizer.json` describes it.
#[derive(Clone, Debug, Deserialize)]
pub struct AddedToken {
    /// Its id.
    pub id: u32,
    /// The string.
    pub content: String,
    /// Whether it steers the model.
    #[serde(default)]
    pub special: bool,
    /// Only between characters that belong to no word.
    #[serde(default)]
    pub single_word: bool,
    /// Swallows the white space before it.
    #[serde(default)]
    pub lstrip: bool,
    /// Swallows the white space after it.
    #[serde(default)]
    pub rstrip: bool,
    /// Looked for in the normalised text instead of the text as given.
    #[serde(default)]
    pub normalized: bool,
}

impl AddedToken {
    /// A plain added token, as GGUF and tiktoken know them.
    pub fn new(id: u32, content: &str, special: bool) -> Self {
        let content = content.to_owned();
        Self { id, content, special, single_word: false, lstrip: false, rstrip: false, normalized: false }
    }
}

/// A part of a text: an added token or what is between two.
#[derive(Debug, PartialEq)]
pub(crate) enum Part {
    Token(u32),
    Text(Range<usize>),
}

/// All added tokens of a tokenizer.
pub(crate) struct Added {
    tokens: Vec<AddedToken>,
    by_id: HashMap<u32, usize>,
    by_content: HashMap<String, u32>,
    raw: Finders,
    normalized: Finders,
    /// The names of all special tokens.
    specials: Option<Finder>,
}

/// One search for all tokens and one for those that are not special.
struct Finders {
    all: Option<Finder>,
    plain: Option<Finder>,
}

struct Finder {
    search: AhoCorasick,
    /// Index in `Added::tokens` by pattern.
    tokens: Vec<usize>,
}

impl Added {
    /// `normalize` is what the tokenizer does to a text first: tokens marked `normalized` are looked for in that form.
    pub(crate) fn new(
        tokens: Vec<AddedToken>,
        normalize: impl Fn(&str) -> Result<String, String>,
    ) -> Result<Self, String> {
        if tokens.len() > MAX_TOKENS {
            return Err(format!("{} added tokens, more than the limit of {MAX_TOKENS}", tokens.len()));
        }
        let tokens: Vec<AddedToken> = tokens.into_iter().filter(|t| !t.content.is_empty()).collect();
        if let Some(long) = tokens.iter().find(|t| t.content.len() > MAX_BYTES) {
            return Err(format!("added token {} is longer than {MAX_BYTES} bytes", long.id));
        }
        let bytes: usize = tokens.iter().map(|t| t.content.len()).sum();
        if bytes > MAX_ALL_BYTES {
            return Err(format!("{bytes} bytes of added tokens, more than the limit of {MAX_ALL_BYTES}"));
        }
        let mut patterns = Vec::with_capacity(tokens.len());
        for token in &tokens {
            patterns.push(if token.normalized { normalize(&token.content)? } else { token.content.clone() });
        }
        let finders = |normalized: bool| -> Result<Finders, String> {
            let of = |special: bool| {
                let wanted = |&at: &usize| {
                    let token: &AddedToken = &tokens[at];
                    token.normalized == normalized
                        && (special || !token.special)
                        && (1..=MAX_BYTES).contains(&patterns[at].len())
                };
                Finder::new((0..tokens.len()).filter(wanted).collect(), &patterns)
            };
            Ok(Finders { all: of(true)?, plain: of(false)? })
        };
        let (raw, normalized) = (finders(false)?, finders(true)?);
        let names: Vec<String> = tokens.iter().map(|t| t.content.clone()).collect();
        let specials = Finder::new((0..tokens.len()).filter(|&at| tokens[at].special).collect(), &names)?;
        let by_id = tokens.iter().enumerate().map(|(at, t)| (t.id, at)).collect();
        let by_content = tokens.iter().map(|t| (t.content.clone(), t.id)).collect();
        Ok(Self { tokens, by_id, by_content, raw, normalized, specials })
    }

    pub(crate) fn get(&self, id: u32) -> Option<&AddedToken> {
        self.by_id.get(&id).map(|&at| &self.tokens[at])
    }

    /// One more than the largest id.
    pub(crate) fn len(&self) -> usize {
        self.tokens.iter().map(|t| t.id as usize + 1).max().unwrap_or(0)
    }

    pub(crate) fn find(&self, content: &str) -> Option<u32> {
        self.by_content.get(content).copied()
    }

    pub(crate) fn specials(&self) -> impl Iterator<Item = &AddedToken> {
        self.tokens.iter().filter(|t| t.special)
    }

    /// Where names of special tokens begin in a text, all of them, also inside each other.
    pub(crate) fn special_names(&self, text: &str) -> Vec<usize> {
        let mut starts = Vec::new();
        let mut from = 0;
        while let Some(finder) = &self.specials
            && let Some(found) = finder.search.find(Input::new(text).range(from..))
        {
            starts.push(found.start());
            from = found.start() + text[found.start()..].chars().next().map_or(1, char::len_utf8);
        }
        starts
    }

    /// The parts of a text as given.
    pub(crate) fn split(&self, text: &str, specials: bool) -> Vec<Part> {
        self.parts(&self.raw, text, specials)
    }

    /// The parts of a text between two of [`split`](Self::split)'s tokens, once it is normalised.
    pub(crate) fn split_normalized(&self, text: &str, specials: bool) -> Vec<Part> {
        self.parts(&self.normalized, text, specials)
    }

    fn parts(&self, finders: &Finders, text: &str, specials: bool) -> Vec<Part> {
        let mut parts = Vec::new();
        let mut from = 0;
        let finder = if specials { &finders.all } else { &finders.plain };
        let finds = finder.iter().flat_map(|finder| finder.search.find_iter(text).map(move |m| (m, finder)));
        for (found, finder) in finds {
            let token = &self.tokens[finder.tokens[found.pattern().as_usize()]];
            let (mut start, mut end) = (found.start(), found.end());
            if start < from {
                continue; // swallowed by the `rstrip` of the token before
            }
            let in_word = |c: char| c.is_alphanumeric() || c == '_';
            if token.single_word && (text[..start].ends_with(in_word) || text[end..].starts_with(in_word)) {
                continue;
            }
            if token.lstrip {
                start = text[from..start].trim_end().len() + from;
            }
            if token.rstrip {
                end = text.len() - text[end..].trim_start().len();
            }
            if from < start {
                parts.push(Part::Text(from..start));
            }
            parts.push(Part::Token(token.id));
            from = end;
        }
        if from < text.len() {
            parts.push(Part::Text(from..text.len()));
        }
        parts
    }
}

impl Finder {
    fn new(tokens: Vec<usize>, patterns: &[String]) -> Result<Option<Self>, String> {
        if tokens.is_empty() {
            return Ok(None);
        }
        let search = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(tokens.iter().map(|&at| &patterns[at]))
            .map_err(|e| format!("added tokens: {e}"))?;
        Ok(Some(Self { search, tokens }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(tokens: Vec<AddedToken>) -> Added {
        Added::new(tokens, |text| Ok(text.to_owned())).unwrap()
    }

    #[test]
    fn the_longest_token_wins_and_specials_need_trust() {
        let a = added(vec![
            AddedToken::new(7, "<|a|>", true),
            AddedToken::new(8, "<|a|>b", true),
            AddedToken::new(9, "  ", false),
        ]);
        let all = a.split("x<|a|>b  <|a|>", true);
        assert_eq!(all, [Part::Text(0..1), Part::Token(8), Part::Token(9), Part::Token(7)]);
        let plain = a.split("x<|a|>b  <|a|>", false);
        assert_eq!(plain, [Part::Text(0..7), Part::Token(9), Part::Text(9..14)]);
    }

    #[test]
    fn flags_take_white_space_and_ask_for_whole_words() {
        let mut strip = AddedToken::new(1, "<s>", true);
        (strip.lstrip, strip.rstrip) = (true, true);
        let mut word = AddedToken::new(2, "yes", false);
        word.single_word = true;
        let a = added(vec![strip, word]);
        assert_eq!(
            a.split("a <s> \n<s> b", true),
            [Part::Text(0..1), Part::Token(1), Part::Token(1), Part::Text(11..12)]
        );
        assert_eq!(a.split("yes, yesterday", false), [Part::Token(2), Part::Text(3..14)]);
    }
}
