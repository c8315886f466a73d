//! What a person reads when something is wrong: one line that names the thing, a hint where there is something to do,
//! exit code 2 for a command that makes no sense and 1 for one that fails.

mod common;

use std::process::Command;

use common::{Done, PAGE, run, run_with_input, snapshot, tern, testdata, transcript};

/// No panic, no signal, an exit code that says whose fault it was, and every message on one line.
fn fails_well(args: &[&str], done: &Done) {
    assert!(
        matches!(done.code, Some(1 | 2)),
        "{args:?}: exit {:?}\n{}{}",
        done.code,
        done.stdout,
        done.stderr
    );
    assert!(done.stderr.starts_with("error: "), "{args:?}: {}", done.stderr);
    assert!(!done.stderr.contains("panicked"), "{args:?}: {}", done.stderr);
    if done.code == Some(1) {
        assert_eq!(done.stdout, "", "{args:?}");
        for line in done.stderr.lines() {
            assert!(line.starts_with("error: ") || line.starts_with("hint: "), "{args:?}: {line}");
            assert!(!line.ends_with('.'), "{args:?}: {line}");
        }
    }
}

#[test]
fn wrong_usage() {
    let mut text = String::new();
    let cases: &[&[&str]] = &[
        &["sing"],
        &["run", "story", "a", "b"],
        &["run", "--temp", "-1"],
        &["run", "--temp", "NaN"],
        &["run", "--temp", "1000"],
        &["run", "--temp", "hot"],
        &["run", "--top-k", "-1"],
        &["run", "--top-p", "2"],
        &["run", "--top-p", "0"],
        &["run", "--min-p", "1.5"],
        &["run", "--repeat-penalty", "0"],
        &["run", "--repeat-penalty", "inf"],
        &["run", "--typical", "0"],
        &["run", "--presence-penalty", "101"],
        &["run", "--frequency-penalty", "x"],
        &["run", "--dry-multiplier", "-1"],
        &["run", "--dry-base", "0.5"],
        &["run", "--dry-allowed", "0"],
        &["run", "--dry-breaker", ""],
        &["run", "--logit-bias", "5"],
        &["run", "--logit-bias", "5=1000"],
        &["run", "--seed", "-1"],
        &["run", "-n", "0"],
        &["run", "-n", "-5"],
        &["run", "-n", "99999999999999999999999"],
        &["run", "-c", "0"],
        &["run", "-t", "0"],
        &["run", "-t", "100000"],
        &["run", "--packing", "i3"],
        &["run", "--ids", "1,x"],
        &["run", "--ids", ""],
        &["run", "--ids", "-1"],
        &["run", "--ids", "[]"],
        &["run", "story", "text", "--ids", "1"],
        &["run", "--raw", "--system", "be kind"],
        &["tokenize"],
        &["tokenize", "story", "text", "--file", "x"],
        &["inspect"],
        &["convert", "in.gguf"],
        &["convert", "in.gguf", "out.gguf", "--to", "q4"],
        &["dummy", "out.gguf"],
        &["dummy", "--shape", "huge", "out.gguf"],
    ];
    for args in cases {
        let done = run(args);
        fails_well(args, &done);
        assert_eq!(done.code, Some(2), "{args:?}: {}", done.stderr);
        text.push_str(&transcript(args, &done, &[]));
        text.push('\n');
    }
    snapshot("usage", &text);
}

#[test]
fn words_of_other_programs_are_answered_with_the_way_that_works() {
    let mut text = String::new();
    for line in [
        "ps",
        "download bitnet",
        "delete story",
        "cp a b",
        "push me",
        "create mine",
        "stop",
        "generate hello",
        "embedding hello",
        "quantize a b",
        "perplexity",
        "server",
        "cli",
        "completion",
        "llama-cli -m a.gguf",
        "llama-server -m a.gguf",
        "llama-bench",
        "version",
        "model.gguf hello",
        "story hello",
        "strory",
        "run -m model.gguf -p hello",
        "run story hello --n-predict 5",
        "run story hello -ngl 99",
        "chat --temperature 0.5",
        "chat -i",
        "serve --n-gpu-layers 3",
    ] {
        let args: Vec<&str> = line.split(' ').collect();
        let done = run(&args);
        assert_eq!((done.code, done.stdout.as_str()), (Some(2), ""), "{line}: {}", done.stderr);
        assert!(line == "strory" || done.stderr.contains("\nhint: "), "{line}: {}", done.stderr);
        text.push_str(&transcript(&args, &done, &[]));
        text.push('\n');
    }
    snapshot("other-programs", &text);
}

