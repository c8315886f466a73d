//! The teacher of a distillation: a float model as the engine runs it, or what it once said of the run's sequences, from the
//! disk.

mod stored;

use std::path::Path;

use tern::file::{File, OpenOptions};
use tern::{Head, Logits, Model, Options, Row, Scratch, Sequence, Tokenizer};
use tern_convert::masters::Masters;
use tern_kernels::KvFormat;

use crate::config::Run;
use crate::corpus::{Corpus, Sequences};
use crate::error::{Error, Result};
use crate::network::{Lesson, Relation, Says};
use crate::ops::Machine;
use crate::ops::loss;
use crate::ops::loss::divergence::Weight;

use self::stored::{Stored, store};

/// What a student listens to.
#[derive(Debug)]
pub(crate) enum Teacher {
    /// Reads each batch as it comes.
    Live(Box<Live>),
    /// Has read them all.
    Stored(Box<Stored>),
}

impl Teacher {
    /// The teacher of a run.
    #[expect(clippy::too_many_arguments, reason = "a run's parts, and who watches it")]
    pub(crate) fn of(
        run: &Run,
        path: &Path,
        on: Machine,
        corpus: &mut Corpus,
        tokenizer: &Tokenizer,
        student: &tern::Config,
        stop: &dyn Fn() -> bool,
        note: &mut dyn FnMut(String),
    ) -> Result<Self> {
        let mut open = || Live::open(run, on, path, tokenizer, student);
        Ok(match run.teacher_logits == "stored" {
            true => Teacher::Stored(Box::new(store(run, on, corpus, student.vocab, &mut open, stop, note)?)),
            false => Teacher::Live(Box::new(open()?)),
        })
    }

    /// What it says of a batch, which begins with this sequence of the run.
    pub(crate) fn read(&mut self, batch: &Sequences, first: u64) -> Result<Lesson<'_>> {
        match self {
            Teacher::Live(live) => live.read(batch),
            Teacher::Stored(stored) => stored.read(batch, first),
        }
    }
}

/// A float model that reads.
#[derive(Debug)]
pub(crate) struct Live {
    model: Model,
    head: loss::Head,
    scratch: Scratch,
    hidden: Vec<f32>, // (rows, dim), normed
    length: usize,
    weight: Weight,
    relation: Option<Listening>,
}

/// How a run listens to the relations of a layer.
#[derive(Clone, Copy, Debug)]
struct Listening {
    /// The student's layer.
    layer: usize,
    heads: usize,
    weight: f32,
}

impl Live {
    /// Opens the teacher of a run whose student has this tokenizer and this many layers.
    pub(crate) fn open(
        run: &Run,
        on: Machine,
        path: &Path,
        tokenizer: &Tokenizer,
        student: &tern::Config,
    ) -> Result<Self> {
        let file = tern::file::open(path, OpenOptions::default())?;
        let masters = checked(&file, path)?;
        let theirs = masters.config().clone();
        same_tokens(&file, path, tokenizer, student, &theirs)?;
        if run.length > theirs.context {
            let what = format!("{}: the teacher reads at most {} tokens", run.length, theirs.context);
            return Err(Error::key("length", what));
        }
        let options = Options {
            floats: true,
            head: Head::Stored,
            kv: KvFormat::F32,
            threads: Some(on.pool.threads()),
            cpu: Some(on.cpu.name().to_owned()),
            ..Options::default()
        };
        let (relation, scratch) = match run.relation > 0.0 {
            true => {
                let layer = run.relation_layer.unwrap_or(late(theirs.layers));
                if layer >= theirs.layers {
                    let what = format!("{layer}: the teacher's layers are 0 to {}", theirs.layers - 1);
                    return Err(Error::key("relation_layer", what));
                }
                let heads = run.relation_heads;
                let widths = [student, &theirs].into_iter().flat_map(|c| [c.q_dim(), c.kv_dim()]);
                if let Some(width) = widths.into_iter().find(|width| !width.is_multiple_of(heads)) {
                    let what = format!("{heads} does not divide {width}, the width of queries or of keys");
                    return Err(Error::key("relation_heads", what));
                }
                // The layer at the same height of a student with fewer.
                let own = ((layer + 1) * student.layers).div_ceil(theirs.layers) - 1;
                (Some(Listening { layer: own, heads, weight: run.relation }), Scratch::watching(layer))
            }
            false => (None, Scratch::default()),
        };
        let (dim, vocab) = (theirs.dim, theirs.vocab);
        let name = if masters.has_head() { "output.weight" } else { "token_embd.weight" };
        let mut numbers = vec![0f32; dim * vocab];
        masters.read(name, vocab, &mut numbers)?;
        let mut head = loss::Head::default();
        head.set(on, &numbers, dim);
        let model = Model::from_file(&file, &options)?;
        let weight = Weight { kl: run.kl, temperature: run.temperature };
        Ok(Self { model, head, scratch, hidden: Vec::new(), length: run.length, weight, relation })
    }

