//! Documents out of files: plain text, JSON lines, and `.zst` or `.gz` of them, read as a stream with bounded memory. What is
//! wrong is said with the file and the line.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use serde_json::Value;
use tern::Message;

use crate::error::{Error, Result};

/// The longest line; a document of plain text is cut at the end of the line that makes it longer than this.
pub const MAX_LINE: usize = 64 << 20;

/// One document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// All of it is to be learnt.
    Text(String),
    /// The assistant's turns are to be learnt.
    Chat(Vec<Message>),
}

/// How documents are found in a file.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// Key of the text in a JSON line.
    pub text_key: &'a str,
    /// What stands between the documents of a text file.
    pub separator: &'a str,
    /// Whether the lines of a paragraph become one.
    pub join_lines: bool,
}

/// Calls `each` with every document of a file and the line it begins in, counted from 1.
pub fn documents(path: &Path, rules: Rules, mut each: impl FnMut(Document, u64) -> Result<()>) -> Result<()> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    if file.metadata().map_err(|e| Error::io(path, e))?.is_dir() {
        return Err(Error::file(path, "is a directory, expected a file of text or JSON lines"));
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let (reader, name): (Box<dyn Read>, &str) = if let Some(name) = name.strip_suffix(".zst") {
        let decoder = ruzstd::decoding::StreamingDecoder::new(BufReader::new(file));
        (Box::new(decoder.map_err(|e| Error::file(path, format!("expected zstd: {e}")))?), name)
    } else if let Some(name) = name.strip_suffix(".gz") {
        (Box::new(flate2::read::MultiGzDecoder::new(BufReader::new(file))), name)
    } else {
        (Box::new(file), &*name)
    };
    let mut lines =
        Lines { path, reader: BufReader::with_capacity(1 << 18, reader), number: 0, bytes: Vec::new() };
    if name.ends_with(".jsonl") || name.ends_with(".json") {
        while let Some((number, line)) = lines.next()? {
            if !line.trim().is_empty() {
                let document = record(line, rules).map_err(|what| Error::line(path, number, what))?;
                each(document, number)?;
            }
        }
        return Ok(());
    }
    texts(&mut lines, rules, each)
}

/// Plain text: documents end at the separator, wherever it stands, and at the end of the file.
fn texts(lines: &mut Lines, rules: Rules, mut each: impl FnMut(Document, u64) -> Result<()>) -> Result<()> {
    let (mut text, mut first) = (String::new(), 1);
    let mut finish = |text: &mut String, first: u64| {
        let whole = if rules.join_lines { joined(text) } else { text.trim().to_owned() };
        text.clear();
        if whole.is_empty() { Ok(()) } else { each(Document::Text(whole), first) }
    };
    while let Some((number, line)) = lines.next()? {
        let mut parts = line.split(rules.separator);
        if rules.separator.is_empty() {
            parts = line.split("\0");
        }
        text.push_str(parts.next().unwrap_or_default());
        for part in parts {
            finish(&mut text, first)?;
            first = number;
            text.push_str(part);
        }
        text.push('\n');
        if text.len() > MAX_LINE {
            finish(&mut text, first)?;
            first = number + 1;
        }
    }
    finish(&mut text, first)
}

/// Paragraphs, which empty lines part, on one line each.
fn joined(text: &str) -> String {
    let mut paragraphs: Vec<String> = vec![String::new()];
    for line in text.lines().map(str::trim) {
        let last = paragraphs.last_mut().expect("never empty");
        match (line.is_empty(), last.is_empty()) {
            (true, false) => paragraphs.push(String::new()),
            (true, true) => {}
            (false, true) => last.push_str(line),
            (false, false) => *last = format!("{last} {line}"),
        }
    }
    paragraphs.retain(|paragraph| !paragraph.is_empty());
    paragraphs.join("\n\n")
}

/// A line of JSON: `{text_key: ...}` or `{"messages": [{"role": ..., "content": ...}]}`.
fn record(line: &str, rules: Rules) -> Result<Document, String> {
    let value: Value = serde_json::from_str(line).map_err(|e| {
        let what = e.to_string();
        format!("expected JSON: {}", what.split(" at line").next().unwrap_or_default())
    })?;
    let Some(object) = value.as_object() else { return Err("expected a JSON object".into()) };
    if let Some(text) = object.get(rules.text_key) {
        let text = text.as_str().ok_or_else(|| format!("key `{}`: expected a text", rules.text_key))?;
        return Ok(Document::Text(if rules.join_lines { joined(text) } else { text.trim().to_owned() }));
    }
    let Some(messages) = object.get("messages") else {
        let keys: Vec<_> = object.keys().take(8).map(|key| format!("`{key}`")).collect();
        return Err(format!(
            "expected the key `{}` or `messages`, found {}",
            rules.text_key,
            keys.join(", ")
        ));
    };
    let messages = messages.as_array().ok_or("key `messages`: expected a list")?;
    let message = |message: &Value| {
        let part = |key: &str| message.get(key).and_then(Value::as_str).map(str::to_owned);
        Some(Message { role: part("role")?, content: part("content")? })
    };
    let messages: Option<Vec<Message>> = messages.iter().map(message).collect();
    messages.map(Document::Chat).ok_or_else(|| "key `messages`: expected `role` and `content` in each".into())
}

