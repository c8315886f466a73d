//! The output head: which logits are asked of it, and the product.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tern_kernels::{Activations, HeadInput, HeadScratch, Wanted};

use crate::error::{Error, Result};
use crate::model::Model;
use crate::weights::{Dense, Output};

/// The logits that are wanted after a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logits {
    /// None.
    None,
    /// Those of all tokens.
    All,
    /// Those of the k likeliest tokens, the lower id first among equals; any other may come as minus infinity.
    Top(usize),
}

/// Buffers of the head.
#[derive(Debug, Default)]
pub(crate) struct HeadBuffers {
    /// For each row that wants logits how many of the largest, 0 for all.
    pub tops: Vec<usize>,
    pub normed: Vec<f32>, // (rows that want logits, dim)
    input: HeadInput,
    codes: Activations, // the input of a ternary head
    pub scratch: HeadScratch,
}

impl Model {
    /// Logits of the normed hidden states, `(rows that want them, vocab)`. Of the largest, those among the `allowed`: a bit
    /// for each token, `(rows that want logits, vocab / 32 up)`, empty where all are. Other logits may be there too.
    pub(crate) fn head(&self, s: &mut HeadBuffers, allowed: &[u32], logits: &mut [f32]) -> Result<()> {
        let dim = self.config.dim;
        let broken =
            |_| Error::Numeric("output head: a value is not a number: the weights are broken".to_owned());
        let bad = match &self.weights.output {
            Output::Ternary(head) => {
                s.codes
                    .set(self.rounding.unwrap_or_default(), self.cpu, &self.pool, &s.normed, dim, None)
                    .map_err(broken)?;
                head.matmul(self.cpu, &self.pool, &mut s.codes, logits);
                self.bad(logits, |logit| !logit.is_finite())
            }
            Output::Int8(head) => {
                s.input.quantise(self.cpu, &s.normed, dim).map_err(broken)?;
                let wanted = Wanted { tops: &s.tops, allowed };
                head.product(self.cpu, &self.pool, &s.input, wanted, &mut s.scratch, logits);
                self.bad(logits, |logit| logit.is_nan() || logit == f32::INFINITY)
            }
            Output::None => return self.writes(),
            Output::Stored(head) => {
                let head = head.as_ref().unwrap_or(&self.weights.embedding);
                self.stored(head, &s.normed, logits)?;
                self.bad(logits, |logit| !logit.is_finite())
            }
        };
        match bad {
            None => Ok(()),
            Some(at) => Err(Error::Numeric(format!(
                "the logit of token {} is {}: the weights are broken",
                at % self.config.vocab,
                logits[at]
            ))),
        }
    }

    /// Where the first logit is that no sound model has.
    fn bad(&self, logits: &mut [f32], is_bad: impl Fn(f32) -> bool + Sync) -> Option<usize> {
        let vocab = self.config.vocab;
        let first = AtomicUsize::new(usize::MAX);
        self.pool.for_chunks(logits, vocab, |row, logits| {
            // Without a branch for each number.
            if logits.iter().fold(false, |any, logit| any | is_bad(*logit)) {
                let at = logits.iter().position(|logit| is_bad(*logit)).unwrap_or(0);
                first.fetch_min(row * vocab + at, Ordering::Relaxed);
            }
        });
        Some(first.into_inner()).filter(|at| *at < usize::MAX)
    }

    /// The product with the numbers of the file; a chunk of rows stays in cache while all hidden states pass.
    fn stored(&self, head: &Dense, normed: &[f32], logits: &mut [f32]) -> Result<()> {
        /// Rows of the head that a thread takes at once.
        const CHUNK: usize = 64;
        let (dim, vocab) = (self.config.dim, self.config.vocab);
        let failure = Mutex::new(None);
        let dots = |chunk: usize, normed: &[f32], out: &mut [f32]| {
            let first = chunk * CHUNK;
            if let Err(what) = head.dots(self.cpu, first..first + out.len(), normed, out) {
                failure.lock().expect("no panic under this lock").get_or_insert(what);
            }
        };
        if normed.len() == dim {
            self.pool.for_chunks(logits, CHUNK, |chunk, out| dots(chunk, normed, out));
        } else {
            let mut columns: Vec<Vec<&mut [f32]>> = (0..vocab.div_ceil(CHUNK)).map(|_| Vec::new()).collect();
            for logits in logits.chunks_exact_mut(vocab) {
                columns.iter_mut().zip(logits.chunks_mut(CHUNK)).for_each(|(column, out)| column.push(out));
            }
            self.pool.for_chunks(&mut columns, 1, |chunk, column| {
                for (out, normed) in column[0].iter_mut().zip(normed.chunks_exact(dim)) {
                    dots(chunk, normed, out);
                }
            });
        }
        match failure.into_inner().expect("no panic under this lock") {
            Some(what) => Err(Error::Numeric(format!("output head: {what}"))),
            None => Ok(()),
        }
    }
}
