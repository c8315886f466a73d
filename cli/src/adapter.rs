//! The flag that names a LoRA adapter, shared by the commands that run one text at a time.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use tern::{Adapter, Generation, Model};

use crate::failure::Outcome;

#[derive(Args)]
pub(crate) struct AdapterArgs {
    /// A LoRA adapter for the model: a folder in PEFT's layout, as `tern train` with `lora` writes it
    #[arg(long, value_name = "DIR")]
    adapter: Option<PathBuf>,
}

impl AdapterArgs {
    /// The adapter, read for this model.
    pub(crate) fn open(&self, model: &Model) -> Outcome<Option<Arc<Adapter>>> {
        let open = |dir: &PathBuf| Adapter::open(dir, model.config()).map(Arc::new);
        Ok(self.adapter.as_ref().map(open).transpose()?)
    }

    /// A text in which the adapter takes part.
    pub(crate) fn given<'m>(&self, generation: Generation<'m>, model: &Model) -> Outcome<Generation<'m>> {
        Ok(match self.open(model)? {
            Some(adapter) => generation.with_adapter(adapter),
            None => generation,
        })
    }
}