#[test]
fn a_model_that_is_not_here_says_what_a_model_is_and_where_one_comes_from() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path().canonicalize().unwrap();
    let mut text = String::new();
    for model in [
        "microsoft/bitnet-b1.58-2B-4T",
        "bitnet",
        "bitnet.gguf",
        "./bitnet.gguf",
        "/nowhere/bitnet",
        "llama3:8b",
    ] {
        for command in ["run", "chat", "serve", "inspect", "tokenize", "bench"] {
            let done: Done = tern(&[command, model]).current_dir(&here).output().unwrap().into();
            fails_well(&[command, model], &done);
            let on_the_hub = ["not on this machine", "hint: `tern pull microsoft/bitnet-b1.58-2B-4T`"];
            let nowhere =
                ["no such file or directory", "hint: a model is a .gguf file", "`tern chat bitnet-2b`"];
            for words in if model.starts_with("microsoft/") { &on_the_hub[..] } else { &nowhere } {
                assert!(done.stderr.contains(words), "{command} {model}: {}", done.stderr);
            }
            if command == "run" {
                text.push_str(&transcript(&[command, model], &done, &[(here.to_str().unwrap(), "DIR")]));
                text.push('\n');
            }
        }
    }
    snapshot("models-elsewhere", &text);
}

#[test]
fn a_foreign_architecture_names_its_file_without_escapes() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(testdata(&format!("golden/llama_packed_bitlinear/{name}")), folder.path().join(name))
            .unwrap();
    }
    let config = folder.path().join("config.json");
    let mut json: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&config).unwrap()).unwrap();
    json["architectures"] = serde_json::json!(["Phi3ForCausalLM"]);
    std::fs::write(&config, json.to_string()).unwrap();
    let done = run(&["run", folder.path().to_str().unwrap(), "Hello"]);
    fails_well(&["run"], &done);
    let start = format!("error: {}: key `architectures`: expected one of ", config.display());
    assert!(done.stderr.starts_with(&start), "{}", done.stderr);
    assert!(done.stderr.ends_with("found [\"Phi3ForCausalLM\"]\n"), "{}", done.stderr);
}

#[test]
fn models_that_are_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::create_dir(path("empty folder")).unwrap();
    std::fs::create_dir_all(path("my models/falcon")).unwrap();
    std::fs::write(path("my models/falcon/config.json"), "{}").unwrap();
    std::fs::write(path("my models/bitnet.gguf"), "").unwrap();
    std::fs::write(path("empty.gguf"), "").unwrap();
    std::fs::write(path("words ö.txt"), "not a model").unwrap();
    std::fs::write(path("short.gguf"), "GGUF\x03\0\0\0").unwrap();
    std::fs::write(path("words.safetensors"), "{}{}{}{}{}").unwrap();
    let here = folder.path().to_str().unwrap();
    let there = folder.path().canonicalize().unwrap();
    let hidden = [(there.to_str().unwrap(), "DIR"), (here, "DIR")];
    let mut text = String::new();
    for model in [
        "strory".to_owned(),
        "Once upon a time".to_owned(),
        path("missing.gguf"),
        path("missing folder/"),
        path("empty folder"),
        path("my models"),
        path("empty.gguf"),
        path("words ö.txt"),
        path("short.gguf"),
        path("words.safetensors"),
    ] {
        for command in
            [&["run", &*model, "Hello"][..], &["inspect", &*model], &["tokenize", &*model, "Hello"]]
        {
            let done: Done = tern(command).current_dir(here).output().unwrap().into();
            fails_well(command, &done);
            text.push_str(&transcript(command, &done, &hidden));
        }
        text.push('\n');
    }
    snapshot("no-model", &text);
}

