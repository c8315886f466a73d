//! Any text as a chat template, a NUL, and a message: compile and render it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tern::{Message, Template};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (source, content) = text.split_once('\0').unwrap_or((text, "hi"));
    let messages = ["user", "assistant", "user"].map(|role| Message { role: role.into(), content: content.into() });
    let rendered = Template::new(source, "<s>", "</s>").and_then(|template| template.render(&messages, true));
    if let Err(error) = rendered {
        assert_eq!(error.to_string().lines().count(), 1, "{error}");
    }
});
