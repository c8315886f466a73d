//! From a request to jobs: every check that can be made before the model is asked.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use serde_json::Value;
use tern::{Dry, Job, Message, Sampling, Scored, Specials, Tokenizer};

use crate::asked::Asked;
use crate::error::Refusal;
use crate::error::short;
use crate::grammar::{Compiled, Grammar, Layout};
use crate::limits::{
    BIASES, BREAKER_BYTES, BREAKERS, CHOICES, EVENTS, MESSAGES, PROMPTS, STOP_BYTES, STOPS, TEXT,
    TOP_LOGPROBS,
};
use crate::parts::{Format, THINK, Thoughts};
use crate::ready::Ready;
use crate::tools::{Tools, call_text, response_text};
use crate::wire::{
    Bias, BiasKey, Biases, Logprobs, OneOrMany, Prompt, PromptAtom, PromptItem, PromptObject, Request,
};
use crate::worker::{Event, Wanted};

/// Which of the two kinds of text is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Chat,
    Completion,
}

/// A request that can go to the worker, and what its answer needs.
pub(crate) struct Prepared {
    pub(crate) jobs: Vec<Wanted>,
    pub(crate) shape: Shape,
}

impl Prepared {
    /// Bytes that it takes until its answers have ended, at most: prompts as tokens (the job's, the sequence's), their
    /// probabilities, and the events that may wait.
    pub(crate) fn bytes(&self) -> usize {
        let of = |Wanted { job, stops, .. }: &Wanted| {
            let scored = |top: Option<usize>| top.map_or(0, |top| SCORED + 8 * top);
            let ids = job.prompt.len() * (8 + scored(job.prompt_logprobs));
            let waiting = Event::PER_STEP * (128 + scored(job.logprobs));
            ids + waiting + stops.iter().map(String::len).sum::<usize>() + 1024
        };
        let echo: usize = self.shape.echo.iter().flatten().map(String::len).sum();
        let asked: usize = self.shape.asked.iter().flat_map(|asked| &asked.prompts).map(String::len).sum();
        self.jobs.iter().map(of).sum::<usize>() + EVENTS * 256 + echo + 2 * asked
    }
}

/// Bytes of a token and its probability.
const SCORED: usize = size_of::<Scored>();

/// How the answer is to look.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shape {
    pub(crate) choices: usize,
    /// Answers to each prompt.
    pub(crate) n: usize,
    /// Tokens of each prompt.
    pub(crate) prompt_tokens: Vec<usize>,
    pub(crate) logprobs: Option<usize>,
    /// The prompts' texts, where they are to be repeated.
    pub(crate) echo: Option<Vec<String>>,
    /// How the answer's text is split.
    pub(crate) format: Format,
    pub(crate) stream: bool,
    pub(crate) usage: bool,
    /// Times are told with every piece.
    pub(crate) timings: bool,
    /// It is told how far the prompt was read.
    pub(crate) progress: bool,
    /// What was asked for, where that is to be told.
    pub(crate) asked: Option<Arc<Asked>>,
}

/// The default for completions, as OpenAI has it.
const COMPLETION_TOKENS: usize = 16;

