//! Byte-pair encoding: one piece of text becomes ids by joining neighbours, the lowest rank first.
//!
//! One loop serves both kinds of rules. `tokenizer.json` and GGUF's "gpt2" list the pairs that may join;
//! tiktoken and SentencePiece let any two neighbours join that together are a piece of the vocabulary.
//! The `tokenizers` crate has a `BPE` too; loading Llama-3's 128 000 pieces into it takes 290 ms, because it keeps
//! every merge as two strings first, and it cannot give two ways to make one piece the same rank, which
//! SentencePiece's leftmost-first rule needs. It is the oracle of this module's tests.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use super::vocabulary::Vocabulary;

/// Left and right id to rank and joined id.
pub(crate) type Pairs = HashMap<(u32, u32), (u32, u32)>;

/// Which neighbours may join, and in which order.
pub(crate) enum Rules {
    /// Only these pairs.
    Pairs(Pairs),
    /// Any two whose bytes together are a piece; the rank of each id, `u32::MAX` for one that no join makes.
    Pieces(Vec<u32>),
}

/// What a text is cut into before any join.
pub(crate) enum Unit {
    /// Single bytes (GPT-2, Llama-3).
    Byte,
    /// Characters; one that is no piece becomes the tokens of its bytes, where the vocabulary has them, or else
    /// the unknown token, one for a whole run if `fuse`.
    Char { bytes: Option<Box<[u32; 256]>>, unknown: Option<u32>, fuse: bool },
}

/// A vocabulary with the rules to use it.
pub(crate) struct Bpe {
    pub(crate) vocabulary: Vocabulary,
    pub(crate) rules: Rules,
    pub(crate) unit: Unit,
    /// A text that is a piece as a whole is that piece, whatever the joins would give (Llama-3).
    pub(crate) whole: bool,
    /// No piece has `▁` behind another character, so words can be encoded one by one.
    words: bool,
}

/// Marks a character that is no piece.
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Symbol {
    id: u32,
    /// Byte range in the text; empty once joined to its left neighbour.
    start: u32,
    end: u32,
    /// Neighbours; `NONE` at the ends.
    prev: u32,
    next: u32,
}

/// A join that may still be possible: rank first, then the leftmost.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Join {
    rank: u32,
    left: u32,
    /// Where the right part ends: elsewhere than now, if either part has grown since.
    end: u32,
    id: u32,
}

/// Buffers that live as long as one text.
#[derive(Default)]
pub(crate) struct Scratch {
    symbols: Vec<Symbol>,
    joins: BinaryHeap<Reverse<Join>>,
}

impl Bpe {
    pub(crate) fn new(vocabulary: Vocabulary, rules: Rules, unit: Unit, whole: bool) -> Self {
        let crosses = |piece: &[u8]| words(piece).nth(1).is_some();
        let ids = 0..vocabulary.len() as u32;
        let words = matches!(unit, Unit::Char { .. })
            && !whole
            && !ids.filter_map(|id| vocabulary.piece(id)).any(crosses);
        Self { vocabulary, rules, unit, whole, words }
    }

    /// Appends the ids of one piece of text. An error names the byte or character that has no token.
    pub(crate) fn encode(
        &self,
        text: &[u8],
        scratch: &mut Scratch,
        ids: &mut Vec<u32>,
    ) -> Result<(), String> {
        if self.words {
            return words(text).try_for_each(|word| self.encode_word(word, scratch, ids));
        }
        self.encode_word(text, scratch, ids)
    }

    fn encode_word(&self, text: &[u8], scratch: &mut Scratch, ids: &mut Vec<u32>) -> Result<(), String> {
        if self.whole
            && let Some(id) = self.vocabulary.find(text)
        {
            ids.push(id);
            return Ok(());
        }
        if text.len() >= NONE as usize {
            return Err("a text of 4 GiB or more cannot be encoded".to_owned());
        }
        scratch.symbols.clear();
        self.cut(text, &mut scratch.symbols)?;
        self.join(text, scratch);
        self.collect(text, &scratch.symbols, ids)
    }

