//! A text read to count what takes part.

use super::Activity;
use crate::error::{Error, Result};
use crate::forward::{Row, Scratch};
use crate::generate::CHUNK;
use crate::head::Logits;
use crate::model::Model;
use crate::sequence::Sequence;
use crate::weights::Layer;

impl Model {
    /// Reads tokens as a text's and counts what of its ternary parameters takes part.
    pub fn activity(&self, tokens: &[u32]) -> Result<Activity> {
        if self.weights.layers.iter().flat_map(Layer::matrices).next().is_none() {
            return Err(Error::Input(
                "a model that is run in floats has no ternary parameters to count".to_owned(),
            ));
        }
        let mut scratch = Scratch::counting();
        let mut sequence = [Sequence::new(self, tokens.len())];
        for chunk in tokens.chunks(CHUNK) {
            let row = |&token: &u32| Row { sequence: 0, token, logits: Logits::None };
            self.forward(&mut scratch, &mut sequence, &chunk.iter().map(row).collect::<Vec<_>>())?;
        }
        Ok(Activity { tokens: tokens.len() as u64, ..scratch.activity().copied().unwrap_or_default() })
    }
}