/// Checks a request and turns its texts into tokens. It may take a while: not for the threads that serve.
pub(crate) fn prepare(
    ready: &Ready,
    request: &Request,
    kind: Kind,
    salt: u64,
    grammar: Option<&Compiled>,
) -> Result<Prepared, Refusal> {
    let n = request.n.unwrap_or(1);
    if !(1..=CHOICES).contains(&n) {
        return Err(Refusal::field("n", format!("expected 1 to {CHOICES}, found {n}")));
    }
    if request.best_of.is_some_and(|best| best != n) {
        return Err(Refusal::field("best_of", "this server does not choose between answers: leave it out"));
    }
    if request.suffix.as_deref().is_some_and(|suffix| !suffix.is_empty()) {
        return Err(Refusal::field(
            "suffix",
            "this server's models write on, they do not fill in: leave it out",
        ));
    }
    let both = request.add_generation_prompt == Some(true) && request.continue_final_message == Some(true);
    if both {
        let what = "expected either this or `add_generation_prompt`, found both";
        return Err(Refusal::field("continue_final_message", what));
    }
    let tools = tools(request, kind)?;
    let stops = stops(request)?;
    let (logprobs, echo) = (logprobs(request, kind)?, kind == Kind::Completion && request.echo == Some(true));
    let (prompts, fresh) = match kind {
        Kind::Chat => (vec![(chat(ready, request, tools.as_ref())?, None)], true),
        Kind::Completion => (completion(ready, request)?, false),
    };
    let choices = prompts.len() * n;
    if choices > PROMPTS {
        return Err(Refusal::bad(format!(
            "expected at most {PROMPTS} answers to all prompts, found {choices}"
        )));
    }
    let most = most(request, kind)?;
    let sampling = sampling(ready, request)?;
    let context = ready.context;
    // A random salt shares the cache with no other request.
    let salt = if request.cache_prompt == Some(false) { new_seed() | 1 << 63 } else { salt };
    let progress = request.return_progress == Some(true);
    let mut jobs = Vec::new();
    for (ids, _) in &prompts {
        if ids.is_empty() {
            return Err(Refusal::field(field(kind), "expected at least one token"));
        }
        if ids.len() + usize::from(most != Some(0)) > context {
            return Err(Refusal::prompt_too_long(ids.len(), context));
        }
        let vocab = ready.model.config().vocab;
        if let Some(id) = ids.iter().find(|id| **id as usize >= vocab) {
            return Err(Refusal::field("prompt", format!("expected token ids below {vocab}, found {id}")));
        }
        for choice in 0..n as u64 {
            let guide = match grammar {
                None => None,
                Some(compiled) => Some(ready.grammars()?.follow(compiled)),
            };
            let sampling = Sampling { seed: sampling.seed.wrapping_add(choice), ..sampling.clone() };
            let job = Job {
                logprobs,
                prompt_logprobs: logprobs.filter(|_| echo),
                ignore_stops: request.ignore_eos == Some(true),
                guide,
                salt,
                ..Job::new(ids.clone(), sampling, most.unwrap_or(context))
            };
            jobs.push(Wanted { job, stops: stops.clone(), fresh, progress });
        }
    }
    let text = |(ids, text): &Read| match text {
        Some(text) => text.clone(),
        None => ready.model.tokenizer().map(|tokenizer| tokenizer.decode(ids, true)).unwrap_or_default(),
    };
    let thoughts = match (kind, prompts.first()) {
        (Kind::Chat, Some((ids, _))) => thoughts(ready, request, tools.as_ref(), grammar.is_some(), ids),
        _ => Thoughts::Text,
    };
    let asked = (request.verbose == Some(true)).then(|| {
        let tokenizer = ready.model.tokenizer();
        let text = |(ids, _): &Read| tokenizer.as_ref().map(|t| t.decode(ids, true)).unwrap_or_default();
        let ends = tokenizer.as_ref().map(|tokenizer| tokenizer.stops().to_vec()).unwrap_or_default();
        let ignored = if request.ignore_eos == Some(true) { ends } else { Vec::new() };
        Arc::new(Asked {
            prompts: prompts.iter().map(text).collect(),
            sampling,
            most,
            stops,
            ignored,
            context,
        })
    });
    let shape = Shape {
        choices,
        n,
        prompt_tokens: prompts.iter().map(|(ids, _)| ids.len()).collect(),
        logprobs,
        echo: echo.then(|| prompts.iter().map(text).collect()),
        format: Format { tools: tools.is_some(), thoughts },
        timings: request.timings_per_token == Some(true),
        progress,
        asked,
        stream: request.stream == Some(true),
        usage: request.stream_options.as_ref().is_some_and(|options| options.include_usage == Some(true)),
    };
    Ok(Prepared { jobs, shape })
}

