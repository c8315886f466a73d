//! Ids become text here, and the text ends where a stop text begins.

use std::collections::VecDeque;

use tern::{Decoder, Scored};

/// Text on its way out. What could be the beginning of a stop text waits until it is known, and tokens wait with
/// their text.
pub(crate) struct Stops<'m> {
    decoder: Option<Decoder<'m>>,
    stops: Vec<String>,
    pending: String,
    /// Where each waiting token's text begins in `pending`.
    tokens: VecDeque<(usize, Scored)>,
}

/// What can be sent.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Ripe {
    pub(crate) text: String,
    pub(crate) tokens: Vec<Scored>,
    /// The stop text that was reached: nothing comes after.
    pub(crate) stop: Option<String>,
}

impl<'m> Stops<'m> {
    /// Without a decoder (a model without a tokenizer) there is no text, and tokens pass at once.
    pub(crate) fn new(decoder: Option<Decoder<'m>>, stops: Vec<String>) -> Self {
        Self { decoder, stops, pending: String::new(), tokens: VecDeque::new() }
    }

    pub(crate) fn push(&mut self, token: Scored) -> Ripe {
        let at = self.pending.len();
        let piece = self.decoder.as_mut().and_then(|decoder| decoder.push(token.id));
        self.tokens.push_back((at, token));
        if let Some(piece) = piece {
            self.pending.push_str(&piece);
        }
        self.ripe(false)
    }

    /// The rest, when no token comes any more.
    pub(crate) fn finish(&mut self) -> Ripe {
        if let Some(decoder) = self.decoder.take() {
            self.pending.push_str(&decoder.finish());
        }
        self.ripe(true)
    }

    fn ripe(&mut self, last: bool) -> Ripe {
        let found =
            self.stops.iter().filter_map(|stop| Some((self.pending.find(stop.as_str())?, stop))).min();
        if let Some((at, stop)) = found {
            let stop = Some(stop.clone());
            self.pending.truncate(at);
            let tokens =
                self.tokens.drain(..).filter(|(from, _)| *from < at).map(|(_, token)| token).collect();
            return Ripe { text: std::mem::take(&mut self.pending), tokens, stop };
        }
        let held = if last { 0 } else { self.held() };
        let out = self.pending.len() - held;
        let text: String = self.pending.drain(..out).collect();
        let mut tokens = Vec::new();
        while self.tokens.front().is_some_and(|(from, _)| held == 0 || *from < out) {
            tokens.extend(self.tokens.pop_front().map(|(_, token)| token));
        }
        for (from, _) in &mut self.tokens {
            *from -= out;
        }
        Ripe { text, tokens, stop: None }
    }

    /// Bytes at the end that are the beginning of a stop text.
    fn held(&self) -> usize {
        let begins = |stop: &String| {
            let most = self.pending.len().min(stop.len() - 1);
            let cuts = (1..=most).rev().filter(|len| stop.is_char_boundary(*len));
            cuts.into_iter().find(|len| self.pending.as_bytes().ends_with(&stop.as_bytes()[..*len]))
        };
        self.stops.iter().filter_map(begins).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tern::{Model, Options, Specials};

    /// Pushes a text byte by byte and gives all that came out, piece by piece.
    fn run(model: &Model, text: &str, stops: &[&str]) -> (Vec<String>, usize, Option<String>) {
        let tokenizer = model.tokenizer().unwrap();
        let stops = stops.iter().map(|stop| (*stop).to_owned()).collect();
        let mut scanner = Stops::new(Some(tokenizer.decoder()), stops);
        let (mut pieces, mut tokens) = (Vec::new(), 0);
        let mut note = |ripe: Ripe| {
            tokens += ripe.tokens.len();
            if !ripe.text.is_empty() {
                pieces.push(ripe.text);
            }
            ripe.stop
        };
        let letters = text.chars().map(|c| tokenizer.encode(&c.to_string(), false, Specials::Text).unwrap());
        for id in letters.flatten() {
            let stop = note(scanner.push(Scored { id, logprob: None, top: Vec::new() }));
            if stop.is_some() {
                return (pieces, tokens, stop);
            }
        }
        let stop = note(scanner.finish());
        (pieces, tokens, stop)
    }

    #[test]
    fn text_passes_until_a_stop_and_nothing_of_the_stop_is_shown() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/models/page/page.gguf");
        let model = Model::open(page.as_ref(), &Options::default()).unwrap();
        let (pieces, tokens, stop) = run(&model, "abcabd end", &["abd", "zzz"]);
        assert_eq!((pieces.concat().as_str(), tokens, stop.as_deref()), ("abc", 3, Some("abd")));
        let (pieces, tokens, stop) = run(&model, "abcab", &["abd", "bcx"]);
        assert_eq!((pieces.concat().as_str(), tokens, stop), ("abcab", 5, None));
        assert_eq!(pieces, ["a", "bc", "ab"], "what may be a stop waits");
        let (pieces, _, stop) = run(&model, "aé€b", &["€"]);
        assert_eq!((pieces.concat().as_str(), stop.as_deref()), ("aé", Some("€")));
        let (pieces, tokens, stop) = run(&model, "abc", &["a"]);
        assert_eq!((pieces.len(), tokens, stop.as_deref()), (0, 0, Some("a")));
        assert_eq!(run(&model, "abc", &[]).0, ["a", "b", "c"]);
    }
}
