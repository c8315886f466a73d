//! The corpus as tokens: written once to a file beside the run, then read at random, so that it may be larger than memory.
//!
//! `corpus.tokens` holds the tokens of all documents, 4 bytes each, the highest bit set where a token is not to be learnt
//! (a user's turn). `corpus.index` holds where documents end and is written last: it makes the pair whole.

use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use tern::{Message, Specials, Tokenizer};

use crate::config::Run;
use crate::data::{self, Document, Rules, Side};
use crate::error::{Error, Result};
use crate::ops::loss::NONE;
use crate::random::{Random, hash, scramble};

const MAGIC: u64 = u64::from_le_bytes(*b"TernDoc3");
/// Files of a run: their numbers are two bytes in the index.
const MAX_FILES: usize = 1 << 16;
/// Not to be learnt.
const MUTE: u32 = 1 << 31;

/// One document in the corpus.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: u64,
    len: u32,
    chars: u32,
    source: u16,
    held_out: bool,
}

/// All documents as tokens.
#[derive(Debug)]
pub struct Corpus {
    path: PathBuf,
    file: File,
    spans: Vec<Span>,
    repeats: Vec<f64>,
    seed: u64,
    /// Of what the corpus depends on.
    key: u64,
    /// Whether its documents are pairs, the better answer before the worse one. Each is a sequence of its own then, in an
    /// epoch those that fit into this many tokens.
    pairs: Option<usize>,
    /// The epoch in hand.
    epoch: Epoch,
}

/// The documents of an epoch in their order.
#[derive(Debug, Default)]
struct Epoch {
    number: Option<u64>,
    order: Vec<u32>,
    /// Tokens up to the end of each; none of pairs.
    ends: Vec<u64>,
}

/// Sequences for a step.
#[derive(Clone, Debug, Default)]
pub struct Sequences {
    /// `(rows)`.
    pub tokens: Vec<u32>,
    /// `(rows)`, or `NONE`.
    pub targets: Vec<u32>,
    /// `(rows)`.
    pub starts: Vec<u32>,
    /// Of pairs the document in each sequence, a better answer before its worse one; nothing of others.
    pub documents: Vec<u32>,
}

/// Where in the data a run is: the next sequence of an epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Place {
    /// Counted from 0.
    pub epoch: u64,
    /// Counted from 0.
    pub sequence: u64,
}

/// What there is of each kind.
#[derive(Clone, Copy, Debug, Default)]
pub struct Size {
    /// Documents.
    pub documents: u64,
    /// Tokens.
    pub tokens: u64,
}

impl Corpus {
    /// The corpus of a run, from the run's directory if it is there already. `note` hears of files as they are read.
    pub fn open(run: &Run, tokenizer: &Tokenizer, end: u32, note: &mut dyn FnMut(String)) -> Result<Self> {
        let dir = run.out.join("corpus");
        std::fs::create_dir_all(&dir).map_err(|e| Error::io(&dir, e))?;
        let key = key(run, tokenizer, end)?;
        let (tokens, index) = (dir.join("corpus.tokens"), dir.join("corpus.index"));
        let spans = match read_index(&index, key) {
            Some(spans) => spans,
            None => build(run, tokenizer, end, key, &tokens, &index, note)?,
        };
        let file = File::open(&tokens).map_err(|e| Error::io(&tokens, e))?;
        let len = file.metadata().map_err(|e| Error::io(&tokens, e))?.len();
        if len != 4 * spans.last().map_or(0, |span| span.start + u64::from(span.len)) {
            return Err(Error::file(
                &tokens,
                "is not as long as its index says; remove it to have it made again",
            ));
        }
        let mut repeats = run.repeats.clone();
        repeats.resize(run.train.len(), 1.0);
        let pairs = (run.dpo > 0.0).then_some(run.length);
        let corpus =
            Self { path: tokens, file, spans, repeats, seed: run.seed, key, pairs, epoch: Epoch::default() };
        if let Some(most) = pairs {
            let (firsts, all) = ((0..corpus.spans.len()).step_by(2), corpus.spans.len() / 2);
            let left_out = firsts.filter(|nth| !corpus.fits(*nth)).count();
            if left_out > 0 {
                note(format!("{left_out} of {all} pairs are left out: longer than a `length` of {most}"));
            }
        }
        Ok(corpus)
    }

    /// A number for the texts and what made tokens of them.
    pub(crate) fn key(&self) -> u64 {
        self.key
    }

