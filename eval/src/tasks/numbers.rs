//! The number that an answer comes to.

/// The number after the last `####`, without what only decorates it.
pub(super) fn strict_number(text: &str) -> Option<String> {
    let after = text.split("####").nth(1)?;
    let number: String =
        after.trim_start().chars().take_while(|c| c.is_ascii_digit() || "-.,$".contains(*c)).collect();
    tidy(&number)
}

/// The last number of a text.
pub(super) fn last_number(text: &str) -> Option<String> {
    let part_of = |c: char| c.is_ascii_digit() || c == '.' || c == ',';
    let mut found = None;
    let mut start = None;
    let mut before = ' ';
    for (at, c) in text.char_indices().chain([(text.len(), ' ')]) {
        if part_of(c) {
            start.get_or_insert(if before == '-' { at - 1 } else { at });
        } else if let Some(from) = start.take() {
            found = tidy(&text[from..at]).or(found);
        }
        before = c;
    }
    found
}

/// Digits with sign and decimals only; `None` if there are none.
fn tidy(number: &str) -> Option<String> {
    let kept: String = number.chars().filter(|c| !",$".contains(*c)).collect();
    let kept = kept.trim_end_matches('.');
    // 18 and 18.00 are the same answer.
    let kept = if kept.contains('.') { kept.trim_end_matches('0').trim_end_matches('.') } else { kept };
    kept.contains(|c: char| c.is_ascii_digit()).then(|| kept.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_and_tidied() {
        for (text, strict, last) in [
            ("so 9*2 = $<<9*2=18>>18.\n#### 18", Some("18"), Some("18")),
            ("#### $1,234.50 done", Some("1234.5"), Some("1234.5")),
            ("#### -7", Some("-7"), Some("-7")),
            ("it is 12. Or 13.", None, Some("13")),
            ("none at all", None, None),
            ("#### soon 4", None, Some("4")),
            ("18.00", None, Some("18")),
            ("a, b. c 5-3", None, Some("-3")),
        ] {
            assert_eq!(strict_number(text).as_deref(), strict, "{text}");
            assert_eq!(last_number(text).as_deref(), last, "{text}");
        }
    }
}
