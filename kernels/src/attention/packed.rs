//! Codes of 8, 4 and 3 bits in blocks: how blocks of one code a byte are packed, and how they are multiplied.
//!
//! ```text
//! q8   1 block    1 quad    a byte is a code
//! q4   1 block    2 quads   the lower and the upper half of a byte
//! q3   3 blocks   8 quads   two bits of quads 0 to 3, two bits of quads 4 to 7, one bit of each: bit `q` is quad `q`'s highest
//! ```
//!
//! A quad is what one dot product takes: four elements of 16 keys, or four positions of 16 elements of the values. A code is
//! unsigned and stands for itself less `ZERO`.

use crate::isa::{Block, Isa};

/// How codes are packed.
pub(super) trait Packed {
    /// Blocks of a unit, and the quads in them.
    const BLOCKS: usize;
    const QUADS: usize;
    /// The code of zero.
    const ZERO: u8;
    /// The magnitude of the lowest code: there is one more below zero than above.
    const LEVELS: f32 = Self::ZERO as f32;
    /// Signed bytes that a query is multiplied in: two of 7 bits or one of 8.
    const PARTS: usize;
    /// What the scale of the largest magnitude is multiplied with: of these scales the one of the least squared error is kept.
    const FACTORS: &[f32];
    /// How they are multiplied.
    type Running: Running;

    /// Sets a code of quad `q`.
    fn put(blocks: &mut [Block], q: usize, byte: usize, code: u8);
    /// The quads of a unit, into place `i` of each of `out`.
    fn unpack<I: Isa, const N: usize>(isa: I, blocks: &[Block], out: &mut [[I::Bytes; N]], i: usize);
}

/// 16 running sums of products of codes, good for 8 dots with bytes of 8 bits or 16 with bytes of 7.
pub(super) trait Running {
    /// They themselves.
    type Sums<I: Isa>: Copy;

    /// Running sums that go on from `sums`, which [`Running::end`] takes again.
    fn begin<I: Isa>(isa: I, sums: I::Sums) -> Self::Sums<I>;
    /// Adds the products of a quad with four signed bytes.
    fn dot<I: Isa>(isa: I, part: Self::Sums<I>, codes: I::Bytes, x: [i8; 4]) -> Self::Sums<I>;
    /// The sums at the end.
    fn end<I: Isa>(isa: I, sums: I::Sums, part: Self::Sums<I>) -> I::Sums;
    /// What `dot` adds to every code whose zero is `zero`.
    fn offset<I: Isa>(zero: u8) -> i32;
}

/// Of codes of a whole byte.
pub(super) struct Wide;
/// Of codes up to 15.
pub(super) struct Small;

/// In 8 bits.
pub(super) struct Q8;
/// In 4 bits.
pub(super) struct Q4;
/// In 3 bits.
pub(super) struct Q3;

impl Packed for Q8 {
    const BLOCKS: usize = 1;
    const QUADS: usize = 1;
    const ZERO: u8 = 128;
    const PARTS: usize = 2;
    const FACTORS: &[f32] = &[1.0];
    type Running = Wide;

    #[inline(always)]
    fn put(blocks: &mut [Block], _: usize, byte: usize, code: u8) {
        blocks[0][byte] = code;
    }
    #[inline(always)]
    fn unpack<I: Isa, const N: usize>(isa: I, blocks: &[Block], out: &mut [[I::Bytes; N]], i: usize) {
        out[0][i] = isa.load(&blocks[0]);
    }
}

impl Packed for Q4 {
    const BLOCKS: usize = 1;
    const QUADS: usize = 2;
    const ZERO: u8 = 8;
    const PARTS: usize = 1;
    const FACTORS: &[f32] = &[1.0, 0.9, 0.8];
    type Running = Small;

    #[inline(always)]
    fn put(blocks: &mut [Block], q: usize, byte: usize, code: u8) {
        let byte = &mut blocks[0][byte];
        *byte = if q == 0 { *byte & 0xf0 | code } else { *byte & 0x0f | code << 4 };
    }
    #[inline(always)]
    fn unpack<I: Isa, const N: usize>(isa: I, blocks: &[Block], out: &mut [[I::Bytes; N]], i: usize) {
        let (bytes, mask) = (isa.load(&blocks[0]), isa.splat(0x0f));
        out[0][i] = isa.and(bytes, mask);
        out[1][i] = isa.and(isa.shift2(isa.shift2(bytes)), mask);
    }
}

impl Packed for Q3 {
    const BLOCKS: usize = 3;
    const QUADS: usize = 8;
    const ZERO: u8 = 4;
    const PARTS: usize = 1;
    const FACTORS: &[f32] = &[1.0, 0.9, 0.8];
    type Running = Small;

