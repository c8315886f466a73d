//! `tern eval needle`: whether a model finds one sentence in a long text, by the text's length and the sentence's depth.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use tern::{Item, Model, Scorer, Specials};

use super::hash;
use crate::failure::{Failure, Outcome};
use crate::model::{self, MachineArgs, ThreadsArgs};
use crate::progress::Bar;
use crate::sampling::{at_least_one, count};
use crate::signal;
use crate::terminal;

const EXAMPLES: &str = "\
A sentence with a number stands somewhere in a long text, and the text ends with the sentence without its number. Found is \
it where every token of the number is the model's likeliest. The text is --text, or sentences of our own without numbers.

Examples:
  tern eval needle model.gguf
  tern eval needle model.gguf --lengths 1024,4096 --depths 0,50,100 --json";

/// Retrieval from a long text, by depth and length
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Needle {
    /// The model: a file, a directory, or `story` (built in)
    model: PathBuf,
    /// Lengths in tokens [default: powers of two from 256 up to the model's context]
    #[arg(long, value_name = "LIST", value_delimiter = ',', allow_negative_numbers = true, value_parser = at_least_one)]
    lengths: Vec<usize>,
    /// Depths in percent: 0 is the beginning of the text
    #[arg(long, value_name = "LIST", default_value = "0,25,50,75,100", value_delimiter = ',', allow_negative_numbers = true, value_parser = count)]
    depths: Vec<usize>,
    /// Different numbers for each place
    #[arg(long, value_name = "N", default_value = "3", allow_negative_numbers = true, value_parser = at_least_one)]
    repeat: usize,
    /// The text around the needle
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    threads: ThreadsArgs,
    #[command(flatten)]
    machine: MachineArgs,
}

/// One length and depth.
struct Cell {
    length: usize,
    depth: usize,
    found: usize,
    /// Mean log-probability of the number.
    logprob: f64,
}

const NEEDLE: &str = " The secret number of the lighthouse is";

impl Needle {
    pub(super) fn run(self) -> Outcome {
        signal::listen()?;
        if let Some(depth) = self.depths.iter().find(|depth| **depth > 100) {
            return Err(Failure::misused(format!("--depths {depth}: expected at most 100 percent")));
        }
        let text = self.text.as_deref().map(super::ppl::read).transpose()?.unwrap_or_else(haystack);
        let hash = self.json.then(|| hash::Later::of(&self.model));
        let loaded = model::open(&self.model, &self.machine, self.threads.threads)?;
        let model = &loaded.model;
        let context = model.config().context;
        let lengths = if self.lengths.is_empty() { usual(context) } else { self.lengths.clone() };
        if let Some(length) = lengths.iter().find(|length| **length > context) {
            return Err(Failure::misused(format!(
                "--lengths {length}: expected at most {context}, the model's context"
            )));
        }
        let mut scorer = Scorer::new(model, 1);
        let (mut cells, mut bar) = (Vec::new(), Bar::steps());
        for (row, &length) in lengths.iter().enumerate() {
            for (column, &depth) in self.depths.iter().enumerate() {
                let done = row * self.depths.len() + column;
                bar.step(done, lengths.len() * self.depths.len(), format!("{length} tokens, depth {depth}%"));
                let mut cell = Cell { length, depth, found: 0, logprob: 0.0 };
                for nth in 0..self.repeat {
                    let item = item(model, &text, length, depth, nth)?;
                    let scores = scorer.score(&[item])?;
                    let number = &scores[0][0];
                    cell.found += usize::from(number.iter().all(|scored| scored.best));
                    cell.logprob +=
                        number.iter().map(|scored| scored.logprob).sum::<f64>() / self.repeat as f64;
                }
                cells.push(cell);
            }
        }
        bar.clear();
        if self.json {
            let cell = |cell: &Cell| -> Value {
                json!({
                    "length": cell.length,
                    "depth": cell.depth,
                    "found": cell.found as f64 / self.repeat as f64,
                    "logprob": cell.logprob,
                })
            };
            return terminal::print_json(&json!({
                "needle": cells.iter().map(cell).collect::<Vec<_>>(),
                "repeat": self.repeat,
                "settings": super::settings(model),
                "model": self.model.display().to_string(),
                "model_sha256": hash.and_then(hash::Later::get),
            }));
        }
        let mut table = String::from("| tokens |");
        self.depths.iter().for_each(|depth| table.push_str(&format!(" {depth}% |")));
        table.push_str(&format!("\n|---:|{}\n", "---:|".repeat(self.depths.len())));
        for cells in cells.chunks(self.depths.len()) {
            table.push_str(&format!("| {} |", cells[0].length));
            cells.iter().for_each(|cell| table.push_str(&format!(" {}/{} |", cell.found, self.repeat)));
            table.push('\n');
        }
        terminal::print(&table)
    }
}

