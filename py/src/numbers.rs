//! What a model computes, as numbers: logits, likelihoods, vectors. Arrays are made once and handed over to NumPy.

use numpy::{PyArray1, PyArray2, PyArrayMethods};
use pyo3::exceptions::PyMemoryError;
use pyo3::prelude::*;
use tern::{CHUNK, Embedder, Logits, Model, Row, Scratch, Sequence};
use tern_eval::{Convention, Item, Scorer, Summary};

use crate::engine::Engine;
use crate::errors::{engine, failed, wrong};
use crate::wait::{Stop, work};

/// Items that are scored side by side.
const SLOTS: usize = 16;

fn stopped() -> PyErr {
    failed("stopped")
}

/// Ids that the model knows and has room for.
fn check(model: &Model, ids: &[u32]) -> PyResult<()> {
    let (vocab, context) = (model.config().vocab, model.config().context);
    if let Some(id) = ids.iter().find(|id| **id as usize >= vocab) {
        return Err(wrong(format!("token {id}: expected ids below {vocab}")));
    }
    match ids.len() {
        0 => Err(wrong("expected at least one token, found none")),
        len if len > context => Err(wrong(format!("{len} tokens do not fit into a context of {context}"))),
        _ => Ok(()),
    }
}

fn matrix<'py>(py: Python<'py>, rows: Vec<f32>, columns: usize) -> PyResult<Bound<'py, PyArray2<f32>>> {
    let count = rows.len() / columns.max(1);
    PyArray1::from_vec(py, rows).reshape([count, columns])
}

/// Logits after each token from `start` on.
fn logits(model: &Model, ids: &[u32], start: usize, stop: &Stop) -> PyResult<Vec<f32>> {
    let vocab = model.config().vocab;
    let mut all: Vec<f32> = Vec::new();
    let room = all.try_reserve_exact((ids.len() - start) * vocab);
    room.map_err(|error| PyMemoryError::new_err(format!("{} x {vocab} logits: {error}", ids.len() - start)))?;
    let (mut scratch, mut sequence) = (Scratch::default(), [Sequence::new(model, ids.len())]);
    let mut at = 0;
    for piece in ids.chunks(CHUNK) {
        if stop.is_told() {
            return Err(stopped());
        }
        let row = |(nth, &token): (usize, &u32)| {
            let logits = if at + nth >= start { Logits::All } else { Logits::None };
            Row { sequence: 0, token, logits }
        };
        let rows: Vec<Row> = piece.iter().enumerate().map(row).collect();
        all.extend_from_slice(model.forward(&mut scratch, &mut sequence, &rows).map_err(engine)?);
        at += piece.len();
    }
    Ok(all)
}

/// The sum of log-probabilities of each end, and whether all its tokens are the likeliest. Ends of one context are
/// scored together, contexts that begin alike one after the other.
fn likelihoods(model: &Model, pairs: Vec<(Vec<u32>, Vec<u32>)>, stop: &Stop) -> PyResult<Vec<(f64, bool)>> {
    for (context, end) in &pairs {
        let whole: Vec<u32> = context.iter().chain(end).copied().collect();
        if context.is_empty() || end.is_empty() {
            return Err(wrong(
                "expected at least one token before, and at least one whose likelihood is asked",
            ));
        }
        check(model, &whole[..whole.len() - 1])?;
        check(model, end)?;
    }
    let mut order: Vec<usize> = (0..pairs.len()).collect();
    order.sort_by(|a, b| pairs[*a].0.cmp(&pairs[*b].0));
    let (mut items, mut of): (Vec<Item>, Vec<Vec<usize>>) = Default::default();
    for at in order {
        let (context, end) = &pairs[at];
        match items.last_mut().filter(|item| item.context == *context) {
            Some(item) => item.ends.push(end.clone()),
            None => {
                items.push(Item { context: context.clone(), ends: vec![end.clone()] });
                of.push(Vec::new());
            }
        }
        of.last_mut().ok_or_else(|| failed("internal error"))?.push(at);
    }
    let mut scorer = Scorer::new(model, SLOTS.min(items.len()));
    let mut results = vec![(0.0, false); pairs.len()];
    for (items, of) in items.chunks(SLOTS).zip(of.chunks(SLOTS)) {
        if stop.is_told() {
            return Err(stopped());
        }
        let scores = scorer.score(items).map_err(engine)?;
        for (at, tokens) in of.iter().flatten().zip(scores.iter().flatten()) {
            let sum = tokens.iter().map(|token| token.logprob).sum();
            results[*at] = (sum, tokens.iter().all(|token| token.best));
        }
    }
    Ok(results)
}

