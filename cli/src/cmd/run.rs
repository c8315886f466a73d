//! `tern run`: one prompt in, one text out.

mod asks;

use std::io::{self, BufRead};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tern::{Generation, Message, Model, Sampling, Template};
use tern_eval::Meter;

use crate::adapter::AdapterArgs;
use crate::answer::{self, Answer, End, float, ms};
use crate::drafts::{DraftArgs, drafted_json};
use crate::failure::{Failure, Outcome};
use crate::hub::{self, PullArgs};
use crate::model::{self, Loaded, MachineArgs, ThreadsArgs};
use crate::sampling::{SamplingArgs, at_least_one, sampling_json};
use crate::signal;
use crate::terminal::{self, Output};

const EXAMPLES: &str = "\
A prompt is answered where the model has a chat template, and continued as a text where it has none. A file may say that \
its model tells texts as well (`tern.prompt` = `raw`, as the built-in model does): then a question, a request or a \
greeting is answered, and everything else is a beginning, which is continued. It is a question if it ends with a question \
mark or begins like one (`why is`, `can you`), a request if it begins with a word such as `tell`, `write` or `explain`. \
--chat always answers, --raw always continues.

Standard output gets the model's words only; a terminal shows the beginning before them, dim. A model that would say \
nothing at all says its likeliest token that does not end the text.

Examples:
  tern run story \"Once upon a time\"
  tern run model.gguf \"Why is the sky blue?\" --temp 0
  tern run model/ -n 64 < question.txt
  tern run model.gguf --ids 128000,9906 --json";

/// Continue a text or answer a question
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Run {
    /// The model: a file, a directory, a name such as `bitnet-2b`, or `story` (built in)
    #[arg(default_value = "story")]
    model: PathBuf,
    /// The prompt; without it, or with `-`, standard input is read
    #[arg(allow_negative_numbers = true)]
    prompt: Option<String>,
    /// Write at most this many tokens
    #[arg(short = 'n', long = "tokens", value_name = "N", default_value = "512", allow_negative_numbers = true, value_parser = at_least_one)]
    limit: usize,
    /// Room for prompt and text, in tokens [default: as needed, up to the model's context]
    #[arg(short = 'c', long, alias = "context", value_name = "N", allow_negative_numbers = true, value_parser = at_least_one)]
    ctx_size: Option<usize>,
    /// Answer the prompt, by the model's chat template
    #[arg(long, conflicts_with = "raw")]
    chat: bool,
    /// Continue the prompt as it is, without the model's chat template
    #[arg(long)]
    raw: bool,
    /// Tell the model how to behave, where its chat template has a place for that
    #[arg(long, value_name = "TEXT", conflicts_with = "raw")]
    system: Option<String>,
    /// The prompt as token ids, nothing put before them: `1,2,3` or `[1,2,3]`
    #[arg(long, value_name = "IDS", conflicts_with_all = ["prompt", "chat", "system"], allow_hyphen_values = true, value_parser = Ids::parse)]
    ids: Option<Ids>,
    /// Print one JSON object: text, ids, log-probabilities, settings, timings
    #[arg(long)]
    json: bool,
    /// Say more on standard error: settings and timings
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    adapter: AdapterArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    drafts: DraftArgs,
    #[command(flatten)]
    threads: ThreadsArgs,
    #[command(flatten)]
    machine: MachineArgs,
    #[command(flatten)]
    pull: PullArgs,
}

/// Why there are no joules for an answer that was never begun.
const NO_TEXT: &str = "no text was written";

/// The value of `--ids`, as `tern tokenize` prints it, too.
#[derive(Clone)]
struct Ids(Vec<u32>);

impl Ids {
    fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let list = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text).trim();
        if list.is_empty() {
            return Err("expected token ids separated by commas, found none".into());
        }
        let ids = list.split(',').map(|id| {
            let id = id.trim();
            id.parse().map_err(|_| format!("expected token ids separated by commas, found `{id}`"))
        });
        ids.collect::<Result<_, _>>().map(Self)
    }
}

/// The prompt as it was given and as the model reads it.
struct Prompt {
    text: Option<String>,
    ids: Vec<u32>,
    /// Whether the template stands around it: then what follows is a text of its own.
    chat: bool,
}