    /// How many documents there are, of either kind.
    pub(crate) fn documents(&self) -> usize {
        self.spans.len()
    }

    /// Whether a pair, by its first document, fits.
    fn fits(&self, nth: usize) -> bool {
        self.pairs.is_none_or(|most| self.spans[nth..].iter().take(2).all(|span| span.len as usize <= most))
    }

    /// Of these documents of pairs, those that fit: each as a sequence of `length`, and their numbers.
    pub(crate) fn texts(&mut self, of: Range<usize>, length: usize, out: &mut Sequences) -> Result<Vec<u32>> {
        *out = Sequences::default();
        let fitting: Vec<u32> = of.filter(|nth| self.fits(nth / 2 * 2)).map(|nth| nth as u32).collect();
        fitting.iter().try_for_each(|nth| self.text(*nth, length, out))?;
        Ok(fitting)
    }

    /// A document of a pair, as a sequence.
    fn text(&mut self, nth: u32, length: usize, out: &mut Sequences) -> Result<()> {
        out.documents.push(nth);
        let len = u64::from(self.spans[nth as usize].len);
        self.sequence(&[nth], &[len], 0, length, out)
    }

    /// Whether the run's directory has the corpus already.
    pub fn is_there(run: &Run, tokenizer: &Tokenizer, end: u32) -> Result<bool> {
        let index = run.out.join("corpus").join("corpus.index");
        Ok(read_index(&index, key(run, tokenizer, end)?).is_some())
    }

    /// Documents and tokens to train on (each once), or held out.
    pub fn size(&self, held_out: bool) -> Size {
        let spans = self.spans.iter().filter(|span| span.held_out == held_out);
        spans.fold(Size::default(), |size, span| Size {
            documents: size.documents + 1,
            tokens: size.tokens + u64::from(span.len),
        })
    }

    fn begin(&mut self, number: u64) {
        if self.epoch.number == Some(number) {
            return;
        }
        let mut order = Vec::new();
        // Of a pair the first document stands for both.
        let first = if self.pairs.is_some() { 2 } else { 1 };
        let trained = self
            .spans
            .iter()
            .enumerate()
            .step_by(first)
            .filter(|(nth, span)| !span.held_out && self.fits(*nth));
        for (nth, span) in trained {
            let repeats = self.repeats[usize::from(span.source)];
            // The whole times for sure; the rest by chance, another chance in every epoch.
            let chance = Random::new(self.seed ^ scramble(number), nth as u64).unit();
            let times = repeats.floor() as usize + usize::from(chance < repeats.fract());
            order.extend(std::iter::repeat_n(nth as u32, times));
        }
        let mut random = Random::new(self.seed, number.wrapping_add(1 << 40));
        for i in (1..order.len()).rev() {
            order.swap(i, random.below(i as u64 + 1) as usize);
        }
        let mut end = 0;
        let ends = order.iter().map(|&nth| {
            end += u64::from(self.spans[nth as usize].len);
            end
        });
        let ends = ends.collect();
        self.epoch = Epoch { number: Some(number), order, ends };
    }

    /// Sequences of `length` tokens that an epoch has.
    pub fn sequences(&mut self, epoch: u64, length: usize) -> u64 {
        self.begin(epoch);
        match self.pairs {
            Some(_) => 2 * self.epoch.order.len() as u64,
            None => self.epoch.ends.last().map_or(0, |end| end / length as u64),
        }
    }

    /// What to say when there is not one sequence to train on.
    fn too_few(&self, length: usize) -> Error {
        if self.pairs.is_some() {
            return Error::key(
                "length",
                format!("{length}: no pair to train on is that short; expected a longer one"),
            );
        }
        let Size { tokens, documents } = self.size(false);
        let fits = (tokens.checked_ilog2()).map(|power| 1u64 << power).filter(|fits| *fits >= 8);
        let shorter = fits.map_or(String::new(), |fits| format!(" or shorter sequences (`--length {fits}`)"));
        let what = format!(
            "{length}: one sequence is more than the {tokens} tokens in {documents} documents that an epoch trains on; \
             expected more text{shorter}"
        );
        Error::key("length", what)
    }

    /// Whether there is a sequence of `length` tokens to train on.
    pub fn check_length(&mut self, length: usize) -> Result<()> {
        let all = self.repeats.iter().all(|repeats| *repeats >= 1.0);
        if all && self.sequences(0, length) == 0 { Err(self.too_few(length)) } else { Ok(()) }
    }

