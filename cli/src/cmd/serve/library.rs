//! The models that clients of a server may download and delete: those of the Hub's cache.

use std::path::PathBuf;

use tern_hub::{Cache, Error, Hub, Limits, Plan, known};
use tern_serve::{Arriving, Library, Named, Served, Wrong};

use super::several::{Maker, served_as};
use crate::failure::Outcome;
use crate::hub;
use crate::model;

pub(super) struct Downloaded {
    maker: Maker,
    offline: bool,
}

/// What a text means: Ollama's clients may put a host before a name, and `:latest` behind it. It is never a path.
fn name(asked: &str) -> Result<tern_hub::Name, Error> {
    let asked = asked.strip_prefix("https://").unwrap_or(asked);
    let hosts = ["hf.co/", "huggingface.co/"];
    let asked = hosts.into_iter().find_map(|host| asked.strip_prefix(host)).unwrap_or(asked);
    match known(asked) {
        Some(known) => Ok(known.full()),
        None => asked.strip_suffix(":latest").unwrap_or(asked).parse(),
    }
}

/// Adds the models of the cache that Tern can read, and are not there yet.
pub(super) fn add_downloaded(all: &mut Vec<Served>, maker: &Maker) {
    let Ok(cache) = Cache::from_env() else { return };
    for here in hub::models_in(&cache) {
        let Ok(name) = name(&here.name) else { continue };
        let is_called = |served: &Served| served.name == here.name || served.aliases.contains(&here.name);
        // Of several revisions the one that its name means.
        if all.iter().any(is_called) || cache.find(&name).as_deref() != Some(&here.path) {
            continue;
        }
        all.extend(of(maker, &name, here.path));
    }
}

fn of(maker: &Maker, name: &tern_hub::Name, path: PathBuf) -> Outcome<Served> {
    let served = maker.one(served_as(name), model::Named::Path(path))?;
    Ok(Served { kept_in: Some(name.repo.clone()), ..served })
}

impl Downloaded {
    pub(super) fn new(maker: Maker, offline: bool) -> Self {
        Self { maker, offline }
    }
}

/// An error for a client: its line, and what to do.
fn wrong(error: &Error) -> Wrong {
    let status = match error {
        Error::Name(_) => 400,
        Error::Missing { .. } => 404,
        Error::Unauthorized { .. } | Error::Gated { .. } | Error::Offline(_) => 403,
        Error::Space { .. } => 507,
        Error::Network(_) | Error::Protocol(_) | Error::Corrupt(_) => 502,
        Error::Io { .. } => 500,
        Error::Interrupted => 503,
    };
    let message = match (error, error.hint()) {
        (Error::Interrupted, _) => "the download was ended".to_owned(),
        (error, Some(hint)) => format!("{error}; {hint}"),
        (error, None) => error.to_string(),
    };
    // Where the folder lies is the owner's matter.
    let root = Cache::from_env().map(|cache| cache.root().display().to_string()).unwrap_or_default();
    let message = if root.is_empty() { message } else { message.replace(&root, "the models' folder") };
    Wrong { status, message }
}

impl Library for Downloaded {
    fn find(&self, asked: &str) -> Result<Named, Wrong> {
        let name = name(asked).map_err(|error| wrong(&error))?;
        Ok(Named { name: served_as(&name), kept_in: name.repo })
    }

    fn pull(&self, named: &Named, progress: &mut dyn FnMut(Arriving) -> bool) -> Result<Served, Wrong> {
        let mut pulled = || {
            let name = name(&named.name)?;
            if self.offline {
                return Err(Error::Offline(format!("{name}: not on this machine")));
            }
            let (hub, cache) = (Hub::from_env(Limits::default())?, Cache::from_env()?);
            let plan = Plan::new(&hub, &cache, &name)?;
            let path = plan.run(&hub, &cache, &mut |step| {
                let kind = match step.entry.hash {
                    tern_hub::Hash::Sha256(_) => "sha256",
                    tern_hub::Hash::Git(_) => "git",
                };
                progress(Arriving {
                    digest: format!("{kind}:{}", step.entry.hash),
                    total: step.entry.size,
                    done: step.entry_done,
                    waits: step.waits,
                })
            })?;
            Ok((name, path))
        };
        let (name, path) = pulled().map_err(|error| wrong(&error))?;
        let file = path.display().to_string();
        of(&self.maker, &name, path).map_err(|failure| {
            let what = failure.message.replace(&file, &named.name);
            Wrong {
                status: 422,
                message: format!("`{}` was downloaded and cannot be used: {what}", named.name),
            }
        })
    }

    fn remove(&self, kept_in: &str) -> Result<u64, Wrong> {
        let removed = Cache::from_env().and_then(|cache| match cache.holds(kept_in) {
            true => cache.remove(kept_in),
            // Somebody else has removed it.
            false => Ok(0),
        });
        removed.map_err(|error| wrong(&error))
    }
}
