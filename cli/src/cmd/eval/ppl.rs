//! `tern eval ppl`: how well a model predicts a text.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use serde_json::json;
use tern::{Model, Specials};
use tern_eval::{Convention, Scorer, Summary, Window};
use tern_train::data::{Document, Rules, documents};

use super::{Common, hash};
use crate::adapter::AdapterArgs;
use crate::failure::{Failure, Outcome};
use crate::progress::Bar;
use crate::sampling::at_least_one;
use crate::signal;
use crate::terminal;

const EXAMPLES: &str = "\
Perplexities compare only under the same convention, window, text and tokenizer; all are told beside the number. \
Without --stride it is llama.cpp's convention: the text begins with the begin-of-text token, is cut into chunks of -c \
tokens, the second half of each is scored, and an incomplete last chunk is left out. With --stride it is Hugging Face's: \
windows of -c tokens that begin every --stride tokens, each scoring what the windows before it did not. With --documents \
it is neither: each document of FILE (text with a separator, or JSON lines, as `tern train` reads them) is scored by \
itself, all of its tokens behind the begin-of-text token; one longer than -c in windows that begin every --stride tokens \
[half of -c].

Examples:
  tern eval ppl model.gguf wiki.test.raw
  tern eval ppl model.gguf wiki.test.raw -c 2048 --stride 512 --json
  tern eval ppl model.gguf stories.txt --documents
  tern eval ppl model.gguf held-out.jsonl --documents";

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
    /// Score each document of FILE by itself, behind the begin-of-text token
    #[arg(long, conflicts_with = "ids")]
    documents: bool,
    /// What stands between the documents of a text file
    #[arg(long, value_name = "TEXT", default_value = "<|endoftext|>", requires = "documents")]
    separator: String,
    /// Score the first N windows only
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = at_least_one)]
    windows: Option<usize>,
    #[command(flatten)]
    adapter: AdapterArgs,
    #[command(flatten)]
    common: Common,
}

impl Ppl {
    pub(super) fn run(self) -> Outcome {
        signal::listen()?;
        let text = if self.documents { String::new() } else { read(&self.file)? };
        let hash = self.common.json.then(|| hash::Later::of(&self.model));
        let loaded = self.common.open(&self.model)?;
        let model = &loaded.model;
        let adapter = self.adapter.open(model)?;
        let context = window(self.ctx_size, model.config().context)?;
        let begins =
            model.tokenizer().ok().and_then(|tokenizer| tokenizer.bos().filter(|_| tokenizer.adds_bos()));
        let Plan { ids, mut windows, documents, bytes } = if self.documents {
            self.one_by_one(model, context)?
        } else {
            self.whole(model, &text, context, begins)?
        };
        windows.truncate(self.windows.unwrap_or(windows.len()));

        // Begin-of-text tokens are no bytes of the text.
        let begun = if self.documents && begins.is_some() { documents } else { 0 };
        let convention = match self.stride {
            _ if self.documents => "documents",
            Some(_) => "sliding",
            None => "chunks",
        };

        let adapter_path = adapter.as_ref().map(|adapter| adapter.path().display().to_string());
        // Before the clock starts: a hash takes a core.
        let hash = hash.and_then(hash::Later::get);
        let (mut scorer, mut sum) = (Scorer::new(model, 1).with_adapter(adapter), Summary::default());
        let mut bar = Bar::steps();
        let start = Instant::now();
        for (nth, window) in windows.iter().enumerate() {
            let running =
                if nth == 0 { String::new() } else { format!("perplexity {:.4}", sum.perplexity()) };
            bar.step(nth, windows.len(), running);
            scorer
                .window(&window.of(&ids, begins), window.from)?
                .iter()
                .for_each(|scored| sum.add(scored.logprob));
        }
        bar.clear();
        let seconds = start.elapsed().as_secs_f64();
        let speed = scorer.rows() as f64 / seconds;
        let bits = (!self.ids).then(|| bits_per_byte(&sum, ids.len() - begun, bytes));
        let means = match self.stride {
            _ if self.documents => format!("{documents} documents one by one, windows of {context}"),
            None => format!("llama.cpp's: chunks of {context}, second halves scored"),
            Some(stride) => format!("Hugging Face's: windows of {context}, stride {stride}"),
        };
        if self.common.json {
            return terminal::print_json(&json!({
                "perplexity": sum.perplexity(),
                "error": sum.error(),
                "bits_per_byte": bits,
                "nll": sum.mean(),
                "tokens_scored": sum.tokens,
                "tokens": ids.len(),
                "bytes": bytes,
                "documents": self.documents.then_some(documents),
                "windows": windows.len(),
                "context": context,
                "stride": self.stride,
                "convention": convention,
                "begin_token": begins,
                "seconds": seconds,
                "tokens_per_second": speed,
                "settings": super::settings(model),
                "model": self.model.display().to_string(),
                "model_sha256": hash,
                "adapter": adapter_path,
                "file": self.file.display().to_string(),
                "file_sha256": if self.documents { hash::file(&self.file) } else { Some(hash::hex(text.as_bytes())) },
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

/// What is scored.
struct Plan {
    ids: Vec<u32>,
    windows: Vec<Window>,
    documents: usize,
    bytes: usize,
}

impl Ppl {
    /// The file as one text.
    fn whole(&self, model: &Model, text: &str, context: usize, begins: Option<u32>) -> Outcome<Plan> {
        let ids = if self.ids { listed(&self.file, text)? } else { tokens(model, text)? };
        let convention = self.stride.map_or(Convention::Chunks, |stride| Convention::Sliding { stride });
        let windows = convention.windows(ids.len(), context, begins.is_some()).map_err(|error| {
            let (failure, few) = (Failure::from(error), ids.len() < context);
            if few { failure.hint("`-c` makes the windows smaller") } else { failure }
        })?;
        Ok(Plan { ids, windows, documents: 1, bytes: text.len() })
    }

    /// Each document by itself. Nothing predicts the first token of one where the model's texts begin with no token.
    fn one_by_one(&self, model: &Model, context: usize) -> Outcome<Plan> {
        let (mut plan, mut failure) =
            (Plan { ids: Vec::new(), windows: Vec::new(), documents: 0, bytes: 0 }, None);
        let convention = Convention::Sliding { stride: self.stride.unwrap_or((context / 2).max(1)) };
        let rules = Rules { text_key: "text", separator: &self.separator, join_lines: false };
        documents(&self.file, rules, |document, line| {
            let Document::Text(text) = document else {
                let what = "is a conversation, expected a document of text";
                return Err(tern_train::Error::line(&self.file, line, what));
            };
            let ids = match tokens(model, &text) {
                Ok(ids) if ids.len() < 2 => return Ok(()),
                Ok(ids) => ids,
                Err(error) => {
                    failure.get_or_insert(error);
                    return Ok(());
                }
            };
            let start = plan.ids.len();
            let windows = convention.windows(ids.len(), context, false)?;
            plan.windows.extend(windows.into_iter().map(|window| Window {
                tokens: window.tokens.start + start..window.tokens.end + start,
                ..window
            }));
            plan.ids.extend(ids);
            plan.documents += 1;
            plan.bytes += text.len();
            Ok(())
        })?;
        match (failure, plan.documents) {
            (Some(failure), _) => Err(failure),
            (None, 0) => Err(Failure::failed(format!(
                "{}: expected documents of two tokens or more, found none",
                self.file.display()
            ))),
            (None, _) => Ok(plan),
        }
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
