//! A tile's way over the chunks of a sequence, in whichever format they are kept.

use super::COLUMNS;
use super::cache::{Cache, Part};
use super::format::{CHUNK, Kept, LANES};
use super::packed::{Packed, Q3, Q4, Q8};
use super::softmax::{Sum, weigh};
use super::stored::{F16, F32, Stored};
use super::tile::{Factors, Tile};
use crate::isa::{Isa, Kernel};
use std::marker::PhantomData;

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
            let at = At { part, groups, first };
            match cache.format().keys {
                Kept::F32 => isa.frame(Keys::<Floats<F32>>::new(self, at)),
                Kept::F16 => isa.frame(Keys::<Floats<F16>>::new(self, at)),
                Kept::Int8 => isa.frame(Keys::<Int8>::new(self, at)),
                Kept::Q8 => isa.frame(Keys::<Groups<Q8>>::new(self, at)),
                Kept::Q4 => isa.frame(Keys::<Groups<Q4>>::new(self, at)),
                Kept::Q3 => isa.frame(Keys::<Groups<Q3>>::new(self, at)),
            }
            let mut factors = [(0f32, 0f32); COLUMNS];
            for c in first..self.columns {
                self.hide(c, groups);
                let sum = weigh(isa, &mut self.buffers.scores[c][..groups]);
                factors[c] = self.sums[c].join(sum);
            }
            Self::ask(isa, self.next.1);
            match cache.format().values {
                Kept::F32 => isa.frame(Values::<Floats<F32>>::new(self, at, &factors)),
                Kept::F16 => isa.frame(Values::<Floats<F16>>::new(self, at, &factors)),
                Kept::Int8 => isa.frame(Values::<Int8>::new(self, at, &factors)),
                Kept::Q8 => isa.frame(Values::<Groups<Q8>>::new(self, at, &factors)),
                Kept::Q4 => isa.frame(Values::<Groups<Q4>>::new(self, at, &factors)),
                Kept::Q3 => isa.frame(Values::<Groups<Q3>>::new(self, at, &factors)),
            }
        }
        self.columns = columns;
    }
}

/// A head in a chunk: its groups of 16 positions that are seen, and the first column that sees any.
#[derive(Clone, Copy)]
struct At<'a> {
    part: Part<'a>,
    groups: usize,
    first: usize,
}

/// What meets the keys and the values of a format.
trait Form {
    fn keys<I: Isa>(isa: I, tile: &mut Tile<'_>, at: At<'_>);
    fn values<I: Isa>(isa: I, tile: &mut Tile<'_>, at: At<'_>, factors: &Factors);
}

struct Floats<S>(PhantomData<S>);
struct Int8;
struct Groups<P>(PhantomData<P>);

impl<S: Stored> Form for Floats<S> {
    #[inline(always)]
    fn keys<I: Isa>(isa: I, tile: &mut Tile<'_>, at: At<'_>) {
        tile.float_keys::<I, S>(isa, at.part, at.groups, at.first);
    }
    #[inline(always)]
    fn values<I: Isa>(isa: I, tile: &mut Tile<'_>, at: At<'_>, factors: &Factors) {
        tile.float_values::<I, S>(isa, at.part, at.groups, at.first, factors);
    }
}

impl Form for Int8 {
    #[inline(always)]
    fn keys<I: Isa>(isa: I, tile: &mut Tile<'_>, at: At<'_>) {
        tile.int8_keys(isa, at.part, at.groups, at.first);
    }
    #[inline(always)]
    fn values<I: Isa>(isa: I, tile: &mut Tile<'_>, at: At<'_>, factors: &Factors) {
        tile.int8_values(isa, at.part, at.groups, at.first, factors);
    }
}

impl<P: Packed> Form for Groups<P> {
    #[inline(always)]
    fn keys<I: Isa>(isa: I, tile: &mut Tile<'_>, at: At<'_>) {
        tile.key_groups::<I, P>(isa, at.part, at.groups, at.first);
    }
    #[inline(always)]
    fn values<I: Isa>(isa: I, tile: &mut Tile<'_>, at: At<'_>, factors: &Factors) {
        tile.value_groups::<I, P>(isa, at.part, at.groups, at.first, factors);
    }
}

/// The scores of a chunk, in a function of its own for each format.
struct Keys<'t, 'a, F> {
    tile: &'t mut Tile<'a>,
    at: At<'a>,
    form: PhantomData<F>,
}

impl<'t, 'a, F> Keys<'t, 'a, F> {
    fn new(tile: &'t mut Tile<'a>, at: At<'a>) -> Self {
        Self { tile, at, form: PhantomData }
    }
}

impl<F: Form> Kernel for Keys<'_, '_, F> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        F::keys(isa, self.tile, self.at);
    }
}

/// The weighted values of a chunk, likewise.
struct Values<'t, 'a, F> {
    keys: Keys<'t, 'a, F>,
    factors: &'t Factors,
}

impl<'t, 'a, F> Values<'t, 'a, F> {
    fn new(tile: &'t mut Tile<'a>, at: At<'a>, factors: &'t Factors) -> Self {
        Self { keys: Keys::new(tile, at), factors }
    }
}

impl<F: Form> Kernel for Values<'_, '_, F> {
    type Output = ();
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        F::values(isa, self.keys.tile, self.keys.at, self.factors);
    }
}
