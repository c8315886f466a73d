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

/// A setting of the file: its name, where it stands, its values.
#[derive(Debug)]
struct Setting {
    name: String,
    line: usize,
    values: Vec<String>,
}

/// The same command with what the environment and the file add.
pub(super) fn apply(serve: Serve) -> Outcome<Serve> {
    let words: Vec<OsString> = std::env::args_os().skip(2).collect();
    let env = |name: &str| std::env::var_os(name);
    let names: Vec<String> = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect();
    known_variables(names.iter().map(String::as_str))?;
    let config = serve.config.clone().or_else(|| env("TERN_CONFIG").map(Into::into));
    let file = match &config {
        Some(path) => read(path)?,
        None => Vec::new(),
    };
    if let Some(path) = &config {
        known_settings(path, &file)?;
    }
    let added = layered(&words, !serve.models.is_empty(), env, file)?;
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

/// The names that a setting can have in a file.
fn settings() -> Vec<String> {
    let flags = Alone::command();
    let mut names: Vec<String> =
        flags.get_arguments().filter_map(|flag| flag.get_long()).map(str::to_owned).collect();
    names.retain(|name| !["config", "help", "version"].contains(&name.as_str()));
    names.push("model".to_owned());
    names
}

/// A setting's name in the environment.
fn variable(name: &str) -> String {
    format!("TERN_{}", name.replace('-', "_").to_uppercase())
}

/// Refuses a variable that looks like a setting and is none: a misspelt `TERN_API_KEY_FILE` would leave the door open.
fn known_variables<'a>(names: impl Iterator<Item = &'a str>) -> Outcome {
    let mut known: Vec<String> = settings().iter().map(|name| variable(name)).collect();
    known.push("TERN_CONFIG".to_owned());
    // Kubernetes tells every container where a service named `tern` is, in variables of these forms.
    let of_kubernetes = |name: &str| {
        name.ends_with("_SERVICE_HOST")
            || name.contains("_SERVICE_PORT")
            || (name.starts_with("TERN_PORT_") && (name.contains("_TCP") || name.contains("_UDP")))
    };
    let ours = |name: &&str| name.starts_with("TERN_") && !of_kubernetes(name);
    match { names }.filter(ours).find(|name| !known.iter().any(|known| known == name)) {
        None => Ok(()),
        Some(name) => {
            Err(Failure::misused(format!("the variable `{name}` in the environment is no setting"))
                .hint(like(name, &known)))
        }
    }
}

/// Refuses what the file sets and nobody knows.
fn known_settings(path: &Path, file: &[Setting]) -> Outcome {
    let known = settings();
    match file.iter().find(|setting| !known.contains(&setting.name)) {
        None => Ok(()),
        Some(Setting { name, line, .. }) => {
            let what = format!("{}, line {line}: there is no setting `{name}`", path.display());
            Err(Failure::misused(what).hint(like(name, &known)))
        }
    }
}

/// What was probably meant.
fn like(name: &str, known: &[String]) -> String {
    let likeness = |known: &String| strsim::jaro_winkler(name, known);
    let best = known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match best.filter(|best| likeness(best) > 0.85) {
        Some(best) => format!("did you mean `{best}`?"),
        None => {
            "`tern serve --help` lists the flags; each can be a variable (`TERN_PORT`) or a setting (`port`)"
                .to_owned()
        }
    }
}

/// The words to put before those of the command line.
fn layered(
    words: &[OsString],
    model: bool,
    env: impl Fn(&str) -> Option<OsString>,
    file: Vec<Setting>,
) -> Outcome<Vec<OsString>> {
    let command = Alone::command();
    let mut added = Vec::new();
    let in_file = |name: &str| file.iter().find(|setting| setting.name == name);
    for argument in command.get_arguments() {
        let Some(long) = argument.get_long() else { continue };
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
        let from_env = env(&variable(long)).map(|value| vec![value]);
        let from_file = || Some(in_file(long)?.values.iter().map(OsString::from).collect());
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
    if !model {
        let from_file =
            || in_file("model").into_iter().flat_map(|setting| &setting.values).map(OsString::from);
        match env("TERN_MODEL") {
            Some(model) => added.push(model),
            None => added.extend(from_file()),
        }
    }
    Ok(added)
}

/// `name = value` in each line, a value bare or as JSON writes texts and lists of them; `#` begins a remark.
fn read(path: &Path) -> Outcome<Vec<Setting>> {
    let mut settings = Vec::new();
    for (line, text) in (1..).zip(super::small_file(path)?.lines()) {
        let text = text.trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let wrong = |what: &str| Failure::failed(format!("{}, line {line}: {what}", path.display()));
        let (name, value) = text.split_once('=').ok_or_else(|| wrong("expected `name = value`"))?;
        let value = value.trim();
        let values = match value.chars().next() {
            Some('"') => vec![serde_json::from_str(value).map_err(|_| wrong("expected a text in quotes"))?],
            Some('[') => {
                serde_json::from_str(value).map_err(|_| wrong("expected a list of texts in quotes"))?
            }
            _ => vec![value.split(" #").next().unwrap_or_default().trim().to_owned()],
        };
        settings.push(Setting { name: name.trim().replace('_', "-"), line, values });
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
            "TERN_SHARE_CACHE" => Some("true".into()),
            _ => None,
        };
        let file = || {
            let of = |name: &str, values: &[&str]| Setting {
                name: name.to_owned(),
                line: 1,
                values: values.iter().map(|v| (*v).to_owned()).collect(),
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
            words(&["--parallel", "2", "--queue", "3", "--api-key", "a", "--api-key", "b", "--share-cache"])
        );
        let got = layered(&words(&["--queue", "1", "--api-key", "z"]), false, env, file()).unwrap();
        assert_eq!(got, words(&["--port", "2", "--parallel", "2", "--share-cache", "m"]));
    }

    #[test]
    fn files_of_settings() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tern.conf");
        let text = "# how we serve\nport = 80 # as usual\nctx_size=512\n\nmodel = \"a #b.gguf\"\napi-key = [\"x\", \"y\"]\n";
        std::fs::write(&path, text).unwrap();
        let names: Vec<_> =
            read(&path).unwrap().into_iter().map(|found| (found.name, found.values)).collect();
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

    #[test]
    fn names_that_nobody_knows_are_refused_with_the_likely_one() {
        let env = |name: &str| known_variables([name, "PATH", "TERNARY"].into_iter());
        for good in ["TERN_PORT", "TERN_CONFIG", "TERN_MODEL", "TERN_SERVICE_HOST", "TERN_PORT_8080_TCP_ADDR"]
        {
            env(good).unwrap();
        }
        for (bad, meant) in [("TERN_PROT", "`TERN_PORT`"), ("TERN_APIKEY_FILE", "`TERN_API_KEY_FILE`")] {
            let failure = format!("{:?}", env(bad).unwrap_err());
            assert!(failure.contains(bad) && failure.contains(meant), "{failure}");
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tern.conf");
        std::fs::write(&path, "port = 1\n\nmodl = x.gguf\n").unwrap();
        let failure = format!("{:?}", known_settings(&path, &read(&path).unwrap()).unwrap_err());
        for part in ["tern.conf, line 3", "`modl`", "did you mean `model`?"] {
            assert!(failure.contains(part), "{failure}");
        }
    }
}
