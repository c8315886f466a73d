//! `tern chat`: a conversation, one line a turn.

mod conversation;
mod lines;

use std::path::{Path, PathBuf};

use clap::Args;
use tern::{Generation, Model, Tokenizer};

use crate::answer::{self, Answer, End};
use crate::failure::{Failure, Outcome};
use crate::model::{self, MachineArgs, ThreadsArgs};
use crate::sampling::{SamplingArgs, at_least_one};
use crate::signal;
use crate::terminal::{self, Output};
use conversation::Conversation;
use lines::Lines;

/// Positions a conversation gets when `-c` is not given and the model has more: a large cache costs memory.
const USUAL_CONTEXT: usize = 4096;

const COMMANDS: &str = "  /help         show this
  /clear        forget the conversation, but not the system message
  /save FILE    write the conversation to a JSON file
  /load FILE    go on with a saved conversation
  /system TEXT  tell the model how to behave; `/system -` takes it back
  /stats        show how fast the last answer came and how full the context is
  /bye          leave; so does Ctrl-D

A line that ends with `\\` goes on in the next one. Ctrl-C stops an answer.
To send a text that begins with `/`, put a space before it.
";

const EXAMPLES: &str = "\
In the conversation, /help lists the commands, Ctrl-C stops an answer and Ctrl-D leaves.
Lines are kept for the arrow keys in $XDG_DATA_HOME/tern/history, or ~/.local/share/tern/history.

Examples:
  tern chat model.gguf
  tern chat model.gguf --system \"Answer in one sentence\" --temp 0.3
  printf '%s\\n' 'Hello' 'And in French?' | tern chat model.gguf";

/// Talk with a model
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Chat {
    /// The model: a file, a directory, or `story` (built in)
    #[arg(default_value = "story")]
    model: PathBuf,
    /// Tell the model how to behave
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// At most this many tokens an answer [default: as the context allows]
    #[arg(short = 'n', long = "tokens", value_name = "N", allow_negative_numbers = true, value_parser = at_least_one)]
    limit: Option<usize>,
    /// Room for the conversation, in tokens [default: the model's context, up to 4096]
    #[arg(short = 'c', long, value_name = "N", allow_negative_numbers = true, value_parser = at_least_one)]
    context: Option<usize>,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    threads: ThreadsArgs,
    #[command(flatten)]
    machine: MachineArgs,
}

impl Chat {
    pub(crate) fn run(self) -> Outcome {
        signal::listen()?;
        let model = model::open(&self.model, &self.machine, self.threads.threads)?.model;
        let name = self.model.display();
        let tokenizer = model.tokenizer()?;
        if tokenizer.template().is_none() {
            return Err(Failure::failed(format!(
                "{name}: expected a model with a chat template, it has none"
            ))
            .hint(format!("`tern run {name} \"a text\"` continues a text")));
        }
        let context = answer::context(self.context, USUAL_CONTEXT, model.config().context)?;
        let mut talk = Talk {
            tokenizer,
            generation: Generation::new(&model, context, self.sampling.of(&model)?)?,
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
    generation: Generation<'m>,
    context: usize,
    limit: usize,
    conversation: Conversation,
    last: Option<Answer>,
}

impl Talk<'_> {
    fn obey(&mut self, line: &str, model: &Model) -> Outcome<Next> {
        let Some(command) = line.strip_prefix('/') else {
            if !line.trim().is_empty() {
                self.turn(line.strip_prefix(' ').filter(|rest| rest.starts_with('/')).unwrap_or(line))?;
            }
            return Ok(Next::Line);
        };
        let (command, argument) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        let argument = argument.trim();
        match (command, argument) {
            ("help", _) => terminal::talk(COMMANDS),
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
                terminal::remark(&format!("loaded {} from {file}", self.conversation.size()));
            }
            ("system", "") => match &self.conversation.system {
                Some(system) => terminal::remark(&format!("system message: {system}")),
                None => terminal::remark("there is no system message"),
            },
            ("system", "-") => self.conversation.system = None,
            ("system", text) => self.conversation.system = Some(text.to_owned()),
            ("stats", _) => self.stats(model),
            ("bye" | "exit" | "quit", _) => return Ok(Next::Leave),
            _ => {
                return Err(Failure::failed(format!("/{command}: no such command"))
                    .hint("/help lists the commands; a space before the `/` sends the line as text"));
            }
        }
        Ok(Next::Line)
    }

    /// Says `text` to the model and shows what it answers.
    fn turn(&mut self, text: &str) -> Outcome {
        self.conversation.push("user", text);
        let answered = self.fit().and_then(|ids| self.answer(&ids));
        match answered {
            Ok(answer) if !answer.text.is_empty() || answer.end != End::Interrupted => {
                self.conversation.push("assistant", &answer.text);
                self.last = Some(answer);
                Ok(())
            }
            // What was not answered was not said.
            Ok(_) => {
                self.conversation.messages.pop();
                Ok(())
            }
            Err(failure) => {
                self.conversation.messages.pop();
                Err(failure)
            }
        }
    }

    /// The conversation as token ids; forgets the oldest turns until it leaves room for an answer.
    fn fit(&mut self) -> Outcome<Vec<u32>> {
        let room = self.context - (self.context / 4).min(256);
        let alone = self.encode(self.conversation.messages.len() - 1)?;
        if alone.len() > room {
            return Err(Failure::failed(format!(
                "the message has {}, and a context of {} leaves room for {room}",
                answer::tokens(alone.len()),
                self.context
            ))
            .hint("say it in fewer words, or start again with a larger `-c`"));
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
    fn answer(&mut self, ids: &[u32]) -> Outcome<Answer> {
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
