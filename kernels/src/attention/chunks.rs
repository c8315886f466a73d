//! A tile's way over the chunks of a sequence, in whichever format they are kept.

use super::cache::{CHUNK, Cache, KvFormat, LANES};
use super::floats::{F16, F32};
use super::softmax::Sum;
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
            self.next = if last { after } else { cache.head(layer, head, chunk + 1).keys };
            match cache.format() {
                KvFormat::F32 => self.floats::<I, F32>(isa, part, groups, first),
                KvFormat::F16 => self.floats::<I, F16>(isa, part, groups, first),
                KvFormat::Int8 => self.int8(isa, part, groups, first),
            }
        }
        self.columns = columns;
    }
}
