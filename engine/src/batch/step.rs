//! One step: which tokens of which texts go through the model together, guesses among them, and what their logits say.

use std::borrow::Cow;
use std::time::Duration;

use tern_kernels::Cache;

use super::{Batch, Finish, Output, Scored, Text, Ticket};
use crate::clock::Instant;
use crate::draft::{Ask, Drafted, Drafter, lengths};
use crate::forward::{Row, Scratch};
use crate::head::Logits;
use crate::model::Model;
use crate::sampler::{Allowed, LogSum, Past, top as likely};

/// Prefill batch size, in rows, while no sequence is decoding.
const PIECE: usize = 256;
/// The smallest prefill batch, while sequences are decoding.
const LEAST_PIECE: usize = 16;
/// Rows of which all logits are held at once: 16 MB with the largest vocabularies.
const SCORED_PIECE: usize = 32;

/// Tokens of one running text that go through the model in a step.
#[derive(Clone, Copy)]
struct Piece {
    at: usize,
    len: usize,
}

impl Batch {
    /// Lets jobs in, takes one step with all that are `ready` for another token, and tells what came of it.
    pub fn step(&mut self, model: &Model, ready: impl Fn(Ticket) -> bool) -> Vec<(Ticket, Output)> {
        let mut out = Vec::new();
        self.set_aside(&ready);
        self.admit(model, &ready);
        let pieces = loop {
            let pieces = self.pieces(&ready);
            if self.make_room(&pieces) {
                break pieces;
            }
        };
        self.draft(&pieces);
        self.rows = pieces.iter().map(|piece| piece.len + self.running[piece.at].draft).sum();
        for piece in &pieces {
            let job = &self.running[piece.at].job;
            // All logits of a row, and the order of the likeliest, cost about as much again as its way there.
            let cost = if job.logprobs.is_some() || job.prompt_logprobs.is_some() { 2 } else { 1 };
            self.shares.spend(job.owner, piece.len as u64 * cost);
        }
        if !self.waiting.is_empty() {
            // A seat that is held without a word is as good as a token to those who wait for one.
            for text in self.running.iter().filter(|text| text.stalled.is_some()) {
                self.shares.spend(text.job.owner, 1);
            }
        }
        if pieces.is_empty() {
            return out;
        }
        let start = Instant::now();
        let rows: Vec<Row> = pieces.iter().flat_map(|&piece| self.rows_of(piece)).collect();
        self.ask_guides(model, &pieces);
        let allowed = self.allowed(model, &rows);
        // Out of the batch for as long as its logits are looked at: they are not copied.
        let mut scratch = std::mem::take(&mut self.scratch);
        let begun = Instant::now();
        match model.forward_allowed(&mut scratch, &mut self.sequences, &rows, &allowed) {
            Ok(logits) => {
                self.measure(&pieces, start.elapsed());
                if pieces.iter().all(|piece| self.writes(piece)) {
                    self.costs.note(rows.len(), begun.elapsed().as_secs_f64());
                }
                let mut logits = logits.chunks_exact(model.config().vocab);
                let mut asked =
                    rows.iter().map(|row| (row.logits != Logits::None).then(|| logits.next()).flatten());
                for piece in &pieces {
                    let count = piece.len + self.running[piece.at].draft;
                    let logits: Vec<&[f32]> = asked.by_ref().take(count).flatten().collect();
                    self.take(model, *piece, &logits, &mut out);
                }
            }
            // Somebody's numbers left the range: the others go on without them.
            Err(_) => self.step_each(model, &pieces, &mut scratch, &mut out),
        }
        self.scratch = scratch;
        let ended: Vec<Ticket> = out
            .iter()
            .filter(|(_, output)| matches!(output, Output::Done(_)))
            .map(|(ticket, _)| *ticket)
            .collect();
        ended.into_iter().for_each(|ticket| self.cancel(ticket));
        out
    }

