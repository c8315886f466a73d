//! `tern run` through the real binary, with the built-in model and the tiny checkpoints.

mod common;

use std::io::{BufReader, Read};
use std::process::{Command, Stdio};

use common::{Done, PAGE, run, run_with_input, tern, testdata};
use serde_json::Value;

/// The known answer of the model `page` to this prompt.
fn known_answer(prompt: &str) -> Value {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/models/page/answers.json");
    let answers: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let list = answers["answers"].as_array().unwrap();
    list.iter().find(|answer| answer["prompt"] == prompt).expect(prompt).clone()
}

#[test]
fn the_first_command_of_the_readme_tells_a_story() {
    for seed in ["1", "2"] {
        let text = run(&["run", "story", "Once upon a time", "--seed", seed, "-n", "120"]).ok();
        assert!(text.contains(['.', '!', '?']) && text.split_whitespace().count() > 10, "{text:?}");
        assert!(!text.contains(['\u{fffd}', '<']), "{text:?}");
        assert!(text.ends_with('\n') && !text.ends_with("\n\n\n"), "{text:?}");
    }
}

#[test]
fn the_known_answer_is_written_and_a_line_end() {
    let known = known_answer("Once upon a time");
    let text = run(&["run", PAGE, "Once upon a time", "--temp", "0"]).ok();
    assert_eq!(text.trim_end(), known["text"].as_str().unwrap().trim_end());
    assert!(text.ends_with('\n') && !text.ends_with("\n\n\n"), "{text:?}");
}

#[test]
fn nothing_but_the_text_is_said_when_nobody_watches() {
    let done = run(&["run", PAGE, "Once upon a time", "-n", "3", "--temp", "0"]);
    assert_eq!(done.stderr, "");
    let done = run(&["run", PAGE, "Once upon a time", "-n", "3", "--temp", "0", "-v", "--seed", "7"]);
    let told = ["a beginning: continued; --chat answers it\n", "\n3 tokens, ", "\nseed 7, "];
    assert!(told.iter().all(|words| done.stderr.contains(words)), "{}", done.stderr);
}

