//! What real clients send, recorded once from them (`clients/recorded/`, their own long texts replaced), and what they
//! read in the answers; the native dialect of llama.cpp; what other servers have and this one refuses.

mod common;

use std::sync::Arc;

use common::{Reply, Server, options, request};
use serde_json::{Value, json};
use tern::Model;
use tern_serve::{Served, Serving};

/// The small model with room for what agents say: its context is written longer.
fn roomy() -> tern::Result<Model> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/models/page/page.gguf");
    let mut bytes = std::fs::read(file).unwrap();
    let key = [b".context_length", &4u32.to_le_bytes()[..]].concat();
    let at = bytes.windows(key.len()).position(|window| window == key).unwrap() + key.len();
    bytes[at..at + 4].copy_from_slice(&32768u32.to_le_bytes());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("page.gguf");
    std::fs::write(&path, bytes).unwrap();
    Model::open(&path, &tern::Options { threads: Some(1), ..tern::Options::default() })
}

fn user(text: &str) -> Value {
    json!([{"role": "user", "content": text}])
}

/// A recorded request, with these members of its body changed.
fn recorded(name: &str, changes: Value) -> (String, Vec<(String, String)>, Value) {
    let file = format!("{}/tests/clients/recorded/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let mut all: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    for (key, value) in changes.as_object().unwrap() {
        all["body"][key] = value.clone();
    }
    let headers = all["headers"].as_object().unwrap().iter();
    let headers = headers.filter(|(name, _)| *name != "content-type");
    let headers = headers.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect();
    (all["path"].as_str().unwrap().to_owned(), headers, all["body"].clone())
}

/// Sends it and reads the events of the answer.
fn replay(server: &Server, name: &str, changes: Value) -> Vec<Value> {
    let (path, headers, body) = recorded(name, changes);
    let headers: Vec<(&str, &str)> =
        headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let reply = Reply::parse(&server.raw(&request("POST", &path, &headers, body.to_string().as_bytes())));
    assert_eq!(reply.status, 200, "{name}: {}", reply.text());
    named(&reply)
}

/// The data of events that have a name, which must be their type.
fn named(reply: &Reply) -> Vec<Value> {
    let text = reply.text();
    let event = |event: &str| {
        let (name, data) = event.strip_prefix("event: ")?.split_once("\ndata: ")?;
        let data: Value = serde_json::from_str(data).unwrap();
        assert_eq!(data["type"], name);
        Some(data)
    };
    text.split("\n\n").filter_map(event).collect()
}

fn types(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().unwrap()).collect()
}

#[test]
fn codex_is_answered() {
    let server = Server::with(options(), roomy);
    for name in ["codex-first", "codex-tool-output"] {
        let events = replay(&server, name, json!({"max_output_tokens": 40}));
        let kinds = types(&events);
        assert_eq!(
            kinds[..3],
            ["response.created", "response.in_progress", "response.output_item.added"],
            "{name}"
        );
        let last = &events.last().unwrap()["response"];
        assert!(["completed", "incomplete"].contains(&last["status"].as_str().unwrap()), "{name}: {last}");
        assert!(last["usage"]["output_tokens"].as_u64().unwrap() > 0);
        assert_eq!(last["store"], false);
        let id = last["id"].as_str().unwrap();
        assert_eq!(server.get(&format!("/v1/responses/{id}")).status, 404, "`store: false` keeps nothing");
    }
    // A function of a namespace is called with it, in pieces; what was cut is not complete.
    let forced = json!({"max_output_tokens": 60, "tool_choice": {"type": "function", "name": "close_agent"}});
    let events = replay(&server, "codex-first", forced);
    let item = &events.last().unwrap()["response"]["output"][0];
    assert_eq!((&item["type"], &item["name"]), (&json!("function_call"), &json!("close_agent")), "{item}");
    assert_eq!(item["namespace"], "multi_agent_v1");
    let pieces = events.iter().filter(|event| event["type"] == "response.function_call_arguments.delta");
    let pieces: Vec<&str> = pieces.map(|event| event["delta"].as_str().unwrap()).collect();
    assert!(pieces.len() > 1, "{pieces:?}");
    assert_eq!(item["arguments"], pieces.concat());
    let whole = serde_json::from_str::<Value>(&pieces.concat()).is_ok();
    assert_eq!(item["status"], if whole { "completed" } else { "incomplete" });
}

