//! Tools: how they are offered to the model, how its calls are forced or found. `parts` takes them out of its text.
//!
//! Most ternary models' templates do not know tools, so there is one way for all, which is Qwen's: the system message lists
//! them, a call is `<tool_call>` JSON `</tool_call>`, an answer of a tool is `<tool_response>` in the next user's turn. A
//! grammar makes sure that what begins as a call is one. A model whose template is Qwen's reads the words that it was trained on.

use std::io;

use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};
use serde_json::{Value, json};

use crate::error::Refusal;
use crate::grammar::{Grammar, Layout, laid_out};
use crate::limits::{SCHEMA_DEPTH, TOOLS};
use crate::wire;

/// A sentence of Qwen's templates, by which they are known.
const QWEN: &str = "You are provided with function signatures within <tools></tools> XML tags:";

/// JSON with a space after each `,` and `:`, as templates write it.
fn spaced(value: &Value) -> String {
    struct Spaced;
    impl Formatter for Spaced {
        fn begin_array_value<W: ?Sized + io::Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
            if first { Ok(()) } else { out.write_all(b", ") }
        }
        fn begin_object_key<W: ?Sized + io::Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
            if first { Ok(()) } else { out.write_all(b", ") }
        }
        fn begin_object_value<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
            out.write_all(b": ")
        }
    }
    let mut bytes = Vec::new();
    let written = value.serialize(&mut Serializer::with_formatter(&mut bytes, Spaced));
    written.expect("a value is JSON");
    String::from_utf8(bytes).expect("JSON is UTF-8")
}

pub(crate) const OPEN: &str = "<tool_call>";
pub(crate) const CLOSE: &str = "</tool_call>";

/// The tools of a request and how they may be used.
#[derive(Clone, Debug)]
pub(crate) struct Tools {
    list: Vec<wire::Function>,
    choice: Choice,
    /// More than one call in an answer.
    pub(crate) several: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Choice {
    Auto,
    /// Some tool, or the named one.
    Forced(Option<String>),
}

impl Tools {
    /// `None` where there are none, or none may be used.
    pub(crate) fn of(request: &wire::Request) -> Result<Option<Self>, Refusal> {
        let list = request.tools.as_deref().unwrap_or_default();
        if list.len() > TOOLS {
            return Err(Refusal::field("tools", format!("expected at most {TOOLS}, found {}", list.len())));
        }
        for (at, tool) in list.iter().enumerate() {
            let place = |field: &str| format!("tools[{at}].{field}");
            if let Some(kind) = tool.kind.as_deref().filter(|kind| *kind != "function") {
                return Err(Refusal::field(
                    place("type"),
                    format!("expected `function`, found `{}`", crate::error::short(kind)),
                ));
            }
            let name = &tool.function.name;
            let letters = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
            if name.is_empty() || name.len() > 64 || !letters {
                let what = "expected 1 to 64 letters, digits, `_`, `-` or `.`";
                return Err(Refusal::field(place("function.name"), what));
            }
            if !matches!(tool.function.parameters, None | Some(Value::Object(_)) | Some(Value::Null)) {
                return Err(Refusal::field(
                    place("function.parameters"),
                    "expected a JSON schema, an object",
                ));
            }
        }
        let choice = match &request.tool_choice {
            None | Some(Value::Null) => Choice::Auto,
            Some(Value::String(word)) => match word.as_str() {
                "auto" => Choice::Auto,
                "none" => return Ok(None),
                "required" | "any" => Choice::Forced(None),
                _ => return Err(wrong_choice()),
            },
            Some(Value::Object(choice)) => {
                let name = choice.get("function").unwrap_or(&Value::Null)["name"].as_str();
                let name =
                    name.or_else(|| choice.get("name").and_then(Value::as_str)).ok_or_else(wrong_choice)?;
                if !list.iter().any(|tool| tool.function.name == name) {
                    let what = format!("there is no tool `{}`", crate::error::short(name));
                    return Err(Refusal::field("tool_choice", what));
                }
                Choice::Forced(Some(name.to_owned()))
            }
            Some(_) => return Err(wrong_choice()),
        };
        if list.is_empty() {
            return match choice {
                Choice::Auto => Ok(None),
                Choice::Forced(_) => Err(Refusal::field("tool_choice", "there are no tools to choose from")),
            };
        }
        let several = request.parallel_tool_calls != Some(false);
        Ok(Some(Self { list: list.iter().map(|tool| tool.function.clone()).collect(), choice, several }))
    }

