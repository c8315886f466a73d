//! What an instruction set offers to the kernels, and the list of those there are.
//!
//! A ternary product walks 64-byte blocks: 16 rows, and for each row one 32-bit lane that holds, plane after plane,
//! four consecutive columns. One `dot` takes a plane (64 codes 0..=2) and four activations, the same for all rows,
//! and adds `code * activation` over the four columns to each of 16 sums.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avxvnni;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "aarch64")]
mod neon_dotprod;
#[cfg(target_arch = "aarch64")]
mod neon_i8mm;
mod scalar;
#[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
mod wasm_relaxed;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod wasm_simd128;

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
pub(crate) use amx::Amx;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::Avx512;
#[cfg(target_arch = "x86_64")]
pub(crate) use avxvnni::{Avx512Vl, AvxVnni};
#[cfg(target_arch = "aarch64")]
pub(crate) use neon::Neon;
#[cfg(target_arch = "aarch64")]
pub(crate) use neon_dotprod::NeonDotprod;
#[cfg(target_arch = "aarch64")]
pub(crate) use neon_i8mm::NeonI8mm;
pub(crate) use scalar::Scalar;
#[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
pub(crate) use wasm_relaxed::WasmRelaxed;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub(crate) use wasm_simd128::WasmSimd128;

use crate::exponential::exp;
use crate::half::f16_to_f32;

// No closures around vectors in here and in the kernels (`map`, `from_fn`): a closure is a function of its own, compiled
// without the frame's instructions, and where it is not inlined every step becomes a call.

/// A 64-byte block of packed weights.
pub(crate) type Block = [u8; 64];

/// Part of a matrix of floats where it lies: element `(i, j)` is `data[i * row + j * col]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Strided<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) row: usize,
    pub(crate) col: usize,
}

impl Strided<'_> {
    /// Whether element `(i, j)` lies in the data, and with it all those before.
    #[allow(dead_code)] // where no set has a float tile of its own
    #[inline(always)]
    pub(crate) fn has(self, i: usize, j: usize) -> bool {
        let (row, col) = (i.checked_mul(self.row), j.checked_mul(self.col));
        row.zip(col).and_then(|(row, col)| row.checked_add(col)).is_some_and(|at| at < self.data.len())
    }
}

/// A piece of work written once for every instruction set.
pub(crate) trait Kernel {
    /// What it returns.
    type Output;
    /// The work; `#[inline(always)]`, so that it is compiled inside the frame of `I`.
    fn run<I: Isa>(self, isa: I) -> Self::Output;
}

/// The instructions of one set. Implementors are proofs: they exist only if the CPU has the instructions.
pub(crate) trait Isa: Copy + Send + Sync {
    /// Printed everywhere: logs, tables, `--cpu`.
    const NAME: &'static str;
    /// How many `dot`s a `Part` takes before it must be widened: its lanes may be narrower than 32 bits.
    const DOTS: usize;
    /// Row groups (4 or 1) and tokens (up to 6) of a tile whose running sums stay in registers.
    const PANEL: (usize, usize);
    /// Whether `dot` takes any unsigned bytes and its running sums never need widening, so that planes may be masked
    /// without being shifted.
    const SCALED: bool;
    /// What `dot8` adds to every signed byte: 128 where the instruction wants unsigned bytes, else 0.
    const OFFSET8: i32;
    /// Whether base-3 digits are unpacked nearly as quickly as 2-bit codes: where there is a permutation of 64 bytes.
    const UNPACKS_T5: bool = false;
    /// 64 bytes in registers.
    type Bytes: Copy;
    /// 16 sums that cannot overflow.
    type Sums: Copy;
    /// 16 running sums, good for `DOTS` steps.
    type Part: Copy;

    /// Runs a kernel in a function of its own that is compiled for these instructions, and not inlined: kernels that enter others'
    /// frames keep functions small, since compilers take many times as long over one that has all of it.
    fn frame<K: Kernel>(self, kernel: K) -> K::Output;

