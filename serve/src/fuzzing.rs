//! Doors for the fuzzer: bytes in, no panic.

use tern::Guide;

use crate::grammar::{Found, Grammar, Grammars, Layout, Start};
use crate::parts::{Format, Parts, Thoughts};
use crate::tools::Tools;
use crate::{json, prepare, wire};

/// A body of the chat or the completions, as far as it is read without a model.
pub fn request(bytes: &[u8]) {
    if let Ok(request) = json::parse::<wire::Request>(bytes) {
        let tools = Tools::of(&request).ok().flatten();
        let _ = prepare::conversation(&request, tools.as_ref(), true, "");
        if let Some(tools) = &tools {
            let _ = (tools.explained(""), tools.grammar(None));
        }
    }
}

/// An answer in which calls of tools are looked for, in two pieces.
pub fn calls(text: &str, cut: usize) {
    let cut = (0..=cut.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    for thoughts in [Thoughts::Text, Thoughts::Marked, Thoughts::Open] {
        let mut parts = Parts::new(Format { tools: true, thoughts });
        let _ = (parts.push(&text[..cut]), parts.push(&text[cut..]), parts.finish(cut % 2 == 0));
    }
}

/// What compiles grammars, for one model.
pub struct Followable(Grammars);

/// What was tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A JSON schema.
    Schema,
    /// Lark or GBNF.
    Grammar,
    /// A regular expression.
    Regex,
    /// A list of tools, as chats have it.
    Tools,
}

impl Followable {
    /// For the built-in model, with the process that tries grammars.
    pub fn story(start: Option<Start>) -> Option<Self> {
        let model = tern::Model::story(&tern::Options::default()).ok()?;
        Grammars::new(model.tokenizer().ok()?, model.config().vocab, start).map(Self)
    }

    /// Compiles a text and follows it for some tokens, chosen by `pick` among those allowed. `Err` tells why it was
    /// refused, `Ok` how the following ended.
    pub fn follow(
        &self,
        kind: Kind,
        text: &str,
        tokens: usize,
        mut pick: impl FnMut(usize) -> usize,
    ) -> Result<Result<usize, String>, String> {
        let wrong = |error: serde_json::Error| error.to_string();
        let grammar = match kind {
            Kind::Schema => Grammar::Schema(serde_json::from_str(text).map_err(wrong)?, Layout::Lenient),
            Kind::Grammar => Grammar::text(text).map_err(|refusal| refusal.message)?,
            Kind::Regex => Grammar::Regex(text.to_owned()),
            Kind::Tools => {
                let tools = serde_json::from_str(text).map_err(wrong)?;
                let request = wire::Request { tools: Some(tools), ..wire::Request::default() };
                match Tools::of(&request).map_err(|refusal| refusal.message)? {
                    Some(tools) => tools.grammar(None),
                    None => return Err("no tools".to_owned()),
                }
            }
        };
        let compiled = match self.0.find(grammar).map_err(|refusal| refusal.message)? {
            Found::Known(compiled) => compiled,
            Found::New(new) => self.0.compile(new).map_err(|refusal| refusal.message)?,
        };
        let mut guide = self.0.follow(&compiled);
        Ok(walk(&mut *guide, tokens, &mut pick))
    }
}

fn walk(guide: &mut dyn Guide, tokens: usize, pick: &mut dyn FnMut(usize) -> usize) -> Result<usize, String> {
    let mut bits = Vec::new();
    for count in 0..tokens {
        guide.allow(&mut bits)?;
        let allowed: usize = bits.iter().map(|word| word.count_ones() as usize).sum();
        if allowed == 0 {
            return Ok(count);
        }
        let mut left = pick(allowed) % allowed;
        let id = (0..bits.len() as u32 * 32).find(|id| {
            let set = bits[*id as usize / 32] >> (id % 32) & 1 == 1;
            let found = set && left == 0;
            left -= usize::from(set && !found);
            found
        });
        guide.accept(id.unwrap_or(0))?;
    }
    Ok(tokens)
}
