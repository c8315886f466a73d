//! Many sequences stepped together through the one forward pass, in pages of memory that are bounded and shared.
//!
//! A step takes one token of every sequence that is being written and, beside them, a piece of the prompts that are
//! being read: small enough that nobody waits long for the next token. No row's arithmetic depends on its company, so
//! a sequence is the same text alone or with others, after a shared beginning was found, and when it had to give its
//! pages up in between and was read again.

mod prefixes;
mod shares;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use tern_kernels::{Cache, Chunk, ChunkCount};

use self::prefixes::{Prefixes, common};
use self::shares::Shares;
use crate::error::{Error, Result};
use crate::forward::{Row, Scratch};
use crate::head::Logits;
use crate::model::Model;
use crate::sampler::{Allowed, LogProbabilities, Past, Sampler, Sampling};
use crate::sequence::Sequence;

/// Rows of prompts that go through the model together when nobody waits for a token.
const PIECE: usize = 256;
/// The least, where somebody does.
const LEAST_PIECE: usize = 16;
/// How long a sequence may run and not be ready before it gives its seat to one that waits.
const PATIENCE: Duration = Duration::from_millis(100);
/// Rows of which all logits are held at once: 16 MB with the largest vocabularies.
const SCORED_PIECE: usize = 32;

/// What a batch may use.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Sequences that run at the same time; the others wait.
    pub parallel: usize,
    /// Tokens of one sequence, prompt and answer together.
    pub context: usize,
    /// Pages of keys and values, [`Batch::page_bytes`] each, those of finished texts included.
    pub pages: usize,
    /// How long a step may take for the sake of prompts while others wait for their next token.
    pub pause: Duration,
}

/// A text to be continued.
pub struct Job {
    /// Its beginning; at least one token.
    pub prompt: Vec<u32>,
    /// How the next tokens are chosen.
    pub sampling: Sampling,
    /// How many at most; none, and only the prompt is read.
    pub most: usize,
    /// Tell every token's log-probability and those of so many of the likeliest.
    pub logprobs: Option<usize>,
    /// The same for the tokens of the prompt.
    pub prompt_logprobs: Option<usize>,
    /// Go on after a stop token as if it were any other.
    pub ignore_stops: bool,
    /// What it must be a text of.
    pub guide: Option<Box<dyn Guide>>,
    /// Only texts of the same realm share their beginnings.
    pub realm: u64,
    /// Whose it is. Where jobs wait, the next is one of the owner who got least of late.
    pub owner: u64,
}

impl Job {
    /// Makes a job with no log-probabilities, no grammar, and its prefix shared with everybody.
    pub fn new(prompt: Vec<u32>, sampling: Sampling, most: usize) -> Self {
        let (logprobs, prompt_logprobs, guide) = (None, None, None);
        Self {
            prompt,
            sampling,
            most,
            logprobs,
            prompt_logprobs,
            ignore_stops: false,
            guide,
            realm: 0,
            owner: 0,
        }
    }
}

/// A grammar that a text must follow, token by token.
pub trait Guide: Send {
    /// Sets the bits of the tokens that may come next, see [`Allowed`]; none may when the text is complete.
    fn allow(&mut self, bits: &mut Vec<u32>) -> Result<(), String>;
    /// Goes on with this one.
    fn accept(&mut self, id: u32) -> Result<(), String>;
}

/// Names a job in its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// A token and its probability.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    /// Its id.
    pub id: u32,
    /// The natural logarithm of its probability, before any sampling setting, where it was asked for.
    pub logprob: Option<f32>,
    /// The likeliest tokens at its place, with theirs.
    pub top: Vec<(u32, f32)>,
}

/// What happened to a job.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// A piece of its prompt was read, and it is not the last.
    Reading {
        /// Tokens whose keys and values were there already.
        cached: usize,
        /// Tokens that are there now, those included.
        read: usize,
    },
    /// Its prompt was read. The first token of a text has no probability.
    Read {
        /// Tokens whose keys and values were there already.
        cached: usize,
        /// The prompt's tokens, where they were asked for.
        scored: Vec<Scored>,
    },
    /// The next token.
    Token(Scored),
    /// It ended, and its memory is free.
    Done(Finish),
}

