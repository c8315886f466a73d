//! Every shell block of the README and of every page in docs/, run as it stands on small data: a command in a document that
//! does not work fails here. Lines are commands for `sh` with this build's `tern` on its path, one folder for a document, one
//! after another. What is different from a person's run is in the tables below. A block that cannot be run here has a line
//! before it that says why: `<!-- not run: it needs the network -->`.

#![cfg(unix)]

mod common;
#[path = "../../hub/tests/common/mod.rs"]
mod fake;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use common::{PAGE, run, testdata};

/// Words in capitals that stand for a reader's own files.
const PLACEHOLDERS: [(&str, &str); 6] = [
    ("EMBEDDER", "embedder"),
    ("MODEL", "model.gguf"),
    ("FILE", "wiki.test.raw"),
    ("DIR", "items"),
    ("IN", "model.gguf"),
    ("OUT.gguf", "out.gguf"),
];

/// Words of a command that ask for more than a test has time for, and what stands for them.
const SMALLER: [(&str, &str); 2] = [
    ("--shape bitnet-2b-4t", "--shape tiny"), // a file of a gigabyte
    ("-d 0,4096", "-d 0,64"),                 // the small model's context is 512
];

/// A run that is soon done.
const TINY: &str = "--steps 3 --sequences 1 --length 64 --validation 0.2 --threads 1 --dim 256 --layers 1 --hidden 256 --heads 4";

/// What is put behind the commands that begin so, to make them quick: the first entry that fits.
const QUICKER: [(&str, &str); 12] = [
    ("tern train tokenizer", ""),
    ("tern train init", ""),
    ("tern train check", ""),
    ("tern train export", ""),
    // A line with a leader behind it.
    ("tern train worker", TINY),
    ("tern train --from", "--steps 2 --sequences 2 --length 32 --threads 1 --validation 0.2"),
    ("tern train ", TINY),
    ("tern run ", "-n 8"),
    ("tern bench ", "-p 16 -n 4 -r 1 --probe 1"),
    ("tern eval tasks", "--limit 2"),
    ("tern eval compare", "-c 64 --windows 1"),
    ("tern eval needle", "--lengths 64 --repeat 1"),
];

/// Languages of blocks that are no commands. A language that is in neither list is a mistake.
const TEXTS: [&str; 12] =
    ["text", "json", "toml", "python", "rust", "js", "ts", "html", "yaml", "ini", "markdown", "c"];

/// Languages of blocks with commands; one without a language is one.
const SHELLS: [&str; 4] = ["", "sh", "bash", "console"];

/// How long a command may take.
const PATIENCE: Duration = Duration::from_secs(240);

/// The README and every page, without the folder of the clone.
fn documents() -> Vec<String> {
    let pages = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().file_name());
    let pages = pages.map(|name| name.into_string().unwrap()).filter(|name| name.ends_with(".md"));
    let mut pages: Vec<String> = pages.map(|name| format!("docs/{name}")).collect();
    pages.sort();
    pages.insert(0, "README.md".to_owned());
    pages
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn every_shell_block_of_the_readme_and_of_every_page_works() {
    let read = |name: &String| {
        let text = fs::read_to_string(root().join(name)).unwrap();
        blocks(&text).unwrap_or_else(|wrong| panic!("{name}: {wrong}"))
    };
    let pages: Vec<(String, Vec<Block>)> =
        documents().into_iter().map(|name| (name.clone(), read(&name))).collect();
    // A parser that finds nothing must not pass.
    let commands = |blocks: &[Block]| -> usize {
        blocks.iter().filter(|block| block.why_not.is_none()).map(|block| block.lines.len()).sum()
    };
    assert!(commands(&pages[0].1) >= 20, "README.md: {} commands", commands(&pages[0].1));
    let all: usize = pages.iter().map(|(_, blocks)| commands(blocks)).sum();
    assert!(all >= 50, "{all} commands in {} documents", pages.len());
    // Several at a time: most of each is the start of programs.
    let queue = Mutex::new(pages.iter().filter(|(_, blocks)| !blocks.is_empty()));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                loop {
                    let Some((name, blocks)) = queue.lock().unwrap().next() else { break };
                    document(name, blocks);
                }
            });
        }
    });
}

