//! `tern bench` through the real binary, on the built-in model: what is printed, what is drawn, and what happens when
//! something is wrong. Times differ between runs, so their digits are masked.

mod common;

use common::{Done, PAGE, run, snapshot};
use serde_json::Value;

/// A benchmark of a second or so.
const QUICK: [&str; 13] =
    ["bench", PAGE, "-p", "8", "-n", "3", "-r", "2", "-t", "1", "--probe", "1", "--packing=i2"];

fn quick(more: &[&str]) -> Done {
    run(&[&QUICK[..], more].concat())
}

/// Every number becomes `#`, and what differs between machines a word.
fn masked(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        // The machine's own line, and the reason why it has no counters, or which they are.
        let line = match line {
            line if line.contains(" cores, ") || line.contains(" core, ") => "MACHINE",
            line if line.starts_with("energy: ") => "ENERGY",
            line => line,
        };
        let mut number = false;
        for c in line.replace("(memory)", "(LIMIT)").replace("(kernels)", "(LIMIT)").chars() {
            let digit = c.is_ascii_digit() || (number && c == '.');
            if !digit {
                out.push(c);
            } else if !number {
                out.push('#');
            }
            number = digit;
        }
        out.push('\n');
    }
    out
}

#[test]
fn the_table_has_a_row_for_every_test_and_one_for_every_ceiling() {
    let done = quick(&["-d", "0,5", "-b", "1,3", "--note", "at night"]);
    let text = done.ok();
    assert!(text.contains("\nat night\n"), "{text}");
    for test in ["pp8", "tg3", "tg3 x3", "pp8 @ d5", "tg3 @ d5", "tg3 x3 @ d5"] {
        assert!(text.contains(&format!("\n| {test} | 1 | ")), "{test} is missing in\n{text}");
    }
    // Joules, where there are counters.
    let table =
        masked(&quick(&["-b", "1,3"]).ok().replace(PAGE, "PAGE")).replace("| # |\n| tg", "| – |\n| tg");
    snapshot("bench-table", &table.replace("| # |\n\nClosed", "| – |\n\nClosed"));
}

#[test]
fn an_embedding_model_is_measured_by_the_texts_that_become_vectors() {
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/golden/qwen3_embedding_norm_bitlinear");
    let quick = |more: &[&str]| {
        let args = ["bench", model, "-p", "8,24", "-b", "1,3", "-r", "1", "-t", "1", "--probe", "1"];
        run(&[&args[..], more].concat())
    };
    let text = quick(&[]).ok();
    for test in ["emb8", "emb8 x3", "emb24", "emb24 x3"] {
        assert!(text.contains(&format!("\n| {test} | 1 | ")), "{test} is missing in\n{text}");
    }
    assert!(text.contains("\nTexts a second: emb8 "), "{text}");
    assert!(quick(&["-o", "table"]).ok().contains("\nTexts a second: emb8 "));
    let json = quick(&["--json"]).json();
    let test = &json["tests"][3];
    assert_eq!((test["test"].as_str(), test["n_prompt"].as_u64()), (Some("emb24 x3"), Some(24)));
    let (tokens, texts) = (test["avg_ts"].as_f64().unwrap(), test["texts_per_s"].as_f64().unwrap());
    assert!((tokens / texts - 24.0).abs() < 0.01, "{test}");
    let refused = |more: &[&str], what: &str| {
        let done = quick(more);
        assert!(done.code == Some(2) && done.stderr.contains(what), "{}", done.stderr);
    };
    refused(&["-d", "4"], "expected a -p above 0 and no -d");
    refused(&["--plot", "vectors.svg"], "an embedding model has neither");
    assert!(!std::path::Path::new("vectors.svg").exists());
}

#[test]
fn a_terminal_gets_a_table_of_80_columns() {
    let text =
        quick(&["-d", "0,5", "-b", "1,3", "--note", "at night", "-o", "table", "--vs", &printing("rival")])
            .ok();
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    let shown = text.replace(PAGE, "PAGE");
    let (_, table) = shown.split_once("\n\n").unwrap();
    for test in ["pp8", "tg3", "tg3 x3", "pp8 @ d5", "tg3 @ d5", "tg3 x3 @ d5"] {
        assert!(
            table.lines().any(|line| line.split("  ").next() == Some(test)),
            "{test} is missing in\n{text}"
        );
    }
    let head = table.lines().next().unwrap();
    assert_eq!(
        head.split_whitespace().collect::<Vec<_>>().join(" "),
        "test threads tokens/s from – to of ceiling GB/s"
    );
    // Columns end together.
    let ends: Vec<usize> = table.lines().take(7).map(|line| line.chars().count()).collect();
    assert!(ends.iter().all(|end| *end == ends[0]), "{table}");
    assert!(table.contains("\nagainst echo"), "{table}");
}

