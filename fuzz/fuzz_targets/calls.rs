//! Any text as an answer with calls of tools, in two pieces.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: (usize, &str)| tern_serve::fuzzing::calls(data.1, data.0));
