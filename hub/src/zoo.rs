//! Short names for the public ternary models; the one list is `zoo.json`.

use std::sync::OnceLock;

use serde::Deserialize;

use crate::name::Name;

/// A model that has a short name.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Known {
    /// The short name.
    pub name: String,
    /// `ORG/REPO` on the Hub.
    pub repo: String,
    /// The file of it, or a part of the file's name; `None` is the whole checkpoint.
    pub variant: Option<String>,
    /// Its licence, as the Hub names it.
    pub licence: String,
    /// About how many bytes there are to download, where its card or its shape tells.
    pub bytes: Option<u64>,
    /// What it is, and what its card warns of.
    pub what: String,
}

/// All models that have a short name.
pub fn zoo() -> &'static [Known] {
    static ZOO: OnceLock<Vec<Known>> = OnceLock::new();
    ZOO.get_or_init(|| serde_json::from_str(include_str!("zoo.json")).expect("zoo.json is a list of models"))
}

/// The model that a short name means. Names do not heed case; ollama's `:latest` is allowed.
pub fn known(name: &str) -> Option<&'static Known> {
    let name = name.strip_suffix(":latest").unwrap_or(name);
    zoo().iter().find(|known| known.name.eq_ignore_ascii_case(name))
}

impl Known {
    /// Its full name.
    pub fn full(&self) -> Name {
        Name { repo: self.repo.clone(), revision: "main".to_owned(), variant: self.variant.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_short_name_is_one_word_and_means_a_name_that_parses() {
        let mut names: Vec<_> = zoo().iter().map(|known| known.name.as_str()).collect();
        for known in zoo() {
            assert_eq!(known.full().to_string().parse::<Name>().unwrap(), known.full());
            assert!(!known.name.contains(['/', ':', ' ', '@']) && known.bytes != Some(0), "{}", known.name);
        }
        names.sort();
        names.dedup();
        assert_eq!(names.len(), zoo().len());
        assert_eq!(known("BitNet-2B:latest").unwrap().name, "bitnet-2b");
        assert!(known("no-such").is_none());
    }
}
