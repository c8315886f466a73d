//! `tern chat`: a conversation, one line a turn.

mod conversation;
mod lines;

use std::path::{Path, PathBuf};

use clap::Args;
use tern::{Generation, Model, Template, Tokenizer};

use crate::adapter::AdapterArgs;
use crate::answer::{self, Answer, End};
use crate::drafts::DraftArgs;
use crate::failure::{Failure, Outcome};
use crate::hub::{self, PullArgs};
use crate::model::{self, MachineArgs, ThreadsArgs};
use crate::sampling::{SamplingArgs, at_least_one};
use crate::signal;
use crate::terminal::{self, Output};
use conversation::Conversation;
use lines::Lines;

/// Positions a conversation gets when `-c` is not given and the model has more: a large cache costs memory.
const USUAL_CONTEXT: usize = 4096;

const COMMANDS: &str = "  /retry           answer the last message again
  /undo            take the last message and its answer back
  /clear           forget the conversation, but not the system message
  /system TEXT     tell the model how to behave; `/system -` takes it back
  /set NAME VALUE  change a setting, as the flag of that name does; `/set` shows all
  /save FILE       write the conversation to a JSON file
  /load FILE       go on with a saved conversation
  /stats           show how fast the last answer came and how full the context is
  /help            show this
  /bye             leave; so does Ctrl-D

A line that ends with `\\` goes on in the next one. Ctrl-C stops an answer.
To send a text that begins with `/`, put a space before it.
";

const EXAMPLES: &str = "\
In the conversation, /help lists the commands, Ctrl-C stops an answer and Ctrl-D leaves. Typed lines are kept for the \
arrow keys in $XDG_DATA_HOME/tern/history, or ~/.local/share/tern/history.

Examples:
  tern chat model.gguf
  tern chat model.gguf --system \"Answer in one sentence\" --temp 0.3
  printf '%s\\n' 'Hello' 'And in French?' | tern chat model.gguf";

/// Talk with a model
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Chat {
    /// The model: a file, a directory, a name such as `bitnet-2b`, or `story` (built in)
    #[arg(default_value = "story")]
    model: PathBuf,
    /// Tell the model how to behave
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// At most this many tokens an answer [default: as the context allows]
    #[arg(short = 'n', long = "tokens", value_name = "N", allow_negative_numbers = true, value_parser = at_least_one)]
    limit: Option<usize>,
    /// Room for the conversation, in tokens [default: the model's context, up to 4096]
    #[arg(short = 'c', long, alias = "context", value_name = "N", allow_negative_numbers = true, value_parser = at_least_one)]
    ctx_size: Option<usize>,
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

impl Chat {
    pub(crate) fn run(self) -> Outcome {
        signal::listen()?;
        hub::fetch(&self.model, &self.pull)?;
        let model = model::open(&self.model, &self.machine, self.threads.threads)?.model;
        let name = self.model.display();
        let tokenizer = model.tokenizer()?;
        let Some(template) = tokenizer.template() else {
            return Err(Failure::failed(format!(
                "{name}: expected a model with a chat template, it has none"
            ))
            .hint(format!("`tern run {name} \"a text\"` continues a text")));
        };
        if self.system.is_some() {
            model::warn_of_system("--system", template);
        }
        let context = answer::context(self.ctx_size, USUAL_CONTEXT, model.config().context)?;
        let sampling = self.sampling.of(&model)?;
        let generation = Generation::new(&model, context, sampling)?.with_least(1);
        let generation = self.adapter.given(generation, &model)?;
        let generation = self.drafts.given(generation, &model, &self.machine, &self.pull)?;
        let mut talk = Talk {
            tokenizer,
            template,
            generation,
            sampling: self.sampling,
            context,
            limit: self.limit.unwrap_or(usize::MAX),
            conversation: Conversation::new(self.system),
            last: None,
        };
        let mut lines = Lines::open()?;
        if lines.is_typed() {
            terminal::remark(&format!("{name}, context {context}; /help lists the commands, Ctrl-D leaves"));
        }
        let mut any_failed = false;
        while let Some(line) = lines.next()? {
            match talk.obey(&line, &model) {
                Ok(Next::Line) => {}
                Ok(Next::Leave) => break,
                // A closed pipe: nobody listens any more.
                Err(failure) if failure.is_silent() => return Err(failure),
                Err(failure) => {
                    failure.print();
                    any_failed = true;
                }
            }
        }
        // A person saw the message; a script sees the exit code.
        if any_failed && !lines.is_typed() {
            return Err(Failure::failed("not every line could be answered"));
        }
        Ok(())
    }
}

/// What follows a line.
enum Next {
    Line,
    Leave,
}

/// A conversation and the sequence that holds as much of it as was computed.
struct Talk<'m> {
    tokenizer: &'m Tokenizer,
    template: &'m Template,
    generation: Generation<'m>,
    sampling: SamplingArgs,
    context: usize,
    limit: usize,
    conversation: Conversation,
    last: Option<Answer>,
}