/// Where the answer's thoughts will stand.
fn thoughts(
    ready: &Ready,
    request: &Request,
    tools: Option<&Tools>,
    guided: bool,
    prompt: &[u32],
) -> Thoughts {
    // Tools that may be called leave the rest of the answer free; any other grammar begins at once.
    let formed = request.response_format.as_ref().is_some_and(|format| !format.is_null());
    let free = !guided || tools.is_some_and(Tools::may) && !formed;
    if !free || request.reasoning_format.as_deref() == Some("none") {
        return Thoughts::Text;
    }
    /// Tokens of the longest mark.
    const LAST: usize = 16;
    let last = &prompt[prompt.len().saturating_sub(LAST)..];
    let text = ready.model.tokenizer().map(|tokenizer| tokenizer.decode(last, true)).unwrap_or_default();
    if text.trim_end().ends_with(THINK) { Thoughts::Open } else { Thoughts::Marked }
}

fn field(kind: Kind) -> &'static str {
    if kind == Kind::Chat { "messages" } else { "prompt" }
}

/// The ids of a conversation.
pub(crate) fn chat(ready: &Ready, request: &Request, tools: Option<&Tools>) -> Result<Vec<u32>, Refusal> {
    let (messages, continued) = conversation(request, tools, ready.keeps_system(), ready.template())?;
    let tokenizer = chatting(ready)?;
    let mut ids = tokenizer.encode_chat(&messages, continued)?;
    if !thinks(request) && !continued {
        match ready.template() {
            asks if asks.contains(ASKS) => {
                ids.extend(tokenizer.encode(NO_THOUGHTS, false, Specials::Parse)?)
            }
            thinks if thinks.contains(THINK) => {
                let what = "this model's template does not ask whether to think";
                return Err(Refusal::field("chat_template_kwargs.enable_thinking", what));
            }
            _ => {}
        }
    }
    Ok(ids)
}

/// The name by which templates ask whether the model is to think, and what they put before an answer without thoughts.
pub(crate) const ASKS: &str = "enable_thinking";
const NO_THOUGHTS: &str = "<think>\n\n</think>\n\n";

/// Whether the model may think before it answers.
fn thinks(request: &Request) -> bool {
    request.chat_template_kwargs.and_then(|words| words.enable_thinking) != Some(false)
}

/// The tokenizer of a model that knows conversations.
pub(crate) fn chatting(ready: &Ready) -> Result<&Tokenizer, Refusal> {
    let tokenizer = ready.model.tokenizer()?;
    match tokenizer.template() {
        Some(_) => Ok(tokenizer),
        None => Err(Refusal::bad("this model has no chat template: `/v1/completions` continues texts")),
    }
}

