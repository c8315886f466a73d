//! Where a setting can come from: a flag, the environment, a file, the default; the first one counts.
//!
//! All become flags, so that there is one parser and one list of names: what the environment and the file say is put
//! before the command line's own words, unless those say it already.

use std::ffi::OsString;
use std::path::Path;

use clap::{CommandFactory, Parser};

use super::Serve;
use crate::failure::{Failure, Outcome};

/// The command by itself.
#[derive(Parser)]
#[command(name = "tern serve")]
struct Alone {
    #[command(flatten)]
    serve: Serve,
}

/// The same command with what the environment and the file add.
pub(super) fn apply(serve: Serve) -> Outcome<Serve> {
    let words: Vec<OsString> = std::env::args_os().skip(2).collect();
    let env = |name: &str| std::env::var_os(name);
    let config = serve.config.clone().or_else(|| env("TERN_CONFIG").map(Into::into));
    let file = match &config {
        Some(path) => read(path)?,
        None => Vec::new(),
    };
    let added = layered(&words, serve.model.is_some(), env, file)?;
    if added.is_empty() {
        return Ok(serve);
    }
    let all = std::iter::once(OsString::from("tern serve")).chain(added).chain(words);
    match Alone::try_parse_from(all) {
        Ok(alone) => Ok(alone.serve),
        Err(error) => {
            let message = error.to_string();
            let first = message.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
            let from = config
                .map_or("the environment".into(), |path| format!("{} or the environment", path.display()));
            Err(Failure::misused(format!("{from}: {first}")))
        }
    }
}

/// The words to put before those of the command line.
fn layered(
    words: &[OsString],
    model: bool,
    env: impl Fn(&str) -> Option<OsString>,
    file: Vec<(String, Vec<String>)>,
) -> Outcome<Vec<OsString>> {
    let command = Alone::command();
    let mut added = Vec::new();
    let mut names = Vec::new();
    for argument in command.get_arguments() {
        let Some(long) = argument.get_long() else { continue };
        names.push(long);
        let flag = format!("--{long}");
        let short = argument.get_short().map(|short| format!("-{short}"));
        let said = |word: &OsString| {
            let word = word.to_string_lossy();
            word == flag
                || word.starts_with(&format!("{flag}="))
                || short.as_ref().is_some_and(|short| word.starts_with(short.as_str()))
        };
        if words.iter().any(said) || long == "config" {
            continue;
        }
        let from_env =
            env(&format!("TERN_{}", long.replace('-', "_").to_uppercase())).map(|value| vec![value]);
        let from_file = || {
            let (_, values) = file.iter().find(|(name, _)| name == long)?;
            Some(values.iter().map(OsString::from).collect())
        };
        let takes_value = argument.get_action().takes_values();
        for value in from_env.or_else(from_file).unwrap_or_default() {
            match (takes_value, value.to_str()) {
                (true, _) => added.extend([OsString::from(&flag), value]),
                (false, Some("true" | "1")) => added.push(OsString::from(&flag)),
                (false, Some("false" | "0" | "")) => {}
                (false, _) => return Err(Failure::misused(format!("{long}: expected true or false"))),
            }
        }
    }
    if let Some((name, _)) = file.iter().find(|(name, _)| name != "model" && !names.contains(&name.as_str()))
    {
        return Err(Failure::misused(format!("there is no setting `{name}`")));
    }
    if !model {
        let from_file =
            || file.iter().find(|(name, _)| name == "model").and_then(|(_, values)| values.first());
        added.extend(env("TERN_MODEL").or_else(|| from_file().map(OsString::from)));
    }
    Ok(added)
}

/// `name = value` in each line, a value bare or as JSON writes texts and lists of them; `#` begins a remark.
fn read(path: &Path) -> Outcome<Vec<(String, Vec<String>)>> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
    let mut settings = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let wrong = |what: &str| Failure::failed(format!("{}, line {number}: {what}", path.display()));
        let (name, value) = line.split_once('=').ok_or_else(|| wrong("expected `name = value`"))?;
        let value = value.trim();
        let values = match value.chars().next() {
            Some('"') => vec![serde_json::from_str(value).map_err(|_| wrong("expected a text in quotes"))?],
            Some('[') => {
                serde_json::from_str(value).map_err(|_| wrong("expected a list of texts in quotes"))?
            }
            _ => vec![value.split(" #").next().unwrap_or_default().trim().to_owned()],
        };
        settings.push((name.trim().replace('_', "-"), values));
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(list: &[&str]) -> Vec<OsString> {
        list.iter().map(OsString::from).collect()
    }

    #[test]
    fn flags_count_before_the_environment_and_that_before_the_file() {
        let env = |name: &str| match name {
            "TERN_PORT" | "TERN_PARALLEL" => Some("2".into()),
            "TERN_ISOLATE_KEYS" => Some("true".into()),
            _ => None,
        };
        let file = || {
            let of = |name: &str, values: &[&str]| {
                (name.to_owned(), values.iter().map(|v| (*v).to_owned()).collect())
            };
            vec![
                of("port", &["3"]),
                of("parallel", &["3"]),
                of("queue", &["3"]),
                of("api-key", &["a", "b"]),
                of("model", &["m"]),
            ]
        };
        let got = layered(&words(&["x.gguf", "--port=1"]), true, env, file()).unwrap();
        assert_eq!(
            got,
            words(&["--parallel", "2", "--queue", "3", "--api-key", "a", "--api-key", "b", "--isolate-keys"])
        );
        let got = layered(&words(&["--queue", "1", "--api-key", "z"]), false, env, file()).unwrap();
        assert_eq!(got, words(&["--port", "2", "--parallel", "2", "--isolate-keys", "m"]));
        assert!(layered(&[], true, |_| None, vec![("colour".to_owned(), vec![])]).is_err());
    }

    #[test]
    fn files_of_settings() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tern.conf");
        let text = "# how we serve\nport = 80 # as usual\nctx_size=512\n\nmodel = \"a #b.gguf\"\napi-key = [\"x\", \"y\"]\n";
        std::fs::write(&path, text).unwrap();
        let names: Vec<_> = read(&path).unwrap();
        let expect =
            |name: &str, values: &[&str]| (name.to_owned(), values.iter().map(|v| (*v).to_owned()).collect());
        assert_eq!(
            names,
            [
                expect("port", &["80"]),
                expect("ctx-size", &["512"]),
                expect("model", &["a #b.gguf"]),
                expect("api-key", &["x", "y"])
            ]
        );
        for bad in ["port", "port = \"80", "api-key = [1]"] {
            std::fs::write(&path, bad).unwrap();
            let failure = format!("{:?}", read(&path).unwrap_err());
            assert!(failure.contains("line 1"), "{failure}");
        }
    }
}
