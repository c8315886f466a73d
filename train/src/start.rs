//! What a run begins with: random numbers in a new architecture, or another model's.

use std::path::Path;

use serde_json::Value;
use tern::Tokenizer;
use tern::file::hf::GENERATION;
use tern::file::{File, OpenOptions};
use tern_convert::masters::Masters;
use tern_convert::{Files, generation_config};
use tern_kernels::{Cpu, Pool, default_threads};

use crate::config::Run;
use crate::error::{Error, Result};
use crate::forecast::Forecast;
use crate::lora::Base;
use crate::narrow;
use crate::ops::Machine;
use crate::params::Layout;
use crate::stages::Stages;

/// The files of a tokenizer that are copied from its folder.
const TOKENIZER: [&str; 6] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "tokenizer.model",
    GENERATION,
];

/// The model of a run before its first step.
#[derive(Debug)]
pub struct Start {
    /// The architecture.
    pub config: tern::Config,
    /// How its activations are rounded as the run goes.
    pub stages: Stages,
    /// What an adapter is trained beside, where that is what the run does.
    pub base: Option<Base>,
    /// Where the parameters lie.
    pub layout: Layout,
    /// Their numbers.
    pub params: Vec<f32>,
    /// Of the run, or of the model it starts from.
    pub tokenizer: Tokenizer,
    /// The tokenizer's files, to lie beside the finished model.
    pub files: Files,
    /// What the user should know.
    pub notes: Vec<String>,
}

impl Start {
    /// From random numbers, or from another model.
    pub fn of(run: &Run) -> Result<Self> {
        Self::checked(run, &|_| Ok(()))
    }

    /// The same, unless training it takes more memory than is free; that is known before the numbers are there.
    pub fn to_train(run: &Run) -> Result<Self> {
        let free = tern::free_memory();
        Self::checked(run, &|forecast| forecast.check(free))
    }

    fn checked(run: &Run, fits: &dyn Fn(Forecast) -> Result<()>) -> Result<Self> {
        let mut start = match &run.from {
            Some(from) => Self::from(run, from, fits)?,
            None => Self::fresh(run, fits)?,
        };
        run.check_groups(&start.config)?;
        start.stages = run.check_stages(&start.config)?;
        start.config.graph.scheme = start.stages.last;
        // Without its ids, transformers writes on behind the end of a text.
        if !start.files.iter().any(|(name, _)| *name == GENERATION) {
            let end = start.end()?;
            let others = start.tokenizer.stops().iter().copied().filter(|id| *id != end);
            let ends: Vec<u32> = std::iter::once(end).chain(others).collect();
            start.files.push((GENERATION, generation_config(start.tokenizer.bos(), &ends)));
        }
        Ok(start)
    }

    fn fresh(run: &Run, fits: &dyn Fn(Forecast) -> Result<()>) -> Result<Self> {
        let path = run.tokenizer.as_ref().ok_or_else(|| Error::key("tokenizer", "missing"))?;
        let (tokenizer, files) = tokenizer(path)?;
        let config = run.model(tokenizer.size())?;
        let layout = Layout::new(&config, run.tied);
        fits(Forecast::of(run, &config, &layout, None)?)?;
        let params = layout.initial(run.init_std, run.seed);
        let (stages, notes) = (Stages::default(), Vec::new());
        Ok(Self { config, stages, base: None, layout, params, tokenizer, files, notes })
    }