/// The text of a place, cut to so many tokens, and its number.
fn item(model: &Model, text: &str, length: usize, depth: usize, nth: usize) -> Outcome<Item> {
    let tokenizer = model.tokenizer()?;
    // Numbers that no text is likely to hold, another for each place.
    let number = 1009 + (nth * 2711 + length * 31 + depth * 173) % 8987;
    let plain = |text: &str| tokenizer.encode(text, false, Specials::Text);
    let (needle, question) = (plain(&format!("{NEEDLE} {number}."))?, plain(NEEDLE)?);
    let asked = plain(&format!("{NEEDLE} {number}"))?;
    let end = asked.strip_prefix(&question[..]).filter(|end| !end.is_empty()).ok_or_else(|| {
        Failure::failed(
            "this tokenizer joins the needle's words and its number: there is no token to ask for",
        )
    })?;
    let first: Vec<u32> = tokenizer.bos().filter(|_| tokenizer.adds_bos()).into_iter().collect();
    let hay = plain(text)?;
    if hay.is_empty() {
        return Err(Failure::failed("the text around the needle has no tokens"));
    }
    let room = length.checked_sub(first.len() + needle.len() + question.len() + end.len());
    let room = room.filter(|room| *room > 0).ok_or_else(|| {
        let what = format!("--lengths {length}: the needle and its question alone take that many tokens");
        Failure::misused(what)
    })?;
    let hay: Vec<u32> = hay.iter().copied().cycle().take(room).collect();
    let (before, after) = hay.split_at(room * depth / 100);
    let context = first.iter().chain(before).chain(&needle).chain(after).chain(&question).copied().collect();
    Ok(Item { context, ends: vec![end.to_vec()] })
}

/// Powers of two, and the whole context.
fn usual(context: usize) -> Vec<usize> {
    let mut lengths: Vec<usize> =
        (8..).map(|power| 1 << power).take_while(|length| *length < context).collect();
    lengths.push(context);
    lengths
}

/// Sentences of our own, without numbers; what is longer repeats them.
fn haystack() -> String {
    const WHO: [&str; 8] = [
        "The fisherman",
        "A gull",
        "The old woman",
        "The harbour cat",
        "A sailor",
        "The baker",
        "A child",
        "The keeper",
    ];
    const DID: [&str; 7] = [
        "watched the tide come in",
        "carried a basket along the pier",
        "told a story about the storm",
        "mended a net by the window",
        "waited for the evening boat",
        "sang quietly to the waves",
        "painted the door of the boathouse blue",
    ];
    const WHEN: [&str; 5] =
        ["in the morning.", "before the rain.", "when the bells rang.", "all afternoon.", "once more."];
    let mut text = String::new();
    for nth in 0..WHO.len() * DID.len() * WHEN.len() {
        text.push_str(&format!(" {} {} {}", WHO[nth * 3 % 8], DID[nth * 5 % 7], WHEN[nth * 2 % 5]));
    }
    text
}
