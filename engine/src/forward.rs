//! The one forward pass: any number of tokens of any number of sequences, layer by layer.
//!
//! Prefill, decode and batches differ in the number of rows only, and no row's arithmetic depends on the others: the
//! same tokens give the same logits, alone or in company, in one piece or in many.

use std::time::Duration;

use tern_kernels::{
    Activations, Attention, HeadScratch, Norm, Panels, Place, Product, Rows, Unstorable, gate, products,
    rms_norm, rms_norm_here,
};

use crate::activity::Activity;
use crate::adapter::{Added, Source};
use crate::clock::Instant;
use crate::config::{Config, Inlet};
use crate::error::{Error, Result};
use crate::head::{HeadBuffers, Logits};
use crate::model::{Model, Turns};
use crate::sequence::Sequence;
use crate::units::{UnitReads, Way};
use crate::weights::{Layer, MANY, Projection, Weight};

/// One token on its way through the model.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Which of the sequences it continues.
    pub sequence: usize,
    /// Its id.
    pub token: u32,
    /// Which logits after it are wanted.
    pub logits: Logits,
}

/// Buffers of a forward pass, kept from one to the next.
#[derive(Debug, Default)]
pub struct Scratch {
    x: Vec<f32>,       // (rows, dim), the residual stream
    q: Vec<f32>,       // (rows, q_dim)
    k: Vec<f32>,       // (rows, kv_dim)
    v: Vec<f32>,       // (rows, kv_dim)
    heads: Vec<f32>,   // (rows, q_dim), the attention's output
    gate: Vec<f32>,    // (rows, hidden)
    up: Vec<f32>,      // (rows, hidden)
    out: Vec<f32>,     // (rows, dim)
    angles: Vec<f32>,  // (rows, head_dim): cosines, then sines
    sliding: Vec<f32>, // the same of layers with a sliding window
    logits: Vec<f32>,  // (rows that want them, vocab)
    head: HeadBuffers,
    places: Vec<Place>,
    attention: Attention,
    input: Input,
    /// Where that is asked for.
    activity: Option<Activity>,
    /// Where those of a layer are asked for.
    states: Option<States>,
    units: UnitReads,
}

/// What the projections of a layer's attention gave, before heads are normed and rotated.
#[derive(Debug)]
struct States {
    layer: usize,
    /// `(rows, q_dim)`, `(rows, kv_dim)`, `(rows, kv_dim)`.
    qkv: [Vec<f32>; 3],
}

/// The input of projections.
#[derive(Debug, Default)]
struct Input {
    codes: Activations,
    /// `(rows, columns)`, where each projection norms it once more.
    normed: Vec<f32>,
    /// The same, turned for products of floats.
    panels: Panels,
    /// `(outputs, rows)`, of products of floats.
    beside: Vec<f32>,
    /// What adapters add.
    added: Added,
}

impl Scratch {
    /// What the last forward pass returned.
    pub(crate) fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// One that counts what takes part.
    pub(crate) fn counting() -> Self {
        Self { activity: Some(Activity::default()), ..Self::default() }
    }

    /// One that keeps the queries, keys and values of a layer, for whoever learns from them.
    pub fn watching(layer: usize) -> Self {
        Self { states: Some(States { layer, qkv: Default::default() }), ..Self::default() }
    }

    /// Those of the last forward pass's rows, as the projections gave them (with their biases, heads neither normed nor
    /// rotated): `(rows, width)` each. `None` where nobody asked for them.
    pub fn states(&self) -> Option<[&[f32]; 3]> {
        self.states.as_ref().map(|states| states.qkv.each_ref().map(Vec::as_slice))
    }

    /// What took part in all its forward passes, where it counts.
    pub(crate) fn activity(&self) -> Option<&Activity> {
        self.activity.as_ref()
    }

    /// Counts what of the projections that have just been computed took part, if it counts.
    fn count(&mut self, inlet: Inlet, config: &Config) {
        if let Some(activity) = &mut self.activity {
            activity.add(inlet, config, &self.input.codes, &self.gate);
        }
    }

    /// What the last forward pass found behind the gates, if it was of one token.
    pub fn unit_reads(&self) -> UnitReads {
        self.units
    }

    /// Bytes that the last forward pass read of an int8 head, and how many rows of it were computed.
    pub fn head_reads(&self) -> (u64, u64) {
        let read = if self.head.tops.is_empty() { &HeadScratch::default() } else { &self.head.scratch };
        (read.bytes(), read.computed())
    }
}

