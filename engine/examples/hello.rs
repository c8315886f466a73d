//! Ten tokens of a model, as they come: `cargo run --release -p tern --example hello [MODEL] [PROMPT]`.

use std::error::Error;
use std::io::{Write, stdout};

use tern::{Generation, Model, Options, Sampling, Specials};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let model = match args.next() {
        Some(path) => Model::open(path.as_ref(), &Options::default())?,
        None => Model::story(&Options::default())?,
    };
    write_ten(&model, args.next().as_deref().unwrap_or("Once upon a time"), stdout())
}

pub(crate) fn write_ten(model: &Model, prompt: &str, mut out: impl Write) -> Result<(), Box<dyn Error>> {
    let tokenizer = model.tokenizer()?;
    let ids = tokenizer.encode(prompt, tokenizer.adds_bos(), Specials::Text)?;
    let mut generation = Generation::new(model, model.config().context.min(2048), Sampling::default())?;
    generation.prompt(&ids)?;
    let mut decoder = tokenizer.decoder_after(&ids);
    write!(out, "{prompt}")?;
    for _ in 0..10 {
        let Some(token) = generation.next()? else { break };
        write!(out, "{}", decoder.push(token.id).unwrap_or_default())?;
        out.flush()?;
    }
    Ok(writeln!(out, "{}", decoder.finish())?)
}
