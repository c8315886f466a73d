//! `tern train`: a model from text, or from another model's masters.

mod board;
mod distil;
mod events;
mod screen;
mod worker;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use clap::{Arg, ArgMatches, Args, FromArgMatches, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use tern::file::OpenOptions;
use tern::{Head, Model, Options};
use tern_kernels::{KvFormat, Rounding};
use tern_train::config::{self, KEYS, Run};
use tern_train::data::Rules;
use tern_train::machines::leader::Leader;
use tern_train::metrics::{self, Validation};
use tern_train::run::{End, Event, lead};
use tern_train::{check, export, folder, tokenizer};

use self::board::Board;
use self::screen::Screen;

use crate::failure::{Failure, Outcome};
use crate::model;
use crate::signal::{self, Writing};
use crate::terminal;

const EXAMPLES: &str = "\
Ctrl-C saves a checkpoint and ends; `tern train FOLDER` goes on from the last one, to the same numbers bit for bit. The \
folder keeps its configuration. The finished model is in FOLDER/masters: `tern run` it, or `tern convert` it into any \
format.

Examples:
  tern train tokenizer stories.txt --vocab 4096 --out tokenizer
  tern train init train.toml
  tern train train.toml --train stories.txt --out run
  tern train run
  tern train --from story --train chats.jsonl --out tuned --rate 2e-4
  tern train distil float-model --train texts.jsonl --out student
  tern train export run masters
  tern train check run model.gguf
  tern train run --listen 192.168.1.10:7070 --token-file token.txt
  tern train worker 192.168.1.10:7070 --token-file token.txt";

const INIT_EXAMPLES: &str = "\
Examples:
  tern train init
  tern train init other.toml";

const TOKENIZER_EXAMPLES: &str = "\
Examples:
  tern train tokenizer stories.txt --vocab 4096 --out tokenizer
  tern train tokenizer a.jsonl.zst b.txt --text-key story --out tokenizer";

const EXPORT_EXAMPLES: &str = "\
Examples:
  tern train export run masters
  tern run masters \"Once upon a time\"";

const CHECK_EXAMPLES: &str = "\
Examples:
  tern train check run
  tern train check run model.gguf --json";

/// Train a model from scratch, or from another
#[derive(Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct Train {
    #[command(subcommand)]
    part: Option<Part>,
    /// A configuration, as `tern train init` writes one, or the folder of a run, to go on with it
    #[arg(value_name = "CONFIG|FOLDER")]
    config: Option<PathBuf>,
    /// Show curves and samples on the whole terminal while it runs
    #[arg(long)]
    monitor: bool,
    /// Print what happens as JSON, one object a line: those of metrics.jsonl, notes, checkpoints and the end
    #[arg(long, conflicts_with = "monitor")]
    json: bool,
    /// Let `tern train worker` on other machines compute some of a step's batches (`accumulate` of them), to the same bits
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
    /// A file with the token that workers must know; needed where other machines can reach the address
    #[arg(long, value_name = "FILE", requires = "listen")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Subcommand)]
enum Part {
    /// Write a commented configuration
    #[command(after_help = INIT_EXAMPLES)]
    Init {
        /// The file to write
        #[arg(value_name = "CONFIG", default_value = "train.toml")]
        path: PathBuf,
    },
    /// Learn a tokenizer (byte-level BPE) from texts
    #[command(after_help = TOKENIZER_EXAMPLES)]
    Tokenizer {
        /// Texts: .txt, .jsonl, and .zst or .gz of them
        #[arg(value_name = "FILE", required = true)]
        files: Vec<PathBuf>,
        /// How many tokens
        #[arg(long, value_name = "N", default_value_t = 4096)]
        vocab: usize,
        /// The directory to write tokenizer.json and tokenizer_config.json into
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Key of the text in JSON lines
        #[arg(long, value_name = "KEY", default_value = "text")]
        text_key: String,
        /// Print one JSON object: what was written
        #[arg(long)]
        json: bool,
    },
    /// Write the masters of a run's latest checkpoint as a model
    #[command(after_help = EXPORT_EXAMPLES)]
    Export {
        /// The run's folder
        #[arg(value_name = "FOLDER")]
        run: PathBuf,
        /// The directory to write
        #[arg(value_name = "OUT")]
        output: PathBuf,
        /// Print one JSON object: what was written
        #[arg(long)]
        json: bool,
    },
    /// Train a ternary model of a float model: Llama, Mistral, Qwen2, Qwen3, Gemma3
    Distil(Box<distil::Distil>),
    /// Compute batches for a run on another machine
    Worker(worker::Worker),
    /// Compare a model in the engine with the trainer's own figures, on the run's held-out documents
    Check(Check),
}

#[derive(Args)]
#[command(after_help = CHECK_EXAMPLES)]
struct Check {
    /// The run's folder
    #[arg(value_name = "FOLDER")]
    run: PathBuf,
    /// The model: a file, a directory, or `story` (built in) [default: FOLDER/masters]
    #[arg(value_name = "MODEL")]
    model: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Every key of the configuration as a flag.
struct Flags(Vec<(String, String)>);

/// A key as a flag: clap keeps names for as long as the program runs.
fn flag(key: &str) -> &'static str {
    key.replace('_', "-").leak()
}

impl Args for Flags {
    fn augment_args(command: clap::Command) -> clap::Command {
        KEYS.iter().fold(
            command.next_help_heading("Keys of the configuration"),
            |command, (key, default, about)| {
                let help = if default.is_empty() {
                    (*about).to_owned()
                } else {
                    format!("{about} [default: {default}]")
                };
                command
                    .arg(Arg::new(*key).long(flag(key)).value_name("X").help(help).allow_hyphen_values(true))
            },
        )
    }
    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = KEYS.iter().filter_map(|(key, ..)| {
            let value = matches.try_get_one::<String>(key).ok().flatten()?;
            Some(((*key).to_owned(), value.clone()))
        });
        Ok(Self(given.collect()))
    }
    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Train {
    pub(crate) fn run(self) -> Outcome {
        let note = &mut |note: String| terminal::remark(&note);
        match self.part {
            Some(Part::Init { path }) => {
                if path.exists() {
                    let what = format!("{}: exists, expected the name of a new file", path.display());
                    return Err(Failure::misused(what));
                }
                std::fs::write(&path, config::template())
                    .map_err(|e| Failure::failed(format!("{}: {e}", path.display())))?;
                terminal::remark(&format!("wrote {}", path.display()));
                Ok(())
            }
            Some(Part::Tokenizer { files, vocab, out, text_key, json }) => {
                let rules = Rules { text_key: &text_key, separator: "<|endoftext|>", join_lines: false };
                tokenizer::train(&files, rules, vocab, &out, note)?;
                let path = out.join("tokenizer.json");
                if json {
                    return terminal::print_json(&json!({"output": path.to_string_lossy(), "vocab": vocab}));
                }
                terminal::remark(&format!("wrote {}", path.display()));
                Ok(())
            }
            Some(Part::Export { run, output, json }) => {
                let run = Run::kept(&run, &[])?;
                let step = export::latest(&run, &output, note)?;
                if json {
                    return terminal::print_json(&json!({"output": output.to_string_lossy(), "step": step}));
                }
                terminal::remark(&format!("wrote {}: the masters of step {step}", output.display()));
                Ok(())
            }
            Some(Part::Distil(distil)) => distil.run(),
            Some(Part::Worker(worker)) => worker.run(),
            Some(Part::Check(check)) => check.run(),
            None => {
                let run = match &self.config {
                    Some(path) => Run::open(path, &self.flags.0)?,
                    None if !self.flags.0.is_empty() => Run::parse("", &self.flags.0, Path::new(""))?,
                    None => {
                        return Err(Failure::misused(
                            "expected a configuration or a run's folder, found none",
                        )
                        .hint("`tern train init` writes a configuration with every key explained"));
                    }
                };
                self.train(&run)
            }
        }
    }

    fn train(&self, run: &Run) -> Outcome {
        let mut leader = match self.listen {
            Some(address) => {
                let token = self.token_file.as_deref().map_or(Ok(String::new()), worker::token)?;
                if token.is_empty() && !address.ip().is_loopback() {
                    let what = format!(
                        "{address} can be reached from other machines: `--token-file` asks workers for a token"
                    );
                    return Err(Failure::misused(what));
                }
                let leader = Leader::listen(address, &token)?;
                terminal::remark(&format!("workers are let in at {}", leader.address()));
                Some(leader)
            }
            None => None,
        };
        signal::listen()?;
        let asked = signal::termination()?;
        let writing = Writing::begin();
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("[{bar:30}] {pos} of {len}: {msg}, {eta} left");
        bar.set_style(style.expect("a template that parses").progress_chars("=> "));
        let stop = || writing.stopped() || asked.load(Ordering::Relaxed);
        let mut view = None;
        if self.monitor {
            view = Screen::open(Board::resumed(metrics::read(&run.out)?));
            if view.is_none() {
                terminal::remark("no terminal to show the view of --monitor on: lines instead");
            }
        }
        let mut last_words = None;
        let end = lead(run, leader.as_mut(), &stop, &mut |event| match &view {
            Some(view) => {
                if let Event::Validation(found) = &event {
                    last_words = Some(held_out(found));
                }
                view.tell(event);
            }
            // A reader that went away ends no run.
            None if self.json => drop(terminal::print_json(&events::event(event))),
            None => report(&bar, event, run),
        });
        drop(view);
        bar.finish_and_clear();
        if let Some(words) = last_words {
            terminal::remark(&words);
        }
        let end = end?;
        if self.json {
            terminal::print_json(&events::end(&end))?;
        }
        match end {
            End::Done(model) if model.exists() && !self.json => {
                let what = if run.lora.is_some() { "adapter" } else { "model" };
                terminal::remark(&format!("the {what} is in {}", model.display()));
                Ok(())
            }
            End::Done(_) => Ok(()),
            End::Stopped(path) => {
                if !self.json {
                    terminal::remark(&format!("stopped; saved {}", path.display()));
                }
                Err(Failure::interrupted())
            }
        }
    }
}

impl Check {
    fn run(self) -> Outcome {
        let run = Run::kept(&self.run, &[])?;
        // As exact as the engine is: what the trainer computed with.
        let threads = (run.threads > 0).then_some(run.threads);
        let activations = run.quantiser()?.is_weight_only().then_some(Rounding::None);
        let options = Options {
            head: Head::Stored,
            kv: run.kv()?.unwrap_or(KvFormat::F32),
            activations,
            threads,
            floats: !run.ternary,
            ..Options::default()
        };
        let model = self.model.unwrap_or_else(|| folder::finished(&run));
        let file = model::find(&model)?.file(OpenOptions::default())?;
        let model = Model::from_file(&file, &options)?;
        let found = check::check(&run, &file, &model, &mut |note| terminal::remark(&note))?;
        let sides = [("trainer", found.unrounded), ("rounded", found.trainer), ("engine", found.engine)];
        if self.json {
            let side = |loss: f64| json!({"loss": loss, "perplexity": loss.exp(), "bits_per_char": found.bits_per_char(loss)});
            terminal::print_json(&json!({
                "step": found.step, "tokens": found.tokens, "characters": found.chars, "recorded_loss": found.recorded,
                "embedding": found.embedding.name(), "trainer": side(found.unrounded), "rounded": side(found.trainer),
                "engine": side(found.engine), "equal": found.is_equal(),
                "other_likeliest": found.others, "widest_tie": found.widest,
            }))?;
        } else {
            let mut text = format!(
                "step {}, {} held-out tokens, {} characters\n",
                found.step, found.tokens, found.chars
            );
            // Both sides compute with the file's embedding; what its format costs is a line of its own.
            let rounds = found.unrounded != found.trainer;
            for (name, loss) in sides.into_iter().filter(|(name, _)| rounds || *name != "rounded") {
                let bits = found.bits_per_char(loss);
                text += &format!(
                    "{name:<9} loss {loss:.5}  perplexity {:.4}  {bits:.4} bits per character\n",
                    loss.exp()
                );
            }
            text += &match found.others {
                0 => "the same likeliest token everywhere\n".to_owned(),
                n => format!(
                    "another likeliest token at {n} of them, where the two lie at most {:.1e} apart\n",
                    found.widest
                ),
            };
            terminal::print(&text)?;
        }
        if found.is_equal() {
            Ok(())
        } else {
            Err(Failure::failed(format!(
                "the perplexities differ by more than {:.1e} of them, though the weights are the same: please report this",
                found.tolerance()
            )))
        }
    }
}

fn held_out(found: &Validation) -> String {
    let Validation { step, loss, bits_per_char, preferred, trits } = found;
    let mut text = format!("step {step}: held-out loss {loss:.4}, {bits_per_char:.4} bits per character");
    if let Some(share) = preferred {
        text += &format!(", {:.1}% of the pairs preferred", 100.0 * share);
    }
    if trits.is_empty() {
        return text;
    }
    let zeros = trits.iter().map(|shares| shares[1]).sum::<f64>() / trits.len() as f64;
    format!("{text}, {:.1}% of the weights are 0", 100.0 * zeros)
}

/// What a person sees: lines for what stays, the bar for what passes. Without a terminal, a line now and then.
fn report(bar: &ProgressBar, event: Event, run: &Run) {
    let line = |text: String| bar.suspend(|| terminal::remark(&text));
    match event {
        Event::Note(note) => line(note),
        Event::Warning(warning) => bar.suspend(|| terminal::warning(&warning)),
        Event::Begin { step, steps, params, train, held_out, cpu, threads } => {
            bar.set_length(steps);
            bar.set_position(step);
            bar.reset_eta();
            line(format!(
                "{:.2} M parameters; {:.2} M tokens in {} documents to train on, {:.2} M in {} held out; {cpu}, {threads} threads",
                params as f64 / 1e6,
                train.tokens as f64 / 1e6,
                train.documents,
                held_out.tokens as f64 / 1e6,
                held_out.documents,
            ));
            if step > 0 {
                line(format!("going on after step {step}"));
            }
        }
        Event::Step(step) => {
            bar.set_position(step.step);
            let some = |name: &str, loss: Option<f64>| {
                loss.map_or(String::new(), |loss| format!("{name} {loss:.3}, "))
            };
            let pairs = some("preferred", step.preferred) + &some("margin", step.margin);
            let beside = some("divergence", step.divergence) + &some("relation", step.relation) + &pairs;
            let text = format!("loss {:.3}, {beside}{:.0} tokens/s", step.loss, step.tokens_per_second);
            if bar.is_hidden() && step.step.is_multiple_of(run.log_every) {
                line(format!(
                    "step {}: {text}, rate {:.2e}, gradient {:.2}",
                    step.step, step.rate, step.gradient
                ));
            }
            bar.set_message(text);
        }
        Event::Validation(found) => line(held_out(&found)),
        Event::Evaluation(found) => line(found.to_string()),
        Event::Sample { step, text } => line(format!("step {step}: {text}")),
        Event::Saved(_) => {}
    }
}
