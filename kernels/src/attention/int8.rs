//! Attention over an int8 cache in exact integers.
//!
//! Queries and weights are rounded to 14 bits (against 8 of the cache their error does not count) and split into two
//! signed bytes, so that both products are the byte products of the ternary kernels: 16 positions, or 16 elements of the
//! values, side by side, and four of the other dimension in each lane.
//!
//! ```text
//! |score|  <= dim * 8191 * 128        <= 5.4e8 for a head of 512
//! |output| <= CHUNK * 8191 * 128      <= 2.7e8
//! ```

use super::cache::Part;
use super::format::{CHUNK, GROUP, LANES};
use super::softmax::{LEVELS, level, parts, quantise};
use super::stored::{F32, Stored};
use super::tile::{Factors, Query, Tile};
use super::write::TINY;
use crate::isa::{Block, Isa};

/// Most queries whose products run together.
const PAIR: usize = 2;

/// What a weight of each query is worth, and what their offsets add up to.
type Steps = [(f32, i32); super::COLUMNS];

/// Rounds a query to two signed bytes of 7 bits, or to one of 8: `codes` are as long as the padded head, the high parts first.
#[inline(always)]
pub(super) fn round(query: &[f32], codes: &mut [i8], in_parts: usize) -> Query {
    let mut top = 0f32;
    for value in query {
        let magnitude = value.abs();
        top = if magnitude > top { magnitude } else { top };
    }
    // Comparisons pass a NaN by; a product with zero does not.
    let mut broken = 0f32;
    for value in query {
        broken += value * 0.0;
    }
    let top = if top > TINY { top } else { TINY };
    let levels = if in_parts == 2 { LEVELS } else { 127.0 };
    let scale = levels / top;
    let mut sums = [0i32; super::MAX_HEAD_DIM / GROUP];
    codes.fill(0);
    let (high, low) = codes.split_at_mut(codes.len() / in_parts);
    for (g, values) in query.chunks(GROUP).enumerate() {
        let high = &mut high[g * GROUP..];
        if in_parts == 2 {
            for ((value, high), low) in values.iter().zip(high).zip(&mut low[g * GROUP..]) {
                let n = level(*value, scale);
                sums[g] = sums[g].wrapping_add(n);
                (*high, *low) = parts(n);
            }
        } else {
            for (value, code) in values.iter().zip(high) {
                let n = level(*value, scale);
                sums[g] = sums[g].wrapping_add(n);
                *code = n as i8;
            }
        }
    }
    Query { step: top / levels + broken, sums }
}

