//! Any bytes as a tokenizer of each kind (the first byte chooses): read it, then encode and decode a text.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use tern::file::{self, OpenOptions};
use tern::{Specials, Tokenizer};

const TEXT: &str = "Hello, World!  it's 12345 <|eot_id|> na\u{ef}ve \u{1f9a4}\r\n\n end";

fuzz_target!(|data: &[u8]| {
    let Some((kind, bytes)) = data.split_first() else { return };
    let tokenizer = match kind % 4 {
        0 => Tokenizer::from_json(bytes),
        1 => Tokenizer::from_tiktoken(bytes),
        2 => Tokenizer::from_sentencepiece(bytes),
        _ => match file::from_bytes(Path::new("fuzz"), bytes.to_vec().into(), OpenOptions::default()) {
            Ok(file) => match Tokenizer::from_file(&file) {
                Ok(Some(tokenizer)) => Ok(tokenizer),
                Ok(None) => return,
                Err(error) => Err(error),
            },
            Err(_) => return,
        },
    };
    match tokenizer {
        Ok(tokenizer) => {
            for specials in [Specials::Text, Specials::Parse] {
                if let Ok(ids) = tokenizer.encode(TEXT, true, specials) {
                    let _ = tokenizer.decode(&ids, true);
                }
            }
        }
        Err(error) => assert_eq!(error.to_string().lines().count(), 1, "{error}"),
    }
});
