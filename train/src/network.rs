//! The whole transformer forward and backward: the engine's graph (`tern`'s `forward.rs`) over sequences of one length, and
//! below it the same lines from the end to the beginning.

use tern::{Config, Inlet, KvFormat};
use tern_kernels::Norm;

use crate::corpus::Sequences;
use crate::error::{Error, Result};
use crate::lora::Base;
use crate::ops::attention::{self, Saved, Shape};
use crate::ops::linear::{self, Input, NotFinite, Weight};
use crate::ops::lora::{self, Source};
use crate::ops::loss::divergence;
use crate::ops::loss::{self, RowLoss};
use crate::ops::quantiser::Quantiser;
use crate::ops::relation;
use crate::ops::rope::{self, Angles, Heads};
use crate::ops::{Machine, bias, cache, gate, norm};
use crate::params::{Block, Kind, Layout};
use crate::stages::Stages;

/// Whole sequences of tokens, one after another.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// `(rows)`, a multiple of the sequence's length.
    pub tokens: &'a [u32],
    /// What is to come next, or [`loss::NONE`].
    pub targets: &'a [u32],
    /// The position in its sequence where each token's document begins; attention does not reach before it.
    pub starts: &'a [u32],
}

impl<'a> From<&'a Sequences> for Batch<'a> {
    fn from(Sequences { tokens, targets, starts, .. }: &'a Sequences) -> Self {
        Self { tokens, targets, starts }
    }
}

pub use crate::ops::loss::Says;

/// What a teacher says of a batch, and how much it counts.
#[derive(Clone, Copy, Debug)]
pub struct Lesson<'a> {
    /// How much its logits count.
    pub weight: divergence::Weight,
    /// What they are, if they do.
    pub says: Option<Says<'a>>,
    /// How its attention sees tokens beside each other, if that counts.
    pub relation: Option<Relation<'a>>,
}

/// A teacher's queries, keys and values.
#[derive(Clone, Copy, Debug)]
pub struct Relation<'a> {
    /// The layer that learns of them.
    pub layer: usize,
    /// Parts that rows are cut into.
    pub heads: usize,
    /// What the divergence of relations is multiplied by.
    pub weight: f32,
    /// `(rows, their width)` each.
    pub states: [&'a [f32]; 3],
}

/// Where gradients go.
#[derive(Debug)]
pub struct Gradients<'a> {
    /// As long as the parameters.
    pub values: &'a mut [f32],
    /// What a row's loss counts.
    pub factor: f32,
    /// What each row's counts times that, where they differ.
    pub weights: Option<&'a [f32]>,
    /// What a teacher says, if there is one.
    pub lesson: Option<Lesson<'a>>,
}

/// What a layer's backward pass needs of its forward pass.
#[derive(Debug)]
struct State {
    attn_in: Input,     // (rows, dim)
    raw: [Vec<f32>; 2], // (rows, q_dim) and (rows, kv_dim), q and k before their heads are normed
    q: Vec<f32>,        // (sequence, head, position, head_dim), rotated
    k: Vec<f32>,        // the same with kv heads
    v: Vec<f32>,        // the same with kv heads
    lse: Vec<f32>,      // (sequence, head, position)
    heads: Vec<f32>,    // (rows, q_dim)
    o_in: Input,        // (rows, q_dim)
    o: Vec<f32>,        // (rows, dim), before it is normed
    mid: Vec<f32>,      // (rows, dim), the stream between the halves
    ffn_in: Input,      // (rows, dim)
    gate: Vec<f32>,     // (rows, hidden)
    up: Vec<f32>,       // (rows, hidden)
    down_in: Input,     // (rows, hidden)
    down: Vec<f32>,     // (rows, dim), before it is normed
}

impl State {
    fn new(quantiser: Quantiser) -> Self {
        let input = || Input::new(quantiser);
        let none = Vec::new;
        Self {
            attn_in: input(),
            raw: [none(), none()],
            q: none(),
            k: none(),
            v: none(),
            lse: none(),
            heads: none(),
            o_in: input(),
            o: none(),
            mid: none(),
            ffn_in: input(),
            gate: none(),
            up: none(),
            down_in: input(),
            down: none(),
        }
    }
}

/// Matrices of a layer, prepared for a step.
#[derive(Debug)]
struct Weights {
    q: Weight,
    k: Weight,
    v: Weight,
    o: Weight,
    gate: Weight,
    up: Weight,
    down: Weight,
}

