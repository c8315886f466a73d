//! Splits an answer's text while it streams into reasoning, content and tool calls.
//!
//! Reasoning models think between `<think>` and `</think>` before they speak; their templates may write the first mark
//! into the prompt. Calls stand between `<tool_call>` and `</tool_call>`, see `tools`. A call's name is told as soon as it
//! is known and its arguments as they are written, so that a client sees a long call grow.

use serde_json::Value;

use crate::tools::{CLOSE, OPEN};

pub(crate) const THINK: &str = "<think>";
const THOUGHT: &str = "</think>";

/// A call in a whole answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Call {
    /// Its number in the answer.
    pub(crate) at: usize,
    pub(crate) name: String,
    /// JSON; only the beginning of it if the call is not whole.
    pub(crate) arguments: String,
    /// Whether it was written to its end.
    pub(crate) whole: bool,
}

/// A part of an answer.
#[derive(Debug, PartialEq)]
pub(crate) enum Part {
    Thought(String),
    Text(String),
    /// A call begins; its number in the answer.
    Call {
        at: usize,
        name: String,
    },
    /// More of its arguments.
    Arguments(String),
    /// It is whole.
    End,
}

/// Where thoughts are looked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Thoughts {
    /// Nowhere: everything is text.
    #[default]
    Text,
    /// The answer may begin with them.
    Marked,
    /// The prompt ends with the mark that opens them.
    Open,
}

/// How an answer's text is split.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Format {
    pub(crate) tools: bool,
    pub(crate) thoughts: Thoughts,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    /// Before anything but white space.
    Start,
    Thought,
    /// Between the thoughts and the text.
    Gap,
    Text,
    /// In a call whose name is not known yet.
    Head,
    /// In a call that is laid out otherwise: it is read when it is whole.
    Buffered,
    /// In the arguments of a call.
    Arguments {
        depth: usize,
        quoted: bool,
        escaped: bool,
    },
    /// Between the arguments and the end of a call.
    Tail,
}

/// Tells the parts of a text that comes in pieces.
#[derive(Debug)]
pub(crate) struct Parts {
    format: Format,
    place: Place,
    pending: String,
    /// Whether anything was thought.
    thought: bool,
    /// Calls so far.
    pub(crate) calls: usize,
}

impl Parts {
    pub(crate) fn new(format: Format) -> Self {
        let place = match format.thoughts {
            Thoughts::Text => Place::Text,
            Thoughts::Marked => Place::Start,
            Thoughts::Open => Place::Thought,
        };
        Self { format, place, pending: String::new(), thought: false, calls: 0 }
    }

    pub(crate) fn push(&mut self, piece: &str) -> Vec<Part> {
        self.pending.push_str(piece);
        let mut parts = Vec::new();
        while self.step(&mut parts) {}
        parts
    }

    /// One step through what is pending; `false` where more text is needed.
    fn step(&mut self, parts: &mut Vec<Part>) -> bool {
        match self.place {
            Place::Start => {
                let text = self.pending.trim_start();
                if let Some(rest) = text.strip_prefix(THINK) {
                    self.pending = rest.to_owned();
                    self.place = Place::Thought;
                } else if THINK.starts_with(text) {
                    return false;
                } else {
                    self.place = Place::Text;
                }
                true
            }
            Place::Thought => self.thought(parts),
            Place::Gap => {
                self.trim_start();
                if self.pending.is_empty() {
                    return false;
                }
                self.place = Place::Text;
                true
            }
            Place::Text => self.text(parts),
            Place::Head => match head(&self.pending) {
                Head::Unknown => false,
                Head::Other => {
                    self.place = Place::Buffered;
                    true
                }
                Head::Known { name, len } => {
                    self.pending.drain(..len);
                    parts.push(Part::Call { at: self.calls, name });
                    self.calls += 1;
                    self.place = Place::Arguments { depth: 0, quoted: false, escaped: false };
                    true
                }
            },
            Place::Buffered => {
                let Some(inside) = self.take_until(CLOSE) else { return false };
                if !self.whole_call(&inside, parts) {
                    parts.push(Part::Text(format!("{OPEN}{inside}{CLOSE}")));
                }
                self.after_call();
                true
            }
            Place::Arguments { .. } => self.arguments(parts),
            Place::Tail => {
                if self.take_until(CLOSE).is_none() {
                    return false;
                }
                self.after_call();
                true
            }
        }
    }