/// The messages as the template takes them, and whether the last one is to be continued.
pub(crate) fn conversation(
    request: &Request,
    tools: Option<&Tools>,
    keeps_system: bool,
    template: &str,
) -> Result<(Vec<Message>, bool), Refusal> {
    let list = request.messages.as_deref().unwrap_or_default();
    if list.is_empty() {
        return Err(Refusal::field("messages", "expected at least one message"));
    }
    if list.len() > MESSAGES {
        return Err(Refusal::field("messages", format!("expected at most {MESSAGES}, found {}", list.len())));
    }
    let mut messages: Vec<Message> = Vec::new();
    let mut after_tool = false;
    for (at, message) in list.iter().enumerate() {
        let place = format!("messages[{at}]");
        let mut content = match &message.content {
            None => String::new(),
            Some(content) => content.text().map_err(|kind| {
                let what = format!("expected text, found a part of type `{}`", short(kind));
                Refusal::field(format!("{place}.content"), what)
            })?,
        };
        if message.images.as_ref().is_some_and(|images| !images.is_empty()) {
            return Err(Refusal::field(format!("{place}.images"), "this server's models read text"));
        }
        let role = match message.role.as_str() {
            "system" | "developer" => "system",
            "user" => "user",
            "assistant" | "model" => "assistant",
            "tool" | "function" => "tool",
            other => {
                let what = format!("expected system, user, assistant or tool, found `{}`", short(other));
                return Err(Refusal::field(format!("{place}.role"), what));
            }
        };
        for call in message.tool_calls.as_deref().unwrap_or_default() {
            if !content.is_empty() {
                content.push('\n');
            }
            content.push_str(&call_text(&call.function.name, &call.function.arguments));
        }
        if role == "tool" {
            content = response_text(&content);
            if let Some(before) = messages.last_mut().filter(|_| after_tool) {
                before.content.push('\n');
                before.content.push_str(&content);
                continue;
            }
        }
        after_tool = role == "tool";
        messages.push(Message { role: if after_tool { "user" } else { role }.to_owned(), content });
    }
    if let Some(tools) = tools {
        let explained = tools.explained(template);
        let first = messages.first_mut().filter(|first| first.role == "system");
        match (keeps_system, first) {
            (true, Some(system)) => system.content = format!("{}\n\n{explained}", system.content),
            (true, None) => messages.insert(0, Message { role: "system".to_owned(), content: explained }),
            // Where the model would not see them, they stand before the first question.
            (false, _) => match messages.iter_mut().find(|message| message.role == "user") {
                Some(user) => user.content = format!("{explained}\n{}", user.content),
                None => messages.insert(0, Message { role: "user".to_owned(), content: explained }),
            },
        }
    }
    let last = messages.last().is_some_and(|last| last.role == "assistant");
    let continued =
        request.continue_final_message == Some(true) || request.add_generation_prompt == Some(false);
    if request.continue_final_message == Some(true) && !last {
        let what = "expected the last message to be the assistant's";
        return Err(Refusal::field("continue_final_message", what));
    }
    Ok((messages, last && continued))
}

/// A prompt's ids, and its text where it was a text.
type Read = (Vec<u32>, Option<String>);

fn completion(ready: &Ready, request: &Request) -> Result<Vec<Read>, Refusal> {
    let ids_of = |text: &str, first: bool| {
        if text.len() > TEXT {
            return Err(Refusal::too_large(format!("the prompt has more than {TEXT} bytes")));
        }
        let tokenizer = ready.model.tokenizer()?;
        Ok(tokenizer.encode(text, first && tokenizer.adds_bos(), Specials::Parse)?)
    };
    let encode = |text: &String| Ok::<_, Refusal>((ids_of(text, true)?, Some(text.clone())));
    let object = |object: &PromptObject| match &object.multimodal_data {
        Some(data) if data.as_array().is_none_or(|list| !list.is_empty()) && !data.is_null() => {
            Err(Refusal::field("prompt.multimodal_data", "this server's models read text"))
        }
        _ => encode(&object.prompt_string),
    };
    // Texts and ids in one sequence.
    let mixed = |atoms: &mut dyn Iterator<Item = &PromptAtom>| -> Result<Read, Refusal> {
        let mut all = Vec::new();
        for (at, atom) in atoms.enumerate() {
            match atom {
                PromptAtom::Id(id) => all.push(*id),
                PromptAtom::Text(text) => all.extend(ids_of(text, at == 0)?),
            }
        }
        Ok((all, None))
    };
    let prompts = match &request.prompt {
        None => return Err(Refusal::field("prompt", "expected a prompt, found none")),
        Some(Prompt::Text(text)) => vec![encode(text)?],
        Some(Prompt::Ids(ids)) => vec![(ids.clone(), None)],
        Some(Prompt::Texts(texts)) if texts.len() <= PROMPTS => {
            texts.iter().map(encode).collect::<Result<_, _>>()?
        }
        Some(Prompt::Lists(lists)) if lists.len() <= PROMPTS => {
            lists.iter().map(|ids| (ids.clone(), None)).collect()
        }
        Some(Prompt::Object(one)) => vec![object(one)?],
        // With an id among them they are one prompt.
        Some(Prompt::Mixed(items)) if items.iter().any(|item| matches!(item, PromptItem::Id(_))) => {
            let atom = |item: &PromptItem| match item {
                PromptItem::Id(id) => Ok(PromptAtom::Id(*id)),
                PromptItem::Text(text) => Ok(PromptAtom::Text(text.clone())),
                _ => Err(Refusal::field(
                    "prompt",
                    "expected texts and token ids in one list, found a list in it",
                )),
            };
            let atoms: Vec<PromptAtom> = items.iter().map(atom).collect::<Result<_, _>>()?;
            vec![mixed(&mut atoms.iter())?]
        }
        Some(Prompt::Mixed(items)) if items.len() <= PROMPTS => {
            let one = |item: &PromptItem| match item {
                PromptItem::Id(id) => Ok((vec![*id], None)),
                PromptItem::Text(text) => encode(text),
                PromptItem::List(atoms) => mixed(&mut atoms.iter()),
                PromptItem::Object(one) => object(one),
            };
            items.iter().map(one).collect::<Result<_, _>>()?
        }
        Some(_) => return Err(Refusal::field("prompt", format!("expected at most {PROMPTS} prompts"))),
    };
    Ok(prompts)
}