    /// Its last hidden states of these sequences. A document is a text of its own, wherever in a sequence it stands.
    fn think(&mut self, batch: &Sequences) -> Result<()> {
        let (mut rows, mut sequences) = (Vec::with_capacity(batch.tokens.len()), Vec::new());
        let mut open: Option<u32> = None;
        let lengths = |from: usize| {
            let (at, start) = (from % self.length, batch.starts[from]);
            batch.starts[from..from + self.length - at].iter().take_while(|other| **other == start).count()
        };
        for (row, (&token, &start)) in batch.tokens.iter().zip(&batch.starts).enumerate() {
            if row % self.length == 0 || open != Some(start) {
                sequences.push(Sequence::new(&self.model, lengths(row)));
                open = Some(start);
            }
            rows.push(Row { sequence: sequences.len() - 1, token, logits: Logits::All });
        }
        let hidden = self.model.hidden(&mut self.scratch, &mut sequences, &rows)?;
        self.hidden.clear();
        self.hidden.extend_from_slice(hidden);
        Ok(())
    }

    fn read(&mut self, batch: &Sequences) -> Result<Lesson<'_>> {
        self.think(batch)?;
        let says = (self.weight.kl > 0.0).then_some(Says::Hidden { x: &self.hidden, head: &self.head });
        let relation = self.relation.zip(self.scratch.states()).map(|(listening, states)| Relation {
            layer: listening.layer,
            heads: listening.heads,
            weight: listening.weight,
            states,
        });
        Ok(Lesson { weight: self.weight, says, relation })
    }
}

/// The layer that teaches attention unless somebody says: the 22nd of 28 in BitNet Distillation.
fn late(layers: usize) -> usize {
    (layers * 22).div_ceil(28).saturating_sub(1)
}

/// A file's model if it is one of floats, which can be trained.
fn checked<'f>(file: &'f File, path: &Path) -> Result<Masters<'f>> {
    let masters = Masters::of(file)?;
    if !masters.are_floats()? {
        let what = "is a ternary model; a teacher is a float model (safetensors in bf16, f16 or f32, or a GGUF in F16)";
        return Err(Error::key("teacher", format!("{}: {what}", path.display())));
    }
    Ok(masters)
}

/// Refuses a teacher that means other texts by its tokens.
fn same_tokens(
    file: &File,
    path: &Path,
    ours: &Tokenizer,
    student: &tern::Config,
    theirs: &tern::Config,
) -> Result<()> {
    let wrong = |what: String| Error::key("teacher", format!("{}: {what}", path.display()));
    if theirs.vocab != student.vocab {
        let what =
            format!("has {} tokens, the student {}: both must have the same", theirs.vocab, student.vocab);
        return Err(wrong(what));
    }
    let Some(tokenizer) = Tokenizer::from_file(file)? else { return Ok(()) };
    let ids = 0..ours.size().max(tokenizer.size()) as u32;
    match ids.into_iter().find(|id| ours.token_bytes(*id) != tokenizer.token_bytes(*id)) {
        Some(id) => {
            let text = |tokens: &Tokenizer| tokens.token_text(id).unwrap_or_default();
            let (theirs, ours) = (text(&tokenizer), text(ours));
            Err(wrong(format!(
                "its tokenizer differs from the student's: token {id} is `{theirs}` there and `{ours}` here"
            )))
        }
        None => Ok(()),
    }
}

/// A teacher's architecture and the bytes of its weights.
pub(crate) fn size(path: &Path) -> Result<(tern::Config, u64)> {
    let file = tern::file::open(path, OpenOptions::default())?;
    let bytes = file.tensors().iter().map(|tensor| tensor.bytes.len() as u64).sum();
    Ok((Masters::of(&file)?.config().clone(), bytes))
}

/// Says what is wrong with the teacher of a run before anything is made ready.
pub(crate) fn check(run: &Run) -> Result<()> {
    let Some(path) = &run.teacher else { return Ok(()) };
    let file = tern::file::open(path, OpenOptions::default())?;
    checked(&file, path).map(drop)
}
