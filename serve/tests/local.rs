//! The server inside a program: what comes through it is what a socket gives, it cancels, and it ends.

use std::sync::Arc;

use serde_json::{Value, json};
use tern::Model;
use tern_serve::{Error, Local, Options, Served};

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(test)
}

async fn local() -> Local {
    let story = Served::new("story", Arc::new(|| Model::story(&tern::Options::default())));
    Local::start(story, Options::default()).await.unwrap()
}

async fn ask(local: &Local, path: &str, body: Value) -> (u16, Value) {
    let answer = local.post(path, body.to_string()).await;
    let status = answer.status();
    (status, serde_json::from_slice(&answer.whole().await).unwrap())
}

#[test]
fn requests_are_answered_and_refused_without_a_socket() {
    run(async {
        let local = local().await;
        let body = json!({"prompt": "Once upon a time", "max_tokens": 8, "temperature": 0});
        let (status, whole) = ask(&local, "/v1/completions", body.clone()).await;
        assert_eq!((status, &whole["usage"]["completion_tokens"]), (200, &json!(8)), "{whole}");
        let mut body = body;
        body["stream"] = json!(true);
        let answer = local.post("/v1/completions", body.to_string()).await;
        let text = String::from_utf8(answer.whole().await).unwrap();
        assert!(text.matches("data: ").count() > 8, "{text}");
        let (status, refused) = ask(&local, "/v1/completions", json!({"prompt": 5})).await;
        assert_eq!(status, 400, "{refused}");
        let (status, _) = ask(&local, "/no such path", json!({})).await;
        assert_eq!(status, 404);
    });
}

#[test]
fn a_template_tells_its_tokens() {
    run(async {
        let local = local().await;
        let body = json!({"messages": [{"role": "user", "content": "Hi"}], "return_tokens": true});
        let (_, answer) = ask(&local, "/apply-template", body).await;
        let tokens: Vec<u32> = serde_json::from_value(answer["tokens"].clone()).unwrap();
        assert_eq!(answer["count"], json!(tokens.len()));
        assert_eq!(answer["prompt"], json!(local.model().tokenizer().unwrap().decode(&tokens, true)));
    });
}

#[test]
fn ended_it_refuses_and_what_ran_is_cut_short() {
    run(async {
        let local = local().await;
        let body = json!({"prompt": "Once", "max_tokens": 400, "ignore_eos": true, "stream": true});
        let mut answer = local.post("/v1/completions", body.to_string()).await;
        assert!(answer.next().await.is_some());
        local.end();
        let rest = String::from_utf8(answer.whole().await).unwrap();
        assert!(rest.contains("the model was closed"), "{rest}");
        let (status, _) = ask(&local, "/v1/completions", json!({"prompt": "x", "max_tokens": 1})).await;
        assert_eq!(status, 503);
    });
}

#[test]
fn a_model_that_is_not_there_is_an_error() {
    let load = || Model::open("no/such.gguf".as_ref(), &tern::Options::default());
    let error = run(Local::start(Served::new("none", Arc::new(load)), Options::default())).err().unwrap();
    assert!(matches!(&error, Error::Model(_)) && error.to_string().starts_with("no/such.gguf"), "{error}");
}
