//! SentencePiece vocabularies: pieces with scores, from a `tokenizer.model` (protobuf) or from a GGUF.
//!
//! Only its BPE kind: the pair whose joined piece scores highest joins first, on equal scores the leftmost. The result
//! does not depend on listed merges, so the scores are used as they are.

use super::added::{Added, AddedToken};
use super::bpe::{Bpe, Rules, Unit, byte_of};
use super::cut::Cut;
use super::normal::Normal;
use super::stream::Script;
use super::vocabulary::Vocabulary;
use super::{MAX_IDS, Tokenizer};
use crate::error::quoted;

/// What a piece is for, numbered as in SentencePiece and GGUF.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Ordinary text.
    Normal = 1,
    /// Stands for what no piece spells.
    Unknown,
    /// Steers the model.
    Control,
    /// Text that is always one token.
    UserDefined,
    /// An id without a use.
    Unused,
    /// One byte, written `<0x41>`.
    Byte,
}

impl Kind {
    /// The kind of this number.
    pub fn from_id(id: i32) -> Option<Self> {
        let all = [Self::Normal, Self::Unknown, Self::Control, Self::UserDefined, Self::Unused, Self::Byte];
        all.into_iter().find(|&kind| kind as i32 == id)
    }
}

/// One piece; its id is its place.
#[derive(Debug)]
pub struct Piece<'t> {
    /// Its text, with `▁` for a space.
    pub text: &'t str,
    /// What merges first scores highest.
    pub score: f32,
    /// What it is for.
    pub kind: Kind,
}

/// What a `tokenizer.model` says.
#[derive(Debug)]
pub struct Pieces<'t> {
    /// By id.
    pub pieces: Vec<Piece<'t>>,
    /// Whether a space comes before every text.
    pub prefix: bool,
    /// The token that begins a text.
    pub bos: Option<u32>,
    /// The token that ends one.
    pub eos: Option<u32>,
}

/// Builds the tokenizer. `prefix` puts a space before every text; `more` are added tokens that the vocabulary lacks.
pub(super) fn build(pieces: &[Piece], prefix: bool, mut more: Vec<AddedToken>) -> Result<Tokenizer, String> {
    if pieces.len() > MAX_IDS {
        return Err(format!("{} pieces, more than the limit of {MAX_IDS}", pieces.len()));
    }
    let mut vocabulary = Vocabulary::with_capacity(pieces.len());
    let mut bytes = Box::new([u32::MAX; 256]);
    let mut unknown = None;
    let mut added = Vec::new();
    for (id, piece) in (0u32..).zip(pieces) {
        let text = piece.text.as_bytes();
        match piece.kind {
            Kind::Normal | Kind::Unused => vocabulary.insert(id, text)?,
            Kind::Byte => {
                let byte =
                    byte_of(text).ok_or_else(|| format!("`{}` is no byte piece", quoted(piece.text)))?;
                bytes[byte as usize] = id;
                vocabulary.name(id, text)?;
            }
            Kind::Unknown | Kind::Control | Kind::UserDefined => {
                if piece.kind == Kind::Unknown && unknown.is_none() {
                    unknown = Some(id);
                }
                vocabulary.name(id, text)?;
                added.push(AddedToken::new(id, piece.text, piece.kind != Kind::UserDefined));
            }
        }
    }
    more.retain(|token| !added.iter().any(|known| known.id == token.id || known.content == token.content));
    added.extend(more);
    let unit =
        Unit::Char { bytes: bytes.iter().all(|&id| id != u32::MAX).then_some(bytes), unknown, fuse: true };
    let bpe = Bpe::new(vocabulary, Rules::Pieces(ranks(pieces)?), unit, false);
    let added = Added::new(added, |text| Ok(text.to_owned()))?;
    let script = Script::Spaces { strip: usize::from(prefix) };
    Ok(Tokenizer::new(bpe, added, Normal::sentencepiece(prefix), Cut::default(), script))
}