    fn thought(&mut self, parts: &mut Vec<Part>) -> bool {
        if !self.thought {
            self.trim_start();
        }
        let end = self.pending.find(THOUGHT).map(|at| (at, at + THOUGHT.len(), Place::Gap));
        // A model that calls a tool has ended its thoughts, whether or not it says so.
        let call = self.pending.find(OPEN).filter(|_| self.format.tools).map(|at| (at, at, Place::Text));
        let found = end.into_iter().chain(call).min_by_key(|(at, ..)| *at);
        let (say, drop, place) = match found {
            Some((at, to, place)) => (self.pending[..at].trim_end().len(), to, place),
            None => {
                let open = if self.format.tools { OPEN } else { THOUGHT };
                let held = self.held(THOUGHT).max(self.held(open));
                // White space waits too: the last of it belongs to the mark.
                let say = self.pending[..self.pending.len() - held].trim_end().len();
                (say, say, Place::Thought)
            }
        };
        let mut said: String = self.pending.drain(..drop).collect();
        said.truncate(say);
        if !said.is_empty() {
            self.thought = true;
            parts.push(Part::Thought(said));
        }
        self.place = place;
        found.is_some()
    }

    fn text(&mut self, parts: &mut Vec<Part>) -> bool {
        let open = if self.format.tools { self.pending.find(OPEN) } else { None };
        let end = match open {
            Some(at) => at,
            None if self.format.tools => self.pending.len() - self.held(OPEN),
            None => self.pending.len(),
        };
        let text: String = self.pending.drain(..end).collect();
        // White space around calls lays them out.
        let layout = text.trim().is_empty() && (self.calls > 0 || open.is_some());
        if !text.is_empty() && !layout {
            parts.push(Part::Text(text));
        }
        if open.is_some() {
            self.pending.drain(..OPEN.len());
            self.place = Place::Head;
        }
        open.is_some()
    }

    fn arguments(&mut self, parts: &mut Vec<Part>) -> bool {
        let Place::Arguments { mut depth, mut quoted, mut escaped } = self.place else { return false };
        let mut end = None;
        for (at, byte) in self.pending.bytes().enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                b'{' | b'[' if !quoted => depth += 1,
                b'}' | b']' if !quoted => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        end = Some(at + 1);
                        break;
                    }
                }
                _ => {}
            }
        }
        let piece: String = self.pending.drain(..end.unwrap_or(self.pending.len())).collect();
        if !piece.is_empty() {
            parts.push(Part::Arguments(piece));
        }
        self.place = match end {
            Some(_) => {
                parts.push(Part::End);
                Place::Tail
            }
            None => Place::Arguments { depth, quoted, escaped },
        };
        end.is_some()
    }

    /// What is left at the end. A call that the limit cut is not told as text: its beginning was told, or nothing was
    /// known of it.
    pub(crate) fn finish(&mut self, cut: bool) -> Vec<Part> {
        let mut parts = Vec::new();
        let rest = std::mem::take(&mut self.pending);
        match self.place {
            Place::Thought => {
                let rest = rest.trim_end();
                if !rest.is_empty() {
                    parts.push(Part::Thought(rest.to_owned()));
                }
            }
            // Without its end it may be a whole call all the same: a stop text can be `</tool_call>`.
            Place::Head | Place::Buffered => {
                let whole = self.whole_call(&rest, &mut parts);
                if !whole && !cut {
                    parts.push(Part::Text(format!("{OPEN}{rest}")));
                }
            }
            // All that waits in a text with tools is the beginning of a call's mark.
            Place::Text if cut && self.format.tools => {}
            Place::Start | Place::Text if !rest.is_empty() => parts.push(Part::Text(rest)),
            _ => {}
        }
        parts
    }

    /// A call that was read as a whole.
    fn whole_call(&mut self, inside: &str, parts: &mut Vec<Part>) -> bool {
        let Ok(value) = serde_json::from_str::<Value>(inside) else { return false };
        let Some(name) = value["name"].as_str() else { return false };
        let arguments = match &value["arguments"] {
            Value::Null => "{}".to_owned(),
            other => other.to_string(),
        };
        let call = Part::Call { at: self.calls, name: name.to_owned() };
        parts.extend([call, Part::Arguments(arguments), Part::End]);
        self.calls += 1;
        true
    }

    fn after_call(&mut self) {
        self.trim_start();
        self.place = Place::Text;
    }

    fn trim_start(&mut self) {
        let blank = self.pending.len() - self.pending.trim_start().len();
        self.pending.drain(..blank);
    }

    /// Takes what stands before this mark, and the mark away.
    fn take_until(&mut self, mark: &str) -> Option<String> {
        let at = self.pending.find(mark)?;
        let rest = self.pending.split_off(at + mark.len());
        let mut before = std::mem::replace(&mut self.pending, rest);
        before.truncate(at);
        Some(before)
    }

    /// Bytes at the end that are the beginning of this mark.
    fn held(&self, mark: &str) -> usize {
        (1..mark.len()).rev().find(|&len| self.pending.ends_with(&mark[..len])).unwrap_or(0)
    }
}

