//! Vectors of texts: an embedding model's hidden states, pooled and of length 1.

mod bits;

pub use self::bits::{BITS, codes, pack};

use crate::config::Pooling;
use crate::error::{Error, Result};
use crate::forward::{Row, Scratch};
use crate::head::Logits;
use crate::model::Model;
use crate::sequence::Sequence;
use crate::tokenizer::Specials;

/// Tokens, of one text or of many, that go through the model together.
pub const ROWS: usize = 512;
/// Bytes of keys and values that the texts under way may take.
const CACHE: usize = 512 << 20;
/// Most texts under way at once.
const MOST_SLOTS: usize = 64;

/// Makes vectors of texts with one model, many of them in one forward pass. What stands beside a text changes no bit of its
/// vector.
#[derive(Debug)]
pub struct Embedder<'m> {
    model: &'m Model,
    pooling: Pooling,
    scratch: Scratch,
    slots: Vec<Sequence>,
}

/// A text on its way.
struct Text {
    slot: usize,
    /// Sum of the hidden states that count.
    sum: Vec<f32>,
}

impl<'m> Embedder<'m> {
    /// Makes vectors as `pooling` says, or as the model's file does. The file of a model that writes texts does not say.
    pub fn new(model: &'m Model, pooling: Option<Pooling>) -> Result<Self> {
        let found = pooling.or(model.config().pooling);
        let pooling = found.ok_or_else(|| Error::Input(no_embedder(model)))?;
        let chunk = model.config().kv_bytes(model.kv()) * 256;
        let slots = (CACHE / chunk.max(1)).clamp(1, MOST_SLOTS);
        let slots = (0..slots).map(|_| Sequence::new(model, model.config().context)).collect();
        Ok(Self { model, pooling, scratch: Scratch::default(), slots })
    }

    /// The ids of a text, with what the model's files put before and after one; cut where they are more than `most`.
    pub fn ids(model: &Model, text: &str, most: Option<usize>) -> Result<Vec<u32>> {
        let tokenizer = model.tokenizer()?;
        let mut ids = tokenizer.encode(text, true, Specials::Text)?;
        if let Some(most) = most {
            ids.truncate(most.saturating_sub(tokenizer.after().len()).max(1));
        }
        ids.extend_from_slice(tokenizer.after());
        Ok(ids)
    }

    /// [`Embedder::ids`] of a text that fits: an error where it is longer than the model's context, or has no token.
    pub fn tokens(model: &Model, text: &str) -> Result<Vec<u32>> {
        let ids = Self::ids(model, text, None)?;
        let context = model.config().context;
        match ids.len() {
            0 => Err(Error::Input("a text without a token has no vector".to_owned())),
            len if len > context => {
                Err(Error::Input(format!("{len} tokens: the model reads texts of up to {context}")))
            }
            _ => Ok(ids),
        }
    }

    /// The vector of each text, `dim` numbers each. `done` is called with the number of texts that are finished.
    ///
    /// # Panics
    /// If a text is empty.
    pub fn embed(&mut self, texts: &[Vec<u32>], mut done: impl FnMut(usize)) -> Result<Vec<Vec<f32>>> {
        let dim = self.model.config().dim;
        let mut vectors = vec![Vec::new(); texts.len()];
        let mut free: Vec<usize> = (0..self.slots.len()).collect();
        // Of each text that is under way; `next` is the next one to begin, `at` the next token of the last that began.
        let mut under_way: Vec<(usize, Text)> = Vec::new();
        let (mut next, mut at, mut finished) = (0, 0, 0);
        while finished < texts.len() {
            let (mut rows, mut of) = (Vec::new(), Vec::new());
            while rows.len() < ROWS && (at > 0 || next < texts.len()) {
                if at == 0 {
                    assert!(!texts[next].is_empty(), "text {next} is empty");
                    let Some(slot) = free.pop() else { break };
                    self.slots[slot].truncate(0);
                    under_way.push((next, Text { slot, sum: vec![0.0; dim] }));
                    next += 1;
                }
                let (index, text) = under_way.last().expect("a text has begun");
                let tokens = &texts[*index];
                let end = tokens.len().min(at + ROWS - rows.len());
                for (position, &token) in tokens.iter().enumerate().take(end).skip(at) {
                    let counts = self.counts(position, tokens.len());
                    let logits = if counts { Logits::All } else { Logits::None };
                    rows.push(Row { sequence: text.slot, token, logits });
                    if counts {
                        of.push(*index);
                    }
                }
                at = if end < tokens.len() { end } else { 0 };
            }
            let hidden = self.model.hidden(&mut self.scratch, &mut self.slots, &rows)?;
            for (index, hidden) in of.into_iter().zip(hidden.chunks_exact(dim)) {
                let found = under_way.iter_mut().find(|(at, _)| *at == index);
                let (_, text) = found.expect("rows belong to texts under way");
                text.sum.iter_mut().zip(hidden).for_each(|(sum, hidden)| *sum += hidden);
            }
            let last = under_way.pop_if(|_| at > 0);
            for (index, text) in under_way.drain(..) {
                vectors[index] = unit(text.sum)?;
                free.push(text.slot);
                finished += 1;
            }
            under_way.extend(last);
            done(finished);
        }
        Ok(vectors)
    }

    /// Whether the hidden state of this position is part of the vector.
    fn counts(&self, position: usize, len: usize) -> bool {
        match self.pooling {
            Pooling::Last => position + 1 == len,
            Pooling::Cls => position == 0,
            Pooling::Mean => true,
        }
    }
}

/// Why a model makes no vectors by itself.
fn no_embedder(model: &Model) -> String {
    format!(
        "a {} model that writes texts makes vectors only where it is said how: by pooling `mean`, `last` or `cls`",
        model.config().family
    )
}

impl Model {
    /// Returns an error where the model writes no text because it makes vectors.
    pub fn writes(&self) -> Result<()> {
        match self.config().pooling {
            Some(_) => {
                let what = "an embedding model writes no text; `tern embed` makes vectors with it";
                Err(Error::Input(what.to_owned()))
            }
            None => Ok(()),
        }
    }
}

/// The vector of this direction and of length 1.
fn unit(mut vector: Vec<f32>) -> Result<Vec<f32>> {
    let length = vector.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>().sqrt();
    if !(length > 0.0 && length.is_finite()) {
        return Err(Error::Numeric("a vector without a direction: the weights are broken".to_owned()));
    }
    vector.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    Ok(vector)
}

/// The first `dimensions` numbers, brought to length 1 again: for models trained so that these say most.
pub fn shortened(mut vector: Vec<f32>, dimensions: usize) -> Result<Vec<f32>> {
    if dimensions == 0 || dimensions > vector.len() {
        let what = format!("{dimensions} dimensions: expected 1 to {}, those of the model", vector.len());
        return Err(Error::Input(what));
    }
    if dimensions == vector.len() {
        return Ok(vector);
    }
    vector.truncate(dimensions);
    unit(vector)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shortened_vector_has_length_one() {
        let short = shortened(vec![0.6, 0.0, 0.8], 2).unwrap();
        assert_eq!(short, [1.0, 0.0]);
        assert_eq!(shortened(vec![0.6, 0.8], 2).unwrap(), [0.6, 0.8]);
        for bad in [0, 4] {
            let error = shortened(vec![0.6, 0.0, 0.8], bad).unwrap_err().to_string();
            assert_eq!(error, format!("{bad} dimensions: expected 1 to 3, those of the model"));
        }
        assert!(shortened(vec![0.0, 1.0], 1).is_err(), "no direction");
    }
}