#[test]
fn what_closed_gates_spare_is_told() {
    let bench = |zeros: &str| {
        let args =
            ["bench", "story", "-p", "0", "-n", "4", "-r", "1", "-t", "1", "--probe", "1", "--zeros", zeros];
        let text = run(&args).ok();
        assert!(text.contains("\nClosed gates: tg4 ") && text.contains(" zeros behind them), "), "{text}");
        let json = run(&[&args[..], &["--json"]].concat()).json();
        let number = |key: &str| json["tests"][0][key].as_f64().unwrap_or_else(|| panic!("{key} in {json}"));
        (
            ["closed_gates", "zeros_behind_gates"].map(number),
            number("unread_bytes_per_token"),
            number("bytes_per_token"),
        )
    };
    let (read, skip) = (bench("read"), bench("skip"));
    assert_eq!(read.0, skip.0);
    assert!(read.0[0] > 0.5 && read.0[1] >= read.0[0] && read.0[1] <= 1.0, "{read:?}");
    assert_eq!(read.1, 0.0);
    assert!(skip.1 > 0.0 && (read.2 - skip.1 - skip.2).abs() < 0.01 * read.2, "{read:?} {skip:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn the_form_is_chosen_by_where_it_goes() {
    let shown = Done::from(common::on_terminal(80, &QUICK).output().unwrap()).ok();
    assert!(shown.contains("of ceiling") && !shown.contains("| test |"), "{shown}");
    assert!(quick(&[]).ok().contains("| test | threads |"));
}

/// The keys of an object, and those of the objects in it, in order.
fn keys(value: &Value, path: &str, out: &mut String) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| keys(value, &format!("{path}.{key}"), out)),
        Value::Array(list) if list.first().is_some_and(Value::is_object) => {
            keys(&list[0], &format!("{path}[]"), out)
        }
        _ => out.push_str(&format!("{}\n", &path[1..])),
    }
}

#[test]
fn json_holds_what_was_measured_and_agrees_with_itself() {
    let json = quick(&["-d", "4", "-b", "1,2", "--json", "--zeros", "read"]).json();
    let mut shape = String::new();
    keys(&json, "", &mut shape);
    snapshot("bench-json", &shape);

    assert_eq!(json["tests"].as_array().unwrap().len(), 3);
    for test in json["tests"].as_array().unwrap() {
        let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("{value} in {test}"));
        let close = |a: f64, b: f64| assert!((a / b - 1.0).abs() < 1e-3, "{a} and {b} in {test}");
        let mut samples: Vec<f64> = test["samples_ts"].as_array().unwrap().iter().map(number).collect();
        assert_eq!(samples.len(), 2);
        samples.sort_by(f64::total_cmp);
        close((samples[0] + samples[1]) / 2.0, number(&test["avg_ts"]));
        assert_eq!((samples[0], samples[1]), (number(&test["min_ts"]), number(&test["max_ts"])));
        close(number(&test["gb_per_s"]) * 1e9, number(&test["avg_ts"]) * number(&test["bytes_per_token"]));
        let macs = number(&json["cost"]["ternary_macs"]);
        close(number(&test["gmac_per_s"]) * 1e9, number(&test["avg_ts"]) * macs);
        for share in ["memory", "int8", "kernels"] {
            assert!(number(&test["shares"][share]) > 0.0, "{test}");
        }
    }
    // Two texts share one reading of the weights.
    let bytes = |nth: usize| json["tests"][nth]["bytes_per_token"].as_f64().unwrap();
    assert!(bytes(2) < 0.7 * bytes(1));
    // No counters is a reason, counters are a number; never both.
    let energy = &json["energy"];
    assert_ne!(energy["source"].is_null(), energy["missing"].is_null(), "{energy}");
    assert_eq!(json["tests"][0]["joules_per_token"].is_null(), energy["source"].is_null());
}

#[test]
fn run_tells_energy_or_why_not() {
    let json = run(&["run", PAGE, "Once", "-n", "3", "--temp", "0", "--json", "-t", "1"]).json();
    let energy = &json["energy"];
    assert_ne!(energy["joules_per_token"].is_null(), energy["missing"].is_null(), "{energy}");
}

#[test]
fn csv_has_as_many_cells_in_every_line() {
    let text = quick(&["-b", "1,2", "-o", "csv", "--vs", &printing("a, \"b\"")]).ok();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 1 + 3 + 2, "{text}");
    for line in &lines {
        // Commas within quotes are part of their cell.
        let outside: String = line.split('"').step_by(2).collect();
        assert_eq!(outside.matches(',').count(), 19, "{line}");
    }
    assert!(lines[1].starts_with("tern,pp8,1,"), "{text}");
    assert!(lines[4].starts_with("\"echo '"), "{text}");
}

/// A command that prints what llama-bench does; the words are in it and mean nothing.
fn printing(words: &str) -> String {
    let tests = [
        r#"{"n_prompt": 8, "n_gen": 0, "n_threads": 1, "avg_ts": 0.5, "samples_ts": [0.5]}"#,
        r#"{"n_prompt": 0, "n_gen": 777, "n_threads": 1, "avg_ts": 2.0, "samples_ts": [2.0]}"#,
    ];
    format!("echo '[{}]' # {words}", tests.join(","))
}

