//! What is answered, field by field, as the official clients read it.

mod common;

use common::{Server, options};
use serde_json::{Value, json};

fn question(text: &str) -> Value {
    json!([{"role": "user", "content": text}])
}

/// What the model says to this.
fn known(prompt: &str) -> String {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/models/page/answers.json");
    let answers: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let found =
        answers["answers"].as_array().unwrap().iter().find(|answer| answer["prompt"] == prompt).cloned();
    found.unwrap()["text"].as_str().unwrap().to_owned()
}

#[test]
fn a_chat_is_answered_whole_and_in_pieces() {
    let server = Server::start(options());
    let hello = known("<|user|>Hello!<|end|><|assistant|>");
    let reply = server.post("/v1/chat/completions", &json!({"model": "any", "messages": question("Hello!")}));
    let body = reply.json();
    assert_eq!(reply.status, 200, "{body}");
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert!(body["id"].as_str().unwrap().starts_with("chatcmpl-"), "{body}");
    assert_eq!((&body["object"], &body["model"]), (&json!("chat.completion"), &json!("page")));
    assert!(body["system_fingerprint"].as_str().unwrap().starts_with('b'));
    let choice = &body["choices"][0];
    assert_eq!(choice["message"], json!({"role": "assistant", "content": hello, "refusal": null}));
    assert_eq!((&choice["finish_reason"], &choice["index"]), (&json!("stop"), &json!(0)));
    assert_eq!(choice["logprobs"], Value::Null);
    let usage = &body["usage"];
    let count = |key: &str| usage[key].as_u64().unwrap();
    assert_eq!(count("total_tokens"), count("prompt_tokens") + count("completion_tokens"));
    assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 0);

    let body = json!({
        "messages": question("Hello!"), "stream": true, "stream_options": {"include_usage": true},
    });
    let reply = server.post("/chat/completions", &body);
    assert_eq!(reply.header("content-type"), Some("text/event-stream; charset=utf-8"));
    let events = reply.events();
    assert!(
        events
            .iter()
            .all(|event| event["id"] == events[0]["id"] && event["object"] == "chat.completion.chunk")
    );
    assert_eq!(events[0]["choices"][0]["delta"], json!({"role": "assistant", "content": null}));
    let [.., last, usage_chunk] = &events[..] else { panic!() };
    assert_eq!(
        (&last["choices"][0]["delta"], &last["choices"][0]["finish_reason"]),
        (&json!({}), &json!("stop"))
    );
    assert_eq!(usage_chunk["choices"], json!([]));
    assert_eq!(usage_chunk["usage"]["prompt_tokens"], usage["prompt_tokens"]);
    assert!(
        usage_chunk["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap() > 0
            || count("prompt_tokens") < 9
    );
    let text: String =
        events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(text, hello);
    // Nobody asked: no usage.
    let events = server
        .post("/v1/chat/completions", &json!({"messages": question("Hello!"), "stream": true}))
        .events();
    assert!(events.iter().all(|event| event.get("usage").is_none()));
}