/// A Hub with the repositories that the documents name, each with a small model in place of its own.
fn hub() -> &'static str {
    static HUB: OnceLock<fake::Fake> = OnceLock::new();
    let fake = HUB.get_or_init(|| {
        let fake = fake::Fake::start();
        fake.add("microsoft/bitnet-b1.58-2B-4T-gguf", &[("ggml-model-i2_s.gguf", fs::read(PAGE).unwrap())]);
        let golden =
            |file: &str| fs::read(testdata(&format!("golden/llama_packed_bitlinear/{file}"))).unwrap();
        let files = ["config.json", "model.safetensors"].map(|file| (file, golden(file)));
        fake.add("tiiuae/Falcon3-1B-Instruct-1.58bit", &files);
        fake
    });
    &fake.endpoint
}

/// The files that a reader of the documents has.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let words = ["the", "tern", "flies", "over", "a", "cold", "sea", "and", "sleeps", "on", "warm", "sand"];
    let text = |nth: usize| {
        (0..20 + nth % 30).map(|i| words[(i * i + nth) % words.len()]).collect::<Vec<_>>().join(" ")
    };
    let stories: Vec<String> = (0..60).map(text).collect();
    fs::write(path("stories.txt"), stories.join("\n<|endoftext|>\n")).unwrap();
    let chat = |nth: usize| {
        let turn = |role: &str, text: String| format!("{{\"role\": \"{role}\", \"content\": \"{text}\"}}");
        format!("{{\"messages\": [{}, {}]}}\n", turn("user", text(nth)), turn("assistant", text(nth + 7)))
    };
    fs::write(path("chats.jsonl"), (0..40).map(chat).collect::<String>()).unwrap();
    let pair = |nth| {
        format!("{{\"prompt\": \"The tern {nth}\", \"chosen\": \" flies.\", \"rejected\": \" swims.\"}}\n")
    };
    fs::write(path("pairs.jsonl"), (0..40).map(pair).collect::<String>()).unwrap();
    fs::copy(PAGE, path("model.gguf")).unwrap();
    fs::copy(testdata("golden/eval/wikitext-slice.txt"), path("wiki.test.raw")).unwrap();
    fs::create_dir(path("embedder")).unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        let from = testdata(&format!("golden/qwen3_embedding_text/{name}"));
        fs::copy(from, path("embedder").join(name)).unwrap();
    }
    let passages = ["The cat sat on the mat.", "Bread is baked in an oven.", "Snow fell all night."];
    fs::write(path("passages.txt"), passages.join("\n")).unwrap();
    fs::create_dir(path("items")).unwrap();
    for task in ["arc_easy", "piqa", "mmlu"] {
        let name = format!("{task}.jsonl");
        fs::copy(testdata(&format!("golden/eval/{name}")), path("items").join(name)).unwrap();
    }
    // What `tern eval report` makes a page of: results that were printed with --json before.
    let (model, items) = (path("model.gguf"), path("items"));
    let (model, items) = (model.to_str().unwrap(), items.to_str().unwrap());
    let tasks = run(&["eval", "tasks", model, "arc_easy", "--data", items, "--limit", "2", "--json"]).ok();
    fs::write(path("tasks.json"), tasks).unwrap();
    let bench = run(&["bench", model, "-p", "8", "-n", "2", "-r", "1", "--probe", "1", "-o", "json"]).ok();
    fs::write(path("bench.json"), bench).unwrap();
    dir
}

/// A block of commands; what ends in a backslash is one line with the next.
struct Block {
    lines: Vec<String>,
    why_not: Option<String>,
}