#[cfg(unix)]
#[test]
fn rivals_are_run_in_every_round_and_compared() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let command = format!("echo run >> {}; {}", log.display(), printing("rival"));
    let json = quick(&["-o", "json", "--vs", &command]).json();
    // Once to warm up and once in each of two rounds.
    assert_eq!(std::fs::read_to_string(&log).unwrap().lines().count(), 3);
    let rival = &json["rivals"][0];
    assert_eq!(rival["command"], command.as_str());
    let [prompt, text] = rival["tests"].as_array().unwrap().as_slice() else { panic!("{rival}") };
    assert_eq!((&prompt["test"], &text["test"]), (&Value::from("pp8"), &Value::from("tg777")));
    let close = |a: f64, b: f64| assert!((a / b - 1.0).abs() < 1e-3, "{a} and {b} in {rival}");
    close(prompt["ratio"]["median"].as_f64().unwrap(), json["tests"][0]["avg_ts"].as_f64().unwrap() / 0.5);
    assert_eq!(prompt["samples_ts"].as_array().unwrap().len(), 2);
    assert!(text["ratio"].is_null());
    let table = quick(&["--vs", &printing("rival")]).ok();
    snapshot("bench-vs", &masked(&table[table.find("## against").unwrap()..]));
}

#[cfg(unix)]
#[test]
fn our_own_output_can_be_a_rivals() {
    let ours = format!("{} {} -o json", env!("CARGO_BIN_EXE_tern"), QUICK.join(" "));
    let json = quick(&["-o", "json", "--vs", &ours]).json();
    assert!(json["rivals"][0]["tests"][1]["ratio"]["median"].as_f64().unwrap() > 0.0);
}

#[test]
fn the_plot_is_a_whole_picture() {
    let folder = tempfile::tempdir().unwrap();
    let plot = folder.path().join("speed.svg");
    let more = ["-d", "0,4", "-b", "1,2", "-o", "json", "--plot", plot.to_str().unwrap()];
    let json = quick(&more).json();
    let svg = std::fs::read_to_string(&plot).unwrap();
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{svg}");
    for words in [
        "tokens/s; depth 0",
        ">threads<",
        "depth (tokens before)",
        "batch (texts at once)",
        "prefers-color-scheme",
    ] {
        assert!(svg.contains(words), "{words} is missing in\n{svg}");
    }
    let date = json["date"].as_str().unwrap().replace('T', " ").replace('Z', " UTC");
    let cpu = json["machine"]["cpu"].as_str().unwrap();
    assert!(svg.contains(&date) && svg.contains(cpu), "{svg}");
    // Threads: one point of each; depth: two; batch: two of the text.
    assert_eq!(svg.matches("<circle").count(), 2 + 2 + 4 + 2, "{svg}");
    assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    let left = || std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left(), 1, "only the plot is left");

    // Whole or not at all: what fails on the way leaves what was there.
    std::fs::write(&plot, "mine").unwrap();
    assert_eq!(quick(&["--plot", plot.to_str().unwrap(), "--vs", "exit 3"]).code, Some(1));
    assert_eq!(std::fs::read_to_string(&plot).unwrap(), "mine");
    assert_eq!(left(), 1);
}

#[test]
fn what_cannot_be_measured_is_said_in_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = folder.path().join("no/speed.svg").to_str().unwrap().to_owned();
    let mut text = String::new();
    let cases: &[(&[&str], i32)] = &[
        (&["-b", "0"], 2),
        (&["-b", "1,x"], 2),
        (&["-p", "-1"], 2),
        (&["-t", "0"], 2),
        (&["-r", "0"], 2),
        (&["-o", "xml"], 2),
        (&["--probe", "0"], 2),
        (&["--probe", "9999999"], 2),
        (&["-p", "0", "-n", "0"], 2),
        (&["-d", "100000"], 2),
        (&["-d", "256", "-p", "512", "-n", "0"], 2),
        (&["--json", "-o", "csv"], 2),
        (&["-n", "99999999999999999"], 2),
        (&["--plot", &nowhere], 1),
        // Nothing is measured before the rivals have shown that they work.
        (&["--vs", "exit 3"], 1),
        (&["--vs", "echo oh >&2; echo no >&2; exit 3"], 1),
        (&["--vs", "echo hello"], 1),
        (&["--vs", "true"], 1),
        (&["--vs", "echo '[]'"], 1),
    ];
    for (more, code) in cases {
        let args = [&["bench", PAGE][..], more].concat();
        let done = run(&args);
        assert_eq!((done.code, done.stdout.as_str()), (Some(*code), ""), "{args:?}: {}", done.stderr);
        assert!(done.stderr.starts_with("error: "), "{args:?}: {}", done.stderr);
        if !cfg!(unix) && more[0] == "--vs" {
            continue;
        }
        text.push_str(&common::transcript(&args, &done, &[(&nowhere, "NOWHERE"), (PAGE, "PAGE")]));
        text.push('\n');
    }
    snapshot("bench-errors", &text);
    assert_eq!(run(&["bench", "nothing.gguf"]).code, Some(1));
}
