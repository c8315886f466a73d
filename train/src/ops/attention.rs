//! Causal attention within documents: `o = softmax(q kᵀ / sqrt(dim)) v`, in blocks of queries so that scores stay in cache.
//! Scores are not kept: the backward pass computes them again from the logarithm of each row's sum.

use std::cell::RefCell;

use tern_kernels::{Matrix, dense_product_here, exp, transpose};

use super::Machine;
use super::norm::dot;

/// Shape of a batch. Layouts: `q`, `o` `(sequence, query head, position, dim)`; `k`, `v` the same with `kv` heads. Query
/// heads of one group follow each other.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Key and value heads.
    pub kv: usize,
    /// Query heads to each of them.
    pub group: usize,
    /// Width of a head.
    pub dim: usize,
    /// Positions of a sequence.
    pub positions: usize,
}

/// Queries of a block.
const BLOCK: usize = 64;

/// A thread's room.
#[derive(Default)]
struct Room {
    kt: Vec<f32>, // (dim, stride)
    vt: Vec<f32>, // (dim, stride)
    p: Vec<f32>,  // (BLOCK, stride)
    ds: Vec<f32>, // (BLOCK, stride)
}

thread_local! {
    static ROOM: RefCell<Room> = RefCell::default();
}

impl Shape {
    /// Numbers from a row of scores to the next: 16 more than needed, so that columns do not all fall into one set of
    /// the cache.
    fn stride(&self) -> usize {
        self.positions.next_multiple_of(16) + 16
    }
    fn scale(&self) -> f32 {
        1.0 / (self.dim as f32).sqrt()
    }
    fn head(&self) -> usize {
        self.positions * self.dim
    }
}

/// The keys that queries `first..first + rows` of a sequence may see: from the document of the first of them on, at a whole
/// vector, to themselves. Documents begin in order.
fn keys(starts: &[u32], first: usize, rows: usize) -> std::ops::Range<usize> {
    starts[first] as usize / 16 * 16..first + rows
}

/// Row `i` of a block's scores becomes probabilities of the keys `from..=to`, 0 elsewhere, not yet divided by their
/// sum, which is returned with the largest score.
#[inline(always)]
fn softmax(scores: &mut [f32], from: usize, to: usize, scale: f32) -> (f32, f32) {
    let mut top = [f32::NEG_INFINITY; 16];
    let (chunks, rest) = scores[from..=to].as_chunks::<16>();
    for chunk in chunks {
        for i in 0..16 {
            top[i] = top[i].max(chunk[i]);
        }
    }
    let top = rest.iter().chain(&top).fold(f32::NEG_INFINITY, |top, x| top.max(*x)) * scale;
    let mut sums = [0f32; 16];
    let (chunks, rest) = scores[from..=to].as_chunks_mut::<16>();
    for chunk in chunks {
        for i in 0..16 {
            chunk[i] = exp(chunk[i] * scale - top);
            sums[i] += chunk[i];
        }
    }
    let mut sum = 0.0;
    for x in rest {
        *x = exp(*x * scale - top);
        sum += *x;
    }
    scores[..from].fill(0.0);
    scores[to + 1..].fill(0.0);
    (sums.iter().sum::<f32>() + sum, top)
}

/// `o`, and for each query the logarithm of its sum of exponentials, `lse (sequence, query head, position)`. `starts (rows)`
/// says where each token's document begins in its sequence: earlier keys are not seen.
#[expect(clippy::too_many_arguments, reason = "attention has three inputs")]
pub fn forward(
    on: Machine,
    shape: Shape,
    starts: &[u32],
    q: &[f32],
    k: &[f32],
    v: &[f32],
    o: &mut [f32],
    lse: &mut [f32],
) {
    let Shape { kv, group, positions, dim } = shape;
    let (cpu, head) = (on.cpu, shape.head());
    on.pool.for_rows([(o, group * head), (lse, group * positions)], |index, [o, lse]| {
        let starts = &starts[index / kv * positions..][..positions];
        let k = Matrix::new(&k[index * head..][..head], dim);
        let v = Matrix::new(&v[index * head..][..head], dim);
        ROOM.with_borrow_mut(|room| {
            let stride = shape.stride();
            room.kt.resize(dim * stride, 0.0);
            transpose(cpu, k, &mut room.kt[..dim * stride], stride);
            let kt = Matrix::new(&room.kt[..dim * stride], stride);
            room.p.resize(BLOCK * stride, 0.0);
            for (nth, (o, lse)) in o.chunks_exact_mut(head).zip(lse.chunks_exact_mut(positions)).enumerate() {
                let q = Matrix::new(&q[(index * group + nth) * head..][..head], dim);
                for first in (0..positions).step_by(BLOCK) {
                    let rows = BLOCK.min(positions - first);
                    let keys = keys(starts, first, rows);
                    let kt = kt.columns(keys.start, keys.len());
                    dense_product_here(cpu, q.rows(first, rows), kt, &mut room.p, stride, false);
                    let (p, lse) = (&mut room.p[..], &mut lse[first..first + rows]);
                    cpu.vectorised(
                        #[inline(always)]
                        || {
                            for (i, lse) in lse.iter_mut().enumerate() {
                                let row = &mut p[i * stride..][..keys.len()];
                                let from = starts[first + i] as usize - keys.start;
                                let (sum, top) = softmax(row, from, first + i - keys.start, shape.scale());
                                *lse = top + sum.ln();
                                let factor = 1.0 / sum;
                                row.iter_mut().for_each(|x| *x *= factor);
                            }
                        },
                    );
                    let p = Matrix::strided(&room.p, rows, keys.len(), stride);
                    let v = v.rows(keys.start, keys.len());
                    dense_product_here(cpu, p, v, &mut o[first * dim..], dim, false);
                }
            }
        });
    });
}

