//! How large a regular expression is once its repetitions are written out.

use regex_syntax::ast::{self, Ast, RepetitionKind, RepetitionRange, Visitor};

use crate::limits::{REGEX_REPEATS, REGEX_SIZE, at_most};

/// What cannot be parsed is told by the compiler.
pub(super) fn check(text: &str) -> Result<(), String> {
    at_most(16 * REGEX_SIZE, text.len(), "bytes in a regular expression")?;
    let Ok(parsed) = ast::parse::ParserBuilder::new().nest_limit(100).build().parse(text) else {
        return Ok(());
    };
    let Size { sizes, repeats } = ast::visit(&parsed, Size { sizes: vec![0], repeats: 0 })?;
    at_most(REGEX_REPEATS, repeats, "repetitions in a regular expression")?;
    at_most(
        REGEX_SIZE,
        sizes.first().copied().unwrap_or(0),
        "characters in a regular expression with its repetitions",
    )
}

/// Adds up sizes from the leaves; one for each level that is open.
struct Size {
    sizes: Vec<usize>,
    repeats: usize,
}

impl Visitor for Size {
    type Output = Self;
    type Err = String;

    fn finish(self) -> Result<Self, String> {
        Ok(self)
    }

    fn visit_pre(&mut self, ast: &Ast) -> Result<(), String> {
        if matches!(ast, Ast::Repetition(_)) {
            self.repeats += 1;
            self.sizes.push(0);
        }
        Ok(())
    }

    fn visit_post(&mut self, ast: &Ast) -> Result<(), String> {
        let size = match ast {
            Ast::Repetition(repetition) => {
                let inner = self.sizes.pop().unwrap_or(0);
                let times = match &repetition.op.kind {
                    RepetitionKind::Range(
                        RepetitionRange::Exactly(times)
                        | RepetitionRange::AtLeast(times)
                        | RepetitionRange::Bounded(_, times),
                    ) => *times as usize,
                    _ => 1,
                };
                inner.saturating_mul(times.max(1)).saturating_add(1)
            }
            Ast::Literal(_) | Ast::Dot(_) => 1,
            // A class of Unicode is a tree of bytes.
            Ast::ClassUnicode(_) | Ast::ClassPerl(_) => 8,
            Ast::ClassBracketed(_) => 4,
            _ => 0,
        };
        if let Some(open) = self.sizes.last_mut() {
            *open = open.saturating_add(size);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_multiply() {
        for good in ["", "a{100}", "(a{30}){30}", "[a-z]*(x|y)+z?", "(", "^[\\w.+-]+@[\\w-]+\\.[a-z]{2,24}$"]
        {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for (bad, what) in [
            ("a{20001}".to_owned(), "20002"),
            ("(a{200}){200}".to_owned(), "40201"),
            ("(((((a{100}){100}){100}){100}){100}){100}".to_owned(), "characters"),
            (
                "((((((((((a{999}){999}){999}){999}){999}){999}){999}){999}){999}){999})".to_owned(),
                "characters",
            ),
            ("a?".repeat(2000), "found 2000"),
            ("a".repeat(20_001), "found 20001"),
        ] {
            let refusal = check(&bad).unwrap_err();
            assert!(refusal.contains(what), "{bad:.40}: {refusal}");
        }
    }
}
