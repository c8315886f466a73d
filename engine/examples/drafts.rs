//! What guessing ahead saves: `drafts MODEL|story DRAFT|- TEMPERATURE TOKENS ROUNDS [PROMPT...]` writes each text with and
//! without guesses, in turns, and prints tokens a step, tokens a second and their ratio, the median of the rounds. A PROMPT that is
//! `given:PROMPT_FILE:ANSWER_FILE` is continued by that answer, whatever the model would choose; the files hold text, or ids
//! between spaces where the model has no tokenizer.

use std::error::Error;
use std::fs::read_to_string;
use std::sync::Arc;
use std::time::Instant;

use tern::{Drafted, Drafts, Generation, Model, Options, Sampling, Specials};

fn encode(model: &Model, text: &str) -> Result<Vec<u32>, Box<dyn Error>> {
    match model.tokenizer() {
        Ok(tokenizer) => Ok(tokenizer.encode(text, tokenizer.adds_bos(), Specials::Text)?),
        Err(_) => Ok(text.split_whitespace().map(str::parse).collect::<Result<_, _>>()?),
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [path, draft, temperature, tokens, rounds, prompts @ ..] = &args[..] else {
        return Err("expected: MODEL|story DRAFT|- TEMPERATURE TOKENS ROUNDS PROMPT...".into());
    };
    let options = Options::default();
    let model = if path == "story" { Model::story(&options)? } else { Model::open(path.as_ref(), &options)? };
    let draft = match draft.as_str() {
        "-" => None,
        path => {
            let mut draft = Model::open(path.as_ref(), &Options { threads: Some(1), ..options })?;
            draft.share_threads(&model);
            Some(Arc::new(draft))
        }
    };
    let (tokens, rounds): (usize, usize) = (tokens.parse()?, rounds.parse()?);
    let temperature: f32 = temperature.parse()?;
    for (seed, prompt) in prompts.iter().enumerate() {
        let given = prompt.strip_prefix("given:").and_then(|files| files.split_once(':'));
        let (ids, answer) = match given {
            Some((prompt, answer)) => {
                (encode(&model, &read_to_string(prompt)?)?, encode(&model, &read_to_string(answer)?)?)
            }
            None => (encode(&model, prompt)?, Vec::new()),
        };
        let tokens = if answer.is_empty() { tokens } else { answer.len() };
        let write = |drafts: Drafts| -> Result<(Vec<u32>, f64, Drafted), Box<dyn Error>> {
            let sampling = Sampling { seed: seed as u64, temperature, ..Sampling::default() };
            let mut generation = Generation::new(&model, ids.len() + tokens, sampling)?.with_drafts(drafts);
            if let Some(draft) = draft.clone().filter(|_| drafts.tokens > 0) {
                generation = generation.with_draft_model(draft)?;
            }
            let mut generation = generation.with_answer(answer.clone());
            generation.prompt(&ids)?;
            let (start, mut said) = (Instant::now(), Vec::new());
            while said.len() < tokens {
                let Some(token) = generation.next()? else { break };
                said.push(token.id);
            }
            Ok((said, start.elapsed().as_secs_f64(), generation.drafted()))
        };
        let (mut with, mut without, mut ratios, mut drafted) =
            (Vec::new(), Vec::new(), Vec::new(), Drafted::default());
        let mut count = 0;
        for round in 0..rounds.max(1) {
            let (plain, guessed) = if round % 2 == 0 {
                let plain = write(Drafts::NONE)?;
                (plain, write(Drafts::default())?)
            } else {
                let guessed = write(Drafts::default())?;
                (write(Drafts::NONE)?, guessed)
            };
            assert_eq!(plain.0, guessed.0, "guesses changed a text");
            count = plain.0.len();
            with.push(count as f64 / guessed.1);
            without.push(count as f64 / plain.1);
            ratios.push(plain.1 / guessed.1);
            drafted = guessed.2;
        }
        let median = |values: &mut Vec<f64>| {
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        println!(
            "{count} tokens, {:.2} a step (guessed {}, right {}): {:.1} tokens/s without, {:.1} with, {:.2}x",
            count as f64 / (count - drafted.accepted).max(1) as f64,
            drafted.tokens,
            drafted.accepted,
            median(&mut without),
            median(&mut with),
            median(&mut ratios)
        );
    }
    Ok(())
}
