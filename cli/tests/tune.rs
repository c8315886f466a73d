//! Distillations and adapters as a person trains them: killed at any moment they come to the same bits; and what ends one of them
//! is said in a sentence.

mod common;
#[path = "common/training.rs"]
mod training;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use common::{run, tern};
use training::{config, folder, losses};

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// Bytes of a file, or lines where it has them.
fn bytes(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |about| about.len())
}

/// A float teacher of the folder's texts.
fn teacher(dir: &Path) -> String {
    let out = text(&dir.join("teacher"));
    let args =
        ["train", &config(dir), "--out", &out, "--steps", "30", "--rate", "5e-3", "--ternary", "false"];
    run(&[&args[..], &["--sub-norms", "false", "--activation", "silu"]].concat()).ok();
    format!("{out}/masters")
}

/// A packed base of the folder's texts.
fn base(dir: &Path) -> String {
    let (out, packed) = (text(&dir.join("base")), text(&dir.join("base.gguf")));
    run(&["train", &config(dir), "--out", &out, "--steps", "30", "--rate", "5e-3"]).ok();
    run(&["convert", &format!("{out}/masters"), &packed, "--to", "t5"]).ok();
    packed
}

/// A run that can be begun again: its arguments but the folder, and what it leaves.
struct Killed<'a> {
    dir: &'a Path,
    args: Vec<String>,
    model: &'a str,
}

impl<'a> Killed<'a> {
    fn new(dir: &'a Path, command: &[&str], more: &str, model: &'a str) -> Self {
        let data = text(&dir.join("a.txt"));
        let small = format!(
            "--train {data} --validation 0.1 --length 32 --sequences 2 --threads 1 --log-every 1 --validate-every 150 \
             --save-every 12 --keep 2 {more}"
        );
        let words = small.split_whitespace().map(str::to_owned);
        Self { dir, args: command.iter().map(|word| (*word).to_owned()).chain(words).collect(), model }
    }

