//! `tern show`: what a name means, and what of it is on this machine.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use tern_hub::Cache;

use crate::failure::{Failure, Outcome};
use crate::{hub, terminal};

const EXAMPLES: &str = "\
No network is used. `tern inspect MODEL` tells what is inside a model that is here.

Examples:
  tern show bitnet-2b
  tern show tiiuae/Falcon3-1B-Instruct-1.58bit --json";

/// Show what a model's name means and where its files are
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Show {
    /// A short name, or ORG/REPO, with @REVISION and :FILE where wanted
    #[arg(value_name = "NAME")]
    name: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Show {
    pub(crate) fn run(self) -> Outcome {
        let word = self.name.display();
        let Some(name) = hub::name(&self.name) else {
            return Err(Failure::failed(format!("{word}: no short name, and no ORG/REPO"))
                .hint("`tern list --known` prints the short names; `tern inspect` looks into a file"));
        };
        let cache = Cache::from_env()?;
        let known = hub::of(&name);
        let cached = cache.look(&name);
        let path = cache.find(&name);
        if self.json {
            let files = cached.iter().flat_map(|cached| &cached.files);
            return terminal::print_json(&json!({
                "name": name.to_string(),
                "licence": known.map(|known| &known.licence),
                "what": known.map(|known| &known.what),
                "bytes": known.map(|known| known.bytes),
                "commit": cached.as_ref().map(|cached| &cached.commit),
                "path": path.as_ref().map(|path| path.to_string_lossy()),
                "files": files.map(|(path, size)| json!({"path": path, "bytes": size})).collect::<Vec<_>>(),
            }));
        }
        let mut text = format!("name      {name}\npage      https://huggingface.co/{}\n", name.repo);
        if let Some(known) = known {
            text += &format!("what      {}\nlicence   {}\n", known.what, known.licence);
        }
        match (&path, known) {
            (Some(path), _) => text += &format!("path      {}\n", path.display()),
            (None, known) => {
                let size = known.and_then(|known| known.bytes).map_or("it".to_owned(), tern_hub::size);
                text += &format!("path      not on this machine: `tern pull {word}` gets {size}\n");
            }
        }
        if let Some(cached) = &cached {
            text += &format!("commit    {}\n", cached.commit);
            for (path, size) in &cached.files {
                text += &format!("file      {path}, {}\n", tern_hub::size(*size));
            }
        }
        terminal::print(&text)
    }
}