/// The shell blocks of a document.
fn blocks(text: &str) -> Result<Vec<Block>, String> {
    let (mut found, mut reason, mut lines) = (Vec::new(), None, text.lines().enumerate());
    while let Some((number, line)) = lines.next() {
        let line = line.trim();
        if let Some(why) = line.strip_prefix("<!-- not run: ") {
            let why = why.strip_suffix("-->").unwrap_or_default().trim();
            if why.len() < 10 {
                return Err(format!("line {}: no reason on one line", number + 1));
            }
            reason = Some(why.to_owned());
        } else if let Some(language) = line.strip_prefix("```") {
            let (language, mut commands, mut whole) = (language.trim(), Vec::new(), String::new());
            loop {
                let Some((_, line)) = lines.next() else {
                    return Err(format!("line {}: a block without an end", number + 1));
                };
                let line = line.trim();
                if line == "```" {
                    break;
                }
                whole.push_str(line.strip_suffix('\\').unwrap_or(line));
                if !line.ends_with('\\') && !whole.trim().is_empty() {
                    commands.push(std::mem::take(&mut whole));
                }
            }
            let why_not = reason.take();
            if SHELLS.contains(&language) {
                found.push(Block { lines: commands, why_not });
            } else if !TEXTS.contains(&language) || why_not.is_some() {
                return Err(format!(
                    "line {}: a block of `{language}` is neither commands nor known as text",
                    number + 1
                ));
            }
        } else if !line.is_empty() && reason.is_some() {
            return Err(format!("line {}: `not run` stands before no block", number + 1));
        }
    }
    Ok(found)
}

/// A line as it is run here.
fn prepared(line: &str) -> String {
    // What stands behind a ` #` is for the reader.
    let line = line.split(" #").next().unwrap().trim();
    let mut line =
        line.strip_prefix("cargo run --release -- ").map_or(line.to_owned(), |rest| format!("tern {rest}"));
    for (word, file) in PLACEHOLDERS {
        let words = line.split(' ').map(|found| if found == word { file } else { found });
        line = words.collect::<Vec<_>>().join(" ");
    }
    for (much, little) in SMALLER {
        line = line.replace(much, little);
    }
    if let Some((_, more)) = QUICKER.iter().find(|(begin, _)| line.starts_with(begin)) {
        line = format!("{line} {more}").trim_end().to_owned();
    }
    line
}

/// A server that is killed when the next one starts or the document ends.
struct Server {
    child: Child,
    url: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn shell(dir: &Path, line: &str) -> Command {
    let tern = PathBuf::from(env!("CARGO_BIN_EXE_tern"));
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("sh");
    command
        .args(["-c", line])
        .current_dir(dir)
        .env("PATH", format!("{}:{path}", tern.parent().unwrap().display()))
        .env("HOME", dir)
        .env("HF_HUB_CACHE", dir.join("hub"))
        .env("HF_ENDPOINT", hub())
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Starts a server on a port that is free, and waits until it listens.
fn serve(dir: &Path, line: &str) -> Server {
    let mut words: Vec<&str> = line.split(' ').collect();
    if let Some(at) = words.iter().position(|word| *word == "--port") {
        words.drain(at..at + 2);
    }
    let mut child = shell(dir, &format!("exec {} --port 0", words.join(" "))).spawn().unwrap();
    let mut said = String::new();
    let mut errors = BufReader::new(child.stderr.take().unwrap());
    let url = loop {
        let before = said.len();
        assert!(errors.read_line(&mut said).unwrap() > 0, "{line}: it ended: {said}");
        if let Some((_, url)) = said[before..].split_once("listening on ") {
            break url.trim().to_owned();
        }
    };
    // Whoever does not read makes it wait.
    std::thread::spawn(move || errors.read_to_end(&mut Vec::new()));
    let server = Server { child, url };
    let begun = Instant::now();
    while !finish(dir, &format!("curl -sf {}/health", server.url)).0 {
        assert!(begun.elapsed() < PATIENCE, "{line}: it never was ready");
        std::thread::sleep(Duration::from_millis(20));
    }
    server
}

/// Runs a command to its end: whether it succeeded, and what it showed.
fn finish(dir: &Path, line: &str) -> (bool, String) {
    let mut child = shell(dir, line).spawn().unwrap();
    let (mut out, mut errors) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        errors.read_to_end(&mut text).map(|_| text)
    });
    // A command that hangs is ended, so that what it showed is told.
    let (id, (done, ended)) = (child.id(), std::sync::mpsc::channel::<()>());
    let guard = std::thread::spawn(move || {
        if ended.recv_timeout(PATIENCE).is_err_and(|e| e == std::sync::mpsc::RecvTimeoutError::Timeout) {
            let _ = Command::new("kill").args(["-9", "--", &format!("-{id}")]).status();
        }
    });
    let mut text = Vec::new();
    out.read_to_end(&mut text).unwrap();
    text.extend(reader.join().unwrap().unwrap());
    let status = child.wait().unwrap();
    drop(done);
    guard.join().unwrap();
    (status.success(), String::from_utf8_lossy(&text).into_owned())
}

