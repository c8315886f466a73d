//! Grammars that answers must follow: JSON schemas, Lark, regular expressions, calls of tools. The `llguidance` crate
//! does the work; here it gets the model's tokens and its limits.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use llguidance::api::TopLevelGrammar;
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, SimpleVob, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use serde_json::{Value, json};
use tern::{Guide, Tokenizer};

use crate::error::Refusal;
use crate::json::short;
use crate::limits::{GRAMMAR, SCHEMA_DEPTH};

/// What an answer must be a text of.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Grammar {
    /// Any JSON object.
    Object,
    Schema(Value),
    Lark(String),
    Regex(String),
}

/// Makes guides for one model.
pub(crate) struct Guides {
    factory: ParserFactory,
}

impl Guides {
    /// `None` for a model that has no stop token: then no grammar could end.
    pub(crate) fn new(tokenizer: &Tokenizer, vocab: usize) -> Option<Self> {
        let stops = tokenizer.stops();
        let eos = *stops.first()?;
        // Special tokens are marked, so that no text can be spelled with them.
        let word = |id: u32| match tokenizer.token_bytes(id) {
            Some((bytes, false)) => bytes,
            Some((bytes, true)) => [&[TokTrie::SPECIAL_TOKEN_MARKER], &bytes[..]].concat(),
            None => Vec::new(),
        };
        let words: Vec<Vec<u8>> = (0..vocab as u32).map(word).collect();
        let trie = TokTrie::from(&TokRxInfo::new(vocab as u32, eos), &words).with_eos_tokens(stops);
        let env: llguidance::toktrie::TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let slices = llguidance::earley::SlicedBiasComputer::general_slices();
        let mut factory = ParserFactory::new(&env, InferenceCapabilities::default(), &slices).ok()?;
        factory.quiet();
        let limits = factory.limits_mut();
        limits.verbose_errors = false;
        // A tenth of what the crate allows by itself: schemas of people need a hundredth.
        limits.initial_lexer_fuel = 1_000_000;
        limits.max_lexer_states = 50_000;
        limits.max_grammar_size = 200_000;
        limits.step_max_items = 50_000;
        Some(Self { factory })
    }

    /// Compiles a grammar, which takes from a tenth of a millisecond to some hundreds.
    pub(crate) fn guide(&self, grammar: &Grammar) -> Result<Box<dyn Guide>, Refusal> {
        let top = match grammar {
            Grammar::Object => TopLevelGrammar::from_json_schema(laid_out(json!({"type": "object"}))),
            Grammar::Schema(schema) => {
                check_schema(schema)?;
                TopLevelGrammar::from_json_schema(laid_out(schema.clone()))
            }
            Grammar::Lark(text) => {
                check_size(text.len())?;
                TopLevelGrammar::from_lark(text.clone())
            }
            Grammar::Regex(text) => {
                check_size(text.len())?;
                TopLevelGrammar::from_regex(text)
            }
        };
        let compiled = catch_unwind(AssertUnwindSafe(|| self.factory.create_parser(top)));
        let parser = match compiled {
            Ok(Ok(parser)) => parser,
            Ok(Err(error)) => return Err(refused(&error.to_string())),
            Err(_) => return Err(refused("it cannot be compiled")),
        };
        let mut matcher = Matcher::new(Ok(parser));
        if let Some(error) = matcher.get_error() {
            return Err(refused(&error));
        }
        // The first mask tells whether any text follows the grammar.
        match catch_unwind(AssertUnwindSafe(|| matcher.compute_mask())) {
            Ok(Ok(mask)) if !mask.is_zero() => Ok(Box::new(Followed { matcher })),
            Ok(Ok(_)) => Err(refused("no text follows it")),
            Ok(Err(error)) => Err(refused(&error.to_string())),
            Err(_) => Err(refused("it cannot be followed")),
        }
    }
}

/// A schema with one way to lay JSON out: were any white space allowed, a small model could write nothing else.
pub(crate) fn laid_out(mut schema: Value) -> Value {
    if let Value::Object(members) = &mut schema {
        let layout = json!({"whitespace_flexible": false, "item_separator": ", ", "key_separator": ": "});
        members.insert("x-guidance".to_owned(), layout);
    }
    schema
}

fn refused(what: &str) -> Refusal {
    Refusal::bad(format!("the grammar or schema of the answer: {}", short(what.trim())))
}

fn check_size(bytes: usize) -> Result<(), Refusal> {
    if bytes > GRAMMAR {
        Err(refused(&format!("expected at most {GRAMMAR} bytes, found {bytes}")))
    } else {
        Ok(())
    }
}

fn check_schema(schema: &Value) -> Result<(), Refusal> {
    fn depth(value: &Value) -> usize {
        match value {
            Value::Array(list) => 1 + list.iter().map(depth).max().unwrap_or(0),
            Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
            _ => 0,
        }
    }
    if !matches!(schema, Value::Object(_) | Value::Bool(_)) {
        return Err(refused("expected an object"));
    }
    let levels = depth(schema);
    if levels > SCHEMA_DEPTH {
        return Err(refused(&format!("expected at most {SCHEMA_DEPTH} levels, found {levels}")));
    }
    check_size(schema.to_string().len())
}

struct Followed {
    matcher: Matcher,
}

impl Guide for Followed {
    fn allow(&mut self, bits: &mut Vec<u32>) -> Result<(), String> {
        if self.matcher.is_stopped() {
            bits.clear();
            return Ok(());
        }
        let mask: SimpleVob =
            self.matcher.compute_mask().map_err(|error| format!("grammar: {}", short(&error.to_string())))?;
        bits.clear();
        bits.extend_from_slice(mask.as_slice());
        Ok(())
    }

    fn accept(&mut self, id: u32) -> Result<(), String> {
        self.matcher.consume_token(id).map_err(|error| format!("grammar: {}", short(&error.to_string())))
    }
}