    /// The next `count` sequences of `length` tokens from `place` on, which moves behind them.
    pub fn next(
        &mut self,
        place: &mut Place,
        count: usize,
        length: usize,
        out: &mut Sequences,
    ) -> Result<()> {
        out.tokens.clear();
        out.targets.clear();
        out.starts.clear();
        out.documents.clear();
        for _ in 0..count {
            let mut tries = 0;
            while place.sequence >= self.sequences(place.epoch, length) {
                *place = Place { epoch: place.epoch + 1, sequence: 0 };
                tries += 1;
                if tries > 1000 {
                    return Err(self.too_few(length));
                }
            }
            self.begin(place.epoch);
            let nth = place.sequence;
            place.sequence += 1;
            if self.pairs.is_some() {
                let first = self.epoch.order[(nth / 2) as usize];
                self.text(first + (nth % 2) as u32, length, out)?;
                continue;
            }
            let start = nth * length as u64;
            let epoch = std::mem::take(&mut self.epoch);
            let result = self.sequence(&epoch.order, &epoch.ends, start, length, out);
            self.epoch = epoch;
            result?;
        }
        Ok(())
    }

    /// `length` tokens of the documents in `order`, from `start` on; at the end of them it may be filled up.
    fn sequence(
        &mut self,
        order: &[u32],
        ends: &[u64],
        start: u64,
        length: usize,
        out: &mut Sequences,
    ) -> Result<()> {
        let first = out.tokens.len();
        let mut nth = ends.partition_point(|&end| end <= start);
        while out.tokens.len() < first + length {
            let Some(&document) = order.get(nth) else { break };
            let span = self.spans[document as usize];
            let begin = ends[nth] - u64::from(span.len);
            let skip = start.saturating_sub(begin);
            let left = (u64::from(span.len) - skip).min((first + length - out.tokens.len()) as u64);
            // One more, for the target of the last.
            let read = (left + 1).min(u64::from(span.len) - skip);
            let tokens = self.read(span.start + skip, read)?;
            let at = (out.tokens.len() - first) as u32;
            for i in 0..left as usize {
                out.tokens.push(tokens[i] & !MUTE);
                let target = tokens.get(i + 1).copied().filter(|token| token & MUTE == 0);
                out.targets.push(target.unwrap_or(NONE));
                out.starts.push(at);
            }
            nth += 1;
        }
        // Positions after the last document: they see themselves alone and have no target.
        while out.tokens.len() < first + length {
            out.starts.push((out.tokens.len() - first) as u32);
            out.tokens.push(0);
            out.targets.push(NONE);
        }
        Ok(())
    }

    fn read(&mut self, start: u64, len: u64) -> Result<Vec<u32>> {
        let mut bytes = vec![0; 4 * len as usize];
        let read = self.file.seek(SeekFrom::Start(4 * start)).and_then(|_| self.file.read_exact(&mut bytes));
        read.map_err(|e| Error::io(&self.path, e))?;
        Ok(bytes.as_chunks::<4>().0.iter().map(|&token| u32::from_le_bytes(token)).collect())
    }

    /// Held-out documents of at most `most` tokens together, as sequences that begin with a document each where it fits
    /// (longer ones are cut), and the characters in them.
    pub fn held_out(&mut self, most: usize, length: usize) -> Result<(Sequences, u64)> {
        let (mut out, mut chars, mut taken) = (Sequences::default(), 0, 0);
        let spans: Vec<(usize, Span)> =
            self.spans.iter().copied().enumerate().filter(|(_, span)| span.held_out).collect();
        for (nth, span) in spans {
            if taken + span.len as usize > most && taken > 0 {
                continue;
            }
            if self.pairs.is_some() {
                // The other of a pair comes with the first, whatever room is left.
                if nth % 2 == 0 && self.fits(nth) {
                    for nth in [nth, nth + 1] {
                        taken += self.spans[nth].len as usize;
                        chars += u64::from(self.spans[nth].chars);
                        self.text(nth as u32, length, &mut out)?;
                    }
                }
                continue;
            }
            taken += span.len as usize;
            chars += u64::from(span.chars);
            for start in (0..u64::from(span.len)).step_by(length) {
                self.sequence(&[nth as u32], &[u64::from(span.len)], start, length, &mut out)?;
            }
        }
        Ok((out, chars))
    }
}

