//! `tern eval compare`: how far the logits of two models, or of one model under two settings, are apart.

use std::path::PathBuf;
use std::sync::Mutex;

use clap::Args;
use serde_json::{Value, json};
use tern::{LogSum, Logits, Model, Row, Scratch, Sequence};
use tern_eval::{Apart, Convention, Divergence};

use super::{Common, hash};
use crate::failure::{Failure, Outcome};
use crate::model;
use crate::progress::Bar;
use crate::sampling::at_least_one;
use crate::signal;
use crate::terminal;

const EXAMPLES: &str = "\
The flags under Machine are those of the first; --with changes some of them for the second. Zero divergence and 100 % \
identical means that every bit of every logit is the same.

Examples:
  tern eval compare a.gguf b.gguf --text wiki.test.raw
  tern eval compare model.gguf --text wiki.test.raw --kv f32 --with kv=int8
  tern eval compare model.gguf --text page.txt --with cpu=scalar,packing=i2";

/// Divergence of the logits of two models or settings over a text
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Compare {
    /// The first: a file, a directory, or `story` (built in)
    model: PathBuf,
    /// The second [default: the first]
    other: Option<PathBuf>,
    /// The text
    #[arg(long, value_name = "FILE")]
    text: PathBuf,
    /// FILE holds token ids, as `tern tokenize` prints them, and not text; for models without a tokenizer
    #[arg(long)]
    ids: bool,
    /// Settings of the second: `cpu`, `packing`, `head`, `kv`, `activations` and `threads`, as NAME=VALUE with commas between
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    with: Vec<String>,
    /// Tokens in a window [default: 512, or the models' context where that is less]
    #[arg(short = 'c', long, alias = "context", value_name = "N", allow_negative_numbers = true, value_parser = at_least_one)]
    ctx_size: Option<usize>,
    /// Compare over the first N windows only
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = at_least_one)]
    windows: Option<usize>,
    #[command(flatten)]
    common: Common,
}

impl Compare {
    pub(super) fn run(self) -> Outcome {
        signal::listen()?;
        if self.other.is_none() && self.with.is_empty() {
            return Err(Failure::misused("one model under one setting has nothing to be compared with")
                .hint("name a second model, or what `--with` changes: `--with kv=int8`"));
        }
        let text = super::ppl::read(&self.text)?;
        let other = self.other.as_ref().unwrap_or(&self.model);
        let mut second = self.common.machine.clone();
        let mut threads = self.common.threads.threads;
        for setting in &self.with {
            let (name, value) = setting
                .split_once('=')
                .ok_or_else(|| Failure::misused(format!("--with {setting}: expected NAME=VALUE")))?;
            match name {
                "threads" => threads = Some(model::threads(value).map_err(|what| misused(setting, &what))?),
                _ => second.set(name, value).map_err(|what| misused(setting, &what))?,
            }
        }
        let hashes = [&self.model, other].map(|path| self.common.json.then(|| hash::Later::of(path)));
        let a = self.common.open(&self.model)?.model;
        let b = model::open(other, &second, threads)?.model;
        if a.config().vocab != b.config().vocab {
            let what = format!(
                "vocabularies of {} and {} tokens do not compare",
                a.config().vocab,
                b.config().vocab
            );
            return Err(Failure::failed(what));
        }
        let most = a.config().context.min(b.config().context);
        let window = super::ppl::window(self.ctx_size, most)?;
        let ids = match self.ids {
            true => super::ppl::listed(&self.text, &text)?,
            false => super::ppl::tokens(&a, &text)?,
        };
        if !self.ids && super::ppl::tokens(&b, &text)? != ids {
            return Err(Failure::failed("the two cut the text into different tokens"));
        }
        let context = window.min(ids.len());
        let mut windows = (Convention::Sliding { stride: context }).windows(ids.len(), context, false)?;
        windows.truncate(self.windows.unwrap_or(windows.len()));
        let mut sum = Divergence::default();
        let mut bar = Bar::steps();
        let mut pair = Pair { models: [&a, &b], scratch: Default::default() };
        for (nth, window) in windows.iter().enumerate() {
            bar.step(nth, windows.len(), format!("mean divergence {:.2e}", sum.mean().0));
            pair.window(&ids[window.tokens.clone()], &mut sum)?;
        }
        bar.clear();
        self.show(&sum, context, [&a, &b], hashes.map(|hash| hash.and_then(hash::Later::get)))
    }

