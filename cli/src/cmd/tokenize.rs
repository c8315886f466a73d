//! `tern tokenize`: text in, token ids out.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use tern::Specials;

use crate::failure::{Failure, Outcome};
use crate::model;
use crate::terminal;

const EXAMPLES: &str = "\
Examples:
  tern tokenize model.gguf \"Hello, world\"
  tern tokenize tokenizer.json --file book.txt > ids.json
  tern run model.gguf --ids \"$(tern tokenize model.gguf 'Once upon')\"";

/// Print the token ids of a text as one JSON list
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Tokenize {
    /// A model, or a tokenizer alone: a tokenizer.json or Llama 3's tokenizer.model
    model: PathBuf,
    /// The text; without one, standard input is read to its end
    #[arg(allow_negative_numbers = true, conflicts_with = "file")]
    text: Option<String>,
    /// Take the text from this file, every byte of it
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Put no begin-of-text token before it
    #[arg(long)]
    no_bos: bool,
    /// Read special tokens in the text, such as `<|eot_id|>`, as what they are and not as plain text
    #[arg(long)]
    special: bool,
    /// Print an object: the ids, and the text of each token
    #[arg(long)]
    json: bool,
}

impl Tokenize {
    pub(crate) fn run(self) -> Outcome {
        let tokenizer = model::find(&self.model)?.tokenizer()?;
        let text = match (self.text, &self.file) {
            (Some(text), _) => text,
            (None, Some(path)) => {
                let file =
                    File::open(path).map_err(|e| Failure::failed(format!("{}: {e}", path.display())))?;
                terminal::read_text(file, &path.display().to_string())?
            }
            (None, None) => terminal::read_text(io::stdin().lock(), "standard input")?,
        };
        let specials = if self.special { Specials::Parse } else { Specials::Text };
        let ids = tokenizer.encode(&text, tokenizer.adds_bos() && !self.no_bos, specials)?;
        if self.json {
            let tokens: Vec<_> = ids.iter().map(|&id| tokenizer.token_text(id)).collect();
            terminal::print_json(&json!({ "ids": ids, "tokens": tokens }))
        } else {
            terminal::print_json(&json!(ids))
        }
    }
}
