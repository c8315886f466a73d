//! A small model's known answers, computed elsewhere by other code (testdata/models/page): the whole path from text to
//! text, in one check.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use tern::file::{self, OpenOptions};
use tern::{Generation, Model, Options, Sampling, Specials, Stop};
use tern_kernels::{Bytes, Cpu};

static ANSWERS: &str = include_str!("answers.json");
/// Not the built-in model: that one may change, these answers may not.
static MODEL: &[u8] = include_bytes!("page.gguf");

/// Answers up to this many tokens are checked with more than the usual way to run.
const SHORT: usize = 64;

/// Greedy ids and texts for the known prompts: on one thread, where the best instruction set gives `all` of them and
/// another the short ones, and the short ones on all threads.
pub(super) fn known(cpu: Cpu, all: bool) -> Result<String, String> {
    let expected: Value = serde_json::from_str(ANSWERS).map_err(|e| format!("answers.json: {e}"))?;
    let answers = expected["answers"].as_array().ok_or("answers.json: no answers")?;
    let bytes = Bytes::new(Arc::new(MODEL), 0..MODEL.len()).expect("the range is the whole");
    let file =
        file::from_bytes(Path::new("page"), bytes, OpenOptions::default()).map_err(|e| e.to_string())?;
    let mut compared = 0;
    for (threads, most) in [(Some(1), if all { usize::MAX } else { SHORT }), (None, SHORT)] {
        let options = Options { cpu: Some(cpu.name().to_owned()), threads, ..Options::default() };
        let model = Model::from_file(&file, &options).map_err(|e| e.to_string())?;
        let within = |answer: &&Value| answer["ids"].as_array().is_some_and(|ids| ids.len() <= most);
        for answer in answers.iter().filter(within) {
            compared += check(&model, answer).map_err(|what| format!("{}: {what}", answer["prompt"]))?;
        }
    }
    if compared == 0 { Err("answers.json: no tokens".into()) } else { Ok(format!("{compared} tokens equal")) }
}

/// Counts the tokens, all of which must be as they should.
fn check(model: &Model, answer: &Value) -> Result<usize, String> {
    let text = |e: tern::Error| e.to_string();
    let tokenizer = model.tokenizer().map_err(text)?;
    let prompt = answer["prompt"].as_str().ok_or("no prompt")?;
    // The prompts of the chat answers hold the template's tokens already.
    let ids = tokenizer.encode(prompt, tokenizer.adds_bos(), Specials::Parse).map_err(text)?;
    same("prompt", &answer["prompt_ids"], &ids)?;

    let greedy = Sampling { temperature: 0.0, ..Sampling::default() };
    let mut generation = Generation::new(model, model.config().context, greedy).map_err(text)?;
    generation.prompt(&ids).map_err(text)?;
    let expected = answer["ids"].as_array().ok_or("no ids")?;
    let mut written = Vec::new();
    while written.len() < expected.len() {
        match generation.next().map_err(text)? {
            Some(token) => written.push(token.id),
            None => break,
        }
    }
    // The known ids end with the stop token, which is no part of a text.
    if let Some(Stop::Token(id)) = generation.stopped() {
        written.push(id);
    }
    same("answer", &answer["ids"], &written)?;
    let said = tokenizer.decode(&written, false);
    if answer["text"] != said.as_str() {
        return Err(format!("expected {}, found `{said}`", answer["text"]));
    }
    Ok(ids.len() + written.len())
}

fn same(what: &str, expected: &Value, found: &[u32]) -> Result<(), String> {
    let expected: Vec<Option<u64>> = expected.as_array().into_iter().flatten().map(Value::as_u64).collect();
    let found: Vec<Option<u64>> = found.iter().map(|&id| Some(id.into())).collect();
    if expected == found {
        return Ok(());
    }
    let at = expected.iter().zip(&found).take_while(|(a, b)| a == b).count();
    let id =
        |list: &[Option<u64>]| list.get(at).copied().flatten().map_or("the end".into(), |id| id.to_string());
    Err(format!("{what}: token {at}: expected {}, found {}", id(&expected), id(&found)))
}