/// Buffers that no layer keeps.
#[derive(Debug, Default)]
struct Room {
    a: Vec<f32>,         // (rows, the widest)
    b: Vec<f32>,         // (rows, q_dim)
    c: Vec<f32>,         // (rows, kv_dim)
    d: Vec<f32>,         // (rows, kv_dim)
    e: Vec<f32>,         // (rows, dim)
    under: Vec<f32>,     // (rows, q_dim), the gradient below a norm of what attention gives or of q
    under_k: Vec<f32>,   // (rows, kv_dim), the gradient below the norm of k
    branch: Vec<f32>,    // (rows, dim), the gradient below a norm of what a branch gives
    head_norm: Vec<f32>, // (head_dim), the norm of q with its scale
    dq: Vec<f32>,        // as q
    dk: Vec<f32>,        // as k
    dv: Vec<f32>,        // as v
    dx: Vec<f32>,        // (rows, dim), the gradient of the stream
    partial: Vec<f32>,   // of norms
    h: Vec<f32>,         // (rows, hidden), what goes down, for an adapter's gradient
    linear: linear::Room,
    lora: lora::Room,
}

/// A model in training.
#[derive(Debug)]
pub struct Network {
    config: Config,
    layout: Layout,
    positions: usize,
    recompute: bool,
    quantiser: Quantiser,
    /// How far weights and inputs are rounded.
    share: f32,
    /// The cache that keys and values are rounded for.
    kv: KvFormat,
    angles: Angles,
    /// Those of layers with a sliding window.
    sliding: Option<Angles>,
    /// Where such layers begin to see, for each row.
    windowed: Vec<u32>,
    weights: Vec<Weights>,
    /// One of each layer, or a single one where layers are computed again.
    states: Vec<State>,
    /// The stream before each layer and after the last, `(rows, dim)`.
    stream: Vec<Vec<f32>>,
    normed: Vec<f32>, // (rows, dim)
    room: Room,
    head: loss::Room,
    trits: Vec<i8>,
    /// The layer whose queries, keys and values are compared with a teacher's, and these.
    watched: Option<usize>,
    qkv: [Vec<f32>; 3],
    /// What the last batch's differ by: the sum over rows.
    relation: f64,
    /// What an adapter is trained beside.
    base: Option<Base>,
}

fn sized(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    buffer.resize(len, 0.0);
    buffer
}

/// Whether this layer sees the last positions only.
fn slides(config: &Config, layer: usize) -> bool {
    config.graph.sliding.as_ref().is_some_and(|sliding| sliding.layers[layer])
}

/// The norm of q as the engine has it, times what queries are multiplied by.
fn scaled(out: &mut Vec<f32>, w: &[f32], scale: f32) {
    out.clear();
    out.extend(w.iter().map(|w| w * scale));
}

impl Network {
    /// For sequences of as many tokens as `angles` has positions. With `recompute`, layers keep only their input and are
    /// computed again for the backward pass.
    pub fn new(
        config: &Config,
        layout: &Layout,
        angles: Angles,
        quantiser: Quantiser,
        recompute: bool,
    ) -> Self {
        let weight = || Weight::new(quantiser);
        let weights = |_| Weights {
            q: weight(),
            k: weight(),
            v: weight(),
            o: weight(),
            gate: weight(),
            up: weight(),
            down: weight(),
        };
        let rope = config.graph.sliding.as_ref().map(|sliding| &sliding.rope);
        let sliding = rope.map(|rope| Angles::new(rope, config.head_dim, angles.positions()));
        let kept = if recompute { 1 } else { config.layers };
        Self {
            config: config.clone(),
            layout: layout.clone(),
            positions: angles.positions(),
            recompute,
            quantiser,
            share: 1.0,
            kv: KvFormat::F32,
            sliding,
            windowed: Vec::new(),
            angles,
            weights: (0..config.layers).map(weights).collect(),
            states: (0..kept).map(|_| State::new(quantiser)).collect(),
            stream: vec![Vec::new(); config.layers + 1],
            normed: Vec::new(),
            room: Room::default(),
            head: loss::Room::default(),
            trits: Vec::new(),
            watched: None,
            qkv: Default::default(),
            relation: 0.0,
            base: None,
        }
    }