#[test]
fn stops_lengths_and_seeds_are_kept() {
    let server = Server::start(options());
    let story = known("<|user|>Tell me a story.<|end|><|assistant|>");
    let ask = |more: Value| {
        let mut body = json!({"messages": question("Tell me a story.")});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        server.post("/v1/chat/completions", &body).json()["choices"][0].clone()
    };
    let cut = ask(json!({"max_tokens": 7}));
    assert_eq!(cut["finish_reason"], "length");
    assert!(story.starts_with(cut["message"]["content"].as_str().unwrap()));
    for stop in [json!("island"), json!(["zzz", "island", ""])] {
        let stopped = ask(json!({ "stop": stop }));
        assert_eq!(stopped["finish_reason"], "stop");
        assert_eq!(
            stopped["message"]["content"].as_str(),
            story.split_once("island").map(|(before, _)| before)
        );
    }
    let dry = |range: i64| {
        let more = json!({"dry_multiplier": 100, "dry_allowed_length": 1, "dry_penalty_last_n": range});
        ask(more)["message"]["content"].as_str().unwrap().to_owned()
    };
    assert_eq!(dry(0), story);
    assert_ne!(dry(-1), story, "nobody tells a story without saying two words again");
    let drawn = |seed: i64| {
        ask(
            json!({"seed": seed, "temperature": 3.0, "top_k": 0, "top_p": 1, "min_p": 0, "typical_p": 0.9, "max_tokens": 12}),
        )
    };
    assert_eq!(drawn(5), drawn(5));
    assert_ne!(drawn(5), drawn(6));
    let body = json!({"messages": question("Hello!"), "n": 3, "temperature": 3.0, "top_k": 0, "top_p": 1, "min_p": 0, "seed": 1, "max_tokens": 8});
    let body = server.post("/v1/chat/completions", &body).json();
    let choices = body["choices"].as_array().unwrap();
    assert_eq!(choices.iter().map(|choice| choice["index"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 1, 2]);
    assert_ne!(choices[0]["message"], choices[1]["message"]);
}

#[test]
fn probabilities_come_in_both_forms() {
    let server = Server::start(options());
    let body = json!({"messages": question("Hello!"), "logprobs": true, "top_logprobs": 3, "max_tokens": 4});
    let whole = server.post("/v1/chat/completions", &body).json();
    let content = whole["choices"][0]["logprobs"]["content"].as_array().unwrap();
    assert_eq!(content.len(), 4);
    let mut text = Vec::new();
    for token in content {
        assert_eq!(token["top_logprobs"].as_array().unwrap().len(), 3);
        assert_eq!(token["logprob"], token["top_logprobs"][0]["logprob"], "greedy: the same float");
        text.extend(token["bytes"].as_array().unwrap().iter().map(|byte| byte.as_u64().unwrap() as u8));
    }
    assert_eq!(String::from_utf8(text).unwrap(), whole["choices"][0]["message"]["content"].as_str().unwrap());
    let mut streamed = body.clone();
    streamed["stream"] = json!(true);
    let events = server.post("/v1/chat/completions", &streamed).events();
    let pieces = events.iter().filter_map(|event| event["choices"][0]["logprobs"]["content"].as_array());
    assert_eq!(&pieces.flatten().cloned().collect::<Vec<_>>(), content);

    // What lm-eval sends.
    let prompt = "Once upon a time, on a small grey island";
    let ids =
        server.post("/tokenize", &json!({"content": prompt, "add_special": true})).json()["tokens"].clone();
    let body =
        json!({"prompt": ids, "max_tokens": 1, "logprobs": 1, "echo": true, "seed": 1234, "temperature": 0});
    let whole = server.post("/v1/completions", &body).json();
    let choice = &whole["choices"][0];
    assert!(choice["text"].as_str().unwrap().contains(prompt), "{choice}");
    let list = |key: &str| choice["logprobs"][key].as_array().unwrap().clone();
    let count = ids.as_array().unwrap().len() + 1;
    for key in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
        assert_eq!(list(key).len(), count, "{key}: one token more than the prompt");
    }
    // Ids are echoed with the names of special tokens; a text without the token that was put before it.
    let text = choice["text"].as_str().unwrap();
    let check = |text: &str, logprobs: &Value| {
        let (tokens, offsets) =
            (logprobs["tokens"].as_array().unwrap(), logprobs["text_offset"].as_array().unwrap());
        let first = tokens.iter().position(|token| text.starts_with(token.as_str().unwrap())).unwrap();
        for (token, offset) in tokens.iter().zip(offsets).skip(first) {
            let rest: String = text.chars().skip(offset.as_u64().unwrap() as usize).collect();
            assert!(rest.starts_with(token.as_str().unwrap()), "{token} at {offset} of {text:?}");
        }
    };
    check(text, &choice["logprobs"]);
    for stream in [false, true] {
        let body = json!({"prompt": prompt, "max_tokens": 1, "logprobs": 0, "echo": true, "stream": stream});
        let answer = server.post("/v1/completions", &body);
        let answer = if stream { answer.events()[0].clone() } else { answer.json() };
        let choice = &answer["choices"][0];
        assert!(choice["text"].as_str().unwrap().starts_with(prompt), "{choice}");
        check(choice["text"].as_str().unwrap(), &choice["logprobs"]);
    }
    assert_eq!((&list("token_logprobs")[0], &list("top_logprobs")[0]), (&Value::Null, &Value::Null));
    let (told, top) = (list("token_logprobs"), list("top_logprobs"));
    let greedy =
        told.iter().zip(&top).skip(1).filter(|(logprob, top)| {
            top.as_object().unwrap().values().any(|likeliest| likeliest == *logprob)
        });
    assert!(greedy.count() > count / 2, "the model knows this text by heart");
    // One token even after a stop token.
    let ended = json!({"prompt": "<|user|>Thank you.<|end|><|assistant|>You are welcome. Fly well!", "max_tokens": 1, "logprobs": 1, "echo": true});
    let choice = server.post("/v1/completions", &ended).json()["choices"][0].clone();
    assert_eq!(choice["finish_reason"], "stop");
    assert_eq!(choice["logprobs"]["tokens"].as_array().unwrap().last().unwrap(), "<|end|>", "{choice}");
}