#[test]
fn claude_code_is_answered() {
    let server = Server::with(options(), roomy);
    for name in ["claude-code-tool-result", "claude-code-thinking"] {
        let events = replay(&server, name, json!({"max_tokens": 40}));
        let kinds = types(&events);
        assert_eq!(
            (kinds[0], *kinds.last().unwrap()),
            ("message_start", "message_stop"),
            "{name}: {kinds:?}"
        );
        assert!(kinds.contains(&"message_delta"), "{name}: {kinds:?}");
    }
    // Its first request, with all of its 24 tools in one grammar, within the bounds of the process that tries grammars.
    let (path, _, body) = recorded("claude-code-first", json!({"max_tokens": 40, "stream": false}));
    assert_eq!(body["tools"].as_array().unwrap().len(), 24);
    let count = server.post("/v1/messages/count_tokens", &body).json()["input_tokens"].as_u64().unwrap();
    let whole = server.post(&path, &body).json();
    assert_eq!(whole["type"], "message", "{whole}");
    let usage = &whole["usage"];
    let read = usage["input_tokens"].as_u64().unwrap() + usage["cache_read_input_tokens"].as_u64().unwrap();
    assert_eq!(read, count);
    // A tool that is called, in pieces.
    let forced = json!({"max_tokens": 80, "tool_choice": {"type": "tool", "name": "Bash"}});
    let events = replay(&server, "claude-code-tool-result", forced);
    let start = events.iter().find(|event| event["type"] == "content_block_start").unwrap();
    assert_eq!(
        (&start["content_block"]["type"], &start["content_block"]["name"]),
        (&json!("tool_use"), &json!("Bash"))
    );
    let deltas = events.iter().filter(|event| event["delta"]["type"] == "input_json_delta").count();
    assert!(deltas > 1, "{deltas}");
}

#[test]
fn answers_of_responses_are_gone_on_from() {
    let server = Server::start(options());
    let ask = |body: Value| server.post("/v1/responses", &body);
    let first = ask(json!({"input": "Hello!", "instructions": "Be brief.", "metadata": {"a": "b"}})).json();
    let id = first["id"].as_str().unwrap();
    assert_eq!((&first["instructions"], &first["metadata"]), (&json!("Be brief."), &json!({"a": "b"})));
    let text = first["output"][0]["content"][0]["text"].as_str().unwrap();
    let next =
        ask(json!({"input": "Tell me a story.", "previous_response_id": id, "max_output_tokens": 8})).json();
    // The same as the whole conversation.
    let talk = json!([
        {"role": "user", "content": "Hello!"},
        {"role": "assistant", "content": text},
        {"role": "user", "content": "Tell me a story."},
    ]);
    let whole = ask(json!({"input": talk, "max_output_tokens": 8})).json();
    assert_eq!(next["output"][0]["content"], whole["output"][0]["content"]);
    assert_eq!(next["usage"]["input_tokens"], whole["usage"]["input_tokens"]);
    let counted = server.post("/v1/responses/input_tokens", &json!({"input": talk})).json();
    assert_eq!(counted["input_tokens"], whole["usage"]["input_tokens"]);
    // Named instead of repeated.
    let named = json!([
        {"role": "user", "content": "Hello!"},
        {"type": "item_reference", "id": first["output"][0]["id"]},
        {"role": "user", "content": "Tell me a story."},
    ]);
    assert_eq!(
        ask(json!({"input": named, "max_output_tokens": 8})).json()["output"][0]["content"],
        whole["output"][0]["content"]
    );
    assert_eq!(server.get(&format!("/v1/responses/{id}")).json(), first);
    let gone = server.request("DELETE", &format!("/v1/responses/{id}"), &[], b"").json();
    assert_eq!(gone["deleted"], true);
    let reply = ask(json!({"input": "x", "previous_response_id": id}));
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (400, &json!("previous_response_not_found")));

    let streamed = ask(json!({"input": "Hello!", "stream": true}));
    let last = named_last(&streamed);
    let id = last["id"].as_str().unwrap();
    assert_eq!(server.get(&format!("/v1/responses/{id}")).json()["output"], last["output"]);
    let probable = json!({"input": "Hello!", "top_logprobs": 2, "include": ["message.output_text.logprobs"]});
    let told = &ask(probable).json()["output"][0]["content"][0]["logprobs"];
    let tokens: String =
        told.as_array().unwrap().iter().map(|token| token["token"].as_str().unwrap()).collect();
    assert_eq!((tokens.as_str(), told[0]["top_logprobs"].as_array().unwrap().len()), (text, 2));
}