    /// Puts the base of an adapter in: the parameters are the adapter's from now on, in the layout of one.
    pub fn set_base(&mut self, on: Machine, mut base: Base) {
        for (weights, matrices) in self.weights.iter_mut().zip(std::mem::take(&mut base.matrices)) {
            let Weights { q, k, v, o, gate, up, down } = weights;
            for (weight, matrix) in [q, k, v, o, gate, up, down].into_iter().zip(matrices) {
                *weight = Weight::Frozen(matrix);
            }
        }
        self.head.prepare(on, base.head.as_ref().unwrap_or(&base.embedding), self.config.dim);
        self.base = Some(base);
    }

    /// How numbers are rounded from now on: as in step `step` of these stages, counted from 1; to be called before
    /// [`Network::prepare`].
    pub fn set_stage(&mut self, stages: Stages, step: u64) {
        self.config.graph.scheme = stages.at(step);
        self.set_kv(stages.kv_at(step));
        self.set_share(stages.share(step));
    }

    /// The cache that keys and values are rounded for from now on.
    pub fn set_kv(&mut self, kv: KvFormat) {
        self.kv = kv;
    }

    /// How far weights and inputs are rounded from now on, from 0 (floats) to 1; to be called before [`Network::prepare`].
    pub fn set_share(&mut self, share: f32) {
        if share == self.share || !self.quantiser.rounds() {
            return;
        }
        self.share = share;
        let quantiser = self.quantiser;
        let whole = share >= 1.0;
        let weight = || if whole { Weight::new(quantiser) } else { Weight::partly(quantiser, share) };
        let input = || if whole { Input::new(quantiser) } else { Input::partly(quantiser, share) };
        for Weights { q, k, v, o, gate, up, down } in &mut self.weights {
            [q, k, v, o, gate, up, down].into_iter().for_each(|old| *old = weight());
        }
        for State { attn_in, o_in, ffn_in, down_in, .. } in &mut self.states {
            [attn_in, o_in, ffn_in, down_in].into_iter().for_each(|old| *old = input());
        }
    }

    /// What the relations of the last batch differ by from the teacher's: for queries, keys and values together the sum over
    /// rows of the mean over heads, by their number once more.
    pub fn relation(&self) -> f64 {
        self.relation
    }

    /// Takes new parameters in: quantises and packs every matrix.
    pub fn prepare(&mut self, on: Machine, params: &[f32]) -> Result<()> {
        if self.base.is_some() {
            return Ok(());
        }
        let Config { dim, hidden, .. } = self.config;
        let q_dim = self.config.q_dim();
        for (layer, (weights, block)) in self.weights.iter_mut().zip(&self.layout.blocks).enumerate() {
            let Weights { q, k, v, o, gate, up, down } = weights;
            let list = [
                (q, &block.q, dim),
                (k, &block.k, dim),
                (v, &block.v, dim),
                (o, &block.o, q_dim),
                (gate, &block.gate, dim),
                (up, &block.up, dim),
                (down, &block.down, hidden),
            ];
            for (weight, range, inputs) in list {
                let prepared = weight.prepare(on, &params[range.clone()], inputs, &mut self.trits);
                prepared.map_err(|NotFinite| Error::NotFinite(layer))?;
            }
        }
        self.head.prepare(on, &params[self.layout.head.clone()], dim);
        Ok(())
    }