#[test]
fn completions_take_texts_ids_and_lists_of_them() {
    let server = Server::start(options());
    let story = known("Once upon a time");
    let ids = server.post("/tokenize", &json!({"content": "Once upon a time", "add_special": true})).json()["tokens"].clone();
    for prompt in
        [json!("Once upon a time"), ids.clone(), json!([ids, ids]), json!(["Once upon a time", "The bird"])]
    {
        let reply = server.post("/v1/completions", &json!({"prompt": prompt})).json();
        let text = reply["choices"][0]["text"].as_str().unwrap();
        assert!(story.starts_with(text) && text.len() > 16, "{reply}");
        assert_eq!(reply["usage"]["completion_tokens"].as_u64().unwrap() % 16, 0, "16 tokens by themselves");
    }
    let reply =
        server.post("/v1/completions", &json!({"prompt": "Once upon a time", "echo": true, "max_tokens": 0}));
    assert_eq!(reply.json()["choices"][0]["text"], "Once upon a time");
    let body = json!({"prompt": "Once upon a time", "stream": true, "max_tokens": 5, "echo": true});
    let text: String = server
        .post("/v1/completions", &body)
        .events()
        .iter()
        .map(|event| event["choices"][0]["text"].as_str().unwrap().to_owned())
        .collect();
    assert!(format!("Once upon a time{story}").starts_with(&text) && text.len() > 20, "{text}");
}

#[test]
fn answers_follow_schemas_grammars_and_tools() {
    let server = Server::start(options());
    let schema = json!({
        "type": "object", "additionalProperties": false, "required": ["name", "age"],
        "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "minimum": 1, "maximum": 99}},
    });
    let format =
        json!({"type": "json_schema", "json_schema": {"name": "person", "strict": true, "schema": schema}});
    for seed in 0..3 {
        let body = json!({"messages": question("Hello!"), "response_format": format, "seed": seed, "temperature": 1.5, "max_tokens": 200});
        let text = server.chat(&body);
        let value: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert!(value["name"].is_string() && (1..=99).contains(&value["age"].as_u64().unwrap()), "{value}");
    }
    let body = json!({"messages": question("Hello!"), "regex": "(yes|no), [0-9]{3}"});
    let text = server.chat(&body);
    assert!((text.starts_with("yes, ") || text.starts_with("no, ")) && text.len() <= 8, "{text}");
    let text = server
        .chat(&json!({"messages": question("Hello!"), "grammar": "start: \"a\" (\"b\" | \"c\") \"d\""}));
    assert!(["abd", "acd"].contains(&text.as_str()), "{text}");

    let parameters = json!({"type": "object", "properties": {"city": {"enum": ["Oslo", "Bergen"]}}, "required": ["city"], "additionalProperties": false});
    let tools = json!([
        {"type": "function", "function": {"name": "weather", "description": "What it is like", "parameters": parameters}},
        {"type": "function", "function": {"name": "clock"}},
    ]);
    let forced = json!({"type": "function", "function": {"name": "weather"}});
    let body =
        json!({"messages": question("Hello!"), "tools": tools, "tool_choice": forced, "max_tokens": 100});
    let whole = server.post("/v1/chat/completions", &body).json();
    let choice = &whole["choices"][0];
    assert_eq!(
        (&choice["finish_reason"], &choice["message"]["content"]),
        (&json!("tool_calls"), &Value::Null),
        "{whole}"
    );
    let call = &choice["message"]["tool_calls"][0];
    assert_eq!((&call["type"], &call["function"]["name"]), (&json!("function"), &json!("weather")));
    let arguments: Value = serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
    assert!(["Oslo", "Bergen"].contains(&arguments["city"].as_str().unwrap()), "{arguments}");
    let mut streamed = body.clone();
    streamed["stream"] = json!(true);
    let events = server.post("/v1/chat/completions", &streamed).events();
    let deltas: Vec<&Value> =
        events.iter().filter_map(|event| event["choices"][0]["delta"]["tool_calls"].get(0)).collect();
    assert_eq!(deltas[0]["function"]["name"], "weather");
    assert!(deltas[0]["id"].is_string() && deltas[1..].iter().all(|delta| delta.get("id").is_none()));
    let joined: String = deltas.iter().filter_map(|delta| delta["function"]["arguments"].as_str()).collect();
    assert_eq!(serde_json::from_str::<Value>(&joined).unwrap(), arguments);
    assert_eq!(events.last().unwrap()["choices"][0]["finish_reason"], "tool_calls");
    // Free to call or not, this model does not; the talk about tools goes on.
    let talk = json!([
        {"role": "user", "content": "Hello!"},
        {"role": "assistant", "content": null, "tool_calls": [{"id": "1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\": \"Oslo\"}"}}]},
        {"role": "tool", "tool_call_id": "1", "content": "rain"},
    ]);
    let whole = server
        .post("/v1/chat/completions", &json!({"messages": talk, "tools": tools, "max_tokens": 5}))
        .json();
    assert_eq!(whole["choices"][0]["finish_reason"], "length", "{whole}");
}

