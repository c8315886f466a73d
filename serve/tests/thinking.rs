//! Models that can be told not to think: a template in Qwen3's form, on the small model of the tests.

mod common;

use common::{PAGE, Server, options};
use serde_json::{Value, json};
use tern::Model;
use tern_convert::{ConvertOptions, Target, convert};

/// The small model with this chat template.
fn server(template: &str) -> (Server, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model");
    convert(PAGE.as_ref(), &path, &ConvertOptions::new(Target::Hf), &mut |_, _| {}).unwrap();
    let file = path.join("tokenizer_config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    config["chat_template"] = json!(template);
    std::fs::write(&file, config.to_string()).unwrap();
    let _ = std::fs::remove_file(path.join("chat_template.jinja"));
    let load = move || Model::open(&path, &tern::Options { threads: Some(1), ..tern::Options::default() });
    (Server::with(options(), load), dir)
}

const CHATML: &str = "{%- for message in messages -%}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n\
    {% endfor -%}{%- if add_generation_prompt -%}<|im_start|>assistant\n\
    {% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif -%}";

#[test]
fn a_template_that_asks_is_told_no() {
    let (server, _dir) = server(CHATML);
    let messages = json!([{"role": "user", "content": "Hi"}]);
    let tokens = |more: Value| {
        let mut body = json!({"messages": messages});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let reply = server.post("/v1/chat/completions/input_tokens", &body);
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()["input_tokens"].as_u64().unwrap()
    };
    let mark = server.post("/tokenize", &json!({"content": "<think>\n\n</think>\n\n"})).json();
    let mark = mark["tokens"].as_array().unwrap().len() as u64;
    let plain = tokens(json!({}));
    assert_eq!(tokens(json!({"chat_template_kwargs": {"enable_thinking": true}})), plain);
    assert_eq!(tokens(json!({"chat_template_kwargs": {"enable_thinking": false}})), plain + mark);
    let ollama = |think: Value| {
        let body =
            json!({"messages": messages, "think": think, "stream": false, "options": {"num_predict": 1}});
        let reply = server.post("/api/chat", &body);
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json()["prompt_eval_count"].as_u64().unwrap()
    };
    assert_eq!((ollama(json!(true)), ollama(json!(false))), (plain, plain + mark));
    let other = json!({"messages": messages, "chat_template_kwargs": {"tools_in_user_message": true}});
    let reply = server.post("/v1/chat/completions", &other);
    assert_eq!(reply.status, 400, "{}", reply.text());
    assert!(reply.text().contains("tools_in_user_message"), "{}", reply.text());
}

#[test]
fn a_template_that_thinks_and_does_not_ask_says_so() {
    let (server, _dir) = server(&CHATML.replace("enable_thinking", "other"));
    let messages = json!([{"role": "user", "content": "Hi"}]);
    let body = json!({"messages": messages, "chat_template_kwargs": {"enable_thinking": false}});
    let reply = server.post("/v1/chat/completions", &body);
    assert_eq!(reply.status, 400, "{}", reply.text());
    assert!(reply.text().contains("this model's template does not ask whether to think"), "{}", reply.text());
    let reply = server.post("/api/chat", &json!({"messages": messages, "think": false}));
    assert_eq!(reply.status, 400, "{}", reply.text());
}
