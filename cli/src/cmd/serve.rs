//! `tern serve`: an endpoint for programs and a page for people.

mod layers;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use crate::failure::{Failure, Outcome};
use crate::model::{self, MachineArgs, ThreadsArgs};
use crate::sampling::{SamplingArgs, at_least_one, count, expected, number};
use crate::terminal;

const EXAMPLES: &str = "\
Every flag can also stand in the environment (`TERN_PORT=80` for --port 80) or in the file that --config names \
(`port = 80`); a flag counts before the environment, the environment before the file.

Examples:
  tern serve story                then open http://127.0.0.1:8080 in a browser
  tern serve model.gguf --port 9000 --parallel 4
  tern serve model.gguf --host 0.0.0.0 --api-key-file keys.txt
  curl http://127.0.0.1:8080/v1/chat/completions \\
      -d '{\"messages\": [{\"role\": \"user\", \"content\": \"Hello!\"}]}'";

/// Answer programs and people over HTTP
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Serve {
    /// The model: a file, a directory, or `story` (built in) [default: story]
    model: Option<PathBuf>,
    /// The address to listen on; `0.0.0.0` and `::` are all
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    host: IpAddr,
    /// The port to listen on; 0 takes a free one
    #[arg(long, value_name = "N", default_value_t = 8080)]
    port: u16,
    /// The model's name, as clients see it [default: the file's]
    #[arg(long, value_name = "NAME")]
    alias: Option<String>,
    /// A file of settings, `flag = value` in each line
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What is told on standard error about each request: `text`, `json` or `none`
    #[arg(long, value_name = "FORM", default_value = "text", value_parser = log)]
    log: &'static str,
    #[command(flatten)]
    room: Room,
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    threads: ThreadsArgs,
    #[command(flatten)]
    machine: MachineArgs,
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
    /// Remember the beginnings of prompts for each key apart
    #[arg(long)]
    isolate_keys: bool,
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
        let model = self.model.clone().unwrap_or_else(|| PathBuf::from(tern::STORY));
        // What cannot be opened is told before anything listens.
        model::find(&model)?;
        let options = self.options(&model)?;
        let scheme = if options.tls.is_some() { "https" } else { "http" };
        if !options.loopback && options.keys.is_empty() {
            terminal::warning(&format!(
                "{} can be reached from other machines, and nobody needs a key: `--api-key-file` asks for one",
                self.host
            ));
        }
        let (machine, threads) = (self.machine, self.threads.threads);
        // The warnings of opening a model are printed by its thread.
        let load = move || model::open_for_server(&model, &machine, threads);
        let told = |address| terminal::talk(&format!("listening on {scheme}://{address}\n"));
        tern_serve::serve_until_told((self.host, self.port).into(), load, options, told)
            .map_err(|error| Failure::failed(error.to_string()))
    }

    fn options(&self, model: &Path) -> Outcome<tern_serve::Options> {
        let Access { api_key, api_key_file, isolate_keys, cors, tls_cert, tls_key } = &self.access;
        let mut keys = api_key.clone();
        if let Some(path) = api_key_file {
            let text = std::fs::read_to_string(path)
                .map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
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
        let name =
            || model.file_stem().map_or_else(|| "model".into(), |stem| stem.to_string_lossy().into_owned());
        let seconds = |count: usize| Duration::from_secs(count as u64);
        let form = self.log;
        let room = &self.room;
        Ok(tern_serve::Options {
            name: self.alias.clone().unwrap_or_else(name),
            parallel: room.parallel,
            queue: room.queue,
            context: room.ctx_size,
            kv_memory: room.kv_memory,
            sampling: self.sampling.sampling(),
            breakers: self.sampling.breakers(),
            keys,
            isolate: *isolate_keys,
            cors: cors.clone(),
            loopback: self.host.is_loopback(),
            request_time: seconds(room.request_time),
            grace: seconds(room.grace),
            pause: Duration::from_millis(room.pause as u64),
            tls,
            log: Arc::new(move |entry: &Value| note(form, entry)),
            ..tern_serve::Options::default()
        })
    }
}

/// One line about a request, or about the server.
fn note(form: &str, entry: &Value) {
    let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    match form {
        "json" => terminal::talk(&format!("{entry}\n")),
        "text" if entry["event"] == "ready" => terminal::talk(&format!(
            "{} is ready: {} answers at a time, {} tokens each, {:.1} MiB for keys and values\n",
            text("model"),
            entry["parallel"],
            entry["context"],
            entry["kv_bytes"].as_f64().unwrap_or(0.0) / f64::from(1 << 20),
        )),
        "text" => terminal::talk(&format!(
            "{} {} {} {} ms ({})\n",
            entry["status"],
            text("method"),
            text("path").escape_debug(),
            entry["ms"],
            text("id")
        )),
        _ => {}
    }
}

fn log(text: &str) -> Result<&'static str, String> {
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