    /// Whether the model may answer without them.
    pub(crate) fn may(&self) -> bool {
        self.choice == Choice::Auto
    }

    /// What the system message says about them: to a model whose template is this one.
    pub(crate) fn explained(&self, template: &str) -> String {
        if template.contains(QWEN) {
            return self.explained_to_qwen();
        }
        let mut text = String::from(
            "You can call these tools. To call one, answer with its name and arguments as JSON between \
             <tool_call> and </tool_call>, nothing else:\n<tool_call>\n{\"name\": \"NAME\", \"arguments\": {}}\n\
             </tool_call>\nThe tools:\n",
        );
        for tool in &self.list {
            let parameters = tool.parameters.clone().unwrap_or_else(|| json!({}));
            let line = json!({"name": tool.name, "description": tool.description, "parameters": parameters});
            text.push_str(&line.to_string());
            text.push('\n');
        }
        text
    }

    /// The words of Qwen's own template.
    fn explained_to_qwen(&self) -> String {
        let mut text = format!(
            "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n{QWEN}\n<tools>"
        );
        for tool in &self.list {
            let mut function = json!({"name": tool.name});
            if let Some(description) = &tool.description {
                function["description"] = json!(description);
            }
            if let Some(parameters) = &tool.parameters {
                function["parameters"] = parameters.clone();
            }
            text.push('\n');
            text.push_str(&spaced(&json!({"type": "function", "function": function})));
        }
        text.push_str(
            "\n</tools>\n\nFor each function call, return a json object with function name and arguments within \
             <tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": <function-name>, \"arguments\": \
             <args-json-object>}\n</tool_call>",
        );
        text
    }

