//! `tern embed`: texts in, vectors out, or the texts that are nearest to a query.

mod npy;
mod read;

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use tern::embed::{BITS, codes, pack, shortened};
use tern::{Embedder, Pooling};

use self::read::Text;
use crate::failure::{Failure, Outcome};
use crate::model::{self, MachineArgs, ThreadsArgs};
use crate::progress::Bar;
use crate::sampling::{at_least_one, expected};
use crate::terminal;

const EXAMPLES: &str = "\
Examples:
  tern embed model.gguf \"a text\" \"another\"          a line of JSON for each text
  tern embed model.gguf < lines.txt > vectors.jsonl   a text in each line
  tern embed model.gguf --file texts.jsonl --out vectors.npy --bits 8
  tern embed model.gguf --file lines.txt --query \"How do I bake bread?\" --top 3";

/// Turn texts into vectors with an embedding model, or find those nearest to a query
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Embed {
    /// An embedding model: a file or a directory
    model: PathBuf,
    /// The texts; without any, each line of standard input is one
    #[arg(conflicts_with = "file")]
    texts: Vec<String>,
    /// Take a text from each line of this file; of a `.jsonl` file, each line is a JSON string or an object with `text`,
    /// whose `id` is told again
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Lines of standard input are JSON, as those of a `.jsonl` file
    #[arg(long)]
    jsonl: bool,
    /// Write to this file and not to standard output: JSON lines, or NumPy's format where its name ends in `.npy`
    #[arg(long, value_name = "FILE", conflicts_with = "query")]
    out: Option<PathBuf>,
    /// Print the texts that are nearest to this one, by the cosine of their vectors; its own is floats, whatever `--bits` says
    #[arg(long, value_name = "TEXT")]
    query: Option<String>,
    /// How many of them
    #[arg(long, value_name = "N", default_value = "10", value_parser = at_least_one, requires = "query")]
    top: usize,
    /// Print them as JSON lines
    #[arg(long, requires = "query")]
    json: bool,
    /// Keep the first N numbers of each vector, brought to length 1 again
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    dimensions: Option<usize>,
    /// Bits for each number: 32 (floats), 8, 4, 2 or 1 (integers in proportion to them)
    #[arg(long, value_name = "N", default_value = "32", value_parser = bits)]
    bits: u32,
    /// How the states of a text's tokens become one vector: `last`, `mean` or `cls` [default: as the model's file says]
    #[arg(long, value_name = "NAME", value_parser = pooling)]
    pooling: Option<Pooling>,
    #[command(flatten)]
    threads: ThreadsArgs,
    #[command(flatten)]
    machine: MachineArgs,
}

/// A vector in the width that was asked for.
enum Vector {
    Floats(Vec<f32>),
    Codes(Vec<i8>),
}

impl Vector {
    fn new(floats: Vec<f32>, dimensions: Option<usize>, bits: u32) -> Outcome<Self> {
        let floats = shorter(floats, dimensions)?;
        Ok(if bits == 32 { Self::Floats(floats) } else { Self::Codes(codes(&floats, bits)) })
    }

    /// The cosine of this vector, as it is kept, and a query, which is kept nowhere and loses nothing.
    fn cosine(&self, query: &[f32]) -> f64 {
        let numbers: Vec<f64> = match self {
            Self::Floats(floats) => floats.iter().map(|x| f64::from(*x)).collect(),
            Self::Codes(codes) => codes.iter().map(|code| f64::from(*code)).collect(),
        };
        let square = |x: f64| x * x;
        let product: f64 = numbers.iter().zip(query).map(|(x, query)| x * f64::from(*query)).sum();
        let lengths = numbers.iter().copied().map(square).sum::<f64>()
            * query.iter().map(|x| square(f64::from(*x))).sum::<f64>();
        if lengths > 0.0 { product / lengths.sqrt() } else { 0.0 }
    }

    /// As JSON; floats in as few digits as tell them apart.
    fn json(&self) -> String {
        let written = match self {
            Self::Floats(floats) => serde_json::to_string(floats),
            Self::Codes(codes) => serde_json::to_string(codes),
        };
        written.expect("finite numbers are JSON")
    }

    /// As bytes of a `.npy`.
    fn bytes(&self, bits: u32) -> Vec<u8> {
        match self {
            Self::Floats(floats) => floats.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::Codes(codes) => pack(codes, bits),
        }
    }
}

/// The first `dimensions` numbers of a vector, all of them if none is asked for.
fn shorter(floats: Vec<f32>, dimensions: Option<usize>) -> Outcome<Vec<f32>> {
    Ok(match dimensions {
        Some(dimensions) => shortened(floats, dimensions)?,
        None => floats,
    })
}