impl Run {
    pub(crate) fn run(self) -> Outcome {
        signal::listen()?;
        hub::fetch(&self.model, &self.pull)?;
        // A prompt on standard input is read before the model, so that a person does not wait to type.
        let text = match (&self.ids, self.prompt.as_deref()) {
            (Some(_), _) => None,
            (None, Some(text)) if text != "-" => Some(text.to_owned()),
            (None, _) => {
                // A wrong model name should not cost a typed prompt.
                model::find(&self.model)?;
                Some(read_prompt()?)
            }
        };
        let Loaded { model, raw, load_time } = model::open(&self.model, &self.machine, self.threads.threads)?;
        let sampling = self.sampling.of(&model)?;
        let prompt = self.prompt(&model, raw, text)?;
        let most = model.config().context;
        let wanted = prompt.ids.len().saturating_add(self.limit);
        let context = answer::context(self.ctx_size, wanted, most)?;
        if prompt.ids.len() > context {
            return Err(too_long(prompt.ids.len(), context, most));
        }

        let mut generation = Generation::new(&model, context, sampling.clone())?.with_least(1);
        generation = self.adapter.given(generation, &model)?;
        generation = self.drafts.given(generation, &model, &self.machine, &self.pull)?;
        if self.json {
            generation = generation.with_logprobs();
        }
        let mut out = Output::new();
        let decoder = model.tokenizer().ok().map(|tokenizer| match prompt.chat {
            true => tokenizer.decoder(),
            false => tokenizer.decoder_after(&prompt.ids),
        });
        if let (false, Some(text)) = (self.json || prompt.chat, &prompt.text) {
            out.echo(text)?;
        }
        let meter = Meter::new();
        let show = |piece: &str| if self.json { Ok(()) } else { out.stream(piece) };
        let answer =
            answer::write(&mut generation, meter.as_ref().ok(), decoder, &prompt.ids, self.limit, show)?;
        let joules = meter.and_then(|_| answer.joules_per_token().unwrap_or(Err(NO_TEXT.to_owned())));
        if self.json {
            self.print_json(&model, &prompt, &answer, &sampling, context, load_time, &joules)?;
        } else {
            out.end_line()?;
        }
        if let Some(failure) = answer.nothing(context, most) {
            failure.warn();
        }
        if self.talks() {
            self.remark(&model, &answer, &sampling, load_time, &joules);
        }
        if answer.end == End::Interrupted { Err(Failure::interrupted()) } else { Ok(()) }
    }

    /// Turns the text into token ids, by the chat template where it applies.
    fn prompt(&self, model: &Model, raw: bool, text: Option<String>) -> Outcome<Prompt> {
        let vocab = model.config().vocab;
        if let Some(Ids(ids)) = &self.ids {
            if let Some(id) = ids.iter().find(|&&id| id as usize >= vocab) {
                return Err(Failure::misused(format!(
                    "--ids: expected ids below {vocab}, the vocabulary of this model, found {id}"
                )));
            }
            return Ok(Prompt { text: None, ids: ids.clone(), chat: false });
        }
        let text = text.unwrap_or_default();
        let tokenizer = model.tokenizer().map_err(|error| {
            Failure::from(error).hint("a prompt of token ids needs no tokenizer: `--ids 1,2,3`")
        })?;
        let chat = self.is_chat(tokenizer.template(), raw, &text)?;
        let ids = if chat {
            let system =
                self.system.iter().map(|text| Message { role: "system".into(), content: text.clone() });
            let user = Message { role: "user".into(), content: text.clone() };
            let messages: Vec<_> = system.chain([user]).collect();
            tokenizer.encode_chat(&messages, false)?
        } else {
            tokenizer.encode(&text, tokenizer.adds_bos(), tern::Specials::Text)?
        };
        if ids.is_empty() {
            return Err(Failure::failed("the prompt is empty: expected at least one token"));
        }
        Ok(Prompt { text: Some(text), ids, chat })
    }

