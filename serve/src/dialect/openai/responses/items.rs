//! Items of a request's `input` as messages.

use serde_json::{Value, json};

use super::store::Store;
use crate::error::{Refusal, short};
use crate::wire::{CalledFunction, Content, Message, ToolCall};

/// Adds the messages that these items are.
pub(super) fn read(
    list: Vec<Value>,
    store: &Store,
    holder: u64,
    messages: &mut Vec<Message>,
) -> Result<(), Refusal> {
    for (at, item) in list.into_iter().enumerate() {
        let wrong = |what: String| Refusal::field(format!("input[{at}]"), what);
        let item = match item["type"].as_str() {
            // AI SDK and others name what an answer had instead of repeating it.
            Some("item_reference") => {
                let id = item["id"].as_str().unwrap_or_default();
                // Thoughts are not read again, kept or not.
                if id.starts_with("rs_") {
                    continue;
                }
                let found = store.item(id, holder);
                found.ok_or_else(|| wrong(format!("this server does not keep `{}` (any more)", short(id))))?
            }
            _ => item,
        };
        add(item, messages).map_err(wrong)?;
    }
    Ok(())
}

fn add(item: Value, messages: &mut Vec<Message>) -> Result<(), String> {
    let text = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        Value::Null => Ok(String::new()),
        Value::Array(_) => {
            let content = serde_json::from_value::<Content>(value.clone());
            let content = content.map_err(|error| short(&error.to_string()))?;
            content.text().map_err(|kind| format!("expected text, found a part of type `{}`", short(kind)))
        }
        other => Ok(other.to_string()),
    };
    match item["type"].as_str() {
        None | Some("message") => {
            let new: Message = serde_json::from_value(item).map_err(|error| short(&error.to_string()))?;
            match messages.last_mut() {
                // What the assistant said and called in one turn is one message.
                Some(last) if last.role == "assistant" && new.role == "assistant" => join(last, new)?,
                _ => messages.push(new),
            }
        }
        Some("function_call") => called(&item["name"], item["arguments"].clone(), messages),
        Some("custom_tool_call") => called(&item["name"], json!({"input": item["input"]}), messages),
        Some("function_call_output" | "custom_tool_call_output") => {
            messages.push(Message::new("tool", text(&item["output"])?));
        }
        // What models thought is not read again; what ran at OpenAI left its trace in the text.
        Some("reasoning") => {}
        Some("web_search_call" | "file_search_call" | "code_interpreter_call" | "image_generation_call") => {}
        Some("mcp_list_tools" | "mcp_call" | "compaction" | "compaction_summary") => {}
        Some(other) => {
            return Err(format!("expected a message or a call of a function, found `{}`", short(other)));
        }
    }
    Ok(())
}

fn called(name: &Value, arguments: Value, messages: &mut Vec<Message>) {
    let function = CalledFunction { name: name.as_str().unwrap_or_default().to_owned(), arguments };
    let call = ToolCall { function };
    match messages.last_mut() {
        Some(last) if last.role == "assistant" => last.tool_calls.get_or_insert_default().push(call),
        _ => {
            let tool_calls = Some(vec![call]);
            messages.push(Message { tool_calls, content: None, ..Message::new("assistant", String::new()) });
        }
    }
}

fn join(last: &mut Message, new: Message) -> Result<(), String> {
    let text = |content: &Option<Content>| match content {
        None => Ok(String::new()),
        Some(content) => {
            content.text().map_err(|kind| format!("expected text, found a part of type `{}`", short(kind)))
        }
    };
    let (before, after) = (text(&last.content)?, text(&new.content)?);
    let between = if before.is_empty() || after.is_empty() { "" } else { "\n" };
    last.content = Some(Content::Text(format!("{before}{between}{after}")));
    last.tool_calls.get_or_insert_default().extend(new.tool_calls.unwrap_or_default());
    Ok(())
}

/// Many templates know one system message, the first: those that stand before anything else become one.
pub(super) fn join_system(messages: &mut Vec<Message>) {
    let system = |message: &Message| message.role == "system" || message.role == "developer";
    let count = messages.iter().take_while(|message| system(message)).count();
    if count < 2 {
        return;
    }
    let texts: Option<Vec<String>> = messages[..count]
        .iter()
        .map(|message| message.content.as_ref().map_or(Some(String::new()), |content| content.text().ok()))
        .collect();
    // What is no text is refused where messages are read.
    if let Some(texts) = texts {
        messages.splice(..count, [Message::new("system", texts.join("\n\n"))]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(items: Value) -> Result<Vec<(String, String, usize)>, String> {
        let mut messages = Vec::new();
        read(items.as_array().unwrap().clone(), &Store::default(), 0, &mut messages)
            .map_err(|refusal| refusal.message)?;
        join_system(&mut messages);
        let told = |message: &Message| {
            let text = message.content.as_ref().map_or(String::new(), |content| content.text().unwrap());
            (message.role.clone(), text, message.tool_calls.as_ref().map_or(0, Vec::len))
        };
        Ok(messages.iter().map(told).collect())
    }

    #[test]
    fn items_of_one_turn_are_one_message_and_thoughts_are_none() {
        let turn = |role: &str, text: &str, calls| (role.to_owned(), text.to_owned(), calls);
        let told = messages(json!([
            {"role": "developer", "content": "Be"},
            {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "brief"}]},
            {"role": "user", "content": "Hi"},
            {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm"}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Let me"}]},
            {"type": "function_call", "name": "f", "arguments": "{}", "call_id": "1"},
            {"type": "custom_tool_call", "name": "g", "input": "x", "call_id": "2"},
            {"type": "function_call_output", "call_id": "1", "output": "one"},
            {"type": "custom_tool_call_output", "call_id": "2", "output": [{"type": "input_text", "text": "two"}]},
            {"type": "item_reference", "id": "rs_1"},
        ]));
        let expected = [
            turn("system", "Be\n\nbrief", 0),
            turn("user", "Hi", 0),
            turn("assistant", "Let me", 2),
            turn("tool", "one", 0),
            turn("tool", "two", 0),
        ];
        assert_eq!(told.unwrap(), expected);
        for (item, expected) in [
            (json!({"type": "item_reference", "id": "msg_1"}), "does not keep `msg_1`"),
            (json!({"type": "dance"}), "found `dance`"),
            (json!({"type": "function_call_output", "output": [{"type": "input_image"}]}), "`input_image`"),
        ] {
            assert!(messages(json!([item])).unwrap_err().contains(expected), "{item}");
        }
    }
}
