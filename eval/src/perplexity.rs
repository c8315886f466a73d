//! How a long text is cut into windows, and which tokens of each are scored: the two conventions of the field.

use std::ops::Range;

use tern::{Error, Result};

/// A convention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Convention {
    /// llama.cpp's: chunks that do not overlap, the first half of each is only read. Where the tokenizer begins texts
    /// with a token, every chunk's first token is replaced by it.
    Chunks,
    /// Hugging Face's: windows that begin every so many tokens; of each, the tokens that no window before it scored.
    Sliding {
        /// Tokens from the beginning of one window to that of the next.
        stride: usize,
    },
}

/// Tokens that go through the model together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Of the whole text.
    pub tokens: Range<usize>,
    /// The first of them that is scored, counted from the window's own beginning; at least 1.
    pub from: usize,
    /// Whether the first is replaced by the token that begins texts.
    pub begins: bool,
}

impl Window {
    /// Its tokens, out of the whole text's; `bos` is the token that begins texts, where there is one.
    pub fn of(&self, ids: &[u32], bos: Option<u32>) -> Vec<u32> {
        let mut tokens = ids[self.tokens.clone()].to_vec();
        if let Some(bos) = bos.filter(|_| self.begins) {
            tokens[0] = bos;
        }
        tokens
    }
}

impl Convention {
    /// The windows of a text of `tokens` tokens, each of at most `context`.
    pub fn windows(self, tokens: usize, context: usize, begins: bool) -> Result<Vec<Window>> {
        if context < 2 {
            return Err(Error::Input(format!("a window of {context}: expected at least 2 tokens")));
        }
        let windows: Vec<Window> = match self {
            Self::Chunks => (0..tokens / context)
                .map(|nth| Window {
                    tokens: nth * context..(nth + 1) * context,
                    from: context / 2 + 1,
                    begins,
                })
                .filter(|window| window.from < context)
                .collect(),
            Self::Sliding { stride } => {
                if stride == 0 || stride > context {
                    return Err(Error::Input(format!(
                        "a stride of {stride}: expected 1 to {context}, the window"
                    )));
                }
                let mut windows = Vec::new();
                let mut scored = 1; // nothing predicts the first token
                for start in (0..tokens).step_by(stride) {
                    let end = tokens.min(start + context);
                    // Only what no window before scored, and never a window's first token: nothing predicts it.
                    let from = scored.max(start + 1);
                    if from < end {
                        windows.push(Window { tokens: start..end, from: from - start, begins: false });
                        scored = end;
                    }
                    if end == tokens {
                        break;
                    }
                }
                windows
            }
        };
        if windows.is_empty() {
            let what = format!("{tokens} tokens are too few for a window of {context}");
            return Err(Error::Input(what));
        }
        Ok(windows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_score_their_second_halves_and_drop_the_rest() {
        let windows = Convention::Chunks.windows(17, 8, true).unwrap();
        assert_eq!(windows.len(), 2);
        assert_eq!(windows[1], Window { tokens: 8..16, from: 5, begins: true });
        Convention::Chunks.windows(7, 8, true).unwrap_err();
    }

    #[test]
    fn sliding_windows_score_every_token_but_the_first_once() {
        for (tokens, context, stride) in
            [(17, 8, 3), (8, 8, 8), (9, 8, 8), (5, 8, 2), (100, 10, 1), (64, 16, 16)]
        {
            let mut times = vec![0; tokens];
            for window in (Convention::Sliding { stride }).windows(tokens, context, true).unwrap() {
                assert!(
                    window.from >= 1 && window.tokens.len() <= context && window.from < window.tokens.len()
                );
                window.tokens.skip(window.from).for_each(|at| times[at] += 1);
            }
            // Where windows do not overlap, nothing predicts the first token of each.
            let missed = |at: &usize| *at == 0 || (stride == context && at.is_multiple_of(context));
            let want: Vec<i32> = (0..tokens).map(|at| i32::from(!missed(&at))).collect();
            assert_eq!(times, want, "{tokens} {context} {stride}");
        }
        (Convention::Sliding { stride: 0 }).windows(9, 8, true).unwrap_err();
        (Convention::Sliding { stride: 9 }).windows(9, 8, true).unwrap_err();
    }
}
