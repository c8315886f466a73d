//! Attention over rotated keys and values with a scale for every 128 elements, in exact integers up to a scale.
//!
//! Queries are rounded to 8 bits against keys of 4 and 3 (the keys' own error is some ten times theirs), to 14 against keys of
//! 8; weights times scales to 14, as over int8. What is packed is unpacked into the first cache once for all queries of a tile, or,
//! where there are only as many as are summed together, on its way into their products. The key and the value of a text's first
//! token, which many heads look at most, are floats of 8 bits.
//!
//! ```text
//! |sum over a group of a key|        <= 128 * 8191 * 255 <= 2.7e8, or 128 * 127 * 15
//! |sum over a chunk of the values|   <= CHUNK * 8191 * 255 <= 5.4e8
//! ```

use super::COLUMNS;
use super::cache::Part;
use super::dots::{self, Units, dots};
use super::format::{CHUNK, GROUP, LANES};
use super::packed::{Packed, Running};
use super::softmax::quantise;
use super::tile::{Factors, Tile};
use super::write::read_first;
use crate::isa::{Block, Isa};

/// Quads of a group of elements.
const QUADS: usize = GROUP / 4;
/// Quads of elements that running sums take.
const STEPS: usize = 8;
/// Quads of positions that they take.
const SPAN: usize = 16;
/// Queries whose products run together where registers are many.
const FOUR: usize = 4;