    /// The sizes and the tokenizer are the model's.
    fn from(run: &Run, path: &Path, fits: &dyn Fn(Forecast) -> Result<()>) -> Result<Self> {
        let file = open(path)?;
        let masters = Masters::of(&file)?;
        let (config, layers) = run.student(masters.config())?;
        let mut notes = Vec::new();
        let (tokenizer, files) = match (Tokenizer::from_file(&file)?, &run.tokenizer) {
            (Some(own), given) => {
                if given.is_some() {
                    notes.push("the tokenizer is that of `from`; `tokenizer` is not read".to_owned());
                }
                (own, masters.tokenizer_files()?)
            }
            (None, Some(given)) => tokenizer(given)?,
            (None, None) => {
                let what = "has no tokenizer; `tokenizer` names the one that it was trained with";
                return Err(Error::file(path, what));
            }
        };
        if tokenizer.size() > config.vocab {
            let what = format!("{} tokens, but the model has {}", tokenizer.size(), config.vocab);
            return Err(Error::key("tokenizer", what));
        }
        if let Some(lora) = run.lora()? {
            let layout = Layout::adapter(&config, &lora);
            fits(Forecast::of(run, &config, &layout, None)?.beside(Base::size(&config, masters.has_head())))?;
            let params = layout.beginning(&masters, run.seed)?;
            let pool = Pool::new(if run.threads == 0 { default_threads() } else { run.threads });
            let base = Some(Base::read(Machine { cpu: Cpu::best(), pool: &pool }, &masters)?);
            return Ok(Self {
                config,
                stages: Stages::default(),
                base,
                layout,
                params,
                tokenizer,
                files,
                notes,
            });
        }
        let layout = Layout::new(&config, !masters.has_head());
        fits(Forecast::of(run, &config, &layout, None)?)?;
        let wide = narrow::as_wide_as(&config, masters.config());
        let from = Layout::new(&wide, !masters.has_head());
        let (mut params, rebuilt) = from.read_layers(&masters, run.quantiser()?, &layers)?;
        if from.len != layout.len {
            params = narrow::take(&from, &params, &wide, &layout, &config);
        }
        if rebuilt > 0 {
            notes.push(format!(
                "{} holds trits and no masters: those of {rebuilt} matrices were made again, to the same trits and scales",
                path.display()
            ));
        }
        Ok(Self { config, stages: Stages::default(), base: None, layout, params, tokenizer, files, notes })
    }

    /// The token that ends a document.
    pub fn end(&self) -> Result<u32> {
        let bytes = self.files.iter().find(|(name, _)| *name == "tokenizer_config.json");
        let json = bytes.and_then(|(_, bytes)| serde_json::from_slice::<Value>(bytes).ok());
        let named = json.as_ref().map(|json| &json["eos_token"]);
        let named = named.and_then(|eos| eos.as_str().or(eos["content"].as_str()));
        let id = named.and_then(|name| self.tokenizer.token_id(name));
        id.or(self.tokenizer.stops().first().copied())
            .ok_or_else(|| Error::key("tokenizer", "has no token that ends a text; `eos_token` names one"))
    }
}

/// Opens the model that `from` names: a run's folder stands for its finished model.
pub(crate) fn open(path: &Path) -> Result<File> {
    if path == Path::new(tern::STORY) {
        return Ok(tern::story_file()?);
    }
    let finished = path.join(crate::folder::FINISHED);
    let path = if finished.is_dir() { &finished } else { path };
    Ok(tern::file::open(path, OpenOptions::default())?)
}

/// A tokenizer, by the folder of its files or one of these.
fn tokenizer(path: &Path) -> Result<(Tokenizer, Files)> {
    let wrong = |what: &str| {
        Error::key("tokenizer", format!("{}: {what}; `tern train tokenizer` makes one", path.display()))
    };
    if !path.exists() {
        return Err(wrong("no such file or directory"));
    }
    let dir = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
    // A file alone does not bring the template that lies beside it.
    let whole = if dir.join("tokenizer_config.json").exists() { dir } else { path };
    if whole.is_dir() && !["tokenizer.json", "tokenizer.model"].iter().any(|name| whole.join(name).exists()) {
        return Err(wrong("has no tokenizer.json in it"));
    }
    let tokenizer = Tokenizer::open(if whole == Path::new("") { Path::new(".") } else { whole })?;
    let mut files = Files::new();
    for name in TOKENIZER {
        let path = dir.join(name);
        if path.exists() {
            files.push((name, std::fs::read(&path).map_err(|e| Error::io(&path, e))?));
        }
    }
    Ok((tokenizer, files))
}