/// What a corpus depends on, as a number that is the same with every compiler: it is kept on the disk.
fn key(run: &Run, tokenizer: &Tokenizer, end: u32) -> Result<u64> {
    let mut sum = MAGIC;
    let mut text = |text: &str| sum = hash(sum, text.as_bytes());
    text(&format!("{end} {} {} {:x}", tokenizer.size(), run.seed, run.validation.to_bits()));
    if run.dpo > 0.0 {
        text("pairs");
    }
    text(&run.text_key);
    text(&run.separator);
    text(&format!("{} {}", run.join_lines, run.train.len()));
    for id in 0..tokenizer.size() as u32 {
        text(&tokenizer.token_text(id).unwrap_or_default());
    }
    text(tokenizer.template().map_or("", |template| template.source()));
    for path in run.train.iter().chain(&run.validation_files) {
        let about = std::fs::metadata(path).map_err(|e| Error::io(path, e))?;
        // Whatever directory the command was typed in.
        let path = path.canonicalize().map_err(|e| Error::io(path, e))?;
        text(&path.to_string_lossy());
        let changed = about.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        text(&format!("{} {:?}", about.len(), changed));
    }
    Ok(sum)
}

fn read_index(path: &Path, key: u64) -> Option<Vec<Span>> {
    let bytes = std::fs::read(path).ok()?;
    let (words, rest) = bytes.as_chunks::<8>();
    let words: Vec<u64> = words.iter().map(|&word| u64::from_le_bytes(word)).collect();
    let [magic, stored, count, ref spans @ ..] = words[..] else { return None };
    if !rest.is_empty() || (magic, stored) != (MAGIC, key) || spans.len() as u64 != 2 * count {
        return None;
    }
    let mut start = 0;
    let (pairs, _) = spans.as_chunks::<2>();
    let spans = pairs.iter().map(|[sizes, about]| {
        let len = *sizes as u32;
        let span = Span {
            start,
            len,
            chars: (sizes >> 32) as u32,
            source: *about as u16,
            held_out: about >> 16 & 1 == 1,
        };
        start += u64::from(len);
        span
    });
    Some(spans.collect())
}

fn build(
    run: &Run,
    tokenizer: &Tokenizer,
    end: u32,
    key: u64,
    path: &Path,
    index: &Path,
    note: &mut dyn FnMut(String),
) -> Result<Vec<Span>> {
    // The old index must not speak for new tokens.
    match std::fs::remove_file(index) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io(index, e)),
        _ => {}
    }
    let io = |e| Error::io(path, e);
    // Aside, so that another run of this directory keeps the file that it has open.
    let aside = path.with_extension("part");
    let mut out = BufWriter::with_capacity(1 << 20, File::create(&aside).map_err(io)?);
    let (mut spans, mut start) = (Vec::new(), 0u64);
    let rules = Rules { text_key: &run.text_key, separator: &run.separator, join_lines: run.join_lines };
    let files = run.train.len() + run.validation_files.len();
    if files > MAX_FILES {
        let what =
            format!("{files} files with those to validate on: expected at most {MAX_FILES}; join some");
        return Err(Error::key("train", what));
    }
    for (source, path_in) in run.train.iter().chain(&run.validation_files).enumerate() {
        let number = u16::try_from(source).expect("as few files as were checked for");
        note(format!("reading {}", path_in.display()));
        let is_held_out = source >= run.train.len();
        let (before, mut empty, mut unanswered) = (spans.len(), 0u64, 0u64);
        data::documents(path_in, rules, |document, line| {
            let wrong = |e: tern::Error| Error::line(path_in, line, e.to_string());
            let is_pair = matches!(document, Document::Pair(_));
            if is_pair != (run.dpo > 0.0) {
                let what = match is_pair {
                    true => {
                        "a pair of `chosen` and `rejected`: learning from pairs wants `dpo`, 0.1 for example"
                    }
                    false => "expected a pair, `chosen` and `rejected`: `dpo` learns from nothing else",
                };
                return Err(Error::line(path_in, line, what));
            }
            let mut mark = 0;
            let texts = match &document {
                Document::Text(text) => {
                    mark = hash(mark, text.as_bytes());
                    if text.is_empty() {
                        empty += 1;
                        return Ok(());
                    }
                    let mut tokens = tokenizer.encode(text, true, Specials::Text).map_err(wrong)?;
                    tokens.push(end);
                    vec![(tokens, text.chars().count())]
                }
                Document::Chat(messages) => {
                    for text in messages.iter().flat_map(|m| [&m.role, &m.content]) {
                        mark = hash(mark, text.as_bytes());
                    }
                    vec![chat(tokenizer, messages, 0).map_err(wrong)?]
                }
                Document::Pair(sides) => {
                    // By what was asked alone, so that all answers to it fall on the same side.
                    for text in asked(&sides[0]) {
                        mark = hash(mark, text.as_bytes());
                    }
                    sides
                        .iter()
                        .map(|side| answer(tokenizer, side, end))
                        .collect::<Result<_, _>>()
                        .map_err(wrong)?
                }
            };
            if texts.iter().any(|(tokens, _)| tokens.is_empty()) {
                unanswered += 1;
                return Ok(());
            }
            // By content, so that copies of a document fall on the same side.
            let chance = scramble(mark ^ run.seed) as f64 / u64::MAX as f64;
            let held_out = is_held_out || chance < run.validation;
            for (tokens, chars) in texts {
                let len = u32::try_from(tokens.len());
                let len = len.map_err(|_| {
                    Error::line(path_in, line, "expected fewer than 2^32 tokens in a document")
                })?;
                spans.push(Span { start, len, chars: chars as u32, source: number, held_out });
                start += u64::from(len);
                let bytes: Vec<u8> = tokens.iter().flat_map(|token| token.to_le_bytes()).collect();
                out.write_all(&bytes).map_err(io)?;
            }
            Ok(())
        })?;
        let mut left_out = Vec::new();
        if empty > 0 {
            left_out.push(format!("{empty} empty documents"));
        }
        if unanswered > 0 {
            left_out.push(format!("{unanswered} conversations in which no `assistant` speaks"));
        }
        let left_out = left_out.join(" and ");
        if spans.len() == before {
            let found = if left_out.is_empty() { "none" } else { &left_out };
            return Err(Error::file(path_in, format!("expected documents to learn, found {found}")));
        }
        if !left_out.is_empty() {
            note(format!("{}: left out {left_out}", path_in.display()));
        }
    }
    out.flush().map_err(io)?;
    out.get_ref().sync_all().map_err(io)?;
    std::fs::rename(&aside, path).map_err(io)?;
    let mut words = vec![MAGIC, key, spans.len() as u64];
    for span in &spans {
        words.push(u64::from(span.len) | u64::from(span.chars) << 32);
        words.push(u64::from(span.source) | u64::from(span.held_out) << 16);
    }
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    tern::file::Whole::begin(index)?.publish(&bytes)?;
    Ok(spans)
}