    /// What goes through the model in the next step.
    fn pieces(&self, ready: &impl Fn(Ticket) -> bool) -> Vec<Piece> {
        let mut pieces = Vec::new();
        let mut reading = Vec::new();
        for (at, (text, sequence)) in self.running.iter().zip(&self.sequences).enumerate() {
            let pending = text.tokens.len() - sequence.tokens().len();
            if pending == 1 && text.read {
                if ready(text.ticket) {
                    pieces.push(Piece { at, len: 1 });
                }
            } else if !text.read || ready(text.ticket) {
                let scored = text.job.prompt_logprobs.is_some() && !text.read;
                reading.push(Piece { at, len: if scored { pending.min(SCORED_PIECE) } else { pending } });
            }
        }
        let mut left = PIECE;
        if !pieces.is_empty() && self.row_seconds > 0.0 {
            left = ((self.bounds.pause.as_secs_f64() / self.row_seconds) as usize).clamp(LEAST_PIECE, PIECE);
        }
        // The shortest first, an equal share of what is left for each: short prompts pass long ones.
        reading.sort_by_key(|piece| piece.len);
        let readers = reading.len();
        for (n, piece) in reading.into_iter().enumerate() {
            let len = piece.len.min(left.div_ceil(readers - n));
            if len > 0 {
                left -= len;
                pieces.push(Piece { len, ..piece });
            }
        }
        pieces.sort_by_key(|piece| piece.at);
        pieces
    }

    /// Whether a piece is the next token of a text, and not a part of a prompt.
    fn writes(&self, piece: &Piece) -> bool {
        self.running[piece.at].read && piece.len == 1
    }

    /// Guesses how the texts of these pieces go on, where that pays: not in a step that reads prompts, whose rows have all that
    /// there is to compute with. A text with a grammar is not guessed at, because the grammar would have to be asked about
    /// tokens that may not come; no guess takes a page.
    fn draft(&mut self, pieces: &[Piece]) {
        self.running.iter_mut().for_each(|text| text.draft = 0);
        if self.drafts.tokens == 0 || !pieces.iter().all(|piece| self.writes(piece)) {
            return;
        }
        let mut asks = Vec::new();
        if let Some(second) = &mut self.draft_model {
            second.keep(|key| self.running.iter().any(|text| text.ticket.0 == key));
        }
        for (at, text) in self.running.iter_mut().enumerate() {
            if !pieces.iter().any(|piece| piece.at == at) {
                continue;
            }
            let left = match text.job.guide {
                Some(_) => 0,
                // The last token that is wanted needs no guess after it.
                None => text.job.most.saturating_sub(text.said() + 1),
            };
            let page = text.tokens.len().next_multiple_of(Cache::CHUNK) - text.tokens.len();
            let most = self.drafts.tokens.min(left).min(page);
            if let Some((last, before)) = text.tokens.split_last() {
                text.drafter.look(before, *last, most);
            }
            if self.draft_model.is_some() && most > 0 {
                let said = text.said();
                let Text { ticket, tokens, sampler, wanted, drafter, .. } = text;
                let (key, text, logits) = (ticket.0, Cow::from(&*tokens), *wanted);
                let sampler = Cow::Borrowed(&*sampler);
                asks.push(Ask { key, text, said, sampler, logits, most, drafter });
            }
        }
        if let Some(second) = &mut self.draft_model {
            second.guess(self.drafts, &self.costs, pieces.len(), asks);
        }
        let drafters: Vec<&Drafter> = pieces.iter().map(|piece| &self.running[piece.at].drafter).collect();
        let lengths = lengths(self.drafts, &self.costs, pieces.len(), &drafters);
        for (piece, length) in pieces.iter().zip(lengths) {
            self.running[piece.at].draft = length;
        }
    }

    /// Frees pages until these pieces fit; `false` if a sequence had to go, so that the pieces must be cut anew.
    fn make_room(&mut self, pieces: &[Piece]) -> bool {
        let missing = pieces.iter().map(|piece| self.sequences[piece.at].missing(piece.len)).sum::<usize>();
        while self.count.get() + missing > self.bounds.pages {
            if self.prefixes.evict() {
                continue;
            }
            // First those whose reader stands still, then the youngest.
            let last = |at: &usize| (self.running[*at].stalled.is_some(), self.running[*at].ticket);
            let Some(youngest) = (0..self.running.len()).max_by_key(last) else { return true };
            // The last one left shares pages with the kept texts, and a copy is one page too many: without them it fits.
            self.preempted += 1;
            let last = self.running.len() == 1;
            let (mut text, mut sequence) = (self.running.remove(youngest), self.sequences.remove(youngest));
            text.alone = last;
            if !last {
                self.prefixes.leave(text.job.realm(), sequence.tokens(), sequence.chunks());
            }
            sequence.clear();
            if last {
                // It stays, and is read again from its beginning.
                self.running.push(text);
                self.sequences.push(sequence);
            } else {
                self.waiting.push_front(text);
            }
            return false;
        }
        true
    }