    /// A block from memory.
    fn load(self, block: &Block) -> Self::Bytes;
    /// A block to memory.
    fn bytes(self, bytes: Self::Bytes) -> Block;
    /// Every byte the same.
    fn splat(self, byte: u8) -> Self::Bytes;
    /// Bytewise and.
    fn and(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// Bytewise sum.
    fn add(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;
    /// Shifts right by two bits; what crosses from a neighbouring byte is to be masked off by the caller.
    fn shift2(self, a: Self::Bytes) -> Self::Bytes;
    /// For each byte: `v >= k` gives `(v - k, 1)`, else `(v, 0)`.
    fn take(self, v: Self::Bytes, k: u8) -> (Self::Bytes, Self::Bytes);

    /// Prefetches the cache line of `data[at]`, which may lie past the end.
    #[inline(always)]
    fn prefetch<T>(self, _data: &[T], _at: usize) {}
    /// Prefetches it into the second cache only. For runs too short for the hardware's own prefetcher: the first cache
    /// waits for few lines at once, so that what it asks for itself comes at less than half of the memory's speed.
    #[inline(always)]
    fn prefetch_l2<T>(self, data: &[T], at: usize) {
        self.prefetch(data, at)
    }

    /// Sums of zero.
    fn sums(self) -> Self::Sums;
    /// Running sums of zero.
    fn part(self) -> Self::Part;
    /// Adds to each row's sum the products of its four codes (0..=2) with four activations.
    fn dot(self, part: Self::Part, codes: Self::Bytes, activations: [i8; 4]) -> Self::Part;
    /// As `dot`, with four activations of its own for each of the 16 lanes.
    fn dot_lanes(self, part: Self::Part, codes: Self::Bytes, activations: &[i8; 64]) -> Self::Part;
    /// The bytes of four registers side by side: lane `4 q + k` of the `v`th holds byte `16 q + 4 v + k` of each.
    fn interleave(self, bytes: [Self::Bytes; 4]) -> [Self::Bytes; 4];
    /// Adds to each row's sum the products of its four bytes with four activations. A byte `b` stands for the signed
    /// value `b - 128` and counts as `b - 128 + OFFSET8` in here, so that the caller takes `OFFSET8 * Σ activations` off.
    /// Sums wrap around; the caller's lengths keep the final value in range.
    fn dot8(self, sums: Self::Sums, bytes: Self::Bytes, activations: [i8; 4]) -> Self::Sums;
    /// Adds a running sum to the sums.
    fn widen(self, sums: Self::Sums, part: Self::Part) -> Self::Sums;
    /// The 16 sums, row by row.
    fn store(self, sums: Self::Sums) -> [i32; 16];

    /// `Σ code * x` for each of `V` inputs, |x| <= 32512, over one row of signed bytes that lies by itself; all have the
    /// same length, a multiple of 32. The inner loop is one that compilers turn into 16-bit multiply-and-add.
    #[inline(always)]
    fn row_products<const V: usize>(self, codes: &[u8], x: [&[i16]; V]) -> [i64; V] {
        /// Columns whose products fit an i32 whatever their signs: 512 * 128 * 32512 < 2^31.
        const SPAN: usize = 512;
        let mut totals = [0i64; V];
        let mut start = 0;
        while start < codes.len() {
            let end = (start + SPAN).min(codes.len());
            for v in 0..V {
                let mut sum = 0i32;
                for (&code, &x) in codes[start..end].iter().zip(&x[v][start..end]) {
                    sum += i32::from(code as i8) * i32::from(x);
                }
                totals[v] += i64::from(sum);
            }
            start = end;
        }
        totals
    }

    /// [`Isa::dot8`] where no activation is beyond ±64: a pair of products fits 16 bits.
    #[inline(always)]
    fn dot7(self, sums: Self::Sums, bytes: Self::Bytes, activations: [i8; 4]) -> Self::Sums {
        self.dot8(sums, bytes, activations)
    }
    /// 16 numbers in f16, little endian.
    #[inline(always)]
    fn halves(self, bytes: &[u8; 32]) -> [f32; 16] {
        let mut values = [0f32; 16];
        for (value, bytes) in values.iter_mut().zip(bytes.as_chunks::<2>().0) {
            *value = f16_to_f32(u16::from_le_bytes(*bytes));
        }
        values
    }
    /// `sums + x * factor`, each product rounded before it is added.
    #[inline(always)]
    fn add_scaled(self, sums: [f32; 16], x: &[f32; 16], factor: f32) -> [f32; 16] {
        let mut sums = sums;
        for (sum, x) in sums.iter_mut().zip(x) {
            *sum += x * factor;
        }
        sums
    }

    /// `e^(x - top)` of each number, by [`crate::exponential::exp`].
    #[inline(always)]
    fn exps(self, x: &mut [[f32; 16]], top: f32) {
        for x in x.as_flattened_mut() {
            *x = exp(*x - top);
        }
    }
    /// The Hadamard transform of 16 numbers without its factor: sums and differences of neighbours, of pairs, of fours, of eights.
    #[inline(always)]
    fn butterflies(self, x: &[f32; 16]) -> [f32; 16] {
        let mut x = *x;
        for half in [1, 2, 4, 8] {
            let old = x;
            for i in 0..16 {
                let other = old[i ^ half];
                x[i] = if i & half == 0 { old[i] + other } else { other - old[i] };
            }
        }
        x
    }
    /// `128 * high + low`, wrapping around.
    #[inline(always)]
    fn whole(self, high: Self::Sums, low: Self::Sums) -> [i32; 16] {
        let (high, low) = (self.store(high), self.store(low));
        let mut whole = [0; 16];
        for i in 0..16 {
            whole[i] = (high[i] << 7).wrapping_add(low[i]);
        }
        whole
    }
    /// `(sums - minus) * (scales * factor)`, each step rounded.
    #[inline(always)]
    fn scaled_sums(self, sums: [i32; 16], minus: i32, scales: &[f32; 16], factor: f32) -> [f32; 16] {
        let mut out = [0f32; 16];
        for i in 0..16 {
            out[i] = sums[i].wrapping_sub(minus) as f32 * (scales[i] * factor);
        }
        out
    }
    /// `x * a + y * b`, each product rounded before the addition.
    #[inline(always)]
    fn mixed(self, x: &[f32; 16], a: f32, y: &[f32; 16], b: f32) -> [f32; 16] {
        let mut out = [0f32; 16];
        for i in 0..16 {
            out[i] = x[i] * a + y[i] * b;
        }
        out
    }

    /// What the running sums of all planes count together: that of plane `p` counts `counts[p]` times, and is divided exactly.
    #[inline(always)]
    fn fold(self, parts: [Self::Part; 5], counts: &[i32]) -> [i32; 16] {
        let mut total = [0i32; 16];
        for (part, &count) in parts.iter().zip(counts) {
            let sum = self.store(self.widen(self.sums(), *part));
            let (shift, inverse) = divisor_of(count);
            for row in 0..16 {
                total[row] += (sum[row] >> shift).wrapping_mul(inverse);
            }
        }
        total
    }
    /// `totals + (sums - minus) * scales * factor`, each step rounded.
    #[inline(always)]
    fn add_sums(
        self,
        totals: [f32; 16],
        sums: [i32; 16],
        minus: i32,
        scales: &[f32; 16],
        factor: f32,
    ) -> [f32; 16] {
        let mut totals = totals;
        for row in 0..16 {
            totals[row] += ((sums[row] - minus) as f32 * scales[row]) * factor;
        }
        totals
    }

    /// A tile of a float product, `M` rows by `V` vectors of 16 columns: `out[m][v]` = (or, with `add`, +=)
    /// `Σ a[m][i] * b[i][16 v + lane]` over `depth` steps `i`, in order. With `FUSED` sets may fuse the multiplication with the
    /// addition, which only training allows; without it every product is rounded, and the bits are the same on every set.
    #[inline(always)]
    fn float_tile<const FUSED: bool, const M: usize, const V: usize>(
        self,
        depth: usize,
        a: Strided,
        b: Strided,
        out: [&mut [[f32; 16]; V]; M],
        add: bool,
    ) {
        for (m, out) in out.into_iter().enumerate() {
            let mut sums = if add { *out } else { [[0f32; 16]; V] };
            for i in 0..depth {
                let (row, _) = b.data[i * b.row..][..16 * V].as_chunks::<16>();
                let factor = a.data[m * a.row + i * a.col];
                for v in 0..V {
                    sums[v] = self.add_scaled(sums[v], &row[v], factor);
                }
            }
            *out = sums;
        }
    }

    /// Four activations as the 32-bit lane that holds them.
    #[allow(dead_code)] // where the scalar set is the only one
    #[inline(always)]
    fn lane([a, b, c, d]: [i8; 4]) -> i32 {
        i32::from_le_bytes([a as u8, b as u8, c as u8, d as u8])
    }

    /// The four 2-bit codes of every byte, lowest bits first.
    #[inline(always)]
    fn split2(self, bytes: Self::Bytes) -> [Self::Bytes; 4] {
        let mask = self.splat(3);
        let b1 = self.shift2(bytes);
        let b2 = self.shift2(b1);
        let b3 = self.shift2(b2);
        [self.and(bytes, mask), self.and(b1, mask), self.and(b2, mask), self.and(b3, mask)]
    }

    /// The four 2-bit codes of every byte where they lie: code `p` counts `4^p`.
    #[inline(always)]
    fn mask2(self, bytes: Self::Bytes) -> [Self::Bytes; 4] {
        [
            self.and(bytes, self.splat(0x03)),
            self.and(bytes, self.splat(0x0c)),
            self.and(bytes, self.splat(0x30)),
            self.and(bytes, self.splat(0xc0)),
        ]
    }

    /// The digit of this weight, taken off: `(v mod weight, v / weight)` for `v < 3 * weight`.
    #[inline(always)]
    fn digit(self, v: Self::Bytes, weight: u8) -> (Self::Bytes, Self::Bytes) {
        let (v, a) = self.take(v, weight);
        let (v, b) = self.take(v, weight);
        (v, self.add(a, b))
    }

    /// The five base-3 digits of every byte of T5 (`packing/t5.rs`), least significant first.
    #[inline(always)]
    fn split5(self, bytes: Self::Bytes) -> [Self::Bytes; 5] {
        let (v, d4) = self.digit(bytes, 84);
        let (v, d3) = self.digit(v, 28);
        let (v, d2) = self.digit(v, 9);
        let (d0, d1) = self.digit(v, 3);
        [d0, d1, d2, d3, d4]
    }

    /// What the digits of `mask5` count.
    const MASKED5: [i32; 5] = [1; 5];

    /// The five digits of every byte of T5, digit `p` counting `MASKED5[p]`.
    #[inline(always)]
    fn mask5(self, bytes: Self::Bytes) -> [Self::Bytes; 5] {
        self.split5(bytes)
    }
}

/// What divides a multiple of `by` exactly: a shift, then a product with the inverse of the odd part mod 2^32.
#[inline(always)]
const fn divisor(by: i32) -> (u32, i32) {
    let shift = by.trailing_zeros();
    let odd = by >> shift;
    // Newton: each step doubles the right bits; `odd` is its own inverse mod 8.
    let mut inverse = odd;
    let mut right = 3;
    while right < 32 {
        inverse = inverse.wrapping_mul(2i32.wrapping_sub(odd.wrapping_mul(inverse)));
        right *= 2;
    }
    (shift, inverse)
}

/// [`divisor`] of what planes count, looked up: at the end of every group of columns there is no time to work it out.
#[inline(always)]
pub(crate) fn divisor_of(count: i32) -> (u32, i32) {
    const D28: (u32, i32) = divisor(28);
    const D84: (u32, i32) = divisor(84);
    match count {
        1 => (0, 1),
        4 => (2, 1),
        16 => (4, 1),
        64 => (6, 1),
        28 => D28,
        84 => D84,
        other => divisor(other),
    }
}

/// For numbers below 27 the digits of base 3 as 2-bit codes: `d0 | d1 << 2 | d2 << 4`.
#[allow(dead_code)] // for sets of 16-byte registers with a permutation of bytes
const THREE_DIGITS: [u8; 32] = {
    let mut codes = [0; 32];
    let mut v = 0;
    while v < 27 {
        codes[v] = ((v % 3) | ((v / 3 % 3) << 2) | ((v / 9) << 4)) as u8;
        v += 1;
    }
    codes
};

/// Inside `impl Isa` of a set that brings only products to a smaller one, field 0 of it: everything else, taken over.
#[allow(unused_macros)] // on processors of which there is one set at most
macro_rules! extend {
    ($smaller:ty) => {
        type Bytes = <$smaller as Isa>::Bytes;
        type Sums = <$smaller as Isa>::Sums;
        type Part = Self::Sums;
        #[inline(always)]
        fn load(self, block: &Block) -> Self::Bytes {
            self.0.load(block)
        }
        #[inline(always)]
        fn bytes(self, bytes: Self::Bytes) -> Block {
            self.0.bytes(bytes)
        }
        #[inline(always)]
        fn splat(self, byte: u8) -> Self::Bytes {
            self.0.splat(byte)
        }
        #[inline(always)]
        fn and(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
            self.0.and(a, b)
        }
        #[inline(always)]
        fn add(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes {
            self.0.add(a, b)
        }
        #[inline(always)]
        fn shift2(self, a: Self::Bytes) -> Self::Bytes {
            self.0.shift2(a)
        }
        #[inline(always)]
        fn take(self, v: Self::Bytes, k: u8) -> (Self::Bytes, Self::Bytes) {
            self.0.take(v, k)
        }
        #[inline(always)]
        fn digit(self, v: Self::Bytes, weight: u8) -> (Self::Bytes, Self::Bytes) {
            self.0.digit(v, weight)
        }
        #[inline(always)]
        fn split5(self, bytes: Self::Bytes) -> [Self::Bytes; 5] {
            self.0.split5(bytes)
        }
        #[inline(always)]
        fn interleave(self, bytes: [Self::Bytes; 4]) -> [Self::Bytes; 4] {
            self.0.interleave(bytes)
        }
        #[inline(always)]
        fn prefetch<T>(self, data: &[T], at: usize) {
            self.0.prefetch(data, at)
        }
        #[inline(always)]
        fn prefetch_l2<T>(self, data: &[T], at: usize) {
            self.0.prefetch_l2(data, at)
        }
        #[inline(always)]
        fn sums(self) -> Self::Sums {
            self.0.sums()
        }
        #[inline(always)]
        fn part(self) -> Self::Part {
            self.0.sums()
        }
        #[inline(always)]
        fn store(self, sums: Self::Sums) -> [i32; 16] {
            self.0.store(sums)
        }
        #[inline(always)]
        fn halves(self, bytes: &[u8; 32]) -> [f32; 16] {
            self.0.halves(bytes)
        }
        #[inline(always)]
        fn add_scaled(self, sums: [f32; 16], x: &[f32; 16], factor: f32) -> [f32; 16] {
            self.0.add_scaled(sums, x, factor)
        }
        #[inline(always)]
        fn add_sums(
            self,
            totals: [f32; 16],
            sums: [i32; 16],
            minus: i32,
            scales: &[f32; 16],
            factor: f32,
        ) -> [f32; 16] {
            self.0.add_sums(totals, sums, minus, scales, factor)
        }
    };
}
#[allow(unused_imports)]
use extend;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Cpu;

    struct Dot8<'a>(&'a Block, [i8; 4]);

    impl Kernel for Dot8<'_> {
        type Output = [i32; 16];
        #[inline(always)]
        fn run<I: Isa>(self, isa: I) -> [i32; 16] {
            let mut sums = isa.sums();
            for _ in 0..3 {
                sums = isa.dot8(sums, isa.load(self.0), self.1);
            }
            let offset = I::OFFSET8 * 3 * self.1.iter().map(|&x| i32::from(x)).sum::<i32>();
            isa.store(sums).map(|sum| sum - offset)
        }
    }

    #[test]
    fn products_of_whole_bytes_are_exact() {
        let mixed: Block = std::array::from_fn(|i| (i * 37 % 256) as u8);
        for block in [mixed, [0; 64], [255; 64], [128; 64], [1; 64]] {
            for x in [[127; 4], [-128; 4], [-127, 127, -127, 127], [1, -2, 3, -4], [0, 0, 0, 1]] {
                let want: [i32; 16] = std::array::from_fn(|row| {
                    (0..4).map(|j| 3 * (i32::from(block[4 * row + j]) - 128) * i32::from(x[j])).sum()
                });
                for cpu in Cpu::available() {
                    assert_eq!(cpu.run(Dot8(&block, x)), want, "{}", cpu.name());
                }
            }
        }
    }
}
