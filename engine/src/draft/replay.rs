//! Texts that are known replayed with guesses: how many steps they take, and what these cost on a machine whose steps cost so much.

use std::path::Path;

use super::{Costs, Drafter, Drafts, lengths};
use crate::model::{Model, Options};
use crate::tokenizer::Specials;

/// Steps of a text alone by its rows, in steps of one row, as measured on two cores of an AMD EPYC with AVX-512: the 2B4T shape, which
/// waits for memory, and `story`, which does not (bench/2026-11-27-drafts.md).
const LARGE: [f64; 16] =
    [1.0, 1.13, 1.33, 1.33, 1.73, 1.79, 2.0, 2.24, 2.82, 2.95, 3.1, 3.25, 3.4, 3.55, 3.7, 3.86];
const SMALL: [f64; 16] =
    [1.0, 1.75, 2.32, 2.58, 3.27, 3.96, 4.4, 4.81, 5.36, 5.7, 6.0, 6.38, 6.8, 7.2, 7.6, 7.96];

/// Writes the answer after the prompt, as a model that says just that would. Returns the steps and what they cost.
fn replay(steps: &[f64; 16], prompt: &[u32], answer: &[u32]) -> (usize, f64) {
    let (mut costs, mut drafter) = (Costs::default(), Drafter::default());
    let (mut text, mut said, mut count, mut cost) = (prompt.to_vec(), 0, 0, 0.0);
    while said < answer.len() {
        let (last, before) = text.split_last().unwrap();
        drafter.look(before, *last, Drafts::MOST.min(answer.len() - said - 1));
        let length = lengths(Drafts::default(), &costs, 1, &[&drafter])[0];
        costs.note(1 + length, steps[length]);
        (count, cost) = (count + 1, cost + steps[length]);
        for nth in 0..=length {
            let (guess, token) = (drafter.guess().get(nth).copied(), answer[said]);
            drafter.came(token);
            text.push(token);
            said += 1;
            if nth == length || guess != Some(token) {
                break;
            }
        }
    }
    (count, cost)
}

fn ids(text: &str) -> Vec<u32> {
    let model = Model::story(&Options { threads: Some(1), ..Options::default() }).unwrap();
    model.tokenizer().unwrap().encode(text, true, Specials::Text).unwrap()
}

/// How many times faster it is than without guesses.
fn gain(steps: &[f64; 16], prompt: &str, answer: &str) -> f64 {
    let (prompt, answer) = (ids(prompt), ids(answer));
    let (count, cost) = replay(steps, &prompt, &answer);
    assert!(count <= answer.len() && cost >= count as f64);
    answer.len() as f64 / cost
}

fn text(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/texts").join(name);
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn edits_and_summaries_of_a_given_text_are_quicker_and_free_stories_are_not_slower() {
    let code = include_str!("lookup.rs");
    let edited = code.replace("guess", "draft").replace("longest", "length_of_best");
    for (kind, prompt, answer, large) in [
        ("edit", code, edited, 1.5),
        ("summary", &text("harbour.txt"), text("harbour-summary.txt"), 1.1),
        ("story", "Tell me a story.", text("fox.txt"), 0.97),
    ] {
        let gains = [&LARGE, &SMALL].map(|steps| gain(steps, prompt, &answer));
        println!("{kind}: {gains:.2?} times faster");
        assert!(gains[0] >= large && gains[1] >= 0.97, "{kind}: {gains:.2?}");
    }
}
