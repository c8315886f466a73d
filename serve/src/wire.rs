//! What clients send, as it lies on the wire, and nothing else. `null` is the same as absent; what is not named here is
//! ignored. One type serves chat and completions: their settings are the same, and the other dialects are translated
//! into it.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;

use crate::json;
use crate::refused::{self, Setting};

/// The body of `/v1/chat/completions` and `/v1/completions`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Request {
    pub(crate) model: Option<String>,
    pub(crate) messages: Option<Vec<Message>>,
    pub(crate) prompt: Option<Prompt>,
    pub(crate) suffix: Option<String>,
    pub(crate) echo: Option<bool>,
    pub(crate) stream: Option<bool>,
    pub(crate) stream_options: Option<StreamOptions>,
    pub(crate) n: Option<usize>,
    pub(crate) best_of: Option<usize>,
    pub(crate) max_tokens: Option<i64>,
    pub(crate) max_completion_tokens: Option<i64>,
    pub(crate) n_predict: Option<i64>,
    pub(crate) stop: Option<OneOrMany>,
    pub(crate) seed: Option<i64>,
    pub(crate) temperature: Option<f32>,
    pub(crate) top_p: Option<f32>,
    pub(crate) top_k: Option<i64>,
    pub(crate) min_p: Option<f32>,
    /// llama.cpp's and Ollama's names, here and for DRY.
    pub(crate) typical_p: Option<f32>,
    pub(crate) dry_multiplier: Option<f32>,
    pub(crate) dry_base: Option<f32>,
    pub(crate) dry_allowed_length: Option<usize>,
    /// -1 is the whole text.
    pub(crate) dry_penalty_last_n: Option<i64>,
    pub(crate) dry_sequence_breakers: Option<Vec<String>>,
    pub(crate) presence_penalty: Option<f32>,
    pub(crate) frequency_penalty: Option<f32>,
    /// vLLM's name.
    pub(crate) repetition_penalty: Option<f32>,
    /// llama.cpp's.
    pub(crate) repeat_penalty: Option<f32>,
    pub(crate) logit_bias: Option<Biases>,
    pub(crate) logprobs: Option<Logprobs>,
    pub(crate) top_logprobs: Option<usize>,
    pub(crate) ignore_eos: Option<bool>,
    pub(crate) response_format: Option<Value>,
    /// A Lark grammar.
    pub(crate) grammar: Option<String>,
    /// A regular expression that the whole answer matches.
    pub(crate) regex: Option<String>,
    pub(crate) json_schema: Option<Value>,
    pub(crate) tools: Option<Vec<Tool>>,
    pub(crate) tool_choice: Option<Value>,
    pub(crate) parallel_tool_calls: Option<bool>,
    pub(crate) add_generation_prompt: Option<bool>,
    /// vLLM's name for an answer that goes on where the last message ends.
    pub(crate) continue_final_message: Option<bool>,
    pub(crate) cache_prompt: Option<bool>,
    /// vLLM's and llama.cpp's, for templates that ask whether the model is to think.
    pub(crate) chat_template_kwargs: Option<TemplateWords>,
    /// llama.cpp's: `none` leaves thoughts in the text.
    pub(crate) reasoning_format: Option<String>,
    /// llama.cpp's: tell the prompt's text and what was set, in `__verbose`.
    pub(crate) verbose: Option<bool>,
    /// llama.cpp's, for its own completions: probabilities of so many tokens, answers, ids, fields of the answer.
    pub(crate) n_probs: Option<usize>,
    pub(crate) n_cmpl: Option<usize>,
    pub(crate) return_tokens: Option<bool>,
    pub(crate) response_fields: Option<Vec<String>>,
    pub(crate) timings_per_token: Option<bool>,
    pub(crate) return_progress: Option<bool>,
    /// vLLM's names for grammars, the older and the newer.
    pub(crate) guided_json: Option<Value>,
    pub(crate) guided_regex: Option<String>,
    pub(crate) guided_choice: Option<Vec<String>>,
    pub(crate) guided_grammar: Option<String>,
    pub(crate) structured_outputs: Option<Structured>,
}

/// What a chat template is told beside the messages.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TemplateWords {
    pub(crate) enable_thinking: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Structured {
    pub(crate) json: Option<Value>,
    pub(crate) regex: Option<String>,
    pub(crate) choice: Option<Vec<String>>,
    pub(crate) grammar: Option<String>,
    pub(crate) json_object: Option<bool>,
}

/// OpenAI's map, or llama.cpp's list of pairs; a key is a token's id, or a text whose every token gets the bias.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "expected a map of token ids to numbers, or a list of such pairs")]
pub(crate) enum Biases {
    Map(HashMap<String, f32>),
    List(Vec<(BiasKey, Bias)>),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum BiasKey {
    Id(u32),
    Text(String),
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Bias {
    Number(f32),
    /// `false`: never this token.
    Flag(bool),
}

impl json::Body for Request {
    const REFUSED: &'static [Setting] = refused::COMMON;
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct StreamOptions {
    pub(crate) include_usage: Option<bool>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "expected a text or a list of texts")]
pub(crate) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "expected a text, token ids, both in one list, or a list of such prompts")]
pub(crate) enum Prompt {
    Text(String),
    Ids(Vec<u32>),
    Texts(Vec<String>),
    Lists(Vec<Vec<u32>>),
    /// llama.cpp's: prompts of several kinds, or one of texts and ids.
    Mixed(Vec<PromptItem>),
    Object(PromptObject),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum PromptItem {
    Id(u32),
    Text(String),
    List(Vec<PromptAtom>),
    Object(PromptObject),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum PromptAtom {
    Id(u32),
    Text(String),
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct PromptObject {
    pub(crate) prompt_string: String,
    #[serde(default)]
    pub(crate) multimodal_data: Option<Value>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged, expecting = "expected true, false or a number")]
pub(crate) enum Logprobs {
    Flag(bool),
    Count(usize),
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Message {
    pub(crate) role: String,
    #[serde(default)]
    pub(crate) content: Option<Content>,
    #[serde(default)]
    pub(crate) tool_calls: Option<Vec<ToolCall>>,
    /// Ollama's place for them.
    #[serde(default)]
    pub(crate) images: Option<Vec<Value>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "expected a text or a list of parts")]
pub(crate) enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Part {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) text: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ToolCall {
    pub(crate) function: CalledFunction,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct CalledFunction {
    pub(crate) name: String,
    /// OpenAI sends a text of JSON, others the object.
    #[serde(default)]
    pub(crate) arguments: Value,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Tool {
    #[serde(rename = "type", default)]
    pub(crate) kind: Option<String>,
    pub(crate) function: Function,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Function {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) description: Option<String>,
    #[serde(default)]
    pub(crate) parameters: Option<Value>,
    /// Refuse the schema where it cannot be kept.
    #[serde(default)]
    pub(crate) strict: Option<bool>,
}

impl Message {
    pub(crate) fn new(role: &str, text: String) -> Self {
        Self { role: role.to_owned(), content: Some(Content::Text(text)), tool_calls: None, images: None }
    }
}

impl Content {
    /// The text of all parts; `Err` names a kind of part that is no text.
    pub(crate) fn text(&self) -> Result<String, &str> {
        match self {
            Self::Text(text) => Ok(text.clone()),
            Self::Parts(parts) => {
                let mut all = String::new();
                for part in parts {
                    match (part.kind.as_str(), &part.text) {
                        ("text" | "input_text" | "output_text", Some(text)) => all.push_str(text),
                        ("refusal", _) => {}
                        (kind, _) => return Err(kind),
                    }
                }
                Ok(all)
            }
        }
    }
}
