//! The flags that say how far texts are guessed ahead, shared by `run`, `chat` and `serve` (docs/sampling.md).

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde_json::{Value, json};
use tern::{Drafted, Drafts, Generation, Model};

use crate::failure::{Failure, Outcome};
use crate::hub::{self, PullArgs};
use crate::model::{self, MachineArgs};
use crate::sampling::number;

#[derive(Args)]
#[command(next_help_heading = "Drafts")]
pub(crate) struct DraftArgs {
    /// Guess up to N tokens ahead where the text repeats itself and it saves time, 0 to 15; the text is the same with any N
    #[arg(long, value_name = "N", default_value_t = Drafts::MOST)]
    #[arg(allow_negative_numbers = true, value_parser = tokens)]
    draft_tokens: usize,
    /// Let a smaller model with the same tokens guess where the text does not repeat itself
    #[arg(long, value_name = "MODEL")]
    pub(crate) draft: Option<PathBuf>,
}

impl DraftArgs {
    pub(crate) fn drafts(&self) -> Drafts {
        Drafts { tokens: self.draft_tokens, ..Drafts::default() }
    }

    /// A text of this model that is guessed ahead as the flags say.
    pub(crate) fn given<'m>(
        &self,
        generation: Generation<'m>,
        model: &Model,
        machine: &MachineArgs,
        pull: &PullArgs,
    ) -> Outcome<Generation<'m>> {
        let generation = generation.with_drafts(self.drafts());
        let Some(word) = &self.draft else { return Ok(generation) };
        hub::fetch(word, pull)?;
        let mut draft = model::open(word, machine, Some(1))?.model;
        draft.share_threads(model);
        let wrong = |error| Failure::failed(format!("--draft {}: {error}", word.display()));
        generation.with_draft_model(Arc::new(draft)).map_err(wrong)
    }
}

fn tokens(text: &str) -> Result<usize, &'static str> {
    number(text, "expected a whole number from 0 to 15", |tokens| *tokens <= Drafts::MOST)
}

/// For programs, in the server's names.
pub(crate) fn drafted_json(drafted: Drafted) -> Value {
    json!({"draft_n": drafted.tokens, "draft_n_accepted": drafted.accepted})
}
