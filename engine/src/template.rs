//! Chat templates: messages in, the text that the model was trained on out.

use minijinja::{Environment, ErrorKind, Value, context};

use crate::{Error, Result, error::quoted};

/// BitNet b1.58 2B4T's: the official GGUF carries a made-up one instead.
pub(crate) const BITNET_2B4T: &str = "{% for message in messages %}\
{{ message['role'] | capitalize + ': ' + message['content'] | trim + '<|eot_id|>' }}\
{% endfor %}{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}";

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
        let template = Self { source: source.to_owned(), bos: bos.to_owned(), eos: eos.to_owned() };
        template.environment()?;
        Ok(template)
    }

    /// The Jinja source.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The text for these messages; with `generation_prompt` it ends where the assistant begins to speak.
    pub fn render(&self, messages: &[Message], generation_prompt: bool) -> Result<String> {
        let environment = self.environment()?;
        let template = environment.get_template("chat").map_err(one_line)?;
        template
            .render(context! {
                messages => messages.iter().map(|m| context! { role => m.role.as_str(), content => m.content.as_str() }).collect::<Value>(),
                add_generation_prompt => generation_prompt,
                bos_token => self.bos.as_str(),
                eos_token => self.eos.as_str(),
            })
            .map_err(one_line)
    }

    fn environment(&self) -> Result<Environment<'_>> {
        let mut environment = Environment::new();
        environment.set_fuel(Some(1_000_000));
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        let syntax = minijinja::syntax::SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(one_line)?);
        environment.add_function("raise_exception", |message: String| -> Result<Value, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_template("chat", &self.source).map_err(one_line)?;
        Ok(environment)
    }
}

fn one_line(error: minijinja::Error) -> Error {
    Error::Template(quoted(&error.to_string()))
}
