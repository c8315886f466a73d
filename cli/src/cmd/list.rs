//! `tern list`: the models on this machine, and those that have a short name.

use clap::Args;
use serde_json::{Value, json};
use tern_hub::{Cache, elsewhere, zoo};

use crate::failure::Outcome;
use crate::{hub, terminal};

const EXAMPLES: &str = "\
Models are looked for where the Hub's tools keep them, and where Ollama and LM Studio do.

Examples:
  tern list
  tern list --known
  tern list --json";

/// List the models on this machine
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct List {
    /// List the models that have a short name, here or not
    #[arg(long)]
    known: bool,
    /// Print one JSON list
    #[arg(long)]
    json: bool,
}

impl List {
    pub(crate) fn run(self) -> Outcome {
        let rows = if self.known { known() } else { here()? };
        if self.json {
            return terminal::print_json(&rows.into());
        }
        if rows.is_empty() {
            terminal::remark("no model was downloaded yet; `story` is built in");
            terminal::hint("`tern list --known` prints names that can be, `tern pull bitnet-2b` gets one");
            return Ok(());
        }
        let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
        let wide = rows.iter().map(|row| text(row, "name").chars().count()).max().unwrap_or(0);
        let lines = rows.iter().map(|row| {
            let size = row["bytes"].as_u64().map_or("?".to_owned(), tern_hub::size);
            let last = if self.known { text(row, "what") } else { text(row, "program") };
            format!("{:wide$}  {size:>8}  {last}\n", text(row, "name"))
        });
        terminal::print(&lines.collect::<String>())
    }
}

fn known() -> Vec<Value> {
    let cache = Cache::from_env().ok();
    let rows = zoo().iter().map(|known| {
        let path = cache.as_ref().and_then(|cache| cache.find(&known.full()));
        json!({
            "name": known.name,
            "repository": known.full().to_string(),
            "bytes": known.bytes,
            "licence": known.licence,
            "what": known.what,
            "path": path.map(|path| path.to_string_lossy().into_owned()),
        })
    });
    rows.collect()
}

/// What is on the disk, of this cache and of other programs.
fn here() -> Outcome<Vec<Value>> {
    let mut rows = Vec::new();
    for here in hub::models_in(&Cache::from_env()?) {
        rows.push(json!({
            "name": here.name,
            "bytes": here.bytes,
            "program": "Hub",
            "commit": here.commit,
            "path": here.path.to_string_lossy(),
        }));
    }
    for found in std::env::home_dir().map(|home| elsewhere(&home)).unwrap_or_default() {
        rows.push(json!({
            "name": found.name,
            "bytes": found.size,
            "program": format!("{}: {}", found.program, found.path.display()),
            "path": found.path.to_string_lossy(),
        }));
    }
    Ok(rows)
}
