//! `tern pull`: a model by name, into the cache that the Hub's tools share.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use tern_hub::{Cache, Hub, Limits, Plan};

use crate::failure::{Failure, Outcome};
use crate::{hub, signal, terminal};

const EXAMPLES: &str = "\
A name is a short one (`tern list --known` prints them) or ORG/REPO of the Hugging Face Hub. After a colon stands a file, \
or a part of the name of one; after @ a branch, a tag or a commit.

What was stopped goes on at the next call. Files lie in the cache that all of the Hub's tools share \
(~/.cache/huggingface/hub); HF_HOME, HF_HUB_CACHE, HF_TOKEN, HF_TOKEN_PATH, HF_ENDPOINT, HF_HUB_OFFLINE, HTTPS_PROXY and \
SSL_CERT_FILE are heeded. Standard output gets the path of the model.

Examples:
  tern pull bitnet-2b
  tern pull tiiuae/Falcon3-1B-Instruct-1.58bit
  tern pull ORG/REPO:Q2_0
  tern pull ORG/REPO@v1.1:model.gguf --json";

/// Download a model by name
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Pull {
    /// A short name, or ORG/REPO, with @REVISION and :FILE where wanted
    #[arg(value_name = "NAME")]
    name: PathBuf,
    /// Print one JSON object: what was downloaded, and where it is
    #[arg(long)]
    json: bool,
}

impl Pull {
    pub(crate) fn run(self) -> Outcome {
        let Some(name) = hub::name(&self.name) else {
            let text = self.name.to_string_lossy();
            return Err(match text.parse::<tern_hub::Name>() {
                Ok(_) => Failure::failed(format!("{text}: a file or folder of this name is here"))
                    .hint("a model on the disk needs no download: `tern run` takes its path"),
                Err(error) if text.contains('/') => error.into(),
                Err(_) => match hub::alike(&text)[..] {
                    [] => Failure::failed(format!("{text}: no short name, and no ORG/REPO")),
                    ref names => {
                        Failure::failed(format!("{text}: no short name; did you mean {}?", names.join(", ")))
                    }
                }
                .hint("`tern list --known` prints the short names"),
            });
        };
        if Hub::is_offline() {
            return Err(tern_hub::Error::Offline(format!("{name}: not asked for")).into());
        }
        signal::listen()?;
        let (hub, cache) = (Hub::from_env(Limits::default())?, Cache::from_env()?);
        let plan = Plan::new(&hub, &cache, &name)?;
        if !self.json {
            terminal::remark(&hub::about(&name, &plan));
        }
        let missing = plan.missing;
        let path = hub::download(&plan, &hub, &cache)?;
        if self.json {
            return terminal::print_json(&json!({
                "name": name.to_string(),
                "commit": plan.commit(),
                "licence": plan.licence,
                "path": path.to_string_lossy(),
                "bytes": plan.total,
                "downloaded": missing,
                "files": plan.files().map(|(path, size)| json!({"path": path, "bytes": size})).collect::<Vec<_>>(),
            }));
        }
        let word = self.name.display();
        let done = if missing == 0 { "was here already" } else { "is here" };
        terminal::remark(&format!(
            "{word} {done}: `tern run {word} \"PROMPT\"`, `tern chat {word}`, `tern serve {word}`"
        ));
        terminal::print(&format!("{}\n", path.display()))
    }
}