/// Why a job ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Finish {
    /// The model said so, with this token.
    Stop(Scored),
    /// Its guide says that the text is complete.
    Complete,
    /// As many tokens as were wanted, or as the context holds.
    Length,
    /// Its guide cannot go on.
    Astray(String),
    /// It could not go on.
    Failed(String),
}

/// What a batch is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Sequences in it.
    pub running: usize,
    /// Jobs that wait for room.
    pub waiting: usize,
    /// Pages that running sequences hold.
    pub pages_used: usize,
    /// Pages of texts that ended; they go when others need room.
    pub pages_kept: usize,
    /// Pages in all.
    pub pages: usize,
    /// Times that a sequence had to give its pages up and was read again.
    pub preempted: u64,
    /// Times that a sequence gave its seat up because nobody took its tokens and others waited.
    pub set_aside: u64,
}

/// A job that runs or waits.
struct Text {
    ticket: Ticket,
    job: Job,
    /// Prompt and answer; what is beyond the sequence's tokens has not gone through the model.
    tokens: Vec<u32>,
    sampler: Sampler,
    wanted: Logits,
    /// The tokens that its guide allows next, a bit for each; empty without a guide.
    allowed: Vec<u32>,
    /// Why its guide cannot go on.
    lost: Option<String>,
    cached: usize,
    scored: Vec<Scored>,
    /// Whether its prompt was read and said to be.
    read: bool,
    /// Nothing may be shared: it would need a page more than there are.
    alone: bool,
    /// Since when it runs and is not ready for another token.
    stalled: Option<Instant>,
}

impl Text {
    fn said(&self) -> usize {
        self.tokens.len() - self.job.prompt.len()
    }

    /// Whether its tokens are taken. A prompt can always be read.
    fn can_go_on(&self, ready: &impl Fn(Ticket) -> bool) -> bool {
        !self.read || ready(self.ticket)
    }
}

/// Many texts of one model that are written together, each with settings of its own. Jobs wait in a queue until the KV
/// cache has room for them; every [`Batch::step`] gives each running text its next token. What a text says does not depend on
/// its company.
///
/// ```
/// use std::time::Duration;
/// use tern::{Batch, Bounds, Job, Model, Options, Output, Sampling, Specials};
///
/// # fn main() -> tern::Result<()> {
/// let model = Model::story(&Options::default())?;
/// let tokenizer = model.tokenizer()?;
/// let bounds = Bounds { parallel: 8, context: 64, pages: 8, pause: Duration::from_millis(50) };
/// let mut batch = Batch::new(&model, bounds)?;
/// for text in ["Once upon a time", "The cat"] {
///     let prompt = tokenizer.encode(text, tokenizer.adds_bos(), Specials::Text)?;
///     batch.add(&model, Job::new(prompt, Sampling::greedy(), 5))?;
/// }
/// let mut tokens = 0;
/// while !batch.is_idle() {
///     for (_ticket, output) in batch.step(&model, |_| true) {
///         tokens += usize::from(matches!(output, Output::Token(_)));
///     }
/// }
/// assert_eq!(tokens, 2 * 5);
/// # Ok(())
/// # }
/// ```
pub struct Batch {
    bounds: Bounds,
    waiting: VecDeque<Text>,
    /// In the order in which they came; `sequences` are theirs.
    running: Vec<Text>,
    sequences: Vec<Sequence>,
    scratch: Scratch,
    prefixes: Prefixes,
    count: ChunkCount,
    tickets: u64,
    preempted: u64,
    set_aside: u64,
    /// Rows that the jobs of each owner took, those who have none now left out.
    shares: Shares,
    /// Seconds for a row of a prompt, as lately measured.
    row_seconds: f64,
    /// Rows of the last step.
    rows: usize,
}

