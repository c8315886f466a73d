//! One text written by a model, shown piece by piece: what `run` does once and `chat` once a turn.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tern::{CHUNK, Decoder, Drafted, Generation, Stop};
use tern_eval::{Measure, Meter};

use crate::failure::{Failure, Outcome};
use crate::signal::Writing;

/// What was written and how long it took.
pub(crate) struct Answer {
    pub(crate) text: String,
    pub(crate) ids: Vec<u32>,
    /// Where the generation tells them.
    pub(crate) logprobs: Vec<f32>,
    pub(crate) end: End,
    /// The prompt's tokens.
    pub(crate) prompt: Pace,
    /// The tokens after the first; the first token of a text costs none, it comes out of the prompt.
    pub(crate) decode: Pace,
    /// What was guessed ahead.
    pub(crate) drafted: Drafted,
    /// What the steps of one token each took, or why that is not known; `None` if nobody asked.
    pub(crate) joules: Option<Result<f64, String>>,
}

/// Why a text ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The model said that it is done, with this token.
    Stop(u32),
    /// `-n` tokens are written.
    Length,
    /// The context is full.
    Context,
    /// Ctrl-C.
    Interrupted,
}

/// Tokens and the time they took.
#[derive(Clone, Copy, Default)]
pub(crate) struct Pace {
    pub(crate) tokens: usize,
    pub(crate) time: Duration,
}

impl Pace {
    pub(crate) fn per_second(self) -> f64 {
        if self.time.is_zero() { 0.0 } else { self.tokens as f64 / self.time.as_secs_f64() }
    }
}

/// Reads `prompt` and writes up to `limit` tokens; every piece of text goes to `show` at once. Without a decoder the
/// text is the ids themselves. The meter measures what the text takes, not the prompt.
pub(crate) fn write(
    generation: &mut Generation<'_>,
    meter: Option<&Meter>,
    mut decoder: Option<Decoder<'_>>,
    prompt: &[u32],
    limit: usize,
    mut show: impl FnMut(&str) -> Outcome,
) -> Outcome<Answer> {
    let writing = Writing::begin();
    let start = Instant::now();
    let mut answer = Answer {
        text: String::new(),
        ids: Vec::new(),
        logprobs: Vec::new(),
        end: End::Length,
        prompt: Pace::default(),
        decode: Pace::default(),
        drafted: Drafted::default(),
        joules: None,
    };
    // One chunk at a time, so that Ctrl-C is heard within a long prompt.
    for chunk in prompt.chunks(CHUNK) {
        if writing.stopped() {
            answer.end = End::Interrupted;
            return Ok(answer);
        }
        generation.prompt(chunk)?;
        answer.prompt = Pace { tokens: answer.prompt.tokens + chunk.len(), time: start.elapsed() };
    }

    let before = generation.drafted();
    let mut first = None;
    let mut measure = None;
    while answer.ids.len() < limit {
        if writing.stopped() {
            answer.end = End::Interrupted;
            break;
        }
        let next = generation.next()?;
        match first {
            None => {
                measure = meter.map(Meter::start);
                first = Some(Instant::now());
            }
            Some(first) => answer.decode = Pace { tokens: answer.decode.tokens + 1, time: first.elapsed() },
        }
        let Some(token) = next else {
            answer.end = match generation.stopped() {
                Some(Stop::Token(id)) => End::Stop(id),
                _ => End::Context,
            };
            break;
        };
        answer.ids.push(token.id);
        answer.logprobs.extend(token.logprob);
        let piece = match &mut decoder {
            Some(decoder) => decoder.push(token.id),
            None => Some(format!("{}{}", if answer.ids.len() > 1 { " " } else { "" }, token.id)),
        };
        if let Some(piece) = piece {
            show(&piece)?;
            answer.text.push_str(&piece);
        }
    }
    answer.drafted = generation.drafted().since(before);
    answer.joules = measure.map(|measure| measure.and_then(Measure::joules));
    if let Some(decoder) = decoder {
        let rest = decoder.finish();
        show(&rest)?;
        answer.text.push_str(&rest);
    }
    Ok(answer)
}

impl Answer {
    /// For each step of one token; `None` if nobody asked.
    pub(crate) fn joules_per_token(&self) -> Option<Result<f64, String>> {
        match (self.joules.clone()?, self.decode.tokens) {
            (Ok(_), 0) => Some(Err("the text has no second token".to_owned())),
            (joules, tokens) => Some(joules.map(|joules| joules / tokens as f64)),
        }
    }

    /// If there is nothing to read: why, and what to try.
    pub(crate) fn nothing(&self, context: usize, most: usize) -> Option<Failure> {
        if !self.text.trim().is_empty() {
            return None;
        }
        let failure = |what: &str| Failure::failed(format!("the answer is empty: {what}"));
        Some(match self.end {
            End::Interrupted => return None,
            End::Stop(_) => failure("the model ended the text without a word")
                .hint("try again, with another --seed or a higher --temp, or say more in the prompt"),
            End::Length => failure("the model wrote no letters in -n tokens").hint("give it a larger -n"),
            End::Context if context < most => {
                failure("the prompt fills the context").hint(format!("this model goes up to `-c {most}`"))
            }
            End::Context => failure("the prompt fills the context").hint("give it a shorter one"),
        })
    }

    /// One line for people.
    pub(crate) fn summary(&self) -> String {
        let mut line = format!(
            "{}, {:.1} tokens/s; prompt {}, {:.1} tokens/s",
            tokens(self.ids.len()),
            self.decode.per_second(),
            tokens(self.prompt.tokens),
            self.prompt.per_second(),
        );
        if let Some(Ok(joules)) = self.joules_per_token() {
            line.push_str(&format!("; {joules:.3} J/token"));
        }
        if self.drafted.tokens > 0 {
            line.push_str(&format!("; guessed {}, {} right", self.drafted.tokens, self.drafted.accepted));
        }
        line.push_str(match self.end {
            End::Stop(_) => "",
            End::Length => "; ended by -n",
            End::Context => "; ended by the full context",
            End::Interrupted => "; ended by Ctrl-C",
        });
        line
    }

    /// `stop` or `length` or ..., for programs.
    pub(crate) fn end_name(&self) -> &'static str {
        match self.end {
            End::Stop(_) => "stop",
            End::Length => "length",
            End::Context => "context",
            End::Interrupted => "interrupted",
        }
    }
}

/// `1 token`, `2 tokens`.
pub(crate) fn tokens(n: usize) -> String {
    if n == 1 { "1 token".into() } else { format!("{n} tokens") }
}

/// Milliseconds with microseconds' digits, for programs.
pub(crate) fn ms(time: Duration) -> Value {
    json!((time.as_secs_f64() * 1e6).round() / 1e3)
}

/// A 32-bit float as the shortest decimal that reads back the same; infinities become null.
pub(crate) fn float(x: f32) -> Value {
    json!(x.to_string().parse::<f64>().ok().filter(|x| x.is_finite()))
}

/// How many positions a sequence gets: `asked`, or enough for `wanted`, within what the model was made for.
pub(crate) fn context(asked: Option<usize>, wanted: usize, most: usize) -> Outcome<usize> {
    match asked {
        Some(asked) if asked > most => Err(Failure::misused(format!(
            "--ctx-size: expected at most {most}, the context of this model, found {asked}"
        ))),
        Some(asked) => Ok(asked),
        None => Ok(wanted.min(most)),
    }
}
