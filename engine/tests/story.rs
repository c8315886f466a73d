//! The built-in model, whichever it is: it is small, begins to tell a story, answers in its template, and does both to the
//! same tokens on every instruction set and packing.

use tern::{Generation, Message, Model, Options, Sampling, Specials, Stop, story_file};
use tern_kernels::{Cpu, Packing};

fn story(cpu: Cpu, packing: Packing) -> Model {
    let options = Options {
        cpu: Some(cpu.name().to_owned()),
        packing: Some(packing),
        threads: Some(2),
        ..Options::default()
    };
    Model::story(&options).unwrap()
}

/// At most `most` tokens after `ids`, and why they end.
fn tokens(model: &Model, ids: &[u32], most: usize, sampling: Sampling) -> (Vec<u32>, Option<Stop>) {
    let mut generation = Generation::new(model, model.config().context, sampling).unwrap();
    generation.prompt(ids).unwrap();
    let mut said = Vec::new();
    while said.len() < most {
        match generation.next().unwrap() {
            Some(token) => said.push(token.id),
            None => break,
        }
    }
    (said, generation.stopped())
}

fn chat(model: &Model, question: &str) -> Vec<u32> {
    let tokenizer = model.tokenizer().unwrap();
    let messages = [Message { role: "user".into(), content: question.into() }];
    let text = tokenizer.template().expect("a chat template").render(&messages, true).unwrap();
    tokenizer.encode(&text, tokenizer.adds_bos(), Specials::Parse).unwrap()
}

/// Words of letters, as a person writes them.
fn reads_well(text: &str) -> bool {
    let words: Vec<&str> = text.split_whitespace().collect();
    let plain = |word: &&&str| word.chars().all(|c| c.is_alphabetic() || "'’-.,!?;:\"“”".contains(c));
    words.iter().filter(plain).count() * 10 >= words.len() * 9 && !text.contains('\u{fffd}')
}

#[test]
fn it_is_at_most_8_mb() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/story/story.gguf");
    assert!(std::fs::metadata(path).unwrap().len() <= 8_000_000);
    assert!(story_file().is_ok());
}

#[test]
fn it_continues_a_story_in_whole_sentences() {
    let model = story(Cpu::best(), Packing::I2);
    let tokenizer = model.tokenizer().unwrap();
    for (nth, prompt) in (1..).zip(["Once upon a time", "The bird", "One day, a little girl"]) {
        let ids = tokenizer.encode(prompt, tokenizer.adds_bos(), Specials::Text).unwrap();
        for temperature in [0.0, 0.8] {
            let sampling = Sampling { temperature, seed: nth, ..Sampling::default() };
            let (said, _) = tokens(&model, &ids, 100, sampling);
            let text = tokenizer.decode(&said, false);
            assert!(text.contains(['.', '!', '?']) && reads_well(&text), "{prompt}{text}");
        }
    }
}

#[test]
fn it_holds_a_turn_of_a_chat() {
    let model = story(Cpu::best(), Packing::I2);
    for question in ["Hello!", "Who are you?", "Tell me a story."] {
        let (said, stop) = tokens(&model, &chat(&model, question), 450, Sampling::greedy());
        let text = model.tokenizer().unwrap().decode(&said, true);
        assert!(matches!(stop, Some(Stop::Token(_))), "{question} has no end: {text}");
        assert!(said.len() > 2 && !text.contains("<|") && reads_well(&text), "{question}: {text}");
    }
}

#[test]
fn every_instruction_set_and_packing_writes_the_same_tokens() {
    let model = story(Cpu::best(), Packing::I2);
    let ids = chat(&model, "Hello!");
    let want = tokens(&model, &ids, 24, Sampling::greedy());
    for cpu in Cpu::available() {
        for packing in Packing::ALL {
            let got = tokens(&story(cpu, packing), &ids, 24, Sampling::greedy());
            assert_eq!(got, want, "{} {}", cpu.name(), packing.name());
        }
    }
}