impl Model {
    /// Takes `rows` through the model, in order; rows of one sequence are consecutive positions of it. Returns the
    /// logits of the rows that asked, `(asked, vocab)`. On an error the sequences are as they were before.
    pub fn forward<'s>(
        &self,
        scratch: &'s mut Scratch,
        sequences: &mut [Sequence],
        rows: &[Row],
    ) -> Result<&'s [f32]> {
        self.forward_allowed(scratch, sequences, rows, &[])
    }

    /// As [`Model::forward`], but where a row asks for the likeliest tokens, they are the likeliest of those `allowed`: a
    /// bit for each token, `(asked, vocab / 32 up)`, empty where all are.
    pub(crate) fn forward_allowed<'s>(
        &self,
        scratch: &'s mut Scratch,
        sequences: &mut [Sequence],
        rows: &[Row],
        allowed: &[u32],
    ) -> Result<&'s [f32]> {
        self.or_undone(sequences, |sequences| {
            self.blocks(scratch, sequences, rows)?;
            let rows = rows.iter().zip(scratch.x.chunks_exact(self.config.dim));
            self.leave(&mut scratch.head, &mut scratch.logits, allowed, rows)
        })?;
        Ok(&scratch.logits)
    }

    /// As [`Model::forward`], but the logits pass by: `each(nth, logits)` sees those of the nth row that asked, on
    /// whichever thread is free, and may write into them. For many rows that ask, whose logits together would be large.
    pub fn forward_each(
        &self,
        scratch: &mut Scratch,
        sequences: &mut [Sequence],
        rows: &[Row],
        each: impl Fn(usize, &mut [f32]) + Sync,
    ) -> Result<()> {
        /// Rows that pass the head together. The head is read once for each such piece; that many logits of a large
        /// vocabulary are 131 MB.
        const PIECE: usize = 256;
        let Config { dim, vocab, .. } = self.config;
        self.or_undone(sequences, |sequences| {
            self.blocks(scratch, sequences, rows)?;
            let Scratch { x, head, logits, .. } = scratch;
            let asked = |row: &(&Row, &[f32])| row.0.logits != Logits::None;
            let asked: Vec<_> = rows.iter().zip(x.chunks_exact(dim)).filter(asked).collect();
            for (piece, rows) in asked.chunks(PIECE).enumerate() {
                self.leave(head, logits, &[], rows.iter().copied())?;
                self.pool.for_chunks(logits, vocab, |row, logits| each(piece * PIECE + row, logits));
            }
            Ok(())
        })
    }

    /// Does something to the sequences; on an error they are as they were before.
    fn or_undone(
        &self,
        sequences: &mut [Sequence],
        work: impl FnOnce(&mut [Sequence]) -> Result<()>,
    ) -> Result<()> {
        let before: Vec<usize> = sequences.iter().map(|sequence| sequence.tokens().len()).collect();
        let result = work(sequences).and_then(|()| self.unchanged());
        if result.is_err() {
            for (sequence, len) in sequences.iter_mut().zip(before) {
                sequence.truncate(len);
            }
        }
        result
    }

    fn blocks(&self, s: &mut Scratch, sequences: &mut [Sequence], rows: &[Row]) -> Result<()> {
        self.enter(s, sequences, rows)?;
        let layers = &self.weights.layers;
        // An adapter opens and closes other gates than those that the copies by hidden unit are read by.
        let way = match s.input.added.is_empty() {
            true => self.units.way(rows.len(), self.cpu, &self.pool, layers),
            false => Way::Plain,
        };
        let mut time = Duration::ZERO;
        s.units = UnitReads::default();
        for (index, layer) in layers.iter().enumerate() {
            s.input.added.layer = index;
            self.attention(s, sequences, index, layer, way)?;
            let start = (way != Way::Plain).then(Instant::now);
            self.feed_forward(s, index, layer, way)?;
            time += start.map_or(Duration::ZERO, |start| start.elapsed());
        }
        self.units.note(way, &mut s.units, time, layers);
        Ok(())
    }

    /// Embeds the tokens, notes where they stand and how far their heads are to be rotated.
    fn enter(&self, s: &mut Scratch, sequences: &mut [Sequence], rows: &[Row]) -> Result<()> {
        let Config { dim, vocab, head_dim, .. } = self.config;
        if let Some(row) = rows.iter().find(|row| row.token as usize >= vocab) {
            let what = format!("token {} is not in the vocabulary of {vocab}", row.token);
            return Err(Error::Input(what));
        }
        for (index, sequence) in sequences.iter_mut().enumerate() {
            sequence.reserve(self, rows.iter().filter(|row| row.sequence == index).count())?;
        }
        s.x.resize(rows.len() * dim, 0.0);
        s.places.clear();
        s.input.added.clear();
        for (at, (row, x)) in rows.iter().zip(s.x.chunks_exact_mut(dim)).enumerate() {
            if let Some(adapter) = sequences[row.sequence].adapter() {
                s.input.added.push(at, adapter);
            }
            let position = sequences[row.sequence].tokens().len();
            sequences[row.sequence].push(row.token);
            s.places.push(Place { sequence: row.sequence, position });
            let embedded = self.weights.embedding.row(row.token as usize, x);
            embedded.map_err(|what| Error::Numeric(format!("embedding of token {}: {what}", row.token)))?;
            x.iter_mut().for_each(|x| *x *= self.config.graph.embedding_scale);
        }
        let turn = |turns: &Turns, angles: &mut Vec<f32>| {
            angles.resize(rows.len() * head_dim, 0.0);
            self.pool.for_chunks(angles, head_dim, |row, angles| {
                angles_at(turns, s.places[row].position, angles);
            });
        };
        turn(&self.turns, &mut s.angles);
        if let Some(turns) = &self.sliding_turns {
            turn(turns, &mut s.sliding);
        }
        s.attention.plan(self.config.attention_heads(), self.kv(), self.threads(), s.places.iter().copied());
        Ok(())
    }

    fn attention(
        &self,
        s: &mut Scratch,
        sequences: &mut [Sequence],
        index: usize,
        layer: &Layer,
        way: Way,
    ) -> Result<()> {
        let (q_dim, rows) = (self.config.q_dim(), s.places.len());
        let at = |what: &str| format!("layer {index}, {what}");

        let qkv = [(&layer.q, &mut s.q), (&layer.k, &mut s.k), (&layer.v, &mut s.v)];
        self.project(&mut s.input, &s.x, Some(&layer.attn_norm), Inlet::Qkv, qkv, || at("attention input"))?;
        s.count(Inlet::Qkv, &self.config);
        if let Some(states) = s.states.as_mut().filter(|states| states.layer == index) {
            for (kept, from) in states.qkv.iter_mut().zip([&s.q, &s.k, &s.v]) {
                kept.clone_from(from);
            }
        }
        if let Some([q_norm, k_norm]) = &layer.head_norms {
            self.norm(&mut s.q, q_dim, q_norm);
            self.norm(&mut s.k, self.config.kv_dim(), k_norm);
        }

        s.heads.resize(rows * q_dim, 0.0);
        let sliding = self.config.graph.sliding.as_ref().filter(|sliding| sliding.layers[index]);
        let (angles, window) = match sliding {
            Some(sliding) => (&s.sliding, sliding.window),
            None => (&s.angles, usize::MAX),
        };
        let attended = Rows { q: &mut s.q, k: &s.k, v: &s.v, angles, out: &mut s.heads, window };
        s.attention.run(self.cpu, &self.pool, index, attended, sequences).map_err(|what| {
            Error::Numeric(match what {
                Unstorable::NotFinite => {
                    at("keys and values: a value is not a number: the weights are broken")
                }
                Unstorable::BeyondF16 => {
                    at("keys and values: a value is beyond what the cache can hold; caches of `f32` and `int8` can hold any")
                }
            })
        })?;

        let (norm, output) = (layer.attn_sub_norm.as_deref(), || at("attention output"));
        if let Some(o) = self.units.copies(way, index).and_then(|copies| copies.o.as_ref()) {
            let norm = norm.map(|weight| Norm { weight, eps: self.config.norm_eps });
            self.quantise(&mut s.input.codes, &s.heads, q_dim, norm, Inlet::O, output)?;
            s.out.resize(self.config.dim, 0.0);
            o.matmul(self.cpu, &self.pool, &s.input.codes, &mut s.out);
            s.units.count_columns(o, &s.input.codes);
        } else {
            let o = [(&layer.o, &mut s.out)];
            self.project(&mut s.input, &s.heads, norm, Inlet::O, o, output)?;
        }
        s.count(Inlet::O, &self.config);
        self.add(&mut s.x, &mut s.out, layer.attn_post_norm.as_deref());
        Ok(())
    }

    fn feed_forward(&self, s: &mut Scratch, index: usize, layer: &Layer, way: Way) -> Result<()> {
        let Config { hidden, activation, .. } = self.config;
        let at = |what: &str| format!("layer {index}, {what}");
        let copies = self.units.copies(way, index);

        let (norm, input) = (Some(&layer.ffn_norm[..]), || at("feed-forward input"));
        if let Some(copies) = copies {
            self.project(&mut s.input, &s.x, norm, Inlet::GateUp, [(&layer.gate, &mut s.gate)], input)?;
            if let Some(up) = layer.up.weight.ternary() {
                copies.up(self.cpu, &self.pool, &mut s.input.codes, up, &s.gate, &mut s.up);
            }
        } else {
            let halves = [(&layer.gate, &mut s.gate), (&layer.up, &mut s.up)];
            self.project(&mut s.input, &s.x, norm, Inlet::GateUp, halves, input)?;
        }
        s.count(Inlet::GateUp, &self.config);
        if way != Way::Plain {
            s.units.count_gates(self.cpu, &s.gate);
        }
        let up = &s.up;
        self.pool.for_chunks(&mut s.gate, hidden, |row, out| {
            gate(self.cpu, activation, out, &up[row * hidden..][..hidden]);
        });

        let (norm, output) = (layer.ffn_sub_norm.as_deref(), || at("feed-forward output"));
        if let Some(copies) = copies {
            let norm = norm.map(|weight| Norm { weight, eps: self.config.norm_eps });
            self.quantise(&mut s.input.codes, &s.gate, hidden, norm, Inlet::Down, output)?;
            copies.down.matmul(self.cpu, &self.pool, &s.input.codes, &mut s.out);
        } else {
            let down = [(&layer.down, &mut s.out)];
            self.project(&mut s.input, &s.gate, norm, Inlet::Down, down, output)?;
        }
        s.count(Inlet::Down, &self.config);
        if way != Way::Plain {
            s.units.count_codes(self.cpu, s.input.codes.codes(0));
        }
        self.add(&mut s.x, &mut s.out, layer.ffn_post_norm.as_deref());
        Ok(())
    }

    /// Takes `rows` through the model as [`Model::forward`] does, but gives the last hidden states of the rows that asked
    /// for logits, normed: `(asked, dim)`.
    pub fn hidden<'s>(
        &self,
        scratch: &'s mut Scratch,
        sequences: &mut [Sequence],
        rows: &[Row],
    ) -> Result<&'s [f32]> {
        self.or_undone(sequences, |sequences| self.blocks(scratch, sequences, rows))?;
        let asked = rows.iter().zip(scratch.x.chunks_exact(self.config.dim));
        self.normed(&mut scratch.head, asked);
        Ok(&scratch.head.normed)
    }

    /// The final norm, for the rows that want logits; with each its place in the residual stream.
    fn normed<'x>(&self, head: &mut HeadBuffers, rows: impl Iterator<Item = (&'x Row, &'x [f32])>) {
        let Config { dim, norm_eps, .. } = self.config;
        head.tops.clear();
        head.normed.clear();
        for (row, x) in rows.filter(|(row, _)| row.logits != Logits::None) {
            head.tops.push(if let Logits::Top(k) = row.logits { k } else { 0 });
            let start = head.normed.len();
            head.normed.resize(start + dim, 0.0);
            rms_norm(self.cpu, x, &self.weights.norm, norm_eps, &mut head.normed[start..]);
        }
    }

    /// The final norm and the head, for the rows that want logits.
    fn leave<'x>(
        &self,
        head: &mut HeadBuffers,
        logits: &mut Vec<f32>,
        allowed: &[u32],
        rows: impl Iterator<Item = (&'x Row, &'x [f32])>,
    ) -> Result<()> {
        let Config { vocab, ref graph, .. } = self.config;
        self.normed(head, rows);
        head.normed.iter_mut().for_each(|x| *x /= graph.logit_scale);
        logits.resize(head.tops.len() * vocab, 0.0);
        if logits.is_empty() { Ok(()) } else { self.head(head, allowed, logits) }
    }

    /// Several projections of rows `x`, normed first where there is a norm: in one pass of the threads where they
    /// share their input, one after another where each norms it once more.
    fn project<const N: usize>(
        &self,
        input: &mut Input,
        x: &[f32],
        norm: Option<&[f32]>,
        inlet: Inlet,
        list: [(&Projection, &mut Vec<f32>); N],
        at: impl Fn() -> String,
    ) -> Result<()> {
        /// Of the norms in front of single projections, as they were trained.
        const INPUT_EPS: f32 = 1e-8;
        const ALL: &str = "a model is of floats in all its matrices or in none";
        let cols = self.config.width(inlet);
        let mut list = list.map(|(projection, out)| {
            out.resize(x.len() / cols * projection.weight.rows(), 0.0);
            (projection, out)
        });
        if let Some((Projection { weight: Weight::Floats(_), .. }, _)) = list.first() {
            self.multiply_floats(input, x, cols, norm, &mut list);
        } else if self.config.graph.input_norms {
            self.norm_into(&mut input.normed, x, cols, norm);
            for (projection, out) in &mut list {
                let own = projection.norm.as_deref().map(|weight| Norm { weight, eps: INPUT_EPS });
                self.quantise(&mut input.codes, &input.normed, cols, own, inlet, &at)?;
                let product = Product { matrix: projection.weight.ternary().expect(ALL), out };
                products(self.cpu, &self.pool, &mut input.codes, [product]);
            }
        } else {
            let norm = norm.map(|weight| Norm { weight, eps: self.config.norm_eps });
            self.quantise(&mut input.codes, x, cols, norm, inlet, &at)?;
            let list = list
                .each_mut()
                .map(|(projection, out)| Product { matrix: projection.weight.ternary().expect(ALL), out });
            products(self.cpu, &self.pool, &mut input.codes, list);
        }
        for (projection, out) in &mut list {
            if let Some(bias) = &projection.bias {
                self.pool.for_chunks(out, bias.len(), |_, out| {
                    out.iter_mut().zip(bias).for_each(|(out, bias)| *out += bias);
                });
            }
        }
        if !input.added.is_empty() {
            let norm = norm.map(|weight| Norm { weight, eps: self.config.norm_eps });
            let outs = list.into_iter().map(|(_, out)| out);
            input.added.add(self.cpu, &self.pool, Source { inlet, x, cols, norm }, outs);
        }
        Ok(())
    }

    /// The same projections of a model that is run in floats: nothing is rounded.
    fn multiply_floats(
        &self,
        input: &mut Input,
        x: &[f32],
        cols: usize,
        norm: Option<&[f32]>,
        list: &mut [(&Projection, &mut Vec<f32>)],
    ) {
        let Input { normed, panels, beside, .. } = input;
        self.norm_into(normed, x, cols, norm);
        let count = normed.len() / cols;
        if count >= MANY {
            panels.set(&self.pool, normed, cols);
        }
        for (projection, out) in list {
            match &projection.weight {
                Weight::Floats(matrix) if count == 1 => matrix.product(self.cpu, &self.pool, normed, out),
                Weight::Floats(matrix) => {
                    matrix.products(self.cpu, &self.pool, normed, panels, beside, out);
                }
                _ => {}
            }
        }
    }

    fn quantise(
        &self,
        codes: &mut Activations,
        x: &[f32],
        cols: usize,
        norm: Option<Norm<'_>>,
        inlet: Inlet,
        at: impl Fn() -> String,
    ) -> Result<()> {
        let broken = |_| Error::Numeric(format!("{}: a value is not a number: the weights are broken", at()));
        codes.set(self.intakes[inlet as usize], self.cpu, &self.pool, x, cols, norm).map_err(broken)
    }

    /// Norms `x` where it lies; a row of `width` is one or more times as wide as the norm.
    fn norm(&self, x: &mut [f32], width: usize, weight: &[f32]) {
        self.pool.for_chunks(x, width, |_, x| rms_norm_here(self.cpu, x, weight, self.config.norm_eps));
    }

    /// `out` becomes `x`, rows of `width`, normed where there is a norm.
    fn norm_into(&self, out: &mut Vec<f32>, x: &[f32], width: usize, norm: Option<&[f32]>) {
        out.clear();
        out.extend_from_slice(x);
        if let Some(norm) = norm {
            self.norm(out, width, norm);
        }
    }

    /// `x += out`, rows of `dim`; `out` is normed first where there is a norm, and scaled.
    fn add(&self, x: &mut [f32], out: &mut [f32], norm: Option<&[f32]>) {
        let (dim, scale) = (self.config.dim, self.config.graph.residual_scale);
        if let Some(norm) = norm {
            self.norm(out, dim, norm);
        }
        let out = &*out;
        self.pool.for_chunks(x, dim, |row, x| {
            x.iter_mut().zip(&out[row * dim..]).for_each(|(x, out)| *x += out * scale);
        });
    }
}

/// Cosines and then sines of `position * frequency`; the angle is rounded to f32 before its cosine is taken, as the
/// models were trained.
fn angles_at(turns: &Turns, position: usize, out: &mut [f32]) {
    let (cosines, sines) = out.split_at_mut(turns.frequencies.len());
    for ((cosine, sine), frequency) in cosines.iter_mut().zip(sines).zip(&turns.frequencies) {
        let (s, c) = f64::from(position as f32 * frequency).sin_cos();
        (*cosine, *sine) = (c as f32 * turns.magnitude, s as f32 * turns.magnitude);
    }
}
