//! The rules of the house that a machine can check.

use std::path::{Path, PathBuf};

/// Every Rust file of the workspace.
fn sources() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut folders: Vec<PathBuf> = ["kernels", "engine", "convert", "eval", "train", "serve", "cli", "fuzz"]
        .iter()
        .map(|name| root.join(name))
        .collect();
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    assert!(files.len() > 40, "the walk found {} files", files.len());
    files
}

#[test]
fn unsafe_code_is_in_the_kernels_and_the_memory_map_alone() {
    for path in sources() {
        let place = path.to_string_lossy().replace('\\', "/");
        let allowed = place.contains("kernels/src/") || place.ends_with("engine/src/file/map.rs");
        for (number, line) in std::fs::read_to_string(&path).unwrap().lines().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            let opens = ["{", "fn", "impl"].iter().any(|next| code.contains(&["unsafe", next].join(" ")));
            assert!(allowed || !opens, "{place}:{}", number + 1);
        }
    }
}

#[test]
fn no_file_is_over_800_lines() {
    for path in sources() {
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= 800, "{} has {lines} lines", path.display());
    }
}
