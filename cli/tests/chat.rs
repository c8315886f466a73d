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
fn a_hint_leads_somewhere() {
    let long = "a ".repeat(2000);
    let hint = |args: &[&str]| {
        let told = chat(args, &[&long]).stderr;
        told.lines().find(|line| line.starts_with("hint: ")).unwrap_or_else(|| panic!("{told}")).to_owned()
    };
    assert_eq!(
        hint(&["-c", "64"]),
        "hint: say it in fewer words, or start again with a larger `-c`, up to 512"
    );
    // Not `start again with a larger -c`, which would be refused.
    assert_eq!(hint(&[]), "hint: say it in fewer words: this model was made for a context of 512, no more");
}

#[test]
fn the_last_turn_is_answered_again_or_taken_back() {
    let saved = |lines: &[&str]| -> Value {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("talk.json");
        let save = format!("/save {}", file.display());
        chat(&[], &[lines, &[&*save]].concat()).ok();
        serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
    };
    let once = saved(&["Hello!", "Who are you?"]);
    assert_eq!(saved(&["Hello!", "Who are you?", "/retry"]), once, "the likeliest answer is the same again");
    assert_eq!(saved(&["Hello!", "Who are you?", "Thank you.", "/undo"]), once);
    let none = chat(&[], &["/undo", "/retry", "Thank you."]);
    assert_eq!(none.stdout, "You are welcome. Fly well!\n");
    assert_eq!(
        none.stderr.lines().take(2).collect::<Vec<_>>(),
        [
            "error: /undo: there is no message to take back",
            "error: /retry: there is no message to answer again"
        ]
    );
    // Two answers are written, and the second one is another.
    let hot = ["--temp", "2", "--top-k", "0", "--top-p", "1", "--min-p", "0", "--seed", "1", "-n", "12"];
    let input = "Who are you?\n/retry\n";
    let two = run_with_input(&[&["chat", PAGE], &hot[..]].concat(), input.as_bytes()).ok();
    let one = run_with_input(&[&["chat", PAGE], &hot[..]].concat(), b"Who are you?\n").ok();
    assert!(two.starts_with(&one) && two.len() > one.len() && two != format!("{one}{one}"), "{two}");
}

#[test]
fn settings_are_changed_within_a_conversation() {
    let done = chat(
        &[],
        &["/set temp 1.5", "/set top-k=3", "/set --seed 7", "/set tokens 4", "/set", "Who are you?"],
    );
    for line in
        ["temp               1.5", "top-k              3", "seed               7", "tokens             4"]
    {
        assert!(done.stderr.contains(&format!("  {line}\n")), "{}", done.stderr);
    }
    assert!(done.stderr.ends_with("ended after 4 tokens (-n)\n"), "{}", done.stderr);
    // The setting is the flag: the same text as with it.
    let flags = ["chat", PAGE, "--temp", "2", "--top-k", "0", "--min-p", "0", "--seed", "5", "-n", "10"];
    let by_flag = run_with_input(&flags, b"Who are you?\n").ok();
    let set = "/set temp 2\n/set top-k 0\n/set min-p 0\n/set seed 5\n/set tokens 10\nWho are you?\n";
    assert_eq!(run_with_input(&["chat", PAGE], set.as_bytes()).ok(), by_flag);
    let wrong = chat(&[], &["/set heat 3", "/set temp warm"]).stderr;
    assert!(wrong.contains("error: /set heat 3: expected temp, top-k, "), "{wrong}");
    assert!(wrong.contains("error: /set temp warm: expected a number from 0 to 100"), "{wrong}");
}

#[cfg(target_os = "linux")]
#[test]
fn ctrl_c_at_the_prompt_explains_itself_and_keeps_the_conversation() {
    use std::io::{Read, Write};
    let mut child = common::on_terminal(80, &["chat", PAGE, "--temp", "0"]).spawn().unwrap();
    let (mut typed, mut shown) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut seen = String::new();
    let mut wait_for = |words: &str| {
        let mut byte = [0];
        let from = seen.len();
        while !seen[from..].contains(words) {
            assert_eq!(shown.read(&mut byte).unwrap(), 1, "ended before `{words}`: {seen}");
            seen.push(char::from(byte[0]));
        }
    };
    wait_for("/help lists the commands");
    wait_for("> ");
    typed.write_all(b"a slip\x03").unwrap();
    wait_for("Ctrl-C drops the line and stops an answer; Ctrl-D or /bye leaves");
    wait_for("> ");
    typed.write_all(b"Who \\\r").unwrap();
    wait_for("... ");
    typed.write_all(b"are you?\r").unwrap();
    wait_for("> ");
    typed.write_all(b"/bye\r").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
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
