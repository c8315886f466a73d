//! What a teacher says of all sequences of a run, on the disk: its likeliest tokens and what the others hold together. Written
//! once before the first step, one record a sequence, so that a run that is begun again goes on where it was.
//!
//! ```text
//! "TernSay1"   u64: length   u64: tokens of a row   u64: vocabulary   u64: bits of the temperature (f32)
//! records: u32 tokens (length, count)   f32 logarithms (length, count)   f32 rest (length)   u64: checksum, with the sequence
//! ```

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tern_kernels::Matrix;

use super::Live;
use crate::config::Run;
use crate::corpus::{Corpus, Place, Sequences};
use crate::error::{Error, Result};
use crate::network::{Lesson, Says};
use crate::ops::Machine;
use crate::ops::loss::NONE;
use crate::ops::loss::divergence::{Tops, Weight};
use crate::random::hash;

const MAGIC: u64 = u64::from_le_bytes(*b"TernSay1");
const HEADER: u64 = 5 * 8;

/// The file, open.
#[derive(Debug)]
pub(crate) struct Stored {
    path: PathBuf,
    file: File,
    shape: Shape,
    weight: Weight,
    tops: Tops,
}

/// What all records have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    length: usize,
    count: usize,
    vocab: usize,
    temperature: u32,
}

impl Shape {
    fn words(self) -> [u64; 5] {
        [MAGIC, self.length as u64, self.count as u64, self.vocab as u64, self.temperature.into()]
    }

    /// Bytes of a record.
    fn record(self) -> usize {
        self.length * (8 * self.count + 4) + 8
    }
}

/// Bytes that the sequences of a run take.
fn bytes(run: &Run, vocab: usize) -> u64 {
    HEADER + sequences(run) * shape(run, vocab).record() as u64
}

fn sequences(run: &Run) -> u64 {
    run.steps * (run.accumulate * run.sequences) as u64
}

fn shape(run: &Run, vocab: usize) -> Shape {
    let count = run.teacher_top.min(vocab);
    Shape { length: run.length, count, vocab, temperature: run.temperature.to_bits() }
}

fn path(run: &Run) -> PathBuf {
    run.out.join("teacher.logits")
}

/// The sum that says that a record is whole and this sequence's.
fn sum(tokens: &[u32], starts: &[u32], content: &[u8]) -> u64 {
    let words = tokens.iter().zip(starts).fold(0, |sum, (token, start)| {
        hash(sum, &(u64::from(*token) << 32 | u64::from(*start)).to_le_bytes())
    });
    hash(words, content)
}

/// How many records the file has, whose header must be this run's; what was cut off is taken away.
fn begin(path: &Path, shape: Shape) -> Result<(File, u64)> {
    let io = |e| Error::io(path, e);
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(io)?;
    let len = file.metadata().map_err(io)?.len();
    if len < HEADER {
        file.set_len(0).map_err(io)?;
        let bytes: Vec<u8> = shape.words().into_iter().flat_map(u64::to_le_bytes).collect();
        file.write_all(&bytes).map_err(io)?;
        return Ok((file, 0));
    }
    let mut bytes = [0; HEADER as usize];
    file.read_exact(&mut bytes).map_err(io)?;
    let words: Vec<u64> = bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
    if words != shape.words() {
        let what = "was made with another `length`, `teacher_top` or `temperature`, or of another vocabulary; remove it to \
                    have it made again";
        return Err(Error::file(path, what));
    }
    let records = (len - HEADER) / shape.record() as u64;
    file.set_len(HEADER + records * shape.record() as u64).map_err(io)?;
    Ok((file, records))
}

/// How much of a teacher's probability the likeliest tokens hold, over rows with a target.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    rows: u64,
    rest: f64,
    most: f32,
}

