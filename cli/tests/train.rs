//! `tern train` as a person runs it: from texts to a model, killed at any moment, told wrong things.

mod common;
#[path = "common/training.rs"]
mod training;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::{run, tern};
use training::{config, folder, losses};

fn start(dir: &Path, out: &str) -> Child {
    let out = dir.join(out);
    let args = ["train", &config(dir), "--out", out.to_str().unwrap()];
    tern(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn parts(out: &Path) -> usize {
    let names = fs::read_dir(out.join("checkpoints")).into_iter().flatten().flatten();
    names.filter(|entry| entry.file_name().to_string_lossy().ends_with(".part")).count()
}

#[test]
fn from_texts_to_a_model_that_runs() {
    let dir = folder("steps = 6\nvalidate_every = 3\nsave_every = 3\n");
    let done = run(&["train", &config(dir.path())]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(
        done.stderr.contains("bits per character") && done.stderr.contains("the model is in"),
        "{}",
        done.stderr
    );
    let report = fs::read_to_string(dir.path().join("run/report.html")).unwrap();
    assert!(
        report.contains("<svg") && report.contains("6 of 6 steps") && report.contains("held out"),
        "{report}"
    );
    let events = fs::read_dir(dir.path().join("run/tensorboard")).unwrap().next().unwrap().unwrap();
    assert!(events.metadata().unwrap().len() > 500, "6 steps and 2 validations");
    let model = dir.path().join("run/masters");
    let gguf = dir.path().join("x.gguf").to_str().unwrap().to_owned();
    run(&["convert", model.to_str().unwrap(), &gguf, "--to", "t5", "--embedding", "f16"]).ok();
    // The folder says all that there is to say; without a model, its own is checked.
    let out = dir.path().join("run").to_str().unwrap().to_owned();
    let text = run(&["train", "check", &out]).ok();
    assert!(text.contains("the same likeliest token everywhere") && !text.contains("rounded"), "{text}");
    let text = run(&["train", "check", &out, &gguf]).ok();
    assert!(text.contains("rounded   loss "), "{text}");
    let json = run(&["train", "check", &out, &gguf, "--json"]).json();
    assert_eq!((&json["equal"], &json["step"]), (&true.into(), &6.into()), "{json}");
    assert_eq!(json["recorded_loss"], json["trainer"]["loss"]);
    assert_ne!(json["rounded"]["loss"], json["trainer"]["loss"]);
    assert_eq!(json["embedding"], "F16");
    for (args, wanted) in [
        (["train", "check", "/nowhere"], "/nowhere: expected the folder of a run"),
        (["train", "check", &config(dir.path())], "c.toml: expected the folder of a run"),
        (
            ["train", "check", dir.path().to_str().unwrap()],
            "expected the folder of a run, which has a train.toml",
        ),
    ] {
        let wrong = run(&args);
        assert!(wrong.code == Some(1) && wrong.stderr.contains(wanted), "{}", wrong.stderr);
    }
    let text = run(&["run", model.to_str().unwrap(), "the tern", "-n", "8"]);
    assert_eq!(text.code, Some(0), "{}", text.stderr);
    let gguf = dir.path().join("m.gguf");
    run(&["convert", model.to_str().unwrap(), gguf.to_str().unwrap(), "--to", "t5"]).ok();
    let exported = dir.path().join("again");
    run(&["train", "export", &out, exported.to_str().unwrap()]).ok();
    // What begins and ends a text stands where transformers looks for it: the end of a text, and that of a turn.
    for (file, ends) in [("config.json", &[1, 4][..]), ("generation_config.json", &[1, 4])] {
        let json: serde_json::Value = serde_json::from_slice(&fs::read(model.join(file)).unwrap()).unwrap();
        assert_eq!((&json["bos_token_id"], &json["eos_token_id"]), (&0.into(), &ends.into()), "{file}");
    }
    let same = |file: &str| fs::read(model.join(file)).unwrap() == fs::read(exported.join(file)).unwrap();
    assert!(same("model.safetensors") && same("config.json") && same("tokenizer.json"));
}

#[test]
fn what_init_writes_trains_once_its_files_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.toml");
    let path = path.to_str().unwrap();
    run(&["train", "init", path]).ok();
    let again = run(&["train", "init", path]);
    assert_eq!(again.code, Some(2), "an existing file stays");
    let done = run(&["train", path]);
    assert_eq!(done.code, Some(1));
    assert!(
        done.stderr.contains("tokenizer: no such file or directory; `tern train tokenizer`"),
        "{}",
        done.stderr
    );
}

#[cfg(unix)]
#[test]
fn two_runs_on_one_folder_lose_nothing_whatever_becomes_of_the_first() {
    let dir = folder("steps = 3000\nvalidate_every = 1000\nsave_every = 100\nkeep = 2\n");
    assert!(start(dir.path(), "whole").wait().unwrap().success());
    let out = dir.path().join("shared");
    let mut first = start(dir.path(), "shared");
    let wait = |lines: usize| {
        let begun = Instant::now();
        while losses_so_far(&out) < lines && begun.elapsed() < Duration::from_secs(60) {
            sleep(Duration::from_millis(2));
        }
    };
    wait(250);
    let before = losses_so_far(&out);
    // By the configuration and by the folder, twice: each is refused by name and touches nothing.
    let folder = out.to_str().unwrap();
    for args in [&["train", &config(dir.path()), "--out", folder][..], &["train", folder], &["train", folder]]
    {
        let second = run(args);
        assert_eq!(second.code, Some(1), "{}", second.stderr);
        let wanted = format!("process {} is training in this folder", first.id());
        assert!(second.stderr.contains(&wanted), "{}", second.stderr);
        assert!(losses_so_far(&out) >= before, "the first one's lines are still there");
    }
    assert!(first.try_wait().unwrap().is_none(), "the first was done too soon to be a test");
    first.kill().unwrap();
    first.wait().unwrap();
    // Its lock is free, whatever the file says, and the folder knows how to go on.
    assert_eq!(fs::read_to_string(out.join("lock")).unwrap(), first.id().to_string());
    let done = run(&["train", folder]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(done.stderr.contains("going on after step "), "{}", done.stderr);
    assert_eq!(losses(&out), losses(&dir.path().join("whole")));
    let model = |out: &str| fs::read(dir.path().join(out).join("masters/model.safetensors")).unwrap();
    assert!(model("shared") == model("whole"));
}

#[test]
fn a_folder_keeps_its_configuration_and_says_what_changes() {
    let dir = folder("steps = 3\nvalidate_every = 0\nsave_every = 1\n");
    let out = dir.path().join("run");
    let folder = out.to_str().unwrap();
    run(&["train", &config(dir.path()), "--rate", "2e-3", "--prompt", "a \"b\"\n", "--separator", r"\n\n"])
        .ok();
    let kept = fs::read_to_string(out.join("train.toml")).unwrap();
    for line in [
        "rate = 0.002",
        r#"prompt = "a \"b\"\n""#,
        r#"separator = "\n\n""#,
        "# from =",
        "out = \".\"",
        "eps = 1e-8",
    ] {
        assert!(kept.lines().any(|found| found == line), "{line} is missing in {kept}");
    }
    let done = run(&["train", folder, "--steps", "5"]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(done.stderr.contains("`steps` is 5 from here on, it was 3"), "{}", done.stderr);
    assert!(done.stderr.matches(" from here on").count() == 1, "{}", done.stderr);
    // Moved, it is where it is.
    let moved = dir.path().join("moved");
    fs::rename(&out, &moved).unwrap();
    let done = run(&["train", moved.to_str().unwrap(), "--steps", "6"]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(!out.exists() && losses(&moved).len() == 6, "{}", done.stderr);
    let error = run(&["train", moved.to_str().unwrap(), "--layers", "2"]).stderr;
    assert!(
        error.contains("of a model of")
            && fs::read_to_string(moved.join("train.toml")).unwrap().contains("layers = 1")
    );
}

#[test]
fn what_makes_a_run_worth_little_is_said_before_it_begins() {
    let dir = folder("steps = 1\nvalidate_every = 0\n");
    let few = run(&["train", &config(dir.path()), "--dim", "256", "--hidden", "512"]);
    assert!(
        few.stderr.contains("tokens to train on are few for 0.") && few.stderr.contains("warning"),
        "{}",
        few.stderr
    );
    assert!(!few.stderr.contains("held out, so nothing"), "{}", few.stderr);
    let out = dir.path().join("blind");
    let blind = run(&["train", &config(dir.path()), "--validation", "0", "--out", out.to_str().unwrap()]);
    assert!(blind.stderr.contains("none of the 90 documents is held out"), "{}", blind.stderr);
}

#[test]
fn killed_at_fifty_moments_a_run_comes_to_the_same_numbers() {
    // Ten of them while a checkpoint is being written: a part of it is left.
    let (kills, in_saves) = (50, 10);
    let dir = folder("steps = 8000\nvalidate_every = 1000\nsave_every = 15\nkeep = 2\n");
    assert!(start(dir.path(), "whole").wait().unwrap().success());
    let out = dir.path().join("killed");
    let (mut killed, mut seen, mut random) = (0, 0, 12345u64);
    while killed < kills || seen < in_saves {
        assert!(killed < 4 * kills, "only {seen} of {killed} kills were in a save");
        let mut child = start(dir.path(), "killed");
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        if killed >= kills - in_saves {
            let begun = Instant::now();
            // A part that an earlier kill left is gone once the run has begun.
            while parts(&out) > 0 && begun.elapsed() < Duration::from_secs(5) {}
            while parts(&out) == 0 && begun.elapsed() < Duration::from_secs(5) {}
        } else {
            sleep(Duration::from_millis(5 + (random >> 33) % 60));
        }
        child.kill().unwrap();
        assert!(!child.wait().unwrap().success(), "the run was done after {killed} kills: too quick a run");
        killed += 1;
        seen += usize::from(parts(&out) > 0);
    }
    assert!(start(dir.path(), "killed").wait().unwrap().success());
    assert_eq!(losses(&out), losses(&dir.path().join("whole")));
    let model = |out: &str| fs::read(dir.path().join(out).join("masters/model.safetensors")).unwrap();
    assert!(model("killed") == model("whole"));
    assert_eq!(
        fs::read_dir(out.join("checkpoints")).unwrap().count(),
        2,
        "the last two are kept, no remains"
    );
}

#[cfg(unix)]
#[test]
fn interrupts_save_and_say_so() {
    let dir = folder("steps = 1000000\nvalidate_every = 0\nsave_every = 0\n");
    for signal in ["-INT", "-TERM"] {
        let child = tern(&["train", &config(dir.path())]).spawn().unwrap();
        let begun = Instant::now();
        while losses_so_far(&dir.path().join("run")) < 3 && begun.elapsed() < Duration::from_secs(20) {
            sleep(Duration::from_millis(5));
        }
        Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
        let done: common::Done = child.wait_with_output().unwrap().into();
        assert_eq!(done.code, Some(130), "{signal}: {}", done.stderr);
        assert!(done.stderr.contains("stopped; saved"), "{signal}: {}", done.stderr);
        fs::remove_file(dir.path().join("run/metrics.jsonl")).unwrap();
    }
}

fn losses_so_far(out: &Path) -> usize {
    fs::read_to_string(out.join("metrics.jsonl")).map_or(0, |text| text.lines().count())
}

#[cfg(unix)]
#[test]
fn a_full_disk_is_said_and_the_checkpoint_before_stays() {
    let dir = folder("steps = 4\nvalidate_every = 0\nsave_every = 2\n");
    // Files may have 64 kB: enough for the corpus, not for a checkpoint.
    let first = dir.path().join("run/checkpoints/step-000000002.tern");
    let limited = |limit: &str, steps: &str| -> common::Done {
        let script = format!("trap '' XFSZ; ulimit -f {limit}; exec \"$0\" train \"$1\" --steps {steps}");
        let mut command = Command::new("sh");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_tern"), &config(dir.path())]);
        command.output().unwrap().into()
    };
    let done = limited("unlimited", "2");
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    let before = fs::read(&first).unwrap();
    assert!(before.len() > 1 << 16);
    let done = limited("64", "4");
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    assert!(done.stderr.contains("cannot save") && done.stderr.contains("are whole"), "{}", done.stderr);
    assert!(fs::read(&first).unwrap() == before && parts(&dir.path().join("run")) == 0);
    assert_eq!(limited("unlimited", "4").code, Some(0));
}

#[test]
fn wrong_configurations_and_data_are_one_clear_line() {
    let dir = folder("steps = 2\n");
    let config = config(dir.path());
    let write = |name: &str, bytes: &[u8]| -> String {
        let path: PathBuf = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let utf8 = write("u.txt", b"one\ntwo \xff\n");
    let json = write("j.jsonl", b"{\"text\": \"fine\"}\n{\"txt\": \"x\"}\n");
    let empty = write("e.txt", b"\n \n");
    let said = |role: &str| format!("{{\"messages\": [{{\"role\": \"{role}\", \"content\": \"x\"}}]}}\n");
    let mute = write("mute.jsonl", said("user").as_bytes());
    let role = write("role.jsonl", said("usr").as_bytes());
    let short = write("short.txt", b"the tern flies over a cold sea");
    let broken = write("broken.jsonl", b"{\"text\": \"half");
    let huge = write("huge.txt", b"a line\n");
    // A hole: a gigabyte that takes no room on the disk.
    fs::File::options().write(true).open(&huge).unwrap().set_len(1 << 30).unwrap();
    for (args, wanted) in [
        (&["--rate", "-1"][..], "key `rate`: -1: expected a number of at least 0"),
        (&["--steps", "soon"], "key `steps`"),
        (&["--kv-heads", "3", "--heads", "4"], "key `kv_heads`: 3: expected a divisor"),
        (&["--head-dim", "15"], "key `head_dim`: 15"),
        (&["--schedule", "waves"], "key `schedule`"),
        (&["--train", &utf8], "u.txt, line 2: expected UTF-8"),
        (
            &["--train", &json],
            "j.jsonl, line 2: expected the key `text`, `messages`, or `chosen` and `rejected`, found `txt`",
        ),
        (&["--train", &empty], "e.txt: expected documents to learn, found none"),
        (
            &["--train", &mute],
            "mute.jsonl: expected documents to learn, found 1 conversations in which no `assistant`",
        ),
        (
            &["--train", &role],
            "role.jsonl, line 1: key `messages`: the role `usr`: expected system, user, assistant, tool",
        ),
        (&["--train", &short], "expected more text or shorter sequences (`--length "),
        (&["--second-rate", "1.5"], "key `second_rate`: 1.5: expected a share of `rate`, at most 1"),
        (&["--train", "/nowhere.txt"], "/nowhere.txt"),
        (&["--tokenizer", "/nowhere"], "/nowhere"),
        (&["--length", "65536"], "key `sequences`"),
        (&["--train", &huge], "huge.txt, line 2: expected at most 64 MB in a line"),
        (&["--train", &broken], "broken.jsonl, line 1: expected JSON"),
        (&["--weight-decay", "-0.1"], "key `weight_decay`: -0.1: expected a number of at least 0"),
        (&["--warmup", "-3"], "key `warmup`"),
        (&["--rate", "nan"], "key `rate`: NaN: expected a number of at least 0"),
        (
            &["--rate", "1e30", "--warmup", "0", "--weight-decay", "1e20", "--steps", "9"],
            "training has stopped",
        ),
    ] {
        let mut all = vec!["train", &config];
        all.extend(args);
        let done = run(&all);
        assert_ne!(done.code, Some(0), "{args:?}");
        let error = done.stderr.lines().find(|line| line.starts_with("error")).unwrap_or_default();
        assert!(error.contains(wanted), "{args:?}: {}", done.stderr);
    }
    let typo = write("typo.toml", b"out = \"x\"\ntrain = [\"a.txt\"]\ntokenizer = \"tok\"\nstesp = 3\n");
    let done = run(&["train", &typo]);
    assert!(done.stderr.contains("typo.toml: line 4, key `stesp`: unknown"), "{}", done.stderr);
}

#[test]
fn json_lines_tell_what_people_are_told() {
    let dir = folder("steps = 3\nvalidate_every = 3\nsave_every = 0\n");
    let text = run(&["train", &config(dir.path()), "--json"]).ok();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |kind: &str| lines.iter().filter(|line| line["kind"] == kind).collect::<Vec<_>>();
    assert_eq!((of("begin").len(), of("step").len(), of("validation").len()), (1, 3, 1), "{text}");
    assert_eq!(of("begin")[0]["steps"], 3);
    let kept = fs::read_to_string(dir.path().join("run/metrics.jsonl")).unwrap();
    for (line, kept) in of("step").into_iter().zip(kept.lines().filter(|line| line.contains("\"step\","))) {
        assert_eq!(line, &serde_json::from_str::<serde_json::Value>(kept).unwrap());
    }
    let last = lines.last().unwrap();
    assert_eq!(last["kind"], "done");
    assert!(Path::new(last["model"].as_str().unwrap()).join("config.json").is_file(), "{last}");
    let out = dir.path().join("out").to_str().unwrap().to_owned();
    let folder = dir.path().join("run").to_str().unwrap().to_owned();
    let export = run(&["train", "export", &folder, &out, "--json"]).json();
    assert_eq!((&export["output"], &export["step"]), (&serde_json::json!(out), &serde_json::json!(3)));
}

#[test]
fn without_a_terminal_the_monitor_is_lines() {
    let dir = folder("steps = 3\nvalidate_every = 0\n");
    let done = run(&["train", &config(dir.path()), "--monitor"]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert!(done.stderr.contains("lines instead") && done.stderr.contains("step 3: loss"), "{}", done.stderr);
    assert!(!done.stderr.contains('\x1b'), "{:?}", done.stderr);
}

#[cfg(target_os = "linux")]
#[test]
fn the_monitor_shows_the_run_and_gives_the_terminal_back() {
    use std::io::{Read, Write};
    let dir = folder("steps = 1000000\nvalidate_every = 50\nsave_every = 0\n");
    let (config, out) = (config(dir.path()), dir.path().join("run"));
    let diverging = "--rate 1e30 --warmup 0 --weight-decay 1e20 --out diverged";
    for (more, until_step, last_words) in
        [("", 60, "stopped; saved"), (diverging, 0, "training has stopped, there is no checkpoint yet")]
    {
        // `script` gives it a terminal of its own; afterwards `stty` says what state that is in.
        let tern = env!("CARGO_BIN_EXE_tern");
        let command = format!("stty cols 100 rows 30; {tern} train {config} --monitor {more}; stty -a");
        let mut child = Command::new("script")
            .args(["-qec", &command, "/dev/null"])
            .env("TERM", "xterm-256color")
            .current_dir(dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("script, of util-linux");
        let mut keys = child.stdin.take().unwrap();
        let begun = Instant::now();
        while losses_so_far(&out) < until_step && begun.elapsed() < Duration::from_secs(20) {
            sleep(Duration::from_millis(5));
        }
        if until_step > 0 {
            sleep(Duration::from_millis(300)); // a frame with the last steps
            keys.write_all(b"\x03").unwrap();
        }
        let mut shown = String::new();
        child.stdout.take().unwrap().read_to_string(&mut shown).unwrap();
        child.wait().unwrap();
        let at = |what: &str| shown.find(what).unwrap_or_else(|| panic!("{what:?} is missing in {shown:?}"));
        let (enter, leave) = (at("\x1b[?1049h"), at("\x1b[?1049l"));
        assert!(enter < leave && leave < at(last_words), "{shown:?}");
        assert!(at("\x1b[?25h") > enter, "the cursor is back");
        assert!(until_step == 0 || shown[enter..leave].contains("learning"), "{shown:?}");
        let state = &shown[at("speed ")..];
        for word in ["icanon", "echo", "isig", "opost"] {
            assert!(state.split_whitespace().any(|found| found == word), "{word} is missing in {state}");
        }
    }
}
