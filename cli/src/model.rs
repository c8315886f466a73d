//! Which model a word names, and the flags that say how it runs, shared by the commands that open one.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::Value;
use tern::file::{self, File, Metadata, OpenOptions};
use tern::keys;
use tern::{Head, MAX_THREADS, Model, Options, STORY, Template, Tokenizer, Zeros};
use tern_kernels::{Cpu, KvFormat, Packing, Rounding};

use crate::failure::{Failure, Outcome};
use crate::sampling::{expected, number};
use crate::{hub, terminal};

#[derive(Args)]
#[command(next_help_heading = "Machine")]
pub(crate) struct ThreadsArgs {
    /// Threads to compute with [default: one for each core]
    #[arg(short = 't', long, value_name = "N", allow_negative_numbers = true, value_parser = threads)]
    pub(crate) threads: Option<usize>,
}

#[derive(Args, Clone)]
#[command(next_help_heading = "Machine")]
pub(crate) struct MachineArgs {
    /// The instruction set to use; `tern doctor` lists them [default: the fastest]
    #[arg(long, value_name = "NAME", value_parser = cpu)]
    cpu: Option<String>,
    /// How weights lie in memory: `i2` (2 bits) or `t5` (1.6 bits) [default: as in the file, or what is quickest here]
    #[arg(long, value_name = "NAME", value_parser = packing)]
    packing: Option<Packing>,
    /// The output head: `int8`, screened where only the likeliest tokens matter (the same tokens, fewer bytes), or
    /// `stored`, as it is in the file
    #[arg(long, value_name = "FORM", default_value = "int8", value_parser = head)]
    head: Head,
    /// How keys and values are kept: `f32`, `f16`, `int8` (half the memory of f16, and faster in long contexts), or rotated,
    /// with a scale for each 128, in 8, 4 or 3 bits: `q8`, `q4`, `q3`; two names with a colon are one for the keys and one
    /// for the values: `q8:q4`
    #[arg(long, value_name = "NAME", default_value = "f16", value_parser = kv)]
    kv: KvFormat,
    /// How activations are rounded: `int8-token` (one scale a token), `int8-group` (one for every 128 values), `int4-token`,
    /// `int8-top-half` (int8 of the larger half) or `f32` (not at all, for reference: slow) [default: as the weights were trained]
    #[arg(long, value_name = "NAME", value_parser = activations)]
    activations: Option<Rounding>,
    /// Zeros behind closed gates (ReLU² models, a text alone): `read` them, `skip` them by a second copy of two thirds of each
    /// feed-forward layer, or `auto`: skip once a hundred tokens show that it pays
    #[arg(long, value_name = "WAY", default_value = "auto", value_parser = zeros)]
    zeros: Zeros,
    /// Run a model that was not trained ternary in its float weights, at their size and speed: what a conversion by training is
    /// held against
    #[arg(long)]
    floats: bool,
    /// The file's I2_S tensors were written by bitnet.cpp on ARM (nothing in the file says so)
    #[arg(long)]
    pub(crate) i2s_arm: bool,
    /// Read the model into memory instead of mapping its file, which may change afterwards
    #[arg(long)]
    no_mmap: bool,
}

impl MachineArgs {
    /// Changes the setting of this flag's name.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        match name {
            "cpu" => self.cpu = Some(cpu(value)?),
            "packing" => self.packing = Some(packing(value)?),
            "head" => self.head = head(value)?,
            "kv" => self.kv = kv(value)?,
            "activations" => self.activations = Some(activations(value)?),
            "zeros" => self.zeros = zeros(value)?,
            _ => return Err("expected cpu, packing, head, kv, activations, zeros or threads".to_owned()),
        }
        Ok(())
    }

    /// How its file is opened.
    pub(crate) fn file(&self) -> OpenOptions {
        OpenOptions { i2s_arm: self.i2s_arm, copy: self.no_mmap }
    }

    fn options(&self, threads: Option<usize>) -> Options {
        let Self { packing, head, kv, activations, zeros, floats, i2s_arm, no_mmap, .. } = *self;
        let cpu = self.cpu.clone();
        Options { cpu, threads, packing, head, kv, activations, zeros, floats, i2s_arm, copy: no_mmap }
    }
}