    /// What the answer must be a text of. Where no call is forced, it is free beside its calls, or follows this schema
    /// if it has none.
    pub(crate) fn grammar(&self, answer: Option<(&Value, Layout)>) -> Grammar {
        let only = match &self.choice {
            Choice::Forced(Some(name)) => Some(name),
            _ => None,
        };
        let list = self.list.iter().filter(|tool| only.is_none_or(|name| *name == tool.name));
        let strict = list.clone().all(|tool| tool.strict == Some(true));
        let calls: Vec<Value> = list.map(call_schema).collect();
        let call = match calls.len() {
            1 => calls[0].clone(),
            _ => json!({ "anyOf": calls }),
        };
        let call = laid_out(&call, if strict { Layout::Strict } else { Layout::Lenient });
        let call = format!("call: %json {call}\n");
        let times = if self.several { "*" } else { "?" };
        Grammar::Lark(match (&self.choice, answer) {
            (Choice::Forced(_), _) => format!("start: \"{OPEN}\\n\" call \"\\n{CLOSE}\"\n{call}"),
            (Choice::Auto, None) => format!(
                "start: (open call \"\\n{CLOSE}\" /\\n?/){times} rest\nopen[lazy]: /(.|\\n)*/ \"{OPEN}\\n\"\nrest: TEXT\n\
                 TEXT: /(.|\\n)*/\n{call}"
            ),
            (Choice::Auto, Some((schema, layout))) => {
                let more = format!("(\"\\n{OPEN}\\n\" call \"\\n{CLOSE}\")*");
                format!(
                    "start: calls | answer\ncalls: \"{OPEN}\\n\" call \"\\n{CLOSE}\" {}\nanswer: %json {}\n{call}",
                    if self.several { more } else { String::new() },
                    laid_out(schema, layout)
                )
            }
        })
    }
}

/// A call of one tool, as JSON.
fn call_schema(tool: &wire::Function) -> Value {
    // No parameters: none can be given.
    let none = || json!({"type": "object", "properties": {}});
    let mut arguments = tool.parameters.clone().filter(Value::is_object).unwrap_or_else(none);
    if arguments.get("type").is_none() && arguments.get("$ref").is_none() {
        arguments["type"] = json!("object");
    }
    close(&mut arguments, 0);
    json!({
        "type": "object",
        "properties": {"name": {"const": tool.name}, "arguments": arguments},
        "required": ["name", "arguments"],
        "additionalProperties": false,
    })
}

/// Lets objects end: one that names its properties and does not say whether there may be others has no others, because a
/// small model that may invent them does so until its answer is cut.
fn close(schema: &mut Value, level: usize) {
    // What nests deeper is refused before it is compiled.
    if level > SCHEMA_DEPTH {
        return;
    }
    let Value::Object(members) = schema else { return };
    let says = [
        "additionalProperties",
        "patternProperties",
        "unevaluatedProperties",
        "minProperties",
        "propertyNames",
    ];
    // In a union the others may be another member's.
    let alone = !["allOf", "anyOf", "oneOf", "$ref"].iter().any(|key| members.contains_key(*key));
    if alone
        && members.get("properties").is_some_and(Value::is_object)
        && !says.iter().any(|key| members.contains_key(*key))
    {
        members.insert("additionalProperties".to_owned(), json!(false));
    }
    for (key, value) in members.iter_mut() {
        match (key.as_str(), value) {
            ("properties" | "$defs" | "definitions", Value::Object(named)) => {
                named.values_mut().for_each(|schema| close(schema, level + 1));
            }
            ("items", schema @ Value::Object(_)) => close(schema, level + 1),
            ("anyOf" | "oneOf" | "prefixItems", Value::Array(list)) => {
                list.iter_mut().for_each(|schema| close(schema, level + 1));
            }
            _ => {}
        }
    }
}

fn wrong_choice() -> Refusal {
    let what =
        "expected `auto`, `none`, `required` or {\"type\": \"function\", \"function\": {\"name\": ...}}";
    Refusal::field("tool_choice", what)
}

/// How a call that the model made is written in the next prompt.
pub(crate) fn call_text(name: &str, arguments: &Value) -> String {
    let arguments = match arguments {
        // A text of JSON is its own best form.
        Value::String(text) if serde_json::from_str::<Value>(text).is_ok() => text.clone(),
        Value::Null => "{}".to_owned(),
        other => other.to_string(),
    };
    format!("{OPEN}\n{{\"name\": {}, \"arguments\": {arguments}}}\n{CLOSE}", json!(name))
}

/// How a tool's answer is.
pub(crate) fn response_text(content: &str) -> String {
    format!("<tool_response>\n{content}\n</tool_response>")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A conversation with tools and calls becomes what jinja2 makes of it (testdata/golden/gen/qwen_tools.py).
    #[test]
    fn a_model_of_qwen_reads_tools_as_its_template_writes_them() {
        let golden: Value =
            serde_json::from_str(include_str!("../../testdata/golden/qwen_tools.json")).unwrap();
        let request = json!({"messages": golden["messages"], "tools": golden["tools"]});
        let request: wire::Request = serde_json::from_value(request).unwrap();
        let tools = Tools::of(&request).unwrap().unwrap();
        let source = golden["template"].as_str().unwrap();
        let (messages, _) = crate::prepare::conversation(&request, Some(&tools), true, source).unwrap();
        let template = tern::Template::new(source, "", "").unwrap();
        assert_eq!(template.render(&messages, true).unwrap(), golden["text"].as_str().unwrap());
        let other = tools.explained("{{ messages }}");
        assert!(other.starts_with("You can call these tools."), "{other}");
    }
}