    /// The loss of every row, and with `back` the gradients. [`Network::prepare`] has seen these parameters.
    pub fn run(
        &mut self,
        on: Machine,
        params: &[f32],
        batch: Batch,
        losses: &mut [RowLoss],
        back: Option<Gradients>,
    ) -> Result<()> {
        let Config { dim, vocab, layers, norm_eps, .. } = self.config;
        let rows = batch.tokens.len();
        assert!(rows.is_multiple_of(self.positions), "{rows} tokens are no sequences of {}", self.positions);
        assert!(batch.targets.len() == rows && batch.starts.len() == rows && losses.len() == rows, "rows");
        let embedding = match &self.base {
            Some(base) => &base.embedding,
            None => &params[self.layout.embedding.clone()],
        };
        let first = sized(&mut self.stream[0], rows * dim);
        for (x, &token) in first.chunks_exact_mut(dim).zip(batch.tokens) {
            assert!((token as usize) < vocab, "token {token} of a vocabulary of {vocab}");
            x.copy_from_slice(&embedding[token as usize * dim..][..dim]);
        }
        let scale = self.config.graph.embedding_scale;
        if scale != 1.0 {
            first.iter_mut().for_each(|x| *x *= scale);
        }
        if let Some(sliding) = &self.config.graph.sliding {
            let see = |(row, start): (usize, &u32)| {
                let position = row % self.positions;
                (*start).max((position + 1).saturating_sub(sliding.window) as u32)
            };
            self.windowed.clear();
            self.windowed.extend(batch.starts.iter().enumerate().map(see));
        }
        let lesson = back.as_ref().and_then(|back| back.lesson);
        let relation = lesson.and_then(|lesson| lesson.relation);
        self.watched = relation.map(|relation| relation.layer);
        self.relation = 0.0;
        for layer in 0..layers {
            self.forward(on, params, batch.starts, layer).map_err(|NotFinite| Error::NotFinite(layer))?;
        }
        let x = &self.stream[layers];
        let w = &params[self.layout.norm.clone()];
        norm::forward(on, x, w, norm_eps, sized(&mut self.normed, rows * dim));
        let Some(Gradients { values, factor, weights, .. }) = back else {
            self.head.run(on, &self.normed, dim, batch.targets, losses, None);
            return Ok(());
        };

        // Those of matrices are written, the others added up row by row.
        for slice in self.layout.slices.iter().filter(|slice| slice.kind != Kind::Matrix) {
            values[slice.range.clone()].fill(0.0);
        }
        let room = &mut self.room;
        let back = loss::Back {
            e: match &self.base {
                Some(base) => base.head.as_ref().unwrap_or(&base.embedding),
                None => &params[self.layout.head.clone()],
            },
            factor,
            weights,
            dx: sized(&mut room.e, rows * dim),
            de: self.base.is_none().then_some(&mut values[self.layout.head.clone()]),
            lesson: lesson.and_then(|lesson| Some((lesson.says?, lesson.weight))),
        };
        self.head.run(on, &self.normed, dim, batch.targets, losses, Some(back));
        let (dx, dw) = (sized(&mut room.dx, rows * dim), &mut values[self.layout.norm.clone()]);
        norm::backward(on, x, w, norm_eps, &room.e, dx, false, dw, &mut room.partial);
        for layer in (0..layers).rev() {
            if self.recompute {
                self.forward(on, params, batch.starts, layer).map_err(|NotFinite| Error::NotFinite(layer))?;
            }
            let pull = relation.filter(|relation| relation.layer == layer).map(|relation| (relation, factor));
            self.backward(on, params, batch, layer, pull, values);
        }
        if self.base.is_some() {
            for slice in self.layout.slices.iter().filter(|slice| slice.kind == Kind::Frozen) {
                values[slice.range.clone()].fill(0.0);
            }
            return Ok(());
        }
        let embedding = &mut values[self.layout.embedding.clone()];
        for (dx, &token) in self.room.dx.chunks_exact(dim).zip(batch.tokens) {
            let row = &mut embedding[token as usize * dim..][..dim];
            row.iter_mut().zip(dx).for_each(|(row, dx)| *row += scale * dx);
        }
        Ok(())
    }

    fn heads(&self, count: usize) -> Heads {
        Heads { count, dim: self.config.head_dim, positions: self.positions }
    }

    fn shape(&self) -> Shape {
        let Config { heads, kv_heads, head_dim, .. } = self.config;
        Shape { kv: kv_heads, group: heads / kv_heads, dim: head_dim, positions: self.positions }
    }

