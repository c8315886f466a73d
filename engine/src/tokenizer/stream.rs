//! From ids back to text, all at once or one by one.

use super::Tokenizer;
use super::bpe::byte_of;

/// What the bytes of a piece mean.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Script {
    /// They are the text's own bytes.
    Bytes,
    /// `▁` is a space, `<0x0A>` a byte; a text begins with this many spaces that were not in it.
    Spaces { strip: usize },
}

/// Turns a stream of ids into text that is made of whole characters; together they are what
/// [`Tokenizer::decode`] gives for all the ids. Bytes that are no UTF-8 become U+FFFD.
///
/// Special tokens are not shown.
pub struct Decoder<'t> {
    tokenizer: &'t Tokenizer,
    /// The beginning of a character, at most three bytes.
    pending: Vec<u8>,
    /// Leading spaces that are still to be left out.
    strip: usize,
    specials: bool,
}

impl<'t> Decoder<'t> {
    pub(crate) fn new(tokenizer: &'t Tokenizer, specials: bool) -> Self {
        let strip = match tokenizer.script {
            Script::Bytes => 0,
            Script::Spaces { strip } => strip,
        };
        Self { tokenizer, pending: Vec::new(), strip, specials }
    }

    /// The text that became whole with this id, if any did. An id without a piece prints nothing.
    pub fn push(&mut self, id: u32) -> Option<String> {
        let mut text = String::new();
        self.push_to(id, &mut text);
        (!text.is_empty()).then_some(text)
    }

    /// The rest: U+FFFD if the ids end inside a character.
    pub fn finish(self) -> String {
        if self.pending.is_empty() { String::new() } else { char::REPLACEMENT_CHARACTER.to_string() }
    }

    pub(crate) fn push_to(&mut self, id: u32, text: &mut String) {
        if let Some(token) = self.tokenizer.added.get(id) {
            if token.special && !self.specials {
                return;
            }
            // Added tokens are text as they stand, but for SentencePiece's sign for a space.
            match self.tokenizer.script {
                Script::Bytes => self.pending.extend_from_slice(token.content.as_bytes()),
                Script::Spaces { .. } => self.spaced(token.content.as_bytes()),
            }
        } else if let Some(piece) = self.tokenizer.bpe.vocabulary.piece(id) {
            match (self.tokenizer.script, byte_of(piece)) {
                (Script::Bytes, _) => self.pending.extend_from_slice(piece),
                (Script::Spaces { .. }, Some(byte)) => self.pending.push(byte),
                (Script::Spaces { .. }, None) => self.spaced(piece),
            }
        }
        self.drain(text);
    }

    /// Adds a piece with `▁` (three bytes) as spaces.
    fn spaced(&mut self, mut piece: &[u8]) {
        while let Some((first, rest)) = piece.split_first() {
            if let Some(rest) = piece.strip_prefix("▁".as_bytes()) {
                self.pending.push(b' ');
                piece = rest;
            } else {
                self.pending.push(*first);
                piece = rest;
            }
        }
    }

    /// Moves whole characters out, as `String::from_utf8_lossy` would see them.
    fn drain(&mut self, text: &mut String) {
        let from = text.len();
        let mut rest = &self.pending[..];
        loop {
            match std::str::from_utf8(rest) {
                Ok(whole) => {
                    text.push_str(whole);
                    rest = &[];
                    break;
                }
                Err(broken) => {
                    let (whole, after) = rest.split_at(broken.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(whole));
                    match broken.error_len() {
                        Some(len) => {
                            text.push(char::REPLACEMENT_CHARACTER);
                            rest = &after[len..];
                        }
                        None => {
                            rest = after;
                            break;
                        }
                    }
                }
            }
        }
        let keep = rest.len();
        self.pending.drain(..self.pending.len() - keep);
        while self.strip > 0 && from < text.len() {
            if text.as_bytes()[from] != b' ' {
                self.strip = 0;
            } else {
                text.remove(from);
                self.strip -= 1;
            }
        }
    }
}
