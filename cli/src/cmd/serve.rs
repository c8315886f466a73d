//! `tern serve`: an endpoint for programs and a page for people.

mod layers;
mod library;
mod log;
mod several;

use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tern_serve::{Served, Serving};

use crate::drafts::DraftArgs;
use crate::failure::{Failure, Outcome};
use crate::hub::{self, PullArgs};
use crate::model::{self, MachineArgs, Named, ThreadsArgs};
use crate::sampling::{SamplingArgs, at_least_one, count, expected, number};

const EXAMPLES: &str = "\
Every flag can also stand in the environment (`TERN_PORT=80` for --port 80) or in the file that --config names \
(`port = 80`); a flag counts before the environment, the environment before the file.

Examples:
  tern serve story                then open http://127.0.0.1:8080 in a browser
  tern serve model.gguf story     each loaded on its first use, chosen by name
  tern serve model.gguf --port 9000 --parallel 4
  tern serve --manage-models      clients may `ollama pull` others
  tern serve model.gguf --host 0.0.0.0 --api-key-file keys.txt
  curl http://127.0.0.1:8080/v1/chat/completions \\
      -d '{\"messages\": [{\"role\": \"user\", \"content\": \"Hello!\"}]}'";

/// Answer programs and people over HTTP
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Serve {
    /// The model, or several: files, directories, folders of models, names, or `story` (built in) [default: story]
    #[arg(value_name = "MODEL")]
    models: Vec<PathBuf>,
    /// The address to listen on, or a name that stands for one; `0.0.0.0` and `::` are all
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1", value_parser = address)]
    host: IpAddr,
    /// The port to listen on; 0 takes a free one
    #[arg(long, value_name = "N", default_value_t = 8080)]
    port: u16,
    /// The model's name, as clients see it, and others after commas [default: the file's]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    alias: Vec<String>,
    /// A LoRA adapter in PEFT's layout, asked for by the model's name with its own (`model:NAME`); can be given several times
    #[arg(long, value_name = "NAME=DIR", value_parser = adapter)]
    adapter: Vec<(String, PathBuf)>,
    /// A file of settings, `flag = value` in each line
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How each request is told on standard error: `text`, `json` or `none`
    #[arg(long, value_name = "FORM", default_value = "text", value_parser = form)]
    log: &'static str,
    /// How an embedding model makes one vector of a text's states: `last`, `mean` or `cls` [default: as its file says]
    #[arg(long, value_name = "NAME", value_parser = super::embed::pooling)]
    pooling: Option<tern::Pooling>,
    #[command(flatten)]
    room: Room,
    #[command(flatten)]
    access: Access,
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

#[derive(Args)]
#[command(next_help_heading = "Room")]
struct Room {
    /// Answers that are written at the same time
    #[arg(long, value_name = "N", default_value = "16", value_parser = at_least_one)]
    parallel: usize,
    /// Requests that may wait beside them; more are told to come back (429)
    #[arg(long, value_name = "N", default_value = "128", value_parser = count)]
    queue: usize,
    /// Tokens of one conversation, prompt and answer [default: what the model was made for, and memory allows]
    #[arg(short = 'c', long, value_name = "N", value_parser = at_least_one)]
    ctx_size: Option<usize>,
    /// Memory for keys and values, such as `2G` [default: what --parallel needs, at most half of what is free]
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    kv_memory: Option<u64>,
    /// Memory for all loaded models together, keys and values included, where there are several: those that were used
    /// longest ago are unloaded to stay below it [default: three quarters of what is free]
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    model_memory: Option<u64>,
    /// Seconds without a request after which a model of several is unloaded; 0 is never
    #[arg(long, value_name = "S", default_value = "300", value_parser = count)]
    keep_alive: usize,
    /// Memory for all requests together, beside keys and values: bodies, prompts, answers that wait; a request that
    /// finds no room is told to come back (503) [default: 1G, at most a quarter of what is free]
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    request_memory: Option<u64>,
    /// The longest that a step may take for new prompts while others wait for their next token, in ms
    #[arg(long, value_name = "MS", default_value = "200", value_parser = at_least_one)]
    pause: usize,
    /// Seconds after which an answer is cut off
    #[arg(long, value_name = "S", default_value = "1800", value_parser = at_least_one)]
    request_time: usize,
    /// Seconds that running answers get to end in when the server is told to stop
    #[arg(long, value_name = "S", default_value = "30", value_parser = count)]
    grace: usize,
}

#[derive(Args)]
#[command(next_help_heading = "Access")]
struct Access {
    /// A key that requests must bring (`Authorization: Bearer KEY`); can be given several times
    #[arg(long, value_name = "KEY")]
    api_key: Vec<String>,
    /// A file of keys, one in each line
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Let clients download, copy and delete models (Ollama's pull, cp and rm), and serve those that were downloaded before;
    /// else they can use the models that are named here
    #[arg(long)]
    manage_models: bool,
    /// Let keys share the remembered beginnings of prompts; else each has its own, and cannot learn others' by the time
    /// that a prompt takes
    #[arg(long)]
    share_cache: bool,
    /// Tell `/metrics` without a key
    #[arg(long)]
    metrics_open: bool,
    /// A name that the server goes by, such as `ai.example.com`, or `*` for all [default: addresses and names of a
    /// private network; any name where there are keys]
    #[arg(long, value_name = "NAME")]
    allowed_hosts: Vec<String>,
    /// Serve no page to chat on
    #[arg(long)]
    no_page: bool,
    /// Let pages of this origin use the server, such as `https://chat.example.com`, or `*` for all
    #[arg(long, value_name = "ORIGIN")]
    cors: Vec<String>,
    /// Serve HTTPS with this certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The certificate's key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

impl Serve {
    pub(crate) fn run(self) -> Outcome {
        layers::apply(self)?.serve()
    }

    fn serve(self) -> Outcome {
        let mut words = self.models.clone();
        if words.is_empty() {
            words.push(PathBuf::from(tern::STORY));
        }
        let models = several::each(&words);
        // A folder is several also where it holds but one.
        let alone = models.len() == 1 && models == words;
        if !alone && !self.alias.is_empty() {
            return Err(Failure::misused(
                "--alias: one model only can have other names, found several models",
            ));
        }
        if self.drafts.draft.is_some() && (!alone || self.access.manage_models) {
            return Err(Failure::misused(
                "--draft: one model only can have a draft model, found several models",
            ));
        }
        if !self.adapter.is_empty() && (!alone || self.access.manage_models) {
            return Err(Failure::misused(
                "--adapter: one model only can have adapters, found several models",
            ));
        }
        let names: Vec<&str> = self.adapter.iter().map(|(name, _)| name.as_str()).collect();
        if let Some(twice) = (1..names.len()).find(|&at| names[..at].contains(&names[at])) {
            return Err(Failure::misused(format!("--adapter: two are called `{}`", names[twice])));
        }
        for model in models.iter().chain(&self.drafts.draft) {
            hub::fetch(model, &self.pull)?;
        }
        tern::file::end_in_words(if self.log == "json" { log::json_error } else { log::plain_error });
        // What cannot be opened is told before anything listens.
        let maker = several::Maker { machine: self.machine.clone(), threads: self.threads.threads };
        let manages = self.access.manage_models;
        let serving = if alone && !manages {
            let named = model::find(&models[0])?;
            let (file, file_bytes) = file_of(&named);
            let served = Served::new(name_of(&models[0]), maker.load(named));
            Serving::One(Box::new(Served { file, file_bytes, ..self.called(served) }))
        } else {
            let mut all = maker.served(&models)?;
            if alone {
                all = all.into_iter().map(|served| self.called(served)).collect();
            }
            if manages {
                library::add_downloaded(&mut all, &maker);
            }
            Serving::Several(all)
        };
        let mut options = self.options()?;
        if let Some(draft) = &self.drafts.draft {
            let load =
                several::Maker { machine: self.machine.clone(), threads: Some(1) }.load(model::find(draft)?);
            options.draft = Some((draft.display().to_string(), load));
        }
        if manages {
            options.library = Some(Arc::new(library::Downloaded::new(maker, self.pull.is_offline())));
        }
        let log = options.log.clone();
        if !self.host.is_loopback() && options.keys.is_empty() {
            let what = match manages {
                true => {
                    "can be reached from other machines, whose users can download and delete models without a key"
                }
                false => "can be reached from other machines, and nobody needs a key",
            };
            let what = format!("{} {what}: `--api-key-file` asks for one", self.host);
            log.event("warning", json!({"message": what}));
        }
        let panics = log.clone();
        std::panic::set_hook(Box::new(move |panic| {
            panics.event("panic", json!({"message": panic.to_string()}));
        }));
        let address = (self.host, self.port).into();
        let Err(error) = tern_serve::serve_until_told(address, serving, options) else { return Ok(()) };
        // Through the log, too: its reader may stand still.
        log.event("error", json!({"message": error.to_string()}));
        if let tern_serve::Error::Address(_, error) = &error
            && let Some(hint) = log::hint(error.kind(), self.port)
        {
            log.event("hint", json!({"message": hint}));
        }
        log.settle(Duration::from_secs(1));
        Err(Failure::failed(""))
    }

    /// A model with the names of `--alias`.
    fn called(&self, served: Served) -> Served {
        match self.alias.split_first() {
            Some((name, others)) => Served { name: name.clone(), aliases: others.to_vec(), ..served },
            None => served,
        }
    }

    fn options(&self) -> Outcome<tern_serve::Options> {
        let Access {
            api_key,
            api_key_file,
            manage_models: _,
            share_cache,
            metrics_open,
            allowed_hosts,
            no_page,
            cors,
            tls_cert,
            tls_key,
        } = &self.access;
        let mut keys = api_key.clone();
        if let Some(path) = api_key_file {
            let text = small_file(path)?;
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
            let before = keys.len();
            keys.extend(lines.map(str::to_owned));
            if keys.len() == before {
                return Err(Failure::failed(format!(
                    "{}: expected keys, one in each line, found none",
                    path.display()
                )));
            }
        }
        if keys.iter().any(|key| key.trim().is_empty()) {
            return Err(Failure::misused("--api-key: expected a key, found an empty text"));
        }
        let tls = match (tls_cert, tls_key) {
            (Some(certificate), Some(key)) => {
                Some(tern_serve::tls::config(certificate, key).map_err(Failure::failed)?)
            }
            _ => None,
        };
        let seconds = |count: usize| Duration::from_secs(count as u64);
        let form = self.log;
        let room = &self.room;
        let usual = tern_serve::Options::default();
        let request_memory = room.request_memory.map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        Ok(tern_serve::Options {
            request_memory: request_memory.unwrap_or(usual.request_memory),
            parallel: room.parallel,
            queue: room.queue,
            context: room.ctx_size,
            pooling: self.pooling,
            kv_memory: room.kv_memory,
            model_memory: room.model_memory,
            keep_alive: (room.keep_alive > 0).then(|| seconds(room.keep_alive)),
            drafts: self.drafts.drafts(),
            adapters: self.adapter.iter().map(|(name, dir)| (name.clone(), dir.clone(), 1.0)).collect(),
            sampling: self.sampling.sampling(),
            seed: self.sampling.seed(),
            breakers: self.sampling.breakers(),
            isolate: keys.len() > 1 && !share_cache,
            keys,
            page: !no_page,
            cors: cors.clone(),
            hosts: allowed_hosts.clone(),
            metrics_open: *metrics_open,
            request_time: seconds(room.request_time),
            grace: seconds(room.grace),
            pause: Duration::from_millis(room.pause as u64),
            tls,
            log: log::written(form),
            try_grammars: Some(Arc::new(this_program)),
            ..usual
        })
    }
}

/// What `tern serve` runs beside itself: tries the grammars of requests until its input ends.
pub(crate) fn try_grammars() -> Outcome {
    tern_serve::try_grammars().map_err(|error| Failure::failed(error.to_string()))
}

/// This program again, even if its file was replaced meanwhile.
fn this_program() -> std::process::Command {
    let file = match cfg!(target_os = "linux") {
        true => PathBuf::from("/proc/self/exe"),
        false => std::env::current_exe().unwrap_or_else(|_| PathBuf::from("tern")),
    };
    let mut command = std::process::Command::new(file);
    command.arg("try-grammars");
    command
}

/// The name by which a model is served that this word names.
fn name_of(word: &Path) -> String {
    match hub::name(word).filter(|_| !word.exists()) {
        // The dot of `1.58bit` begins no extension in a name of the Hub.
        Some(name) => hub::of(&name).map_or_else(|| name.last().to_owned(), |known| known.name.clone()),
        None => word.file_stem().map_or_else(|| "model".into(), |stem| stem.to_string_lossy().into_owned()),
    }
}

/// A model's file as clients are told of it, and its bytes.
fn file_of(named: &Named) -> (String, u64) {
    match named {
        Named::Story => (tern::STORY.to_owned(), tern::story_bytes()),
        Named::Path(path) => (path.display().to_string(), bytes_of(path)),
    }
}

/// Bytes of a model's file, or of the files in its directory.
fn bytes_of(model: &Path) -> u64 {
    let size =
        |path: &Path| std::fs::metadata(path).ok().filter(|data| data.is_file()).map(|data| data.len());
    let files = || std::fs::read_dir(model).into_iter().flatten().flatten();
    size(model).unwrap_or_else(|| files().filter_map(|file| size(&file.path())).sum())
}

/// A file that people write: of settings, of keys. What is no such file (a device, a disk image) is not read on and on.
fn small_file(path: &Path) -> Outcome<String> {
    const MOST: u64 = 1 << 20;
    let wrong = |what: &str| Failure::failed(format!("{}: {what}", path.display()));
    let file = File::open(path).map_err(|error| wrong(&error.to_string()))?;
    let mut bytes = Vec::new();
    file.take(MOST + 1).read_to_end(&mut bytes).map_err(|error| wrong(&error.to_string()))?;
    if bytes.len() as u64 > MOST {
        return Err(wrong("expected at most 1 MiB of text, found more"));
    }
    String::from_utf8(bytes).map_err(|_| wrong("expected UTF-8 text, found other bytes"))
}

/// Parses an address, or finds the one that a name stands for.
fn address(text: &str) -> Result<IpAddr, String> {
    if let Ok(address) = text.trim_start_matches('[').trim_end_matches(']').parse() {
        return Ok(address);
    }
    let found =
        (text, 0).to_socket_addrs().map_err(|error| format!("no address of this machine: {error}"))?;
    let mut found: Vec<IpAddr> = found.map(|address| address.ip()).collect();
    // Where a name stands for several, clients without IPv6 find the older one.
    found.sort_by_key(IpAddr::is_ipv6);
    found.first().copied().ok_or_else(|| "no address of this machine".to_owned())
}

/// Parses `NAME=DIR`.
fn adapter(text: &str) -> Result<(String, PathBuf), String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    match text.split_once('=') {
        Some((name, dir)) if !name.is_empty() && name.chars().all(is_plain) && !dir.is_empty() => {
            Ok((name.to_owned(), PathBuf::from(dir)))
        }
        _ => Err("expected NAME=DIR, a name of letters, digits, `-`, `_` and `.`".to_owned()),
    }
}

fn form(text: &str) -> Result<&'static str, String> {
    let forms = ["text", "json", "none"];
    forms.into_iter().find(|form| *form == text).ok_or_else(|| expected(&forms))
}

/// Parses `4096`, `512M`, `2G` (of 1024).
fn bytes(text: &str) -> Result<u64, &'static str> {
    let unit = text.trim_end_matches(['B', 'b']).trim_end_matches('i');
    let (digits, shift) = match unit.char_indices().next_back() {
        Some((at, 'k' | 'K')) => (&unit[..at], 10),
        Some((at, 'm' | 'M')) => (&unit[..at], 20),
        Some((at, 'g' | 'G')) => (&unit[..at], 30),
        Some((at, 't' | 'T')) => (&unit[..at], 40),
        _ => (unit, 0),
    };
    const EXPECTED: &str = "expected a number of bytes, such as 2G or 512M";
    let count = number::<u64>(digits, EXPECTED, |count| *count > 0)?;
    count.checked_mul(1 << shift).ok_or(EXPECTED)
}

#[cfg(test)]
mod tests {
    #[test]
    fn bytes_have_units() {
        for (text, bytes) in
            [("1", 1), ("2k", 2048), ("3M", 3 << 20), ("2G", 2 << 30), ("1GiB", 1 << 30), ("5MB", 5 << 20)]
        {
            assert_eq!(super::bytes(text), Ok(bytes), "{text}");
        }
        for bad in ["", "G", "-1", "0", "1.5G", "2X", "99999999999T"] {
            assert!(super::bytes(bad).is_err(), "{bad}");
        }
    }
}