    /// One layer, from `stream[layer]` to `stream[layer + 1]`.
    fn forward(
        &mut self,
        on: Machine,
        params: &[f32],
        starts: &[u32],
        layer: usize,
    ) -> Result<(), NotFinite> {
        let Config { dim, hidden, norm_eps: eps, activation, heads, kv_heads, .. } = self.config;
        let (q_dim, kv_dim, rows) = (self.config.q_dim(), self.config.kv_dim(), starts.len());
        let (query, kv, shape) = (self.heads(heads), self.heads(kv_heads), self.shape());
        let config = &self.config;
        let intake = |inlet: Inlet| config.graph.scheme.intake(inlet, config.width(inlet));
        let block = &self.layout.blocks[layer];
        let weight = |range: &std::ops::Range<usize>| Some(Norm { weight: &params[range.clone()], eps });
        let s = &mut self.states[if self.recompute { 0 } else { layer }];
        let (w, room) = (&self.weights[layer], &mut self.room);
        let (before, after) = self.stream.split_at_mut(layer + 1);
        let (x, out) = (&before[layer], sized(&mut after[0], rows * dim));

        s.attn_in.set(on, intake(Inlet::Qkv), x, dim, weight(&block.attn_norm))?;
        let (q, k) = (sized(&mut room.b, rows * q_dim), sized(&mut room.c, rows * kv_dim));
        let v = sized(&mut room.d, rows * kv_dim);
        linear::forward(on, &mut s.attn_in, [(&w.q, &mut *q), (&w.k, &mut *k), (&w.v, &mut *v)]);
        let [at_q, at_k, at_v, at_o, at_gate, at_up, at_down] = block.adapters.each_ref().map(Option::as_ref);
        let source = |x, cols, norm| Source { x, cols, norm };
        let (from, to) = (source(x, dim, weight(&block.attn_norm)), [&mut *q, &mut *k, &mut *v]);
        lora::forward(on, params, [at_q, at_k, at_v], from, to, &mut room.lora);
        if let Some(biases) = &block.biases {
            for (range, out) in biases.iter().zip([&mut *q, &mut *k, &mut *v]) {
                bias::forward(on, &params[range.clone()], out);
            }
        }
        if self.watched == Some(layer) {
            for (kept, from) in self.qkv.iter_mut().zip([&*q, &*k, &*v]) {
                kept.clear();
                kept.extend_from_slice(from);
            }
        }
        if let Some([q_norm, k_norm]) = &block.head_norms {
            let [raw_q, raw_k] = &mut s.raw;
            scaled(&mut room.head_norm, &params[q_norm.clone()], config.graph.query_scale);
            for (raw, out, w) in
                [(raw_q, &mut *q, &room.head_norm[..]), (raw_k, &mut *k, &params[k_norm.clone()])]
            {
                raw.clear();
                raw.extend_from_slice(out);
                norm::forward(on, raw, w, eps, out);
            }
        }
        let (angles, seen) = match &self.sliding {
            Some(angles) if slides(config, layer) => (angles, &self.windowed[..]),
            _ => (&self.angles, starts),
        };
        rope::forward(on, query, Some(angles), q, sized(&mut s.q, rows * q_dim));
        rope::forward(on, kv, Some(angles), k, sized(&mut s.k, rows * kv_dim));
        rope::forward(on, kv, None, v, sized(&mut s.v, rows * kv_dim));
        cache::forward(on, self.kv.keys, kv, starts, &mut s.k)?;
        cache::forward(on, self.kv.values, kv, starts, &mut s.v)?;
        let lse = sized(&mut s.lse, rows * heads);
        attention::forward(on, shape, seen, &s.q, &s.k, &s.v, q, lse);
        rope::backward(on, query, None, q, sized(&mut s.heads, rows * q_dim));
        let sub_norm = block.attn_sub_norm.as_ref().and_then(weight);
        s.o_in.set(on, intake(Inlet::O), &s.heads, q_dim, sub_norm)?;
        let mid = sized(&mut s.mid, rows * dim);
        linear::forward(on, &mut s.o_in, [(&w.o, &mut *mid)]);
        lora::forward(on, params, [at_o], source(&s.heads, q_dim, sub_norm), [&mut *mid], &mut room.lora);
        if let Some(range) = &block.attn_post_norm {
            s.o.clear();
            s.o.extend_from_slice(mid);
            norm::forward(on, &s.o, &params[range.clone()], eps, mid);
        }
        on.add(mid, x);

        s.ffn_in.set(on, intake(Inlet::GateUp), mid, dim, weight(&block.ffn_norm))?;
        let (gate, up) = (sized(&mut s.gate, rows * hidden), sized(&mut s.up, rows * hidden));
        linear::forward(on, &mut s.ffn_in, [(&w.gate, &mut *gate), (&w.up, &mut *up)]);
        let (from, to) = (source(mid, dim, weight(&block.ffn_norm)), [&mut *gate, &mut *up]);
        lora::forward(on, params, [at_gate, at_up], from, to, &mut room.lora);
        let h = sized(&mut room.a, rows * hidden);
        gate::forward(on, activation, hidden, gate, up, h);
        let sub_norm = block.ffn_sub_norm.as_ref().and_then(weight);
        s.down_in.set(on, intake(Inlet::Down), h, hidden, sub_norm)?;
        linear::forward(on, &mut s.down_in, [(&w.down, &mut *out)]);
        lora::forward(on, params, [at_down], source(h, hidden, sub_norm), [&mut *out], &mut room.lora);
        if let Some(range) = &block.ffn_post_norm {
            s.down.clear();
            s.down.extend_from_slice(out);
            norm::forward(on, &s.down, &params[range.clone()], eps, out);
        }
        on.add(out, mid);
        Ok(())
    }

