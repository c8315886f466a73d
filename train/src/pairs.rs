//! Learning from pairs, a better and a worse answer to the same: DPO (arXiv 2305.18290). The reference is the model that the
//! run begins as; it reads every text once, before the first step, and what it finds of each stays in the run's folder.

use std::path::PathBuf;

use crate::config::Run;
use crate::corpus::{Corpus, Sequences};
use crate::error::{Error, Result};
use crate::network::{Gradients, Network};
use crate::ops::Machine;
use crate::ops::loss::RowLoss;
use crate::random::hash;

const MAGIC: u64 = u64::from_le_bytes(*b"TernRef1");

/// What a run learns from pairs with.
#[derive(Debug)]
pub struct Pairs {
    beta: f64,
    /// The logarithm of the probability that the reference gives the answer of each document, by the document's number; not a
    /// number where it has none.
    reference: Vec<f64>,
}

/// Sums over pairs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Preferred {
    /// DPO's loss, `-log σ(margin)`.
    pub loss: f64,
    /// `β` times how much more likely the better answer has become than the worse one.
    pub margin: f64,
    /// Of pairs, those whose margin is above 0.
    pub right: f64,
}

impl Preferred {
    pub(crate) fn add(&mut self, other: Preferred) {
        self.loss += other.loss;
        self.margin += other.margin;
        self.right += other.right;
    }
}

/// The logarithm of the probability of each sequence's targets.
fn logs(rows: &[RowLoss], count: usize) -> impl Iterator<Item = f64> {
    let length = rows.len() / count.max(1);
    rows.chunks(length.max(1)).map(|rows| -rows.iter().map(|row| f64::from(row.loss)).sum::<f64>())
}

impl Pairs {
    /// With these logarithms of a reference's, by the number of the document.
    pub fn new(beta: f32, reference: Vec<f64>) -> Self {
        Self { beta: f64::from(beta), reference }
    }

    /// Those of a run. The reference is what `params` are; if the folder does not know yet what it says, it reads.
    pub(crate) fn of(
        run: &Run,
        network: &mut Network,
        on: Machine,
        params: &[f32],
        corpus: &mut Corpus,
        stop: &dyn Fn() -> bool,
        note: &mut dyn FnMut(String),
    ) -> Result<Self> {
        let path = run.out.join("reference.logs");
        let numbers = params.chunks(1 << 10).fold(corpus.key(), |sum, part| {
            hash(sum, &part.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>())
        });
        let stored = Stored { path, key: numbers };
        let (mut reference, all) = (stored.read()?, corpus.documents());
        if reference.len() < all {
            note(format!("the model reads {} answers first, as its own reference", all - reference.len()));
            network.prepare(on, params)?;
        }
        let (mut batch, mut rows) = (Sequences::default(), Vec::new());
        while reference.len() < all {
            let documents = reference.len()..(reference.len() + run.sequences).min(all);
            let fitting = corpus.texts(documents.clone(), run.length, &mut batch)?;
            reference.resize(documents.end, f64::NAN);
            if !fitting.is_empty() {
                read(network, on, params, &batch, &mut rows)?;
                let found = fitting.iter().zip(logs(&rows, fitting.len()));
                found.for_each(|(document, log)| reference[*document as usize] = log);
            }
            let (done, stopping) = (reference.len() == all, stop());
            if done || stopping {
                stored.write(&reference)?;
            }
            if stopping && !done {
                let what = "stopped while the reference was reading; begun again, it goes on from there";
                return Err(Error::Input(what.to_owned()));
            }
        }
        Ok(Self::new(run.dpo, reference))
    }

    /// What pairs come to whose answers have these probabilities; for each of their sequences, what its rows' loss counts.
    fn weigh(&self, documents: &[u32], logs: impl Iterator<Item = f64>) -> (Preferred, Vec<f32>) {
        let gains: Vec<f64> =
            documents.iter().zip(logs).map(|(nth, log)| log - self.reference[*nth as usize]).collect();
        let (mut sum, mut weights) = (Preferred::default(), Vec::new());
        for [better, worse] in gains.as_chunks::<2>().0 {
            let margin = self.beta * (better - worse);
            let loss = (-margin.abs()).exp().ln_1p() + (-margin).max(0.0);
            sum.add(Preferred { loss, margin, right: f64::from(u8::from(margin > 0.0)) });
            let pull = self.beta / (1.0 + margin.exp());
            weights.extend([pull as f32, -pull as f32]);
        }
        (sum, weights)
    }