/// Lines of at most `MAX_LINE` bytes.
struct Lines<'a> {
    path: &'a Path,
    reader: BufReader<Box<dyn Read>>,
    number: u64,
    bytes: Vec<u8>,
}

impl Lines<'_> {
    /// The next line without its end, and its number from 1; `None` at the end of the file.
    fn next(&mut self) -> Result<Option<(u64, &str)>> {
        self.bytes.clear();
        self.number += 1;
        let read = (&mut self.reader).take(MAX_LINE as u64 + 1).read_until(b'\n', &mut self.bytes);
        let wrong = |what: String| Error::line(self.path, self.number, what);
        match read {
            Ok(0) => return Ok(None),
            Ok(_) if self.bytes.len() > MAX_LINE => {
                return Err(wrong(format!("expected at most {} MB in a line", MAX_LINE >> 20)));
            }
            Ok(_) => {}
            Err(e) => return Err(wrong(format!("cannot be read: {e}"))),
        }
        while self.bytes.last().is_some_and(|byte| [b'\n', b'\r'].contains(byte)) {
            self.bytes.pop();
        }
        match std::str::from_utf8(&self.bytes) {
            Ok(line) => Ok(Some((self.number, line))),
            Err(e) => {
                Err(wrong(format!("expected UTF-8, found other bytes after {} of them", e.valid_up_to())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const RULES: Rules = Rules { text_key: "text", separator: "<|end|>", join_lines: false };

    fn read(name: &str, bytes: &[u8], rules: Rules) -> Result<Vec<Document>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let mut all = Vec::new();
        documents(&path, rules, |document, _| {
            all.push(document);
            Ok(())
        })?;
        Ok(all)
    }

    fn text(text: &str) -> Document {
        Document::Text(text.into())
    }

    #[test]
    fn texts_end_at_the_separator_and_empty_ones_are_none() {
        let all = read("a.txt", b"one\n\ntwo<|end|>three\r\n<|end|>\n<|end|>\nfour", RULES).unwrap();
        assert_eq!(all, [text("one\n\ntwo"), text("three"), text("four")]);
        let joined = Rules { join_lines: true, ..RULES };
        let all = read("a.txt", b"a\nb\n\n\n c\n d\n", joined).unwrap();
        assert_eq!(all, [text("a b\n\nc d")]);
        assert!(read("a.txt", b"", RULES).unwrap().is_empty());
    }

    #[test]
    fn gzip_zstd_and_json_lines() {
        let lines = b"{\"text\": \"hi\"}\n\n{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}\n";
        let chat = Document::Chat(vec![Message { role: "user".into(), content: "x".into() }]);
        assert_eq!(read("a.jsonl", lines, RULES).unwrap(), [text("hi"), chat.clone()]);
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(lines).unwrap();
        assert_eq!(read("a.jsonl.gz", &gz.finish().unwrap(), RULES).unwrap(), [text("hi"), chat.clone()]);
        let level = ruzstd::encoding::CompressionLevel::Fastest;
        let zst = ruzstd::encoding::compress_to_vec(&lines[..], level);
        assert_eq!(read("a.jsonl.zst", &zst, RULES).unwrap(), [text("hi"), chat]);
        let cut = read("a.jsonl.zst", &zst[..zst.len() - 7], RULES).unwrap_err().to_string();
        assert!(cut.contains("a.jsonl.zst, line "), "{cut}");
    }

    #[test]
    fn errors_name_the_line_or_the_key() {
        for (name, bytes, wanted) in [
            ("a.txt", &b"fine\nnot \xff fine\n"[..], "line 2: expected UTF-8, found other bytes after 4"),
            (
                "a.jsonl",
                b"{\"text\": \"a\"}\n{\"txt\": 1}\n",
                "line 2: expected the key `text` or `messages`, found `txt`",
            ),
            ("a.jsonl", b"{\"text\": 1}\n", "line 1: key `text`"),
            ("a.jsonl", b"{\"text\": \n", "line 1: expected JSON"),
            ("a.jsonl", b"[]\n", "line 1: expected a JSON object"),
            ("a.jsonl", b"{\"messages\": [{\"role\": 1}]}\n", "key `messages`"),
            ("a.txt.zst", b"no zstd", "zstd"),
            ("a.txt.gz", b"no gzip", "line 1"),
        ] {
            let error = read(name, bytes, RULES).unwrap_err().to_string();
            assert!(error.contains(wanted), "{wanted}: {error}");
        }
    }

    #[test]
    fn a_line_beyond_the_limit_is_refused_without_reading_it_whole() {
        let error = read("a.txt", &vec![b'x'; MAX_LINE + 10], RULES).unwrap_err().to_string();
        assert!(error.contains("line 1: expected at most 64 MB"), "{error}");
    }
}
