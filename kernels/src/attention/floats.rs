//! Attention over an f32 or f16 cache: every sum runs in one order, over the elements of a head for a score and over the
//! positions of a chunk for a value, 16 of them side by side.

use super::COLUMNS;
use super::cache::Part;
use super::format::LANES;
use super::products::{Sums, WIDE, key_products, value_products};
use super::stored::Stored;
use super::tile::{Buffers, Factors, Floats, QUERIES, Tile};
use crate::isa::Isa;

/// Bytes of a cache line.
const LINE: usize = 64;

impl Tile<'_> {
    /// Scores of columns `first..` against the `groups` of 16 positions of a chunk.
    #[inline(always)]
    pub(super) fn float_keys<I: Isa, S: Stored>(
        &mut self,
        isa: I,
        part: Part<'_>,
        groups: usize,
        first: usize,
    ) {
        let keys = &S::cut(part.keys)[..groups * self.dim];
        let many = self.many::<I, S>(first);
        if many {
            self.gather(first);
            let Buffers { scores, queries, floats, .. } = &mut *self.buffers;
            let floats = floats.get_or_insert_with(Floats::boxed);
            let scores = &mut scores[first..self.columns];
            key_products::<I, S>(isa, keys, self.dim, queries, scores, floats);
        }
        let mut g = if many { groups } else { 0 };
        while g < groups {
            let wide = I::PANEL.0 >= 4 && groups - g >= 4;
            let count = if wide { 4 } else { 1 };
            let keys = &keys[g * self.dim..][..count * self.dim];
            let mut c = first;
            while c < self.columns {
                let ahead = (c == first).then_some(part.values);
                let four = self.columns - c >= QUERIES;
                match (wide, four) {
                    (true, true) => self.scores_floats::<I, S, 4, QUERIES>(isa, keys, g, c, ahead),
                    (true, false) => self.scores_floats::<I, S, 4, 1>(isa, keys, g, c, ahead),
                    (false, true) => self.scores_floats::<I, S, 1, QUERIES>(isa, keys, g, c, ahead),
                    (false, false) => self.scores_floats::<I, S, 1, 1>(isa, keys, g, c, ahead),
                }
                c += if four { QUERIES } else { 1 };
            }
            g += count;
        }
    }

    /// Adds the weighted values of a chunk to columns `first..`.
    #[inline(always)]
    pub(super) fn float_values<I: Isa, S: Stored>(
        &mut self,
        isa: I,
        part: Part<'_>,
        groups: usize,
        first: usize,
        factors: &Factors,
    ) {
        let many = self.many::<I, S>(first);
        let wide = self.dim.div_ceil(LANES);
        let values = &S::cut(part.values)[..groups * LANES * wide];
        let mut d = 0;
        if many {
            let mut sums: Sums = [[[0.0; LANES]; WIDE]; COLUMNS];
            let sums = &mut sums[..self.columns - first];
            while d < wide {
                let Buffers { scores, floats, .. } = &mut *self.buffers;
                let floats = floats.get_or_insert_with(Floats::boxed);
                let scores = &scores[first..self.columns];
                let count = value_products::<I, S>(isa, values, wide, d, scores, sums, floats);
                for c in first..self.columns {
                    let (mine, theirs) = factors[c];
                    for i in 0..count {
                        self.add(isa, c, d + i, &sums[c - first][i], mine, theirs);
                    }
                }
                d += count;
            }
        }
        while d < wide {
            let many = I::PANEL.0 >= 4 && wide - d >= 4;
            let mut c = first;
            while c < self.columns {
                let ahead = (d, c) == (0, first);
                let four = self.columns - c >= QUERIES;
                match (many, four) {
                    (true, true) => self.values_floats::<I, S, 4, QUERIES>(isa, values, d, c, factors, ahead),
                    (true, false) => self.values_floats::<I, S, 4, 1>(isa, values, d, c, factors, ahead),
                    (false, true) => {
                        self.values_floats::<I, S, 1, QUERIES>(isa, values, d, c, factors, ahead)
                    }
                    (false, false) => self.values_floats::<I, S, 1, 1>(isa, values, d, c, factors, ahead),
                }
                c += if four { QUERIES } else { 1 };
            }
            d += if many { 4 } else { 1 };
        }
    }

    /// What more queries read than are summed together is turned into f32 once, where registers are so wide that the
    /// conversions would count.
    #[inline(always)]
    fn many<I: Isa, S: Stored>(&self, first: usize) -> bool {
        S::CONVERTED && I::PANEL.0 >= 4 && self.columns - first > QUERIES
    }

    /// Lays the queries of columns `first..` one after another.
    #[inline(always)]
    fn gather(&mut self, first: usize) {
        self.buffers.queries.clear();
        for &query in &self.query[first..self.columns] {
            let floats = &self.queries.floats[query * self.dim..][..self.dim];
            self.buffers.queries.extend_from_slice(floats);
        }
    }

    /// Scores of `G` groups of positions for `C` queries, element after element of the head.
    #[inline(always)]
    fn scores_floats<I: Isa, S: Stored, const G: usize, const C: usize>(
        &mut self,
        isa: I,
        keys: &[S::Bytes],
        g: usize,
        c: usize,
        ahead: Option<&[u8]>,
    ) {
        let dim = self.dim;
        let mut groups: [&[S::Bytes]; G] = [&[]; G];
        for i in 0..G {
            groups[i] = &keys[i * dim..][..dim];
        }
        let mut queries: [&[f32]; C] = [&[]; C];
        for j in 0..C {
            queries[j] = &self.queries.floats[self.query[c + j] * dim..][..dim];
        }
        let mut sums = [[[0f32; LANES]; C]; G];
        for k in 0..dim {
            for i in 0..G {
                let at = ((g + i) * dim + k) * size_of::<S::Bytes>();
                if let Some(values) = ahead.filter(|_| at.is_multiple_of(LINE)) {
                    isa.prefetch_l2(values, at);
                }
                let key = S::read(isa, &groups[i][k]);
                for j in 0..C {
                    sums[i][j] = isa.add_scaled(sums[i][j], &key, queries[j][k]);
                }
            }
        }
        for j in 0..C {
            for i in 0..G {
                self.buffers.scores[c + j][g + i] = sums[i][j];
            }
        }
    }

    /// Adds the weighted values of `D` times 16 elements for `C` queries, position after position.
    #[inline(always)]
    fn values_floats<I: Isa, S: Stored, const D: usize, const C: usize>(
        &mut self,
        isa: I,
        values: &[S::Bytes],
        d: usize,
        c: usize,
        factors: &Factors,
        ahead: bool,
    ) {
        let wide = self.dim.div_ceil(LANES);
        let positions = values.len() / wide;
        let mut weights: [&[f32]; C] = [&[]; C];
        for j in 0..C {
            weights[j] = &self.buffers.scores[c + j].as_flattened()[..positions];
        }
        let mut sums = [[[0f32; LANES]; C]; D];
        for (k, row) in values.chunks_exact(wide).enumerate().take(positions) {
            if ahead {
                for i in (0..wide).step_by(LINE / size_of::<S::Bytes>()) {
                    isa.prefetch_l2(self.next.0, (k * wide + i) * size_of::<S::Bytes>());
                }
            }
            let row = &row[d..d + D];
            for i in 0..D {
                let value = S::read(isa, &row[i]);
                for j in 0..C {
                    sums[i][j] = isa.add_scaled(sums[i][j], &value, weights[j][k]);
                }
            }
        }
        for j in 0..C {
            let (mine, theirs) = factors[c + j];
            for i in 0..D {
                self.add(isa, c + j, d + i, &sums[i][j], mine, theirs);
            }
        }
    }
}