impl Talk<'_> {
    fn obey(&mut self, line: &str, model: &Model) -> Outcome<Next> {
        let Some(command) = line.strip_prefix('/') else {
            if !line.trim().is_empty() {
                let text = line.strip_prefix(' ').filter(|rest| rest.starts_with('/')).unwrap_or(line);
                self.conversation.push("user", text);
                self.turn(model)?;
            }
            return Ok(Next::Line);
        };
        let (command, argument) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        let argument = argument.trim();
        match (command, argument) {
            ("help", _) => terminal::talk(COMMANDS),
            ("retry", _) => self.retry(model)?,
            ("undo", _) => match self.conversation.take_turn() {
                Some((said, _)) => terminal::remark(&format!("taken back: {}", said.content)),
                None => return Err(Failure::failed("/undo: there is no message to take back")),
            },
            ("set", setting) => self.set(setting, model)?,
            ("clear", _) => self.conversation.messages.clear(),
            ("save" | "load", "") => {
                return Err(Failure::failed(format!("/{command}: expected the name of a file")));
            }
            ("save", file) => {
                self.conversation.save(Path::new(file))?;
                terminal::remark(&format!("saved {} to {file}", self.conversation.size()));
            }
            ("load", file) => {
                self.conversation = Conversation::load(Path::new(file))?;
                if self.conversation.system.is_some() {
                    model::warn_of_system("the system message", self.template);
                }
                terminal::remark(&format!("loaded {} from {file}", self.conversation.size()));
            }
            ("system", "") => match &self.conversation.system {
                Some(system) => terminal::remark(&format!("system message: {system}")),
                None => terminal::remark("there is no system message"),
            },
            ("system", "-") => self.conversation.system = None,
            ("system", text) => {
                model::warn_of_system("/system", self.template);
                self.conversation.system = Some(text.to_owned());
            }
            ("stats", _) => self.stats(model),
            ("bye" | "exit" | "quit", _) => return Ok(Next::Leave),
            _ => {
                return Err(Failure::failed(format!("/{command}: no such command"))
                    .hint("/help lists the commands; a space before the `/` sends the line as text"));
            }
        }
        Ok(Next::Line)
    }

    /// Answers the last message, which is the person's; whether there is an answer now.
    fn turn(&mut self, model: &Model) -> Outcome<bool> {
        let answered = self.fit(model).and_then(|ids| self.answer(&ids, model));
        match answered {
            Ok(answer) if !answer.text.is_empty() || answer.end != End::Interrupted => {
                self.conversation.push("assistant", &answer.text);
                self.last = Some(answer);
                Ok(true)
            }
            // What was not answered was not said.
            Ok(_) => {
                self.conversation.messages.pop();
                Ok(false)
            }
            Err(failure) => {
                self.conversation.messages.pop();
                Err(failure)
            }
        }
    }

    /// Answers the last message again; the answer that was there stays until there is another one.
    fn retry(&mut self, model: &Model) -> Outcome {
        let Some((said, answer)) = self.conversation.take_turn() else {
            return Err(Failure::failed("/retry: there is no message to answer again"));
        };
        self.conversation.messages.push(said.clone());
        let done = self.turn(model);
        if !matches!(done, Ok(true)) {
            self.conversation.messages.extend([said, answer]);
        }
        done.map(drop)
    }

    /// Changes a setting, `temp 0.3`, or shows all of them.
    fn set(&mut self, setting: &str, model: &Model) -> Outcome {
        let (name, value) =
            setting.split_once(|c: char| c.is_whitespace() || c == '=').unwrap_or((setting, ""));
        let (name, value) = (name.trim_start_matches('-'), value.trim());
        let wrong = |what: &str| Failure::failed(format!("/set {setting}: {what}"));
        if setting.is_empty() {
            let limit = if self.limit == usize::MAX {
                "as the context allows".to_owned()
            } else {
                self.limit.to_string()
            };
            let settings = self.sampling.list().into_iter().chain([("tokens", limit)]);
            let lines = settings.map(|(name, value)| format!("  {name:<18} {value}\n"));
            terminal::talk(&lines.collect::<String>());
            return Ok(());
        }
        if name == "tokens" {
            self.limit = at_least_one(value).map_err(wrong)?;
            return Ok(());
        }
        self.sampling.set(name, value).map_err(|what| wrong(&what))?;
        self.generation.set_sampling(self.sampling.of(model)?)?;
        Ok(())
    }

    /// The conversation as token ids; forgets the oldest turns until it leaves room for an answer.
    fn fit(&mut self, model: &Model) -> Outcome<Vec<u32>> {
        let room = self.context - (self.context / 4).min(256);
        let alone = self.encode(self.conversation.messages.len() - 1)?;
        if alone.len() > room {
            let most = model.config().context;
            return Err(Failure::failed(format!(
                "the message has {}, and a context of {} leaves room for {room}",
                answer::tokens(alone.len()),
                self.context
            ))
            .hint(if self.context < most {
                format!("say it in fewer words, or start again with a larger `-c`, up to {most}")
            } else {
                format!("say it in fewer words: this model was made for a context of {most}, no more")
            }));
        }
        let mut forgotten = 0;
        let ids = loop {
            let ids = self.encode(0)?;
            if ids.len() <= room {
                break ids;
            }
            self.conversation.forget_oldest_turn();
            forgotten += 1;
        };
        if forgotten > 0 {
            let turns = if forgotten == 1 { "turn".into() } else { format!("{forgotten} turns") };
            terminal::warning(&format!(
                "the context is full: dropped the oldest {turns} of the conversation"
            ));
        }
        Ok(ids)
    }

    /// The prompt made of the messages from `first` on.
    fn encode(&self, first: usize) -> Outcome<Vec<u32>> {
        Ok(self.tokenizer.encode_chat(&self.conversation.messages_from(first), false)?)
    }

    /// Computes what is new in `ids` and writes an answer.
    fn answer(&mut self, ids: &[u32], model: &Model) -> Outcome<Answer> {
        // The answer before may read back as other tokens than it was written with: then that part is computed
        // again. The last token always is, because the answer begins with its logits.
        let known = self.generation.tokens().iter().zip(ids).take_while(|(a, b)| a == b).count();
        let known = known.min(ids.len() - 1);
        self.generation.truncate(known);
        let mut out = Output::new();
        let answer = answer::write(
            &mut self.generation,
            None,
            Some(self.tokenizer.decoder()),
            &ids[known..],
            self.limit,
            |piece| out.stream(piece),
        )?;
        out.end_line()?;
        if let Some(failure) = answer.nothing(self.context, model.config().context) {
            failure.warn();
        }
        match answer.end {
            End::Context => terminal::warning("the context is full: the answer ends here"),
            End::Length => terminal::remark(&format!("ended after {} (-n)", answer::tokens(self.limit))),
            End::Stop(_) | End::Interrupted => {}
        }
        Ok(answer)
    }

    fn stats(&self, model: &Model) {
        if let Some(answer) = &self.last {
            terminal::remark(&answer.summary());
        }
        terminal::remark(&format!(
            "{}, context {} of {}; {} with {} threads",
            self.conversation.size(),
            self.generation.tokens().len(),
            self.context,
            model.cpu_name(),
            model.threads(),
        ));
    }
}