#[test]
fn the_other_dialects_say_the_same() {
    let server = Server::start(options());
    let hello = known("<|user|>Hello!<|end|><|assistant|>");
    let body = json!({"model": "x", "max_tokens": 50, "messages": question("Hello!")});
    let whole = server.post("/v1/messages", &body).json();
    assert_eq!(whole["content"], json!([{"type": "text", "text": hello}]), "{whole}");
    assert_eq!(
        (&whole["type"], &whole["stop_reason"], &whole["stop_sequence"]),
        (&json!("message"), &json!("end_turn"), &Value::Null)
    );
    let mut streamed = body.clone();
    streamed["stream"] = json!(true);
    let text = server.post("/v1/messages", &streamed).text();
    let names: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    assert_eq!(names[..2], ["message_start", "content_block_start"]);
    assert_eq!(names[names.len() - 3..], ["content_block_stop", "message_delta", "message_stop"]);
    let count = server.post("/v1/messages/count_tokens", &json!({"messages": question("Hello!")})).json();
    assert_eq!(
        count["input_tokens"],
        whole["usage"]["input_tokens"].as_u64().unwrap()
            + whole["usage"]["cache_read_input_tokens"].as_u64().unwrap()
    );
    let error = server.post("/v1/messages", &json!({"messages": []})).json();
    assert_eq!((&error["type"], &error["error"]["type"]), (&json!("error"), &json!("invalid_request_error")));
    // An answer that was begun goes on.
    let begun =
        json!([{"role": "user", "content": "Hello!"}, {"role": "assistant", "content": "Hello! Would"}]);
    let whole = server.post("/v1/messages", &json!({"max_tokens": 50, "messages": begun})).json();
    assert_eq!(format!("Hello! Would{}", whole["content"][0]["text"].as_str().unwrap()), hello);

    let lines = server.post("/api/chat", &json!({"model": "page", "messages": question("Hello!")})).text();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let text: String = lines.iter().filter_map(|line| line["message"]["content"].as_str()).collect();
    assert_eq!((text.as_str(), &lines.last().unwrap()["done"]), (hello.as_str(), &json!(true)));
    let whole = server.post("/api/generate", &json!({"prompt": "Hello!", "stream": false})).json();
    assert_eq!((&whole["response"], &whole["done_reason"]), (&json!(hello), &json!("stop")));
    assert_eq!(server.get("/api/tags").json()["models"][0]["name"], "page:latest");
    assert_eq!(server.post("/api/show", &json!({"model": "other"})).status, 404);

    let whole = server.post("/v1/responses", &json!({"input": "Hello!"})).json();
    assert_eq!(
        (&whole["status"], &whole["output"][0]["content"][0]["text"]),
        (&json!("completed"), &json!(hello))
    );
    let text = server.post("/v1/responses", &json!({"input": "Hello!", "stream": true})).text();
    let names: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    assert_eq!((names[0], *names.last().unwrap()), ("response.created", "response.completed"));
}

#[test]
fn tokens_templates_and_the_rest() {
    let server = Server::start(options());
    let tokens =
        server.post("/tokenize", &json!({"content": "Once upon a time", "with_pieces": true})).json();
    let pieces: String = tokens["tokens"]
        .as_array()
        .unwrap()
        .iter()
        .map(|token| token["piece"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(pieces, "Once upon a time");
    let ids: Vec<&Value> = tokens["tokens"].as_array().unwrap().iter().map(|token| &token["id"]).collect();
    assert_eq!(server.post("/detokenize", &json!({ "tokens": ids })).json()["content"], "Once upon a time");
    let text = server.post("/apply-template", &json!({"messages": question("Hi")})).json()["prompt"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(text.contains("Hi") && text.ends_with("<|assistant|>"), "{text}");
    assert_eq!(server.get("/v1/models").json()["data"][0]["id"], "page");
    assert_eq!(server.get("/v1/models/page").json()["object"], "model");
    assert_eq!(server.get("/v1/models/other").status, 404);
    assert_eq!(server.post("/v1/embeddings", &json!({"input": "x"})).status, 501);
    let document = server.get("/openapi.json").json();
    assert!(document["paths"]["/v1/chat/completions"]["post"].is_object());
    assert!(server.metric("tern_generated_tokens_total") >= 0.0);
    let page = server.get("/");
    assert!(page.header("content-security-policy").unwrap().contains("default-src 'none'"));
    assert!(page.text().contains("page/main.js"));
    for file in ["/page/main.js", "/page/page.css"] {
        let file = server.get(file);
        assert_eq!(file.status, 200);
        assert!(file.header("content-security-policy").unwrap().contains("default-src 'none'"));
    }
    assert_eq!(server.get("/page/none.js").status, 404);
}