    /// What pairs come to whose rows have these losses.
    pub(crate) fn look(&self, documents: &[u32], rows: &[RowLoss]) -> Preferred {
        self.weigh(documents, logs(rows, documents.len())).0
    }

    /// What a batch of pairs comes to, and its gradient into `out`. The batch is read twice: how much each pair counts shows at its end.
    #[expect(clippy::too_many_arguments, reason = "a batch, what it is computed with, and two outputs")]
    pub fn learn(
        &self,
        network: &mut Network,
        on: Machine,
        params: &[f32],
        batch: &Sequences,
        factor: f32,
        rows: &mut Vec<RowLoss>,
        out: &mut Vec<f32>,
    ) -> Result<Preferred> {
        read(network, on, params, batch, rows)?;
        let count = batch.documents.len();
        let (sum, weights) = self.weigh(&batch.documents, logs(rows, count));
        let length = rows.len() / count.max(1);
        let weights: Vec<f32> =
            weights.iter().flat_map(|weight| std::iter::repeat_n(*weight, length)).collect();
        out.resize(params.len(), 0.0);
        let back = Gradients { values: out, factor, weights: Some(&weights), lesson: None };
        network.run(on, params, batch.into(), rows, Some(back))?;
        Ok(sum)
    }
}

/// The losses of the rows of a batch.
fn read(
    network: &mut Network,
    on: Machine,
    params: &[f32],
    batch: &Sequences,
    rows: &mut Vec<RowLoss>,
) -> Result<()> {
    rows.resize(batch.tokens.len(), RowLoss::default());
    network.run(on, params, batch.into(), rows, None)
}

/// The file of what a reference says: the first so many documents.
struct Stored {
    path: PathBuf,
    /// Of the texts and of the reference.
    key: u64,
}

impl Stored {
    /// What there is of this reference and these texts; nothing of others.
    fn read(&self) -> Result<Vec<f64>> {
        let bytes = match std::fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(Error::io(&self.path, e)),
        };
        let words: Vec<u64> = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
        Ok(match words.as_slice() {
            [MAGIC, key, logs @ ..] if *key == self.key => {
                logs.iter().map(|bits| f64::from_bits(*bits)).collect()
            }
            _ => Vec::new(),
        })
    }

    fn write(&self, logs: &[f64]) -> Result<()> {
        let words = [MAGIC, self.key].into_iter().chain(logs.iter().map(|log| log.to_bits()));
        let bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
        Ok(tern::file::Whole::begin(&self.path)?.publish(&bytes)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loss_and_what_answers_count_are_those_of_the_formula() {
        let pairs = Pairs::new(0.5, vec![-3.0, -5.0, -2.0, -2.0]);
        let (sum, weights) = pairs.weigh(&[0, 1, 2, 3], [-1.0, -6.0, -90.0, 0.0].into_iter());
        // Margins 0.5 (2 + 1) and 0.5 (-88 - 2).
        let log_sigma = |x: f64| -(1.0 + (-x).exp()).ln();
        assert!((sum.loss - (-log_sigma(1.5) + 45.0)).abs() < 1e-12, "{sum:?}");
        assert_eq!((sum.margin, sum.right), (1.5 - 45.0, 1.0));
        let sigma = |x: f64| 1.0 / (1.0 + (-x).exp());
        let wanted = [0.5 * sigma(-1.5), -0.5 * sigma(-1.5), 0.5 * sigma(45.0), -0.5 * sigma(45.0)];
        assert_eq!(weights, wanted.map(|weight| weight as f32));
    }

    #[test]
    fn an_untrained_model_is_indifferent() {
        let pairs = Pairs::new(0.1, vec![-7.25, -1.5]);
        let (sum, weights) = pairs.weigh(&[0, 1], [-7.25, -1.5].into_iter());
        assert_eq!((sum.loss, sum.right), (2f64.ln(), 0.0));
        assert_eq!(weights, [0.05, -0.05]);
    }
}
