//! Many sequences stepped together through the one forward pass, in pages of memory that are bounded and shared.
//!
//! A step takes one token of every sequence that is being written and, beside them, a piece of the prompts that are
//! being read: small enough that the next tokens of the others are not held up long. No row's arithmetic depends on its company, so
//! a sequence is the same text alone or with others, after a shared beginning was found, and when it had to give its
//! pages up in between and was read again.

mod admission;
mod prefixes;
mod shares;
mod step;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tern_kernels::{Cache, ChunkCount};

use self::prefixes::{Prefixes, Realm};
use self::shares::Shares;
use crate::adapter::Adapter;
use crate::clock::Instant;
use crate::draft::{Costs, DraftModel, Drafted, Drafter, Drafts};
use crate::error::{Error, Result};
use crate::forward::Scratch;
use crate::head::Logits;
use crate::model::Model;
use crate::sampler::{Sampler, Sampling};
use crate::sequence::Sequence;

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
    /// Report every token's log-probability and those of so many of the likeliest.
    pub logprobs: Option<usize>,
    /// The same for the tokens of the prompt.
    pub prompt_logprobs: Option<usize>,
    /// Go on after a stop token as if it were any other.
    pub ignore_stops: bool,
    /// The grammar that the answer must follow.
    pub guide: Option<Box<dyn Guide>>,
    /// The prefix cache's salt: only jobs with the same one share cached prefixes.
    pub salt: u64,
    /// What takes part beside the model; texts with different adapters share no cached prefixes.
    pub adapter: Option<Arc<Adapter>>,
    /// The owner, for fair scheduling: where jobs wait, the next is one of the owner who got least of late.
    pub owner: u64,
}

impl Job {
    /// Makes a job with no log-probabilities, no grammar, no adapter, and its prefix shared with everybody.
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
            salt: 0,
            adapter: None,
            owner: 0,
        }
    }
}

impl Job {
    /// Whose cached prefixes it may share.
    fn realm(&self) -> Realm {
        Realm { salt: self.salt, adapter: self.adapter.as_ref().map_or(0, |adapter| adapter.id()) }
    }
}

/// A grammar that a text must follow, token by token.
pub trait Guide: Send {
    /// Sets the bits of the tokens that may come next, see [`Allowed`](crate::Allowed); none may when the text is complete.
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
    /// So many of the next tokens were guessed, and those of them that are accepted follow with the token after them.
    Drafted(Drafted),
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
    /// Pages of the prefix cache; they are evicted when running sequences need them.
    pub pages_kept: usize,
    /// Pages in all.
    pub pages: usize,
    /// Preemptions: a sequence freed its pages and was prefilled again later.
    pub preempted: u64,
    /// Sequences that gave their slot up because their reader stood still and others waited.
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
    drafter: Drafter,
    /// Tokens of the guess that go through the model in this step.
    draft: usize,
    cached: usize,
    scored: Vec<Scored>,
    /// Whether its prompt was read and said to be.
    read: bool,
    /// Nothing may be shared: it would need a page more than there are.
    alone: bool,
    /// Since when it runs and is not ready for another token.
    stalled: Option<Instant>,
    /// Whether it lost its seat because nobody took its tokens.
    aside: bool,
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
    drafts: Drafts,
    draft_model: Option<DraftModel>,
    /// Of steps that read no prompts.
    costs: Costs,
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
            count: ChunkCount::keeping(bounds.pages),
            tickets: 0,
            preempted: 0,
            set_aside: 0,
            shares: Shares::default(),
            row_seconds: 0.0,
            drafts: Drafts::default(),
            draft_model: None,
            costs: Costs::default(),
            rows: 0,
        })
    }

    /// Says whether tokens are guessed ahead. No text depends on it, only the time it takes.
    pub fn with_drafts(mut self, drafts: Drafts) -> Self {
        self.drafts = drafts;
        self
    }

    /// Lets a smaller model guess where texts do not repeat themselves; it holds keys and values of the running texts beside those
    /// of the pages. An error where it does not have the model's vocabulary.
    pub fn with_draft_model(mut self, model: &Model, draft: Arc<Model>) -> Result<Self> {
        self.draft_model = Some(DraftModel::new(draft, model, self.bounds.context)?);
        Ok(self)
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
            drafter: Drafter::default(),
            draft: 0,
            cached: 0,
            scored: Vec::new(),
            read: false,
            alone: false,
            stalled: None,
            aside: false,
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

    /// Removes a sequence and keeps its pages in the prefix cache.
    fn end(&mut self, at: usize) {
        let (text, sequence) = (self.running.remove(at), self.sequences.remove(at));
        self.shares.leave(text.job.owner);
        self.prefixes.leave(text.job.realm(), sequence.tokens(), sequence.chunks());
    }
}
