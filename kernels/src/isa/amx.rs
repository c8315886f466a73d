//! AMX: eight registers of 1 KiB for tiles, and products of two of them in bytes (`tiles.rs`), beside AVX-512: Sapphire Rapids
//! and later, under Linux 5.16 and later.
//!
//! The instructions are written in assembly, as their intrinsics are not stable. A block of it begins and ends with tiles in
//! memory, so nothing but their shape lasts from one to the next: no code that a compiler makes by itself touches it.
//!
//! It has run by emulation only (`amx/tests.rs`), on no such processor yet. So the first use in a process compares its products
//! with those in plain Rust; where one differs the set is not offered.

#[cfg(test)]
mod emulator;
#[cfg(test)]
mod tests;

use std::arch::asm;
use std::arch::x86_64::{__cpuid, __cpuid_count};
use std::marker::PhantomData;
use std::sync::OnceLock;

use super::Block;
use crate::random::Random;
use crate::tiles::{Line, SIDE, Software, Sums, Tiles, check};

/// Proof that the CPU has tiles with products of bytes, and that this process may use them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Amx(());

impl Amx {
    /// The name of the set.
    pub(crate) const NAME: &'static str = "amx";

    /// The proof, if there are tiles. The first call in a process asks the system for them.
    pub(crate) fn new() -> Option<Self> {
        static FOUND: OnceLock<bool> = OnceLock::new();
        // In this order: each makes sure that the next may be run.
        let found = FOUND.get_or_init(|| has() && is_permitted() && is_enabled() && Self(()).is_right());
        found.then_some(Self(()))
    }

    /// The proof for tests: without the instructions they are emulated.
    #[cfg(test)]
    pub(crate) fn or_emulated() -> Self {
        Self::new().unwrap_or_else(|| {
            emulator::install();
            Self(())
        })
    }

    /// Registers for tiles of this many rows of inputs, 1..=16.
    pub(crate) fn configure(self, height: usize) -> Registers {
        assert!((1..=SIDE).contains(&height), "tiles of {height} rows");
        let mut shapes = Shapes { palette: 1, zeros: [0; 15], widths: [64; 8], zero: [0; 8], rows: [0; 16] };
        // Four of sums and two of inputs are as high as the inputs, two of the matrix have 16 lines.
        shapes.rows[..6].fill(height as u8);
        shapes.rows[6..8].fill(SIDE as u8);
        // SAFETY: the CPU has the instruction by `self`; it reads the 64 bytes of `shapes`, which describe the first palette
        // as it is defined.
        unsafe {
            asm!(
                "ldtilecfg [{}]",
                in(reg) &raw const shapes,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, preserves_flags, readonly)
            );
        }
        Registers { height, thread: PhantomData }
    }

    /// Whether products of random tiles are those in plain Rust.
    fn is_right(self) -> bool {
        let mut random = Random(18);
        let lines: Vec<Line> =
            (0..3 * SIDE).map(|_| [(); 2].map(|()| std::array::from_fn(|_| random.bits() as u8))).collect();
        let stride = 4 * lines.len() + 5;
        let inputs: Vec<i8> = (0..2 * SIDE * stride).map(|_| random.bits() as i8).collect();
        [1, 11, SIDE].into_iter().all(|height| {
            let expected = all_sums(Software::new(height), &inputs, stride, &lines);
            all_sums(self.configure(height), &inputs, stride, &lines) == expected
        })
    }
}

/// Two tiles of inputs with all lines, and the second of them with the lines from 16 on; each twice, where the first time what was
/// there is forgotten.
fn all_sums(
    mut tiles: impl Tiles,
    inputs: &[i8],
    stride: usize,
    lines: &[Line],
) -> ([[Sums; 2]; 2], [[Sums; 2]; 1]) {
    const BEFORE: Sums = Sums([[7; SIDE]; SIDE]);
    let pair = [inputs, &inputs[tiles.height() * stride..]];
    let (mut two, mut one) = ([[BEFORE; 2]; 2], [[BEFORE; 2]; 1]);
    for fresh in [true, false] {
        tiles.multiply(pair, stride, lines, &mut two, fresh);
        tiles.multiply([pair[1]], stride, &lines[SIDE..], &mut one, fresh);
    }
    (two, one)
}