    fn cut(&self, text: &[u8], symbols: &mut Vec<Symbol>) -> Result<(), String> {
        let mut push = |id: u32, start: usize, end: usize| {
            let at = symbols.len() as u32;
            if let Some(last) = symbols.last_mut() {
                last.next = at;
            }
            let prev = at.checked_sub(1).unwrap_or(NONE);
            symbols.push(Symbol { id, start: start as u32, end: end as u32, prev, next: NONE });
        };
        match &self.unit {
            Unit::Byte => {
                for at in 0..text.len() {
                    let id = self.vocabulary.find(&text[at..=at]);
                    let id = id.ok_or_else(|| format!("no token for the byte 0x{:02X}", text[at]))?;
                    push(id, at, at + 1);
                }
            }
            Unit::Char { bytes, .. } => {
                let text = std::str::from_utf8(text).map_err(|_| "the text is not UTF-8".to_owned())?;
                for (start, char) in text.char_indices() {
                    let end = start + char.len_utf8();
                    match (self.vocabulary.find(&text.as_bytes()[start..end]), bytes, &self.rules) {
                        (Some(id), ..) => push(id, start, end),
                        // Listed pairs may name byte tokens, so these take part in the joins.
                        (None, Some(bytes), Rules::Pairs(_)) => {
                            for at in start..end {
                                push(bytes[text.as_bytes()[at] as usize], at, at + 1);
                            }
                        }
                        _ => push(NONE, start, end),
                    }
                }
            }
        }
        Ok(())
    }

    fn join(&self, text: &[u8], Scratch { symbols, joins }: &mut Scratch) {
        joins.clear();
        for left in 0..symbols.len().saturating_sub(1) {
            joins.extend(self.candidate(text, symbols, left as u32));
        }
        while let Some(Reverse(best)) = joins.pop() {
            let left = symbols[best.left as usize];
            if left.start == left.end || left.next == NONE {
                continue;
            }
            let right = symbols[left.next as usize];
            if right.end != best.end {
                continue;
            }
            symbols[left.next as usize].end = right.start;
            if let Some(next) = symbols.get_mut(right.next as usize) {
                next.prev = best.left;
            }
            let joined = &mut symbols[best.left as usize];
            (joined.id, joined.end, joined.next) = (best.id, right.end, right.next);
            if left.prev != NONE {
                joins.extend(self.candidate(text, symbols, left.prev));
            }
            joins.extend(self.candidate(text, symbols, best.left));
        }
    }

    /// The join of this symbol and its right neighbour, if the rules have one.
    fn candidate(&self, text: &[u8], symbols: &[Symbol], left: u32) -> Option<Reverse<Join>> {
        let a = symbols[left as usize];
        let b = symbols.get(a.next as usize)?;
        let (rank, id) = match &self.rules {
            Rules::Pairs(pairs) => *pairs.get(&(a.id, b.id))?,
            Rules::Pieces(ranks) => {
                let id = self.vocabulary.find(&text[a.start as usize..b.end as usize])?;
                (ranks.get(id as usize).copied().filter(|&rank| rank != u32::MAX)?, id)
            }
        };
        Some(Reverse(Join { rank, left, end: b.end, id }))
    }

    fn collect(&self, text: &[u8], symbols: &[Symbol], ids: &mut Vec<u32>) -> Result<(), String> {
        let mut after_unknown = false;
        for symbol in symbols.iter().filter(|s| s.start < s.end) {
            if symbol.id != NONE {
                ids.push(symbol.id);
                after_unknown = false;
                continue;
            }
            let part = &text[symbol.start as usize..symbol.end as usize];
            match &self.unit {
                Unit::Char { bytes: Some(bytes), .. } => ids.extend(part.iter().map(|&b| bytes[b as usize])),
                Unit::Char { unknown: Some(unknown), fuse, .. } => {
                    if !(*fuse && after_unknown) {
                        ids.push(*unknown);
                    }
                    after_unknown = true;
                }
                _ => {
                    let part = String::from_utf8_lossy(part);
                    return Err(format!("no token for `{}`", crate::error::quoted(&part)));
                }
            }
        }
        Ok(())
    }
}

/// The parts of a text that begin with `▁`s and have none after another character.
fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let sign = "▁".as_bytes();
    let mut rest = text;
    std::iter::from_fn(move || {
        let mut end = 0;
        while rest[end..].starts_with(sign) {
            end += sign.len();
        }
        while end < rest.len() && !rest[end..].starts_with(sign) {
            end += 1;
        }
        let (word, after) = rest.split_at(end);
        rest = after;
        (!word.is_empty()).then_some(word)
    })
}

