//! Documents out of files: plain text, JSON lines, and `.zst` or `.gz` of them, read as a stream with bounded memory. What is
//! wrong is said with the file and the line.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use serde_json::Value;
use tern::Message;

use crate::error::{Error, Result};

/// The longest line. A document of plain text that grows longer than this is cut there, at the end of a line.
pub const MAX_LINE: usize = 64 << 20;

/// One document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// All of it is to be learnt.
    Text(String),
    /// The assistant's turns are to be learnt.
    Chat(Vec<Message>),
    /// The first answer is to be preferred to the second.
    Pair(Box<[Side; 2]>),
}

/// One of two answers, with what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Side {
    /// The answer goes on where the prompt ends.
    Text {
        /// What both sides begin with.
        prompt: String,
        /// What this one goes on with.
        answer: String,
    },
    /// The answer is the last turn, the assistant's.
    Chat(Vec<Message>),
}

impl Side {
    /// The texts in it.
    pub fn texts(self) -> Vec<String> {
        match self {
            Side::Text { prompt, answer } => vec![prompt, answer],
            Side::Chat(messages) => messages.into_iter().map(|message| message.content).collect(),
        }
    }
}

/// How documents are found in a file.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// Key of the text in a JSON line.
    pub text_key: &'a str,
    /// What stands between the documents of a text file, over line ends too; nothing where a file is one document.
    pub separator: &'a str,
    /// Whether the lines of a paragraph become one.
    pub join_lines: bool,
}

/// Opens a file of text, unpacked where its name ends in `.zst` or `.gz`; with it its name in small letters without that.
pub fn open(path: &Path) -> Result<(Box<dyn Read>, String)> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    if file.metadata().map_err(|e| Error::io(path, e))?.is_dir() {
        return Err(Error::file(path, "is a directory, expected a file of text or JSON lines"));
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    Ok(if let Some(name) = name.strip_suffix(".zst") {
        let decoder = ruzstd::decoding::StreamingDecoder::new(BufReader::new(file));
        let decoder = decoder.map_err(|e| Error::file(path, format!("expected zstd: {e}")))?;
        (Box::new(decoder), name.to_owned())
    } else if let Some(name) = name.strip_suffix(".gz") {
        (Box::new(flate2::read::MultiGzDecoder::new(BufReader::new(file))), name.to_owned())
    } else {
        (Box::new(file), name)
    })
}

/// Calls `each` with every document of a file and the line it begins in, counted from 1.
pub fn documents(path: &Path, rules: Rules, mut each: impl FnMut(Document, u64) -> Result<()>) -> Result<()> {
    let (reader, name) = open(path)?;
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
    // Lines end in one way here, so the separator's do too.
    let separator = rules.separator.replace("\r\n", "\n");
    // `seen` bytes of the text hold no beginning of a separator; `first` is the line where the text begins.
    let (mut text, mut seen, mut first) = (String::new(), 0, 1);
    let mut finish = |part: &str, first: u64| {
        let whole = if rules.join_lines { joined(part) } else { part.trim().to_owned() };
        // What a person calls the beginning is the first line with something on it.
        let blank = &part[..part.len() - part.trim_start().len()];
        let first = first + blank.matches('\n').count() as u64;
        if whole.is_empty() { Ok(()) } else { each(Document::Text(whole), first) }
    };
    while let Some((_, line)) = lines.next()? {
        text.push_str(line);
        text.push('\n');
        let mut done = 0;
        while !separator.is_empty() {
            let Some(at) = text[done.max(seen)..].find(&separator) else { break };
            let at = done.max(seen) + at;
            finish(&text[done..at], first)?;
            first += text[done..at + separator.len()].matches('\n').count() as u64;
            (done, seen) = (at + separator.len(), 0);
        }
        text.drain(..done);
        if text.len() > MAX_LINE {
            finish(&text, first)?;
            first += text.matches('\n').count() as u64;
            text.clear();
        }
        // A separator may have begun, but not further back than its own length.
        seen = (text.len() + 1).saturating_sub(separator.len().max(1));
        while !text.is_char_boundary(seen) {
            seen -= 1;
        }
    }
    finish(&text, first)
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

/// Who speaks in a conversation; what a template makes of each is its own business.
const ROLES: [&str; 4] = ["system", "user", "assistant", "tool"];

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
    if object.contains_key("chosen") || object.contains_key("rejected") {
        let side = |key| side(object, key);
        let pair = [side("chosen")?, side("rejected")?];
        return match &pair {
            [Side::Text { .. }, Side::Chat(_)] | [Side::Chat(_), Side::Text { .. }] => {
                Err("keys `chosen` and `rejected`: expected two texts or two lists of messages".into())
            }
            _ => Ok(Document::Pair(Box::new(pair))),
        };
    }
    let Some(list) = object.get("messages") else {
        let keys: Vec<_> = object.keys().take(8).map(|key| format!("`{key}`")).collect();
        return Err(format!(
            "expected the key `{}`, `messages`, or `chosen` and `rejected`, found {}",
            rules.text_key,
            keys.join(", ")
        ));
    };
    messages("messages", list).map(Document::Chat)
}