/// Ranks by falling score; pieces of one score have one rank.
fn ranks(pieces: &[Piece]) -> Result<Vec<u32>, String> {
    if let Some(piece) = pieces.iter().find(|piece| !piece.score.is_finite()) {
        return Err(format!("the score of `{}` is {}", quoted(piece.text), piece.score));
    }
    let mut order: Vec<usize> = (0..pieces.len()).filter(|&id| pieces[id].kind == Kind::Normal).collect();
    order.sort_by(|&a, &b| pieces[b].score.total_cmp(&pieces[a].score));
    let mut ranks = vec![u32::MAX; pieces.len()];
    let (mut rank, mut last) = (0, None);
    for id in order {
        // -0 and 0 are one score.
        if last.is_some_and(|last| last != pieces[id].score) {
            rank += 1;
        }
        last = Some(pieces[id].score);
        ranks[id] = rank;
    }
    Ok(ranks)
}

/// Reads a SentencePiece `tokenizer.model`.
pub(super) fn read(file: &[u8], more: Vec<AddedToken>) -> Result<Tokenizer, String> {
    let Pieces { pieces, prefix, bos, eos } = parse(file)?;
    let mut tokenizer = build(&pieces, prefix, more)?;
    tokenizer.bos = bos;
    tokenizer.stop_at(eos);
    Ok(tokenizer)
}

/// The fields of a SentencePiece `tokenizer.model` that Tern knows, if there are none that change its meaning.
pub fn parse(file: &[u8]) -> Result<Pieces<'_>, String> {
    let mut pieces = Vec::new();
    let mut model = Proto(&[]);
    let mut normalizer = Proto(&[]);
    for field in Proto(file) {
        match field? {
            (1, Field::Bytes(piece)) => pieces.push(piece_of(Proto(piece))?),
            (2, Field::Bytes(spec)) => model = Proto(spec),
            (3, Field::Bytes(spec)) => normalizer = Proto(spec),
            _ => {}
        }
    }
    if pieces.is_empty() {
        return Err("expected a SentencePiece model, found no pieces".to_owned());
    }
    // trainer_spec: 3 model type (1 unigram, 2 BPE), 41 and 42 the ids of BOS and EOS.
    let (mut kind, mut bos, mut eos) = (1, 1, 2);
    for field in model {
        match field? {
            (3, Field::Number(value)) => kind = value,
            (41, Field::Number(value)) => bos = value,
            (42, Field::Number(value)) => eos = value,
            _ => {}
        }
    }
    // normalizer_spec: 2 compiled character map, 3 dummy prefix, 4 remove extra white space.
    let (mut map, mut prefix, mut squeeze) = (false, true, true);
    for field in normalizer {
        match field? {
            (2, Field::Bytes(value)) => map = !value.is_empty(),
            (3, Field::Number(value)) => prefix = value != 0,
            (4, Field::Number(value)) => squeeze = value != 0,
            _ => {}
        }
    }
    if kind != 2 || map || squeeze {
        return Err("of SentencePiece models only BPE that changes no characters is supported; \
                    use the model's tokenizer.json"
            .to_owned());
    }
    let id = |id: u64| u32::try_from(id).ok().filter(|&id| (id as usize) < pieces.len());
    Ok(Pieces { prefix, bos: id(bos), eos: id(eos), pieces })
}

fn piece_of(message: Proto<'_>) -> Result<Piece<'_>, String> {
    let mut piece = Piece { text: "", score: 0.0, kind: Kind::Normal };
    for field in message {
        match field? {
            (1, Field::Bytes(text)) => {
                piece.text = std::str::from_utf8(text).map_err(|_| "a piece is not UTF-8".to_owned())?;
            }
            (2, Field::Float(score)) => piece.score = score,
            (3, Field::Number(kind)) => {
                let known = i32::try_from(kind).ok().and_then(Kind::from_id);
                piece.kind = known.ok_or_else(|| format!("a piece of the unknown type {kind}"))?;
            }
            _ => {}
        }
    }
    Ok(piece)
}

/// The fields of a protobuf message, in order.
struct Proto<'f>(&'f [u8]);

enum Field<'f> {
    Number(u64),
    Float(f32),
    Bytes(&'f [u8]),
    Other,
}

