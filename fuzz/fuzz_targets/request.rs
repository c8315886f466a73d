//! Any bytes as the body of a chat: read it, lay out its messages and tools.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tern_serve::fuzzing::request(data));