fn most(request: &Request, kind: Kind) -> Result<Option<usize>, Refusal> {
    let asked = [
        ("max_completion_tokens", request.max_completion_tokens),
        ("max_tokens", request.max_tokens),
        ("n_predict", request.n_predict),
    ];
    let Some((name, asked)) = asked.into_iter().find_map(|(name, value)| Some((name, value?))) else {
        return Ok(if kind == Kind::Completion { Some(COMPLETION_TOKENS) } else { None });
    };
    match (asked, kind) {
        (-1, _) => Ok(None),
        (1.., _) | (0, Kind::Completion) => Ok(Some(usize::try_from(asked).unwrap_or(usize::MAX))),
        _ => Err(Refusal::field(name, format!("expected at least 1, found {asked}"))),
    }
}

fn stops(request: &Request) -> Result<Vec<String>, Refusal> {
    let mut stops = match &request.stop {
        None => Vec::new(),
        Some(OneOrMany::One(stop)) => vec![stop.clone()],
        Some(OneOrMany::Many(stops)) => stops.clone(),
    };
    if stops.len() > STOPS {
        return Err(Refusal::field("stop", format!("expected at most {STOPS}, found {}", stops.len())));
    }
    if stops.iter().any(|stop| stop.len() > STOP_BYTES) {
        return Err(Refusal::field("stop", format!("expected at most {STOP_BYTES} bytes each")));
    }
    // Some clients send an empty one for none.
    stops.retain(|stop| !stop.is_empty());
    Ok(stops)
}

fn logprobs(request: &Request, kind: Kind) -> Result<Option<usize>, Refusal> {
    let top = request.top_logprobs.unwrap_or(0);
    let (name, count) = match (kind, request.logprobs) {
        (Kind::Chat, Some(Logprobs::Flag(true))) => ("top_logprobs", Some(top)),
        (Kind::Chat, _) if top > 0 => {
            return Err(Refusal::field("top_logprobs", "`logprobs` must be true for it"));
        }
        (Kind::Completion, Some(Logprobs::Count(count))) => ("logprobs", Some(count)),
        (Kind::Completion, Some(Logprobs::Flag(true))) => ("logprobs", Some(top)),
        (Kind::Chat, Some(Logprobs::Count(count))) if count > 0 => {
            return Err(Refusal::field(
                "logprobs",
                "expected true or false; `top_logprobs` takes the number",
            ));
        }
        _ => ("logprobs", None),
    };
    match count {
        Some(count) if count > TOP_LOGPROBS => {
            Err(Refusal::field(name, format!("expected at most {TOP_LOGPROBS}, found {count}")))
        }
        count => Ok(count),
    }
}

