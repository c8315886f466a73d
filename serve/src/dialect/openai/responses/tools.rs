//! The tools of a request: functions, functions in namespaces, and tools that take a text; those that run at OpenAI are
//! not here and are never called.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::error::{Refusal, short};
use crate::wire::{Function, Tool};

/// How a call of a tool is told, by the tool's name.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum ToolKind {
    Function,
    /// A function of this namespace.
    Of(String),
    /// It takes a text.
    Custom,
}

pub(super) type Kinds = HashMap<String, ToolKind>;

/// The functions that are offered to the model, the choice among them, and what each is called as.
pub(super) fn read(
    list: Vec<Value>,
    choice: Option<Value>,
) -> Result<(Vec<Tool>, Option<Value>, Kinds), Refusal> {
    let (mut tools, mut kinds) = (Vec::new(), Kinds::new());
    let mut add = |tool: Value, kind: ToolKind, place: String| {
        let function = serde_json::from_value::<Function>(tool);
        let function = function.map_err(|error| Refusal::field(place, short(&error.to_string())))?;
        // A name that is there already cannot be told apart in a call.
        if !kinds.contains_key(&function.name) {
            kinds.insert(function.name.clone(), kind);
            tools.push(Tool { kind: None, function });
        }
        Ok::<(), Refusal>(())
    };
    for (at, tool) in list.into_iter().enumerate() {
        let place = || format!("tools[{at}]");
        match tool["type"].as_str() {
            Some("function") => add(tool, ToolKind::Function, place())?,
            Some("namespace") => {
                let name = tool["name"].as_str().unwrap_or_default().to_owned();
                for inner in tool["tools"].as_array().into_iter().flatten() {
                    if inner["type"] == "function" {
                        add(inner.clone(), ToolKind::Of(name.clone()), place())?;
                    }
                }
            }
            Some("custom") => add(custom(&tool), ToolKind::Custom, place())?,
            Some(_) => {}
            None => return Err(Refusal::field(format!("{}.type", place()), "expected a text, found none")),
        }
    }
    let choice = match choice {
        Some(choice) if choice["type"] == "allowed_tools" => {
            let allowed = choice["tools"].as_array().into_iter().flatten();
            let names: Vec<&str> = allowed.filter_map(|tool| tool["name"].as_str()).collect();
            tools.retain(|tool| names.contains(&tool.function.name.as_str()));
            Some(choice["mode"].clone())
        }
        choice => choice,
    };
    Ok((tools, choice, kinds))
}

/// A tool that takes a text as a function of one text. Its grammar is told to the model, not enforced.
fn custom(tool: &Value) -> Value {
    let described = tool["description"].as_str().unwrap_or_default();
    let grammar =
        tool["format"]["definition"].as_str().map(|definition| format!("\nIts input follows:\n{definition}"));
    json!({
        "name": tool["name"],
        "description": format!("{described}{}", grammar.unwrap_or_default()),
        "parameters": {
            "type": "object",
            "properties": {"input": {"type": "string"}},
            "required": ["input"],
            "additionalProperties": false,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tools_of_all_kinds_are_offered_or_left_out() {
        let list = json!([
            {"type": "function", "name": "f", "parameters": {}},
            {"type": "namespace", "name": "n", "tools": [{"type": "function", "name": "g"}, {"type": "function", "name": "f"}]},
            {"type": "custom", "name": "patch", "description": "Edits", "format": {"type": "grammar", "definition": "start: x"}},
            {"type": "web_search", "external_web_access": true},
        ]);
        let list = || list.as_array().unwrap().clone();
        let names = |tools: &[Tool]| tools.iter().map(|tool| tool.function.name.clone()).collect::<Vec<_>>();
        let (tools, choice, kinds) = read(list(), Some(json!("auto"))).unwrap();
        assert_eq!(
            (names(&tools), choice),
            (vec!["f".into(), "g".into(), "patch".into()], Some(json!("auto")))
        );
        assert_eq!(kinds["f"], ToolKind::Function);
        assert_eq!(kinds["g"], ToolKind::Of("n".into()));
        assert_eq!(kinds["patch"], ToolKind::Custom);
        assert!(tools[2].function.description.as_ref().unwrap().ends_with("start: x"));
        let allowed = json!({"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "g"}]});
        let (tools, choice, _) = read(list(), Some(allowed)).unwrap();
        assert_eq!((names(&tools), choice), (vec!["g".into()], Some(json!("required"))));
        assert!(read(vec![json!({"name": "f"})], None).is_err());
    }
}
