//! Grammars to what follows them: the `llguidance` crate with a model's tokens and our limits.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};
use llguidance::{ParserFactory, TokenParser};
use serde_json::{Value, json};
use tern::Tokenizer;

use super::{Grammar, Layout};
use crate::error::short;
use crate::limits::LEXER_BYTES;

/// What a model's tokens spell: all that compiling needs of a model.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Words {
    pub(super) stops: Vec<u32>,
    /// Special tokens begin with a mark, so that no text can be spelled with them; what spells nothing is empty.
    pub(super) words: Vec<Vec<u8>>,
}

impl Words {
    /// `None` for a model that has no stop token: then no grammar could end.
    pub(crate) fn new(tokenizer: &Tokenizer, vocab: usize) -> Option<Self> {
        let stops = tokenizer.stops().to_vec();
        stops.first()?;
        let word = |id: u32| match tokenizer.token_bytes(id) {
            Some((bytes, false)) => bytes,
            Some((bytes, true)) => [&[TokTrie::SPECIAL_TOKEN_MARKER], &bytes[..]].concat(),
            None => Vec::new(),
        };
        Some(Self { stops, words: (0..vocab as u32).map(word).collect() })
    }

    /// As the process that tries grammars reads them.
    pub(super) fn write(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let number = |count: usize| (count as u32).to_le_bytes();
        bytes.extend(number(self.stops.len()));
        for stop in &self.stops {
            bytes.extend(stop.to_le_bytes());
        }
        for word in &self.words {
            bytes.extend(number(word.len()));
            bytes.extend(word);
        }
        bytes
    }

    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        fn number(bytes: &mut &[u8]) -> Option<u32> {
            let (first, rest) = bytes.split_first_chunk()?;
            *bytes = rest;
            Some(u32::from_le_bytes(*first))
        }
        let mut bytes = bytes;
        let stops = (0..number(&mut bytes)?).map(|_| number(&mut bytes)).collect::<Option<_>>()?;
        let mut words = Vec::new();
        while !bytes.is_empty() {
            let (word, rest) = {
                let len = number(&mut bytes)? as usize;
                bytes.split_at_checked(len)?
            };
            words.push(word.to_vec());
            bytes = rest;
        }
        Some(Self { stops, words })
    }
}

/// Compiles grammars for one model.
pub(crate) struct Compiler {
    factory: ParserFactory,
}

/// A grammar that can be followed; each answer takes a clone of it.
pub(crate) struct Compiled {
    pub(super) parser: TokenParser,
    /// What of a lenient schema is not kept.
    pub(crate) warnings: Vec<String>,
    /// Bytes that each clone holds.
    pub(super) bytes: usize,
}

impl Compiler {
    pub(crate) fn new(words: &Words) -> Option<Self> {
        let info = TokRxInfo::new(words.words.len() as u32, *words.stops.first()?);
        let trie = TokTrie::from(&info, &words.words).with_eos_tokens(&words.stops);
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let slices = SlicedBiasComputer::general_slices();
        let mut factory = ParserFactory::new(&env, InferenceCapabilities::default(), &slices).ok()?;
        factory.quiet();
        *factory.limits_mut() = limits();
        Some(Self { factory })
    }

    /// Compiles a grammar and takes its first mask, which tells whether any text follows it. What is wrong is told in
    /// one line.
    ///
    /// Neither time nor memory nor stack are bounded by themselves: see [`super::trial`].
    pub(crate) fn compile(&self, grammar: &Grammar) -> Result<Compiled, String> {
        let top = match grammar {
            Grammar::Schema(schema, layout) => TopLevelGrammar::from_json_schema(laid_out(schema, *layout)),
            Grammar::Lark(text) => TopLevelGrammar::from_lark(text.clone()),
            Grammar::Regex(text) => TopLevelGrammar::from_regex(text),
        };
        let compiled = catch_unwind(AssertUnwindSafe(|| {
            let mut parser = self.factory.create_parser(top).map_err(|error| error.to_string())?;
            parser.start_without_prompt();
            parser.compute_mask().map_err(|error| error.to_string())?;
            Ok::<_, String>(parser)
        }));
        let mut parser = match compiled {
            Ok(Ok(parser)) => parser,
            Ok(Err(error)) => return Err(told(&error)),
            Err(_) => return Err("it cannot be compiled".to_owned()),
        };
        let bytes = parser.parser.lexer_stats().num_bytes;
        if bytes > LEXER_BYTES / 2 {
            return Err(format!("its words need {} MiB, at most {}", bytes >> 20, LEXER_BYTES >> 21));
        }
        let warnings = parser.grammar_warnings().iter().map(|text| told(text)).collect();
        Ok(Compiled { parser, warnings, bytes })
    }
}

/// What the crate allows one grammar: a part of its own defaults. People's schemas need a hundredth.
fn limits() -> ParserLimits {
    ParserLimits {
        verbose_errors: false,
        initial_lexer_fuel: 1_000_000,
        step_lexer_fuel: 200_000,
        max_lexer_states: 20_000,
        max_grammar_size: 200_000,
        step_max_items: 50_000,
        ..ParserLimits::default()
    }
}

/// What the crate says, in one line and without the insides of a panic.
pub(super) fn told(text: &str) -> String {
    let text = text.trim().trim_end_matches("<non-verbose/>").trim();
    match text.contains("panic") {
        true => "it cannot be compiled".to_owned(),
        false => short(text),
    }
}

/// A schema with one way to lay JSON out: were any white space allowed, a small model could write nothing else.
pub(crate) fn laid_out(schema: &Value, layout: Layout) -> Value {
    let mut schema = schema.clone();
    if let Value::Object(members) = &mut schema {
        let options = json!({
            "whitespace_flexible": false, "item_separator": ", ", "key_separator": ": ",
            "lenient": layout == Layout::Lenient,
        });
        members.insert("x-guidance".to_owned(), options);
    }
    schema
}
