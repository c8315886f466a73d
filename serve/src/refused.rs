//! Settings of other servers that would change an answer and that this one does not have. They are refused by name, so
//! that nobody takes an answer for what it is not; what changes nothing is ignored. A value that means "off" passes:
//! many clients send all of their settings.

use std::fmt;

use serde::Deserializer as _;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use crate::error::{Refusal, short};

/// A setting: its name, the values that mean nothing, and what to do.
pub(crate) struct Setting(pub(crate) &'static str, pub(crate) Off, pub(crate) &'static str);

/// Values that change nothing, beside `null`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Off {
    /// None.
    Never,
    /// `0` and what is below it.
    Zero,
    One,
    False,
    True,
    /// An empty text, list or object.
    Empty,
    /// `["text"]`.
    TextOnly,
}

impl Off {
    fn is(self, value: &Value) -> bool {
        match (self, value) {
            (_, Value::Null) => true,
            (Self::Zero, Value::Number(number)) => number.as_f64().is_some_and(|number| number <= 0.0),
            (Self::Zero, Value::Bool(flag)) => !flag,
            (Self::One, Value::Number(number)) => number.as_f64() == Some(1.0),
            (Self::False, Value::Bool(flag)) => !flag,
            (Self::True, Value::Bool(flag)) => *flag,
            (Self::Empty, Value::String(text)) => text.is_empty(),
            (Self::Empty, Value::Array(list)) => list.is_empty(),
            (Self::Empty, Value::Object(map)) => map.is_empty(),
            (Self::TextOnly, Value::Array(list)) => list.iter().all(|kind| kind == "text"),
            _ => false,
        }
    }
}

/// Chat, completions and llama.cpp's own completion.
pub(crate) const COMMON: &[Setting] = &[
    Setting("functions", Off::Empty, "`tools` takes functions"),
    Setting("function_call", Off::Never, "`tool_choice` chooses a function"),
    Setting("min_tokens", Off::Zero, "this server does not hold an answer's end back"),
    Setting("use_beam_search", Off::False, "this server samples"),
    Setting("length_penalty", Off::One, "this server samples"),
    Setting("early_stopping", Off::False, "this server samples"),
    Setting("stop_token_ids", Off::Empty, "`stop` takes texts"),
    Setting("include_stop_str_in_output", Off::False, "an answer ends before its stop text"),
    Setting("skip_special_tokens", Off::True, "an answer's text has no special tokens"),
    Setting("bad_words", Off::Empty, "`logit_bias` keeps tokens away"),
    Setting("allowed_token_ids", Off::Empty, "`grammar` or `regex` say what may be written"),
    Setting("prompt_logprobs", Off::Never, "`echo` with `logprobs` tells those of a prompt"),
    Setting("truncate_prompt_tokens", Off::Zero, "a prompt is read whole, or refused"),
    Setting("logits_processors", Off::Empty, "this server runs no code of its clients"),
    Setting("chat_template", Off::Empty, "the model's own template is used"),
    Setting("documents", Off::Empty, "put them into a message"),
    Setting("modalities", Off::TextOnly, "this server writes text"),
    Setting("audio", Off::Never, "this server writes text"),
    Setting("web_search_options", Off::Never, "this server does not search"),
    Setting("mirostat", Off::Zero, "`temperature`, `top_k`, `top_p`, `min_p` and `typical_p` choose tokens"),
    Setting("dynatemp_range", Off::Zero, "`temperature` is constant here"),
    Setting("xtc_probability", Off::Zero, "`min_p` and `typical_p` are here"),
    Setting("top_n_sigma", Off::Zero, "`min_p` and `typical_p` are here"),
    Setting("adaptive_target", Off::Zero, "`min_p` and `typical_p` are here"),
    Setting("samplers", Off::Empty, "the samplers have one order, see docs/sampling.md"),
    Setting("t_max_predict_ms", Off::Zero, "`max_tokens` bounds an answer"),
    Setting("n_indent", Off::Zero, "`grammar` or `regex` say what may be written"),
    Setting("post_sampling_probs", Off::False, "probabilities are those before sampling"),
    Setting("lora", Off::Empty, "this server has no adapters"),
];

/// OpenAI's responses.
pub(crate) const RESPONSES: &[Setting] = &[
    Setting(
        "conversation",
        Off::Never,
        "this server keeps answers, see `previous_response_id`, not conversations",
    ),
    Setting("background", Off::False, "this server answers while the client waits"),
    Setting("prompt", Off::Never, "this server keeps no templates of prompts: send `input`"),
    Setting("max_tool_calls", Off::Never, "this server runs no tools"),
];

/// Anthropic's messages.
pub(crate) const ANTHROPIC: &[Setting] = &[
    Setting("mcp_servers", Off::Empty, "this server connects to no others"),
    Setting("container", Off::Never, "this server runs no code"),
];

/// Ollama's chat and generate.
pub(crate) const OLLAMA: &[Setting] = &[
    Setting("images", Off::Empty, "this server's models read text"),
    Setting("suffix", Off::Empty, "this server's models write on, they do not fill in"),
    Setting("template", Off::Empty, "the model's own template is used"),
    Setting("context", Off::Empty, "`/api/chat` takes what was said before"),
];

/// Looks through a body for settings that are refused; anything but an object passes, whoever reads it will say so.
pub(crate) fn check(body: &[u8], table: &'static [Setting]) -> Result<(), Refusal> {
    if table.is_empty() {
        return Ok(());
    }
    let found = serde_json::Deserializer::from_slice(body).deserialize_map(Look(table));
    match found.ok().flatten() {
        Some(Setting(name, _, what)) => {
            Err(Refusal::field(short(name), format!("not supported here: {what}")))
        }
        None => Ok(()),
    }
}

struct Look(&'static [Setting]);

impl<'de> Visitor<'de> for Look {
    type Value = Option<&'static Setting>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            match self.0.iter().find(|setting| setting.0 == key) {
                Some(setting) if found.is_none() => {
                    let value: Value = map.next_value()?;
                    found = Some(setting).filter(|setting| !setting.1.is(&value));
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_an_answer_is_refused_by_name_and_what_is_off_passes() {
        for (body, name) in [
            ("{\"min_tokens\": 3}", "min_tokens"),
            ("{\"x\": [1], \"functions\": [{\"name\": \"f\"}], \"mirostat\": 2}", "functions"),
            ("{\"mirostat\": 2}", "mirostat"),
            ("{\"modalities\": [\"text\", \"audio\"]}", "modalities"),
            ("{\"function_call\": \"auto\"}", "function_call"),
            ("{\"samplers\": [\"top_k\"]}", "samplers"),
        ] {
            let refusal = check(body.as_bytes(), COMMON).unwrap_err();
            assert_eq!(refusal.param.as_deref(), Some(name), "{body}");
            assert!(refusal.message.contains("not supported here"), "{refusal:?}");
        }
        for body in [
            "{\"min_tokens\": 0, \"mirostat\": 0, \"functions\": null, \"modalities\": [\"text\"], \"length_penalty\": 1}",
            "{\"skip_special_tokens\": true, \"t_max_predict_ms\": -1, \"documents\": []}",
            "[1]",
            "{",
        ] {
            assert_eq!(check(body.as_bytes(), COMMON), Ok(()), "{body}");
        }
    }
}