    fn out(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn all(&self, name: &str) -> Vec<String> {
        [&self.args[..], &["--out".to_owned(), text(&self.out(name))]].concat()
    }

    fn finish(&self, name: &str) -> common::Done {
        let all = self.all(name);
        run(&all.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Starts it and kills it once a file is as long as that.
    fn kill_at(&self, name: &str, file: &str, len: u64) {
        let all = self.all(name);
        let mut command = tern(&all.iter().map(String::as_str).collect::<Vec<_>>());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let (path, begun) = (self.out(name).join(file), Instant::now());
        while bytes(&path) < len && begun.elapsed() < Duration::from_secs(120) {
            sleep(Duration::from_millis(1));
        }
        child.kill().unwrap();
        assert!(!child.wait().unwrap().success(), "{name}: the run was done before {file} had {len} bytes");
        assert!(bytes(&path) >= len, "{name}: {file} has {} bytes, not {len}", bytes(&path));
    }

    /// Kills it at these shares of its way, lets it end, and compares with a run that nobody disturbed. A share below 0 is one of
    /// what the teacher says.
    fn compare(&self, shares: &[f64]) {
        self.finish("whole").ok();
        let (whole, killed) = (self.out("whole"), self.out("killed"));
        for share in shares {
            let file = if *share < 0.0 { "teacher.logits" } else { "metrics.jsonl" };
            let len = (bytes(&whole.join(file)) as f64 * share.abs()) as u64;
            self.kill_at("killed", file, len.max(1));
            if *share < 0.0 {
                assert_eq!(bytes(&killed.join("metrics.jsonl")), 0, "the teacher was still reading");
            }
        }
        let done = self.finish("killed");
        assert_eq!(done.code, Some(0), "{}", done.stderr);
        assert!(done.stderr.contains("going on after step "), "{}", done.stderr);
        assert_eq!(losses(&killed), losses(&whole));
        let model = |out: &Path| fs::read(out.join(self.model)).unwrap();
        assert!(model(&killed) == model(&whole), "{}", self.model);
    }
}

const MASTERS: &str = "masters/model.safetensors";
const ADAPTER: &str = "adapter/adapter_model.safetensors";

#[test]
fn a_distillation_that_is_killed_comes_to_the_same_bits() {
    let dir = folder("steps = 3\n");
    let teacher = teacher(dir.path());
    let more = "--steps 300 --quantise-steps 120 --relation-heads 2";
    let run = Killed::new(dir.path(), &["train", "distil", &teacher], more, MASTERS);
    // Within the growth of rounding, at its end and behind it.
    run.compare(&[0.01, 0.1, 0.25, 0.38, 0.4, 0.41, 0.7, 0.96]);
}

#[test]
fn one_with_what_the_teacher_said_on_the_disk_does_too() {
    let dir = folder("steps = 3\n");
    let teacher = teacher(dir.path());
    let more = "--steps 300 --quantise-steps 120 --teacher-logits stored --teacher-top 40";
    let run = Killed::new(dir.path(), &["train", "distil", &teacher], more, MASTERS);
    run.compare(&[-0.05, -0.4, -0.9, 0.05, 0.39, 0.8]);
    let said = |name: &str| fs::read(run.out(name).join("teacher.logits")).unwrap();
    assert!(said("killed") == said("whole"));
}

#[test]
fn a_student_that_goes_on_with_another_stage_does_too() {
    let dir = folder("steps = 3\n");
    let teacher = teacher(dir.path());
    // Continued pre-training without a teacher, then distillation of what it came to.
    let first = ["train", "--from", &teacher, "--subln", "true"];
    let stage = Killed::new(dir.path(), &first, "--steps 150 --quantise-steps 60", MASTERS);
    stage.compare(&[0.2, 0.6]);
    let from = text(&stage.out("killed"));
    let second = Path::new(&from).join("second");
    fs::create_dir(&second).unwrap();
    let more = format!("--from {from} --subln false --quantise-steps 0 --steps 100 --relation-heads 2");
    let run = Killed::new(&second, &["train", "distil", &teacher], &more, MASTERS);
    fs::copy(dir.path().join("a.txt"), second.join("a.txt")).unwrap();
    run.compare(&[0.3, 0.8]);
}

#[test]
fn an_adapter_that_is_killed_comes_to_the_same_bits() {
    let dir = folder("steps = 3\n");
    let base = base(dir.path());
    let before = fs::read(&base).unwrap();
    let more = "--lora rank=4,targets=all --steps 400 --rate 5e-3 --recompute true";
    let run = Killed::new(dir.path(), &["train", "--from", &base], more, ADAPTER);
    run.compare(&[0.01, 0.2, 0.33, 0.6, 0.97]);
    assert!(fs::read(&base).unwrap() == before, "the base was written to");
}

#[cfg(unix)]
#[test]
fn a_full_disk_is_said_and_nothing_is_lost() {
    let dir = folder("steps = 3\n");
    let (teacher, base) = (teacher(dir.path()), base(dir.path()));
    // Files may have 64 kB: enough for the corpus, not for checkpoints nor for what the teacher says.
    let limited = |run: &Killed, name: &str| -> common::Done {
        let script = "trap '' XFSZ; ulimit -f 64; exec \"$0\" \"$@\"";
        let mut command = std::process::Command::new("sh");
        command.args(["-c", script, env!("CARGO_BIN_EXE_tern")]).args(run.all(name));
        command.output().unwrap().into()
    };
    let stored = "--steps 20 --teacher-logits stored --teacher-top 40";
    let cases = [
        (vec!["train", "distil", &*teacher], stored, "teacher.logits: cannot write: ", MASTERS),
        (vec!["train", "distil", &*teacher], "--steps 20", "cannot save", MASTERS),
        (vec!["train", "--from", &*base], "--lora rank=16,targets=all --steps 20", "cannot save", ADAPTER),
    ];
    for (nth, (command, more, wanted, model)) in cases.into_iter().enumerate() {
        let run = Killed::new(dir.path(), &command, more, model);
        let (name, undisturbed) = (format!("full-{nth}"), format!("whole-{nth}"));
        let done = limited(&run, &name);
        assert_eq!(done.code, Some(1), "{more}: {}", done.stderr);
        assert!(done.stderr.contains(wanted) && done.stderr.contains("whole"), "{more}: {}", done.stderr);
        assert!(!run.out(&name).join(model).exists());
        // Where there is room again, it goes on.
        for name in [&name, &undisturbed] {
            run.finish(name).ok();
        }
        let read = |name: &str| fs::read(run.out(name).join(model)).unwrap();
        assert!(read(&name) == read(&undisturbed), "{more}");
    }
}

#[test]
fn an_adapter_of_another_base_and_a_teacher_of_another_tongue_are_refused() {
    let dir = folder("steps = 3\n");
    let (teacher, base) = (teacher(dir.path()), base(dir.path()));
    let path = |name: &str| text(&dir.path().join(name));
    let more = "--lora rank=4,targets=q_proj --steps 2";
    Killed::new(dir.path(), &["train", "--from", &base], more, ADAPTER).finish("tuned").ok();
    let adapter = path("tuned/adapter");
    for args in [
        &["run", common::PAGE, "x", "--adapter", &adapter][..],
        &["eval", "ppl", common::PAGE, &path("a.txt"), "--adapter", &adapter],
        &["serve", common::PAGE, "--adapter", &format!("a={adapter}"), "--port", "0"],
    ] {
        let error = run(args);
        assert_eq!(error.code, Some(1), "{args:?}: {}", error.stderr);
        let line = error.stderr.lines().find(|line| line.starts_with("error")).unwrap_or_default();
        assert!(line.contains("the adapter belongs to another base"), "{args:?}: {}", error.stderr);
    }
    // The same texts, other tokens: a student of one cannot listen to the other.
    run(&["train", "tokenizer", &path("a.txt"), "--vocab", "270", "--out", &path("other")]).ok();
    let other = ["train", &config(dir.path()), "--tokenizer", &path("other"), "--out", &path("deaf")];
    run(&[&other[..], &["--steps", "2"]].concat()).ok();
    let from = format!("--from {} --subln false --steps 2", path("deaf"));
    let error = Killed::new(dir.path(), &["train", "distil", &teacher], &from, MASTERS).finish("x");
    assert_eq!(error.code, Some(1), "{}", error.stderr);
    let wanted = "has 280 tokens, the student 270: both must have the same";
    assert!(error.stderr.contains("key `teacher`") && error.stderr.contains(wanted), "{}", error.stderr);
}
