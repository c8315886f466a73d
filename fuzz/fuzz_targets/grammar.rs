//! Any text as a JSON schema, a Lark or GBNF grammar, a regular expression or a list of tools: compile it and follow it
//! for some tokens. `TERN` names the program that tries it first; without one, what is known to cost is found again.
//! `serve/examples/grammars.rs` does the same on a stable tool chain, from texts that are made to cost.
#![no_main]

use std::sync::{Arc, LazyLock};

use tern_serve::fuzzing::{Followable, Kind};

static GRAMMARS: LazyLock<Followable> = LazyLock::new(|| {
    let start = std::env::var_os("TERN").map(|tern| -> tern_serve::Start {
        Arc::new(move || {
            let mut command = std::process::Command::new(&tern);
            command.arg("try-grammars");
            command
        })
    });
    Followable::story(start).expect("the built-in model has a tokenizer")
});

libfuzzer_sys::fuzz_target!(|data: (u8, &str)| {
    let kind = [Kind::Schema, Kind::Grammar, Kind::Regex, Kind::Tools][data.0 as usize % 4];
    let _ = GRAMMARS.follow(kind, data.1, 20, |allowed| data.0 as usize % allowed);
});