/// Whether the CPU tells of tiles, products of bytes, and registers of the shape that is used here.
fn has() -> bool {
    const OSXSAVE: u32 = 1 << 27;
    const TILE: u32 = 1 << 24;
    const INT8: u32 = 1 << 25;
    #[allow(unused_unsafe)] // newer compilers know that
    // SAFETY: every 64-bit x86 has the instruction.
    let (most, general, extended, palette) =
        unsafe { (__cpuid(0).eax, __cpuid(1), __cpuid_count(7, 0), __cpuid_count(0x1d, 1)) };
    most >= 0x1d
        && general.ecx & OSXSAVE != 0
        && extended.edx & (TILE | INT8) == TILE | INT8
        && palette.eax >> 16 == 1024
        && palette.ebx & 0xffff == 64
        && palette.ebx >> 16 >= 8
        && palette.ecx & 0xffff >= SIDE as u32
}

/// Asks Linux for the registers, for all threads of this process from then on.
fn is_permitted() -> bool {
    const ARCH_PRCTL: isize = 158;
    const ARCH_REQ_XCOMP_PERM: usize = 0x1023;
    const XTILEDATA: usize = 18;
    let answer: isize;
    // SAFETY: the call takes two numbers and touches no memory of ours; a kernel that does not know it says so. It destroys the
    // registers that are named here.
    unsafe {
        asm!(
            "syscall", inlateout("rax") ARCH_PRCTL => answer,
            in("rdi") ARCH_REQ_XCOMP_PERM, in("rsi") XTILEDATA,
            lateout("rcx") _, lateout("r11") _, options(nostack)
        );
    }
    answer == 0
}

/// Whether the system keeps shapes and tiles when it changes threads.
fn is_enabled() -> bool {
    const BOTH: u32 = 3 << 17;
    let low: u32;
    // SAFETY: `has` saw that the system made the instruction available.
    unsafe {
        asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") _, options(nomem, nostack, preserves_flags));
    }
    low & BOTH == BOTH
}

/// What `ldtilecfg` reads.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    /// The row to go on with, and what is reserved.
    zeros: [u8; 15],
    /// Bytes of a row of each register.
    widths: [u16; 8],
    zero: [u16; 8],
    rows: [u8; 16],
}

const _: () = assert!(size_of::<Shapes>() == 64);

/// This thread's registers, shaped; released when dropped.
#[derive(Debug)]
pub(crate) struct Registers {
    height: usize,
    /// Another thread's are another's.
    thread: PhantomData<*mut ()>,
}

impl Drop for Registers {
    fn drop(&mut self) {
        // SAFETY: an `Amx` made this, so the CPU has the instruction; it changes tile registers only.
        unsafe {
            asm!(
                "tilerelease",
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nomem, nostack, preserves_flags)
            );
        }
    }
}

impl Tiles for Registers {
    fn height(&self) -> usize {
        self.height
    }

