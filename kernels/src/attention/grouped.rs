//! Attention over rotated keys and values with a scale for every 128 elements, in exact integers up to a scale.
//!
//! Queries are rounded to 8 bits against keys of 4 and 3 (the keys' own error is some ten times theirs), to 14 against keys of
//! 8; weights times scales to 14, as over int8. What is packed is unpacked into registers and the first cache once for all
//! queries of a tile. The key and the value of a text's first token, which many heads look at most, are floats of 8 bits.
//!
//! ```text
//! |sum over a group of a key|        <= 128 * 8191 * 255 <= 2.7e8, or 128 * 127 * 15
//! |sum over a chunk of the values|   <= CHUNK * 8191 * 255 <= 5.4e8
//! ```

use super::COLUMNS;
use super::cache::Part;
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
/// Quads of positions that are unpacked at a time: as many as running sums take.
const SPAN: usize = 16;
/// Queries whose products run together where registers are many.
const FOUR: usize = 4;

/// Running sums of all columns over one group of the values: blocks of 16 elements, high and low parts.
type Sums<I, const D: usize> = [[[<I as Isa>::Sums; 2]; D]; COLUMNS];

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
        for s in 0..steps {
            let first_unit = s * QUADS / P::QUADS;
            let count = (QUADS / P::QUADS).min(units - first_unit);
            let mut values = [[0f32; LANES]; G];
            for i in 0..G {
                values[i] = isa.halves(&scales[i * steps + s]);
                let at = i * per + first_unit * P::BLOCKS;
                let blocks = &keys[at..][..count * P::BLOCKS];
                for b in 0..blocks.len() {
                    isa.prefetch(part.values, (g * per + at + b) * size_of::<Block>());
                }
                for (blocks, out) in blocks.chunks_exact(P::BLOCKS).zip(codes.chunks_exact_mut(P::QUADS)) {
                    P::unpack(isa, blocks, out, i);
                }
            }
            let codes = &codes[..count * P::QUADS];
            let most = if I::PANEL.1 >= FOUR { FOUR / P::PARTS } else { 2 / P::PARTS };
            let mut c = first;
            while c < self.columns {
                c += match most.min(self.columns - c) {
                    4.. => self.key_dots::<I, P, G, 4>(isa, codes, &values, s, g, c),
                    2.. => self.key_dots::<I, P, G, 2>(isa, codes, &values, s, g, c),
                    _ => self.key_dots::<I, P, G, 1>(isa, codes, &values, s, g, c),
                };
            }
        }
    }

    /// Adds one group of elements to the scores of `G` groups of positions for `C` queries; returns `C`.
    #[allow(clippy::too_many_arguments)] // the place of the products in elements, positions and queries
    #[inline(always)]
    fn key_dots<I: Isa, P: Packed, const G: usize, const C: usize>(
        &mut self,
        isa: I,
        codes: &[[I::Bytes; G]],
        scales: &[[f32; LANES]; G],
        s: usize,
        g: usize,
        c: usize,
    ) -> usize {
        let mut x: [[&[[i8; 4]]; 2]; C] = [[&[]; 2]; C];
        for j in 0..C {
            for p in 0..P::PARTS {
                x[j][p] = &self.queries.part(self.query[c + j], p)[s * QUADS..][..codes.len()];
            }
        }
        let mut sums = [[[isa.sums(); 2]; C]; G];
        for (nth, codes) in codes.chunks(STEPS).enumerate() {
            let mut running = [[[P::Running::begin(isa, isa.sums()); 2]; C]; G];
            for i in 0..G {
                for j in 0..C {
                    for p in 0..P::PARTS {
                        running[i][j][p] = P::Running::begin(isa, sums[i][j][p]);
                    }
                }
            }
            for (k, codes) in codes.iter().enumerate() {
                for i in 0..G {
                    for j in 0..C {
                        for p in 0..P::PARTS {
                            let x = x[j][p][nth * STEPS + k];
                            running[i][j][p] = P::Running::dot(isa, running[i][j][p], codes[i], x);
                        }
                    }
                }
            }
            for i in 0..G {
                for j in 0..C {
                    for p in 0..P::PARTS {
                        sums[i][j][p] = P::Running::end(isa, sums[i][j][p], running[i][j][p]);
                    }
                }
            }
        }
        for j in 0..C {
            let query = &self.queries.rounded[self.query[c + j]];
            let offset = query.sums[s].wrapping_mul(P::Running::offset::<I>(P::ZERO));
            for i in 0..G {
                let mut n = isa.store(sums[i][j][0]);
                if P::PARTS == 2 {
                    let low = isa.store(sums[i][j][1]);
                    for lane in 0..LANES {
                        n[lane] = (n[lane] << 7).wrapping_add(low[lane]);
                    }
                }
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
        let wide = self.dim.div_ceil(LANES);
        for s in 0..self.dim.div_ceil(GROUP) {
            let mut d = s * (GROUP / LANES);
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
            let end = wide.min(d + GROUP / LANES);
            while d < end {
                if end - d >= 2 {
                    self.values_of::<I, P, 2>(isa, part, groups, first, d, &steps, factors, firsts);
                    d += 2;
                } else {
                    self.values_of::<I, P, 1>(isa, part, groups, first, d, &steps, factors, firsts);
                    d += 1;
                }
            }
        }
    }

    /// `D` times 16 elements from `16 * d` on; `firsts` are the weights and the value of the first token.
    #[allow(clippy::too_many_arguments)] // the place of the products in elements and queries, and what they are scaled with
    #[inline(always)]
    fn values_of<I: Isa, P: Packed, const D: usize>(
        &mut self,
        isa: I,
        part: Part<'_>,
        groups: usize,
        first: usize,
        d: usize,
        steps: &[(f32, i32); COLUMNS],
        factors: &Factors,
        firsts: (&[f32; COLUMNS], &[[f32; LANES]]),
    ) {
        let wide = self.dim.div_ceil(LANES);
        let values: &[Block] = part.values.as_chunks().0;
        let units = (groups * 4).div_ceil(P::QUADS);
        let mut sums: Sums<I, D> = [[[isa.sums(); 2]; D]; COLUMNS];
        let mut codes = [[isa.splat(0); D]; SPAN];
        for start in (0..units).step_by(SPAN / P::QUADS) {
            let count = (SPAN / P::QUADS).min(units - start);
            for (unit, out) in codes.chunks_exact_mut(P::QUADS).take(count).enumerate() {
                let at = ((start + unit) * wide + d) * P::BLOCKS;
                let blocks = &values[at..][..D * P::BLOCKS];
                for b in 0..blocks.len() {
                    isa.prefetch(self.next.0, (at + b) * size_of::<Block>());
                }
                for (i, blocks) in blocks.chunks_exact(P::BLOCKS).enumerate() {
                    P::unpack(isa, blocks, out, i);
                }
            }
            let codes = &codes[..count * P::QUADS];
            let mut c = first;
            while c < self.columns {
                let four = I::PANEL.0 >= 4 && self.columns - c >= FOUR;
                c += if four {
                    self.value_dots::<I, P, D, FOUR>(isa, codes, start * P::QUADS, c, &mut sums)
                } else {
                    self.value_dots::<I, P, D, 1>(isa, codes, start * P::QUADS, c, &mut sums)
                };
            }
        }
        for c in first..self.columns {
            let ((step, offset), (mine, theirs)) = (steps[c], factors[c]);
            for i in 0..D {
                let [high, low] = sums[c][i];
                let (high, low) = (isa.store(high), isa.store(low));
                let mut values = [0f32; LANES];
                for lane in 0..LANES {
                    let n = (high[lane] << 7).wrapping_add(low[lane]).wrapping_sub(offset);
                    values[lane] = n as f32 * step + firsts.0[c] * firsts.1[d + i][lane];
                }
                self.add(c, d + i, &values, mine, theirs);
            }
        }
    }

    /// Adds a span of positions, from quad `k` on, to the sums of `C` columns; returns `C`.
    #[inline(always)]
    fn value_dots<I: Isa, P: Packed, const D: usize, const C: usize>(
        &self,
        isa: I,
        codes: &[[I::Bytes; D]],
        k: usize,
        c: usize,
        sums: &mut Sums<I, D>,
    ) -> usize {
        let mut x: [[&[[i8; 4]]; 2]; C] = [[&[]; 2]; C];
        let mut part = [[[P::Running::begin(isa, isa.sums()); 2]; D]; C];
        for j in 0..C {
            for p in 0..2 {
                let codes_of = &self.buffers.codes[c + j][p];
                x[j][p] = &codes_of.as_flattened().as_chunks().0[k..k + codes.len()];
                for i in 0..D {
                    part[j][i][p] = P::Running::begin(isa, sums[c + j][i][p]);
                }
            }
        }
        for (k, codes) in codes.iter().enumerate() {
            for j in 0..C {
                for p in 0..2 {
                    for i in 0..D {
                        part[j][i][p] = P::Running::dot(isa, part[j][i][p], codes[i], x[j][p][k]);
                    }
                }
            }
        }
        for j in 0..C {
            for i in 0..D {
                for p in 0..2 {
                    let sums = &mut sums[c + j][i][p];
                    *sums = P::Running::end(isa, *sums, part[j][i][p]);
                }
            }
        }
        C
    }
}