    fn show(
        &self,
        sum: &Divergence,
        context: usize,
        models: [&Model; 2],
        hashes: [Option<String>; 2],
    ) -> Outcome {
        let (kl, error) = sum.mean();
        let share = |count: usize| count as f64 / sum.tokens as f64;
        let perplexity = sum.predict.map(|predict| predict.perplexity());
        let names =
            [&self.model, self.other.as_ref().unwrap_or(&self.model)].map(|path| path.display().to_string());
        if self.common.json {
            let side = |at: usize| -> Value {
                json!({
                    "model": names[at],
                    "model_sha256": hashes[at],
                    "settings": super::settings(models[at]),
                    "perplexity": perplexity[at],
                })
            };
            return terminal::print_json(&json!({
                "kl": kl,
                "kl_error": error,
                "kl_largest": sum.largest_kl,
                "top1_agreement": share(sum.agree),
                "identical": share(sum.identical),
                "largest_logit_difference": sum.largest,
                "tokens": sum.tokens,
                "context": context,
                "file": self.text.display().to_string(),
                "a": side(0),
                "b": side(1),
            }));
        }
        terminal::print(&format!(
            "divergence          {kl:.3e} ± {error:.1e} nats a token, at most {:.3e}\n\
             same likeliest      {:.3}%\nidentical           {:.3}%\nlargest difference  {:.3e} of a logit\n\
             perplexity          {:.4} and {:.4}\npositions           {}\nfirst               {}, {}\nsecond              {}, {}\n",
            sum.largest_kl,
            100.0 * share(sum.agree),
            100.0 * share(sum.identical),
            sum.largest,
            perplexity[0],
            perplexity[1],
            sum.tokens,
            names[0],
            super::settings_line(models[0]),
            names[1],
            super::settings_line(models[1]),
        ))
    }
}

fn misused(setting: &str, what: &str) -> Failure {
    Failure::misused(format!("--with {setting}: {what}"))
}

struct Pair<'a> {
    models: [&'a Model; 2],
    scratch: [Scratch; 2],
}

impl Pair<'_> {
    /// Compares after every token of a window but the last, whose next one is not known.
    fn window(&mut self, tokens: &[u32], sum: &mut Divergence) -> Outcome {
        /// Positions whose logits of the first are kept while the second computes its own.
        const PIECE: usize = 64;
        let vocab = self.models[0].config().vocab;
        let [mut one, mut two] = self.models.map(|model| [Sequence::new(model, tokens.len())]);
        let [of_first, of_second] = &mut self.scratch;
        let last = tokens.len() - 1;
        for (nth, piece) in tokens[..last].chunks(PIECE).enumerate() {
            let next = &tokens[nth * PIECE + 1..];
            let row = |&token: &u32| Row { sequence: 0, token, logits: Logits::All };
            let rows: Vec<Row> = piece.iter().map(row).collect();
            let first = self.models[0].forward(of_first, &mut one, &rows)?;
            let results = Mutex::new(vec![None; rows.len()]);
            self.models[1].forward_each(of_second, &mut two, &rows, |at, second| {
                let first = &first[at * vocab..][..vocab];
                let of = |logits: &[f32]| LogSum::of(logits).logprob(logits[next[at] as usize]);
                let result = (Apart::of(first, second), [of(first), of(second)]);
                results.lock().expect("no panic under this lock")[at] = Some(result);
            })?;
            // In the order of the text, so that sums are the same however many threads there are.
            let results = results.into_inner().expect("no panic under this lock");
            results.into_iter().flatten().for_each(|(apart, logprobs)| sum.add(apart, logprobs));
        }
        Ok(())
    }
}