fn named_last(reply: &Reply) -> Value {
    named(reply).last().unwrap()["response"].clone()
}

#[test]
fn keys_do_not_share_answers() {
    let keys = vec!["one".to_owned(), "two".to_owned()];
    let server = Server::start(tern_serve::Options { keys, ..options() });
    let ask = |key: &str, body: Value| {
        let bearer = format!("Bearer {key}");
        server.request("POST", "/v1/responses", &[("authorization", &bearer)], body.to_string().as_bytes())
    };
    let first = ask("one", json!({"input": "Hello!"})).json();
    let next = json!({"input": "x", "previous_response_id": first["id"], "max_output_tokens": 2});
    assert_eq!(ask("one", next.clone()).status, 200);
    assert_eq!(ask("two", next).status, 400);
}

#[test]
fn a_tool_of_texts_is_called_with_a_text() {
    let server = Server::start(options());
    let tool = json!({"type": "custom", "name": "patch"});
    let body = json!({"input": "Hello!", "tools": [tool], "tool_choice": "required", "max_output_tokens": 100, "stream": true});
    let events = named(&server.post("/v1/responses", &body));
    let item = &events.last().unwrap()["response"]["output"][0];
    assert_eq!((&item["type"], &item["name"]), (&json!("custom_tool_call"), &json!("patch")), "{item}");
    assert!(item["input"].is_string());
    if item["status"] == "completed" {
        let delta =
            events.iter().find(|event| event["type"] == "response.custom_tool_call_input.delta").unwrap();
        assert_eq!(delta["delta"], item["input"]);
    }
}

#[test]
fn a_call_that_was_cut_is_told_as_unfinished() {
    let server = Server::start(options());
    let parameters = json!({"type": "object", "properties": {"text": {"type": "string", "minLength": 400}}, "required": ["text"]});
    let tool = json!({"type": "function", "function": {"name": "note", "parameters": parameters}});
    let body =
        json!({"messages": user("Hello!"), "tools": [tool], "tool_choice": "required", "max_tokens": 40});
    let choice = server.post("/v1/chat/completions", &body).json()["choices"][0].clone();
    assert_eq!(
        (&choice["finish_reason"], &choice["message"]["content"]),
        (&json!("length"), &Value::Null),
        "{choice}"
    );
    let begun = choice["message"]["tool_calls"][0]["function"]["arguments"].as_str().unwrap();
    assert!(begun.starts_with("{\"text\":") && serde_json::from_str::<Value>(begun).is_err(), "{begun}");
    let tool = json!({"name": "note", "input_schema": parameters});
    let body = json!({"messages": user("Hello!"), "tools": [tool], "tool_choice": {"type": "any"}, "max_tokens": 40});
    let whole = server.post("/v1/messages", &body).json();
    assert_eq!(
        (&whole["stop_reason"], &whole["content"][0]["input"]),
        (&json!("max_tokens"), &json!({})),
        "{whole}"
    );
    let tool = json!({"type": "function", "name": "note", "parameters": parameters});
    let body =
        json!({"input": "Hello!", "tools": [tool], "tool_choice": "required", "max_output_tokens": 40});
    let whole = server.post("/v1/responses", &body).json();
    assert_eq!(
        (&whole["status"], &whole["output"][0]["status"]),
        (&json!("incomplete"), &json!("incomplete"))
    );
    // Nothing but the beginning of a call: no text at all.
    let body = json!({"messages": user("Hello!"), "tools": [{"type": "function", "function": {"name": "note"}}], "tool_choice": "required", "max_tokens": 2});
    let choice = server.post("/v1/chat/completions", &body).json()["choices"][0].clone();
    assert_eq!(choice["message"]["content"], "", "{choice}");
}