/// Everything the backward pass reads: `g` and `o` are rows of tokens, `(rows, query heads * dim)`.
#[derive(Clone, Copy, Debug)]
pub struct Saved<'a> {
    /// As `forward` read them.
    pub q: &'a [f32],
    /// As `forward` read them.
    pub k: &'a [f32],
    /// As `forward` read them.
    pub v: &'a [f32],
    /// The output, brought into rows.
    pub o: &'a [f32],
    /// As `forward` wrote it.
    pub lse: &'a [f32],
}

/// With P the probabilities: `dV = Pᵀ g`, `dP = g Vᵀ`, `dS = P (dP - Σ g o) / sqrt(dim)`, `dQ = dS K`, `dK = dSᵀ Q`; keys and
/// values sum over their group of query heads, in order.
#[expect(clippy::too_many_arguments, reason = "attention has three gradients")]
pub fn backward(
    on: Machine,
    shape: Shape,
    starts: &[u32],
    saved: Saved,
    g: &[f32],
    dq: &mut [f32],
    dk: &mut [f32],
    dv: &mut [f32],
) {
    let Shape { kv, group, positions, dim } = shape;
    let (cpu, head, width) = (on.cpu, shape.head(), kv * group * dim);
    on.pool.for_rows([(dq, group * head), (dk, head), (dv, head)], |index, [dq, dk, dv]| {
        let (sequence, kv_head) = (index / kv, index % kv);
        let starts = &starts[sequence * positions..][..positions];
        let k = Matrix::new(&saved.k[index * head..][..head], dim);
        let v = Matrix::new(&saved.v[index * head..][..head], dim);
        dk.fill(0.0);
        dv.fill(0.0);
        ROOM.with_borrow_mut(|room| {
            let Room { kt, vt, p, ds } = room;
            let stride = shape.stride();
            kt.resize(dim * stride, 0.0);
            vt.resize(dim * stride, 0.0);
            transpose(cpu, k, kt, stride);
            transpose(cpu, v, vt, stride);
            let (kt, vt) = (Matrix::new(kt, stride), Matrix::new(vt, stride));
            p.resize(BLOCK * stride, 0.0);
            ds.resize(BLOCK * stride, 0.0);
            for (nth, dq) in dq.chunks_exact_mut(head).enumerate() {
                let q = Matrix::new(&saved.q[(index * group + nth) * head..][..head], dim);
                let lse = &saved.lse[(index * group + nth) * positions..][..positions];
                // This head's columns of the rows of its sequence.
                let start = sequence * positions * width + (kv_head * group + nth) * dim;
                let columns = |data| Matrix::strided(data, positions, dim, width);
                let (g, o) = (columns(&g[start..]), columns(&saved.o[start..]));
                for first in (0..positions).step_by(BLOCK) {
                    let rows = BLOCK.min(positions - first);
                    let keys = keys(starts, first, rows);
                    let (low, count) = (keys.start, keys.len());
                    let (q, g, o) = (q.rows(first, rows), g.rows(first, rows), o.rows(first, rows));
                    dense_product_here(cpu, q, kt.columns(low, count), p, stride, false);
                    dense_product_here(cpu, g, vt.columns(low, count), ds, stride, false);
                    cpu.vectorised(
                        #[inline(always)]
                        || {
                            let scale = shape.scale();
                            for i in 0..rows {
                                let (p, ds) = (&mut p[i * stride..][..count], &mut ds[i * stride..][..count]);
                                let (from, to) = (starts[first + i] as usize - low, first + i - low);
                                let (g, o) = (g.row(i), o.row(i));
                                let along = dot(g, o);
                                let lse = lse[first + i];
                                for j in 0..count {
                                    p[j] = exp(p[j] * scale - lse);
                                }
                                p[..from].fill(0.0);
                                p[to + 1..].fill(0.0);
                                for j in 0..count {
                                    ds[j] = p[j] * (ds[j] - along) * scale;
                                }
                            }
                        },
                    );
                    let view = |data| Matrix::strided(data, rows, count, stride);
                    let (p, ds) = (view(&p[..]), view(&ds[..]));
                    dense_product_here(cpu, ds, k.rows(low, count), &mut dq[first * dim..], dim, false);
                    dense_product_here(cpu, ds.transposed(), q, &mut dk[low * dim..], dim, true);
                    dense_product_here(cpu, p.transposed(), g, &mut dv[low * dim..], dim, true);
                }
            }
        });
    });
}
