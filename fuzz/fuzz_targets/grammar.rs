//! Any text as a JSON schema, a Lark grammar or a regular expression: compile it and take its first mask.
#![no_main]

use std::sync::LazyLock;

use tern_serve::fuzzing::Grammars;

static GRAMMARS: LazyLock<Grammars> = LazyLock::new(|| Grammars::story().expect("the built-in model has a tokenizer"));

libfuzzer_sys::fuzz_target!(|data: (u8, &str)| GRAMMARS.compile(data.0, data.1));