fn sampling(ready: &Ready, request: &Request) -> Result<Sampling, Refusal> {
    let usual = &ready.sampling;
    let top_k = match request.top_k {
        None => usual.top_k,
        Some(-1) => 0,
        Some(k) => usize::try_from(k)
            .map_err(|_| Refusal::field("top_k", format!("expected at least 0, found {k}")))?,
    };
    let logit_bias = match &request.logit_bias {
        None => usual.logit_bias.clone(),
        Some(biases) => logit_bias(ready, biases)?,
    };
    let sampling = Sampling {
        temperature: request.temperature.unwrap_or(usual.temperature),
        top_k,
        typical: request.typical_p.unwrap_or(usual.typical),
        // Nothing reaches a share of 0 but the likeliest token.
        top_p: request.top_p.map_or(usual.top_p, |p| if p == 0.0 { f32::MIN_POSITIVE } else { p }),
        min_p: request.min_p.unwrap_or(usual.min_p),
        repeat_penalty: request.repetition_penalty.or(request.repeat_penalty).unwrap_or(usual.repeat_penalty),
        presence_penalty: request.presence_penalty.unwrap_or(usual.presence_penalty),
        frequency_penalty: request.frequency_penalty.unwrap_or(usual.frequency_penalty),
        dry: dry(ready, request)?,
        logit_bias,
        seed: request
            .seed
            .filter(|seed| *seed != -1)
            .map(i64::cast_unsigned)
            .or(ready.seed)
            .unwrap_or_else(new_seed),
    };
    sampling.check()?;
    Ok(sampling)
}

/// Tokens and what is added to their logits, in order.
fn logit_bias(ready: &Ready, biases: &Biases) -> Result<Vec<(u32, f32)>, Refusal> {
    let vocab = ready.model.config().vocab;
    let mut list = Vec::new();
    let mut add = |id: Option<u32>, text: Option<&str>, bias: f32| {
        if !(-100.0..=100.0).contains(&bias) {
            return Err(Refusal::field("logit_bias", format!("expected -100 to 100, found {bias}")));
        }
        let ids = match (id, text) {
            (Some(id), _) => vec![id],
            (None, Some(text)) if text.len() <= STOP_BYTES => {
                ready.model.tokenizer()?.encode(text, false, Specials::Text)?
            }
            _ => {
                return Err(Refusal::field(
                    "logit_bias",
                    format!("expected at most {STOP_BYTES} bytes of text"),
                ));
            }
        };
        if let Some(id) = ids.iter().find(|id| **id as usize >= vocab) {
            return Err(Refusal::field(
                "logit_bias",
                format!("expected token ids below {vocab}, found `{id}`"),
            ));
        }
        list.extend(ids.into_iter().map(|id| (id, bias)));
        if list.len() > BIASES {
            return Err(Refusal::field("logit_bias", format!("expected at most {BIASES} tokens")));
        }
        Ok(())
    };
    match biases {
        // A number that is no token's id is not meant as a text.
        Biases::Map(map) => map.iter().try_for_each(|(key, bias)| match key.parse::<f64>() {
            Ok(_) => add(Some(key.parse().unwrap_or(u32::MAX)), None, *bias),
            Err(_) => add(None, Some(key), *bias),
        })?,
        Biases::List(list) => list.iter().try_for_each(|(key, bias)| {
            let bias = match bias {
                Bias::Number(bias) => *bias,
                Bias::Flag(false) => -100.0,
                Bias::Flag(true) => {
                    return Err(Refusal::field(
                        "logit_bias",
                        "expected numbers, or false for never, found true",
                    ));
                }
            };
            match key {
                BiasKey::Id(id) => add(Some(*id), None, bias),
                BiasKey::Text(text) => add(None, Some(text), bias),
            }
        })?,
    }
    list.sort_unstable_by_key(|(id, _)| *id);
    // A token that several texts share gets one of their biases.
    list.dedup_by_key(|(id, _)| *id);
    Ok(list)
}

