//! The one list of commands; each file below holds a command's arguments and its code together.

mod bench;
mod chat;
mod completions;
mod convert;
mod doctor;
mod dummy;
mod embed;
mod eval;
mod inspect;
mod list;
mod merge;
mod pull;
mod rm;
mod run;
mod serve;
mod show;
mod tokenize;
pub(crate) mod train;
mod update_check;

use crate::failure::Outcome;

/// What `tern` can be told to do.
#[derive(clap::Subcommand)]
pub(crate) enum Command {
    Run(run::Run),
    Chat(chat::Chat),
    Serve(Box<serve::Serve>),
    Pull(pull::Pull),
    #[command(visible_alias = "ls")]
    List(list::List),
    Show(show::Show),
    Rm(rm::Rm),
    Inspect(inspect::Inspect),
    Tokenize(tokenize::Tokenize),
    Embed(embed::Embed),
    Convert(convert::Convert),
    Merge(merge::Merge),
    Train(train::Train),
    Dummy(dummy::Dummy),
    Bench(bench::Bench),
    Eval(eval::Eval),
    Doctor(doctor::Doctor),
    Completions(completions::Completions),
    Man(completions::Man),
    UpdateCheck(update_check::UpdateCheck),
    /// Compile the grammars that `tern serve` sends, to see whether they can be
    #[command(hide = true)]
    TryGrammars,
}

impl Command {
    /// Does it; `tern` is the definition of all commands.
    pub(crate) fn run(self, tern: clap::Command) -> Outcome {
        match self {
            Self::Run(run) => run.run(),
            Self::Chat(chat) => chat.run(),
            Self::Serve(serve) => serve.run(),
            Self::Pull(pull) => pull.run(),
            Self::List(list) => list.run(),
            Self::Show(show) => show.run(),
            Self::Rm(rm) => rm.run(),
            Self::Inspect(inspect) => inspect.run(),
            Self::Tokenize(tokenize) => tokenize.run(),
            Self::Embed(embed) => embed.run(),
            Self::Convert(convert) => convert.run(),
            Self::Merge(merge) => merge.run(),
            Self::Train(train) => train.run(),
            Self::Dummy(dummy) => dummy.run(),
            Self::Bench(bench) => bench.run(),
            Self::Eval(eval) => eval.run(),
            Self::Doctor(doctor) => doctor.run(),
            Self::Completions(completions) => completions.run(tern),
            Self::Man(man) => man.run(tern),
            Self::UpdateCheck(check) => check.run(),
            Self::TryGrammars => serve::try_grammars(),
        }
    }
}
