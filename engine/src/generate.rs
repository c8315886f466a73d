//! One text, token by token.

use std::borrow::Cow;
use std::sync::Arc;

use crate::adapter::Adapter;
use crate::clock::Instant;
use crate::draft::{Ask, Costs, DraftModel, Drafted, Drafter, Drafts, lengths};
use crate::error::{Error, Result};
use crate::forward::{Row, Scratch};
use crate::head::Logits;
use crate::model::Model;
use crate::sampler::{Allowed, LogSum, Past, Sampler, Sampling};
use crate::sequence::Sequence;

/// Prefill batch size: how many tokens of a prompt go through the model together. It bounds the scratch memory and changes no
/// result.
pub const CHUNK: usize = 256;

/// A token that was chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// The natural logarithm of its probability, before any sampling setting, where it was asked for
    /// ([`Generation::with_logprobs`]).
    pub logprob: Option<f32>,
}

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// The model said so, with this token.
    Token(u32),
    /// The context is full.
    Context,
}

/// One text that a model continues, token by token. [`Generation::prompt`] prefills a prompt, then each call of
/// [`Generation::next`] decodes one token; a chat goes on with another prompt.
///
/// ```
/// use tern::{Generation, Model, Options, Sampling, Specials};
///
/// # fn main() -> tern::Result<()> {
/// let model = Model::story(&Options::default())?;
/// let tokenizer = model.tokenizer()?;
/// let prompt = tokenizer.encode("The little dog", tokenizer.adds_bos(), Specials::Text)?;
/// let mut generation = Generation::new(&model, 64, Sampling::greedy())?;
/// generation.prompt(&prompt)?;
/// let mut said = Vec::new();
/// while said.len() < 5 {
///     match generation.next()? {
///         Some(token) => said.push(token.id),
///         None => break, // `generation.stopped()` tells why
///     }
/// }
/// println!("{}", tokenizer.decode(&said, false));
/// assert_eq!(generation.tokens(), [prompt, said].concat());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Generation<'m> {
    model: &'m Model,
    /// Always one; the forward pass takes a slice.
    sequence: [Sequence; 1],
    scratch: Scratch,
    sampler: Sampler,
    /// The logits that the choice needs.
    wanted: Logits,
    logprobs: bool,
    /// Tokens of an answer that come before the model may stop.
    least: usize,
    /// The tokens that do not stop it; empty where it may stop at once.
    going_on: Vec<u32>,
    /// Whether the scratch holds the logits after the last token.
    has_logits: bool,
    drafts: Drafts,
    drafter: Drafter,
    draft_model: Option<DraftModel>,
    costs: Costs,
    drafted: Drafted,
    /// Tokens at the end of the sequence that are guesses: the text has not come there yet. The scratch holds the logits
    /// after the last token that is none, and those after each of them.
    ahead: usize,
    /// The token chosen last, which has not gone through the model yet.
    waiting: Option<u32>,
    /// What is written whatever the model would choose; most often nothing.
    dictated: Vec<u32>,
    /// Tokens chosen since the last prompt.
    said: usize,
    stopped: Option<Stop>,
}

impl<'m> Generation<'m> {
    /// Creates an empty generation of at most `context` tokens, prompt and answer together.
    pub fn new(model: &'m Model, context: usize, sampling: Sampling) -> Result<Self> {
        model.writes()?;
        let most = model.config().context;
        if context == 0 || context > most {
            return Err(Error::Input(format!("context {context}: expected 1 to {most}, the model's own")));
        }
        let wanted = sampling.wanted();
        Ok(Self {
            model,
            sequence: [Sequence::new(model, context)],
            scratch: Scratch::default(),
            sampler: Sampler::new(sampling)?,
            wanted,
            logprobs: false,
            least: 0,
            going_on: Vec::new(),
            has_logits: false,
            drafts: Drafts::default(),
            drafter: Drafter::default(),
            draft_model: None,
            costs: Costs::default(),
            drafted: Drafted::default(),
            ahead: 0,
            waiting: None,
            dictated: Vec::new(),
            said: 0,
            stopped: None,
        })
    }

    /// Says whether tokens are guessed ahead. No text depends on it, only the time it takes.
    pub fn with_drafts(mut self, drafts: Drafts) -> Self {
        self.drafts = drafts;
        self
    }

