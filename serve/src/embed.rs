//! Texts to vectors: what the dialects' requests have in common, and the thread that owns an embedding model.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::TryRecvError;
use std::time::Instant;

use tern::{Embedder, Model, Pooling};
use tokio::sync::oneshot;

use crate::app::{App, Caller};
use crate::error::Refusal;
use crate::limits::INPUTS;
use crate::metrics::Metrics;
use crate::models::Keep;
use crate::note::End;
use crate::ready::Ready;
use crate::wire::{Prompt, PromptItem};
use crate::worker::{Inbox, Message, Texts};

/// Tokens that the requests at hand take through the model together.
const TOGETHER: usize = 2048;

/// What a request asks for.
pub(crate) struct Asked {
    pub(crate) model: Option<String>,
    /// How long the model is to stay loaded afterwards.
    pub(crate) keep: Keep,
    /// The field that holds the texts, for messages.
    pub(crate) field: &'static str,
    pub(crate) input: Option<Prompt>,
    /// So many numbers of each vector.
    pub(crate) dimensions: Option<usize>,
    /// Whether a text that is too long is cut, and not refused.
    pub(crate) cut: bool,
}

/// Its vectors, in order, and the tokens of all texts.
pub(crate) struct Vectors {
    pub(crate) vectors: Vec<Vec<f32>>,
    pub(crate) tokens: usize,
    /// The name of the model that made them.
    pub(crate) model: String,
}

/// The texts of a request as token ids.
fn tokens(ready: &Ready, asked: Asked) -> Result<Vec<Vec<u32>>, Refusal> {
    let (model, field) = (&ready.model, asked.field);
    let (vocab, context) = (model.config().vocab, ready.context);
    let wrong = |what: String| Refusal::field(field, what);
    let ids = |ids: Vec<u32>| match ids.iter().find(|id| **id as usize >= vocab) {
        Some(id) => Err(wrong(format!("token {id} is not in the vocabulary of {vocab}"))),
        None => Ok(ids),
    };
    let encode = |text: String| Ok::<_, Refusal>(Embedder::ids(model, &text, asked.cut.then_some(context))?);
    let item = |item: PromptItem| match item {
        PromptItem::Text(text) => encode(text),
        PromptItem::Object(object) => encode(object.prompt_string),
        _ => Err(wrong("expected texts, or token ids, and not both in one list".to_owned())),
    };
    let all: Vec<Result<Vec<u32>, Refusal>> = match asked.input {
        None => return Err(wrong("expected a text or a list of texts, found none".to_owned())),
        Some(Prompt::Text(text)) => vec![encode(text)],
        Some(Prompt::Ids(list)) => vec![ids(list)],
        Some(Prompt::Object(object)) => vec![encode(object.prompt_string)],
        Some(Prompt::Texts(list)) if list.len() <= INPUTS => list.into_iter().map(encode).collect(),
        Some(Prompt::Lists(list)) if list.len() <= INPUTS => list.into_iter().map(ids).collect(),
        Some(Prompt::Mixed(list)) if list.len() <= INPUTS => list.into_iter().map(item).collect(),
        Some(_) => return Err(wrong(format!("expected at most {INPUTS} texts"))),
    };
    let all = all.into_iter().collect::<Result<Vec<_>, _>>()?;
    if all.is_empty() {
        return Err(wrong("expected a text or a list of texts, found an empty list".to_owned()));
    }
    for ids in &all {
        match ids.len() {
            0 => return Err(wrong("a text without a token has no vector".to_owned())),
            len if len > context => return Err(Refusal::prompt_too_long(len, context)),
            _ => {}
        }
    }
    Ok(all)
}

/// Whether this server's model makes vectors.
pub(crate) fn embeds(ready: &Ready) -> Result<(), Refusal> {
    match ready.model.config().pooling {
        Some(_) => Ok(()),
        None => Err(Refusal::not_supported("this model writes text; it makes no vectors")),
    }
}

impl App {
    /// Makes the vectors of a request.
    pub(crate) async fn vectors(self: &Arc<Self>, asked: Asked, caller: &Caller) -> Result<Vectors, Refusal> {
        let received = Instant::now();
        let place = self.room(caller)?;
        let ready = self.model_for(asked.model.as_deref(), asked.keep).await?;
        embeds(&ready)?;
        caller.note.answered_by(&ready.served.name);
        let (note, dimensions) = (caller.note.clone(), asked.dimensions);
        let prepare = {
            let note = note.clone();
            move |ready: &Ready| {
                let dim = ready.model.config().dim;
                if dimensions.is_some_and(|wanted| wanted == 0 || wanted > dim) {
                    let what = format!("expected 1 to {dim}, those of the model");
                    return Err(Refusal::field("dimensions", what));
                }
                note.encodes()?;
                let texts = tokens(ready, asked)?;
                // As numbers, as values and written: some 40 bytes for each.
                let ids = texts.iter().map(Vec::len).sum::<usize>() * size_of::<u32>();
                note.holds(
                    ids + texts.len() * dimensions.unwrap_or(dim).max(1) * 40 + texts.len() * dim * 4,
                )?;
                Ok((texts, place))
            }
        };
        let (texts, place) = self.blocking(caller.owner, &ready, prepare).await?;
        let tokens = texts.iter().map(Vec::len).sum();
        note.asked(tokens);
        let (reply, vectors) = oneshot::channel();
        let deadline = received + self.options.request_time;
        let texts = Texts { texts, reply, note, deadline, _place: place };
        self.open()?;
        let sent = ready.worker.send(Message::Texts(texts));
        let gone = || Refusal::unavailable("the model has stopped");
        sent.map_err(|_| gone())?;
        let mut vectors = vectors.await.map_err(|_| gone())??;
        if let Some(dimensions) = dimensions {
            let short = vectors.into_iter().map(|vector| tern::embed::shortened(vector, dimensions));
            vectors = short.collect::<tern::Result<_>>()?;
        }
        Ok(Vectors { vectors, tokens, model: ready.served.name.clone() })
    }
}

