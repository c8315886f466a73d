//! `tern rm`: a downloaded model off the disk.

use std::path::PathBuf;

use clap::Args;
use tern_hub::Cache;

use crate::failure::{Failure, Outcome};
use crate::{hub, terminal};

const EXAMPLES: &str = "\
All revisions and files of the repository go, and what was downloaded of it in part. Other tools that share the cache \
lose them, too.

Examples:
  tern rm bitnet-2b
  tern rm tiiuae/Falcon3-1B-Instruct-1.58bit --yes";

/// Remove a downloaded model from this machine
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Rm {
    /// A short name, or ORG/REPO
    #[arg(value_name = "NAME")]
    name: PathBuf,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

impl Rm {
    pub(crate) fn run(self) -> Outcome {
        let word = self.name.display();
        if self.name.exists() {
            return Err(Failure::failed(format!(
                "{word}: is a file or folder of yours, not a downloaded model"
            ))
            .hint("`rm` removes files"));
        }
        let Some(name) = hub::name(&self.name) else {
            return Err(Failure::failed(format!("{word}: no short name, and no ORG/REPO"))
                .hint("`tern list` prints what is here"));
        };
        let cache = Cache::from_env()?;
        if !cache.holds(&name.repo) {
            return Err(Failure::failed(format!("{word}: not on this machine"))
                .hint("`tern list` prints what is here"));
        }
        if !self.yes {
            if !terminal::input_is_terminal() {
                return Err(Failure::failed(format!("{word}: nothing was removed"))
                    .hint("--yes removes without asking"));
            }
            let question = format!("Remove {} from {}?", name.repo, cache.root().display());
            if !terminal::confirm(&question, false)? {
                return Err(Failure::failed("nothing was removed"));
            }
        }
        let freed = cache.remove(&name.repo)?;
        terminal::remark(&format!("removed {}, {} are free again", name.repo, tern_hub::size(freed)));
        Ok(())
    }
}