#[test]
fn json_tells_ids_probabilities_settings_and_timings() {
    let known = known_answer("Once upon a time");
    let json =
        run(&["run", PAGE, "Once upon a time", "--temp", "0", "--json", "-n", "5", "--seed", "3"]).json();
    assert_eq!(json["model"], PAGE);
    assert_eq!(json["prompt"], "Once upon a time");
    assert_eq!(json["prompt_ids"], known["prompt_ids"]);
    assert_eq!(json["ids"].as_array().unwrap()[..], known["ids"].as_array().unwrap()[..5]);
    assert!(known["text"].as_str().unwrap().starts_with(json["text"].as_str().unwrap()));
    let logprobs: Vec<f64> =
        json["logprobs"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    assert!(logprobs.len() == 5 && logprobs.iter().all(|x| *x <= 0.0 && *x > -3.0), "{logprobs:?}");
    assert_eq!((&json["stop"], &json["stop_id"]), (&Value::from("length"), &Value::Null));
    assert_eq!(json["settings"]["temperature"], 0.0);
    assert_eq!(json["settings"]["seed"], 3);
    assert_eq!(json["settings"]["max_tokens"], 5);
    for time in ["load_ms", "prompt_ms", "prompt_tokens_per_s", "decode_ms", "decode_tokens_per_s"] {
        assert!(json["timings"][time].as_f64().unwrap() > 0.0, "{time}: {json}");
    }
}

#[test]
fn guesses_ahead_change_no_text() {
    let repeats = "The bird looked at the sea and the sea looked back. ".repeat(12);
    for prompt in ["Once upon a time", &repeats] {
        for temperature in ["0", "0.9"] {
            let write = |flags: &[&str]| {
                let base = ["run", PAGE, prompt, "--temp", temperature, "--seed", "5", "-n", "150", "--json"];
                let json = run(&[&base[..], flags].concat()).json();
                let count = |name: &str| {
                    json["timings"]["drafts"][name].as_u64().unwrap_or_else(|| panic!("{name}: {json}"))
                };
                assert!(count("draft_n_accepted") <= count("draft_n"), "{json}");
                (json["ids"].clone(), count("draft_n"))
            };
            let (ids, none) = write(&["--draft-tokens", "0"]);
            assert_eq!(none, 0);
            for flags in [
                &[][..],
                &["--draft-tokens", "15"],
                &["--draft", PAGE],
                &["--draft", PAGE, "--draft-tokens", "3"],
            ] {
                assert_eq!(write(flags).0, ids, "{flags:?} {temperature}");
            }
            assert_eq!(write(&["--draft", PAGE, "--draft-tokens", "0"]), (ids, 0));
        }
    }
    let done = run(&["run", PAGE, "Once", "--draft", "story"]);
    assert_eq!(done.code, Some(1));
    assert!(
        done.stderr.contains("--draft story: a draft model must have the model's vocabulary"),
        "{}",
        done.stderr
    );
}

#[test]
fn a_stop_token_ends_the_text_and_is_named() {
    let json = run(&["run", PAGE, "Once upon a time", "--temp", "0", "--json"]).json();
    assert_eq!(json["stop"], "stop");
    assert!(json["stop_id"].is_u64(), "{json}");
    assert!(
        !json["ids"].as_array().unwrap().contains(&json["stop_id"]),
        "the stop token is no part of the text"
    );
}

#[test]
fn a_full_context_ends_the_text() {
    let json = run(&["run", PAGE, "Once upon a time", "--temp", "0", "--json", "-c", "10"]).json();
    assert_eq!(json["stop"], "context");
    let count = |key: &str| json[key].as_array().unwrap().len();
    assert_eq!(count("prompt_ids") + count("ids"), 10);
}

#[test]
fn the_same_seed_gives_the_same_text_and_another_one_differs() {
    let text = |seed: &str| {
        run(&["run", PAGE, "The bird", "--temp", "3", "--top-k", "0", "-n", "24", "-t", "1", "--seed", seed])
            .ok()
    };
    assert_eq!(text("1"), text("1"));
    assert_ne!(text("1"), text("2"));
}

#[test]
fn threads_packings_and_instruction_sets_do_not_change_a_bit() {
    let numbers = |more: &[&str]| {
        let args = [&["run", PAGE, "Once upon a time", "-n", "12", "--seed", "1", "--json"], more].concat();
        let json = run(&args).json();
        (json["ids"].clone(), json["logprobs"].clone())
    };
    let usual = numbers(&[]);
    let doctor = run(&["doctor", "--json"]).json();
    for cpu in doctor["machine"]["kernels"].as_array().unwrap() {
        for packing in ["i2", "t5"] {
            assert_eq!(
                numbers(&["--cpu", cpu.as_str().unwrap(), "--packing", packing, "-t", "1"]),
                usual,
                "{cpu} {packing}"
            );
        }
    }
    assert_eq!(numbers(&["-t", "2"]), usual);
}

#[test]
fn the_prompt_comes_from_the_command_line_or_standard_input() {
    let args = ["--temp", "0", "-n", "8"];
    let expected = run(&[&["run", PAGE, "Once upon a time"], &args[..]].concat()).ok();
    let piped = |model: &[&str], text: &str| {
        run_with_input(&[&["run"], model, &args[..]].concat(), text.as_bytes()).ok()
    };
    assert_eq!(piped(&[PAGE, "-"], "Once upon a time"), expected);
    assert_eq!(piped(&[PAGE], "Once upon a time\n"), expected, "the last line end is not part of the prompt");
    let story = run(&[&["run", "story", "Once upon a time"], &args[..]].concat()).ok();
    assert_eq!(piped(&[], "Once upon a time\r\n"), story, "story is the default");
    assert_ne!(piped(&[PAGE], "Once upon a time\n\n"), expected, "other line ends are");
}

#[test]
fn ids_are_taken_exactly_as_given() {
    let known = known_answer("<|user|>Who are you?<|end|><|assistant|>");
    let ids = known["prompt_ids"].to_string();
    let bare = ids.trim_matches(['[', ']']);
    for ids in [&*ids, bare, &bare.replace(',', ", ")] {
        let json = run(&["run", PAGE, "--ids", ids, "--temp", "0", "--json"]).json();
        assert_eq!(json["prompt_ids"], known["prompt_ids"]);
        // The known ids end with the stop token, which is no part of the text.
        let [said @ .., stop] = &known["ids"].as_array().unwrap()[..] else { panic!("{known}") };
        assert_eq!((json["ids"].as_array().unwrap(), &json["stop_id"]), (&said.to_vec(), stop));
        assert_eq!(json["prompt"], Value::Null);
    }
}

#[test]
fn a_system_text_brings_the_chat_template() {
    let known = known_answer("<|user|>Who are you?<|end|><|assistant|>");
    let json = run(&["run", PAGE, "Who are you?", "--system", "Be kind", "--temp", "0", "--json"]).json();
    assert_eq!(json["prompt_ids"], known["prompt_ids"]);
    assert_eq!(json["text"], known["text"]);
}

/// Questions, requests and greetings as people type them.
const QUESTIONS: [&str; 50] = [
    "Why is the sky blue?",
    "What is 2+2?",
    "How are you?",
    "Who are you?",
    "What is your name?",
    "what is your name",
    "Hello",
    "Hello!",
    "Hi there",
    "Hey, how is it going?",
    "Good morning, how are you?",
    "What can you do?",
    "Can you help me?",
    "Tell me a story.",
    "Tell me a story about a dog named Rex.",
    "Tell me a story about a boat",
    "Write a story about a princess.",
    "Write a poem about the sea.",
    "Please tell me a joke.",
    "Tell me a joke",
    "Do you like cats?",
    "Are you happy?",
    "Are you a robot?",
    "Is it raining?",
    "Where do you live?",
    "When is dinner?",
    "Which colour do you like best?",
    "What is the capital of France?",
    "Who was Albert Einstein?",
    "How old are you?",
    "How many legs does a spider have?",
    "How far is the moon?",
    "Why do birds fly south?",
    "why is grass green",
    "What's the weather like?",
    "What do you think about football?",
    "Do you know a song?",
    "Could you sing for me?",
    "Would you like some cake?",
    "Should I go to bed?",
    "Explain gravity to a child.",
    "List three animals.",
    "Name a fruit.",
    "Give me an idea for a game.",
    "Say something nice.",
    "Translate 'dog' to French.",
    "Thank you!",
    "Thanks for the story.",
    "Goodbye",
    "The sun is hot. Is the moon hot too?",
];

#[test]
fn every_question_to_story_is_answered() {
    for (seed, question) in QUESTIONS.into_iter().enumerate() {
        let seed = seed.to_string();
        let json = run(&["run", "story", question, "--seed", &seed, "-n", "40", "--json"]).json();
        assert!(!json["text"].as_str().unwrap().trim().is_empty(), "{question}: {json}");
        assert_eq!(json["chat"], true, "{question}");
    }
}

#[test]
fn a_beginning_is_continued_and_flags_overrule_the_rule() {
    let chat =
        |args: &[&str]| run(&[&["run", "story", "-n", "3", "--json"], args].concat()).json()["chat"].clone();
    for beginning in ["Once upon a time", "When Tom woke up, he", "The sky is blue because", "Lily found a"] {
        assert_eq!(chat(&[beginning]), false, "{beginning}");
        assert_eq!(chat(&[beginning, "--chat"]), true, "{beginning}");
    }
    assert_eq!(chat(&["Why is the sky blue?", "--raw"]), false);
    let none = testdata("golden/gguf/bitnet_b158_i2s.gguf");
    let done = run(&["run", &none, "--ids", "1", "--chat"]);
    assert_eq!(done.code, Some(2), "{}", done.stderr);
}

#[test]
fn a_model_that_would_stop_at_once_says_something() {
    // By itself story ends a text that ends with a question: its likeliest token is the end.
    for seed in ["1", "2", "3", "4"] {
        let text = run(&["run", "story", "How are you?", "--raw", "--seed", seed, "-n", "20"]).ok();
        assert!(!text.trim().is_empty(), "{text:?}");
    }
}

#[test]
fn an_answer_without_a_letter_says_so_and_what_to_try() {
    let ids = run(&["tokenize", PAGE, "Once upon a time"]).json();
    let fills = ids.as_array().unwrap().len().to_string();
    let done = run(&["run", PAGE, "Once upon a time", "-c", &fills]);
    assert_eq!(done.code, Some(0));
    assert_eq!(
        done.stderr,
        "warning: the answer is empty: the prompt fills the context\nhint: this model goes up to `-c 512`\n"
    );
}

#[test]
fn a_system_message_that_nobody_reads_is_told() {
    let expected = "warning: --system is ignored: this model's chat template has no place for a system message\n\
                    hint: say it in the prompt\n";
    for command in [&["run", PAGE, "Hello!"][..], &["chat", PAGE]] {
        let done = run_with_input(&[command, &["--system", "Be kind", "-n", "2"]].concat(), b"");
        assert!(done.stderr.starts_with(expected), "{}", done.stderr);
        assert_eq!(done.code, Some(0));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_terminal_shows_the_beginning_dim_and_ends_lines_between_words() {
    let begin = "Once upon a time";
    let typed = |prompt| {
        let child = common::on_terminal(30, &["run", PAGE, prompt, "--temp", "0", "-n", "40"]).output();
        Done::from(child.unwrap()).ok().replace('\r', "")
    };
    let shown = typed(begin);
    assert!(shown.contains("\x1b[2mOnce upon a time\x1b[0m"), "{shown:?}");
    assert!(shown.contains("\x1b[2ma beginning: continued; --chat answers it\x1b[0m"), "{shown:?}");
    let plain = shown.replace("\x1b[2m", "").replace("\x1b[0m", "");
    let known = known_answer(begin);
    let story = format!("{begin}{}", known["text"].as_str().unwrap());
    let words: Vec<&str> = story.split_whitespace().take(8).collect();
    let (_, told) = plain.split_once("answers it\n").unwrap();
    assert!(told.split_whitespace().collect::<Vec<_>>().starts_with(&words), "{told:?}");
    // The last line is the remark about speed.
    let lines: Vec<&str> = told.trim_end().lines().collect();
    for line in &lines[..lines.len() - 1] {
        assert!(line.chars().count() <= 30, "{line:?}");
    }
    let answer = typed("Who are you?");
    assert!(!answer.contains("Who are you?") && answer.contains("answered; --raw continues"), "{answer:?}");
}

#[test]
fn special_tokens_in_a_prompt_are_plain_text() {
    let json = run(&["run", PAGE, "<|end|>", "-n", "1", "--json"]).json();
    let special = run(&["tokenize", PAGE, "<|end|>", "--special", "--no-bos"]).json();
    assert_eq!(special.as_array().unwrap().len(), 1);
    assert!(!json["prompt_ids"].as_array().unwrap().contains(&special[0]), "{json}");
}

#[test]
fn a_model_without_a_tokenizer_runs_on_ids() {
    for model in ["golden/gguf/bitnet_b158_i2s.gguf", "golden/bitnet_online_bf16"] {
        let model = testdata(model);
        let args = ["run", &model, "--ids", "3,17,42", "--temp", "0", "-n", "6"];
        let json = run(&[&args[..], &["--json"]].concat()).json();
        assert_eq!(json["text"], Value::Null);
        let ids: Vec<_> = json["ids"].as_array().unwrap().iter().map(Value::to_string).collect();
        assert_eq!(run(&args).ok(), format!("{}\n", ids.join(" ")));
    }
}

#[test]
fn a_space_at_the_start_of_a_continuation_is_kept() {
    // SentencePiece's decoders drop the space at the start of a text; here the text started before.
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();
    for (from, to) in [
        ("llama_packed_bitlinear/config.json", "config.json"),
        ("llama_packed_bitlinear/model.safetensors", "model.safetensors"),
        ("tokenizers/spm_bpe_tiny.json", "tokenizer.json"),
    ] {
        std::fs::copy(testdata(&format!("golden/{from}")), folder.path().join(to)).unwrap();
    }
    // Any of the 96 tokens may come first at this temperature; sooner or later the one that is a space does.
    let flat =
        ["--temp", "100", "--top-k", "0", "--top-p", "1", "--min-p", "0", "-n", "1", "-t", "1", "--json"];
    let space = run(&["tokenize", &format!("{dir}/tokenizer.json"), "a\u{1}", "--json"]).json();
    let space =
        space["tokens"].as_array().unwrap().iter().position(|token| token == "<0x01>").expect("byte tokens");
    let ids = run(&["tokenize", &format!("{dir}/tokenizer.json"), "a\u{1}"]).json();
    let space = ids[space].as_u64().unwrap() - 0x01 + 0x20;
    let said = (0..2000).find_map(|seed: u32| {
        let json =
            run(&[&["run", dir, "--ids", "1,5,7", "--seed", &seed.to_string()], &flat[..]].concat()).json();
        (json["ids"][0] == space).then(|| json["text"].clone())
    });
    assert_eq!(said.expect("a space within 2000 draws from 96 tokens"), " ");
}

#[test]
fn a_path_with_spaces_and_letters_beyond_ascii_is_fine() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("ein Möwen 模型.gguf");
    std::fs::copy(testdata("golden/gguf/bitnet_b158_i2s.gguf"), &model).unwrap();
    run(&["run", model.to_str().unwrap(), "--ids", "1", "-n", "2"]).ok();
}

#[test]
fn a_closed_pipe_is_success() {
    let mut child = tern(&["run", PAGE, "Once upon a time", "--temp", "0"]).spawn().unwrap();
    drop(child.stdout.take());
    let done: Done = child.wait_with_output().unwrap().into();
    assert_eq!((done.code, &*done.stderr), (Some(0), ""));
}

#[cfg(unix)]
fn interrupt(pid: u32) {
    assert!(Command::new("kill").args(["-INT", &pid.to_string()]).status().unwrap().success());
}

/// Starts a text that goes on for minutes: random tokens of a checkpoint with no stop token.
#[cfg(unix)]
fn endless(more: &[&str]) -> std::process::Child {
    let model = testdata("golden/gguf/bitnet_b158_i2s.gguf");
    let args = ["run", &model, "--ids", "1", "--temp", "2", "--cpu", "scalar", "-t", "1", "-n", "100000000"];
    tern(&[&args[..], more].concat()).stdout(Stdio::piped()).spawn().unwrap()
}

#[cfg(unix)]
#[test]
fn the_first_ctrl_c_ends_the_text_and_keeps_it() {
    let mut child = tern(&["run", PAGE, "Once upon a time", "--cpu", "scalar", "-t", "1"]).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut text = vec![0; 1];
    out.read_exact(&mut text).unwrap();
    interrupt(child.id());
    out.read_to_end(&mut text).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(text.last(), Some(&b'\n'), "the line is ended");
}

#[cfg(unix)]
#[test]
fn ctrl_c_leaves_whole_json() {
    let child = endless(&["--json"]);
    std::thread::sleep(std::time::Duration::from_millis(150));
    interrupt(child.id());
    let done: Done = child.wait_with_output().unwrap().into();
    assert!(matches!(done.code, Some(0 | 130)), "{:?} {}", done.code, done.stderr);
    let json: Value = serde_json::from_str(&done.stdout).unwrap();
    assert!(json["stop"] == "interrupted" || json["stop"] == "context", "{}", json["stop"]);
}

#[test]
fn penalties_and_bias_do_what_they_say() {
    let model = testdata("golden/bitnet_online_bf16");
    let ids = |more: &[&str]| -> Vec<u64> {
        let base = ["run", &model, "--ids", "1,2,3", "-n", "40", "--temp", "0", "--json"];
        let json = run(&[&base[..], more].concat()).json();
        json["ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect()
    };
    let repeats = |ids: &[u64], n: usize| {
        let parts: std::collections::HashSet<&[u64]> = ids.windows(n).collect();
        parts.len() < ids.len() + 1 - n
    };
    assert!(repeats(&ids(&[]), 2), "greedy text goes round in circles");
    assert!(!repeats(&ids(&["--presence-penalty", "100"]), 1));
    assert!(!repeats(&ids(&["--frequency-penalty", "100"]), 1));
    let pairs = ids(&["--dry-multiplier", "100", "--dry-allowed", "1", "--dry-base", "1"]);
    assert!(repeats(&pairs, 1) && !repeats(&pairs, 2), "{pairs:?}");
    let triples = ids(&["--dry-multiplier", "100", "--dry-base", "1"]);
    assert!(repeats(&triples, 2) && !repeats(&triples, 3), "{triples:?}");
    assert_eq!(ids(&["--logit-bias", "7=100"]), [7; 40]);
    let outside = run(&["run", &model, "--ids", "1", "--logit-bias", "99999999=1"]);
    assert!(outside.code == Some(2) && outside.stderr.contains("vocabulary"), "{}", outside.stderr);
}

#[test]
fn ids_are_continued_as_they_are_with_raw_or_without() {
    let plain = run(&["run", PAGE, "--ids", "5,6,7", "-n", "4", "--temp", "0"]).ok();
    assert_eq!(run(&["run", PAGE, "--raw", "--ids", "5,6,7", "-n", "4", "--temp", "0"]).ok(), plain);
}