impl Tile<'_> {
    /// Scores of columns `first..` against the `groups` of 16 positions of a chunk.
    #[inline(always)]
    pub(super) fn key_groups<I: Isa, P: Packed>(
        &mut self,
        isa: I,
        part: Part<'_>,
        groups: usize,
        first: usize,
    ) {
        // Made once: what is unpacked of 4 groups of positions, or of one.
        let (mut four, mut one) = ([[isa.splat(0); 4]; QUADS], [[isa.splat(0); 1]; QUADS]);
        let mut g = 0;
        while g < groups {
            if I::PANEL.0 >= 4 && groups - g >= 4 {
                self.keys_of::<I, P, 4>(isa, part, g, first, &mut four);
                g += 4;
            } else {
                self.keys_of::<I, P, 1>(isa, part, g, first, &mut one);
                g += 1;
            }
        }
        if part.first_key.is_empty() {
            return;
        }
        let mut key = [0f32; super::MAX_HEAD_DIM];
        let key = &mut key[..self.dim];
        read_first(part.first_key, key);
        for c in first..self.columns {
            let query = &self.queries.floats[self.query[c] * self.dim..][..self.dim];
            self.buffers.scores[c][0][0] = crate::float::dot_lanes(query, key);
        }
    }

    /// Scores against `G` groups of positions, one group of elements after another.
    #[inline(always)]
    fn keys_of<I: Isa, P: Packed, const G: usize>(
        &mut self,
        isa: I,
        part: Part<'_>,
        g: usize,
        first: usize,
        codes: &mut [[I::Bytes; G]; QUADS],
    ) {
        let (units, steps) = (self.dim.div_ceil(4 * P::QUADS), self.dim.div_ceil(GROUP));
        let per = units * P::BLOCKS;
        let keys: &[Block] = &part.keys.as_chunks().0[g * per..][..G * per];
        let scales: &[[u8; 2 * LANES]] = &part.key_scales.as_chunks().0[g * steps..][..G * steps];
        let most = if I::PANEL.1 >= FOUR { FOUR / P::PARTS } else { 2 / P::PARTS };
        for s in 0..steps {
            let first_unit = s * QUADS / P::QUADS;
            let count = (QUADS / P::QUADS).min(units - first_unit);
            let mut values = [[0f32; LANES]; G];
            for i in 0..G {
                values[i] = isa.halves(&scales[i * steps + s]);
            }
            let ask = (g * per + G * first_unit * P::BLOCKS) * size_of::<Block>();
            let mut units = Units {
                blocks: &keys[first_unit * P::BLOCKS..],
                down: P::BLOCKS,
                beside: per,
                count,
                unpacked: &[],
                ask: part.values.get(ask..).unwrap_or(&[]),
            };
            let once = self.columns - first <= most;
            if !once {
                units.unpack::<I, P>(isa, codes);
                units.unpacked = codes;
            }
            let mut c = first;
            while c < self.columns {
                c += match (once, most.min(self.columns - c)) {
                    (true, 4..) => self.key_dots::<I, P, G, 4, true>(isa, units, &values, s, g, c),
                    (true, 2..) => self.key_dots::<I, P, G, 2, true>(isa, units, &values, s, g, c),
                    (true, _) => self.key_dots::<I, P, G, 1, true>(isa, units, &values, s, g, c),
                    (false, 4..) => self.key_dots::<I, P, G, 4, false>(isa, units, &values, s, g, c),
                    (false, 2..) => self.key_dots::<I, P, G, 2, false>(isa, units, &values, s, g, c),
                    (false, _) => self.key_dots::<I, P, G, 1, false>(isa, units, &values, s, g, c),
                };
                units.ask = &[];
            }
        }
    }

    /// Adds one group of elements to the scores of `G` groups of positions for `C` queries; returns `C`.
    #[inline(always)]
    fn key_dots<I: Isa, P: Packed, const G: usize, const C: usize, const PACKED: bool>(
        &mut self,
        isa: I,
        units: Units<'_, I::Bytes, G>,
        scales: &[[f32; LANES]; G],
        s: usize,
        g: usize,
        c: usize,
    ) -> usize {
        let mut x: dots::Rows<'_, C> = [[&[]; 2]; C];
        for j in 0..C {
            for p in 0..P::PARTS {
                x[j][p] = &self.queries.part(self.query[c + j], p)[s * QUADS..];
            }
        }
        let sums = dots::<I, P, G, C, PACKED>(isa, units, &x, P::PARTS, STEPS);
        for j in 0..C {
            let query = &self.queries.rounded[self.query[c + j]];
            let offset = query.sums[s].wrapping_mul(P::Running::offset::<I>(P::ZERO));
            for i in 0..G {
                let [high, low] = sums[i][j];
                let n = if P::PARTS == 2 { isa.whole(high, low) } else { isa.store(high) };
                let scores = &mut self.buffers.scores[c + j][g + i];
                let before = if s == 0 { [0.0; LANES] } else { *scores };
                *scores = isa.add_sums(before, n, offset, &scales[i], query.step);
            }
        }
        C
    }

    /// Adds the weighted values of a chunk to columns `first..`.
    #[inline(always)]
    pub(super) fn value_groups<I: Isa, P: Packed>(
        &mut self,
        isa: I,
        part: Part<'_>,
        groups: usize,
        first: usize,
        factors: &Factors,
    ) {
        let mut value = [0f32; super::MAX_HEAD_DIM];
        let mut weights = [0f32; COLUMNS];
        if !part.first_value.is_empty() {
            read_first(part.first_value, &mut value[..self.dim]);
            for c in first..self.columns {
                weights[c] = std::mem::take(&mut self.buffers.scores[c][0][0]);
            }
        }
        // Four queries pass the values once, two elements' blocks at a time; more pass what was unpacked by pairs, with four.
        let many = I::PANEL.0 >= 4 && self.columns - first > FOUR;
        let wide = self.dim.div_ceil(LANES);
        for s in 0..self.dim.div_ceil(GROUP) {
            let mut scales = [[0f32; LANES]; CHUNK / LANES];
            let halves: &[[u8; 2 * LANES]] = part.value_scales.as_chunks().0;
            for (scales, halves) in scales.iter_mut().zip(&halves[s * CHUNK / LANES..][..groups]) {
                *scales = isa.halves(halves);
            }
            let mut steps = [(0f32, 0i32); COLUMNS];
            for c in first..self.columns {
                let [high, low] = &mut self.buffers.codes[c];
                let weights = &self.buffers.scores[c][..groups];
                let (step, total) = quantise(weights, &scales, &mut high[..groups], &mut low[..groups]);
                // A unit may reach beyond the last group.
                let end = groups.next_multiple_of(2);
                high[groups..end].as_flattened_mut().fill(0);
                low[groups..end].as_flattened_mut().fill(0);
                steps[c] = (step, total.wrapping_mul(P::Running::offset::<I>(P::ZERO)));
            }
            let firsts: (&[f32; COLUMNS], &[[f32; LANES]]) = (&weights, value.as_chunks().0);
            let end = wide.min((s + 1) * (GROUP / LANES));
            let mut d = s * (GROUP / LANES);
            if many {
                d = self.values_of::<I, P, 4>(isa, part, groups, first, d..end, &steps, factors, firsts);
            }
            d = self.values_of::<I, P, 2>(isa, part, groups, first, d..end, &steps, factors, firsts);
            self.values_of::<I, P, 1>(isa, part, groups, first, d..end, &steps, factors, firsts);
        }
    }

    /// Elements `16 * range`, `D` times 16 at a time; returns where they end. `firsts` are the weights and the value of the first
    /// token.
    #[allow(clippy::too_many_arguments)] // the place of the products in elements and queries, and what they are scaled with
    #[inline(always)]
    fn values_of<I: Isa, P: Packed, const D: usize>(
        &mut self,
        isa: I,
        part: Part<'_>,
        groups: usize,
        first: usize,
        range: std::ops::Range<usize>,
        steps: &[(f32, i32); COLUMNS],
        factors: &Factors,
        firsts: (&[f32; COLUMNS], &[[f32; LANES]]),
    ) -> usize {
        let mut d = range.start;
        if d + D > range.end {
            return d;
        }
        let wide = self.dim.div_ceil(LANES);
        let values: &[Block] = part.values.as_chunks().0;
        let count = (groups * 4).div_ceil(P::QUADS);
        let most = if I::PANEL.0 < 4 { 1 } else { 2 * FOUR / D.max(2) };
        let once = self.columns - first <= most;
        // Made once: what is unpacked of a chunk.
        let mut codes = [[isa.splat(0); D]; CHUNK / 4];
        while d + D <= range.end {
            let mut units = Units {
                blocks: &values[d * P::BLOCKS..],
                down: wide * P::BLOCKS,
                beside: P::BLOCKS,
                count,
                unpacked: &[],
                ask: self.next.0.get(d * count * P::BLOCKS * size_of::<Block>()..).unwrap_or(&[]),
            };
            if !once {
                units.unpack::<I, P>(isa, &mut codes);
                units.unpacked = &codes;
            }
            let mut c = first;
            while c < self.columns {
                let (s, f) = (steps, factors);
                c += match (once, most.min(self.columns - c)) {
                    (true, 4..) => self.value_dots::<I, P, D, 4, true>(isa, units, c, d, s, f, firsts),
                    (true, 2..) => self.value_dots::<I, P, D, 2, true>(isa, units, c, d, s, f, firsts),
                    (true, _) => self.value_dots::<I, P, D, 1, true>(isa, units, c, d, s, f, firsts),
                    (false, 4..) => self.value_dots::<I, P, D, 4, false>(isa, units, c, d, s, f, firsts),
                    (false, 2..) => self.value_dots::<I, P, D, 2, false>(isa, units, c, d, s, f, firsts),
                    (false, _) => self.value_dots::<I, P, D, 1, false>(isa, units, c, d, s, f, firsts),
                };
                units.ask = &[];
            }
            d += D;
        }
        d
    }

    /// Adds the weighted values of `D` times 16 elements to `C` columns; returns `C`.
    #[allow(clippy::too_many_arguments)] // the place of the products in elements and queries, and what they are scaled with
    #[inline(always)]
    fn value_dots<I: Isa, P: Packed, const D: usize, const C: usize, const PACKED: bool>(
        &mut self,
        isa: I,
        units: Units<'_, I::Bytes, D>,
        c: usize,
        d: usize,
        steps: &[(f32, i32); COLUMNS],
        factors: &Factors,
        firsts: (&[f32; COLUMNS], &[[f32; LANES]]),
    ) -> usize {
        let mut x: dots::Rows<'_, C> = [[&[]; 2]; C];
        for j in 0..C {
            for p in 0..2 {
                x[j][p] = self.buffers.codes[c + j][p].as_flattened().as_chunks().0;
            }
        }
        let sums = dots::<I, P, D, C, PACKED>(isa, units, &x, 2, SPAN);
        for j in 0..C {
            let ((step, offset), (mine, theirs)) = (steps[c + j], factors[c + j]);
            for i in 0..D {
                let [high, low] = sums[i][j];
                let values = isa.scaled_sums(isa.whole(high, low), offset, &[1.0; LANES], step);
                let values = isa.add_scaled(values, &firsts.1[d + i], firsts.0[c + j]);
                self.add(isa, c + j, d + i, &values, mine, theirs);
            }
        }
        C
    }
}
