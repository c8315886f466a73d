//! Names of models as people type them: `ORG/REPO[@REVISION][:VARIANT]`.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// A repository on the Hub, a revision of it, and what of it is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// `ORG/REPO`.
    pub repo: String,
    /// A branch, a tag or a commit; `main` unless the name says otherwise.
    pub revision: String,
    /// A file, or a part of one file's name such as `Q2_0`.
    pub variant: Option<String>,
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = |what: &str| Error::Name(format!("`{}`: {what}", text.escape_debug()));
        let (rest, variant) = match text.split_once(':') {
            Some((rest, variant)) => (rest, Some(variant)),
            None => (text, None),
        };
        let (repo, revision) = rest.split_once('@').unwrap_or((rest, "main"));
        let Some((owner, name)) = repo.split_once('/') else {
            return Err(bad("expected ORG/REPO, ORG/REPO:FILE or a short name of docs/models.md"));
        };
        if !is_part(owner) || !is_part(name) {
            return Err(bad("an organisation and a repository have letters, digits, `-`, `_` and `.`"));
        }
        // Revisions such as `refs/pr/1` have several parts; each becomes a folder of the cache.
        if !revision.split('/').all(is_part) || revision.len() > 200 {
            return Err(bad("expected a branch, a tag or a commit after `@`"));
        }
        if variant.is_some_and(|variant| !is_path(variant)) {
            return Err(bad("expected a file, or a part of its name, after `:`"));
        }
        Ok(Self { repo: repo.to_owned(), revision: revision.to_owned(), variant: variant.map(str::to_owned) })
    }
}

impl Name {
    /// The repository's name without its owner.
    pub fn last(&self) -> &str {
        self.repo.rsplit('/').next().unwrap_or(&self.repo)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repo)?;
        if self.revision != "main" {
            write!(f, "@{}", self.revision)?;
        }
        match &self.variant {
            Some(variant) => write!(f, ":{variant}"),
            None => Ok(()),
        }
    }
}

/// Whether a name of an owner, a repository or a branch's part can stand in a path and in a URL as it is.
fn is_part(text: &str) -> bool {
    (1..=96).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && text.bytes().any(|byte| byte != b'.')
        && !text.contains("..")
        // The cache separates owner and repository by these two.
        && !text.contains("--")
}

/// Whether a path inside a repository stays inside a folder on every system.
pub(crate) fn is_path(path: &str) -> bool {
    (1..=1000).contains(&path.len())
        && !path.chars().any(|c| c.is_control() || "\\:*?\"<>|".contains(c))
        && path.split('/').all(|part| {
            (1..=200).contains(&part.len()) && part != "." && part != ".." && !part.ends_with(['.', ' '])
        })
}

/// A git commit: 40 hexadecimal digits.
pub(crate) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_repository_a_revision_and_a_variant() {
        let name = |text: &str| text.parse::<Name>().unwrap();
        let plain = name("microsoft/bitnet-b1.58-2B-4T-gguf");
        assert_eq!((plain.revision.as_str(), plain.variant.as_deref()), ("main", None));
        let all = name("a/b@refs/pr/1:sub/model-Q2_0.gguf");
        assert_eq!((all.repo.as_str(), all.revision.as_str()), ("a/b", "refs/pr/1"));
        assert_eq!(all.variant.as_deref(), Some("sub/model-Q2_0.gguf"));
        assert_eq!(all.to_string(), "a/b@refs/pr/1:sub/model-Q2_0.gguf");
    }

    #[test]
    fn a_name_cannot_leave_the_cache() {
        for text in [
            "a",
            "a/",
            "/b",
            "a/b/c",
            "../b",
            "a/..",
            "a/b@../../x",
            "a/b@",
            "a/b@x//y",
            "a/b:",
            "a/b:../x",
            "a/b:/x",
            "a/b:x/../y",
            "a/b:x\\y",
            "a--b/c",
            "a/b c",
            "a/\u{e9}",
            "a/b:x\0",
            "a/b:c:d",
            "~/b/..",
            "a/b@.",
        ] {
            assert!(text.parse::<Name>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_path_stays_inside_its_folder() {
        for path in ["model.gguf", "a/b/c.json", ".gitattributes"] {
            assert!(is_path(path), "{path}");
        }
        for path in ["", "/etc/passwd", "../x", "a/../b", "a//b", "a/./b", "C:/x", "a\\b", "a\nb", "a.", "a/"]
        {
            assert!(!is_path(path), "{path}");
        }
    }
}