/// The ids of `<0x00>` to `<0xFF>`, if all are there.
pub(crate) fn byte_tokens(vocabulary: &Vocabulary) -> Option<Box<[u32; 256]>> {
    let mut ids = Box::new([0; 256]);
    for byte in 0..256 {
        ids[byte] = vocabulary.find(format!("<0x{byte:02X}>").as_bytes())?;
    }
    Some(ids)
}

/// The byte that a piece like `<0x0A>` stands for.
pub(crate) fn byte_of(piece: &[u8]) -> Option<u8> {
    let hex = piece.strip_prefix(b"<0x")?.strip_suffix(b">")?;
    let hex = std::str::from_utf8(hex).ok().filter(|hex| hex.len() == 2)?;
    u8::from_str_radix(hex, 16).ok().filter(|_| hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// The listed merges as rules. `append` adds the bytes of a piece, as the file writes it, to a buffer.
pub(crate) fn pairs<'m>(
    merges: impl ExactSizeIterator<Item = (&'m str, &'m str)>,
    vocabulary: &Vocabulary,
    append: impl Fn(&str, &mut Vec<u8>),
) -> Result<Pairs, String> {
    let mut pairs = Pairs::with_capacity(merges.len());
    let mut joined = Vec::new();
    for (rank, (left, right)) in merges.enumerate() {
        joined.clear();
        append(left, &mut joined);
        let middle = joined.len();
        append(right, &mut joined);
        let find = |piece: &[u8]| vocabulary.find(piece);
        let (Some(a), Some(b), Some(id)) = (find(&joined[..middle]), find(&joined[middle..]), find(&joined))
        else {
            let (left, right) = (crate::error::quoted(left), crate::error::quoted(right));
            return Err(format!(
                "merge {rank}, `{left}` with `{right}`: one of the three is not in the vocabulary"
            ));
        };
        // Of a pair listed twice the later rank counts, as in the `tokenizers` crate.
        pairs.insert((a, b), (rank as u32, id));
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(bpe: &Bpe, text: &str) -> Result<Vec<u32>, String> {
        let mut ids = Vec::new();
        bpe.encode(text.as_bytes(), &mut Scratch::default(), &mut ids).map(|()| ids)
    }

    fn vocabulary(pieces: &[&str]) -> Vocabulary {
        let mut vocabulary = Vocabulary::with_capacity(pieces.len());
        for (id, piece) in (0..).zip(pieces) {
            vocabulary.insert(id, piece.as_bytes()).unwrap();
        }
        vocabulary
    }

    #[test]
    fn whole_pieces_need_no_joins() {
        for (whole, expected) in [(true, vec![3]), (false, vec![0, 1, 2])] {
            let bpe =
                Bpe::new(vocabulary(&["a", "b", "c", "abc"]), Rules::Pairs(Pairs::new()), Unit::Byte, whole);
            assert_eq!(encode(&bpe, "abc").unwrap(), expected);
        }
    }

    #[test]
    fn listed_pairs_join_by_rank_and_only_those() {
        let pieces = vocabulary(&["a", "b", "c", "ab", "bc", "abc"]);
        let append = |piece: &str, to: &mut Vec<u8>| to.extend_from_slice(piece.as_bytes());
        let rules = pairs([("b", "c"), ("a", "b"), ("ab", "c")].into_iter(), &pieces, append).unwrap();
        let bpe = Bpe::new(pieces, Rules::Pairs(rules), Unit::Byte, false);
        // `abc` is a piece, but of its two ways only `ab c` is listed, and `bc` joins first.
        assert_eq!(encode(&bpe, "abcab").unwrap(), [0, 4, 3]);
        assert!(encode(&bpe, "abd").unwrap_err().contains("0x64"));
    }

    #[test]
    fn words_end_before_the_sign_for_a_space() {
        let parts: Vec<&[u8]> = words("a▁▁b▁c▁".as_bytes()).collect();
        assert_eq!(parts, ["a", "▁▁b", "▁c", "▁"].map(str::as_bytes));
    }
}
