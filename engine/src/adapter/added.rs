//! What adapters add to the products of a forward pass, row by row: each row has an adapter of its own, or none. A row's sums
//! are the same alone and beside others, on every instruction set and number of threads.

use std::sync::Arc;

use tern_kernels::{Cpu, Norm, Pool, dot, rms_norm_here};

use super::{Adapter, Pair, first};
use crate::config::Inlet;

/// Outputs that a thread takes at a time.
const PIECE: usize = 256;

/// The input of projections: rows of `cols`, normed first where there is a norm.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source<'a> {
    pub(crate) inlet: Inlet,
    pub(crate) x: &'a [f32],
    pub(crate) cols: usize,
    pub(crate) norm: Option<Norm<'a>>,
}

/// The rows of a forward pass that have an adapter, and the layer that it is in.
#[derive(Debug, Default)]
pub(crate) struct Added {
    rows: Vec<(usize, Arc<Adapter>)>,
    /// The layer that is being computed.
    pub(crate) layer: usize,
    x: Vec<f32>,   // (rows with an adapter, inputs), normed
    low: Vec<f32>, // (rows with an adapter, the largest rank)
}

impl Added {
    /// Forgets the rows of the last forward pass.
    pub(crate) fn clear(&mut self) {
        self.rows.clear();
    }

    /// The next row in order that has an adapter.
    pub(crate) fn push(&mut self, row: usize, adapter: &Arc<Adapter>) {
        self.rows.push((row, Arc::clone(adapter)));
    }

    /// Whether no row has one.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Adds to the outputs of projections of one input.
    pub(crate) fn add<'o>(
        &mut self,
        cpu: Cpu,
        pool: &Pool,
        Source { inlet, x, cols, norm }: Source<'_>,
        outs: impl Iterator<Item = &'o mut Vec<f32>>,
    ) {
        let Self { rows, layer, x: normed, low } = self;
        let list = outs.enumerate().map(|(nth, out)| (first(inlet) + nth, out));
        let wanted =
            |projection: usize| rows.iter().any(|(_, adapter)| adapter.pair(*layer, projection).is_some());
        let list: Vec<_> = list.filter(|(projection, _)| wanted(*projection)).collect();
        if list.is_empty() {
            return;
        }
        normed.clear();
        rows.iter().for_each(|(row, _)| normed.extend_from_slice(&x[row * cols..][..cols]));
        if let Some(Norm { weight, eps }) = norm {
            pool.for_chunks(normed, cols, |_, x| rms_norm_here(cpu, x, weight, eps));
        }
        let widest = rows.iter().map(|(_, adapter)| adapter.rank).max().unwrap_or(0);
        low.resize(rows.len() * widest, 0.0);
        for (projection, out) in list {
            let pair = |nth: usize| rows[nth].1.pair(*layer, projection).map(|pair| (&rows[nth].1, pair));
            pool.for_chunks(low, 1, |at, low| {
                let (nth, lane) = (at / widest, at % widest);
                let Some((adapter, Pair { a, .. })) = pair(nth).filter(|(adapter, _)| lane < adapter.rank)
                else {
                    return;
                };
                low[0] = adapter.scale * dot(cpu, &a[lane * cols..][..cols], &normed[nth * cols..][..cols]);
            });
            let outputs = out.len() / (x.len() / cols);
            let mut pieces = Vec::new();
            let mut next = rows.iter().enumerate().peekable();
            for (row, out) in out.chunks_exact_mut(outputs).enumerate() {
                let Some((nth, _)) = next.next_if(|(_, (at, _))| *at == row) else { continue };
                if let Some((adapter, pair)) = pair(nth) {
                    let low = &low[nth * widest..][..adapter.rank];
                    pieces.extend(
                        out.chunks_mut(PIECE).enumerate().map(|(at, out)| (at * PIECE, low, pair, out)),
                    );
                }
            }
            pool.for_chunks(&mut pieces, 1, |_, piece| {
                let (start, low, Pair { b, .. }, out) = &mut piece[0];
                let mut sums = [0f32; PIECE];
                let sums = &mut sums[..out.len()];
                cpu.vectorised(
                    #[inline(always)]
                    || {
                        for (low, b) in low.iter().zip(b.chunks_exact(outputs)) {
                            let b = &b[*start..][..sums.len()];
                            sums.iter_mut().zip(b).for_each(|(sum, b)| *sum += low * b);
                        }
                        out.iter_mut().zip(&*sums).for_each(|(out, sum)| *out += sum);
                    },
                );
            });
        }
    }
}