#[test]
fn tools_are_told_where_the_model_sees_them() {
    // The page's template drops system messages.
    let server = Server::start(options());
    assert_eq!(server.get("/props").json()["tools_offered_in"], "first user message");
    let tool = json!({"type": "function", "function": {"name": "weather"}});
    let talk = json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello!"}]);
    let prompt =
        server.post("/apply-template", &json!({"messages": talk, "tools": [tool]})).json()["prompt"].clone();
    let prompt = prompt.as_str().unwrap();
    assert!(
        prompt.contains("<tool_call>") && prompt.contains("\"weather\"") && prompt.contains("Hello!"),
        "{prompt}"
    );
}

#[test]
fn completions_of_llama_cpp() {
    let server = Server::start(options());
    let ask = |body: Value| server.post("/completion", &body).json();
    let once = "Once upon a time";
    let whole = ask(json!({"prompt": once, "n_predict": 8}));
    let text = whole["content"].as_str().unwrap();
    assert!(text.starts_with(", on a small"), "{whole}");
    assert_eq!(
        (&whole["stop"], &whole["stop_type"], &whole["truncated"]),
        (&json!(true), &json!("limit"), &json!(false))
    );
    assert_eq!((&whole["tokens_predicted"], &whole["tokens"]), (&json!(8), &json!([])));
    assert_eq!(whole["generation_settings"]["n_predict"], 8);
    assert_eq!(whole["timings"]["predicted_n"], 8);
    let evaluated = whole["tokens_evaluated"].as_u64().unwrap();
    assert_eq!(server.post("/completions", &json!({"prompt": once, "n_predict": 8})).json()["content"], text);
    assert!(
        server.post("/v1/completions", &json!({"prompt": once})).json()["choices"].is_array(),
        "with /v1: OpenAI's"
    );

    // Prompts of all kinds say the same.
    let ids =
        server.post("/tokenize", &json!({"content": once, "add_special": true})).json()["tokens"].clone();
    assert_eq!(ids.as_array().unwrap().len() as u64, evaluated);
    let many = ask(json!({"prompt": [ids, once, {"prompt_string": once}, [ids[0], once]], "n_predict": 8}));
    for (at, object) in many.as_array().unwrap().iter().enumerate().take(3) {
        assert_eq!((&object["content"], &object["index"]), (&json!(text), &json!(at)));
    }
    assert!(ask(json!({"prompt": [1, 2, once, 3], "n_predict": 2}))["content"].is_string());

    let told = ask(json!({"prompt": once, "n_predict": 8, "n_probs": 3, "return_tokens": true}));
    assert_eq!(told["tokens"].as_array().unwrap().len(), 8);
    let first = &told["completion_probabilities"][0];
    assert_eq!((first["top_logprobs"].as_array().unwrap().len(), &first["id"]), (3, &told["tokens"][0]));
    assert!(first["logprob"].as_f64().unwrap() <= 0.0);
    let stopped = ask(json!({"prompt": once, "n_predict": 40, "stop": ["small"]}));
    assert_eq!((&stopped["stop_type"], &stopped["stopping_word"]), (&json!("word"), &json!("small")));
    let fields = ask(
        json!({"prompt": once, "n_predict": 4, "response_fields": ["content", "generation_settings/n_predict"]}),
    );
    assert_eq!(fields.as_object().unwrap().len(), 2);
    assert_eq!(fields["generation_settings/n_predict"], 4);
    let on = ask(json!({"prompt": once, "n_predict": 4, "ignore_eos": true}));
    assert_eq!(on["generation_settings"]["logit_bias"][0]["bias"], Value::Null);
    let never = ask(json!({"prompt": once, "n_predict": 8, "logit_bias": [[" small", false]]}));
    assert!(!never["content"].as_str().unwrap().contains(" small"));
    let apart = |cache: bool| {
        let body = json!({"prompt": "A long beginning that is kept", "n_predict": 2, "cache_prompt": cache});
        ask(body)["timings"]["cache_n"].as_u64().unwrap()
    };
    assert_eq!((apart(true), apart(true) > 0, apart(false)), (0, true, 0));

    let body = json!({"prompt": once, "n_predict": 8, "stream": true, "return_progress": true, "timings_per_token": true});
    let reply = server.post("/completion", &body);
    let text_of = reply.text();
    let events: Vec<Value> =
        text_of.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok()).collect();
    let said: String = events.iter().map(|event| event["content"].as_str().unwrap()).collect();
    assert_eq!((said.as_str(), &events.last().unwrap()["stop"]), (text, &json!(true)));
    let progress: Vec<&Value> = events.iter().filter_map(|event| event.get("prompt_progress")).collect();
    assert_eq!(progress[0]["processed"], progress[0]["cache"]);
    assert_eq!(progress.last().unwrap()["processed"], progress.last().unwrap()["total"]);
    let times = events.iter().filter(|event| event["timings"]["predicted_n"].as_u64() > Some(0)).count();
    assert!(times >= 8, "{times}");
}

