//! Lines that end between words: a terminal by itself breaks them wherever its edge is.

use unicode_width::UnicodeWidthChar;

/// Where text on its way to a terminal stands. A word is held back until it has ended, because only then its line is
/// known; a word that no line can hold goes out as it is.
#[derive(Debug, Default)]
pub(crate) struct Wrap {
    /// Columns of the line that are written.
    column: usize,
    /// Spaces before the word, which a line's end swallows.
    spaces: String,
    word: String,
    width: usize,
}

impl Wrap {
    /// What can be shown once `text` has come, on a terminal of so many columns.
    pub(crate) fn push(&mut self, text: &str, columns: usize) -> String {
        let mut out = String::new();
        for c in text.chars() {
            match c {
                '\n' => {
                    self.place(&mut out, columns);
                    self.spaces.clear();
                    self.column = 0;
                    out.push('\n');
                }
                ' ' | '\t' => {
                    self.place(&mut out, columns);
                    self.spaces.push(c);
                }
                c => {
                    let width = c.width().unwrap_or(0);
                    // Chinese, Japanese and Korean have no spaces: a line may end before and after each of their letters.
                    if width == 2 {
                        self.place(&mut out, columns);
                    }
                    self.word.push(c);
                    self.width += width;
                    if width == 2 || self.width >= columns {
                        self.place(&mut out, columns);
                    }
                }
            }
        }
        out
    }

    /// A command to the terminal, which takes no room.
    pub(crate) fn command(&mut self, command: &str) {
        self.word.push_str(command);
    }

    /// What is held back.
    pub(crate) fn finish(&mut self, columns: usize) -> String {
        let mut out = String::new();
        self.place(&mut out, columns);
        out.push_str(&std::mem::take(&mut self.spaces));
        out
    }

    fn place(&mut self, out: &mut String, columns: usize) {
        if self.word.is_empty() {
            return;
        }
        let spaces = self.spaces.chars().fold(0, |at, c| match c {
            '\t' => at + 8 - (self.column + at) % 8,
            _ => at + 1,
        });
        if self.column > 0 && self.width > 0 && self.column + spaces + self.width > columns {
            out.push('\n');
            self.column = 0;
        } else {
            out.push_str(&self.spaces);
            self.column += spaces;
        }
        out.push_str(&self.word);
        self.column += self.width;
        self.spaces.clear();
        self.word.clear();
        self.width = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wrapped(pieces: &[&str], columns: usize) -> String {
        let mut wrap = Wrap::default();
        let mut out: String = pieces.iter().map(|piece| wrap.push(piece, columns)).collect();
        out.push_str(&wrap.finish(columns));
        out
    }

    #[test]
    fn lines_end_between_words_however_the_text_comes() {
        let expected = "a little\nbird sang\nloudly";
        assert_eq!(wrapped(&["a little bird sang loudly"], 9), expected);
        assert_eq!(wrapped(&["a lit", "tle b", "ird", " sang", " ", "loud", "ly"], 9), expected);
    }

    #[test]
    fn lines_and_indents_of_the_text_stay() {
        assert_eq!(wrapped(&["a\n\n    b = 1\n", "c  d "], 20), "a\n\n    b = 1\nc  d ");
        assert_eq!(wrapped(&["ab\tc def"], 9), "ab\tc\ndef");
    }

    #[test]
    fn a_word_longer_than_a_line_and_a_script_without_spaces_are_broken() {
        assert_eq!(wrapped(&["x abcdefgh y"], 4), "x\nabcd\nefgh\ny");
        assert_eq!(wrapped(&["一二三四五"], 5), "一二\n三四\n五");
    }

    #[test]
    fn commands_take_no_room() {
        let mut wrap = Wrap::default();
        let mut out = wrap.push("Once upon", 12);
        wrap.command("\x1b[0m");
        out += &(wrap.push(", a b", 12) + &wrap.finish(12));
        assert_eq!(out, "Once upon\x1b[0m, a\nb");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn nothing_but_spaces_is_lost_and_no_line_is_too_long(
            pieces in proptest::collection::vec("[a-d \n一]{0,9}", 0..9), columns in 2usize..20
        ) {
            let text = pieces.concat();
            let out = wrapped(&pieces.iter().map(String::as_str).collect::<Vec<_>>(), columns);
            let bare = |text: &str| text.replace([' ', '\n'], "");
            prop_assert_eq!(bare(&out), bare(&text));
            for line in out.lines() {
                let line = line.trim_end_matches(' ');
                let width: usize = line.chars().filter_map(UnicodeWidthChar::width).sum();
                let indent = line.len() - line.trim_start_matches(' ').len();
                prop_assert!(width <= columns || indent > 0, "{line:?} on {columns}");
            }
        }
    }
}
