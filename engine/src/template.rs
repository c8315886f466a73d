//! Chat templates: messages in, the text that the model was trained on out.
//!
//! Templates are Jinja, as transformers renders it (`trim_blocks`, `lstrip_blocks`, Python's methods of strings and
//! dictionaries). They come out of model files, so a rendering is bounded: its instructions by minijinja's fuel, the
//! size of what it makes by a [`Budget`](budget::Budget), its depth by [`rewrite`].

mod budget;
mod clock;
mod functions;
mod json;
mod methods;
mod namespace;
mod rewrite;

use std::borrow::Cow;
use std::sync::Arc;

use minijinja::machinery::{self, CodeGenerator};
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, ErrorKind, Value};

use crate::error::quoted;
use crate::{Error, Result};

/// BitNet b1.58 2B4T's: the official GGUF carries a made-up one instead.
pub(crate) const BITNET_2B4T: &str = "{% for message in messages %}\
{{ message['role'] | capitalize + ': ' + message['content'] | trim + '<|eot_id|>' }}\
{% endfor %}{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}";

/// The largest known template has some 25 kB.
const MAX_SOURCE: usize = 1 << 16;
/// Real templates need about 50 instructions for a message.
const FUEL: u64 = 1_000_000;

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// `system`, `user`, `assistant`, or what else the template knows.
    pub role: String,
    /// What was said.
    pub content: String,
}

/// A model's chat template, in Jinja as Hugging Face's models carry it.
#[derive(Clone, Debug)]
pub struct Template {
    source: String,
    bos: String,
    eos: String,
}

impl Template {
    /// A template with the texts of the tokens that it may name as `bos_token` and `eos_token`. It is compiled once
    /// here, so that a wrong one is known when the model is opened.
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<Self> {
        if source.len() > MAX_SOURCE {
            let what = format!("expected at most {MAX_SOURCE} bytes, found {}", source.len());
            return Err(Error::Template(what));
        }
        let source = without_generation_tags(source).into_owned();
        let template = Self { source, bos: bos.to_owned(), eos: eos.to_owned() };
        apart(|| template.compile(|_, _| Ok(())))?;
        Ok(template)
    }

    /// The Jinja source.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The text for these messages; with `generation_prompt` it ends where the assistant begins to speak.
    pub fn render(&self, messages: &[Message], generation_prompt: bool) -> Result<String> {
        apart(|| self.render_here(messages, generation_prompt))
    }

    /// Whether the model gets to read a system message: some templates leave it out, and some refuse it.
    pub fn reads_system(&self) -> bool {
        const WORDS: &str = "vnqxkzj";
        let message =
            |role: &str, content: &str| Message { role: role.to_owned(), content: content.to_owned() };
        self.render(&[message("system", WORDS), message("user", "x")], true)
            .is_ok_and(|text| text.to_lowercase().contains(WORDS))
    }

    fn render_here(&self, messages: &[Message], generation_prompt: bool) -> Result<String> {
        let bytes = messages.iter().map(|m| m.role.len() + m.content.len()).sum();
        let budget = Arc::new(budget::Budget::new(messages.len(), bytes));
        let mut environment = Environment::empty();
        environment.set_fuel(Some(FUEL));
        functions::install(&mut environment, &budget);
        let message = |m: &Message| {
            Value::from_pairs([
                ("role", Value::from(m.role.as_str())),
                ("content", Value::from(m.content.as_str())),
            ])
        };
        let root = Value::from_pairs([
            ("messages", Value::from(messages.iter().map(message).collect::<Vec<_>>())),
            ("add_generation_prompt", Value::from(generation_prompt)),
            ("bos_token", Value::from(self.bos.as_str())),
            ("eos_token", Value::from(self.eos.as_str())),
            ("tools", Value::from(())),
            ("documents", Value::from(())),
        ]);
        let mut text = String::new();
        self.compile(|instructions, blocks| {
            let mut out = machinery::make_string_output(&mut text);
            machinery::eval(&environment, instructions, root, blocks, &mut out, AutoEscape::None).map(drop)
        })?;
        Ok(text)
    }

    /// Compiles the template for `use_it`. It takes some 50 µs, less than the smallest model's first token.
    fn compile<'s>(
        &'s self,
        use_it: impl FnOnce(
            &machinery::Instructions<'s>,
            &std::collections::BTreeMap<&'s str, machinery::Instructions<'s>>,
        ) -> Result<(), minijinja::Error>,
    ) -> Result<()> {
        let mut syntax = SyntaxConfig::builder();
        syntax.trim_blocks(true).lstrip_blocks(true);
        let syntax = syntax.build().map_err(one_line)?;
        rewrite::check_depth(&self.source, syntax.clone()).map_err(Error::Template)?;
        let tree = machinery::parse(&self.source, "chat", syntax).map_err(one_line)?;
        let tree = rewrite::template(&tree).map_err(Error::Template)?;
        let mut generator = CodeGenerator::new("chat", &self.source);
        generator.compile_stmt(&tree);
        let (instructions, blocks) = generator.finish();
        use_it(&instructions, &blocks).map_err(one_line)
    }
}

/// Runs this on a stack of its own: how much the caller has left does not matter, and a panic in the template engine,
/// which is not ours, is an error.
#[cfg(not(target_family = "wasm"))]
fn apart<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    /// Enough for the deepest syntax tree and recursion that the limits allow.
    const STACK: usize = 32 << 20;
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("template".to_owned()).stack_size(STACK);
        let running =
            thread.spawn_scoped(scope, work).map_err(|e| Error::Template(format!("no thread: {e}")))?;
        running.join().unwrap_or_else(|_| Err(Error::Template("it made the template engine fail".to_owned())))
    })
}

/// WebAssembly starts no threads by itself: `web/build` links it with a stack as large, and a panic ends the worker, which is
/// what the page tells.
#[cfg(target_family = "wasm")]
fn apart<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    work()
}

/// transformers marks what the assistant said by `{% generation %}` for training; it changes nothing in the text.
fn without_generation_tags(source: &str) -> Cow<'_, str> {
    if !source.contains("generation") {
        return source.into();
    }
    let mut text = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let Some(end) = rest[at + 2..].find("%}").map(|end| at + 2 + end) else { break };
        let inside = &rest[at + 2..end];
        let word = inside.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        let tag = match word {
            "generation" => "if true",
            "endgeneration" => "endif",
            other => other,
        };
        if tag == word {
            text.push_str(&rest[..end]);
        } else {
            text.push_str(&rest[..at + 2]);
            text.push_str(&inside.replace(word, tag));
        }
        rest = &rest[end..];
    }
    text.push_str(rest);
    text.into()
}

fn one_line(error: minijinja::Error) -> Error {
    let what = match (error.kind(), error.detail()) {
        (ErrorKind::OutOfFuel, None) => "it runs too long".to_owned(),
        (_, Some(detail)) => detail.to_owned(),
        (kind, None) => kind.to_string(),
    };
    let what: String = what.chars().take(300).map(|c| if c.is_control() { ' ' } else { c }).collect();
    Error::Template(match error.line() {
        Some(line) => format!("line {line}: {}", quoted_line(&what)),
        None => quoted_line(&what),
    })
}

fn quoted_line(what: &str) -> String {
    if what.len() > 240 { quoted(what) } else { what.to_owned() }
}
