//! Exact sums of products of packed codes with bytes, for several units side by side and several rows of bytes.

use super::packed::{Packed, Running};
use crate::isa::{Block, Isa};

/// Steps that running sums are good for ([`Isa::DOTS`]) where they take all of a chunk or of a group of elements.
const MANY: usize = 1 << 16;
/// Most quads of a unit.
const UNIT: usize = 8;

/// `N` columns of units, one after another in each.
#[derive(Clone, Copy)]
pub(super) struct Units<'a, B, const N: usize> {
    pub(super) blocks: &'a [Block],
    /// Blocks from a unit to the next one of its column, and to the one beside it.
    pub(super) down: usize,
    pub(super) beside: usize,
    /// How many a column has.
    pub(super) count: usize,
    /// Quad by quad what [`Units::unpack`] made of them.
    pub(super) unpacked: &'a [[B; N]],
    /// What will be wanted soon: for each unit so many bytes as it has are asked for.
    pub(super) ask: &'a [u8],
}

/// Rows of bytes in one or two parts, four bytes for each quad.
pub(super) type Rows<'a, const C: usize> = [[&'a [[i8; 4]]; 2]; C];

impl<'a, B, const N: usize> Units<'a, B, N> {
    /// The codes of all of them.
    #[inline(always)]
    pub(super) fn unpack<I: Isa<Bytes = B>, P: Packed>(&self, isa: I, out: &mut [[B; N]]) {
        for (u, out) in out.chunks_exact_mut(P::QUADS).take(self.count).enumerate() {
            for i in 0..N {
                P::unpack(isa, self.unit::<P>(u, i), out, i);
            }
        }
    }

    #[inline(always)]
    fn unit<P: Packed>(&self, u: usize, i: usize) -> &'a [Block] {
        &self.blocks[u * self.down + i * self.beside..][..P::BLOCKS]
    }
}

/// The sums of products of every column of units with the first `parts` parts of every row. Units are unpacked on the way with
/// `PACKED`, which suits what is read once. Narrow running sums are taken in after every `span` quads.
#[inline(always)]
pub(super) fn dots<I: Isa, P: Packed, const N: usize, const C: usize, const PACKED: bool>(
    isa: I,
    units: Units<'_, I::Bytes, N>,
    x: &Rows<'_, C>,
    parts: usize,
    span: usize,
) -> [[[I::Sums; 2]; C]; N] {
    let quads = units.count * P::QUADS;
    let mut rows: Rows<'_, C> = [[&[]; 2]; C];
    for j in 0..C {
        for p in 0..parts {
            rows[j][p] = &x[j][p][..quads];
        }
    }
    let unpacked = if PACKED { units.unpacked } else { &units.unpacked[..quads] };
    let span = if I::DOTS >= MANY { units.count } else { span / P::QUADS };
    let mut sums = [[[isa.sums(); 2]; C]; N];
    let mut start = 0;
    while start < units.count {
        let end = units.count.min(start + span);
        let mut running = [[[P::Running::begin(isa, isa.sums()); 2]; C]; N];
        for i in 0..N {
            for j in 0..C {
                for p in 0..parts {
                    running[i][j][p] = P::Running::begin(isa, sums[i][j][p]);
                }
            }
        }
        for u in start..end {
            if !units.ask.is_empty() {
                for b in 0..N * P::BLOCKS {
                    isa.prefetch_l2(units.ask, (u * N * P::BLOCKS + b) * size_of::<Block>());
                }
            }
            let mut codes = [[isa.splat(0); N]; UNIT];
            if PACKED {
                for i in 0..N {
                    P::unpack(isa, units.unit::<P>(u, i), &mut codes, i);
                }
            }
            for q in 0..P::QUADS {
                let k = u * P::QUADS + q;
                let codes = if PACKED { &codes[q] } else { &unpacked[k] };
                for i in 0..N {
                    for j in 0..C {
                        for p in 0..parts {
                            running[i][j][p] =
                                P::Running::dot(isa, running[i][j][p], codes[i], rows[j][p][k]);
                        }
                    }
                }
            }
        }
        for i in 0..N {
            for j in 0..C {
                for p in 0..parts {
                    sums[i][j][p] = P::Running::end(isa, sums[i][j][p], running[i][j][p]);
                }
            }
        }
        start = end;
    }
    sums
}