#[cfg(unix)]
#[test]
fn places_that_are_no_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    assert!(Command::new("mkfifo").arg(path("fifo.gguf")).status().unwrap().success());
    std::os::unix::fs::symlink(path("loop.gguf"), path("loop.gguf")).unwrap();
    std::os::unix::fs::symlink(path("nowhere"), path("dangling.gguf")).unwrap();
    let here = folder.path().to_str().unwrap();
    let mut text = String::new();
    for place in
        [path("fifo.gguf"), path("loop.gguf"), path("dangling.gguf"), "/dev/zero".into(), "/dev/null".into()]
    {
        for command in [
            &["run", &*place, "Hello"][..],
            &["inspect", &*place],
            &["tokenize", &*place, "Hello"],
            &["convert", &*place, &*path("out.gguf")],
        ] {
            let done = run(command);
            fails_well(command, &done);
            text.push_str(&transcript(command, &done, &[(here, "DIR")]));
        }
        text.push('\n');
    }
    assert!(!std::fs::exists(path("out.gguf")).unwrap());
    snapshot("places", &text);
}

#[cfg(unix)]
#[test]
fn a_path_that_is_not_utf8_is_shown_as_well_as_it_can_be() {
    use std::os::unix::ffi::OsStrExt;
    let name = std::ffi::OsStr::from_bytes(b"no\xffsuch.gguf");
    for command in ["inspect", "run"] {
        let done: Done = tern(&[command]).arg(name).arg("Hello").output().unwrap().into();
        if command == "run" {
            fails_well(&[command], &done);
            assert!(done.stderr.contains("such.gguf: no such file or directory"), "{}", done.stderr);
        }
    }
}

#[test]
fn input_that_is_no_text_is_refused_with_its_place() {
    let done = run_with_input(&["run", "story"], b"Once \xff upon");
    fails_well(&["run"], &done);
    assert_eq!(done.stderr, "error: standard input: expected UTF-8 text, found byte 0xff at offset 5\n");
    let done = run_with_input(&["run", "story", "-"], b"\n");
    fails_well(&["run"], &done);
    assert!(
        done.stderr.starts_with("error: standard input: expected a prompt, found nothing\nhint: "),
        "{}",
        done.stderr
    );
}

#[test]
fn values_that_do_not_fit_the_model_name_their_flag() {
    let model = testdata("golden/gguf/bitnet_b158_i2s.gguf");
    let mut text = String::new();
    for args in [
        &["run", PAGE, "Once", "-c", "1000000"][..],
        &["run", &model, "--ids", "1,2,4000000000"],
        &["run", &model, "--ids", "1", "-c", "100000000"],
        &["run", &model, "Hello"],
        &["run", &model, "--ids", "1,2,3,4,5", "-c", "4"],
        &["chat", &model],
    ] {
        let done = run(args);
        fails_well(args, &done);
        text.push_str(&transcript(args, &done, &[(&model, "MODEL"), (PAGE, "PAGE")]));
        text.push('\n');
    }
    snapshot("misfits", &text);
}

#[test]
fn an_instruction_set_that_is_not_here_is_answered_with_those_that_are() {
    let done = run(&["run", "story", "Once", "--cpu", "abacus"]);
    assert_eq!(done.code, Some(2));
    let expected = "error: invalid value 'abacus' for '--cpu <NAME>': expected ";
    assert!(done.stderr.starts_with(expected) && done.stderr.contains("scalar"), "{}", done.stderr);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_behind_standard_output_is_a_failure() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let done: Done = tern(&["tokenize", "story", "Once"]).stdout(full).output().unwrap().into();
    fails_well(&["tokenize"], &done);
    assert!(done.stderr.starts_with("error: standard output: "), "{}", done.stderr);
}
