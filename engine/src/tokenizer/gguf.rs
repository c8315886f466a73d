//! Vocabularies in GGUF metadata, under `tokenizer.ggml.`.

use super::added::{Added, AddedToken};
use super::bpe::{Bpe, Rules, Unit, pairs as merge_rules};
use super::cut::Cut;
use super::normal::Normal;
use super::pre::{self, Pre};
use super::sentencepiece::{self, Kind, Piece};
use super::stream::Script;
use super::vocabulary::Vocabulary;
use super::{MAX_IDS, Tokenizer, alphabet, template_with};
use crate::file::gguf::Pairs;
use crate::template::BITNET_2B4T;
use crate::{Error, Result};

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const SCORES: &str = "tokenizer.ggml.scores";
const TYPES: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";
const TEMPLATE: &str = "tokenizer.chat_template";
/// A whole tokenizer.json; it says more than the other keys do.
const JSON: &str = "tokenizer.huggingface.json";

/// How these keys, of a byte-level vocabulary of so many tokens, say that text is cut.
pub fn cutting(pairs: &Pairs, tokens: usize) -> Result<Pre> {
    let name = match pairs.str(PRE)? {
        Some(name) => name,
        None if is_2b4t(pairs, tokens)? => "llama-bpe",
        None => "default",
    };
    pre::of_name(name).ok_or_else(|| {
        let found = crate::error::quoted(name);
        let what = match pre::NOT_BYTES.contains(&name) {
            true => format!("`{found}` cuts a vocabulary that is not byte-level, which is not supported"),
            false => format!("expected one of llama.cpp's names, `llama-bpe` say, found `{found}`"),
        };
        pairs.error(PRE, what)
    })
}

/// The chat template of these keys, or what it should be.
pub fn template_of(pairs: &Pairs) -> Result<Option<&str>> {
    let embedded = pairs.str(TEMPLATE)?;
    let made_up = embedded.is_none_or(|template| template.contains("BITNETAssistant"));
    let tokens = pairs.strings(TOKENS)?.map_or(0, |tokens| tokens.len());
    Ok(if made_up && is_2b4t(pairs, tokens)? { Some(BITNET_2B4T) } else { embedded })
}

/// Whether these are the pairs of BitNet b1.58 2B4T, whose official file lacks `pre` and carries a template that the
/// converter made up.
fn is_2b4t(pairs: &Pairs, tokens: usize) -> Result<bool> {
    let arch = pairs.str("general.architecture")?;
    Ok(matches!(arch, Some("bitnet-b1.58" | "bitnet-25")) && tokens == 128_256)
}

/// The tokenizer; `None` if the file has no vocabulary.
pub(super) fn read(pairs: &Pairs) -> Result<Option<Tokenizer>> {
    let whole = pairs.str(JSON)?;
    let model = match (pairs.str(MODEL)?, whole) {
        (None | Some("none" | "no_vocab"), None) => return Ok(None),
        (model, _) => model,
    };
    let tokens = pairs.strings(TOKENS)?.unwrap_or_default();
    let mut tokenizer = match (whole, model) {
        (Some(json), _) => super::json::read(json.as_bytes()).map_err(|what| pairs.error(JSON, what))?,
        _ if tokens.is_empty() => return Err(pairs.error(TOKENS, "expected the vocabulary, found none")),
        _ if tokens.len() > MAX_IDS => {
            let what = format!("expected at most {MAX_IDS} tokens, found {}", tokens.len());
            return Err(pairs.error(TOKENS, what));
        }
        (None, Some("gpt2")) => byte_level(pairs, &tokens)?,
        (None, Some("llama")) => sentencepiece(pairs, &tokens)?,
        (None, other) => {
            let found = crate::error::quoted(other.unwrap_or(""));
            return Err(pairs.error(MODEL, format!("expected `gpt2` or `llama`, found `{found}`")));
        }
    };

    let id = |key: &str| -> Result<Option<u32>> {
        let key = format!("tokenizer.ggml.{key}_token_id");
        let Some(id) = pairs.u32(&key)? else { return Ok(None) };
        if id as usize >= tokenizer.size() {
            let what = format!("expected an id below {}, found {id}", tokenizer.size());
            return Err(pairs.error(&key, what));
        }
        Ok(Some(id))
    };
    let (bos, eos) = (id("bos")?, id("eos")?);
    let stops = [eos, id("eot")?, id("eom")?];
    tokenizer.stop_at(stops.into_iter().flatten());
    if whole.is_none() {
        tokenizer.bos = bos.or(tokenizer.bos);
        if pairs.bool("tokenizer.ggml.add_bos_token")?.unwrap_or(tokenizer.adds_bos()) {
            tokenizer.before = tokenizer.bos.into_iter().collect();
        } else {
            tokenizer.before.clear();
        }
        if pairs.bool("tokenizer.ggml.add_eos_token")? == Some(true) {
            tokenizer.after = eos.into_iter().collect();
        }
    }

    if let Some(source) = template_of(pairs)? {
        let template = template_with(&tokenizer, source, tokenizer.bos, eos);
        tokenizer.template = Some(template.map_err(|e| match e {
            Error::Template(what) => pairs.error(TEMPLATE, what),
            other => other,
        })?);
    }
    Ok(Some(tokenizer))
}

