//! A new tokenizer for a corpus: byte-level BPE, learnt by the `tokenizers` crate, in the files that the engine reads.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tern::file::Whole;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::normalizer::SplitDelimiterBehavior;
use tokenizers::{
    DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, TokenizerImpl,
};

use crate::data::{self, Document, Rules, Side};
use crate::error::{Error, Result};

/// The special tokens, in the order of their ids, which are the first ones: begin and end of a text; then a chat.
pub const SPECIALS: [&str; 6] =
    ["<|begin_of_text|>", "<|end_of_text|>", "<|user|>", "<|assistant|>", "<|end|>", "<|system|>"];

/// How a conversation is written with them.
pub const TEMPLATE: &str = "{% for message in messages %}{% if message['role'] == 'user' %}<|user|>\
{{ message['content'] | trim }}<|end|>{% elif message['role'] == 'assistant' %}<|assistant|>\
{{ message['content'] | trim }}<|end|>{% elif message['role'] == 'system' %}<|system|>\
{{ message['content'] | trim }}<|end|>{% else %}\
{{ raise_exception('unknown role ' + message['role']) }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}<|assistant|>{% endif %}";

/// Words with the space before them, up to three digits, runs of punctuation, white space.
const PIECES: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Learns `vocab` tokens from the files and writes `tokenizer.json` and `tokenizer_config.json` into `dir`.
pub fn train(
    files: &[PathBuf],
    rules: Rules,
    vocab: usize,
    dir: &Path,
    note: &mut dyn FnMut(String),
) -> Result<()> {
    let least = 256 + SPECIALS.len();
    if vocab < least || vocab > 1 << 20 {
        return Err(Error::Input(format!("a vocabulary of {vocab}: expected {least} to {}", 1 << 20)));
    }
    let mut texts = Vec::new();
    for file in files {
        note(format!("reading {}", file.display()));
        data::documents(file, rules, |document, _| {
            match document {
                Document::Text(text) => texts.push(text),
                Document::Chat(messages) => texts.extend(messages.into_iter().map(|message| message.content)),
                Document::Pair(sides) => texts.extend(sides.into_iter().flat_map(Side::texts)),
            }
            Ok(())
        })?;
    }
    let wrong = |e: tokenizers::Error| Error::Input(format!("tokenizer: {e}"));
    type Bpe =
        TokenizerImpl<BPE, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;
    let mut tokenizer: Bpe = TokenizerImpl::new(BPE::default());
    let split = Split::new(SplitPattern::Regex(PIECES.into()), SplitDelimiterBehavior::Isolated, false);
    let bytes = ByteLevel::new(false, true, false);
    let cut = tokenizers::pre_tokenizers::sequence::Sequence::new(vec![
        PreTokenizerWrapper::Split(split.map_err(wrong)?),
        PreTokenizerWrapper::ByteLevel(bytes),
    ]);
    tokenizer.with_pre_tokenizer(Some(PreTokenizerWrapper::Sequence(cut)));
    tokenizer.with_decoder(Some(DecoderWrapper::ByteLevel(bytes)));
    let mut trainer = BpeTrainerBuilder::new()
        .vocab_size(vocab)
        .min_frequency(2)
        .show_progress(false)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(SPECIALS.iter().map(|name| tokenizers::AddedToken::from(*name, true)).collect())
        .build();
    note(format!("learning {vocab} tokens from {} texts", texts.len()));
    tokenizer.train(&mut trainer, texts.into_iter()).map_err(wrong)?;
    let learnt = tokenizer.get_vocab_size(true);
    if learnt < vocab {
        note(format!("the texts have pieces for {learnt} tokens only"));
    }
    let mut json = serde_json::to_value(&tokenizer).map_err(|e| Error::Input(format!("tokenizer: {e}")))?;
    json["post_processor"] = begins_with(SPECIALS[0]);
    let config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SPECIALS[0],
        "eos_token": SPECIALS[1],
        "chat_template": TEMPLATE,
    });
    std::fs::create_dir_all(dir).map_err(|e| Error::io(dir, e))?;
    for (name, json) in [("tokenizer.json", &json), ("tokenizer_config.json", &config)] {
        Whole::begin(&dir.join(name))?.publish(format!("{json:#}\n").as_bytes())?;
    }
    Ok(())
}

/// Puts the first special token before every text.
fn begins_with(bos: &str) -> Value {
    let special = |kind| json!({ "SpecialToken": { "id": bos, "type_id": kind } });
    let sequence = |id: &str, kind| json!({ "Sequence": { "id": id, "type_id": kind } });
    json!({
        "type": "TemplateProcessing",
        "single": [special(0), sequence("A", 0)],
        "pair": [special(0), sequence("A", 0), special(1), sequence("B", 1)],
        "special_tokens": { (bos): { "id": bos, "ids": [0], "tokens": [bos] } },
    })
}