/// Opens what a teacher says of a run's sequences; `teacher` is asked for, and says what is missing, if something is.
pub(crate) fn store(
    run: &Run,
    on: Machine,
    corpus: &mut Corpus,
    vocab: usize,
    teacher: &mut dyn FnMut() -> Result<Live>,
    stop: &dyn Fn() -> bool,
    note: &mut dyn FnMut(String),
) -> Result<Stored> {
    let (shape, path) = (shape(run, vocab), path(run));
    let (mut file, known) = begin(&path, shape)?;
    let all = sequences(run);
    if known < all {
        let mut live = teacher()?;
        note(format!(
            "the teacher reads {} sequences first: {:.1} MB in {}",
            all - known,
            bytes(run, vocab) as f64 / 1e6,
            path.display()
        ));
        file.seek(SeekFrom::End(0)).map_err(|e| Error::io(&path, e))?;
        let (mut place, mut batch, mut held) = (Place::default(), Sequences::default(), Held::default());
        let mut logits = Vec::new();
        for first in (0..all).step_by(run.sequences) {
            let count = run.sequences.min((all - first) as usize);
            corpus.next(&mut place, count, run.length, &mut batch)?;
            if first + (count as u64) <= known {
                continue;
            }
            if stop() {
                let what = "stopped while the teacher was reading; begun again, it goes on from there";
                return Err(Error::Input(what.to_owned()));
            }
            live.think(&batch)?;
            let mut bytes = Vec::new();
            for nth in (0..count).filter(|nth| first + *nth as u64 >= known) {
                let rows = nth * run.length..(nth + 1) * run.length;
                let hidden = &live.hidden[rows.start * live.model.config().dim..];
                live.head.logits(
                    on,
                    Matrix::new(hidden, live.model.config().dim).rows(0, run.length),
                    &mut logits,
                );
                let tops = likeliest(on, shape, &logits, live.head.stride());
                for (rest, _) in
                    tops.rest.iter().zip(&batch.targets[rows.clone()]).filter(|(_, t)| **t != NONE)
                {
                    held.rows += 1;
                    held.rest += f64::from(*rest);
                    held.most = held.most.max(*rest);
                }
                let from = bytes.len();
                bytes.extend(tops.tokens.iter().flat_map(|token| token.to_le_bytes()));
                bytes.extend(tops.logs.iter().chain(&tops.rest).flat_map(|number| number.to_le_bytes()));
                let sum = sum(&batch.tokens[rows.clone()], &batch.starts[rows], &bytes[from..]);
                bytes.extend(sum.to_le_bytes());
            }
            file.write_all(&bytes).map_err(|e| {
                let what = format!("cannot write: {e}; what is there is whole, and the run goes on from it");
                Error::file(&path, what)
            })?;
        }
        file.sync_all().map_err(|e| Error::io(&path, e))?;
        let mean = held.rest / held.rows.max(1) as f64;
        note(format!(
            "its {} likeliest of {vocab} tokens hold {:.2}% of its probability at temperature {} on average, at least {:.2}%: \
             the rest counts as one token, which moves the gradient of a row's logits by at most {:.4} of {} (in sum, before \
             `kl`), on average",
            shape.count,
            100.0 * (1.0 - mean),
            run.temperature,
            100.0 * (1.0 - held.most),
            2.0 * mean * f64::from(run.temperature),
            2.0 * run.temperature,
        ));
    }
    let weight = Weight { kl: run.kl, temperature: run.temperature };
    Ok(Stored { path, file, shape, weight, tops: Tops { count: shape.count, ..Tops::default() } })
}

/// The likeliest tokens of each row, the first of equals, by their ids.
fn likeliest(on: Machine, shape: Shape, logits: &[f32], stride: usize) -> Tops {
    let Shape { length, count, vocab, .. } = shape;
    let inverse = 1.0 / f32::from_bits(shape.temperature);
    let mut tops = Tops {
        count,
        tokens: vec![0; length * count],
        logs: vec![0.0; length * count],
        rest: vec![0.0; length],
    };
    let Tops { tokens, logs, rest, .. } = &mut tops;
    let mut rows: Vec<_> =
        tokens.chunks_exact_mut(count).zip(logs.chunks_exact_mut(count)).zip(rest.iter_mut()).collect();
    on.pool.for_chunks(&mut rows, 1, |row, out| {
        let ((tokens, logs), rest) = &mut out[0];
        let z = &logits[row * stride..][..vocab];
        let top = z.iter().fold(f32::NEG_INFINITY, |top, z| top.max(*z));
        let of = |id: u32| f64::from((z[id as usize] - top) * inverse);
        let mut order: Vec<u32> = (0..vocab as u32).collect();
        let by = |a: &u32, b: &u32| z[*b as usize].total_cmp(&z[*a as usize]).then(a.cmp(b));
        if count < vocab {
            order.select_nth_unstable_by(count - 1, by);
        }
        let (kept, others) = order.split_at_mut(count);
        kept.sort_unstable();
        others.sort_unstable();
        let (inside, outside): (f64, f64) =
            (kept.iter().map(|id| of(*id).exp()).sum(), others.iter().map(|id| of(*id).exp()).sum());
        let log = (inside + outside).ln();
        tokens.copy_from_slice(kept);
        logs.iter_mut().zip(kept).for_each(|(out, id)| *out = (of(*id) - log) as f32);
        **rest = (outside / (inside + outside)) as f32;
    });
    tops
}

impl Stored {
    /// What the teacher said of a batch that begins with this sequence of the run.
    pub(super) fn read(&mut self, batch: &Sequences, first: u64) -> Result<Lesson<'_>> {
        let Shape { length, count, .. } = self.shape;
        let Tops { tokens, logs, rest, .. } = &mut self.tops;
        tokens.clear();
        logs.clear();
        rest.clear();
        let record = self.shape.record();
        let mut bytes = vec![0; record];
        let io = |e| Error::io(&self.path, e);
        self.file.seek(SeekFrom::Start(HEADER + first * record as u64)).map_err(io)?;
        for (theirs, starts) in batch.tokens.chunks(length).zip(batch.starts.chunks(length)) {
            self.file.read_exact(&mut bytes).map_err(io)?;
            let (content, checksum) = bytes.split_at(record - 8);
            if sum(theirs, starts, content).to_le_bytes() != checksum {
                let what = "holds what a teacher said of other sequences, or is broken; remove it to have it made again";
                return Err(Error::file(&self.path, what));
            }
            let words = content.as_chunks::<4>().0;
            let (ids, floats) = words.split_at(length * count);
            tokens.extend(ids.iter().map(|id| u32::from_le_bytes(*id)));
            let (those, left) = floats.split_at(length * count);
            logs.extend(those.iter().map(|log| f32::from_le_bytes(*log)));
            rest.extend(left.iter().map(|rest| f32::from_le_bytes(*rest)));
        }
        Ok(Lesson { weight: self.weight, says: Some(Says::Tops(&self.tops)), relation: None })
    }
}
