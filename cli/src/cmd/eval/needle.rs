//! `tern eval needle`: whether a model finds one sentence in a long text, by the text's length and the sentence's depth.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use tern_eval::{Scorer, needle};

use super::{Common, hash};
use crate::failure::{Failure, Outcome};
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
    #[command(flatten)]
    common: Common,
}

/// One length and depth.
struct Cell {
    length: usize,
    depth: usize,
    found: needle::Found,
}

impl Needle {
    pub(super) fn run(self) -> Outcome {
        signal::listen()?;
        if let Some(depth) = self.depths.iter().find(|depth| **depth > 100) {
            return Err(Failure::misused(format!("--depths {depth}: expected at most 100 percent")));
        }
        let text = self.text.as_deref().map(super::ppl::read).transpose()?.unwrap_or_else(needle::haystack);
        let hash = self.common.json.then(|| hash::Later::of(&self.model));
        let loaded = self.common.open(&self.model)?;
        let model = &loaded.model;
        let context = model.config().context;
        let lengths =
            if self.lengths.is_empty() { needle::usual_lengths(context) } else { self.lengths.clone() };
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
                let found = needle::find(&mut scorer, model, &text, [length, depth], self.repeat)?;
                let found = found.ok_or_else(|| {
                    let what = format!(
                        "--lengths {length}: the needle and its question alone take that many tokens"
                    );
                    Failure::misused(what)
                })?;
                cells.push(Cell { length, depth, found });
            }
        }
        bar.clear();
        if self.common.json {
            let cell = |cell: &Cell| -> Value {
                json!({
                    "length": cell.length,
                    "depth": cell.depth,
                    "found": cell.found.found as f64 / self.repeat as f64,
                    "logprob": cell.found.logprob,
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
            cells.iter().for_each(|cell| table.push_str(&format!(" {}/{} |", cell.found.found, self.repeat)));
            table.push('\n');
        }
        terminal::print(&table)
    }
}