    /// Whether the prompt is answered, and not continued.
    fn is_chat(&self, template: Option<&Template>, raw: bool, text: &str) -> Outcome<bool> {
        let Some(template) = template else {
            let flag = if self.chat { "--chat" } else { "--system" };
            return match self.chat || self.system.is_some() {
                false => Ok(false),
                true => Err(Failure::misused(format!(
                    "{flag}: expected a model with a chat template, {} has none",
                    self.model.display()
                ))),
            };
        };
        if self.system.is_some() {
            model::warn_of_system("--system", template);
        }
        if self.raw || self.chat || self.system.is_some() || !raw {
            return Ok(!self.raw);
        }
        let asks = asks::asks(text);
        if self.talks() {
            terminal::remark(match asks {
                true => "a question or a request: answered; --raw continues it as a text",
                false => "a beginning: continued; --chat answers it",
            });
        }
        Ok(asks)
    }

    /// Whether somebody wants to hear more than the text.
    fn talks(&self) -> bool {
        self.verbose || (terminal::talk_is_terminal() && !self.json)
    }

    #[expect(clippy::too_many_arguments, reason = "each is a part of the object")]
    fn print_json(
        &self,
        model: &Model,
        prompt: &Prompt,
        answer: &Answer,
        sampling: &Sampling,
        context: usize,
        load_time: Duration,
        joules: &Result<f64, String>,
    ) -> Outcome {
        let mut settings = sampling_json(sampling);
        settings["max_tokens"] = json!(self.limit);
        settings["context"] = json!(context);
        settings["cpu"] = json!(model.cpu_name());
        settings["threads"] = json!(model.threads());
        let stop_id = match answer.end {
            End::Stop(id) => Some(id),
            _ => None,
        };
        terminal::print_json(&json!({
            "model": self.model.to_string_lossy(),
            "prompt": prompt.text,
            "prompt_ids": prompt.ids,
            "chat": prompt.chat,
            "text": model.tokenizer().ok().map(|_| &answer.text),
            "ids": answer.ids,
            "logprobs": answer.logprobs.iter().map(|&x| float(x)).collect::<Vec<_>>(),
            "stop": answer.end_name(),
            "stop_id": stop_id,
            "settings": settings,
            "timings": {
                "load_ms": ms(load_time),
                "prompt_ms": ms(answer.prompt.time),
                "prompt_tokens_per_s": answer.prompt.per_second(),
                "decode_ms": ms(answer.decode.time),
                "decode_tokens_per_s": answer.decode.per_second(),
                "drafts": drafted_json(answer.drafted),
            },
            "energy": { "joules_per_token": joules.as_ref().ok(), "missing": joules.as_ref().err() },
        }))
    }

    /// The dim line after the text; with -v a second one.
    fn remark(
        &self,
        model: &Model,
        answer: &Answer,
        sampling: &Sampling,
        load_time: Duration,
        joules: &Result<f64, String>,
    ) {
        if model.tokenizer().is_err() {
            terminal::remark("without a tokenizer: these are token ids");
        }
        terminal::remark(&answer.summary());
        if self.verbose {
            terminal::remark(&format!(
                "seed {}, {} with {} threads, loaded in {:.2} s",
                sampling.seed,
                model.cpu_name(),
                model.threads(),
                load_time.as_secs_f64(),
            ));
            if let Err(why) = joules {
                terminal::remark(&format!("energy unknown: {why}"));
            }
        }
    }
}

fn too_long(tokens: usize, context: usize, most: usize) -> Failure {
    let failure = Failure::failed(format!("the prompt has {tokens} tokens, the context {context}"));
    failure.hint(if context < most {
        format!("this model goes up to `-c {most}`")
    } else {
        "that is all this model was made for: give it a shorter one".to_owned()
    })
}

/// Asks a person for one line, or takes all that is piped in; one line end at the end is not part of it.
fn read_prompt() -> Outcome<String> {
    let mut text = if terminal::input_is_terminal() {
        terminal::talk("> ");
        let mut line = String::new();
        io::stdin()
            .lock()
            .read_line(&mut line)
            .map_err(|e| Failure::failed(format!("standard input: {e}")))?;
        line
    } else {
        terminal::read_text(io::stdin().lock(), "standard input")?
    };
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    if text.is_empty() {
        return Err(Failure::failed("standard input: expected a prompt, found nothing")
            .hint("`tern run story \"Once upon a time\"` takes it from the command line"));
    }
    Ok(text)
}
