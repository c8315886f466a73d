//! Conversations as ids: what the template writes may steer the model, what people wrote may not.
//!
//! A template turns messages into one text, and only afterwards it can be seen where special tokens stand. So the
//! contents are made inert before: a character that occurs nowhere else goes into everything in them that could be
//! (part of) a special token's name, and is taken out again once the special tokens have been found.

use super::Tokenizer;
use crate::template::Message;
use crate::{Error, Result};

impl Tokenizer {
    /// The ids of a conversation in the model's own format, ready for the assistant's next words. Special tokens
    /// come from the template only: names of such tokens in the messages are plain text. What the model puts before
    /// every text is there once, whether or not the template writes it.
    ///
    /// With `continue_last` the last message is not finished: the ids end where its content ends.
    pub fn encode_chat(&self, messages: &[Message], continue_last: bool) -> Result<Vec<u32>> {
        let template = self.template().ok_or_else(|| Error::Template("the model has none".to_owned()))?;
        let texts = || messages.iter().flat_map(|m| [m.role.as_str(), m.content.as_str()]);
        let taken = |mark: &char| {
            template.source().contains(*mark)
                || texts().any(|text| text.contains(*mark))
                || self.added.specials().any(|token| token.content.contains(*mark))
        };
        // Characters that no text should hold: the noncharacters, then private use.
        let mark = ('\u{FDD0}'..='\u{FDEF}').chain('\u{F0000}'..='\u{F00FF}').find(|mark| !taken(mark));
        let mark = mark.ok_or_else(|| Error::Input("the messages hold every noncharacter".to_owned()))?;

        let inert: Vec<Message> = messages
            .iter()
            .map(|m| Message { role: m.role.clone(), content: self.inert(&m.content, mark) })
            .collect();
        let text = match inert.split_last().filter(|_| continue_last) {
            Some((last, before)) if last.content.trim().is_empty() => template.render(before, true)?,
            Some((last, _)) => {
                let mut text = template.render(&inert, false)?;
                let end = [last.content.as_str(), last.content.trim_end(), last.content.trim()]
                    .iter()
                    .find_map(|content| text.rfind(content).map(|at| at + content.len()));
                let end = end.ok_or_else(|| {
                    Error::Template("it rewrites the last message, so it cannot be continued".to_owned())
                })?;
                text.truncate(end);
                text
            }
            None => template.render(&inert, true)?,
        };

        let mut ids = Vec::new();
        self.encode_marked(&text, true, Some(mark), &mut ids)?;
        if !ids.starts_with(&self.before) {
            ids.splice(..0, self.before.iter().copied());
        }
        Ok(ids)
    }

    /// The content with the mark wherever a special token's name stands, begins at the end, ends at the beginning,
    /// or could have all of the content inside it: wherever the template's text might complete one.
    fn inert(&self, content: &str, mark: char) -> String {
        // Templates trim contents, so the borders are those of the trimmed text.
        let start = content.len() - content.trim_start().len();
        let end = content.trim_end().len().max(start);
        let core = &content[start..end];
        let mut marks = Vec::new();
        for token in self.added.specials() {
            let name = token.content.as_str();
            let first = name.chars().next().map_or(0, char::len_utf8);
            let mut from = 0;
            while let Some(at) = content[from..].find(name) {
                marks.push(from + at + first);
                from += at + first;
            }
            for (cut, _) in name.char_indices().skip(1) {
                let (head, tail) = name.split_at(cut);
                for (text, end) in [(core, end), (content, content.len())] {
                    if text.ends_with(head) {
                        // In the middle of the name's beginning, or right behind it.
                        marks.push(end - head.len() + first);
                    }
                }
                if core.starts_with(tail) {
                    marks.push(start);
                }
                if content.starts_with(tail) {
                    marks.push(0);
                }
            }
            if !core.is_empty() && name.len() > core.len() && name.contains(core) {
                marks.push(start);
            }
        }
        marks.sort_unstable();
        marks.dedup();
        let mut inert = String::with_capacity(content.len() + marks.len() * mark.len_utf8());
        let mut from = 0;
        for at in marks {
            inert.push_str(&content[from..at]);
            inert.push(mark);
            from = at;
        }
        inert + &content[from..]
    }
}