impl Batch {
    /// Makes an empty batch for texts of this model.
    pub fn new(model: &Model, bounds: Bounds) -> Result<Self> {
        let most = model.config().context;
        if bounds.context < 2 || bounds.context > most {
            let what = format!("context {}: expected 2 to {most}, the model's own", bounds.context);
            return Err(Error::Input(what));
        }
        let needed = bounds.context.div_ceil(Cache::CHUNK);
        if bounds.parallel == 0 || bounds.pages < needed {
            return Err(Error::Input(format!(
                "{} pages of keys and values: a context of {} takes {needed}, of {} bytes each",
                bounds.pages,
                bounds.context,
                Self::page_bytes(model)
            )));
        }
        Ok(Self {
            bounds,
            waiting: VecDeque::new(),
            running: Vec::new(),
            sequences: Vec::new(),
            scratch: Scratch::default(),
            prefixes: Prefixes::default(),
            count: ChunkCount::default(),
            tickets: 0,
            preempted: 0,
            set_aside: 0,
            shares: Shares::default(),
            row_seconds: 0.0,
            rows: 0,
        })
    }

    /// Returns the bytes of a page: keys and values of [`Batch::PAGE`] tokens.
    pub fn page_bytes(model: &Model) -> usize {
        model.config().kv_bytes(model.kv()) * Cache::CHUNK
    }

    /// How many tokens a page holds.
    pub const PAGE: usize = Cache::CHUNK;

    /// Puts a job at the end of the queue; the ticket names it in what [`Batch::step`] gives.
    pub fn add(&mut self, model: &Model, mut job: Job) -> Result<Ticket> {
        let (prompt, context, vocab) = (job.prompt.len(), self.bounds.context, model.config().vocab);
        if prompt == 0 {
            return Err(Error::Input("the prompt is empty: expected at least one token".to_owned()));
        }
        if prompt + usize::from(job.most > 0) > context {
            return Err(Error::Input(format!("the prompt has {prompt} tokens, the context {context}")));
        }
        if let Some(id) = job.prompt.iter().find(|&&id| id as usize >= vocab) {
            return Err(Error::Input(format!("token {id} is not in the vocabulary of {vocab}")));
        }
        job.most = job.most.min(context - prompt);
        let wanted = match (job.logprobs, job.most) {
            (_, 0) => Logits::None,
            (None, _) => job.sampling.wanted(),
            _ => Logits::All,
        };
        let (sampler, tokens) = (Sampler::new(job.sampling.clone())?, job.prompt.clone());
        self.shares.enter(job.owner);
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.waiting.push_back(Text {
            ticket,
            job,
            tokens,
            sampler,
            wanted,
            allowed: Vec::new(),
            lost: None,
            cached: 0,
            scored: Vec::new(),
            read: false,
            alone: false,
            stalled: None,
        });
        Ok(ticket)
    }

    /// Ends a job and frees its memory; nothing more is told of it.
    pub fn cancel(&mut self, ticket: Ticket) {
        if let Some(at) = self.waiting.iter().position(|text| text.ticket == ticket) {
            let text = self.waiting.remove(at);
            text.iter().for_each(|text| self.shares.leave(text.job.owner));
        }
        if let Some(at) = self.running.iter().position(|text| text.ticket == ticket) {
            self.end(at);
        }
    }

    /// Tells whether no job runs or waits.
    pub fn is_idle(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty()
    }