    fn rows_of(&self, piece: Piece) -> impl Iterator<Item = Row> + '_ {
        let (text, from) = (&self.running[piece.at], self.sequences[piece.at].tokens().len());
        let scored = text.job.prompt_logprobs.is_some() && !text.read;
        let known = &text.tokens[from..from + piece.len];
        known.iter().chain(&text.drafter.guess()[..text.draft]).zip(from + 1..).map(move |(&token, end)| {
            let logits = if end >= text.tokens.len() {
                if scored { Logits::All } else { text.wanted }
            } else if scored {
                Logits::All
            } else {
                Logits::None
            };
            Row { sequence: piece.at, token, logits }
        })
    }

    /// Asks the guides of the texts that go on with these pieces what may come next, on all threads.
    fn ask_guides(&mut self, model: &Model, pieces: &[Piece]) {
        let (sequences, words) = (&self.sequences, model.config().vocab.div_ceil(32));
        let goes_on = |at: usize, text: &Text| {
            let whole = |piece: &Piece| sequences[at].tokens().len() + piece.len == text.tokens.len();
            text.job.guide.is_some() && pieces.iter().any(|piece| piece.at == at && whole(piece))
        };
        let mut guided: Vec<&mut Text> = self
            .running
            .iter_mut()
            .enumerate()
            .filter(|(at, text)| goes_on(*at, text))
            .map(|(_, text)| text)
            .collect();
        model.pool().for_chunks(&mut guided, 1, |_, texts| {
            for text in texts {
                let Text { job, allowed, lost, .. } = &mut **text;
                allowed.clear();
                let asked = job.guide.as_mut().map(|guide| guide.allow(allowed));
                *lost = asked.and_then(Result::err);
                allowed.resize(words, 0);
            }
        });
    }

    /// The tokens allowed after each row that asks for logits; empty where no sequence has a guide.
    fn allowed(&self, model: &Model, rows: &[Row]) -> Vec<u32> {
        let words = model.config().vocab.div_ceil(32);
        if rows.iter().all(|row| self.running[row.sequence].job.guide.is_none()) {
            return Vec::new();
        }
        let asked = rows.iter().filter(|row| row.logits != Logits::None);
        let mut allowed = Vec::with_capacity(rows.len() * words);
        for row in asked {
            match &self.running[row.sequence] {
                text if text.allowed.len() == words => allowed.extend_from_slice(&text.allowed),
                _ => allowed.resize(allowed.len() + words, u32::MAX),
            }
        }
        allowed
    }

    /// The pieces one by one, after they failed together.
    fn step_each(
        &mut self,
        model: &Model,
        pieces: &[Piece],
        scratch: &mut Scratch,
        out: &mut Vec<(Ticket, Output)>,
    ) {
        // It may have been a guess that failed, and a text that is well.
        self.running.iter_mut().for_each(|text| text.draft = 0);
        for piece in pieces {
            let rows: Vec<Row> = self.rows_of(*piece).collect();
            let allowed = self.allowed(model, &rows);
            match model.forward_allowed(scratch, &mut self.sequences, &rows, &allowed) {
                Ok(logits) => {
                    let logits: Vec<&[f32]> = logits.chunks_exact(model.config().vocab).collect();
                    self.take(model, *piece, &logits, out);
                }
                Err(error) => {
                    let ticket = self.running[piece.at].ticket;
                    out.push((ticket, Output::Done(Finish::Failed(error.to_string()))));
                }
            }
        }
    }

    /// What the logits of a piece say: probabilities of the prompt, the next token, the end.
    fn take(&mut self, model: &Model, piece: Piece, logits: &[&[f32]], out: &mut Vec<(Ticket, Output)>) {
        let text = &mut self.running[piece.at];
        let fed = self.sequences[piece.at].tokens().len() - text.draft;
        if let Some(top) = text.job.prompt_logprobs.filter(|_| !text.read) {
            if text.scored.is_empty() {
                text.scored.push(Scored { id: text.tokens[0], logprob: None, top: Vec::new() });
            }
            // The logits after a token are about the next one.
            let next = &text.tokens[fed - piece.len + 1..];
            text.scored.extend(next.iter().zip(logits).map(|(&id, logits)| score(logits, id, Some(top))));
        }
        if fed < text.tokens.len() {
            if !text.read {
                out.push((text.ticket, Output::Reading { cached: text.cached, read: fed }));
            }
            return;
        }
        if !text.read {
            text.read = true;
            let read = Output::Read { cached: text.cached, scored: std::mem::take(&mut text.scored) };
            out.push((text.ticket, read));
        }
        let ticket = text.ticket;
        if logits.is_empty() || text.job.most == 0 {
            out.push((ticket, Output::Done(Finish::Length)));
            return;
        }
        let told = out.len();
        // The logits after the last token that is known, and those after each guess as long as the guesses are right.
        let (mut accepted, from) = (0, logits.len() - text.draft - 1);
        for logits in &logits[from..] {
            let guess = text.drafter.guess().get(accepted).copied().filter(|_| accepted < text.draft);
            out.extend(next(model, text, logits).into_iter().map(|output| (ticket, output)));
            let goes_on = matches!(out.last(), Some((_, Output::Token(token))) if Some(token.id) == guess);
            if !goes_on {
                break;
            }
            accepted += 1;
        }
        if text.draft > 0 {
            self.sequences[piece.at].truncate(fed + accepted);
            let drafted = Drafted { tokens: text.draft, accepted };
            // Guesses that were wrong are nobody's debt.
            self.shares.spend(text.job.owner, accepted as u64);
            out.insert(told, (ticket, Output::Drafted(drafted)));
        }
    }

    fn measure(&mut self, pieces: &[Piece], time: Duration) {
        let reading: usize = pieces.iter().map(|piece| piece.len).filter(|len| *len > 1).sum();
        if reading >= LEAST_PIECE {
            let seconds = time.as_secs_f64() / reading as f64;
            self.row_seconds =
                if self.row_seconds == 0.0 { seconds } else { 0.5 * (self.row_seconds + seconds) };
        }
    }
}