/// The beginning of a call: `{"name": "NAME", "arguments": {`, as the grammar of calls lays it out.
#[derive(Debug, PartialEq)]
enum Head {
    /// More text is needed.
    Unknown,
    /// The name, and where the arguments begin.
    Known { name: String, len: usize },
    /// Something else.
    Other,
}

fn head(text: &str) -> Head {
    let mut rest = text;
    let mut name = None;
    for token in ["{", "\"name\"", ":", "NAME", ",", "\"arguments\"", ":"] {
        rest = rest.trim_start();
        if token == "NAME" {
            let Some(inside) = rest.strip_prefix('"') else {
                return if rest.is_empty() { Head::Unknown } else { Head::Other };
            };
            // Names have no escapes.
            let Some(end) = inside.find('"') else { return Head::Unknown };
            name = Some(&inside[..end]);
            rest = &inside[end + 1..];
        } else if let Some(after) = rest.strip_prefix(token) {
            rest = after;
        } else {
            return if token.starts_with(rest) { Head::Unknown } else { Head::Other };
        }
    }
    rest = rest.trim_start();
    match (rest.bytes().next(), name) {
        (None, _) => Head::Unknown,
        (Some(b'{'), Some(name)) if !name.contains('\\') => {
            Head::Known { name: name.to_owned(), len: text.len() - rest.len() }
        }
        _ => Head::Other,
    }
}

/// Splits a whole answer.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Spoken {
    pub(crate) thought: Option<String>,
    /// `None` where there are calls only.
    pub(crate) text: Option<String>,
    pub(crate) calls: Vec<Call>,
}