/// Whoever has a whole answer finds no place taken by it, whether its end was a number of tokens or a word.
#[test]
fn an_answer_that_is_there_runs_no_more() {
    let server =
        Server::serving(options(), Serving::One(Box::new(Served::new("page", Arc::new(common::page)))))
            .ready();
    for nth in 0..60 {
        let mut asked = json!({"prompt": "Hello! Would", "n_predict": 4, "seed": nth, "temperature": 1.5});
        if nth % 2 == 1 {
            asked["stop"] = json!(["a", "e", "i", "o", "u", " "]);
        }
        let answer = server.post("/completion", &asked);
        assert_eq!(answer.status, 200, "{}", answer.json());
        let slots = server.get("/slots").json();
        let is_idle = |slot: &Value| slot["is_processing"] == json!(false);
        assert!(slots.as_array().unwrap().iter().all(is_idle), "after {nth}: {slots}");
    }
}

#[test]
fn helpers_of_llama_cpp_and_vllm() {
    let page = Served {
        aliases: vec!["other".into()],
        file: "page.gguf".into(),
        file_bytes: 7,
        ..Served::new("page", Arc::new(common::page))
    };
    let server = Server::serving(options(), Serving::One(Box::new(page))).ready();
    let slots = server.get("/slots").json();
    assert_eq!((slots.as_array().unwrap().len(), &slots[0]["is_processing"]), (16, &json!(false)));
    let props = server.get("/props").json();
    assert_eq!(
        (&props["model_path"], &props["default_generation_settings"]["params"]["seed"]),
        (&json!("page.gguf"), &json!(-1))
    );
    assert_eq!(server.get("/v1/models").json()["data"][0]["aliases"], json!(["other"]));
    assert_eq!(server.get("/v1/models/other").status, 200);
    let info = server.get("/tokenizer_info").json();
    assert!(info["eos_token"].is_string() && info["chat_template"].is_string(), "{info}");
    let counted = server.post("/chat/completions/input_tokens", &json!({"messages": user("Hello!")})).json();
    let chat = |body: Value| server.post("/v1/chat/completions", &body).json();
    let whole = chat(json!({"messages": user("Hello!"), "verbose": true}));
    assert_eq!(counted["input_tokens"], whole["usage"]["prompt_tokens"]);
    assert!(whole["__verbose"]["prompt"].as_str().unwrap().contains("Hello!"));
    assert!(chat(json!({"messages": user("Hello!")})).get("__verbose").is_none());
    let talk =
        json!([{"role": "user", "content": "Hello!"}, {"role": "assistant", "content": "Hello! Would"}]);
    let text = |body: Value| chat(body)["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    let on = text(json!({"messages": talk, "continue_final_message": true, "add_generation_prompt": false}));
    assert!(on.starts_with(" you like"), "{on}");
    let both = json!({"messages": talk, "continue_final_message": true, "add_generation_prompt": true});
    assert_eq!(server.post("/v1/chat/completions", &both).status, 400);
    // vLLM's grammars.
    let chosen = text(json!({"messages": user("Hello!"), "guided_choice": ["yes.", "no."]}));
    assert!(["yes.", "no."].contains(&chosen.as_str()), "{chosen}");
    let schema = json!({"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"], "additionalProperties": false});
    for body in [json!({"guided_json": schema}), json!({"structured_outputs": {"json": schema}})] {
        let mut body = body;
        body["messages"] = user("Hello!");
        assert!(serde_json::from_str::<Value>(&text(body)).unwrap()["ok"].is_boolean());
    }
    assert_eq!(text(json!({"messages": user("Hello!"), "guided_regex": "[ab]{3}"})).len(), 3);
}