fn document(name: &str, blocks: &[Block]) {
    let dir = folder();
    let mut server: Option<Server> = None;
    for block in blocks {
        if let Some(why) = &block.why_not {
            println!("{name}: not run: {}: {why}", block.lines.join("; "));
            continue;
        }
        for line in &block.lines {
            let line = prepared(line);
            if line.starts_with("tern serve ") {
                drop(server.take());
                server = Some(serve(dir.path(), &line));
            } else if line.contains("http://127.0.0.1:8080") {
                let running = server.as_ref().unwrap_or_else(|| panic!("{name}: {line}: no server runs"));
                let line =
                    line.replace("http://127.0.0.1:8080", &running.url).replacen("curl ", "curl -sSf ", 1);
                let (success, text) = finish(dir.path(), &line);
                assert!(success && !text.trim().is_empty(), "{name}: {line}\n{text}");
                let answers = ["\"content\"", "\"embedding\"", "\"embeddings\"", "\"response\"", "\"text\""];
                let answered = answers.iter().any(|field| text.contains(field));
                assert!(!line.contains(" -d ") || answered, "{name}: {line}\n{text}");
            } else {
                // Whoever chats says something.
                let said = if line.starts_with("tern chat ") { "echo 'Hello!' | " } else { "" };
                let (success, text) = finish(dir.path(), &format!("{said}{line}"));
                assert!(success, "{name}: {line}\n{text}");
                let silent = !line.starts_with("tern ") || line.contains(" > ");
                assert!(silent || !text.trim().is_empty(), "{name}: {line}: it showed nothing");
            }
        }
    }
}

#[test]
fn a_block_that_is_not_understood_is_seen() {
    let text = "a\n```\ntern doctor   # checks\n\nmake \\\n  it\n```\n```json\n{}\n```\n\
                <!-- not run: it needs the network -->\n\n```sh\ncurl x\n```\n";
    let found = blocks(text).unwrap();
    assert_eq!(found[0].lines, ["tern doctor   # checks", "make it"]);
    assert_eq!((found.len(), found[1].why_not.as_deref()), (2, Some("it needs the network")));
    assert_eq!(prepared(&found[0].lines[0]), "tern doctor");
    assert_eq!(
        prepared("cargo run --release -- eval ppl MODEL FILE"),
        "tern eval ppl model.gguf wiki.test.raw"
    );
    for wrong in [
        "```zsh\nls\n```\n",
        "```\nls\n",
        "<!-- not run: -->\n```\nls\n```\n",
        "<!-- not run: it needs the network -->\nwords\n```\nls\n```\n",
    ] {
        assert!(blocks(wrong).is_err(), "{wrong}");
    }
    let dir = tempfile::tempdir().unwrap();
    assert!(!finish(dir.path(), "tern convert nothing.gguf out.gguf").0, "a command that fails is a failure");
}