    /// Lets a smaller model guess where the text does not repeat itself. An error where it does not have the model's vocabulary.
    pub fn with_draft_model(mut self, draft: Arc<Model>) -> Result<Self> {
        self.draft_model = Some(DraftModel::new(draft, self.model, self.sequence[0].context())?);
        Ok(self)
    }

    /// Lets an adapter take part in the whole text; to be said before the first prompt.
    pub fn with_adapter(mut self, adapter: Arc<Adapter>) -> Self {
        self.sequence = self.sequence.map(|sequence| sequence.with_adapter(Some(adapter.clone())));
        self
    }

    /// Tells how many tokens were guessed so far, and how many of them were right.
    pub fn drafted(&self) -> Drafted {
        self.drafted
    }

    /// Makes every [`Token`] carry its log-probability. This takes all logits, where the choice alone may need a few.
    pub fn with_logprobs(mut self) -> Self {
        (self.wanted, self.logprobs) = (Logits::All, true);
        self
    }

    /// Writes at least so many tokens after every prompt: until then no stop token is chosen.
    pub fn with_least(mut self, tokens: usize) -> Self {
        let stops = self.model.tokenizer().map_or(&[][..], |tokenizer| tokenizer.stops());
        let vocab = self.model.config().vocab;
        self.going_on = vec![u32::MAX; vocab.div_ceil(32)];
        for &stop in stops.iter().filter(|stop| (**stop as usize) < vocab) {
            self.going_on[stop as usize / 32] &= !(1 << (stop % 32));
        }
        self.least = if stops.is_empty() { 0 } else { tokens };
        self
    }

    /// Writes this after each prompt, whatever the model would choose: a text that is known takes the steps and the time that it
    /// would take a model that says it. For measuring.
    pub fn with_answer(mut self, answer: Vec<u32>) -> Self {
        self.dictated = answer;
        self
    }

    /// Chooses by other settings from now on.
    pub fn set_sampling(&mut self, sampling: Sampling) -> Result<()> {
        let wanted = sampling.wanted();
        self.sampler = Sampler::new(sampling)?;
        if !self.logprobs {
            self.wanted = wanted;
        }
        Ok(())
    }

    /// The logits that the choice of a token needs after so many. Stop tokens may be among the likeliest and not allowed.
    fn wanted_after(&self, said: usize) -> Logits {
        match self.wanted {
            Logits::Top(k) if said < self.least => {
                Logits::Top(k + self.model.tokenizer().map_or(0, |tokenizer| tokenizer.stops().len()))
            }
            wanted => wanted,
        }
    }

    /// Appends tokens as they are: the prompt, or what is said next.
    pub fn prompt(&mut self, ids: &[u32]) -> Result<()> {
        self.said = 0;
        self.forget_guesses();
        self.read(ids)
    }

    /// Cuts off what was guessed and has not been said.
    fn forget_guesses(&mut self) {
        let known = self.known();
        self.sequence[0].truncate(known);
        self.has_logits &= std::mem::take(&mut self.ahead) == 0;
    }

    /// Tokens of the text that went through the model.
    fn known(&self) -> usize {
        self.sequence[0].tokens().len() - self.ahead
    }

    /// Takes the token that waits through the model, unless it was guessed and has been there.
    fn go_on(&mut self, waiting: u32) -> Result<()> {
        let known = self.known();
        if self.ahead > 0 && self.sequence[0].tokens()[known] == waiting {
            self.waiting = None;
            self.ahead -= 1;
            self.drafted.accepted += 1;
            return Ok(());
        }
        self.sequence[0].truncate(known);
        self.ahead = 0;
        let most = self.drafts.tokens.min(self.remaining());
        self.drafter.look(self.sequence[0].tokens(), waiting, most);
        if let Some(second) = &mut self.draft_model {
            let text: Vec<u32> = self.sequence[0].tokens().iter().copied().chain([waiting]).collect();
            let (said, sampler, logits) = (self.said, Cow::Borrowed(&self.sampler), self.wanted);
            let ask =
                Ask { key: 0, text: text.into(), said, sampler, logits, most, drafter: &mut self.drafter };
            second.guess(self.drafts, &self.costs, 1, vec![ask]);
        }
        let length = lengths(self.drafts, &self.costs, 1, &[&self.drafter])[0];
        let row =
            |(n, &token): (usize, &u32)| Row { sequence: 0, token, logits: self.wanted_after(self.said + n) };
        let rows: Vec<Row> =
            std::iter::once(&waiting).chain(&self.drafter.guess()[..length]).enumerate().map(row).collect();
        self.has_logits = false;
        let start = Instant::now();
        match self.model.forward(&mut self.scratch, &mut self.sequence, &rows) {
            Ok(_) => {
                self.costs.note(rows.len(), start.elapsed().as_secs_f64());
                self.ahead = length;
                self.drafted.tokens += length;
            }
            // A number may have left its range where the text never comes.
            Err(_) if length > 0 => {
                self.model.forward(&mut self.scratch, &mut self.sequence, &rows[..1])?;
            }
            Err(error) => return Err(error),
        }
        (self.waiting, self.has_logits) = (None, true);
        Ok(())
    }

