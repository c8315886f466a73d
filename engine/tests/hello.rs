//! The example that people copy, `examples/hello.rs`, does what it says.

use tern::{Generation, Model, Options, Sampling, Specials};

#[path = "../examples/hello.rs"]
#[allow(dead_code)] // its `main`
mod example;

#[test]
fn the_example_streams_the_prompt_and_ten_tokens() {
    let model = Model::story(&Options::default()).unwrap();
    let mut out = Vec::new();
    example::write_ten(&model, "Once upon a time", &mut out).unwrap();

    let tokenizer = model.tokenizer().unwrap();
    let ids = tokenizer.encode("Once upon a time", tokenizer.adds_bos(), Specials::Text).unwrap();
    let mut generation = Generation::new(&model, 256, Sampling::default()).unwrap();
    generation.prompt(&ids).unwrap();
    let said: Vec<u32> = (0..10).map(|_| generation.next().unwrap().expect("a story goes on").id).collect();
    let mut decoder = tokenizer.decoder_after(&ids);
    let text: String = said.iter().filter_map(|&id| decoder.push(id)).collect();
    assert!(!text.is_empty());
    assert_eq!(String::from_utf8(out).unwrap(), format!("Once upon a time{text}{}\n", decoder.finish()));
}
