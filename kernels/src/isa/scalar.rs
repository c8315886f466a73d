//! Plain Rust: what every other instruction set must equal, and what runs where there is none.

use super::{Block, Isa, Kernel};

/// The scalar definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scalar;

impl Isa for Scalar {
    const NAME: &'static str = "scalar";
    const DOTS: usize = usize::MAX;
    const PANEL: (usize, usize) = (1, 1);
    const SCALED: bool = true;
    const OFFSET8: i32 = 0;
    type Bytes = Block;
    type Sums = [i32; 16];
    type Part = [i32; 16];

    #[inline(never)]
    fn frame<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }
    #[inline(always)]
    fn load(self, block: &Block) -> Block {
        *block
    }
    #[inline(always)]
    fn bytes(self, bytes: Block) -> Block {
        bytes
    }
    #[inline(always)]
    fn splat(self, byte: u8) -> Block {
        [byte; 64]
    }
    #[inline(always)]
    fn and(self, a: Block, b: Block) -> Block {
        std::array::from_fn(|i| a[i] & b[i])
    }
    #[inline(always)]
    fn add(self, a: Block, b: Block) -> Block {
        std::array::from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn shift2(self, a: Block) -> Block {
        a.map(|byte| byte >> 2)
    }
    #[inline(always)]
    fn take(self, v: Block, k: u8) -> (Block, Block) {
        (v.map(|v| if v >= k { v - k } else { v }), v.map(|v| u8::from(v >= k)))
    }
    #[inline(always)]
    fn sums(self) -> [i32; 16] {
        [0; 16]
    }
    #[inline(always)]
    fn part(self) -> [i32; 16] {
        [0; 16]
    }
    #[inline(always)]
    fn dot(self, part: [i32; 16], codes: Block, activations: [i8; 4]) -> [i32; 16] {
        std::array::from_fn(|row| {
            (0..4).fold(part[row], |sum, j| sum + i32::from(codes[4 * row + j]) * i32::from(activations[j]))
        })
    }
    #[inline(always)]
    fn dot_lanes(self, part: [i32; 16], codes: Block, activations: &[i8; 64]) -> [i32; 16] {
        std::array::from_fn(|lane| {
            (4 * lane..4 * lane + 4)
                .fold(part[lane], |sum, at| sum + i32::from(codes[at]) * i32::from(activations[at]))
        })
    }
    #[inline(always)]
    fn interleave(self, bytes: [Block; 4]) -> [Block; 4] {
        std::array::from_fn(|v| std::array::from_fn(|at| bytes[at % 4][at / 16 * 16 + 4 * v + at / 4 % 4]))
    }
    #[inline(always)]
    fn dot8(self, sums: [i32; 16], bytes: Block, activations: [i8; 4]) -> [i32; 16] {
        std::array::from_fn(|row| {
            (0..4).fold(sums[row], |sum, j| {
                sum + (i32::from(bytes[4 * row + j]) - 128) * i32::from(activations[j])
            })
        })
    }
    #[inline(always)]
    fn widen(self, sums: [i32; 16], part: [i32; 16]) -> [i32; 16] {
        std::array::from_fn(|row| sums[row] + part[row])
    }
    #[inline(always)]
    fn store(self, sums: [i32; 16]) -> [i32; 16] {
        sums
    }
}
