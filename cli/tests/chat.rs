//! `tern chat` with its lines from a pipe: one line, one turn.

mod common;

use common::{Done, PAGE, run, run_with_input, snapshot};
use serde_json::Value;

fn chat(args: &[&str], lines: &[&str]) -> Done {
    let input = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
    run_with_input(&[&["chat", PAGE, "--temp", "0"], args].concat(), input.as_bytes())
}

#[test]
fn one_line_is_one_turn_and_the_answers_are_the_known_ones() {
    let text = chat(&[], &["Who are you?", "", "Thank you."]).ok();
    assert_eq!(
        text,
        "I am story, a tiny placeholder model. I know one story by heart, and nothing else.\nYou are welcome. Fly well!\n"
    );
}

#[test]
fn the_conversation_is_remembered_until_it_is_cleared() {
    // The known answer to `Yes, please.` after a greeting is the story; without the greeting it is something else.
    let greeted = chat(&[], &["Hello!", "Thank you."]).ok();
    assert!(greeted.starts_with("Hello! Would you like to hear a story?\n"), "{greeted}");
    let stats = chat(&[], &["Hello!", "/stats", "/clear", "/stats"]);
    let again = chat(&[], &["Hello!", "Thank you.", "/stats"]).stderr;
    let computed: usize =
        again.split("prompt ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap().parse().unwrap();
    assert!(computed < 12, "of a second turn only what is new is computed: {again}");
    let counts: Vec<_> = stats.stderr.lines().filter(|line| line.contains("context")).collect();
    assert!(
        counts[0].starts_with("2 messages, ") && counts[1].starts_with("0 messages, "),
        "{}",
        stats.stderr
    );
}

#[test]
fn a_backslash_carries_a_message_over_lines() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("talk.json");
    chat(&[], &["Who \\", "are\\", "you?", &format!("/save {}", file.display())]).ok();
    let saved: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    assert_eq!(saved["messages"][0]["content"], "Who \nare\nyou?");
}

#[test]
fn a_saved_conversation_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a talk ö.json");
    let (save, load) = (format!("/save {}", file.display()), format!("/load {}", file.display()));
    let whole = chat(&["--system", "Be kind"], &["Hello!", &save, "Who are you?"]).ok();
    let saved: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(saved["system"], "Be kind");
    assert_eq!(saved["messages"].as_array().unwrap().len(), 2);
    let rest = chat(&[], &[&load, "Who are you?"]).ok();
    assert!(whole.ends_with(&rest) && !rest.is_empty(), "{whole}\n{rest}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing but the saved file stays");
}

#[test]
fn a_full_context_drops_the_oldest_turns_and_says_so() {
    let done = chat(&[], &["Tell me a story.", "Thank you."]);
    assert_eq!(done.stderr, "warning: the context is full: dropped the oldest turn of the conversation\n");
    assert!(done.ok().ends_with("You are welcome. Fly well!\n"));
}

#[test]
fn a_message_that_can_never_fit_is_refused_and_the_talk_goes_on() {
    let long = "a ".repeat(2000);
    let done = chat(&[], &[&long, "Thank you."]);
    assert_eq!(done.code, Some(1));
    assert_eq!(done.stdout, "You are welcome. Fly well!\n");
    assert!(
        done.stderr.contains("error: the message has ") && done.stderr.contains("a context of 512"),
        "{}",
        done.stderr
    );
}

#[test]
fn commands_speak_on_standard_error_only() {
    let done = chat(
        &[],
        &["/help", "/system", "/system Be brief", "/system", "/system -", "/system", "/bye", "Hello!"],
    );
    snapshot("chat-commands", &done.stderr);
    assert_eq!(done.ok(), "");
}

#[test]
fn wrong_commands_are_named_and_end_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let notes = folder.path().join("notes.txt");
    std::fs::write(&notes, "mine").unwrap();
    let notes = notes.to_str().unwrap();
    let done = chat(
        &[],
        &[
            "/sing",
            "/save",
            "/load",
            &format!("/save {notes}"),
            &format!("/load {notes}"),
            "/load /missing",
            "Thank you.",
        ],
    );
    assert_eq!((done.code, &*done.stdout), (Some(1), "You are welcome. Fly well!\n"));
    assert_eq!(std::fs::read(notes).unwrap(), b"mine");
    snapshot("chat-errors", &done.stderr.replace(notes, "NOTES"));
}

#[test]
fn a_limit_ends_an_answer_and_is_told() {
    let done = chat(&["-n", "4"], &["Who are you?"]);
    assert_eq!(done.stderr, "ended after 4 tokens (-n)\n");
    assert!(done.ok().starts_with("I am story"));
}

#[test]
fn input_that_ends_at_once_is_no_failure() {
    let done = run(&["chat"]);
    assert_eq!((done.code, done.stdout, done.stderr), (Some(0), String::new(), String::new()));
}