fn byte_level(pairs: &Pairs, tokens: &[&str]) -> Result<Tokenizer> {
    let pre = cutting(pairs, tokens.len())?;
    let kinds = kinds(pairs, tokens)?;
    let mut vocabulary = Vocabulary::with_capacity(tokens.len());
    let mut added = Vec::new();
    let mut raw = Vec::new();
    for (id, (token, kind)) in (0u32..).zip(tokens.iter().zip(kinds)) {
        raw.clear();
        let printable = alphabet::append(token, &mut raw);
        let done = match (kind, printable) {
            (Kind::Normal | Kind::Byte, true) => vocabulary.insert(id, &raw),
            (Kind::Normal | Kind::Byte | Kind::Unused, _) => vocabulary.name(id, token.as_bytes()),
            (Kind::Control | Kind::Unknown | Kind::UserDefined, _) => {
                added.push(AddedToken::new(id, token, kind != Kind::UserDefined));
                vocabulary.name(id, token.as_bytes())
            }
        };
        done.map_err(|what| pairs.error(TOKENS, what))?;
    }

    let merges = pairs.strings(MERGES)?.unwrap_or_default();
    let mut split = Vec::with_capacity(merges.len());
    for merge in merges {
        // Pieces are in the byte alphabet, which has no space.
        let pair = merge.split_once(' ').filter(|(left, right)| !left.is_empty() && !right.is_empty());
        let found =
            || format!("expected two pieces with a space between, found `{}`", crate::error::quoted(merge));
        split.push(pair.ok_or_else(|| pairs.error(MERGES, found()))?);
    }
    let rules = merge_rules(split.into_iter(), &vocabulary, |piece, to| {
        alphabet::append(piece, to);
    });
    let rules = Rules::Pairs(rules.map_err(|what| pairs.error(MERGES, what))?);
    let bpe = Bpe::new(vocabulary, rules, Unit::Byte, pre.whole);
    let added = Added::new(added, |text| Ok(text.to_owned())).map_err(|what| pairs.error(TOKENS, what))?;
    let cut = Cut::patterns(pre.patterns).map_err(|what| pairs.error(PRE, what))?;
    let bos = pairs.u32("tokenizer.ggml.bos_token_id")?.filter(|_| pre.bos);
    Ok(Tokenizer::new(bpe, added, Normal::default(), cut, Script::Bytes)
        .beginning_with(bos.into_iter().collect()))
}

fn sentencepiece(pairs: &Pairs, tokens: &[&str]) -> Result<Tokenizer> {
    let scores = pairs.f32s(SCORES)?.unwrap_or_default();
    if scores.len() != tokens.len() {
        let what = format!("expected a score for each of {} tokens, found {}", tokens.len(), scores.len());
        return Err(pairs.error(SCORES, what));
    }
    let kinds = kinds(pairs, tokens)?;
    let pieces =
        tokens.iter().zip(scores).zip(kinds).map(|((text, score), kind)| Piece { text, score, kind });
    let pieces: Vec<Piece> = pieces.collect();
    let prefix = pairs.bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let tokenizer = sentencepiece::build(&pieces, prefix, Vec::new());
    let tokenizer = tokenizer.map_err(|what| pairs.error(TOKENS, what))?;
    let bos = pairs.u32("tokenizer.ggml.bos_token_id")?;
    Ok(tokenizer.beginning_with(bos.into_iter().collect()))
}

/// What each token is for; all are normal in a file that does not say.
fn kinds(pairs: &Pairs, tokens: &[&str]) -> Result<Vec<Kind>> {
    let Some(types) = pairs.i32s(TYPES)? else { return Ok(vec![Kind::Normal; tokens.len()]) };
    if types.len() != tokens.len() {
        let what = format!("expected a type for each of {} tokens, found {}", tokens.len(), types.len());
        return Err(pairs.error(TYPES, what));
    }
    let kind = |id: i32| {
        Kind::from_id(id).ok_or_else(|| pairs.error(TYPES, format!("expected types of 1 to 6, found {id}")))
    };
    types.into_iter().map(kind).collect()
}