    /// Takes what waits and these tokens through the model.
    fn read(&mut self, ids: &[u32]) -> Result<()> {
        let [sequence] = &self.sequence;
        let waiting = self.waiting.take();
        let tokens: Vec<u32> = waiting.into_iter().chain(ids.iter().copied()).collect();
        let (total, context) = (sequence.tokens().len() + tokens.len(), sequence.context());
        if total > context {
            self.waiting = waiting;
            return Err(Error::Input(format!("{total} tokens do not fit into a context of {context}")));
        }
        self.stopped = None;
        let wanted = self.wanted_after(self.said);
        let chunks = tokens.len().div_ceil(CHUNK);
        self.has_logits &= tokens.is_empty();
        for (index, chunk) in tokens.chunks(CHUNK).enumerate() {
            let last = index + 1 == chunks;
            let rows: Vec<Row> = (1..)
                .zip(chunk)
                .map(|(n, &token)| {
                    let read = last && n == chunk.len();
                    Row { sequence: 0, token, logits: if read { wanted } else { Logits::None } }
                })
                .collect();
            self.model.forward(&mut self.scratch, &mut self.sequence, &rows)?;
            self.has_logits = last;
        }
        Ok(())
    }

    /// Chooses the next token; `None` when the model stops (see [`Generation::stopped`]). The stop token itself becomes
    /// part of the text, so that a chat can go on after it.
    #[allow(clippy::should_implement_trait)] // it can fail, and a chat goes on after `None`
    pub fn next(&mut self) -> Result<Option<Token>> {
        if self.stopped.is_some() {
            return Ok(None);
        }
        if let Some(waiting) = self.waiting {
            self.go_on(waiting)?;
        }
        if !self.has_logits {
            return Err(Error::Input("there is no prompt to continue".to_owned()));
        }
        if self.remaining() == 0 {
            self.stopped = Some(Stop::Context);
            return Ok(None);
        }
        let past = Past { tokens: &self.sequence[0].tokens()[..self.known()], said: self.said };
        let allowed = (self.said < self.least).then_some(Allowed(&self.going_on));
        let vocab = self.model.config().vocab;
        let logits =
            self.scratch.logits().rchunks_exact(vocab).nth(self.ahead).expect("logits of each guess");
        let choice =
            self.sampler.pick(logits, past, allowed).expect("a vocabulary holds more than its stop tokens");
        let id = self.dictated.get(self.said).copied().unwrap_or(choice);
        self.drafter.came(id);
        self.waiting = Some(id);
        self.said += 1;
        if self.model.tokenizer().is_ok_and(|tokenizer| tokenizer.stops().contains(&id)) {
            self.stopped = Some(Stop::Token(id));
            return Ok(None);
        }
        let logprob = self.logprobs.then(|| LogSum::of(logits).logprob(logits[id as usize]) as f32);
        Ok(Some(Token { id, logprob }))
    }

    /// Tells why it ended, if it has.
    pub fn stopped(&self) -> Option<Stop> {
        self.stopped
    }

    /// Returns all tokens so far, prompt and answers.
    pub fn tokens(&self) -> Vec<u32> {
        self.sequence[0].tokens()[..self.known()].iter().copied().chain(self.waiting).collect()
    }

    /// Returns how many more tokens fit into the context.
    pub fn remaining(&self) -> usize {
        self.sequence[0].context() - self.known() - usize::from(self.waiting.is_some())
    }

    /// Forgets all after the first `len` tokens; a prompt must follow.
    pub fn truncate(&mut self, len: usize) {
        if len < self.known() + usize::from(self.waiting.is_some()) {
            (self.waiting, self.ahead) = (None, 0);
            self.stopped = None;
            self.has_logits = false;
            self.sequence[0].truncate(len);
        }
    }
}