impl Spoken {
    /// `cut`: the limit ended it.
    pub(crate) fn of(format: Format, text: &str, cut: bool) -> Self {
        let mut parts = Parts::new(format);
        let mut list = parts.push(text);
        list.extend(parts.finish(cut));
        let mut all = Self::default();
        let mut said = String::new();
        for part in list {
            match part {
                Part::Thought(text) => all.thought.get_or_insert_default().push_str(&text),
                Part::Text(text) => said.push_str(&text),
                Part::Call { at, name } => {
                    all.calls.push(Call { at, name, arguments: String::new(), whole: false });
                }
                Part::Arguments(text) => {
                    all.calls.last_mut().into_iter().for_each(|call| call.arguments.push_str(&text));
                }
                Part::End => all.calls.last_mut().into_iter().for_each(|call| call.whole = true),
            }
        }
        all.text = match all.calls.is_empty() {
            true => Some(said),
            false => Some(said.trim().to_owned()).filter(|said| !said.is_empty()),
        };
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOOLS: Format = Format { tools: true, thoughts: Thoughts::Text };

    /// All parts, neighbours of one kind joined, from pieces of so many characters.
    fn parts(format: Format, text: &str, size: usize, cut: bool) -> Vec<Part> {
        let mut parts = Parts::new(format);
        let letters: Vec<char> = text.chars().collect();
        let mut list = Vec::new();
        for piece in letters.chunks(size) {
            list.extend(parts.push(&piece.iter().collect::<String>()));
        }
        list.extend(parts.finish(cut));
        let mut joined: Vec<Part> = Vec::new();
        for part in list {
            match (joined.last_mut(), part) {
                (Some(Part::Text(all)), Part::Text(more))
                | (Some(Part::Thought(all)), Part::Thought(more))
                | (Some(Part::Arguments(all)), Part::Arguments(more)) => all.push_str(&more),
                (_, part) => joined.push(part),
            }
        }
        joined
    }

    fn call(at: usize, name: &str, arguments: &str) -> [Part; 3] {
        [Part::Call { at, name: name.into() }, Part::Arguments(arguments.into()), Part::End]
    }

    fn text(text: &str) -> Part {
        Part::Text(text.into())
    }

    fn thought(text: &str) -> Part {
        Part::Thought(text.into())
    }

    #[test]
    fn calls_are_found_in_pieces_of_any_size() {
        for size in [1, 2, 7, 1000] {
            let parts = |text: &str| parts(TOOLS, text, size, false);
            assert_eq!(parts("a < b <tool> é"), [text("a < b <tool> é")]);
            let two = "Let me. <tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": \"}\\\"{\", \"y\": [{}]}}\n</tool_call>\n\
                       <tool_call>{\"name\":\"g\"}</tool_call>\n";
            let mut expected = vec![text("Let me. ")];
            expected.extend(call(0, "f", "{\"x\": \"}\\\"{\", \"y\": [{}]}"));
            expected.extend(call(1, "g", "{}"));
            assert_eq!(parts(two), expected);
            assert_eq!(parts("<tool_call>no</tool_call>"), [text("<tool_call>no</tool_call>")]);
            assert_eq!(parts("<tool_call>{\"na"), [text("<tool_call>{\"na")]);
            assert_eq!(parts("end <tool_c"), [text("end <tool_c")]);
            // A stop text took the end away.
            assert_eq!(parts("<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n"), call(0, "f", "{}"));
        }
    }

    #[test]
    fn arguments_are_told_while_they_are_written() {
        let mut parts = Parts::new(TOOLS);
        assert_eq!(parts.push("<tool_call>\n{\"name\": \"f\", \"arg"), []);
        assert_eq!(
            parts.push("uments\": {\"x\""),
            [Part::Call { at: 0, name: "f".into() }, Part::Arguments("{\"x\"".into())]
        );
        assert_eq!(parts.push(": 1"), [Part::Arguments(": 1".into())]);
        assert_eq!(parts.push("}}\n</tool"), [Part::Arguments("}".into()), Part::End]);
        assert_eq!(parts.push("_call>"), []);
        assert_eq!(parts.finish(false), []);
    }

    #[test]
    fn a_call_that_the_limit_cut_is_told_as_far_as_it_came() {
        for size in [1, 1000] {
            let parts = |text: &str| parts(TOOLS, text, size, true);
            assert_eq!(parts("Hm. <tool_call>\n{\"na"), [text("Hm. ")]);
            assert_eq!(parts("Hm. <t"), [text("Hm. ")]);
            let begun = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": \"a";
            assert_eq!(
                parts(begun),
                [Part::Call { at: 0, name: "f".into() }, Part::Arguments("{\"x\": \"a".into())]
            );
        }
        let begun = "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": ";
        let spoken = Spoken::of(TOOLS, begun, true);
        let call = Call { at: 0, name: "f".into(), arguments: "{\"x\": ".into(), whole: false };
        assert_eq!(spoken, Spoken { calls: vec![call], ..Spoken::default() });
    }

    #[test]
    fn thoughts_are_told_from_what_is_said() {
        for size in [1, 3, 1000] {
            let marked =
                |text: &str| parts(Format { tools: true, thoughts: Thoughts::Marked }, text, size, false);
            assert_eq!(
                marked("\n<think>\nLet me\nsee.\n</think>\n\nHello"),
                [thought("Let me\nsee."), text("Hello")]
            );
            assert_eq!(marked("<think></think>Hi <think>"), [text("Hi <think>")]);
            assert_eq!(marked("Hello </think>"), [text("Hello </think>")]);
            assert_eq!(marked("<thinking"), [text("<thinking")]);
            assert_eq!(marked("<thi"), [text("<thi")]);
            assert_eq!(marked("<think>No end \n"), [thought("No end")]);
            let mut expected = vec![thought("So")];
            expected.extend(call(0, "f", "{}"));
            let called = "<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>";
            assert_eq!(marked(&format!("<think>So</think>\n{called}")), expected);
            assert_eq!(marked(&format!("<think>So\n{called}")), expected, "thoughts end where a call begins");
            let open = Format { tools: false, thoughts: Thoughts::Open };
            assert_eq!(parts(open, "Hm.\n</think>\nYes", size, false), [thought("Hm."), text("Yes")]);
            let plain = Format::default();
            assert_eq!(parts(plain, "<think>a</think>", size, false), [text("<think>a</think>")]);
        }
    }
}
