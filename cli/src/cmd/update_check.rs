//! `tern update-check`: whether a newer release exists. The only command that asks, and only when it is called.

use clap::Args;
use serde_json::json;
use tern_hub::{Error, Hub, Limits, RELEASES, Version, latest_release};

use crate::failure::{Failure, Outcome};
use crate::terminal;

const EXAMPLES: &str = "\
One request, which tells the server this version and nothing else. No other command asks, and nothing is downloaded \
or changed.

Examples:
  tern update-check
  tern update-check --json
  tern update-check --url https://mirror.example/latest.json";

/// Say whether a newer release exists
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct UpdateCheck {
    /// Ask another address: JSON with the newest tag in `tag_name`
    #[arg(long, value_name = "URL", default_value = RELEASES)]
    url: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl UpdateCheck {
    pub(crate) fn run(self) -> Outcome {
        if Hub::is_offline() {
            return Err(Error::Offline("update-check: it asks the network".to_owned()).into());
        }
        let ours: Version = env!("CARGO_PKG_VERSION").parse().expect("a release has three numbers");
        let page = concat!(env!("CARGO_PKG_REPOSITORY"), "/releases");
        let newest = latest_release(&self.url, Limits::default()).map_err(|error| match error {
            Error::Network(_) => Failure::failed(error.to_string())
                .hint(format!("check the connection (HTTPS_PROXY names a proxy); releases are at {page}")),
            error => error.into(),
        })?;
        if self.json {
            let newer = newest > ours;
            let told = json!({"version": ours.to_string(), "newest": newest.to_string(), "newer": newer, "page": page});
            return terminal::print_json(&told);
        }
        terminal::print(&match newest > ours {
            true => format!("tern {newest} is out, this is {ours}: {page}\n"),
            false => format!("this is tern {ours}; the newest release is {newest}\n"),
        })
    }
}