    /// Returns how many tokens went through the model in the last step: none where no text was ready.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Tells how much it is doing.
    pub fn load(&self) -> Load {
        let pages_kept = self.prefixes.idle();
        Load {
            running: self.running.len(),
            waiting: self.waiting.len(),
            pages_used: self.count.get() - pages_kept,
            pages_kept,
            pages: self.bounds.pages,
            preempted: self.preempted,
            set_aside: self.set_aside,
        }
    }

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
        self.rows = pieces.iter().map(|piece| piece.len).sum();
        for piece in &pieces {
            let job = &self.running[piece.at].job;
            // All logits of a row, and the order of the likeliest, cost about as much again as its way there.
            let cost = if job.logprobs.is_some() || job.prompt_logprobs.is_some() { 2 } else { 1 };
            self.shares.spend(job.owner, piece.len as u64 * cost);
        }
        if pieces.is_empty() {
            return out;
        }
        let start = Instant::now();
        let rows: Vec<Row> = pieces.iter().flat_map(|&piece| self.rows_of(piece)).collect();
        self.ask_guides(model, &pieces);
        let allowed = self.allowed(model, &rows);
        let done = model.forward_allowed(&mut self.scratch, &mut self.sequences, &rows, &allowed);
        match done.map(<[f32]>::to_vec) {
            Ok(logits) => {
                self.measure(&pieces, start.elapsed());
                let mut logits = logits.chunks_exact(model.config().vocab);
                let mut asked =
                    rows.iter().map(|row| (row.logits != Logits::None).then(|| logits.next()).flatten());
                for piece in &pieces {
                    let logits: Vec<&[f32]> = asked.by_ref().take(piece.len).flatten().collect();
                    self.take(model, *piece, &logits, &mut out);
                }
            }
            // Somebody's numbers left the range: the others go on without them.
            Err(_) => self.step_each(model, &pieces, &mut out),
        }
        let ended: Vec<Ticket> = out
            .iter()
            .filter(|(_, output)| matches!(output, Output::Done(_)))
            .map(|(ticket, _)| *ticket)
            .collect();
        ended.into_iter().for_each(|ticket| self.cancel(ticket));
        out
    }

    /// Lets in who is next as long as there is room.
    fn admit(&mut self, model: &Model, ready: &impl Fn(Ticket) -> bool) {
        'next: while self.running.len() < self.bounds.parallel {
            for at in self.order(ready) {
                match self.room_for(at) {
                    Room::Soon => {}
                    Room::None => return,
                    Room::Now { found, pages } => {
                        let Some(mut text) = self.waiting.remove(at) else { return };
                        let mut sequence = Sequence::new(model, self.bounds.context).counted(&self.count);
                        sequence.adopt(&text.tokens[..found], pages);
                        if !text.read {
                            text.cached = found;
                            text.scored.clear();
                        }
                        self.running.push(text);
                        self.sequences.push(sequence);
                        continue 'next;
                    }
                }
            }
            return;
        }
    }

    /// Those that wait and could go on, in the order in which they come in: who ran before, then the owner who got least.
    fn order(&self, ready: &impl Fn(Ticket) -> bool) -> Vec<usize> {
        let mut order: Vec<usize> =
            (0..self.waiting.len()).filter(|&at| self.waiting[at].can_go_on(ready)).collect();
        order.sort_by_key(|&at| {
            let text = &self.waiting[at];
            (!text.read, self.shares.of(text.job.owner), text.ticket)
        });
        order
    }

    /// Takes the seats of those whose tokens nobody takes, as far as others wait for one. Their pages stay until somebody
    /// needs them.
    fn set_aside(&mut self, ready: &impl Fn(Ticket) -> bool) {
        let now = Instant::now();
        for text in &mut self.running {
            text.stalled = if text.can_go_on(ready) { None } else { text.stalled.or(Some(now)) };
        }
        for _ in 0..self.waiting.iter().filter(|text| text.can_go_on(ready)).count() {
            let long = |text: &Text| text.stalled.is_some_and(|since| now - since >= PATIENCE);
            let Some(at) = self.running.iter().position(long) else { return };
            let (text, sequence) = (self.running.remove(at), self.sequences.remove(at));
            self.prefixes.leave(text.job.realm, sequence.tokens(), sequence.chunks());
            self.set_aside += 1;
            self.waiting.push_back(Text { stalled: None, ..text });
        }
    }

    /// Whether the text that waits there can come in. Whoever would read what another is just reading waits for it.
    fn room_for(&mut self, at: usize) -> Room {
        let text = &self.waiting[at];
        let known = text.tokens.len() - 1;
        let (mut found, mut pages) = (0, Vec::new());
        if text.job.prompt_logprobs.is_none() && !text.alone {
            (found, pages) = self.prefixes.find(text.job.realm, &text.tokens[..known]);
            for (other, sequence) in self.running.iter().zip(&self.sequences) {
                if other.job.realm == text.job.realm {
                    let shared = common(&other.tokens, &text.tokens[..known]);
                    let there = shared.min(sequence.tokens().len());
                    if there > found {
                        found = there;
                        pages = sequence.chunks()[..there.div_ceil(Cache::CHUNK)].to_vec();
                    }
                }
            }
            /// Tokens that are worth waiting for.
            const WORTH: usize = 16;
            let soon = self.running.iter().zip(&self.sequences).any(|(other, sequence)| {
                other.job.realm == text.job.realm
                    && !other.read
                    && common(&other.job.prompt, &text.tokens[..known])
                        .min(other.job.prompt.len())
                        .saturating_sub(sequence.tokens().len().max(found))
                        >= WORTH
            });
            if soon {
                return Room::Soon;
            }
        }
        if self.has_room(self.waiting[at].tokens.len() + 1, found) {
            Room::Now { found, pages }
        } else {
            Room::None
        }
    }

    /// Whether `tokens` fit beside what the running sequences are about to need, where the pages of the first `found`
    /// are there; kept pages give way.
    fn has_room(&mut self, tokens: usize, found: usize) -> bool {
        let pending = |(text, sequence): (&Text, &Sequence)| {
            sequence.missing((text.tokens.len() + 1).min(sequence.context()) - sequence.tokens().len())
        };
        let promised: usize = self.running.iter().zip(&self.sequences).map(pending).sum();
        let needed = tokens.min(self.bounds.context).div_ceil(Cache::CHUNK) - found / Cache::CHUNK;
        loop {
            if self.count.get() + promised + needed <= self.bounds.pages {
                return true;
            }
            if !self.prefixes.evict() {
                // Alone, it gets what it needs in `make_room`.
                return self.running.is_empty();
            }
        }
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

    /// Frees pages until these pieces fit; `false` if a sequence had to go, so that the pieces must be cut anew.
    fn make_room(&mut self, pieces: &[Piece]) -> bool {
        let missing = pieces.iter().map(|piece| self.sequences[piece.at].missing(piece.len)).sum::<usize>();
        while self.count.get() + missing > self.bounds.pages {
            if self.prefixes.evict() {
                continue;
            }
            // Whose tokens nobody takes, then the youngest.
            let last = |at: &usize| (self.running[*at].stalled.is_some(), self.running[*at].ticket);
            let Some(youngest) = (0..self.running.len()).max_by_key(last) else { return true };
            // The last one left shares pages with the kept texts, and a copy is one page too many: without them it fits.
            self.preempted += 1;
            let last = self.running.len() == 1;
            let (mut text, mut sequence) = (self.running.remove(youngest), self.sequences.remove(youngest));
            text.alone = last;
            if !last {
                self.prefixes.leave(text.job.realm, sequence.tokens(), sequence.chunks());
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
        text.tokens[from..from + piece.len].iter().zip(from + 1..).map(move |(&token, end)| {
            let logits = if end == text.tokens.len() {
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

    /// The tokens allowed after each row that asks for logits; nothing where nobody has a guide.
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
    fn step_each(&mut self, model: &Model, pieces: &[Piece], out: &mut Vec<(Ticket, Output)>) {
        for piece in pieces {
            let rows: Vec<Row> = self.rows_of(*piece).collect();
            let allowed = self.allowed(model, &rows);
            let done = model.forward_allowed(&mut self.scratch, &mut self.sequences, &rows, &allowed);
            match done.map(<[f32]>::to_vec) {
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
        let fed = self.sequences[piece.at].tokens().len();
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
        if let Some(last) = logits.last().filter(|_| text.job.most > 0) {
            out.extend(next(model, text, last).into_iter().map(|output| (ticket, output)));
        } else {
            out.push((ticket, Output::Done(Finish::Length)));
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

    /// Takes a sequence out and keeps its pages for whoever begins alike.
    fn end(&mut self, at: usize) {
        let (text, sequence) = (self.running.remove(at), self.sequences.remove(at));
        self.shares.leave(text.job.owner);
        self.prefixes.leave(text.job.realm, sequence.tokens(), sequence.chunks());
    }
}

/// Whether one that waits can come in.
enum Room {
    /// Yes; so many of its tokens lie in these pages.
    Now {
        found: usize,
        pages: Vec<Chunk>,
    },
    /// What it would read is just being read.
    Soon,
    None,
}

/// Tokens of one running text that go through the model in a step.
#[derive(Clone, Copy)]
struct Piece {
    at: usize,
    len: usize,
}

fn score(logits: &[f32], id: u32, top: Option<usize>) -> Scored {
    let Some(top) = top else { return Scored { id, logprob: None, top: Vec::new() } };
    let all = LogProbabilities::new(logits);
    Scored { id, logprob: Some(all.of(id)), top: all.top(top) }
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
    text.tokens.push(id);
    let mut outputs = vec![Output::Token(scored)];
    if text.said() >= text.job.most {
        outputs.push(Output::Done(Finish::Length));
    }
    outputs
}