fn score(logits: &[f32], id: u32, top: Option<usize>) -> Scored {
    let Some(top) = top else { return Scored { id, logprob: None, top: Vec::new() } };
    let sum = LogSum::of(logits);
    let logprob = |logit: f32| sum.logprob(logit) as f32;
    let top = likely(logits, top).into_iter().map(|(logit, id)| (id, logprob(logit))).collect();
    Scored { id, logprob: Some(logprob(logits[id as usize])), top }
}

/// Chooses a text's next token.
fn next(model: &Model, text: &mut Text, logits: &[f32]) -> Vec<Output> {
    let astray = |what: String| vec![Output::Done(Finish::Astray(what))];
    if let Some(what) = text.lost.take() {
        return astray(what);
    }
    let past = Past { tokens: &text.tokens, said: text.said() };
    let allowed = text.job.guide.is_some().then_some(Allowed(&text.allowed));
    let Some(id) = text.sampler.pick(logits, past, allowed) else {
        return vec![Output::Done(Finish::Complete)];
    };
    let scored = score(logits, id, text.job.logprobs);
    let stops = model.tokenizer().is_ok_and(|tokenizer| tokenizer.stops().contains(&id));
    if stops && !text.job.ignore_stops {
        return vec![Output::Done(Finish::Stop(scored))];
    }
    if let Some(Err(what)) = text.job.guide.as_mut().map(|guide| guide.accept(id)) {
        return astray(what);
    }
    text.drafter.came(id);
    text.tokens.push(id);
    let mut outputs = vec![Output::Token(scored)];
    if text.said() >= text.job.most {
        outputs.push(Output::Done(Finish::Length));
    }
    outputs
}