    /// The same layer backward: `room.dx` is the gradient of the stream, after it and then before it.
    fn backward(
        &mut self,
        on: Machine,
        params: &[f32],
        batch: Batch,
        layer: usize,
        pull: Option<(Relation, f32)>,
        grads: &mut [f32],
    ) {
        let Batch { starts, targets, .. } = batch;
        let Config { dim, hidden, norm_eps: eps, activation, heads, kv_heads, .. } = self.config;
        let (q_dim, kv_dim, rows) = (self.config.q_dim(), self.config.kv_dim(), starts.len());
        let (query, kv, shape) = (self.heads(heads), self.heads(kv_heads), self.shape());
        let Block {
            attn_norm,
            q,
            k,
            v,
            biases,
            head_norms,
            attn_sub_norm,
            o,
            attn_post_norm,
            ffn_norm,
            gate,
            up,
            ffn_sub_norm,
            down,
            ffn_post_norm,
            adapters,
        } = &self.layout.blocks[layer];
        let [at_q, at_k, at_v, at_o, at_gate, at_up, at_down] = adapters.each_ref().map(Option::as_ref);
        let s = &mut self.states[if self.recompute { 0 } else { layer }];
        let (w, x) = (&self.weights[layer], &self.stream[layer]);
        let Room {
            a,
            b,
            c,
            d,
            e,
            under,
            under_k,
            branch,
            head_norm,
            dq,
            dk,
            dv,
            dx,
            partial,
            h,
            linear,
            lora: low,
        } = &mut self.room;
        let at = |range: &std::ops::Range<usize>| &params[range.clone()];
        let normed = |range: &std::ops::Range<usize>| Norm { weight: &params[range.clone()], eps };
        let config = &self.config;
        let hadamard = |inlet: Inlet| config.graph.scheme.intake(inlet, config.width(inlet)).block;

        // out = mid + norm(down(norm(act(gate) * up)))
        let mut g: &[f32] = dx;
        if let Some(range) = ffn_post_norm {
            let branch = sized(branch, rows * dim);
            norm::backward(on, &s.down, at(range), eps, g, branch, false, &mut grads[range.clone()], partial);
            g = branch;
        }
        let dh = sized(a, rows * hidden);
        linear.begin(on, &s.down_in);
        linear.backward(on, &s.down_in, &w.down, at(down), g, &mut grads[down.clone()], dh, false);
        on.hadamard(dh, hidden, hadamard(Inlet::Down));
        if at_down.is_some() {
            let h = sized(h, rows * hidden);
            gate::forward(on, activation, hidden, &s.gate, &s.up, h);
            let from = Source { x: h, cols: hidden, norm: ffn_sub_norm.as_ref().map(normed) };
            lora::backward(on, params, [at_down], from, [g], grads, dh, low);
        }
        let sub_norm = ffn_sub_norm.as_ref().map(|range| gate::SubNorm { w: at(range), eps });
        let dw = ffn_sub_norm.as_ref().map_or(&mut [][..], |range| &mut grads[range.clone()]);
        gate::backward(on, activation, hidden, &mut s.gate, &mut s.up, sub_norm, dh, dw, partial);
        let dn = sized(e, rows * dim);
        linear.begin(on, &s.ffn_in);
        linear.backward(on, &s.ffn_in, &w.gate, at(gate), &s.gate, &mut grads[gate.clone()], dn, false);
        linear.backward(on, &s.ffn_in, &w.up, at(up), &s.up, &mut grads[up.clone()], dn, true);
        let from = Source { x: &s.mid, cols: dim, norm: Some(normed(ffn_norm)) };
        lora::backward(on, params, [at_gate, at_up], from, [&s.gate, &s.up], grads, dn, low);
        norm::backward(on, &s.mid, at(ffn_norm), eps, dn, dx, true, &mut grads[ffn_norm.clone()], partial);

        // mid = x + norm(o(norm(attention(norm(q), norm(k), v))))
        let mut g: &[f32] = dx;
        if let Some(range) = attn_post_norm {
            let branch = sized(branch, rows * dim);
            norm::backward(on, &s.o, at(range), eps, g, branch, false, &mut grads[range.clone()], partial);
            g = branch;
        }
        let dheads = sized(b, rows * q_dim);
        linear.begin(on, &s.o_in);
        linear.backward(on, &s.o_in, &w.o, at(o), g, &mut grads[o.clone()], dheads, false);
        on.hadamard(dheads, q_dim, hadamard(Inlet::O));
        let from = Source { x: &s.heads, cols: q_dim, norm: attn_sub_norm.as_ref().map(normed) };
        lora::backward(on, params, [at_o], from, [g], grads, dheads, low);
        let mut g: &[f32] = dheads;
        if let Some(range) = attn_sub_norm {
            let under = sized(under, rows * q_dim);
            norm::backward(on, &s.heads, at(range), eps, g, under, false, &mut grads[range.clone()], partial);
            g = under;
        }
        let saved = Saved { q: &s.q, k: &s.k, v: &s.v, o: &s.heads, lse: &s.lse };
        let (dq, dk) = (sized(dq, rows * q_dim), sized(dk, rows * kv_dim));
        let dv = sized(dv, rows * kv_dim);
        let (angles, starts) = match &self.sliding {
            Some(angles) if slides(config, layer) => (angles, &self.windowed[..]),
            _ => (&self.angles, starts),
        };
        attention::backward(on, shape, starts, saved, g, dq, dk, dv);
        let (mut gq, mut gk) = (sized(b, rows * q_dim), sized(c, rows * kv_dim));
        let gv = sized(d, rows * kv_dim);
        rope::backward(on, query, Some(angles), dq, gq);
        rope::backward(on, kv, Some(angles), dk, gk);
        rope::backward(on, kv, None, dv, gv);
        if let Some([q_norm, k_norm]) = head_norms {
            let scale = config.graph.query_scale;
            let (below_q, below_k) = (sized(under, rows * q_dim), sized(under_k, rows * kv_dim));
            scaled(head_norm, at(q_norm), scale);
            let dw = &mut grads[q_norm.clone()];
            norm::backward(on, &s.raw[0], head_norm, eps, gq, below_q, false, dw, partial);
            dw.iter_mut().for_each(|dw| *dw *= scale);
            let dw = &mut grads[k_norm.clone()];
            norm::backward(on, &s.raw[1], at(k_norm), eps, gk, below_k, false, dw, partial);
            (gq, gk) = (below_q, below_k);
        }
        if let Some((Relation { heads, weight, states, .. }, factor)) = pull {
            let parts = (heads * heads) as f32;
            let (positions, weight) = (self.positions, weight * factor / parts);
            let shape = relation::Shape { heads, positions, starts: batch.starts, targets, weight };
            for ((own, theirs), g) in self.qkv.iter().zip(states).zip([&mut *gq, &mut *gk, &mut *gv]) {
                self.relation += relation::both(on, shape, own, theirs, g) / f64::from(parts);
            }
        }
        if let Some(biases) = biases {
            for (range, g) in biases.iter().zip([&*gq, &*gk, &*gv]) {
                bias::backward(on, g, &mut grads[range.clone()], partial);
            }
        }
        let dn = sized(e, rows * dim);
        linear.begin(on, &s.attn_in);
        linear.backward(on, &s.attn_in, &w.q, at(q), gq, &mut grads[q.clone()], dn, false);
        linear.backward(on, &s.attn_in, &w.k, at(k), gk, &mut grads[k.clone()], dn, true);
        linear.backward(on, &s.attn_in, &w.v, at(v), gv, &mut grads[v.clone()], dn, true);
        let from = Source { x, cols: dim, norm: Some(normed(attn_norm)) };
        lora::backward(on, params, [at_q, at_k, at_v], from, [gq, gk, gv], grads, dn, low);
        norm::backward(on, x, at(attn_norm), eps, dn, dx, true, &mut grads[attn_norm.clone()], partial);
    }
}