impl Embed {
    pub(crate) fn run(self) -> Outcome {
        let loaded = model::open(&self.model, &self.machine, self.threads.threads)?;
        let model = &loaded.model;
        let mut embedder = Embedder::new(model, self.pooling)?;
        let dim = model.config().dim;
        if let Some(wanted) = self.dimensions.filter(|wanted| *wanted > dim) {
            return Err(Failure::misused(format!("--dimensions {wanted}: the model's vectors have {dim}")));
        }
        let texts = self.read()?;
        if texts.is_empty() {
            return Err(Failure::failed("no text was given: lines without a character are none"));
        }
        let tokens = |(at, text): (usize, &Text)| {
            let named = |what: String| Failure::failed(format!("text {} ({}): {what}", at + 1, text.start()));
            Embedder::tokens(model, &text.text).map_err(|error| named(error.to_string()))
        };
        let tokens: Vec<Vec<u32>> = texts.iter().enumerate().map(tokens).collect::<Outcome<_>>()?;
        let mut bar = Bar::steps();
        let mut vectors = Vec::with_capacity(texts.len());
        let all = texts.len();
        for piece in tokens.chunks(64) {
            let done = vectors.len();
            let floats = embedder.embed(piece, |more| bar.step(done + more, all, "texts".to_owned()))?;
            for floats in floats {
                vectors.push(Vector::new(floats, self.dimensions, self.bits)?);
            }
        }
        bar.clear();
        match (&self.query, &self.out) {
            (Some(query), _) => {
                let query = Embedder::tokens(model, query)?;
                let floats = embedder.embed(&[query], |_| {})?.pop().expect("a vector for each text");
                self.neighbours(&shorter(floats, self.dimensions)?, &texts, &vectors)
            }
            (None, Some(path)) => self.write(path, &texts, &vectors),
            (None, None) => {
                let mut out = io::BufWriter::new(io::stdout().lock());
                let written = lines(&mut out, &texts, &vectors).and_then(|()| out.flush());
                written.map_err(|error| Failure::output(&error))
            }
        }
    }

    fn read(&self) -> Outcome<Vec<Text>> {
        if !self.texts.is_empty() {
            return Ok(self.texts.iter().cloned().map(Text::plain).collect());
        }
        let Some(path) = &self.file else {
            return read::lines(
                &terminal::read_text(io::stdin().lock(), "standard input")?,
                self.jsonl,
                "line",
            );
        };
        let name = path.display().to_string();
        let file = File::open(path).map_err(|error| Failure::failed(format!("{name}: {error}")))?;
        let jsonl = self.jsonl || path.extension().is_some_and(|end| end == "jsonl");
        read::lines(&terminal::read_text(file, &name)?, jsonl, &format!("{name}, line"))
    }

    fn neighbours(&self, query: &[f32], texts: &[Text], vectors: &[Vector]) -> Outcome {
        let mut ranked: Vec<(usize, f64)> =
            vectors.iter().map(|vector| vector.cosine(query)).enumerate().collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let mut page = String::new();
        for (rank, (index, score)) in ranked.into_iter().take(self.top).enumerate() {
            let text = &texts[index];
            if self.json {
                let mut line = json!({"rank": rank + 1, "index": index, "score": score, "text": text.text});
                if let Some(id) = &text.id {
                    line["id"] = id.clone();
                }
                page += &format!("{line}\n");
            } else {
                page += &format!("{score:.4}  {}\n", terminal::one_line(&text.text));
            }
        }
        terminal::print(&page)
    }

    fn write(&self, path: &std::path::Path, texts: &[Text], vectors: &[Vector]) -> Outcome {
        let mut bytes = Vec::new();
        if path.extension().is_some_and(|end| end == "npy") {
            let rows: Vec<Vec<u8>> = vectors.iter().map(|vector| vector.bytes(self.bits)).collect();
            npy::write(&mut bytes, self.bits, &rows);
        } else {
            lines(&mut bytes, texts, vectors).map_err(|error| Failure::output(&error))?;
        }
        tern::file::write::Whole::begin(path)?.publish(&bytes)?;
        terminal::remark(&format!("{} vectors in {}", vectors.len(), path.display()));
        Ok(())
    }
}

/// A line of JSON for each text.
fn lines(out: &mut impl Write, texts: &[Text], vectors: &[Vector]) -> io::Result<()> {
    for (index, (text, vector)) in texts.iter().zip(vectors).enumerate() {
        let id = text.id.as_ref().map_or(String::new(), |id: &Value| format!("\"id\":{id},"));
        writeln!(out, "{{\"index\":{index},{id}\"embedding\":{}}}", vector.json())?;
    }
    Ok(())
}

fn bits(text: &str) -> Result<u32, String> {
    let names = BITS.map(|bits| bits.to_string());
    let known = BITS.into_iter().find(|bits| bits.to_string() == text);
    known.ok_or_else(|| expected(&names.each_ref().map(String::as_str)))
}

pub(super) fn pooling(text: &str) -> Result<Pooling, String> {
    Pooling::from_name(text).ok_or_else(|| expected(&Pooling::ALL.map(Pooling::name)))
}
