//! Doors for the fuzzer: bytes in, no panic.

use crate::guide::{Grammar, Guides};
use crate::parts::{Format, Parts, Thoughts};
use crate::tools::Tools;
use crate::{json, prepare, wire};

/// A body of the chat or the completions, as far as it is read without a model.
pub fn request(bytes: &[u8]) {
    if let Ok(request) = json::parse::<wire::Request>(bytes) {
        let tools = Tools::of(&request).ok().flatten();
        let _ = prepare::conversation(&request, tools.as_ref(), true);
        if let Some(tools) = &tools {
            let _ = (tools.explained(), tools.grammar());
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
pub struct Grammars(Guides);

impl Grammars {
    /// For the built-in model.
    pub fn story() -> Option<Self> {
        let model = tern::Model::story(&tern::Options::default()).ok()?;
        Guides::new(model.tokenizer().ok()?, model.config().vocab).map(Self)
    }

    /// A JSON schema, a Lark grammar or a regular expression, and its first mask.
    pub fn compile(&self, kind: u8, text: &str) {
        let grammar = match kind % 3 {
            0 => match serde_json::from_str(text) {
                Ok(schema) => Grammar::Schema(schema),
                Err(_) => return,
            },
            1 => Grammar::Lark(text.to_owned()),
            _ => Grammar::Regex(text.to_owned()),
        };
        let _ = self.0.guide(&grammar);
    }
}
