//! Models by name: what a word means on the Hub, what of it is on this machine, and getting the rest.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use tern_hub::{Cache, Choice, Hub, Known, Limits, Name, Plan, choose, known, size};

use crate::failure::{Failure, Outcome};
use crate::progress::Bar;
use crate::terminal;

#[derive(Args, Clone)]
#[command(next_help_heading = "Download")]
pub(crate) struct PullArgs {
    /// Download the model without asking, where it is not on this machine
    #[arg(short, long)]
    yes: bool,
    /// Use no network; so does HF_HUB_OFFLINE=1
    #[arg(long)]
    offline: bool,
}

impl PullArgs {
    pub(crate) fn is_offline(&self) -> bool {
        self.offline || Hub::is_offline()
    }
}

impl From<tern_hub::Error> for Failure {
    fn from(error: tern_hub::Error) -> Self {
        if matches!(error, tern_hub::Error::Interrupted) {
            return Self::interrupted();
        }
        let failure = Self::failed(error.to_string());
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

/// The model on the Hub that a word names: a short name, or `ORG/REPO`. A path that is there is no name.
pub(crate) fn name(word: &Path) -> Option<Name> {
    let word = word.to_str()?;
    if let Some(known) = known(word) {
        return Some(known.full());
    }
    let first = word.split('/').next().unwrap_or_default();
    // `models/x` beside a folder `models` is a path with a slip.
    (!Path::new(first).exists()).then(|| word.parse().ok()).flatten()
}

/// Short names that a word may have meant.
pub(crate) fn alike(word: &str) -> Vec<&'static str> {
    let names = tern_hub::zoo().iter().map(|known| known.name.as_str());
    names.filter(|name| name.contains(word) || strsim::jaro_winkler(word, name) > 0.85).take(4).collect()
}

/// Where the model that a word names lies in the cache, if all of it does.
pub(crate) fn cached(word: &Path) -> Option<PathBuf> {
    Cache::from_env().ok()?.find(&name(word)?)
}

/// Sees that the model that a word names is on this machine: downloads it after asking on a terminal, or with `--yes`.
/// Does nothing for a path or for what is there already.
pub(crate) fn fetch(word: &Path, args: &PullArgs) -> Outcome {
    if word == Path::new(tern::STORY) || word.exists() || cached(word).is_some() {
        return Ok(());
    }
    let Some(name) = name(word) else { return Ok(()) };
    let word = word.display();
    if args.is_offline() {
        return Err(tern_hub::Error::Offline(format!("{word}: not on this machine")).into());
    }
    let can_ask = terminal::input_is_terminal() && terminal::talk_is_terminal();
    if !args.yes && !can_ask {
        return Err(not_here(&word.to_string()));
    }
    let (hub, cache) = (Hub::from_env(Limits::default())?, Cache::from_env()?);
    let plan = Plan::new(&hub, &cache, &name)?;
    terminal::talk(&format!("{}\n", terminal::one_line(&about(&name, &plan))));
    if !args.yes {
        let question = format!("Download {} to {}?", size(plan.missing), cache.root().display());
        if !terminal::confirm(&question, true)? {
            return Err(Failure::failed("nothing was downloaded"));
        }
    }
    download(&plan, &hub, &cache).map(drop)
}

/// Why a name that can be downloaded cannot be used yet.
pub(crate) fn not_here(word: &str) -> Failure {
    Failure::failed(format!("{word}: not on this machine"))
        .hint(format!("`tern pull {word}` downloads it; `tern run`, `chat` and `serve` do with --yes"))
}

/// Downloads a plan with a bar on the terminal; gives the model's path.
pub(crate) fn download(plan: &Plan, hub: &Hub, cache: &Cache) -> Outcome<PathBuf> {
    let mut bar = Bar::new("downloading");
    let mut waits = false;
    let path = plan.run(hub, cache, &mut |progress| {
        if progress.waits && !waits {
            waits = true;
            terminal::remark(&format!("another process downloads {}: waiting for it", progress.entry.path));
        }
        bar.show(progress.done, progress.total);
        true
    });
    bar.clear();
    Ok(path?)
}

/// What a model is, in one line for the person who decides.
pub(crate) fn about(name: &Name, plan: &Plan) -> String {
    let known = of(name);
    let mut line = name.to_string();
    if let Some(known) = known {
        let _ = write!(line, ": {}", known.what);
    }
    let licence = plan.licence.as_deref().or(known.map(|known| known.licence.as_str()));
    let _ = write!(line, "; licence {}, {}", licence.unwrap_or("not told"), size(plan.total));
    line
}

/// A model in the cache.
pub(crate) struct Here {
    /// The shortest name that means it.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) bytes: u64,
    pub(crate) commit: String,
}

/// The models in the cache.
pub(crate) fn models_in(cache: &Cache) -> Vec<Here> {
    let mut all = Vec::new();
    for cached in cache.list() {
        let here = |name: String, path: PathBuf, bytes: u64| Here {
            name,
            path,
            bytes,
            commit: cached.commit.clone(),
        };
        let paths = || cached.files.iter().map(|(path, _)| path.as_str());
        // Each GGUF file is a model of its own.
        for (path, size) in cached.files.iter().filter(|(path, _)| path.ends_with(".gguf")) {
            let name =
                Name { repo: cached.repo.clone(), revision: "main".to_owned(), variant: Some(path.clone()) };
            let alone = paths().filter(|path| path.ends_with(".gguf")).count() == 1;
            let full = if alone { cached.repo.clone() } else { name.to_string() };
            let short = of(&name).map(|known| known.name.clone());
            all.push(here(short.unwrap_or(full), cached.folder.join(path), *size));
        }
        let others = paths().filter(|path| !path.ends_with(".gguf"));
        if let Ok(Choice::Folder(files)) = choose(others, None) {
            let name: Result<Name, _> = cached.repo.parse();
            let short = name.ok().and_then(|name| of(&name)).map(|known| known.name.clone());
            let sizes = cached.files.iter().filter(|(path, _)| files.contains(path)).map(|(_, size)| size);
            all.push(here(short.unwrap_or_else(|| cached.repo.clone()), cached.folder.clone(), sizes.sum()));
        }
    }
    all
}

/// The short name of a model, if it has one.
pub(crate) fn of(name: &Name) -> Option<&'static Known> {
    tern_hub::zoo().iter().find(|known| known.full() == *name)
}
