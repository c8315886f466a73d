//! Models that other programs keep: Ollama's store and LM Studio's folders.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::variable;

/// A model file that another program downloaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The program.
    pub program: &'static str,
    /// What that program calls it.
    pub name: String,
    /// The GGUF file.
    pub path: PathBuf,
    /// Its bytes.
    pub size: u64,
}

/// Looks where Ollama and LM Studio keep models in this home folder; `OLLAMA_MODELS` names another place for the first.
pub fn elsewhere(home: &Path) -> Vec<Found> {
    let mut found =
        ollama(&variable::path("OLLAMA_MODELS").unwrap_or_else(|| home.join(".ollama").join("models")));
    for folder in [".lmstudio/models", ".cache/lm-studio/models"] {
        let folder = home.join(folder);
        walk(&folder, 4, &mut |path, size| {
            if path.extension().is_some_and(|extension| extension == "gguf") {
                let name = path.strip_prefix(&folder).unwrap_or(path).display().to_string();
                found.push(Found { program: "LM Studio", name, path: path.to_owned(), size });
            }
        });
    }
    found.sort_by(|a, b| (a.program, &a.name).cmp(&(b.program, &b.name)));
    found
}

/// A manifest names the blob that is the model: `manifests/HOST/library/NAME/TAG`, `blobs/sha256-HASH`.
fn ollama(store: &Path) -> Vec<Found> {
    let mut found = Vec::new();
    let manifests = store.join("manifests");
    walk(&manifests, 5, &mut |path, size| {
        // A manifest is small; anything else is none.
        if size > 1 << 20 {
            return;
        }
        let Ok(manifest) = fs::read(path) else { return };
        let Ok(manifest) = serde_json::from_slice::<Value>(&manifest) else { return };
        let layers = manifest["layers"].as_array().map(Vec::as_slice).unwrap_or_default();
        let model = layers.iter().find(|layer| layer["mediaType"] == "application/vnd.ollama.image.model");
        let Some(hash) = model.and_then(|layer| layer["digest"].as_str()?.strip_prefix("sha256:")) else {
            return;
        };
        if hash.len() != 64 || !hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return;
        }
        let blob = store.join("blobs").join(format!("sha256-{hash}"));
        let Ok(data) = fs::metadata(&blob) else { return };
        let parts: Vec<_> = path.strip_prefix(&manifests).unwrap_or(path).iter().skip(1).collect();
        let parts: Vec<_> = parts.iter().map(|part| part.to_string_lossy()).collect();
        let Some((tag, name)) = parts.split_last() else { return };
        let name = name.join("/");
        let name = format!("{}:{tag}", name.strip_prefix("library/").unwrap_or(&name));
        found.push(Found { program: "Ollama", name, path: blob, size: data.len() });
    });
    found
}

/// Calls `see` for every file down to this depth.
fn walk(folder: &Path, depth: usize, see: &mut dyn FnMut(&Path, u64)) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten().take(10_000) {
        let path = entry.path();
        match fs::metadata(&path) {
            Ok(data) if data.is_dir() && depth > 0 => walk(&path, depth - 1, see),
            Ok(data) if data.is_file() => see(&path, data.len()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_of_other_programs_are_found_by_their_names() {
        let home = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = home.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let hash = "ab".repeat(32);
        let layer = r#"{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:"#;
        let manifest = format!("{{\"layers\": [{layer}{hash}\"}}]}}");
        write(".ollama/models/manifests/registry.ollama.ai/library/bitnet/2b", &manifest);
        write(
            ".ollama/models/manifests/registry.ollama.ai/library/gone/latest",
            &manifest.replace("ab", "cd"),
        );
        write(".ollama/models/manifests/registry.ollama.ai/library/broken/latest", "{");
        write(&format!(".ollama/models/blobs/sha256-{hash}"), "GGUF");
        write(".lmstudio/models/org/repo/model.gguf", "GGUF..");
        write(".lmstudio/models/org/repo/README.md", "no model");
        let found = elsewhere(home.path());
        let seen: Vec<_> =
            found.iter().map(|found| (found.program, found.name.as_str(), found.size)).collect();
        let lm = Path::new("org").join("repo").join("model.gguf").display().to_string();
        assert_eq!(seen, [("LM Studio", lm.as_str(), 6), ("Ollama", "bitnet:2b", 4)]);
    }
}