impl Tile<'_> {
    /// Scores of columns `first..` against the `groups` of 16 positions of a chunk.
    #[inline(always)]
    pub(super) fn int8_keys<I: Isa>(&mut self, isa: I, part: Part<'_>, groups: usize, first: usize) {
        let quads = self.dim.div_ceil(4);
        let keys: &[Block] = &part.keys.as_chunks().0[..groups * quads];
        let scales = F32::cut(part.key_scales);
        let mut g = 0;
        while g < groups {
            let wide = I::PANEL.0 >= 4 && groups - g >= 4;
            let count = if wide { 4 } else { 1 };
            let (keys, scales) = (&keys[g * quads..][..count * quads], &scales[g..][..count]);
            let mut c = first;
            while c < self.columns {
                let ahead = (c == first).then_some(part.values);
                let pair = I::PANEL.1 >= 2 && self.columns - c >= PAIR;
                match (wide, pair) {
                    (true, true) => self.scores_int8::<I, 4, 2>(isa, keys, scales, g, c, ahead),
                    (true, false) => self.scores_int8::<I, 4, 1>(isa, keys, scales, g, c, ahead),
                    (false, true) => self.scores_int8::<I, 1, 2>(isa, keys, scales, g, c, ahead),
                    (false, false) => self.scores_int8::<I, 1, 1>(isa, keys, scales, g, c, ahead),
                }
                c += if pair { PAIR } else { 1 };
            }
            g += count;
        }
    }

    /// Adds the weighted values of a chunk to columns `first..`.
    #[inline(always)]
    pub(super) fn int8_values<I: Isa>(
        &mut self,
        isa: I,
        part: Part<'_>,
        groups: usize,
        first: usize,
        factors: &Factors,
    ) {
        let mut steps: Steps = [(0.0, 0); super::COLUMNS];
        let mut scales = [[0f32; LANES]; CHUNK / LANES];
        for (scales, bytes) in scales.iter_mut().zip(&F32::cut(part.value_scales)[..groups]) {
            *scales = F32::read(isa, bytes);
        }
        for c in first..self.columns {
            let [high, low] = &mut self.buffers.codes[c];
            let weights = &self.buffers.scores[c][..groups];
            let (step, total) = quantise(weights, &scales, &mut high[..groups], &mut low[..groups]);
            steps[c] = (step, total.wrapping_mul(I::OFFSET8));
        }

        let wide = self.dim.div_ceil(LANES);
        let values: &[Block] = &part.values.as_chunks().0[..groups * 4 * wide];
        let mut d = 0;
        while d < wide {
            let four = I::PANEL.0 >= 4 && wide - d >= 4;
            let mut c = first;
            while c < self.columns {
                let ahead = (d, c) == (0, first);
                let pair = I::PANEL.1 >= 2 && self.columns - c >= PAIR;
                match (four, pair) {
                    (true, true) => self.values_int8::<I, 4, 2>(isa, values, d, c, &steps, factors, ahead),
                    (true, false) => self.values_int8::<I, 4, 1>(isa, values, d, c, &steps, factors, ahead),
                    (false, true) => self.values_int8::<I, 1, 2>(isa, values, d, c, &steps, factors, ahead),
                    (false, false) => self.values_int8::<I, 1, 1>(isa, values, d, c, &steps, factors, ahead),
                }
                c += if pair { PAIR } else { 1 };
            }
            d += if four { 4 } else { 1 };
        }
    }

    /// Scores of `G` groups of positions for `C` queries: `2 * G * C` registers of sums. The first to pass the keys asks
    /// `ahead` for the values.
    #[inline(always)]
    fn scores_int8<I: Isa, const G: usize, const C: usize>(
        &mut self,
        isa: I,
        keys: &[Block],
        scales: &[<F32 as Stored>::Bytes],
        g: usize,
        c: usize,
        ahead: Option<&[u8]>,
    ) {
        let quads = self.dim.div_ceil(4);
        let mut groups: [&[Block]; G] = [&[]; G];
        for i in 0..G {
            groups[i] = &keys[i * quads..][..quads];
        }
        let mut high: [&[[i8; 4]]; C] = [&[]; C];
        let mut low: [&[[i8; 4]]; C] = [&[]; C];
        for j in 0..C {
            (high[j], low[j]) =
                (self.queries.part(self.query[c + j], 0), self.queries.part(self.query[c + j], 1));
        }
        let mut sums = [[[isa.sums(); 2]; C]; G];
        for k in 0..quads {
            for i in 0..G {
                if let Some(values) = ahead {
                    isa.prefetch_l2(values, ((g + i) * quads + k) * size_of::<Block>());
                }
                let bytes = isa.load(&groups[i][k]);
                for j in 0..C {
                    sums[i][j][0] = isa.dot7(sums[i][j][0], bytes, high[j][k]);
                    sums[i][j][1] = isa.dot7(sums[i][j][1], bytes, low[j][k]);
                }
            }
        }
        let mut factors = [[0f32; LANES]; G];
        for i in 0..G {
            factors[i] = F32::read(isa, &scales[i]);
        }
        for j in 0..C {
            let Query { step, sums: of_query } = self.queries.rounded[self.query[c + j]];
            let offset = of_query.iter().fold(0i32, |sum, n| sum.wrapping_add(*n)).wrapping_mul(I::OFFSET8);
            for i in 0..G {
                let n = isa.whole(sums[i][j][0], sums[i][j][1]);
                self.buffers.scores[c + j][g + i] = isa.scaled_sums(n, offset, &factors[i], step);
            }
        }
    }

    /// Adds the weighted values of `D` times 16 elements for `C` queries; the first to pass the values asks for the keys
    /// that come after them.
    #[allow(clippy::too_many_arguments)] // the place of the products in elements and queries, and what they are scaled with
    #[inline(always)]
    fn values_int8<I: Isa, const D: usize, const C: usize>(
        &mut self,
        isa: I,
        values: &[Block],
        d: usize,
        c: usize,
        steps: &Steps,
        factors: &Factors,
        ahead: bool,
    ) {
        let wide = self.dim.div_ceil(LANES);
        let quads = values.len() / wide;
        let mut high: [&[[i8; 4]]; C] = [&[]; C];
        let mut low: [&[[i8; 4]]; C] = [&[]; C];
        for j in 0..C {
            let [h, l] = &self.buffers.codes[c + j];
            high[j] = &h.as_flattened().as_chunks().0[..quads];
            low[j] = &l.as_flattened().as_chunks().0[..quads];
        }
        let mut sums = [[[isa.sums(); 2]; C]; D];
        for (k, blocks) in values.chunks_exact(wide).enumerate().take(quads) {
            if ahead {
                for i in 0..wide {
                    isa.prefetch_l2(self.next.0, (k * wide + i) * size_of::<Block>());
                }
            }
            let blocks = &blocks[d..d + D];
            for i in 0..D {
                let bytes = isa.load(&blocks[i]);
                for j in 0..C {
                    sums[i][j][0] = isa.dot7(sums[i][j][0], bytes, high[j][k]);
                    sums[i][j][1] = isa.dot7(sums[i][j][1], bytes, low[j][k]);
                }
            }
        }
        for j in 0..C {
            let (step, offset) = steps[c + j];
            let (mine, theirs) = factors[c + j];
            for i in 0..D {
                let n = isa.whole(sums[i][j][0], sums[i][j][1]);
                let values = isa.scaled_sums(n, offset, &[1.0; LANES], step);
                self.add(isa, c + j, d + i, &values, mine, theirs);
            }
        }
    }
}
