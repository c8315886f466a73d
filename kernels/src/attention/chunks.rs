//! A tile's way over the chunks of a sequence, in whichever format they are kept.

use super::COLUMNS;
use super::cache::Cache;
use super::format::{CHUNK, Kept, LANES};
use super::packed::{Q3, Q4, Q8};
use super::softmax::{Sum, weigh};
use super::stored::{F16, F32};
use super::tile::Tile;
use crate::isa::Isa;

impl<'a> Tile<'a> {
    /// Sums over the chunks in order, beginning with nothing. Columns that do not reach a chunk, or whose window begins
    /// after it, are left alone.
    #[inline(always)]
    pub(super) fn run<I: Isa>(
        &mut self,
        isa: I,
        cache: &'a Cache,
        layer: usize,
        head: usize,
        chunks: std::ops::Range<usize>,
    ) {
        let (after, columns) = (self.next, self.columns);
        for c in 0..self.columns {
            self.sums[c] = Sum::EMPTY;
            self.out(c).fill(0.0);
        }
        for chunk in chunks.clone() {
            let start = chunk * CHUNK;
            let mut first = 0;
            while self.position[first] < start {
                first += 1;
            }
            // Positions ascend: the columns whose windows begin after this chunk are the last.
            self.columns = columns;
            while self.columns > first && self.begin(self.columns - 1) >= start + CHUNK {
                self.columns -= 1;
            }
            if self.columns == first {
                continue;
            }
            for c in first..self.columns {
                let begin = self.begin(c).saturating_sub(start);
                self.seen[c] = (begin, (self.position[c] + 1 - start).min(CHUNK));
            }
            // The last column reaches furthest.
            let groups = self.seen[self.columns - 1].1.div_ceil(LANES);
            let part = cache.head(layer, head, chunk);
            let last = chunk + 1 == chunks.end;
            self.next = if last { after } else { cache.head(layer, head, chunk + 1).beginning() };
            Self::ask(isa, part.value_scales);
            match cache.format().keys {
                Kept::F32 => self.float_keys::<I, F32>(isa, part, groups, first),
                Kept::F16 => self.float_keys::<I, F16>(isa, part, groups, first),
                Kept::Int8 => self.int8_keys(isa, part, groups, first),
                Kept::Q8 => self.key_groups::<I, Q8>(isa, part, groups, first),
                Kept::Q4 => self.key_groups::<I, Q4>(isa, part, groups, first),
                Kept::Q3 => self.key_groups::<I, Q3>(isa, part, groups, first),
            }
            let mut factors = [(0f32, 0f32); COLUMNS];
            for c in first..self.columns {
                self.hide(c, groups);
                let sum = weigh(isa, &mut self.buffers.scores[c][..groups]);
                factors[c] = self.sums[c].join(sum);
            }
            Self::ask(isa, self.next.1);
            match cache.format().values {
                Kept::F32 => self.float_values::<I, F32>(isa, part, groups, first, &factors),
                Kept::F16 => self.float_values::<I, F16>(isa, part, groups, first, &factors),
                Kept::Int8 => self.int8_values(isa, part, groups, first, &factors),
                Kept::Q8 => self.value_groups::<I, Q8>(isa, part, groups, first, &factors),
                Kept::Q4 => self.value_groups::<I, Q4>(isa, part, groups, first, &factors),
                Kept::Q3 => self.value_groups::<I, Q3>(isa, part, groups, first, &factors),
            }
        }
        self.columns = columns;
    }
}
