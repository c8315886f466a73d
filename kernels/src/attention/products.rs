//! Scores and weighted sums of values for many queries over a cache of floats: what they read is turned into f32 once,
//! piece by piece, and every piece is multiplied with all of them while it lies in the first cache. The order of the
//! additions is that of `floats.rs`: over the elements of a head, and over the positions of a chunk.

use super::COLUMNS;
use super::format::LANES;
use super::softmax::Lanes;
use super::stored::Stored;
use super::tile::{DEPTH, Floats, QUERIES};
use crate::isa::{Isa, Strided};

/// Vectors of 16 side by side: each is loaded for two queries, and each number of a query is broadcast for eight of them. Four by four
/// takes fewer loads and more time, 1.15 times on Zen 4.
pub(super) const WIDE: usize = 8;

/// For each query `WIDE` vectors of sums.
pub(super) type Sums = [[[f32; LANES]; WIDE]; COLUMNS];

/// Scores of all the groups of positions in `keys` for `queries`, one after another and `dim` wide.
#[inline(always)]
pub(super) fn key_products<I: Isa, S: Stored>(
    isa: I,
    keys: &[S::Bytes],
    dim: usize,
    queries: &[f32],
    scores: &mut [Lanes],
    floats: &mut Floats,
) {
    let groups = keys.len() / dim;
    let mut g = 0;
    while g < groups {
        let keys = &keys[g * dim..];
        if I::PANEL.0 >= 4 && groups - g >= WIDE {
            keys_of::<I, S, WIDE>(isa, keys, dim, queries, scores, g, floats);
            g += WIDE;
        } else if groups - g >= 4 {
            keys_of::<I, S, 4>(isa, keys, dim, queries, scores, g, floats);
            g += 4;
        } else {
            keys_of::<I, S, 1>(isa, keys, dim, queries, scores, g, floats);
            g += 1;
        }
    }
}

/// Scores of `G` groups from `g` on, the first that lie in `keys`.
#[inline(always)]
fn keys_of<I: Isa, S: Stored, const G: usize>(
    isa: I,
    keys: &[S::Bytes],
    dim: usize,
    queries: &[f32],
    scores: &mut [Lanes],
    g: usize,
    floats: &mut Floats,
) {
    let most = 4 * DEPTH / G.max(4);
    for start in (0..dim).step_by(most) {
        let depth = most.min(dim - start);
        let mut groups: [&[S::Bytes]; G] = [&[]; G];
        for i in 0..G {
            groups[i] = &keys[i * dim + start..][..depth];
        }
        for (k, to) in floats.0.as_chunks_mut::<G>().0[..depth].iter_mut().enumerate() {
            for i in 0..G {
                to[i] = S::read(isa, &groups[i][k]);
            }
        }
        let left = Strided { data: &queries[start..], row: dim, col: 1 };
        let right = Strided { data: floats.0.as_flattened(), row: G * LANES, col: 1 };
        tiles::<I, G, { super::format::CHUNK / LANES }>(isa, depth, left, right, scores, g, start > 0);
    }
}

/// The weighted values of some elements from `16 * d` on, as many times 16 as is returned; `scores` are the weights.
#[inline(always)]
pub(super) fn value_products<I: Isa, S: Stored>(
    isa: I,
    values: &[S::Bytes],
    wide: usize,
    d: usize,
    scores: &[Lanes],
    sums: &mut [[[f32; LANES]; WIDE]],
    floats: &mut Floats,
) -> usize {
    let count = match wide - d {
        WIDE.. => WIDE,
        4.. => 4,
        _ => 1,
    };
    if count == WIDE {
        values_of::<I, S, WIDE>(isa, values, wide, d, scores, sums, floats);
    } else if count == 4 {
        values_of::<I, S, 4>(isa, values, wide, d, scores, sums, floats);
    } else {
        values_of::<I, S, 1>(isa, values, wide, d, scores, sums, floats);
    }
    count
}

#[inline(always)]
fn values_of<I: Isa, S: Stored, const D: usize>(
    isa: I,
    values: &[S::Bytes],
    wide: usize,
    d: usize,
    scores: &[Lanes],
    sums: &mut [[[f32; LANES]; WIDE]],
    floats: &mut Floats,
) {
    let weights = scores.as_flattened().as_flattened();
    let most = 4 * DEPTH / D.max(4);
    for (nth, rows) in values.chunks(most * wide).enumerate() {
        for (to, row) in floats.0.as_chunks_mut::<D>().0.iter_mut().zip(rows.chunks_exact(wide)) {
            let row = &row[d..d + D];
            for i in 0..D {
                to[i] = S::read(isa, &row[i]);
            }
        }
        let left = Strided { data: &weights[nth * most..], row: super::format::CHUNK, col: 1 };
        let right = Strided { data: floats.0.as_flattened(), row: D * LANES, col: 1 };
        tiles::<I, D, WIDE>(isa, rows.len() / wide, left, right, sums, 0, nth > 0);
    }
}

/// Products of all rows of `left`, one for each of `out`, with `V` vectors of `right`: vectors `at..` of each row of `out`,
/// to which they are added with `add`.
#[inline(always)]
fn tiles<I: Isa, const V: usize, const N: usize>(
    isa: I,
    depth: usize,
    left: Strided,
    right: Strided,
    out: &mut [[[f32; LANES]; N]],
    at: usize,
    add: bool,
) {
    if V == WIDE {
        let (twos, ones) = out.as_chunks_mut::<2>();
        let rest = 2 * twos.len();
        for (c, [a, b]) in twos.iter_mut().enumerate() {
            let left = Strided { data: &left.data[c * 2 * left.row..], ..left };
            isa.float_tile::<false, 2, V>(depth, left, right, [vectors(a, at), vectors(b, at)], add);
        }
        for (c, out) in ones.iter_mut().enumerate() {
            let left = Strided { data: &left.data[(rest + c) * left.row..], ..left };
            isa.float_tile::<false, 1, V>(depth, left, right, [vectors(out, at)], add);
        }
        return;
    }
    let (fours, ones) = out.as_chunks_mut::<QUERIES>();
    let rest = fours.len() * QUERIES;
    for (c, [a, b, c3, d]) in fours.iter_mut().enumerate() {
        let left = Strided { data: &left.data[c * QUERIES * left.row..], ..left };
        let out = [vectors(a, at), vectors(b, at), vectors(c3, at), vectors(d, at)];
        isa.float_tile::<false, QUERIES, V>(depth, left, right, out, add);
    }
    for (c, out) in ones.iter_mut().enumerate() {
        let left = Strided { data: &left.data[(rest + c) * left.row..], ..left };
        isa.float_tile::<false, 1, V>(depth, left, right, [vectors(out, at)], add);
    }
}

#[inline(always)]
fn vectors<const V: usize, const N: usize>(row: &mut [[f32; LANES]; N], at: usize) -> &mut [[f32; LANES]; V] {
    row[at..].first_chunk_mut().expect("vectors of a row")
}
