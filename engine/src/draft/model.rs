//! A draft model: a smaller model of the same vocabulary that guesses how the texts of another go on.

use std::borrow::Cow;
use std::sync::Arc;

use super::ledger::Ledger;
use super::{Costs, Drafter, Drafts, WORTH};
use crate::clock::Instant;
use crate::error::{Error, Result};
use crate::forward::{Row, Scratch};
use crate::head::Logits;
use crate::model::Model;
use crate::sampler::{Past, Sampler};
use crate::sequence::Sequence;

/// Tokens of texts that it reads at once before it guesses: a long prompt is read over several steps.
const PIECE: usize = 256;

/// How far the odds of a text go back towards even with each token that was not guessed: after some hundred tokens one is tried again.
const FORGIVEN: f64 = 0.002;

/// The model and what it has read.
#[derive(Debug)]
pub(crate) struct DraftModel {
    model: Arc<Model>,
    context: usize,
    /// Whose sequences they are.
    keys: Vec<u64>,
    sequences: Vec<Sequence>,
    /// How long the texts were when they were asked for first.
    beginnings: Vec<usize>,
    scratch: Scratch,
    costs: Costs,
    ledger: Ledger,
}

/// A text whose next tokens are to be guessed.
pub(crate) struct Ask<'a> {
    pub(crate) key: u64,
    /// All of its tokens; copied only where something is guessed.
    pub(crate) text: Cow<'a, [u32]>,
    pub(crate) said: usize,
    /// It draws as the text's own will, with the same random numbers: the guess is what it would choose.
    pub(crate) sampler: Cow<'a, Sampler>,
    pub(crate) logits: Logits,
    pub(crate) most: usize,
    pub(crate) drafter: &'a mut Drafter,
}

