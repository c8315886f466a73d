//! Conversations as ids: what the template writes may steer the model, what people wrote may not.
//!
//! A template turns messages into one text, and only afterwards it can be seen where special tokens stand. So the
//! contents are made inert before: a character that occurs nowhere else goes into everything in them that could be
//! (part of) a special token's name, and is taken out again once the special tokens have been found.

use super::Tokenizer;
use crate::template::{Message, Template};
use crate::{Error, Result};

impl Tokenizer {
    /// The ids of a conversation in the model's own format, ready for the assistant's next words. Special tokens
    /// come from the template only: names of such tokens in the messages are plain text. What the model puts before
    /// every text is there once, whether or not the template writes it.
    ///
    /// With `continue_last` the last message is not finished: the ids end where its content ends.
    pub fn encode_chat(&self, messages: &[Message], continue_last: bool) -> Result<Vec<u32>> {
        self.encode_rendered(messages, |template, inert| match inert.split_last().filter(|_| continue_last) {
            Some((last, before)) if last.content.trim().is_empty() => template.render(before, true),
            Some((last, _)) => {
                let mut text = template.render(inert, false)?;
                let end = [last.content.as_str(), last.content.trim_end(), last.content.trim()]
                    .iter()
                    .find_map(|content| text.rfind(content).map(|at| at + content.len()));
                let end = end.ok_or_else(|| {
                    Error::Template("it rewrites the last message, so it cannot be continued".to_owned())
                })?;
                text.truncate(end);
                Ok(text)
            }
            None => template.render(inert, true),
        })
    }

    /// What `render` makes of the messages, with contents that cannot steer.
    fn encode_rendered(
        &self,
        messages: &[Message],
        render: impl FnOnce(&Template, &[Message]) -> Result<String>,
    ) -> Result<Vec<u32>> {
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

        let inert = |m: &Message| {
            Ok(Message {
                role: self.inert(&m.role, mark, false)?,
                content: self.inert(&m.content, mark, true)?,
            })
        };
        let inert: Vec<Message> = messages.iter().map(inert).collect::<Result<_>>()?;
        let text = render(template, &inert)?;

        let mut ids = Vec::new();
        self.encode_marked(&text, true, Some(mark), &mut ids)?;
        if !ids.starts_with(&self.before) {
            ids.splice(..0, self.before.iter().copied());
        }
        Ok(ids)
    }

    /// The ids of finished turns as [`Tokenizer::encode_chat`] has them, without the beginning of another one: what a
    /// model is trained on.
    pub fn encode_turns(&self, messages: &[Message]) -> Result<Vec<u32>> {
        self.encode_rendered(messages, |template, inert| template.render(inert, false))
    }

    /// The content with the mark wherever a special token's name stands, begins at the end, ends at the beginning,
    /// or (`inside`) could have all of the content inside it: wherever the template's text might complete one. Roles
    /// may stand inside a name: `<|user|>` is made of one.
    fn inert(&self, content: &str, mark: char, inside: bool) -> Result<String> {
        let first_char = |text: &str| text.chars().next().map_or(0, char::len_utf8);
        // A mark behind the first character breaks the name, and whatever other name begins there.
        let mut marks: Vec<usize> =
            self.added.special_names(content).into_iter().map(|at| at + first_char(&content[at..])).collect();
        // Templates trim contents, so the borders are those of the trimmed text too.
        let start = content.len() - content.trim_start().len();
        let end = content.trim_end().len().max(start);
        let core = &content[start..end];
        for token in self.added.specials() {
            let name = token.content.as_str();
            let first = first_char(name);
            if first == name.len() && content.contains(name) {
                return Err(Error::Input(format!(
                    "a message contains `{}`, which is a special token of one character",
                    crate::error::quoted(name)
                )));
            }
            for (cut, _) in name.char_indices().skip(1) {
                let (head, tail) = name.split_at(cut);
                marks.extend(
                    [end, content.len()]
                        .iter()
                        .filter(|&&end| content[..end].ends_with(head))
                        .map(|end| end - head.len() + first),
                );
                marks.extend([start, 0].iter().filter(|&&start| content[start..].starts_with(tail)));
            }
            if inside && !core.is_empty() && name.len() > core.len() && name.contains(core) {
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
        Ok(inert + &content[from..])
    }
}

#[cfg(test)]
mod tests {
    use super::super::added::{Added, AddedToken};
    use super::super::bpe::{Bpe, Rules, Unit};
    use super::super::{Cut, Normal, Script, vocabulary::Vocabulary};
    use super::*;
    use proptest::prelude::*;

    /// Bytes as tokens, and some special ones whose names overlap.
    fn tokenizer(template: &str) -> Tokenizer {
        let mut vocabulary = Vocabulary::with_capacity(256);
        for byte in 0..=255u8 {
            vocabulary.insert(byte.into(), &[byte]).unwrap();
        }
        let names = ["<s>", "<|e|>", "<|", "e|><s", "<|<|e|>", "<|x|>"];
        let specials = (300..).zip(names).map(|(id, name)| AddedToken::new(id, name, true)).collect();
        let bpe = Bpe::new(vocabulary, Rules::Pieces(vec![u32::MAX; 256]), Unit::Byte, false);
        let added = Added::new(specials, |text| Ok(text.to_owned())).unwrap();
        let mut tokenizer = Tokenizer::new(bpe, added, Normal::default(), Cut::default(), Script::Bytes);
        tokenizer.template = Some(crate::Template::new(template, "<s>", "").unwrap());
        tokenizer.beginning_with(vec![300])
    }

    fn message(content: &str) -> Message {
        Message { role: "user".to_owned(), content: content.to_owned() }
    }

    #[test]
    fn the_bos_is_there_once() {
        for template in ["{{ messages[0].content }}", "{{ bos_token }}{{ messages[0].content }}"] {
            assert_eq!(tokenizer(template).encode_chat(&[message("x")], false).unwrap(), [300, 120]);
        }
    }

    #[test]
    fn an_unfinished_answer_ends_where_it_ends() {
        let t = tokenizer("{% for m in messages %}{{ m.role[0] + m.content | trim }}<|e|>{% endfor %}");
        let answer = Message { role: "assistant".to_owned(), content: " b<|e|> ".to_owned() };
        let ids = t.encode_chat(&[message("a"), answer], true).unwrap();
        assert_eq!(t.decode(&ids, true), "<s>ua<|e|>ab<|e|>");
        assert_eq!(ids.iter().filter(|&&id| id == 301).count(), 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn contents_never_become_special_tokens(a in "[<|e>s x]{0,12}", b in "[<|e>s x]{0,12}") {
            // The template completes names on both sides of both contents.
            let source = "<|{{ messages[0].content | trim }}|>{{ messages[1].content }}e|>\
                          {{ messages[0].content }}{{ messages[1].content | trim }}<s>";
            let t = tokenizer(source);
            let ids = t.encode_chat(&[message(&a), message(&b)], false).unwrap();
            let text = t.decode(&ids, true);
            let expected = format!("<s><|{}|>{b}e|>{a}{}<s>", a.trim(), b.trim());
            prop_assert_eq!(text, expected);
            let specials: Vec<u32> = ids.into_iter().filter(|&id| id >= 300).collect();
            // The BOS, `<|` at the start and `<s>` at the end are the template's; no other is. With nothing between
            // them, its own `e|>` and `<s>` make another.
            let last = if a.is_empty() && b.trim().is_empty() { 303 } else { 300 };
            prop_assert_eq!(specials, [300, 302, last]);
        }
    }
}
