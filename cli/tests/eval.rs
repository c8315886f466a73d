//! `tern eval` through the real binary: figures against transformers (testdata/golden/gen/evaluate.py), resuming, bad
//! items, what lossless means, and the report.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use common::{Done, PAGE, run, tern, testdata};
use serde_json::Value;

/// The model whose figures are in `golden/eval/expected.json`.
const MODEL: &str = PAGE;

/// The head's own numbers and unrounded keys and values, as the reference has them.
const EXACT: [&str; 4] = ["--head", "stored", "--kv", "f32"];

fn expected() -> Value {
    serde_json::from_str(&fs::read_to_string(testdata("golden/eval/expected.json")).unwrap()).unwrap()
}

fn eval(args: &[&str]) -> Done {
    run(&[&["eval"], args].concat())
}

/// The lines of a log but the first.
fn records(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// How near the mean log-probability, which is -13 to -20 in these models, must come to the reference's. Over thousands of
/// tokens some activations lie within the last bit of a tie of their rounding to int8; each that falls the other way
/// moves logits by tenths. Measured: 4e-5 to 1.8e-3.
const MEAN: f64 = 4e-3;

/// The same where no activation of the text comes near a tie: the perplexities agree to four digits.
const FOUR_DIGITS: f64 = 5e-5;

/// Items where two choices are so near that such a tie decides: the figure may be either.
const NEAR_TIES: [(&str, u64, &str); 1] = [("arc_challenge", 8, "acc_norm")];

/// Runs a case of the reference and gives both perplexities.
fn perplexities(model: &str, file: &str, ids: bool, case: &Value) -> [f64; 2] {
    let (context, stride) = (case["context"].to_string(), case["stride"].to_string());
    let mut args = vec!["ppl", model, file, "-c", &context, "--json"];
    args.extend(EXACT);
    args.extend(ids.then_some("--ids"));
    if !case["stride"].is_null() {
        args.extend(["--stride", &stride]);
    }
    let json = eval(&args).json();
    assert_eq!(json["tokens_scored"], case["tokens"], "{case}");
    assert_eq!(json["bits_per_byte"].is_null(), ids);
    assert!(json["error"].as_f64().unwrap() > 0.0);
    [json["perplexity"].as_f64().unwrap(), case["perplexity"].as_f64().unwrap()]
}

#[test]
fn perplexities_equal_the_reference_in_both_conventions() {
    let golden: Value =
        serde_json::from_str(&fs::read_to_string(testdata("golden/perplexity.json")).unwrap()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ids.json");
    let ids = golden["ids"].as_array().unwrap();
    for case in golden["cases"].as_array().unwrap() {
        let [first, length] = ["first", "length"].map(|key| case[key].as_u64().unwrap() as usize);
        fs::write(&path, serde_json::to_string(&ids[first..first + length]).unwrap()).unwrap();
        let model = testdata(&format!("golden/{}", case["model"].as_str().unwrap()));
        let [got, want] = perplexities(&model, path.to_str().unwrap(), true, case);
        println!("{case}: {got}, off by {:.1e}", got / want - 1.0);
        let room = if case["margin"].is_null() { MEAN } else { FOUR_DIGITS };
        assert!((got.ln() - want.ln()).abs() < room, "{case}: {got}");
    }
}

#[test]
fn perplexities_of_a_text_equal_the_reference() {
    let text = testdata("golden/eval/wikitext-slice.txt");
    for case in expected()["perplexity"].as_array().unwrap() {
        let [got, want] = perplexities(MODEL, &text, false, case);
        assert!((got.ln() - want.ln()).abs() < MEAN, "{case}: {got}");
    }
}

#[test]
fn grades_of_every_task_equal_the_reference() {
    let dir = tempfile::tempdir().unwrap();
    let expected = expected();
    let data = testdata("golden/eval");
    for (name, items) in expected["tasks"].as_object().unwrap() {
        let own = format!("{data}/{name}.json");
        let task = if Path::new(&own).exists() { own.as_str() } else { name };
        let logs = dir.path().to_str().unwrap();
        let mut args = vec!["tasks", MODEL, task, "--data", &data, "--log-items", logs, "--json"];
        args.extend(EXACT);
        let json = eval(&args).json();
        let records = records(&dir.path().join(format!("{name}.jsonl")));
        assert_eq!(records.len(), items.as_array().unwrap().len(), "{name}");
        for (record, item) in records.iter().zip(items.as_array().unwrap()) {
            let at = format!("{name}, line {}: {record} {item}", item["line"]);
            assert_eq!(record["line"], item["line"], "{at}");
            for (figure, want) in item["grades"].as_object().unwrap() {
                if NEAR_TIES.contains(&(name.as_str(), item["line"].as_u64().unwrap(), figure.as_str())) {
                    continue;
                }
                let (got, want) = (record["grades"][figure].as_f64().unwrap(), want.as_f64().unwrap());
                let room = if figure == "logprob" { 6e-3 * want.abs() } else { 1e-9 };
                assert!((got - want).abs() < room, "{figure}: {at}");
            }
            if item["detail"].is_string() {
                assert_eq!(record["detail"]["text"], item["detail"], "{at}");
            }
        }
        let task = &json["tasks"][0];
        for (figure, total) in task["figures"].as_object().unwrap() {
            let grades: Vec<f64> =
                items.as_array().unwrap().iter().filter_map(|item| item["grades"][figure].as_f64()).collect();
            let tie = NEAR_TIES.iter().any(|&(task, _, tied)| task == name && tied == figure);
            if !grades.is_empty() && figure != "logprob" && !tie {
                let mean = grades.iter().sum::<f64>() / grades.len() as f64;
                assert!((total["value"].as_f64().unwrap() - mean).abs() < 1e-9, "{name} {figure}");
            }
        }
    }
}

#[test]
fn a_run_that_was_cut_off_ends_with_the_same_figures() {
    let dir = tempfile::tempdir().unwrap();
    let (data, logs) = (testdata("golden/eval"), dir.path().to_str().unwrap());
    let base = ["tasks", MODEL, "copa", "--data", &data, "--json", "--batch", "5"];
    let whole = eval(&[&base[..], &["--log-items", logs]].concat()).json();
    let log = dir.path().join("copa.jsonl");
    let text = fs::read_to_string(&log).unwrap();
    let again = eval(&[&base[..], &["--log-items", logs]].concat());
    assert!(again.code == Some(1) && again.stderr.contains("--resume"), "{}", again.stderr);
    // Within a line, after a whole line, before the first, and nothing at all.
    for cut in [text.len() / 2, text.find('\n').unwrap() + 1, 7, 0] {
        fs::write(&log, &text[..cut]).unwrap();
        let resumed = eval(&[&base[..], &["--log-items", logs, "--resume"]].concat()).json();
        assert_eq!(resumed["tasks"][0]["figures"], whole["tasks"][0]["figures"], "cut at {cut}");
        let mut lines: Vec<&str> = text.lines().collect();
        let now = fs::read_to_string(&log).unwrap();
        let mut found: Vec<&str> = now.lines().collect();
        lines.sort_unstable();
        found.sort_unstable();
        assert_eq!(lines, found, "cut at {cut}");
    }
    let other = eval(&[&base[..], &["--log-items", logs, "--resume", "--kv", "int8"]].concat());
    assert!(other.code == Some(1) && other.stderr.contains("`settings`"), "{}", other.stderr);
}

/// Both ways a run ends before its time: told to (Ctrl-C), and without a word.
#[test]
fn a_run_that_was_interrupted_or_killed_ends_with_the_same_figures() {
    let dir = tempfile::tempdir().unwrap();
    let items: Vec<String> = (0..400)
        .map(|nth| {
            format!(
                r#"{{"query": "Bird number {nth} sang and then", "choices": ["it flew to tree {}", "night came", "tree {nth} fell"], "gold": {}}}"#,
                nth * 7 % 50,
                nth % 3
            )
        })
        .collect();
    fs::write(dir.path().join("copa.jsonl"), items.join("\n")).unwrap();
    let data = dir.path().to_str().unwrap();
    let base = ["eval", "tasks", MODEL, "copa", "--data", data, "--json", "--batch", "3"];
    let figures = |args: &[&str]| {
        let json = run(&[&base[..], args].concat()).json();
        (json["tasks"][0]["figures"].clone(), json["tasks"][0]["resumed"].as_u64().unwrap())
    };
    let (whole, _) = figures(&[]);
    for signal in ["-KILL", "-INT"] {
        let logs = dir.path().join(signal);
        let log = logs.join("copa.jsonl");
        let flags = ["--log-items", logs.to_str().unwrap(), "--resume"];
        // Cut off again and again, each time some items later.
        let mut cut_off = 0;
        for _ in 0..3 {
            let lines = || fs::read_to_string(&log).map_or(0, |text| text.lines().count());
            let before = lines();
            let mut child = tern(&[&base[..], &flags].concat()).spawn().unwrap();
            let start = Instant::now();
            while lines() < before + 20 && child.try_wait().unwrap().is_none() {
                assert!(start.elapsed() < Duration::from_secs(120), "no items after two minutes");
                std::thread::sleep(Duration::from_millis(1));
            }
            Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
            let status = child.wait().unwrap();
            cut_off += usize::from(!status.success());
            assert!(signal != "-INT" || matches!(status.code(), Some(130 | 0)), "{status}");
        }
        assert!(
            cut_off > 0 && fs::read_to_string(&log).unwrap().lines().count() > 20,
            "{signal} came too late"
        );
        let (resumed, known) = figures(&flags);
        assert_eq!(resumed, whole, "{signal}");
        assert!(known >= 19, "{signal}: {known} of the log");
        // Every item once.
        let mut lines: Vec<u64> =
            records(&log).iter().map(|record| record["line"].as_u64().unwrap()).collect();
        lines.sort_unstable();
        assert_eq!(lines, (1..=400).collect::<Vec<u64>>(), "{signal}");
    }
}

#[test]
fn bad_items_are_named_by_line_and_never_skipped_in_silence() {
    let dir = tempfile::tempdir().unwrap();
    let long = "word ".repeat(600);
    let items = [
        r#"{"query": "a", "choices": ["b", "c"], "gold": 0}"#.to_owned(),
        r#"{"query": "a", "choices": ["b", "c"]}"#.to_owned(),
        r#"{"query": "a", "choices": ["b", "c"], "gold": 2}"#.to_owned(),
        r#"{"query": "a", "choices": ["b", " "], "gold": 0}"#.to_owned(),
        r#"{"choices": ["b", "c"], "gold": 0}"#.to_owned(),
        r#"{"query": "a", "choices": ["b"], "gold": 0}"#.to_owned(),
        "not json".to_owned(),
        format!(r#"{{"query": "{long}", "choices": ["b", "c"], "gold": 1}}"#),
        String::new(),
        r#"{"query": "b", "choices": ["b", "c"], "gold": 1}"#.to_owned(),
    ];
    fs::write(dir.path().join("copa.jsonl"), items.join("\n")).unwrap();
    let data = dir.path().to_str().unwrap();
    let base = ["tasks", MODEL, "copa", "--data", data];
    let done = eval(&base);
    assert_eq!(done.code, Some(1), "{}", done.stderr);
    for (line, what) in [
        (2, "`gold` is missing"),
        (3, "found 2"),
        (4, "choice 2 is empty"),
        (5, "`query` is missing"),
        (6, "at least 2"),
        (7, "not JSON"),
    ] {
        assert!(
            done.stderr.lines().any(|l| l.contains(&format!("line {line}: ")) && l.contains(what)),
            "{line}: {}",
            done.stderr
        );
    }
    assert!(!done.stderr.contains("line 1:") && !done.stderr.contains("line 9:") && done.stdout.is_empty());
    let skipped = eval(&[&base[..], &["--skip-bad", "--json"]].concat());
    assert!(
        skipped.stderr.contains("line 8: ") && skipped.stderr.contains("context of 512"),
        "{}",
        skipped.stderr
    );
    let json = skipped.json();
    assert_eq!(json["tasks"][0]["items"], 2);
    let bad: Vec<u64> =
        json["tasks"][0]["bad"].as_array().unwrap().iter().map(|bad| bad["line"].as_u64().unwrap()).collect();
    assert_eq!(bad, [2, 3, 4, 5, 6, 7, 8]);
}

/// Golden checkpoints of every kind of ternary layer, with sub-norms and without.
const CHECKPOINTS: [&str; 3] = ["bitnet_online_bf16", "llama_packed_bitlinear", "bitnet_1bitllm_f16"];

#[test]
fn lossless_settings_do_not_diverge_and_lossy_ones_do() {
    let golden: Value =
        serde_json::from_str(&fs::read_to_string(testdata("golden/perplexity.json")).unwrap()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let ids = dir.path().join("ids.json");
    fs::write(&ids, golden["ids"].to_string()).unwrap();
    for name in CHECKPOINTS {
        let model = testdata(&format!("golden/{name}"));
        let text = ids.to_str().unwrap();
        let base = ["compare", &model, "--text", text, "--ids", "-c", "64", "--windows", "4", "--json"];
        for packing in ["i2", "t5"] {
            for with in [
                "cpu=scalar",
                "packing=i2,threads=2",
                "packing=t5,threads=1",
                "cpu=scalar,packing=t5,threads=2",
            ] {
                let json =
                    eval(&[&base[..], &["--with", with, "--packing", packing, "-t", "1"]].concat()).json();
                assert_eq!(json["identical"], 1.0, "{name}, {packing}, {with}: {json}");
                assert_eq!(json["kl"], 0.0, "{name}, {packing}, {with}");
                assert_eq!(json["kl_largest"], 0.0, "{name}, {packing}, {with}");
                assert_eq!(json["top1_agreement"], 1.0, "{name}, {packing}, {with}");
                assert_eq!(json["largest_logit_difference"], 0.0, "{name}, {packing}, {with}");
                assert_eq!(json["a"]["perplexity"], json["b"]["perplexity"], "{name}, {packing}, {with}");
                assert_eq!(json["tokens"], 4 * 63);
            }
        }
        // What loses something, and how much at most: nats a token.
        for (with, most) in [("kv=f16", 1e-1), ("kv=int8", 1.0), ("head=int8", 1e-1)] {
            let json = eval(&[&base[..], &EXACT, &["--with", with]].concat()).json();
            let (kl, agree) = (json["kl"].as_f64().unwrap(), json["top1_agreement"].as_f64().unwrap());
            println!("{name}, {with}: {kl:.2e} nats, {agree:.4} agree, {}", json["largest_logit_difference"]);
            assert!(kl > 0.0 && kl < most && agree > 0.8, "{name}, {with}: {json}");
            assert!(json["identical"].as_f64().unwrap() < 1.0, "{name}, {with}: {json}");
            assert_ne!(json["a"]["settings"], json["b"]["settings"]);
        }
    }
}

#[test]
fn needles_are_looked_for_at_every_depth_and_length() {
    let json =
        eval(&["needle", MODEL, "--lengths", "64,256", "--depths", "0,100", "--repeat", "2", "--json"])
            .json();
    let cells = json["needle"].as_array().unwrap();
    let places: Vec<_> = cells
        .iter()
        .map(|cell| (cell["length"].as_u64().unwrap(), cell["depth"].as_u64().unwrap()))
        .collect();
    assert_eq!(places, [(64, 0), (64, 100), (256, 0), (256, 100)]);
    assert!(cells.iter().all(|cell| cell["logprob"].as_f64().unwrap() < 0.0));
    let short = eval(&["needle", MODEL, "--lengths", "8"]);
    assert!(short.code == Some(2) && short.stderr.contains("take that many"), "{}", short.stderr);
}

#[test]
fn the_report_holds_every_figure_and_asks_for_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let data = testdata("golden/eval");
    let text = format!("{data}/wikitext-slice.txt");
    fs::write(at("tasks.json"), eval(&["tasks", MODEL, "copa", "arc_easy", "--data", &data, "--json"]).ok())
        .unwrap();
    fs::write(at("ppl.json"), eval(&["ppl", MODEL, &text, "-c", "128", "--windows", "2", "--json"]).ok())
        .unwrap();
    let compare =
        ["compare", MODEL, "--text", &text, "-c", "64", "--windows", "1", "--with", "kv=int8", "--json"];
    fs::write(at("compare.json"), eval(&compare).ok()).unwrap();
    let bench =
        run(&["bench", MODEL, "-p", "8", "-n", "2", "-r", "1", "-t", "1", "--probe", "1", "-o", "json"]).ok();
    fs::write(at("bench.json"), bench).unwrap();
    let files = ["tasks.json", "ppl.json", "compare.json", "bench.json"].map(at);
    let mut args = vec!["report".to_owned(), at("page.html")];
    args.extend(files);
    args.extend(["--title".to_owned(), "<b>one & two".to_owned()]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let markdown = eval(&args).ok();
    let page = fs::read_to_string(at("page.html")).unwrap();
    for word in [
        "## Tasks",
        "## Perplexity",
        "## Divergence",
        "## Speed and energy",
        "| page.gguf | copa |",
        "arc_easy",
    ] {
        assert!(markdown.contains(word), "{word}: {markdown}");
    }
    assert!(page.contains("&lt;b&gt;one &amp; two") && !page.contains("<b>"));
    assert!(page.matches("<svg").count() >= 2 && page.contains("arc_easy"));
    for outside in ["http:", "https:", "src=", "url(", "@import", "<script", "<link"] {
        assert!(!page.contains(outside), "{outside}");
    }
    fs::write(at("bad.json"), "{\"x\": 1}").unwrap();
    let bad = eval(&["report", &at("other.html"), &at("bad.json")]);
    assert!(bad.code == Some(1) && bad.stderr.contains("no measurement"), "{}", bad.stderr);
    assert!(!Path::new(&at("other.html")).exists());
}

#[test]
fn what_makes_no_sense_is_said_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let short = dir.path().join("short.txt").to_str().unwrap().to_owned();
    fs::write(&short, "a word").unwrap();
    let long = testdata("golden/eval/wikitext-slice.txt");
    for (args, code, what) in [
        (&["tasks", MODEL, "nothing"][..], 2, "no task is called `nothing`"),
        (&["tasks", MODEL, "copa", "--data", "/nowhere"], 1, "no such file of items"),
        (&["ppl", MODEL, "/nowhere.txt"], 1, "/nowhere.txt"),
        (&["ppl", "nothing.gguf", "/dev/null"], 1, "empty file"),
        (&["compare", MODEL, "--text", "/dev/null", "--with", "kv=int8"], 1, "empty file"),
        (&["compare", MODEL, "--text", "/dev/null"], 2, "a second model"),
        (&["ppl", MODEL, &long, "-c", "513"], 2, "at most 512"),
        (&["ppl", MODEL, &short], 1, "`-c` makes"),
    ] {
        let done = eval(args);
        assert!(
            done.code == Some(code) && done.stderr.contains(what),
            "{args:?}: {:?} {}",
            done.code,
            done.stderr
        );
    }
    let list = eval(&["tasks", "--list"]).ok();
    assert_eq!(list.lines().count(), 14, "{list}");
}

#[test]
fn documents_are_scored_one_by_one_behind_their_begin_token() {
    let dir = tempfile::tempdir().unwrap();
    let texts =
        ["The lamp stood on a small grey island.", "Once upon a time there was a page.", "A third one."];
    let plain = dir.path().join("stories.txt");
    fs::write(&plain, texts.join("<|endoftext|>")).unwrap();
    let lines = dir.path().join("stories.jsonl");
    let line = |text: &&str| serde_json::json!({ "text": text }).to_string();
    fs::write(&lines, texts.iter().map(line).collect::<Vec<_>>().join("\n")).unwrap();
    let scored = |file: &Path, more: &[&str]| {
        let args = ["ppl", MODEL, file.to_str().unwrap(), "--documents", "--json"];
        eval(&[&args[..], &EXACT, more].concat()).json()
    };
    let whole = scored(&plain, &[]);
    assert_eq!((&whole["documents"], &whole["convention"]), (&3.into(), &"documents".into()));
    assert_eq!(whole["bytes"], texts.iter().map(|text| text.len()).sum::<usize>());
    for key in ["perplexity", "tokens_scored", "bits_per_byte"] {
        assert_eq!(scored(&lines, &[])[key], whole[key], "{key}");
    }
    // The sum of each alone: all tokens but the begin token are scored.
    let (mut nll, mut count) = (0.0, 0);
    for text in texts {
        let one = dir.path().join("one.txt");
        fs::write(&one, text).unwrap();
        let json = scored(&one, &[]);
        let tokens = json["tokens_scored"].as_u64().unwrap();
        let begun = u64::from(!json["begin_token"].is_null());
        assert_eq!(json["tokens"].as_u64().unwrap(), tokens + 1, "{begun}");
        nll += json["nll"].as_f64().unwrap() * tokens as f64;
        count += tokens;
    }
    assert_eq!(whole["tokens_scored"], count);
    assert!((whole["nll"].as_f64().unwrap() - nll / count as f64).abs() < 1e-6, "{whole}");
    // Longer than the window: each token once all the same.
    let cut = scored(&plain, &["-c", "8"]);
    assert_eq!(cut["tokens_scored"], count);
    assert!(cut["windows"].as_u64().unwrap() > 3);
    let wrong = dir.path().join("bad.jsonl");
    fs::write(&wrong, "{\"text\": \"a b c\"}\n{\"txt\": 1}\n").unwrap();
    let failed = eval(&["ppl", MODEL, wrong.to_str().unwrap(), "--documents"]);
    assert_eq!(failed.code, Some(1));
    assert!(failed.stderr.contains("bad.jsonl") && failed.stderr.contains('2'), "{}", failed.stderr);
}

#[test]
fn texts_and_items_may_be_compressed_as_for_training() {
    let dir = tempfile::tempdir().unwrap();
    let slice = testdata("golden/eval/wikitext-slice.txt");
    let packed = dir.path().join("slice.txt.gz");
    let gzip = |from: &str, to: &Path| {
        let bytes = std::process::Command::new("gzip").args(["-c", from]).output().expect("gzip").stdout;
        fs::write(to, bytes).unwrap();
    };
    gzip(&slice, &packed);
    gzip(&testdata("golden/eval/copa.jsonl"), &dir.path().join("copa.jsonl.gz"));
    let ppl = |file: &str| eval(&["ppl", MODEL, file, "-c", "64", "--windows", "1", "--json"]).json();
    let (plain, unpacked) = (ppl(&slice), ppl(packed.to_str().unwrap()));
    assert_eq!(plain["perplexity"], unpacked["perplexity"]);
    assert_eq!(plain["file_sha256"], unpacked["file_sha256"], "the text's, not the file's");
    let tasks = |data: &str| eval(&["tasks", MODEL, "copa", "--data", data, "--limit", "3", "--json"]).json();
    let (plain, unpacked) = (tasks(&testdata("golden/eval")), tasks(dir.path().to_str().unwrap()));
    assert_eq!(plain["tasks"][0]["acc"], unpacked["tasks"][0]["acc"], "{unpacked}");
    fs::write(dir.path().join("no.zst"), "no zstd").unwrap();
    let wrong = eval(&["ppl", MODEL, dir.path().join("no.zst").to_str().unwrap()]);
    assert!(wrong.code == Some(1) && wrong.stderr.contains("no.zst: expected zstd"), "{}", wrong.stderr);
}