    /// Registers 0 to 3 are sums, 4 and 5 inputs, 6 and 7 lines of the matrix.
    #[inline(always)]
    fn multiply<const N: usize>(
        &mut self,
        inputs: [&[i8]; N],
        stride: usize,
        lines: &[Line],
        sums: &mut [[Sums; 2]; N],
        fresh: bool,
    ) {
        const { assert!(N == 1 || N == 2, "tiles of inputs") };
        check(self.height, inputs, stride, lines);
        let (first, second) = (inputs[0].as_ptr(), inputs[N - 1].as_ptr());
        // SAFETY: an `Amx` made this on this thread, so the CPU has the instructions and the registers have the shapes of
        // `configure`. Loads of inputs read `height` rows of 64 bytes, `stride` apart, at each of as many steps as there are
        // 16 lines: all of it inside the slices, as `check` saw. Loads of lines read 16 times 64 bytes at each step, 128
        // apart: all lines and no more. Sums are read and written in whole rows of 64 bytes within `sums`.
        unsafe {
            if N == 2 {
                asm!(
                    "test {fresh:e}, {fresh:e}",
                    "jz 2f",
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "tilezero tmm2",
                    "tilezero tmm3",
                    "jmp 3f",
                    "2:",
                    "tileloadd tmm0, [{sums} + {line}]",
                    "tileloadd tmm1, [{sums} + {line} + 1024]",
                    "tileloadd tmm2, [{sums} + {line} + 2048]",
                    "tileloadd tmm3, [{sums} + {line} + 3072]",
                    "3:",
                    "tileloadd tmm6, [{lines} + {line}*2]",
                    "tileloadd tmm4, [{first} + {stride}]",
                    "tdpbsud tmm0, tmm4, tmm6",
                    "tileloadd tmm7, [{lines} + {line}*2 + 64]",
                    "tdpbsud tmm1, tmm4, tmm7",
                    "tileloadd tmm5, [{second} + {stride}]",
                    "tdpbsud tmm2, tmm5, tmm6",
                    "tdpbsud tmm3, tmm5, tmm7",
                    "add {first}, 64",
                    "add {second}, 64",
                    "add {lines}, 2048",
                    "dec {steps}",
                    "jnz 3b",
                    "tilestored [{sums} + {line}], tmm0",
                    "tilestored [{sums} + {line} + 1024], tmm1",
                    "tilestored [{sums} + {line} + 2048], tmm2",
                    "tilestored [{sums} + {line} + 3072], tmm3",
                    fresh = in(reg) u32::from(fresh),
                    sums = in(reg) sums.as_mut_ptr(),
                    line = in(reg) size_of::<[i32; SIDE]>(),
                    stride = in(reg) stride,
                    first = inout(reg) first => _,
                    second = inout(reg) second => _,
                    lines = inout(reg) lines.as_ptr() => _,
                    steps = inout(reg) lines.len() / SIDE => _,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack)
                );
            } else {
                asm!(
                    "test {fresh:e}, {fresh:e}",
                    "jz 2f",
                    "tilezero tmm0",
                    "tilezero tmm1",
                    "jmp 3f",
                    "2:",
                    "tileloadd tmm0, [{sums} + {line}]",
                    "tileloadd tmm1, [{sums} + {line} + 1024]",
                    "3:",
                    "tileloadd tmm6, [{lines} + {line}*2]",
                    "tileloadd tmm4, [{first} + {stride}]",
                    "tdpbsud tmm0, tmm4, tmm6",
                    "tileloadd tmm7, [{lines} + {line}*2 + 64]",
                    "tdpbsud tmm1, tmm4, tmm7",
                    "add {first}, 64",
                    "add {lines}, 2048",
                    "dec {steps}",
                    "jnz 3b",
                    "tilestored [{sums} + {line}], tmm0",
                    "tilestored [{sums} + {line} + 1024], tmm1",
                    fresh = in(reg) u32::from(fresh),
                    sums = in(reg) sums.as_mut_ptr(),
                    line = in(reg) size_of::<[i32; SIDE]>(),
                    stride = in(reg) stride,
                    first = inout(reg) first => _,
                    lines = inout(reg) lines.as_ptr() => _,
                    steps = inout(reg) lines.len() / SIDE => _,
                    out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm6") _, out("tmm7") _,
                    options(nostack)
                );
            }
        }
    }

    fn repeat(&mut self, inputs: &[Block; SIDE], times: usize) {
        // SAFETY: as in `multiply`; loads read 16 rows of 64 bytes at most, all of `inputs`.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "tileloadd tmm4, [{inputs} + {line}]",
                "tileloadd tmm5, [{inputs} + {line}]",
                "tileloadd tmm6, [{inputs} + {line}]",
                "tileloadd tmm7, [{inputs} + {line}]",
                "2:",
                "tdpbsud tmm0, tmm4, tmm6",
                "tdpbsud tmm1, tmm4, tmm7",
                "tdpbsud tmm2, tmm5, tmm6",
                "tdpbsud tmm3, tmm5, tmm7",
                "dec {times}",
                "jnz 2b",
                inputs = in(reg) inputs.as_ptr(),
                line = in(reg) size_of::<Block>(),
                times = inout(reg) times.max(1) => _,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, readonly)
            );
        }
    }
}