#[test]
fn ollama_finds_its_paths() {
    let page = Served { file_bytes: 7, ..Served::new("page", Arc::new(common::page)) };
    let server = Server::serving(options(), Serving::One(Box::new(page))).ready();
    let reply = server.get("/api/nothing");
    assert_eq!((reply.status, reply.json()["error"].is_string()), (404, true));
    let card = &server.get("/api/tags").json()["models"][0];
    assert_eq!((&card["size"], card["digest"].as_str().unwrap().len()), (&json!(7), 64));
    assert_eq!(server.get("/api/ps").json()["models"][0]["model"], "page:latest");
    for name in ["page", "page:latest"] {
        assert_eq!(server.post("/api/show", &json!({"model": name})).status, 200);
    }
    let loaded = server.post("/api/generate", &json!({"model": "page:latest"})).json();
    assert_eq!((&loaded["done_reason"], &loaded["response"]), (&json!("load"), &json!("")));
    assert_eq!(
        server.post("/api/pull", &json!({"model": "page", "stream": false})).json()["status"],
        "success"
    );
    for path in ["/api/embed", "/api/embeddings", "/api/create", "/api/push"] {
        let reply = server.post(path, &json!({"model": "page"}));
        assert_eq!((reply.status, reply.json()["error"].is_string()), (501, true), "{path}");
    }
}

#[test]
fn what_would_change_the_answer_is_refused_by_name() {
    let server = Server::start(options());
    for (name, value) in [
        ("functions", json!([{"name": "f"}])),
        ("function_call", json!("auto")),
        ("min_tokens", json!(4)),
        ("stop_token_ids", json!([1])),
        ("chat_template", json!("x")),
        ("mirostat", json!(2)),
        ("web_search_options", json!({})),
    ] {
        let mut body = json!({"messages": user("Hello!")});
        body[name] = value;
        let reply = server.post("/v1/chat/completions", &body);
        assert_eq!((reply.status, &reply.json()["error"]["param"]), (400, &json!(name)), "{}", reply.text());
    }
}