#[pymethods]
impl Engine {
    /// Logits after each token from `start` on, `(tokens, vocab)`.
    fn logits<'py>(
        &self,
        py: Python<'py>,
        ids: Vec<u32>,
        start: usize,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let open = self.opened()?;
        let model = open.model().clone();
        check(&model, &ids)?;
        model.writes().map_err(engine)?;
        if start >= ids.len() {
            return Err(wrong(format!("start {start}: expected less than the {} tokens", ids.len())));
        }
        let vocab = model.config().vocab;
        let rows = work(py, open.runtime(), move |stop| logits(&model, &ids, start, stop))?;
        matrix(py, rows, vocab)
    }

    /// For each `(context, end)` the sum of the end's log-probabilities, and whether all of it is likeliest.
    fn likelihoods(&self, py: Python<'_>, pairs: Vec<(Vec<u32>, Vec<u32>)>) -> PyResult<Vec<(f64, bool)>> {
        let open = self.opened()?;
        let model = open.model().clone();
        model.writes().map_err(engine)?;
        work(py, open.runtime(), move |stop| likelihoods(&model, pairs, stop))
    }

    /// The log-probability of each token but the first, given those before.
    fn logprobs<'py>(&self, py: Python<'py>, ids: Vec<u32>) -> PyResult<Bound<'py, PyArray1<f64>>> {
        let open = self.opened()?;
        let model = open.model().clone();
        model.writes().map_err(engine)?;
        check(&model, &ids)?;
        if ids.len() < 2 {
            return Err(wrong("expected at least two tokens: nothing predicts the first"));
        }
        let score = move |_: &Stop| Scorer::new(&model, 1).window(&ids, 1).map_err(engine);
        let scores = work(py, open.runtime(), score)?;
        Ok(PyArray1::from_vec(py, scores.into_iter().map(|token| token.logprob).collect()))
    }

    /// Perplexity of ids in windows of `context`, every `stride` tokens; without a stride by llama.cpp's convention.
    /// Gives the perplexity, its standard error and how many tokens were scored.
    fn perplexity(
        &self,
        py: Python<'_>,
        ids: Vec<u32>,
        context: usize,
        stride: Option<usize>,
    ) -> PyResult<(f64, f64, usize)> {
        let open = self.opened()?;
        let model = open.model().clone();
        model.writes().map_err(engine)?;
        let (vocab, most) = (model.config().vocab, model.config().context);
        if let Some(id) = ids.iter().find(|id| **id as usize >= vocab) {
            return Err(wrong(format!("token {id}: expected ids below {vocab}")));
        }
        if context > most {
            return Err(wrong(format!("a window of {context}: the model reads at most {most}")));
        }
        let convention = stride.map_or(Convention::Chunks, |stride| Convention::Sliding { stride });
        work(py, open.runtime(), move |stop| {
            let tokenizer = model.tokenizer().ok();
            let bos =
                tokenizer.filter(|tokenizer| tokenizer.adds_bos()).and_then(|tokenizer| tokenizer.bos());
            let windows = convention.windows(ids.len(), context, bos.is_some()).map_err(engine)?;
            let (mut scorer, mut sum) = (Scorer::new(&model, 1), Summary::default());
            for window in windows {
                if stop.is_told() {
                    return Err(stopped());
                }
                let scores = scorer.window(&window.of(&ids, bos), window.from).map_err(engine)?;
                scores.iter().for_each(|token| sum.add(token.logprob));
            }
            match sum.tokens {
                0 => Err(wrong(format!("{} tokens: too few for a window of {context}", ids.len()))),
                _ => Ok((sum.perplexity(), sum.error(), sum.tokens)),
            }
        })
    }

    /// Vectors of texts, `(texts, dim)`, of length 1.
    fn vectors<'py>(
        &self,
        py: Python<'py>,
        texts: Vec<String>,
        pooling: Option<&str>,
        cut: bool,
    ) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let open = self.opened()?;
        let (model, context) = (open.model().clone(), open.local.context());
        let pooling = crate::engine::pooling(pooling)?;
        let dim = model.config().dim;
        let rows = work(py, open.runtime(), move |stop| {
            let ids = |text: &String| match cut {
                true => Embedder::ids(&model, text, Some(context)).and_then(|ids| match ids.is_empty() {
                    true => Err(tern::Error::Input("a text without a token has no vector".to_owned())),
                    false => Ok(ids),
                }),
                false => Embedder::tokens(&model, text),
            };
            let texts: Vec<Vec<u32>> = texts.iter().map(ids).collect::<tern::Result<_>>().map_err(engine)?;
            let mut embedder = Embedder::new(&model, pooling).map_err(engine)?;
            let mut rows: Vec<f32> = Vec::new();
            rows.try_reserve_exact(texts.len() * dim)
                .map_err(|error| PyMemoryError::new_err(error.to_string()))?;
            for texts in texts.chunks(64) {
                if stop.is_told() {
                    return Err(stopped());
                }
                let vectors = embedder.embed(texts, |_| {}).map_err(engine)?;
                vectors.iter().for_each(|vector| rows.extend_from_slice(vector));
            }
            Ok(rows)
        })?;
        matrix(py, rows, dim)
    }

    /// Tokens of a text here, tokens that the model was made for, tokens of the vocabulary, numbers of a vector, layers,
    /// threads, and the family.
    fn sizes(&self) -> PyResult<(usize, usize, usize, usize, usize, usize, String)> {
        let open = self.opened()?;
        let (model, context) = (open.model(), open.local.context());
        let config = model.config();
        let family = config.family.to_string();
        Ok((context, config.context, config.vocab, config.dim, config.layers, model.threads(), family))
    }

    /// The pooling that the model's file asks for; `None` for a model that writes.
    fn pooling(&self) -> PyResult<Option<&'static str>> {
        let open = self.opened()?;
        let model = open.model();
        Ok(model.config().pooling.map(tern::Pooling::name))
    }
}
