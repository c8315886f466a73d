//! What the documents point to is there: files, headings, pages of the book, and the messages that troubleshooting explains.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Files below a folder with an extension.
fn below(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let (mut folders, mut found) = (vec![folder.to_owned()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().flatten() {
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            let hidden = entry.file_name().to_string_lossy().starts_with('.');
            if kind.is_dir()
                && !hidden
                && entry.file_name() != "target"
                && entry.file_name() != "node_modules"
            {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    found
}

/// A document without its blocks.
fn prose(text: &str) -> String {
    let mut block = false;
    let lines = text.lines().filter(|line| {
        let edge = line.trim_start().starts_with("```");
        block ^= edge;
        !block && !edge
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Headings as links name them, on GitHub and in the book.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text);
    let headings = headings.lines().filter(|line| line.starts_with('#'));
    let slug = |line: &str| -> String {
        let kept = line.trim_start_matches('#').trim().to_lowercase();
        kept.chars()
            .filter(|sign| sign.is_alphanumeric() || " -_".contains(*sign))
            .map(|sign| if sign == ' ' { '-' } else { sign })
            .collect()
    };
    headings.map(slug).collect()
}

/// Where the links of a document go: what stands between `](` and `)`.
fn links(text: &str) -> Vec<String> {
    let text = prose(text);
    // A link in code is none.
    let words = text.split('`').step_by(2).collect::<Vec<_>>().join("`");
    let ends = words.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next().map(str::to_owned));
    ends.collect()
}

/// What is wrong with a link of a document.
fn broken(from: &Path, link: &str) -> Option<String> {
    if link.starts_with("https://") || link.starts_with("http://") || link.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let to = if path.is_empty() { from.to_owned() } else { from.parent().unwrap().join(path) };
    if !to.exists() {
        return Some(format!("{}: {link}: no such file", from.display()));
    }
    if anchor.is_empty() || anchors(&fs::read_to_string(&to).ok()?).contains(anchor) {
        return None;
    }
    Some(format!("{}: {link}: no such heading", from.display()))
}

#[test]
fn every_link_of_every_document_leads_somewhere() {
    let documents = below(&root(), "md");
    let mut count = 0;
    let mut wrong = Vec::new();
    for document in &documents {
        for link in links(&fs::read_to_string(document).unwrap()) {
            count += 1;
            wrong.extend(broken(document, &link));
        }
    }
    assert!(documents.len() > 20 && count > 60, "{} documents, {count} links", documents.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let here = root().join("README.md");
    assert!(broken(&here, "docs/nothing.md").is_some() && broken(&here, "docs/start.md#nothing").is_some());
    assert!(broken(&here, "docs/start.md#first-words").is_none());
}

#[test]
fn every_page_is_in_the_book_once() {
    let folder = root().join("docs");
    let listed = links(&fs::read_to_string(folder.join("SUMMARY.md")).unwrap());
    let mut times: BTreeMap<PathBuf, usize> = BTreeMap::new();
    listed.iter().for_each(|page| *times.entry(folder.join(page)).or_default() += 1);
    for page in below(&folder, "md").into_iter().filter(|page| !page.ends_with("SUMMARY.md")) {
        assert_eq!(times.get(&page), Some(&1), "docs/SUMMARY.md lists {} once", page.display());
    }
}

#[test]
fn messages_that_troubleshooting_explains_are_in_the_source() {
    let text = fs::read_to_string(root().join("docs/troubleshooting.md")).unwrap();
    let messages: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert!(messages.len() >= 10, "{messages:?}");
    let sources: Vec<String> = ["cli", "engine", "hub", "serve", "convert", "train", "eval"]
        .iter()
        .flat_map(|part| below(&root().join(part).join("src"), "rs"))
        // A text that goes on in the next line is one.
        .map(|path| fs::read_to_string(path).unwrap())
        .map(|source| source.split("\\\n").map(str::trim_start).collect())
        .collect();
    let told = |message: &str| {
        let parts: Vec<&str> = message.split("...").map(str::trim).collect();
        sources.iter().any(|source| parts.iter().all(|part| source.contains(part)))
    };
    for message in messages {
        let quoted = message.strip_prefix('`').and_then(|rest| rest.strip_suffix('`'));
        let quoted = quoted.unwrap_or_else(|| panic!("a heading is a message in backquotes: {message}"));
        assert!(told(quoted), "docs/troubleshooting.md: no source says `{quoted}`");
    }
    assert!(!told("nobody says this"));
}