    #[inline(always)]
    fn put(blocks: &mut [Block], q: usize, byte: usize, code: u8) {
        let (low, shift) = (&mut blocks[q / 4][byte], 2 * (q % 4));
        *low = *low & !(3 << shift) | (code & 3) << shift;
        let high = &mut blocks[2][byte];
        *high = *high & !(1 << q) | (code >> 2) << q;
    }
    /// The highest bit of a code is to be worth 4: it is masked where shifts by two bring it to 4, or to 1 or 2 and doubled.
    #[inline(always)]
    fn unpack<I: Isa, const N: usize>(isa: I, blocks: &[Block], out: &mut [[I::Bytes; N]], i: usize) {
        let (one, two, four) = (isa.splat(1), isa.splat(2), isa.splat(4));
        let b0 = isa.load(&blocks[2]);
        let b2 = isa.shift2(b0);
        let b4 = isa.shift2(b2);
        let b6 = isa.shift2(b4);
        let zero = isa.and(b0, one);
        let zero = isa.add(zero, zero);
        let doubled = [zero, isa.and(b0, two), isa.and(b2, two), isa.and(b4, two), isa.and(b6, two)];
        let mut high = [zero; 8];
        for (q, two) in [0, 1, 3, 5, 7].into_iter().zip(doubled) {
            high[q] = isa.add(two, two);
        }
        (high[2], high[4], high[6]) = (isa.and(b0, four), isa.and(b2, four), isa.and(b4, four));
        let low = [isa.split2(isa.load(&blocks[0])), isa.split2(isa.load(&blocks[1]))];
        for q in 0..8 {
            out[q][i] = isa.add(low[q / 4][q % 4], high[q]);
        }
    }
}

impl Running for Wide {
    type Sums<I: Isa> = I::Sums;

    #[inline(always)]
    fn begin<I: Isa>(_: I, sums: I::Sums) -> I::Sums {
        sums
    }
    #[inline(always)]
    fn dot<I: Isa>(isa: I, sums: I::Sums, codes: I::Bytes, x: [i8; 4]) -> I::Sums {
        isa.dot7(sums, codes, x)
    }
    #[inline(always)]
    fn end<I: Isa>(_: I, _: I::Sums, part: I::Sums) -> I::Sums {
        part
    }
    #[inline(always)]
    fn offset<I: Isa>(_: u8) -> i32 {
        I::OFFSET8
    }
}

/// By the dot product of the ternary kernels, whose running sums may be narrow: those of `DOTS` steps of codes up to 2 and
/// activations up to 127 fit, and so do those of 8 steps of codes up to 15, or of 16 with activations up to 64.
impl Running for Small {
    type Sums<I: Isa> = I::Part;

    #[inline(always)]
    fn begin<I: Isa>(isa: I, _: I::Sums) -> I::Part {
        isa.part()
    }
    #[inline(always)]
    fn dot<I: Isa>(isa: I, sums: I::Part, codes: I::Bytes, x: [i8; 4]) -> I::Part {
        const { assert!(I::DOTS >= 64 && 64 * 2 * 127 >= 8 * 15 * 127 && 64 * 2 * 127 >= 16 * 15 * 64) };
        isa.dot(sums, codes, x)
    }
    #[inline(always)]
    fn end<I: Isa>(isa: I, sums: I::Sums, part: I::Part) -> I::Sums {
        isa.widen(sums, part)
    }
    #[inline(always)]
    fn offset<I: Isa>(zero: u8) -> i32 {
        i32::from(zero)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Cpu;
    use crate::isa::Kernel;

    fn codes<P: Packed>() -> Vec<Block> {
        let levels = 2 * P::LEVELS as usize;
        (0..P::QUADS).map(|q| std::array::from_fn(|i| ((q * 29 + i * 13 + i * i) % levels) as u8)).collect()
    }

    /// For every quad of a unit its product with the same bytes.
    struct Products<P>(Vec<Block>, std::marker::PhantomData<P>);

    impl<P: Packed> Kernel for Products<P> {
        type Output = Vec<[i32; 16]>;
        #[inline(always)]
        fn run<I: Isa>(self, isa: I) -> Vec<[i32; 16]> {
            let mut out = [[isa.splat(0); 1]; 8];
            P::unpack(isa, &self.0, &mut out, 0);
            let x = [64i8, -63, 1, 64];
            let sum = x.iter().map(|&x| i32::from(x)).sum::<i32>();
            let mut all = Vec::new();
            for q in 0..P::QUADS {
                let mut part = P::Running::begin(isa, isa.sums());
                for _ in 0..8 {
                    part = P::Running::dot(isa, part, out[q][0], x);
                }
                let sums = isa.store(P::Running::end(isa, isa.sums(), part));
                all.push(sums.map(|n| n - 8 * sum * P::Running::offset::<I>(P::ZERO)));
            }
            all
        }
    }

    fn every_set_multiplies_what_was_packed<P: Packed>() {
        let codes = codes::<P>();
        let mut blocks = vec![[0xa5; 64]; P::BLOCKS];
        for (q, codes) in codes.iter().enumerate() {
            for (byte, &code) in codes.iter().enumerate() {
                P::put(&mut blocks, q, byte, code);
            }
        }
        let want: Vec<[i32; 16]> = codes
            .iter()
            .map(|block| {
                std::array::from_fn(|lane| {
                    [64, -63, 1, 64]
                        .iter()
                        .zip(&block[4 * lane..])
                        .map(|(x, &code)| 8 * x * (i32::from(code) - i32::from(P::ZERO)))
                        .sum()
                })
            })
            .collect();
        for cpu in Cpu::available() {
            let got = cpu.run(Products::<P>(blocks.clone(), std::marker::PhantomData));
            assert_eq!(got, want, "{}", cpu.name());
        }
    }

    #[test]
    fn what_is_packed_is_unpacked_on_every_set() {
        every_set_multiplies_what_was_packed::<Q8>();
        every_set_multiplies_what_was_packed::<Q4>();
        every_set_multiplies_what_was_packed::<Q3>();
    }
}
