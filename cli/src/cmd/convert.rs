//! `tern convert`: a model file into another format.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use serde_json::json;
use tern::file::OpenOptions;
use tern_convert::{ConvertOptions, Engine, Floats, Summary, Target, convert_file};

use crate::failure::{Failure, Outcome};
use crate::model::{self, Named};
use crate::progress::Bar;
use crate::sampling::expected;
use crate::signal;
use crate::terminal;

const EXAMPLES: &str = "\
Formats:
  i2, t5        Tern's own GGUF, mapped as it lies: 2 and 1.6 bits a weight
  i2s           GGUF for bitnet.cpp (and ik_llama.cpp)
  tq1_0, tq2_0  GGUF for llama.cpp (and bitnet.cpp): rows of 256, 512, 768, ...
                weights
  q2_0, pq2_0   GGUF for llama.cpp and PrismML's: a scale for 64 or 128 weights
  hf            a directory of safetensors for transformers

Programs read the same model under different names; --for decides:
  llama.cpp     BitNet 2B4T and 1bitLLM as `bitnet`, the activation in a key
  bitnet.cpp    BitNet 2B4T as `bitnet-b1.58`, 1bitLLM as `bitnet`
  ik_llama.cpp  the same
All call Llama3-8B-1.58, Falcon3 and Falcon-E `llama`; Tern reads every name.

No trit and no scale changes on the way. OUT appears when it is whole; until then an older OUT stays.

Examples:
  tern convert bitnet-b1.58-2B-4T-bf16/ model.gguf
  tern convert model.gguf small.gguf --to t5
  tern convert model.gguf for-llama.gguf --to tq2_0
  tern convert model.gguf for-ik.gguf --to i2s --for ik_llama.cpp
  tern convert model.gguf checkpoint/ --to hf";

/// Convert a model into another format
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Convert {
    /// The model: a file, a directory, or `story` (built in)
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// What to write: a .gguf file, or for `hf` a new directory
    #[arg(value_name = "OUT")]
    output: PathBuf,
    #[command(flatten)]
    target: TargetArgs,
    /// The program that is to read a GGUF: llama.cpp [default for tq1_0, tq2_0, q2_0, pq2_0], bitnet.cpp [default for i2s] or
    /// ik_llama.cpp
    #[arg(long = "for", value_name = "PROGRAM", value_parser = engine)]
    engine: Option<Engine>,
    /// Round a model that was not trained ternary; what comes out is of little use
    #[arg(long)]
    lossy: bool,
    /// How to write the embedding: keep, f32, f16, bf16, q8_0 or int8 (rounded; the int8 head's rows serve)
    #[arg(long, value_name = "TYPE", default_value = "keep", value_parser = floats)]
    embedding: Floats,
    /// How to write the output head, where it is not the embedding; int8: as it is used, so that the model starts sooner
    /// (the embedding stays beside it; i2 and t5 only; no result changes)
    #[arg(long, value_name = "TYPE", default_value = "keep", value_parser = floats)]
    head: Floats,
    /// The input's I2_S tensors were written by bitnet.cpp on ARM (nothing in the file says so)
    #[arg(long)]
    i2s_arm: bool,
    /// Print one JSON object: what was written
    #[arg(long)]
    json: bool,
}

/// The flag that names a format, shared with `dummy`.
#[derive(Args)]
pub(super) struct TargetArgs {
    /// The format: i2, t5, i2s, tq1_0, tq2_0, q2_0, pq2_0 or hf [default: i2 for a .gguf file, hf for a directory]
    #[arg(long, value_name = "FORMAT", value_parser = target)]
    to: Option<Target>,
}

impl TargetArgs {
    /// What was asked for, or what the name of the output says.
    pub(super) fn target(&self, output: &Path) -> Outcome<Target> {
        let extension = output.extension().and_then(OsStr::to_str);
        match (self.to, extension) {
            (Some(target), _) => Ok(target),
            (None, Some("gguf")) => Ok(Target::I2),
            (None, _) if output.is_dir() || extension.is_none() => Ok(Target::Hf),
            (None, Some(extension)) => Err(Failure::misused(format!(
                "{}: expected a name that ends in `.gguf` or a directory, found `.{extension}`",
                output.display()
            ))
            .hint("`--to` names the format whatever the name is")),
            (None, None) => unreachable!("no extension is a directory to be"),
        }
    }
}

impl Convert {
    pub(crate) fn run(self) -> Outcome {
        let to = self.target.target(&self.output)?;
        signal::listen()?;
        let options = OpenOptions { i2s_arm: self.i2s_arm, copy: false };
        let start = Instant::now();
        let input = model::find(&self.input)?;
        if let Named::Path(path) = &input {
            spare_input(path, &self.output)?;
        }
        let file = input.file(options)?;
        let options = ConvertOptions {
            to,
            lossy: self.lossy,
            i2s_arm: self.i2s_arm,
            embedding: self.embedding,
            head: self.head,
            engine: self.engine,
        };
        let mut bar = Bar::new("converting");
        let summary = convert_file(&file, &self.output, &options, &mut |done, all| bar.show(done, all));
        bar.clear();
        report(&summary?, &self.output, to, start, self.json)
    }
}

/// The input is read while the output is written, and it is the only copy: never the same file, nor one inside.
fn spare_input(input: &Path, output: &Path) -> Outcome {
    let (Ok(from), Ok(to)) = (input.canonicalize(), output.canonicalize()) else { return Ok(()) };
    if to.starts_with(&from) {
        let what = if to == from { "is the input itself" } else { "lies inside the input" };
        return Err(Failure::misused(format!("{}: {what}, expected another name", output.display())));
    }
    Ok(())
}

/// Notes of the engine, and what was written: a line, or for `--json` an object.
pub(super) fn report(summary: &Summary, output: &Path, to: Target, start: Instant, object: bool) -> Outcome {
    for note in &summary.notes {
        terminal::warning(note);
    }
    if object {
        return terminal::print_json(&json!({
            "output": output.to_string_lossy(),
            "format": target_name(to),
            "family": summary.family,
            "tensors": summary.tensors,
            "ternary_tensors": summary.ternary,
            "ternary_weights": summary.weights,
            "bytes": summary.bytes,
            "seconds": start.elapsed().as_secs_f64(),
            "notes": summary.notes,
        }));
    }
    terminal::remark(&format!(
        "wrote {}: {} as {}, {} tensors, {} of them ternary, {:.1} MB in {:.1} s",
        output.display(),
        summary.family,
        target_name(to),
        summary.tensors,
        summary.ternary,
        summary.bytes as f64 / 1e6,
        start.elapsed().as_secs_f64(),
    ));
    Ok(())
}

/// The name on the command line: without the underscore that needs a second thought.
fn target_name(target: Target) -> &'static str {
    if target == Target::I2S { "i2s" } else { target.name() }
}

fn target(text: &str) -> Result<Target, String> {
    let known = Target::ALL.into_iter().find(|target| target_name(*target) == text);
    known.or_else(|| Target::from_name(text)).ok_or_else(|| expected(&Target::ALL.map(target_name)))
}

fn engine(text: &str) -> Result<Engine, String> {
    Engine::from_name(text).ok_or_else(|| expected(&Engine::ALL.map(Engine::name)))
}

pub(super) fn floats(text: &str) -> Result<Floats, String> {
    Floats::from_name(text).ok_or_else(|| expected(&Floats::ALL.map(Floats::name)))
}
