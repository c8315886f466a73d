//! What share of a model's parameters takes part when it reads a text.

use std::fmt::{Display, Write};
use std::io::Read;
use std::path::Path;

use serde_json::{Value, json};
use tern::file::File;
use tern::{Activity, Model, Options, Specials};

use crate::failure::{Failure, Outcome};

/// Counts on the beginning of a text.
pub(super) fn read(file: &File, path: &Path) -> Outcome<Activity> {
    /// The share does not change much after so many.
    const TOKENS: usize = 4096;
    let wrong = |what: &dyn Display| Failure::failed(format!("{}: {what}", path.display()));
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(path).map_err(|e| wrong(&e))?;
    opened.take(16 * TOKENS as u64).read_to_end(&mut bytes).map_err(|e| wrong(&e))?;
    let text = match std::str::from_utf8(&bytes) {
        Ok(text) => text,
        // The last character was cut.
        Err(e) if e.error_len().is_none() => {
            std::str::from_utf8(&bytes[..e.valid_up_to()]).unwrap_or_default()
        }
        Err(e) => return Err(wrong(&e)),
    };
    let model = Model::from_file(file, &Options::default())?;
    let mut ids = model.tokenizer()?.encode(text, true, Specials::Text)?;
    ids.truncate(TOKENS.min(model.config().context));
    if text.is_empty() || ids.is_empty() {
        return Err(wrong(&"expected a text, found nothing"));
    }
    Ok(model.activity(&ids)?)
}

/// For people.
pub(super) fn text(active: &Activity) -> String {
    let mut text = format!("\nparameters that take part in a token, of {} tokens\n", active.tokens);
    for (name, share) in active.shares().into_iter().chain([("all", active.share())]) {
        let _ = writeln!(text, "  {name:<12} {:5.1} %", 100.0 * share);
    }
    text
}

/// For programs; also `tern bench`'s.
pub(in crate::cmd) fn json(active: &Activity) -> Value {
    let matrices: serde_json::Map<_, _> =
        active.shares().into_iter().map(|(name, share)| (name.to_owned(), json!(share))).collect();
    json!({"tokens": active.tokens, "share": active.share(), "matrices": matrices})
}