impl<'f> Proto<'f> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, len: u64) -> Option<&'f [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(len).ok()?)?;
        self.0 = rest;
        Some(taken)
    }

    fn field(&mut self) -> Option<(u64, Field<'f>)> {
        let tag = self.varint()?;
        let field = match tag & 7 {
            0 => Field::Number(self.varint()?),
            1 => self.take(8).map(|_| Field::Other)?,
            2 => {
                let len = self.varint()?;
                Field::Bytes(self.take(len)?)
            }
            5 => Field::Float(f32::from_le_bytes(self.take(4)?.try_into().ok()?)),
            _ => return None,
        };
        Some((tag >> 3, field))
    }
}

impl<'f> Iterator for Proto<'f> {
    type Item = Result<(u64, Field<'f>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field.ok_or_else(|| "expected a SentencePiece model, found broken fields".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Specials;
    use proptest::prelude::*;

    /// SentencePiece's rule, said slowly: join the best pair, the leftmost of the best, until there is none.
    fn slowly(pieces: &[(&str, f32)], text: &str) -> Vec<String> {
        let mut parts: Vec<String> = text.chars().map(String::from).collect();
        let score = |part: &str| pieces.iter().find(|(piece, _)| *piece == part).map(|(_, score)| *score);
        loop {
            let mut best: Option<(f32, usize)> = None;
            for at in 1..parts.len() {
                let joined = score(&(parts[at - 1].clone() + &parts[at]));
                if let Some(joined) = joined.filter(|&joined| best.is_none_or(|(best, _)| joined > best)) {
                    best = Some((joined, at));
                }
            }
            let Some((_, at)) = best else { return parts };
            let right = parts.remove(at);
            parts[at - 1] += &right;
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_best_score_joins_first_and_of_equals_the_leftmost(text in "[abc ]{0,24}", scores in prop::array::uniform12(-3i8..0)) {
            let texts = ["a", "b", "c", "▁", "aa", "aaa", "ab", "ba", "bc", "▁a", "aab", "▁▁"];
            let pieces: Vec<(&str, f32)> = texts.into_iter().zip(scores.map(f32::from)).collect();
            let all: Vec<Piece> = pieces.iter().map(|&(text, score)| Piece { text, score, kind: Kind::Normal }).collect();
            let tokenizer = build(&all, true, Vec::new()).unwrap();
            let ids = tokenizer.encode(&text, false, Specials::Text).unwrap();
            let parts: Vec<String> = ids.iter().map(|&id| tokenizer.token_text(id).unwrap()).collect();
            let text = if text.is_empty() { text } else { format!(" {text}") };
            prop_assert_eq!(parts, slowly(&pieces, &text.replace(' ', "▁")));
        }
    }

    #[test]
    fn unknown_characters_become_bytes_or_one_unknown() {
        let bytes: Vec<String> = (0..256).map(|byte| format!("<0x{byte:02X}>")).collect();
        let mut pieces = vec![Piece { text: "<unk>", score: 0.0, kind: Kind::Unknown }];
        pieces.push(Piece { text: "a", score: -1.0, kind: Kind::Normal });
        let few = build(&pieces, false, Vec::new()).unwrap();
        assert_eq!(few.encode("aéßa", false, Specials::Text).unwrap(), [1, 0, 1]);
        pieces.extend(bytes.iter().map(|text| Piece { text, score: 0.0, kind: Kind::Byte }));
        let all = build(&pieces, false, Vec::new()).unwrap();
        let ids = all.encode("aé", false, Specials::Text).unwrap();
        assert_eq!(ids, [1, 2 + 0xC3, 2 + 0xA9]);
        assert_eq!(all.decode(&ids, false), "aé");
    }

    #[test]
    fn broken_protobufs_are_refused() {
        for file in [
            &b"\n"[..],
            b"\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\n\x05\n\x03abc",
            b"\x07",
            b"\n\x02\x18\x09",
            b"\x80",
        ] {
            assert!(read(file, Vec::new()).is_err(), "{file:?}");
        }
    }
}
