//! `tern eval ppl`: how well a model predicts a text.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use serde_json::json;
use tern::{Convention, Model, Scorer, Specials, Summary};

use super::hash;
use crate::failure::{Failure, Outcome};
use crate::model::{self, MachineArgs, ThreadsArgs};
use crate::progress::Bar;
use crate::sampling::at_least_one;
use crate::signal;
use crate::terminal;

const EXAMPLES: &str = "\
Perplexities compare only under the same convention, window, text and tokenizer; all are told beside the number. \
Without --stride it is llama.cpp's convention: the text begins with the begin-of-text token, is cut into chunks of -c \
tokens, the second half of each is scored, and an incomplete last chunk is left out. With --stride it is Hugging Face's: \
windows of -c tokens that begin every --stride tokens, each scoring what the windows before it did not.

Examples:
  tern eval ppl model.gguf wiki.test.raw
  tern eval ppl model.gguf wiki.test.raw -c 2048 --stride 512 --json";

/// Perplexity over a text file
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Ppl {
    /// The model: a file, a directory, or `story` (built in)
    model: PathBuf,
    /// The text; .zst and .gz are unpacked
    file: PathBuf,
    /// Tokens in a window [default: 512, or the model's context where that is less]
    #[arg(short = 'c', long, alias = "context", value_name = "N", allow_negative_numbers = true, value_parser = at_least_one)]
    ctx_size: Option<usize>,
    /// Let windows begin every N tokens, as Hugging Face does [default: llama.cpp's chunks]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = at_least_one)]
    stride: Option<usize>,
    /// FILE holds token ids, as `tern tokenize` prints them, and not text; for models without a tokenizer
    #[arg(long)]
    ids: bool,
    /// Score the first N windows only
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = at_least_one)]
    windows: Option<usize>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    threads: ThreadsArgs,
    #[command(flatten)]
    machine: MachineArgs,
}

impl Ppl {
    pub(super) fn run(self) -> Outcome {
        signal::listen()?;
        let text = read(&self.file)?;
        let hash = self.json.then(|| hash::Later::of(&self.model));
        let loaded = model::open(&self.model, &self.machine, self.threads.threads)?;
        let model = &loaded.model;
        let context = window(self.ctx_size, model.config().context)?;
        let ids = if self.ids { listed(&self.file, &text)? } else { tokens(model, &text)? };
        let convention = self.stride.map_or(Convention::Chunks, |stride| Convention::Sliding { stride });
        let begins =
            model.tokenizer().ok().and_then(|tokenizer| tokenizer.bos().filter(|_| tokenizer.adds_bos()));
        let mut windows = convention.windows(ids.len(), context, begins.is_some()).map_err(|error| {
            let (failure, few) = (Failure::from(error), ids.len() < context);
            if few { failure.hint("`-c` makes the windows smaller") } else { failure }
        })?;
        windows.truncate(self.windows.unwrap_or(windows.len()));

        // Before the clock starts: a hash takes a core.
        let hash = hash.and_then(hash::Later::get);
        let (mut scorer, mut sum) = (Scorer::new(model, 1), Summary::default());
        let mut bar = Bar::steps();
        let start = Instant::now();
        for (nth, window) in windows.iter().enumerate() {
            let running =
                if nth == 0 { String::new() } else { format!("perplexity {:.4}", sum.perplexity()) };
            bar.step(nth, windows.len(), running);
            let mut tokens = ids[window.tokens.clone()].to_vec();
            if let Some(first) = begins.filter(|_| window.begins) {
                tokens[0] = first;
            }
            scorer.window(&tokens, window.from)?.iter().for_each(|scored| sum.add(scored.logprob));
        }
        bar.clear();
        let seconds = start.elapsed().as_secs_f64();
        let speed = scorer.rows() as f64 / seconds;
        let bits = (!self.ids).then(|| bits_per_byte(&sum, ids.len(), text.len()));
        let means = match self.stride {
            None => format!("llama.cpp's: chunks of {context}, second halves scored"),
            Some(stride) => format!("Hugging Face's: windows of {context}, stride {stride}"),
        };
        if self.json {
            return terminal::print_json(&json!({
                "perplexity": sum.perplexity(),
                "error": sum.error(),
                "bits_per_byte": bits,
                "nll": sum.mean(),
                "tokens_scored": sum.tokens,
                "tokens": ids.len(),
                "bytes": text.len(),
                "windows": windows.len(),
                "context": context,
                "stride": self.stride,
                "convention": if self.stride.is_some() { "sliding" } else { "chunks" },
                "begin_token": begins,
                "seconds": seconds,
                "tokens_per_second": speed,
                "settings": super::settings(model),
                "model": self.model.display().to_string(),
                "model_sha256": hash,
                "file": self.file.display().to_string(),
                "file_sha256": hash::hex(text.as_bytes()),
            }));
        }
        terminal::print(&format!(
            "perplexity     {:.4} ± {:.4}\nbits per byte  {}\nconvention     {means}\nscored         {} of {} tokens in {} windows, {:.1} s, {speed:.1} tokens/s\nsettings       {}\n",
            sum.perplexity(),
            sum.error(),
            bits.map_or("–".to_owned(), |bits| format!("{bits:.4}")),
            sum.tokens,
            ids.len(),
            windows.len(),
            seconds,
            super::settings_line(model),
        ))
    }
}

/// The tokens of a window: what was asked for, or the usual number where the model has as many.
pub(super) fn window(asked: Option<usize>, most: usize) -> Outcome<usize> {
    const USUAL: usize = 512;
    match asked {
        Some(tokens) if tokens > most => {
            Err(Failure::misused(format!("-c {tokens}: expected at most {most}, the context of the model")))
        }
        asked => Ok(asked.unwrap_or(USUAL.min(most))),
    }
}

/// Bits that the model needs for a byte of the text, by the mean of the scored tokens.
fn bits_per_byte(sum: &Summary, tokens: usize, bytes: usize) -> f64 {
    sum.mean() / std::f64::consts::LN_2 * tokens as f64 / bytes as f64
}

/// The ids in a file.
pub(super) fn listed(path: &Path, text: &str) -> Outcome<Vec<u32>> {
    let wrong =
        |error| Failure::failed(format!("{}: expected a JSON list of token ids: {error}", path.display()));
    serde_json::from_str(text).map_err(wrong)
}

/// The text of a file, unpacked as for training where its name ends in `.zst` or `.gz`.
pub(super) fn read(path: &Path) -> Outcome<String> {
    let name = path.display().to_string();
    let (file, _) = tern_train::data::open(path)?;
    let text = terminal::read_text(file, &name)?;
    if text.is_empty() {
        Err(Failure::failed(format!("{name}: expected text, found an empty file")))
    } else {
        Ok(text)
    }
}

/// The tokens of a text, begun as the model's texts begin.
pub(super) fn tokens(model: &Model, text: &str) -> Outcome<Vec<u32>> {
    let tokenizer = model.tokenizer()?;
    Ok(tokenizer.encode(text, tokenizer.adds_bos(), Specials::Text)?)
}