impl DraftModel {
    /// An error where the two do not have the same vocabulary.
    pub(crate) fn new(model: Arc<Model>, target: &Model, context: usize) -> Result<Self> {
        target.can_take_draft(&model)?;
        let context = context.min(model.config().context);
        let (scratch, costs, ledger) = (Scratch::default(), Costs::default(), Ledger::default());
        let (keys, sequences, beginnings) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { model, context, keys, sequences, beginnings, scratch, costs, ledger })
    }

    /// Forgets the texts that are gone.
    pub(crate) fn keep(&mut self, is_there: impl Fn(u64) -> bool) {
        for at in (0..self.keys.len()).rev().filter(|at| !is_there(self.keys[*at])).collect::<Vec<_>>() {
            self.keys.swap_remove(at);
            self.sequences.swap_remove(at);
            self.beginnings.swap_remove(at);
        }
    }

    /// Guesses the next tokens of the texts of which it is a better guide than their own beginnings, as many as pay in a step
    /// that has `rows` without them.
    pub(crate) fn guess(&mut self, drafts: Drafts, costs: &Costs, rows: usize, mut asks: Vec<Ask<'_>>) {
        let right: usize = asks.iter_mut().map(|ask| std::mem::take(&mut ask.drafter.won)).sum();
        self.ledger.step(costs.seconds(rows), right as f64 / rows.max(1) as f64);
        asks.retain(|ask| ask.most > 0 && ask.drafter.chance(0) < ask.drafter.model_odds());
        let most = asks.iter().map(|ask| ask.most).max().unwrap_or(0);
        let count = asks.len();
        let further = |length: usize| costs.seconds(rows + length * count) - costs.seconds(rows);
        let length = if drafts.always {
            most
        } else {
            let unread = asks.iter().map(|ask| self.unread(ask)).sum();
            let price = |length: usize| {
                let writing = (length - 1) as f64 * self.costs.seconds(count);
                further(length) + self.costs.seconds(unread) + writing
            };
            self.ledger.affordable(self.length(costs, rows, &asks, most), price)
        };
        if length == 0 {
            asks.iter_mut().for_each(|ask| ask.drafter.forgive(FORGIVEN));
            return;
        }
        let start = Instant::now();
        let beginnings = self.write(&mut asks, length);
        // What texts began with is read once, and is no reason against guessing at what comes.
        let taken = start.elapsed().as_secs_f64() - *beginnings.as_ref().unwrap_or(&0.0);
        self.ledger.paid(length, taken + further(length));
        if beginnings.is_err() {
            // Nothing that a text needs: it goes on without guesses.
            self.keep(|_| false);
            asks.iter_mut().for_each(|ask| ask.drafter.modelled().clear());
        }
    }

    /// Tokens of a text that it has not read, but for those with which it began.
    fn unread(&self, ask: &Ask<'_>) -> usize {
        let place = self.keys.iter().position(|key| *key == ask.key);
        let known = |place: usize| self.sequences[place].tokens().len().max(self.beginnings[place]);
        ask.text.len().saturating_sub(place.map_or(usize::MAX, known)).max(1)
    }

    /// How many guesses at each text are expected to pay.
    fn length(&self, costs: &Costs, rows: usize, asks: &[Ask<'_>], most: usize) -> usize {
        let (count, step) = (asks.len(), costs.seconds(rows));
        if count == 0 || step == 0.0 {
            return 0;
        }
        let odds = asks.iter().map(|ask| ask.drafter.model_odds()).sum::<f64>() / count as f64;
        let rate = |length: usize| {
            let right: f64 = (1..=length as i32).map(|nth| odds.powi(nth)).sum();
            let time = costs.seconds(rows + length * count) + length as f64 * self.costs.seconds(count);
            (rows as f64 + right * count as f64) / time
        };
        let best = (1..=most).max_by(|a, b| rate(*a).total_cmp(&rate(*b)));
        best.filter(|best| rate(*best) > WORTH * rate(0)).unwrap_or(0)
    }

    /// Writes up to `length` tokens after each text. Returns the seconds in which beginnings of texts were read.
    fn write(&mut self, asks: &mut [Ask<'_>], length: usize) -> Result<f64> {
        let (mut going, beginnings) = self.read(asks)?;
        for nth in 0..length {
            if going.is_empty() {
                break;
            }
            if nth > 0 {
                let row = |&(at, place): &(usize, usize)| {
                    let (sequence, token) = (place, asks[at].text[asks[at].text.len() - 1]);
                    Row { sequence, token, logits: asks[at].logits }
                };
                let rows: Vec<Row> = going.iter().map(row).collect();
                let start = Instant::now();
                self.model.forward(&mut self.scratch, &mut self.sequences, &rows)?;
                self.costs.note(rows.len(), start.elapsed().as_secs_f64());
            }
            let config = self.model.config();
            let stops = self.model.tokenizer().map_or(&[][..], |tokenizer| tokenizer.stops());
            let mut logits = self.scratch.logits().chunks_exact(config.vocab);
            going.retain(|&(at, _)| {
                let (Some(logits), Ask { text, said, sampler, most, drafter, .. }) =
                    (logits.next(), &mut asks[at])
                else {
                    return false;
                };
                let past = Past { tokens: text, said: *said };
                let Some(id) = sampler.to_mut().pick(logits, past, None).filter(|id| !stops.contains(id))
                else {
                    return false;
                };
                let guess = drafter.modelled();
                guess.push(id);
                text.to_mut().push(id);
                *said += 1;
                guess.len() < *most
            });
        }
        Ok(beginnings)
    }

    /// Reads what it does not know of the texts. Returns those of which it knows all, by their places among the asks and among the
    /// sequences, in the order of their logits; and the seconds of it in which beginnings were read.
    fn read(&mut self, asks: &mut [Ask<'_>]) -> Result<(Vec<(usize, usize)>, f64)> {
        let (mut rows, mut whole, mut new) = (Vec::new(), Vec::new(), 0);
        for (at, ask) in asks.iter_mut().enumerate() {
            ask.drafter.modelled().clear();
            if ask.text.len() + ask.most > self.context {
                continue;
            }
            let place = self.keys.iter().position(|key| *key == ask.key).unwrap_or_else(|| {
                self.keys.push(ask.key);
                self.sequences.push(Sequence::new(&self.model, self.context));
                self.beginnings.push(ask.text.len());
                self.keys.len() - 1
            });
            let sequence = &mut self.sequences[place];
            let known = sequence.tokens().iter().zip(&*ask.text).take_while(|(a, b)| a == b).count();
            sequence.truncate(known.min(ask.text.len() - 1));
            let unread = &ask.text[sequence.tokens().len()..];
            let count = unread.len().min(PIECE - rows.len());
            new += self.beginnings[place].saturating_sub(sequence.tokens().len()).min(count);
            rows.extend(unread[..count].iter().zip(1..).map(|(&token, nth)| {
                let logits = if nth == unread.len() { ask.logits } else { Logits::None };
                Row { sequence: place, token, logits }
            }));
            if count == unread.len() {
                whole.push((at, place));
            }
        }
        if rows.is_empty() {
            return Ok((whole, 0.0));
        }
        let start = Instant::now();
        self.model.forward(&mut self.scratch, &mut self.sequences, &rows)?;
        let seconds = start.elapsed().as_secs_f64();
        if rows.len() == whole.len() {
            self.costs.note(rows.len(), seconds);
        }
        Ok((whole, seconds * new as f64 / rows.len() as f64))
    }
}

impl Model {
    /// Returns an error if `draft` cannot guess for this model: where a token of one is another token of the other.
    pub fn can_take_draft(&self, draft: &Model) -> Result<()> {
        same_vocabulary(self, draft)
    }
}

fn same_vocabulary(target: &Model, draft: &Model) -> Result<()> {
    draft.writes()?;
    let wrong =
        |what: String| Err(Error::Input(format!("a draft model must have the model's vocabulary: {what}")));
    match (target.tokenizer(), draft.tokenizer()) {
        (Ok(ours), Ok(theirs)) => {
            let (size, other) = (ours.size(), theirs.size());
            if let Some(id) =
                (0..size.min(other) as u32).find(|&id| ours.token_bytes(id) != theirs.token_bytes(id))
            {
                let text =
                    |tokens: &crate::Tokenizer| format!("`{}`", tokens.token_text(id).unwrap_or_default());
                return wrong(format!("token {id} is {} there and {} here", text(theirs), text(ours)));
            }
            if size != other {
                return wrong(format!("it has {other} tokens, the model {size}"));
            }
        }
        // Ids alone: there is nothing else to compare.
        (Err(_), Err(_)) => {}
        _ => return wrong("only one of the two has a tokenizer".to_owned()),
    }
    let (size, other) = (target.config().vocab, draft.config().vocab);
    if size == other { Ok(()) } else { wrong(format!("it has {other} tokens, the model {size}")) }
}