/// What was asked, of a side of a pair.
fn asked(side: &Side) -> Vec<&String> {
    match side {
        Side::Text { prompt, .. } => vec![prompt],
        Side::Chat(messages) => messages[..messages.len() - 1]
            .iter()
            .flat_map(|message| [&message.role, &message.content])
            .collect(),
    }
}

/// A side of a pair; all is muted but the answer, up to its end.
fn answer(tokenizer: &Tokenizer, side: &Side, end: u32) -> tern::Result<(Vec<u32>, usize)> {
    let (prompt, answer) = match side {
        Side::Text { prompt, answer } => (prompt, answer),
        Side::Chat(messages) => return chat(tokenizer, messages, messages.len() - 1),
    };
    let mut tokens = tokenizer.encode(prompt, true, Specials::Text)?;
    tokens.iter_mut().for_each(|token| *token |= MUTE);
    tokens.extend(tokenizer.encode(answer, false, Specials::Text)?);
    tokens.push(end);
    Ok((tokens, answer.chars().count()))
}

/// A conversation as the model's template has it; all is muted but what the assistant says from this message on, up to the end
/// of its turns.
fn chat(tokenizer: &Tokenizer, messages: &[Message], from: usize) -> tern::Result<(Vec<u32>, usize)> {
    let (mut tokens, mut chars) = (Vec::new(), 0);
    let answers = messages.iter().enumerate().skip(from).filter(|(_, message)| message.role == "assistant");
    for (nth, message) in answers {
        let asked = tokenizer.encode_chat(&messages[..nth], false)?;
        let said = tokenizer.encode_turns(&messages[..=nth])?;
        if !said.starts_with(&asked) {
            let what = "the chat template does not put an answer where it asks for one";
            return Err(tern::Error::Template(what.into()));
        }
        let known = tokens.len();
        if known > asked.len() {
            return Err(tern::Error::Template("the chat template changes earlier turns".into()));
        }
        tokens.extend(asked[known..].iter().map(|token| token | MUTE));
        tokens.extend(&said[asked.len()..]);
        chars += message.content.chars().count();
    }
    Ok((tokens, chars))
}