fn dry(ready: &Ready, request: &Request) -> Result<Dry, Refusal> {
    let usual = &ready.sampling.dry;
    let multiplier = request.dry_multiplier.unwrap_or(usual.multiplier);
    let range = match request.dry_penalty_last_n {
        None => usual.range,
        Some(-1) => usize::MAX,
        Some(n) => usize::try_from(n)
            .map_err(|_| Refusal::field("dry_penalty_last_n", format!("expected at least -1, found {n}")))?,
    };
    let breakers = match &request.dry_sequence_breakers {
        Some(texts) if texts.len() > BREAKERS || texts.iter().any(|text| text.len() > BREAKER_BYTES) => {
            let what = format!("expected at most {BREAKERS} texts of {BREAKER_BYTES} bytes");
            return Err(Refusal::field("dry_sequence_breakers", what));
        }
        Some(texts) if multiplier != 0.0 && ready.model.tokenizer().is_ok() => {
            Dry::breakers(ready.model.tokenizer()?, texts)
        }
        _ => usual.breakers.clone(),
    };
    Ok(Dry {
        multiplier,
        base: request.dry_base.unwrap_or(usual.base),
        allowed: request.dry_allowed_length.unwrap_or(usual.allowed),
        range,
        breakers,
    })
}

/// A random seed.
fn new_seed() -> u64 {
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

fn tools(request: &Request, kind: Kind) -> Result<Option<Tools>, Refusal> {
    match kind {
        Kind::Chat => Tools::of(request),
        Kind::Completion => Ok(None),
    }
}

/// Whether a request may have a grammar.
pub(crate) fn has_grammar(request: &Request) -> bool {
    let Request { response_format, json_schema, grammar, regex, tools, .. } = request;
    response_format.is_some()
        || json_schema.is_some()
        || grammar.is_some()
        || regex.is_some()
        || tools.is_some()
}

/// What a request's answers must be texts of.
pub(crate) fn grammar(request: &Request, kind: Kind) -> Result<Option<Grammar>, Refusal> {
    let tools = tools(request, kind)?;
    let mut asked = Vec::new();
    if let Some(format) = request.response_format.as_ref().filter(|format| !format.is_null()) {
        // As at OpenAI: what cannot be kept of a schema is refused where it is to be kept strictly.
        let strict = format["json_schema"]["strict"] == true || format["strict"] == true;
        let layout = if strict { Layout::Strict } else { Layout::Lenient };
        let schema = |at: &Value| match at {
            Value::Null => None,
            schema => Some(Grammar::Schema(schema.clone(), layout)),
        };
        let wrong = |what: &str| Err(Refusal::field("response_format", what));
        match format["type"].as_str() {
            Some("text") => {}
            Some("json_object") => asked.push(schema(&format["schema"]).unwrap_or_else(Grammar::object)),
            // The chat's place for the schema, and that of `/v1/responses`.
            Some("json_schema") => {
                match schema(&format["json_schema"]["schema"]).or_else(|| schema(&format["schema"])) {
                    Some(schema) => asked.push(schema),
                    None => return wrong("expected a schema in `json_schema.schema`, found none"),
                }
            }
            _ => return wrong("expected {\"type\": \"text\"}, json_object or json_schema"),
        }
    }
    let schema = request.json_schema.as_ref().filter(|schema| !schema.is_null());
    asked.extend(schema.map(|schema| Grammar::Schema(schema.clone(), Layout::Strict)));
    if let Some(text) = request.grammar.as_deref().filter(|text| !text.is_empty()) {
        asked.push(Grammar::text(text)?);
    }
    asked.extend(request.regex.as_ref().map(|text| Grammar::Regex(text.clone())));
    if let Some(tools) = tools {
        // A schema is for answers without a call.
        let answer = match asked.as_slice() {
            [Grammar::Schema(schema, layout)] => Some((schema, *layout)),
            _ => None,
        };
        let (both, grammar) = (answer.is_some(), tools.grammar(answer));
        if both {
            asked.clear();
        }
        asked.push(grammar);
    }
    if asked.len() > 1 {
        let what = "expected one of `response_format`, `json_schema`, `grammar` and `regex`, the first two with `tools`";
        return Err(Refusal::bad(format!("{what}: an answer can follow one grammar only")));
    }
    Ok(asked.pop())
}
