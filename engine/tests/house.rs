//! The rules of the house that a machine can check.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Every folder with a crate; on which of ours it depends; and on which only its tests do. Calls go down only.
const CRATES: [(&str, &[&str], &[&str]); 12] = [
    ("kernels", &[], &[]),
    ("engine", &["tern-kernels"], &[]),
    ("convert", &["tern", "tern-kernels"], &[]),
    ("eval", &["tern", "tern-kernels"], &["tern-convert"]),
    ("hub", &[], &[]),
    ("train", &["tern", "tern-convert", "tern-eval", "tern-kernels"], &[]),
    ("serve", &["tern"], &["tern-convert"]),
    (
        "cli",
        &["tern", "tern-convert", "tern-eval", "tern-hub", "tern-kernels", "tern-serve", "tern-train"],
        &[],
    ),
    ("wasm", &["tern", "tern-kernels"], &[]),
    ("capi", &["tern"], &[]),
    ("fuzz", &["tern", "tern-serve"], &[]),
    ("py", &["tern", "tern-convert", "tern-eval", "tern-hub", "tern-serve", "tern-train"], &[]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every Rust file below a folder.
fn sources_of(folder: &Path) -> Vec<PathBuf> {
    let (mut folders, mut files) = (vec![folder.to_owned()], Vec::new());
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
    files
}

/// Every Rust file of the workspace.
fn sources() -> Vec<PathBuf> {
    let files: Vec<PathBuf> =
        CRATES.iter().flat_map(|(folder, ..)| sources_of(&root().join(folder))).collect();
    assert!(files.len() > 300, "the walk found {} files", files.len());
    files
}

#[test]
fn unsafe_code_is_in_the_kernels_the_memory_map_and_the_c_interface_alone() {
    for path in sources() {
        let place = path.to_string_lossy().replace('\\', "/");
        let folders = ["kernels/src/", "capi/src/"];
        let allowed =
            folders.iter().any(|folder| place.contains(folder)) || place.ends_with("engine/src/file/map.rs");
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

/// In WebAssembly `std` has none, and says so when it is asked.
#[test]
fn the_engine_has_one_clock() {
    for path in sources_of(&root().join("engine/src")) {
        let text = std::fs::read_to_string(&path).unwrap();
        let own = |line: &&str| {
            let line = line.trim_start();
            !line.starts_with("//") && line.contains("std::time::") && line.contains("Instant")
        };
        assert_eq!(text.lines().find(own), None, "{}: expected `crate::clock::Instant`", path.display());
    }
}

/// The hub downloads what it is asked for; a training run's worker calls the leader whose address it is given.
#[test]
fn the_hub_and_the_workers_of_a_run_alone_open_connections() {
    let mut count = 0;
    for (folder, ..) in CRATES.iter().filter(|(folder, ..)| *folder != "fuzz") {
        for path in sources_of(&root().join(folder).join("src")) {
            let text = std::fs::read_to_string(&path).unwrap();
            let text = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap();
            let ways = ["ureq::", "TcpStream::connect", "TcpSocket", "UdpSocket", "UnixStream::connect"];
            let opens = ways.iter().any(|way| text.contains(way));
            count += usize::from(opens);
            let may = *folder == "hub" || path.starts_with(root().join("train/src/machines"));
            assert!(!opens || may, "{} opens a connection", path.display());
        }
    }
    assert!(count > 0, "the hub's own was not found");
}

/// A crate's package has the crate's folder and nothing else.
#[test]
fn what_a_crate_is_built_from_lies_in_its_folder() {
    let mut count = 0;
    for (folder, ..) in CRATES.iter().filter(|(folder, ..)| *folder != "fuzz") {
        let source = root().join(folder).join("src");
        for path in sources_of(&source) {
            let text = std::fs::read_to_string(&path).unwrap();
            let text = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap();
            for included in text.split("include_").skip(1).filter_map(|rest| rest.split('"').nth(1)) {
                if !included.starts_with(['.', '/']) && !included.contains(['.', '/']) {
                    continue;
                }
                count += 1;
                let target = path.parent().unwrap().join(included);
                let real =
                    target.canonicalize().unwrap_or_else(|error| panic!("{}: {error}", target.display()));
                let within = real.starts_with(source.canonicalize().unwrap()) && !target.is_symlink();
                assert!(within, "{} includes {included}, which no package would have", path.display());
            }
        }
    }
    assert!(count >= 5, "{count} files are included");
}

#[test]
fn crates_depend_on_each_other_as_the_table_says() {
    for (folder, usual, of_tests) in CRATES {
        let manifest = std::fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        let (mut section, mut found) = ("", [BTreeSet::new(), BTreeSet::new()]);
        for line in manifest.lines() {
            if line.starts_with('[') {
                section = line.trim_matches(['[', ']']);
            }
            let name = line.split(['.', ' ', '=']).next().unwrap_or("");
            if section.ends_with("dependencies") && (name == "tern" || name.starts_with("tern-")) {
                found[usize::from(section.ends_with("dev-dependencies"))].insert(name);
            }
        }
        let table = [usual, of_tests].map(|names| names.iter().copied().collect());
        assert_eq!(found, table, "{folder}/Cargo.toml: dependencies, and those of tests");
    }
}

#[test]
fn the_workflow_runs_every_part_of_what_ci_runs() {
    let read = |name: &str| std::fs::read_to_string(root().join(name)).unwrap();
    let (makefile, workflow) = (read("Makefile"), read(".github/workflows/ci.yml"));
    let parts = makefile.lines().find_map(|line| line.strip_prefix("ci: ")).unwrap();
    assert!(parts.split(' ').count() > 5 && read(".ci/run").ends_with("\nmake ci\n"), "{parts}");
    for part in parts.split(' ') {
        let named = workflow.split([' ', '\n', '[', ']', ',']).any(|word| word == part);
        assert!(named, "the workflow never runs `make {part}`");
    }
    // What is published is what was tried before.
    let (check, release) =
        (makefile.split("\nrelease-check:\n\t").nth(1), read(".github/workflows/release.yml"));
    let check = check.and_then(|rest| rest.lines().next()).unwrap();
    let runs = |what: &str| release.lines().position(|line| line.contains("- run: ") && line.contains(what));
    assert!(runs(check).is_some_and(|at| Some(at) < runs("gh release create")), "{check} in\n{release}");
}

/// The path of a module within its crate: none for `lib.rs`, `["file", "gguf"]` for `file/gguf.rs`.
type Place = Vec<String>;

/// What a file of a crate says of others.
#[derive(Default)]
struct Module {
    /// Names that `use` brings in, with what they stand for.
    names: BTreeMap<String, Place>,
    /// Every path that begins with `crate`, `super` or `self`.
    paths: Vec<Place>,
}

/// Words and signs of a source, without comments, strings and the tests at its end.
fn tokens(source: &str) -> Vec<&str> {
    let mut rest = match source.find("\n#[cfg(test)]\nmod tests {") {
        Some(tests) => &source[..tests],
        None => source,
    };
    let mut tokens = Vec::new();
    let word = |c: char| c.is_alphanumeric() || c == '_';
    while let Some(first) = rest.chars().next() {
        let hashes = rest[1.min(rest.len())..].bytes().take_while(|&byte| byte == b'#').count();
        let after_hashes = rest.as_bytes().get(1 + hashes);
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if first == 'r' && after_hashes == Some(&b'"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let start = 2 + hashes;
            start + rest[start..].find(&end).map_or(rest.len() - start, |at| at + end.len())
        } else if first == '"' || rest.starts_with("'\\") || (first == '\'' && closes(rest)) {
            let mut escaped = false;
            let end = rest[1..].find(|c| {
                let ends = !escaped && c == first;
                escaped = !escaped && c == '\\';
                ends
            });
            end.map_or(rest.len(), |at| at + 2)
        } else if word(first) {
            let length = rest.find(|c| !word(c)).unwrap_or(rest.len());
            tokens.push(&rest[..length]);
            length
        } else {
            let length = if rest.starts_with("::") { 2 } else { first.len_utf8() };
            if !first.is_whitespace() {
                tokens.push(&rest[..length]);
            }
            length
        };
        rest = &rest[length..];
    }
    tokens
}

/// Whether a quotation mark begins a character and no lifetime.
fn closes(rest: &str) -> bool {
    rest.chars().nth(2) == Some('\'')
}

/// Reads the path that begins at `at`, or the group of them in braces: each with the name it is given. The place behind it.
fn path(tokens: &[&str], mut at: usize, before: &[String], found: &mut Vec<(String, Place)>) -> usize {
    if tokens.get(at) == Some(&"{") {
        at += 1;
        while tokens.get(at).is_some_and(|token| *token != "}") {
            at = if tokens[at] == "," { at + 1 } else { path(tokens, at, before, found) };
        }
        return at + 1;
    }
    let Some(&segment) = tokens.get(at) else { return at };
    let mut whole = before.to_vec();
    if segment != "self" || before.is_empty() {
        whole.push(segment.to_owned());
    }
    if tokens.get(at + 1) == Some(&"::") {
        return path(tokens, at + 2, &whole, found);
    }
    let renamed = tokens.get(at + 1) == Some(&"as");
    let name = if renamed { tokens[at + 2].to_owned() } else { whole.last().cloned().unwrap_or_default() };
    found.push((name, whole));
    at + if renamed { 3 } else { 1 }
}

fn module(source: &str) -> Module {
    let (tokens, mut module) = (tokens(source), Module::default());
    for (at, token) in tokens.iter().enumerate() {
        let mut found = Vec::new();
        if *token == "use" {
            path(&tokens, at + 1, &[], &mut found);
            module.names.extend(found);
        } else if ["crate", "super", "self"].contains(token)
            && tokens.get(at + 1) == Some(&"::")
            && (at == 0 || tokens[at - 1] != "::")
        {
            path(&tokens, at, &[], &mut found);
            module.paths.extend(found.into_iter().map(|(_, path)| path));
        }
    }
    module
}

/// The module that a path of a module leads to, through what others hand on by `use`; `None` outside the crate.
fn resolve(all: &BTreeMap<Place, Module>, from: &Place, path: &[String], depth: usize) -> Option<Place> {
    let (mut at, mut path) = (from.clone(), path);
    match path.first()?.as_str() {
        "crate" => (at, path) = (Vec::new(), &path[1..]),
        "self" => path = &path[1..],
        "super" => {
            while path.first().is_some_and(|segment| segment == "super") {
                at.pop();
                path = &path[1..];
            }
        }
        first => {
            let child: Place = at.iter().cloned().chain([first.to_owned()]).collect();
            let known = all[&at].names.get(first).filter(|path| path[0] != first);
            if !all.contains_key(&child) && known.is_none() {
                return None;
            }
        }
    }
    while let Some(segment) = path.first() {
        let child: Place = at.iter().cloned().chain([segment.clone()]).collect();
        if !all.contains_key(&child) {
            break;
        }
        (at, path) = (child, &path[1..]);
    }
    match path.first().and_then(|name| all[&at].names.get(name)) {
        Some(handed) if handed[..] != *path && depth < 8 => {
            let longer: Place = handed.iter().chain(&path[1..]).cloned().collect();
            resolve(all, &at, &longer, depth + 1)
        }
        _ => Some(at),
    }
}

/// Pairs of files that import each other, unless one is the other's parent: a trait and its implementations are.
fn knots(sources: impl IntoIterator<Item = (Place, String)>) -> Vec<String> {
    let all: BTreeMap<Place, Module> =
        sources.into_iter().map(|(place, source)| (place, module(&source))).collect();
    let mut arrows = BTreeSet::new();
    for (from, module) in &all {
        for path in &module.paths {
            let to = resolve(&all, from, path, 0).filter(|to| !from.starts_with(to) && !to.starts_with(from));
            arrows.extend(to.map(|to| (from.clone(), to)));
        }
    }
    let both = arrows.iter().filter(|(a, b)| a < b && arrows.contains(&(b.clone(), a.clone())));
    both.map(|(a, b)| format!("{} <-> {}", a.join("/"), b.join("/"))).collect()
}

#[test]
fn no_two_files_import_each_other() {
    for (folder, ..) in CRATES.iter().filter(|(folder, ..)| *folder != "fuzz") {
        let src = root().join(folder).join("src");
        let files = sources_of(&src).into_iter().filter(|path| !path.ends_with("tests.rs"));
        let place = |path: &Path| -> Place {
            let path = path.strip_prefix(&src).unwrap().with_extension("");
            let names = path.iter().map(|name| name.to_string_lossy().into_owned());
            names.filter(|name| !["lib", "main"].contains(&name.as_str())).collect()
        };
        let found = knots(files.map(|path| (place(&path), std::fs::read_to_string(&path).unwrap())));
        assert!(found.is_empty(), "{folder}: {found:#?}");
    }
}

#[test]
fn a_knot_is_found_through_groups_and_names_handed_on() {
    let files = |b: &str| {
        [
            (vec![], "mod a; mod b; pub use b::{self, B};"),
            (vec!["a"], "use crate::{c::C, B}; const A: &str = \"crate::c\"; // crate::c"),
            (vec!["b"], b),
            (vec!["b", "c"], "use super::B;\n#[cfg(test)]\nmod tests { use crate::a; }"),
        ]
        .map(|(place, source)| (place.into_iter().map(str::to_owned).collect(), source.to_owned()))
    };
    assert_eq!(knots(files("mod c; use crate::c; use self::c::C;")), [""; 0]);
    assert_eq!(knots(files("fn f() { super::a::g() }")), ["a <-> b"]);
    assert_eq!(knots(files("use super::{super::x as y, a::{self, A}};")), ["a <-> b"]);
}