/// A list of who said what.
fn messages(key: &str, list: &Value) -> Result<Vec<Message>, String> {
    let list = list.as_array().ok_or_else(|| format!("key `{key}`: expected a list"))?;
    let message = |message: &Value| {
        let part = |key: &str| message.get(key).and_then(Value::as_str).map(str::to_owned);
        let (Some(role), Some(content)) = (part("role"), part("content")) else {
            return Err(format!("key `{key}`: expected `role` and `content` in each"));
        };
        if !ROLES.contains(&&*role) {
            let role: String = role.chars().take(40).collect();
            return Err(format!("key `{key}`: the role `{role}`: expected {}", ROLES.join(", ")));
        }
        Ok(Message { role, content })
    };
    list.iter().map(message).collect()
}

/// One side of a pair: a text behind the text of `prompt`, or messages behind those of `prompt`, if it has any.
fn side(object: &serde_json::Map<String, Value>, key: &str) -> Result<Side, String> {
    let value = object.get(key).ok_or_else(|| format!("expected the key `{key}` as well"))?;
    let prompt = object.get("prompt");
    if let Some(answer) = value.as_str() {
        let prompt = prompt.and_then(Value::as_str).ok_or("expected a text in the key `prompt`")?;
        return Ok(Side::Text { prompt: prompt.to_owned(), answer: answer.to_owned() });
    }
    let mut turns = prompt.map_or(Ok(Vec::new()), |prompt| messages("prompt", prompt))?;
    turns.extend(messages(key, value)?);
    match turns.last() {
        Some(last) if last.role == "assistant" => Ok(Side::Chat(turns)),
        _ => Err(format!("key `{key}`: expected the assistant's answer in the last message")),
    }
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
    fn a_separator_may_go_over_lines_and_an_empty_one_never_stands() {
        for (separator, bytes, wanted) in [
            ("\n\n", "one\ntwo\n\nthree\n\n\nfour\n", &["one\ntwo", "three", "four"][..]),
            ("\n\n", "one\r\ntwo\r\n\r\nthree", &["one\ntwo", "three"]),
            ("\r\n\r\n", "one\n\ntwo", &["one", "two"]),
            ("\n---\n", "a---\n---\nb\n---\n---\nc", &["a---", "b", "---\nc"]),
            ("b\nb", "ab\nbb\nba", &["a", "a"]),
            ("é\né", "aé\néü", &["a", "ü"]),
            ("\n", "one\ntwo", &["one", "two"]),
            ("", "one\0\n\ntwo", &["one\0\n\ntwo"]),
        ] {
            let all = read("a.txt", bytes.as_bytes(), Rules { separator, ..RULES }).unwrap();
            assert_eq!(
                all,
                wanted.iter().map(|part| text(part)).collect::<Vec<_>>(),
                "{separator:?} in {bytes:?}"
            );
        }
    }

    #[test]
    fn documents_know_the_line_in_which_they_begin() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        std::fs::write(&path, "one\n\n\ntwo\n2\n\nthree\n").unwrap();
        let mut lines = Vec::new();
        documents(&path, Rules { separator: "\n\n", ..RULES }, |_, line| {
            lines.push(line);
            Ok(())
        })
        .unwrap();
        assert_eq!(lines, [1, 4, 7]);
    }

    #[test]
    fn a_text_without_separators_is_cut_into_documents_that_memory_holds() {
        let line = "x".repeat(1 << 20) + "\n";
        let all = read("a.txt", line.repeat(100).as_bytes(), RULES).unwrap();
        let lengths: Vec<usize> =
            all.iter().map(|d| if let Document::Text(t) = d { t.len() } else { 0 }).collect();
        assert!(lengths.len() == 2 && lengths.iter().all(|len| *len <= MAX_LINE + (2 << 20)), "{lengths:?}");
        assert_eq!(lengths.iter().sum::<usize>() + 2, 100 * line.len(), "nothing is lost");
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
    fn pairs_are_texts_behind_a_text_or_messages_behind_messages() {
        let lines = br#"{"prompt": "The sky is", "chosen": " blue.", "rejected": " green."}
            {"prompt": [{"role": "user", "content": "Hi"}], "chosen": [{"role": "assistant", "content": "Hello!"}], "rejected": [{"role": "assistant", "content": "No."}]}
            {"chosen": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}], "rejected": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "No."}]}"#;
        let all = read("a.jsonl", lines, RULES).unwrap();
        let side = |answer: &str| Side::Text { prompt: "The sky is".into(), answer: answer.into() };
        assert_eq!(all[0], Document::Pair(Box::new([side(" blue."), side(" green.")])));
        let message = |role: &str, content: &str| Message { role: role.into(), content: content.into() };
        let side = |answer: &str| Side::Chat(vec![message("user", "Hi"), message("assistant", answer)]);
        let wanted = Document::Pair(Box::new([side("Hello!"), side("No.")]));
        assert_eq!(all[1..], [wanted.clone(), wanted]);
    }

    #[test]
    fn errors_name_the_line_or_the_key() {
        for (name, bytes, wanted) in [
            ("a.txt", &b"fine\nnot \xff fine\n"[..], "line 2: expected UTF-8, found other bytes after 4"),
            (
                "a.jsonl",
                b"{\"text\": \"a\"}\n{\"txt\": 1}\n",
                "line 2: expected the key `text`, `messages`, or `chosen` and `rejected`, found `txt`",
            ),
            ("a.jsonl", b"{\"text\": 1}\n", "line 1: key `text`"),
            ("a.jsonl", b"{\"text\": \n", "line 1: expected JSON"),
            ("a.jsonl", b"[]\n", "line 1: expected a JSON object"),
            ("a.jsonl", b"{\"messages\": [{\"role\": 1}]}\n", "key `messages`"),
            (
                "a.jsonl",
                b"{\"messages\": [{\"role\": \"usr\", \"content\": \"x\"}]}\n",
                "line 1: key `messages`: the role `usr`: expected system, user, assistant, tool",
            ),
            ("a.jsonl", b"{\"chosen\": \"x\"}", "line 1: expected a text in the key `prompt`"),
            ("a.jsonl", b"{\"prompt\": \"p\", \"chosen\": \"x\"}", "line 1: expected the key `rejected` as well"),
            (
                "a.jsonl",
                b"{\"chosen\": [{\"role\": \"user\", \"content\": \"x\"}], \"rejected\": []}",
                "line 1: key `chosen`: expected the assistant's answer",
            ),
            (
                "a.jsonl",
                b"{\"chosen\": [{\"role\": \"assistant\", \"content\": \"x\"}], \"rejected\": \"y\", \"prompt\": []}",
                "line 1: expected a text in the key `prompt`",
            ),
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
