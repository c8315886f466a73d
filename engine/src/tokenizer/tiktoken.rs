//! Tiktoken's rank files: a base64 piece and its rank in every line, as Llama-3 ships its vocabulary.
//!
//! The file does not say how a text is cut nor which special tokens there are. Both are known for the two
//! vocabularies that use it, and told apart by their size: Llama-3 (128 000) and OpenAI's cl100k (100 256).

use super::added::{Added, AddedToken};
use super::bpe::{Bpe, Rules, Unit};
use super::cut::Cut;
use super::normal::Normal;
use super::pre::LLAMA3;
use super::stream::Script;
use super::vocabulary::Vocabulary;
use super::{MAX_IDS, Tokenizer};
use crate::error::quoted;

/// Llama-3 reserves 256 ids behind its pieces; those without a name are numbered.
const LLAMA3_SPECIALS: [(u32, &str); 12] = [
    (128_000, "<|begin_of_text|>"),
    (128_001, "<|end_of_text|>"),
    (128_002, "<|reserved_special_token_0|>"),
    (128_003, "<|reserved_special_token_1|>"),
    (128_004, "<|finetune_right_pad_id|>"),
    (128_005, "<|reserved_special_token_2|>"),
    (128_006, "<|start_header_id|>"),
    (128_007, "<|end_header_id|>"),
    (128_008, "<|eom_id|>"),
    (128_009, "<|eot_id|>"),
    (128_010, "<|python_tag|>"),
    (128_011, "<|reserved_special_token_3|>"),
];

const CL100K_SPECIALS: [(u32, &str); 5] = [
    (100_257, "<|endoftext|>"),
    (100_258, "<|fim_prefix|>"),
    (100_259, "<|fim_middle|>"),
    (100_260, "<|fim_suffix|>"),
    (100_276, "<|endofprompt|>"),
];

pub(super) fn read(file: &[u8]) -> Result<Tokenizer, String> {
    // A line is some 17 bytes long.
    let mut vocabulary = Vocabulary::with_capacity((file.len() / 16).min(MAX_IDS));
    let mut ranks = Vec::new();
    let mut piece = Vec::new();
    for (number, line) in file.split(|&b| b == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            continue;
        }
        let wrong = |what: &str| {
            let line = quoted(&String::from_utf8_lossy(&line[..line.len().min(80)]));
            format!("line {}: {what}: `{line}`", number + 1)
        };
        let space = line.iter().position(|&b| b == b' ').ok_or_else(|| wrong("not a piece and a rank"))?;
        piece.clear();
        base64(&line[..space], &mut piece).ok_or_else(|| wrong("not base64"))?;
        let rank = std::str::from_utf8(&line[space + 1..]).ok().and_then(|rank| rank.parse::<u32>().ok());
        let rank = rank.filter(|&rank| (rank as usize) < MAX_IDS).ok_or_else(|| wrong("not a rank"))?;
        if vocabulary.find(&piece).is_some() {
            return Err(wrong("the piece is there twice"));
        }
        vocabulary.insert(rank, &piece)?;
        if ranks.len() <= rank as usize {
            ranks.resize(rank as usize + 1, u32::MAX);
        }
        ranks[rank as usize] = rank;
    }
    let (specials, bos): (Vec<AddedToken>, _) = match vocabulary.len() {
        128_000 => {
            let named = LLAMA3_SPECIALS.iter().map(|&(id, name)| AddedToken::new(id, name, true));
            let numbered = (128_012..128_256)
                .map(|id| AddedToken::new(id, &format!("<|reserved_special_token_{}|>", id - 128_008), true));
            (named.chain(numbered).collect(), vec![128_000])
        }
        100_256 => {
            (CL100K_SPECIALS.iter().map(|&(id, name)| AddedToken::new(id, name, true)).collect(), vec![])
        }
        other => {
            return Err(format!(
                "{other} tiktoken ranks: only Llama-3's 128000 and cl100k's 100256 are known; use a tokenizer.json"
            ));
        }
    };
    let bpe = Bpe::new(vocabulary, Rules::Pieces(ranks), Unit::Byte, true);
    let added = Added::new(specials, |text| Ok(text.to_owned()))?;
    // cl100k's pattern is Llama-3's: they differ in possessive repeats only, which match the same.
    let cut = Cut::patterns(&[LLAMA3])?;
    Ok(Tokenizer::new(bpe, added, Normal::default(), cut, Script::Bytes).beginning_with(bos))
}

/// Decodes one base64 word with its padding.
fn base64(word: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let digits = word.len() - word.iter().rev().take_while(|&&b| b == b'=').count();
    if word.is_empty() || !word.len().is_multiple_of(4) || word.len() - digits > 2 {
        return None;
    }
    let (mut bits, mut count) = (0u32, 0);
    for &b in &word[..digits] {
        let digit = match b {
            b'A'..=b'Z' => b - b'A',
            b'a'..=b'z' => b - b'a' + 26,
            b'0'..=b'9' => b - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(digit);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    Some(())
}
