//! The flags that say how far texts are guessed ahead, shared by `run`, `chat` and `serve` (docs/sampling.md).

use clap::Args;
use serde_json::{Value, json};
use tern::{Drafted, Drafts};

use crate::sampling::number;

#[derive(Args)]
#[command(next_help_heading = "Drafts")]
pub(crate) struct DraftArgs {
    /// Guess up to N tokens ahead where the text repeats itself and it saves time, 0 to 15; the text is the same with any N
    #[arg(long, value_name = "N", default_value_t = Drafts::MOST)]
    #[arg(allow_negative_numbers = true, value_parser = tokens)]
    draft_tokens: usize,
}

impl DraftArgs {
    pub(crate) fn drafts(&self) -> Drafts {
        Drafts { tokens: self.draft_tokens, ..Drafts::default() }
    }
}

fn tokens(text: &str) -> Result<usize, &'static str> {
    number(text, "expected a whole number from 0 to 15", |tokens| *tokens <= Drafts::MOST)
}

/// For programs, in the server's names.
pub(crate) fn drafted_json(drafted: Drafted) -> Value {
    json!({"draft_n": drafted.tokens, "draft_n_accepted": drafted.accepted})
}
