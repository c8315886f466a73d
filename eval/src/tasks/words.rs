//! Words, sentences and paragraphs, as IFEval's rules count them.

/// Runs of letters, digits and underscores: what `\w+` finds.
pub(super) fn words(text: &str) -> Vec<&str> {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty()).collect()
}

/// Sentences: a mark that ends one, then space and something that begins one. Abbreviations and initials end none.
pub(super) fn sentences(text: &str) -> usize {
    const SHORT: [&str; 19] = [
        "mr", "mrs", "ms", "dr", "prof", "st", "jr", "sr", "vs", "etc", "e.g", "i.e", "inc", "ltd", "co",
        "no", "fig", "p.m", "a.m",
    ];
    let chars: Vec<char> = text.chars().collect();
    let (mut count, mut said) = (0, false);
    for (at, &c) in chars.iter().enumerate() {
        said |= c.is_alphanumeric();
        let next = chars.get(at + 1).copied().unwrap_or(' ');
        if !said || !".!?。！？".contains(c) || !(next.is_whitespace() || "\"'”’)".contains(next)) {
            continue;
        }
        let word: String = chars[..at]
            .iter()
            .rev()
            .take_while(|c| !c.is_whitespace())
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .collect();
        let word = word.trim_start_matches(['(', '"', '\'']).to_lowercase();
        let initial = word.chars().count() == 1 && word.chars().all(char::is_alphabetic) && word != "i";
        if c == '.' && (SHORT.contains(&word.as_str()) || initial) && at + 1 < chars.len() {
            continue;
        }
        (count, said) = (count + 1, false);
    }
    count + usize::from(said)
}

/// How often a word or phrase occurs, whatever its case.
pub(super) fn occurrences(text: &str, phrase: &str) -> usize {
    let (text, phrase) = (text.to_lowercase(), phrase.to_lowercase());
    if phrase.is_empty() { 0 } else { text.matches(&phrase).count() }
}

/// Whether a text holds this word as a whole word, in any case.
pub(super) fn has_word(text: &str, word: &str) -> bool {
    let (text, word) = (text.to_lowercase(), word.to_lowercase());
    let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    text.match_indices(&word).any(|(at, found)| {
        !part(text[..at].chars().next_back()) && !part(text[at + found.len()..].chars().next())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_end_where_people_end_them() {
        for (text, count) in [
            ("One. Two! Three?", 3),
            ("Dr. Who met J. Smith at 5 p.m. today. It was 3.5 miles.", 2),
            ("no mark at the end", 1),
            ("", 0),
            ("He said \"go.\" Then he went.", 2),
            ("Wait... what?", 2),
        ] {
            assert_eq!(sentences(text), count, "{text}");
        }
    }

    #[test]
    fn words_stand_by_themselves() {
        assert_eq!(words("it's a_b 3.5!"), ["it", "s", "a_b", "3", "5"]);
        assert!(has_word("A Cat sat", "cat") && !has_word("concatenate", "cat"));
        assert_eq!(occurrences("Cat concat", "cat"), 2);
    }
}
