//! Which files of a repository make up the model.

use crate::error::{Error, Result};

/// What to download, and what Tern then opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// One GGUF file.
    File(String),
    /// A checkpoint: configuration, tokenizer and weights.
    Folder(Vec<String>),
}

impl Choice {
    /// The files that it needs.
    pub fn files(&self) -> Vec<&str> {
        match self {
            Self::File(path) => vec![path],
            Self::Folder(paths) => paths.iter().map(String::as_str).collect(),
        }
    }
}

/// Files that a checkpoint may have beside its weights, and Tern reads.
const BESIDE: &[&str] = &[
    "config.json",
    "generation_config.json",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "vocab.json",
    "merges.txt",
];

/// Chooses among the files of a repository. A variant is a file, or a part of the name of just one GGUF file. Without
/// one, a repository with one GGUF file means that, and a repository with a checkpoint means the checkpoint.
pub fn choose<'a>(files: impl Iterator<Item = &'a str>, variant: Option<&str>) -> Result<Choice> {
    let files: Vec<&str> = files.collect();
    let gguf: Vec<&str> = files.iter().copied().filter(|path| is_gguf(path)).collect();
    if let Some(variant) = variant {
        if let Some(exact) = files.iter().find(|path| **path == variant) {
            return match is_gguf(exact) {
                true => Ok(Choice::File((*exact).to_owned())),
                false => Err(Error::Name(format!("{variant}: expected a .gguf file"))),
            };
        }
        let wanted = variant.to_lowercase();
        let fits = |path: &&&str| path.to_lowercase().contains(&wanted);
        return match gguf.iter().filter(fits).copied().collect::<Vec<_>>()[..] {
            [one] => Ok(Choice::File(one.to_owned())),
            [] => Err(Error::Name(format!("no .gguf file has `{variant}` in its name{}", there(&gguf)))),
            ref several => Err(Error::Name(format!(
                "{} .gguf files have `{variant}` in their names{}",
                several.len(),
                there(several)
            ))),
        };
    }
    let weights = |path: &&str| path.ends_with(".safetensors") && !path.contains('/');
    let checkpoint = files.contains(&"config.json") && files.iter().any(weights);
    match gguf[..] {
        [one] if !checkpoint => Ok(Choice::File(one.to_owned())),
        [] if checkpoint => {
            let wanted = |path: &&str| BESIDE.contains(path) || weights(path);
            Ok(Choice::Folder(files.into_iter().filter(wanted).map(str::to_owned).collect()))
        }
        [] => Err(Error::Name(
            "expected a .gguf file, or config.json with .safetensors files, and found neither".to_owned(),
        )),
        _ => Err(Error::Name(format!(
            "{} .gguf files are there: name one after a colon, as ORG/REPO:FILE{}",
            gguf.len(),
            there(&gguf)
        ))),
    }
}

/// A projector of images is no model.
fn is_gguf(path: &str) -> bool {
    path.ends_with(".gguf") && !path.rsplit('/').next().is_some_and(|file| file.contains("mmproj"))
}

fn there(files: &[&str]) -> String {
    let shown: Vec<_> = files.iter().take(8).copied().collect();
    let more = if files.len() > shown.len() { ", ..." } else { "" };
    if shown.is_empty() { String::new() } else { format!("; there are {}{more}", shown.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(files: &[&str], variant: Option<&str>) -> Result<Choice, String> {
        choose(files.iter().copied(), variant).map_err(|error| error.to_string())
    }

    #[test]
    fn one_file_a_checkpoint_or_what_the_variant_names() {
        let file = |path: &str| Ok(Choice::File(path.to_owned()));
        assert_eq!(of(&["README.md", "a.gguf"], None), file("a.gguf"));
        assert_eq!(of(&["a-Q2_0.gguf", "a-F16.gguf", "mmproj.gguf"], Some("q2_0")), file("a-Q2_0.gguf"));
        assert_eq!(of(&["a.gguf", "ba.gguf"], Some("a.gguf")), file("a.gguf"));
        let folder =
            of(&["config.json", "model.safetensors", "tokenizer.json", "big.bin", "x/m.safetensors"], None);
        assert_eq!(folder.unwrap().files(), ["config.json", "model.safetensors", "tokenizer.json"]);
    }

    #[test]
    fn a_choice_that_is_not_clear_names_what_is_there() {
        let several = of(&["a-Q2_0.gguf", "a-F16.gguf"], None).unwrap_err();
        assert_eq!(
            several,
            "2 .gguf files are there: name one after a colon, as ORG/REPO:FILE; there are a-Q2_0.gguf, a-F16.gguf"
        );
        assert!(of(&["a.gguf"], Some("tq1")).unwrap_err().contains("`tq1`"));
        assert!(of(&["a.gguf", "config.json", "m.safetensors"], None).unwrap_err().contains("name one"));
        assert!(of(&["README.md"], None).unwrap_err().contains("neither"));
        assert!(of(&["config.json", "m.safetensors"], Some("config.json")).is_err());
    }
}