/// What the first word of a command names.
#[derive(Clone)]
pub(crate) enum Named {
    /// The built-in model.
    Story,
    /// A file or a directory that is there.
    Path(PathBuf),
}

/// Finds what `word` names: the built-in model, a path, or a model that was downloaded under this name. `story` wins over a
/// file of that name, which `./story` reaches.
pub(crate) fn find(word: &Path) -> Outcome<Named> {
    if word == Path::new(STORY) {
        return Ok(Named::Story);
    }
    match std::fs::metadata(word) {
        Ok(_) => Ok(Named::Path(word.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match hub::cached(word) {
            Some(path) => Ok(Named::Path(path)),
            None => Err(not_found(word)),
        },
        Err(error) => Err(Failure::failed(format!("{}: {error}", word.display()))),
    }
}

/// Where a model comes from, for people who have none. The size is that of the file on the Hub; the memory is the same,
/// and 0.3 GB for the output head in 8 bits.
pub(crate) const DOWNLOAD: &str = "for a first model, BitNet b1.58 2B4T (1.2 GB to download, 1.6 GB of memory): \
    `tern chat bitnet-2b`; `tern list --known` prints more names";

const WHAT: &str = "a model is a .gguf file, a directory with config.json and .safetensors files, a name such as `bitnet-2b` or \
     `ORG/REPO`, or `story` (built in)";

/// Whether a word names a model, and no command.
pub(crate) fn is_model(word: &str) -> bool {
    let path = Path::new(word);
    word == STORY
        || path.extension().is_some_and(|extension| extension == "gguf" || extension == "safetensors")
        || path.join("config.json").is_file()
}

fn not_found(word: &Path) -> Failure {
    let name = word.display();
    let text = word.to_string_lossy();
    if text.contains(char::is_whitespace) && !text.contains(['/', '\\']) && !is_model(&text) {
        return Failure::failed(format!("no model is called `{name}`, and no file or directory is either"))
            .hint("the first word is the model: `tern run story \"Once upon a time\"`");
    }
    if hub::name(word).is_some() && !is_model(&text) {
        return hub::not_here(&text);
    }
    let place = match std::env::current_dir() {
        Ok(here) if word.is_relative() => format!(", looked for in {}", here.display()),
        _ => String::new(),
    };
    Failure::failed(format!("{name}: no such file or directory{place}")).hint(WHAT).hint(DOWNLOAD)
}

/// What to say about a directory that is no model: it may hold some.
fn instead_of(directory: &Path) -> String {
    let entries = std::fs::read_dir(directory).into_iter().flatten().take(1000).flatten();
    let paths = entries.map(|entry| entry.path());
    let mut models: Vec<String> = paths
        .filter(|path| is_model(&path.to_string_lossy()))
        .map(|path| path.display().to_string())
        .collect();
    models.sort();
    models.truncate(3);
    match models[..] {
        [] => WHAT.to_owned(),
        _ => format!("there are models inside: {}", models.join(", ")),
    }
}

impl Named {
    /// Its file; no weights are read.
    pub(crate) fn file(self, options: OpenOptions) -> Outcome<File> {
        Ok(match self {
            Self::Story => tern::story_file()?,
            Self::Path(path) => match file::open(&path, options) {
                Err(error) if path.is_dir() && !path.join("config.json").exists() => {
                    return Err(Failure::from(error).hint(instead_of(&path)));
                }
                opened => opened?,
            },
        })
    }

    /// Its tokenizer, which may be all there is.
    pub(crate) fn tokenizer(self) -> Outcome<Tokenizer> {
        match self {
            Self::Path(path) => Ok(Tokenizer::open(&path)?),
            Self::Story => {
                Ok(Tokenizer::from_file(&tern::story_file()?)?.expect("the built-in model has a tokenizer"))
            }
        }
    }
}

/// A model and what its file says about using it.
pub(crate) struct Loaded {
    pub(crate) model: Model,
    /// The file asks for prompts without the chat template.
    pub(crate) raw: bool,
    pub(crate) load_time: Duration,
}

/// Opens the model that `word` names, to run on so many threads.
pub(crate) fn open(word: &Path, machine: &MachineArgs, threads: Option<usize>) -> Outcome<Loaded> {
    let start = Instant::now();
    let file = find(word)?.file(machine.file())?;
    if is_dummy(&file) {
        terminal::warning(&format!(
            "{} holds random weights, made by `tern dummy` to measure speed",
            word.display()
        ));
    }
    let raw = match &file.metadata {
        Metadata::Gguf(pairs) => pairs.str(keys::PROMPT)?,
        Metadata::Hf { config, .. } => config.get(keys::PROMPT).and_then(Value::as_str),
    };
    let raw = match raw {
        None | Some("chat") => false,
        Some("raw") => true,
        Some(other) => {
            let what = format!("expected `raw` or `chat`, found `{other}`");
            return Err(tern::Error::key(&file.keys_path(), keys::PROMPT, what).into());
        }
    };
    let model = Model::from_file(&file, &machine.options(threads))?;
    model.warnings().iter().for_each(|warning| terminal::warning(warning));
    Ok(Loaded { model, raw, load_time: start.elapsed() })
}

/// Opens a model for a server, whose thread it is that waits.
pub(crate) fn open_for_server(
    named: &Named,
    machine: &MachineArgs,
    threads: Option<usize>,
) -> tern::Result<Model> {
    let file = match named {
        Named::Story => tern::story_file()?,
        Named::Path(path) => file::open(path, machine.file())?,
    };
    Model::from_file(&file, &machine.options(threads))
}

/// Says so where a model will not read the system message that `giver` gives.
pub(crate) fn warn_of_system(giver: &str, template: &Template) {
    if !template.reads_system() {
        terminal::warning(&format!(
            "{giver} is ignored: this model's chat template has no place for a system message"
        ));
        terminal::hint("say it in the prompt");
    }
}

/// The source of a file's chat template, where there is one that can be read.
pub(crate) fn template_of(file: &File) -> Option<String> {
    match &file.metadata {
        Metadata::Gguf(pairs) => tern::tokenizer::template_of(pairs).ok()?.map(str::to_owned),
        Metadata::Hf { dir, tokenizer_config, .. } => {
            tern::tokenizer::template_beside(dir, tokenizer_config.as_ref().unwrap_or(&Value::Null)).ok()?
        }
    }
}

/// Whether a file says that its weights are random.
pub(crate) fn is_dummy(file: &File) -> bool {
    match &file.metadata {
        Metadata::Gguf(pairs) => matches!(pairs.bool(keys::DUMMY), Ok(Some(true))),
        Metadata::Hf { config, .. } => config.get(keys::DUMMY) == Some(&Value::Bool(true)),
    }
}

/// Parses a number of threads.
pub(crate) fn threads(text: &str) -> Result<usize, String> {
    number(text, "", |n| (1..=MAX_THREADS).contains(n))
        .map_err(|_| format!("expected a whole number from 1 to {MAX_THREADS}"))
}

fn cpu(text: &str) -> Result<String, String> {
    let names: Vec<_> = Cpu::available().into_iter().map(Cpu::name).collect();
    if names.contains(&text) { Ok(text.to_owned()) } else { Err(expected(&names)) }
}

fn head(text: &str) -> Result<Head, String> {
    Head::from_name(text).ok_or_else(|| expected(&Head::CHOICES.map(Head::name)))
}

fn activations(text: &str) -> Result<Rounding, String> {
    Rounding::from_name(text).ok_or_else(|| expected(&Rounding::ALL.map(Rounding::name)))
}

fn zeros(text: &str) -> Result<Zeros, String> {
    Zeros::from_name(text).ok_or_else(|| expected(&Zeros::ALL.map(Zeros::name)))
}

fn packing(text: &str) -> Result<Packing, String> {
    Packing::from_name(text).ok_or_else(|| expected(&Packing::ALL.map(Packing::name)))
}

fn kv(text: &str) -> Result<KvFormat, String> {
    KvFormat::from_name(text).ok_or_else(|| expected(&KvFormat::NAMES))
}