/// A request on its way.
struct Live {
    work: Texts,
    vectors: Vec<Vec<f32>>,
}

/// Runs until the senders are gone: requests take turns, each with some of its texts in every pass.
pub(crate) fn run(
    model: &Model,
    pooling: Option<Pooling>,
    inbox: &Inbox,
    metrics: &Metrics,
) -> tern::Result<()> {
    let mut embedder = Embedder::new(model, pooling)?;
    let mut queue: VecDeque<Live> = VecDeque::new();
    let take = |queue: &mut VecDeque<Live>, message: Message| match message {
        Message::Texts(work) => queue.push_back(Live { vectors: Vec::with_capacity(work.texts.len()), work }),
        Message::Work(work) => work.refuse(Refusal::internal("an embedding model writes no text")),
        Message::Abort(refusal) => refuse_all(queue, &refusal),
    };
    loop {
        if queue.is_empty() {
            match inbox.work.recv() {
                Ok(message) => take(&mut queue, message),
                Err(_) => return Ok(()),
            }
        }
        loop {
            match inbox.work.try_recv() {
                Ok(message) => take(&mut queue, message),
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) if queue.is_empty() => return Ok(()),
                Err(TryRecvError::Disconnected) => break,
            }
        }
        drop_the_gone(&mut queue, metrics);
        let (texts, counts) = next(&queue);
        match catch_unwind(AssertUnwindSafe(|| embedder.embed(&texts, |_| {}))) {
            Ok(Ok(vectors)) => {
                metrics.prompt(texts.iter().map(Vec::len).sum(), 0);
                let mut vectors = vectors.into_iter();
                for (live, count) in queue.iter_mut().zip(counts) {
                    live.vectors.extend(vectors.by_ref().take(count));
                }
                tell(&mut queue, metrics);
            }
            Ok(Err(error)) => {
                if matches!(error, tern::Error::Changed(_)) {
                    refuse_all(&mut queue, &Refusal::model_changed());
                    return Err(error);
                }
                refuse_all(&mut queue, &error.into());
            }
            Err(_) => {
                metrics.panics.add(1);
                refuse_all(&mut queue, &Refusal::panicked());
                embedder = Embedder::new(model, pooling)?;
            }
        }
    }
}

fn refuse_all(queue: &mut VecDeque<Live>, refusal: &Refusal) {
    queue.drain(..).for_each(|live| live.work.refuse(refusal.clone()));
}

/// Ends requests whose clients have gone, and those that have waited too long.
fn drop_the_gone(queue: &mut VecDeque<Live>, metrics: &Metrics) {
    let now = Instant::now();
    for live in std::mem::take(queue) {
        if live.work.reply.is_closed() {
            metrics.cancelled.add(1);
            live.work.note.ended(End::Cancelled);
        } else if live.work.deadline <= now {
            metrics.timed_out.add(1);
            live.work.note.ended(End::Timeout);
            drop(live.work.reply.send(Err(Refusal::too_slow())));
        } else {
            queue.push_back(live);
        }
    }
}

/// The texts of the next pass, and how many of them belong to each request: everybody gets as many tokens.
fn next(queue: &VecDeque<Live>) -> (Vec<Vec<u32>>, Vec<usize>) {
    let share = (TOGETHER / queue.len().max(1)).max(1);
    let (mut texts, mut counts) = (Vec::new(), Vec::new());
    for live in queue {
        let (mut tokens, mut count) = (0, 0);
        for text in &live.work.texts[live.vectors.len()..] {
            if count > 0 && tokens + text.len() > share {
                break;
            }
            tokens += text.len();
            count += 1;
            texts.push(text.clone());
        }
        counts.push(count);
    }
    (texts, counts)
}

/// Gives those their vectors who have all of them.
fn tell(queue: &mut VecDeque<Live>, metrics: &Metrics) {
    for live in std::mem::take(queue) {
        if live.vectors.len() < live.work.texts.len() {
            queue.push_back(live);
            continue;
        }
        metrics.done.add(1);
        live.work.note.ended(End::Stop);
        drop(live.work.reply.send(Ok(live.vectors)));
    }
}
