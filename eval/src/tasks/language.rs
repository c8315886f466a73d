//! Which language a text is in, as far as IFEval's rule needs it: by script, and within a script by letters and little
//! words. Rough where languages share a script; a text of a few words may be told wrongly.

/// Scripts that belong to one language of the rule.
const SCRIPTS: [(&str, std::ops::RangeInclusive<char>); 8] = [
    ("kn", '\u{c80}'..='\u{cff}'),
    ("te", '\u{c00}'..='\u{c7f}'),
    ("ta", '\u{b80}'..='\u{bff}'),
    ("pa", '\u{a00}'..='\u{a7f}'),
    ("bn", '\u{980}'..='\u{9ff}'),
    ("gu", '\u{a80}'..='\u{aff}'),
    ("th", '\u{e00}'..='\u{e7f}'),
    ("ko", '\u{ac00}'..='\u{d7a3}'),
];

/// Little words that a language cannot do without and its neighbours in the same script lack.
const LITTLE: [(&str, &[&str]); 16] = [
    ("en", &["the", "and", "of", "to", "is", "that", "it", "with", "for", "are"]),
    ("de", &["der", "die", "und", "das", "ist", "nicht", "ein", "eine", "mit", "zu"]),
    ("it", &["il", "di", "che", "è", "e", "la", "non", "per", "un", "una"]),
    ("pt", &["o", "de", "que", "não", "e", "um", "uma", "do", "da", "com"]),
    ("es", &["el", "de", "que", "los", "y", "en", "una", "por", "con", "las"]),
    ("fr", &["le", "les", "et", "des", "est", "une", "dans", "que", "pas", "du"]),
    ("fi", &["ja", "on", "ei", "että", "se", "oli", "hän", "mutta", "kun", "ovat"]),
    ("vi", &["và", "của", "là", "một", "không", "có", "cho", "được", "người", "trong"]),
    ("sw", &["na", "ya", "wa", "kwa", "ni", "katika", "za", "la", "hii", "kuwa"]),
    ("ru", &["и", "в", "не", "на", "что", "он", "это", "с", "как", "но"]),
    ("bg", &["и", "на", "да", "се", "за", "не", "от", "е", "са", "че"]),
    ("hi", &["है", "और", "के", "में", "की", "से", "को", "का", "हैं", "नहीं"]),
    ("mr", &["आहे", "आणि", "च्या", "मध्ये", "हे", "नाही", "ते", "या", "आहेत", "एक"]),
    ("ne", &["छ", "र", "को", "मा", "हो", "छन्", "यो", "गर्न", "पनि", "लागि"]),
    ("ar", &["في", "من", "على", "إلى", "أن", "هذا", "التي", "عن", "مع", "هو"]),
    ("fa", &["و", "در", "به", "از", "که", "این", "را", "است", "با", "برای"]),
];

/// The ISO 639-1 code of a text's language; `None` where nothing points to one that is known here.
pub(super) fn of(text: &str) -> Option<&'static str> {
    let letters = text.chars().filter(|c| c.is_alphabetic()).count();
    for (language, range) in &SCRIPTS {
        if text.chars().filter(|c| range.contains(c)).count() * 2 > letters.max(1) {
            return Some(language);
        }
    }
    let lower = text.to_lowercase();
    // Urdu's own letters, in no other language here.
    let arabic = lower.chars().filter(|c| ('\u{600}'..='\u{6ff}').contains(c)).count();
    if arabic * 2 > letters.max(1) && lower.chars().filter(|c| "ٹڈڑںےۓھ".contains(*c)).count() * 50 > arabic
    {
        return Some("ur");
    }
    let words: Vec<&str> =
        lower.split(|c: char| c.is_whitespace() || c.is_ascii_punctuation() || "।،".contains(c)).collect();
    let count = |(_, little): &(&str, &[&str])| words.iter().filter(|word| little.contains(word)).count();
    LITTLE
        .iter()
        .map(|entry| (count(entry), entry.0))
        .filter(|(n, _)| *n > 0)
        .fold(
            None,
            |best: Option<(usize, &'static str)>, next| {
                if best.is_none_or(|best| next.0 > best.0) { Some(next) } else { best }
            },
        )
        .map(|(_, language)| language)
}

/// Whether the rule's language can be told here.
pub(super) fn is_known(code: &str) -> bool {
    code == "ur"
        || SCRIPTS.iter().any(|(name, _)| *name == code)
        || LITTLE.iter().any(|(name, _)| *name == code)
}

#[cfg(test)]
mod tests {
    #[test]
    fn languages_are_told_apart() {
        for (text, code) in [
            ("The cat and the dog are friends of mine.", "en"),
            ("Der Hund ist nicht mit der Katze zu sehen.", "de"),
            ("यह एक अच्छी किताब है और मैं इसे पढ़ता हूँ।", "hi"),
            ("हे पुस्तक चांगले आहे आणि मी ते वाचतो", "mr"),
            ("Это книга, и он не читал её.", "ru"),
            ("Това е книга и аз не съм я чел, но ще се прочете от мен.", "bg"),
            ("یہ ایک اچھی کتاب ہے اور میں اسے پڑھتا ہوں", "ur"),
            ("این کتاب خوب است و من آن را به او دادم", "fa"),
            ("이것은 책입니다", "ko"),
        ] {
            assert_eq!(super::of(text), Some(code), "{text}");
        }
        assert_eq!(super::of("12345"), None);
    }
}
