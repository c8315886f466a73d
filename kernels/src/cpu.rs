//! The instruction sets of this machine: the one list of them, and the one `match` that enters a kernel.

use crate::isa::{self, Isa, Kernel};
use crate::tiles::Tiles;

/// A piece of work for an instruction set that has tiles.
pub(crate) trait TileKernel {
    /// Rows of its tiles of inputs, 1..=16.
    fn height(&self) -> usize;
    /// The work, inlined as [`Kernel::run`] is, with registers of this height.
    fn run<I: Isa, T: Tiles>(self, isa: I, tiles: T);
}

/// An instruction set that this CPU has; a value of it is the proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu(Set);

/// There is one in tests, and none elsewhere.
#[cfg(test)]
type InTests = ();
#[cfg(all(not(test), not(all(target_arch = "x86_64", target_os = "linux"))))]
type InTests = std::convert::Infallible;

/// The one list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Set {
    /// Plain Rust: the definition of every kernel, on any CPU.
    Scalar(isa::Scalar),
    /// 256-bit integer vectors, 8-bit products summed in 16 bits.
    #[cfg(target_arch = "x86_64")]
    Avx2(isa::Avx2),
    /// 256-bit vectors with dot products of bytes, as desktop CPUs without AVX-512 have them.
    #[cfg(target_arch = "x86_64")]
    AvxVnni(isa::AvxVnni),
    /// The same by AVX-512 VL: servers with VNNI but without VBMI.
    #[cfg(target_arch = "x86_64")]
    Avx512Vl(isa::Avx512Vl),
    /// 512-bit vectors with dot products of bytes (VNNI) and byte permutation (VBMI).
    #[cfg(target_arch = "x86_64")]
    Avx512(isa::Avx512),
    /// The same beside matrix units, which Linux gives to those who ask.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    Amx(isa::Avx512, isa::Amx),
    /// What every 64-bit Arm has: products of bytes summed in 16 bits.
    #[cfg(target_arch = "aarch64")]
    Neon(isa::Neon),
    /// Dot products of signed bytes: Armv8.2 and later.
    #[cfg(target_arch = "aarch64")]
    NeonDotprod(isa::NeonDotprod),
    /// Dot products of unsigned with signed bytes: Armv8.6 and later.
    #[cfg(target_arch = "aarch64")]
    NeonI8mm(isa::NeonI8mm),
    /// 128-bit vectors of WebAssembly. No run-time test exists: a module that uses them loads nowhere else.
    #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
    WasmSimd128(isa::WasmSimd128),
    /// Dot products of bytes of WebAssembly, chosen when compiling likewise.
    #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
    WasmRelaxed(isa::WasmRelaxed),
    /// The scalar set beside tiles in plain Rust, for tests of what is written for tiles. Where no CPU has any, that is compiled
    /// for this one, of which there are none but in tests.
    #[cfg(any(test, not(all(target_arch = "x86_64", target_os = "linux"))))]
    #[cfg_attr(not(test), allow(dead_code))]
    Software(isa::Scalar, InTests),
    /// The scalar set beside matrix units, emulated where there are none.
    #[cfg(all(test, target_arch = "x86_64", target_os = "linux"))]
    ScalarAmx(isa::Scalar, isa::Amx),
}

impl Cpu {
    /// How each is found, the scalar one first, the fastest last.
    const ALL: &[fn() -> Option<Set>] = &[
        || Some(Set::Scalar(isa::Scalar)),
        #[cfg(target_arch = "x86_64")]
        || isa::Avx2::new().map(Set::Avx2),
        #[cfg(target_arch = "x86_64")]
        || isa::AvxVnni::new().map(Set::AvxVnni),
        #[cfg(target_arch = "x86_64")]
        || isa::Avx512Vl::new().map(Set::Avx512Vl),
        #[cfg(target_arch = "x86_64")]
        || isa::Avx512::new().map(Set::Avx512),
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        || isa::Avx512::new().and_then(|isa| Some(Set::Amx(isa, isa::Amx::new()?))),
        #[cfg(target_arch = "aarch64")]
        || isa::Neon::new().map(Set::Neon),
        #[cfg(target_arch = "aarch64")]
        || isa::NeonDotprod::new().map(Set::NeonDotprod),
        #[cfg(target_arch = "aarch64")]
        || isa::NeonI8mm::new().map(Set::NeonI8mm),
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        || isa::WasmSimd128::new().map(Set::WasmSimd128),
        #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
        || isa::WasmRelaxed::new().map(Set::WasmRelaxed),
    ];

    /// Every instruction set that this machine has, the scalar one first, the fastest last.
    pub fn available() -> Vec<Cpu> {
        Self::ALL.iter().filter_map(|find| find()).map(Cpu).collect()
    }

    /// The fastest that this machine has.
    pub fn best() -> Cpu {
        *Self::available().last().expect("the scalar set is always there")
    }

    /// The one of this name, if this machine has it.
    pub fn by_name(name: &str) -> Option<Cpu> {
        // Nobody looks for a set beyond it.
        Self::ALL.iter().filter_map(|find| find()).map(Cpu).find(|cpu| cpu.name() == name)
    }

    /// The name used in logs, tables and `--cpu`.
    pub fn name(self) -> &'static str {
        match self.0 {
            Set::Scalar(_) => isa::Scalar::NAME,
            #[cfg(target_arch = "x86_64")]
            Set::Avx2(_) => isa::Avx2::NAME,
            #[cfg(target_arch = "x86_64")]
            Set::AvxVnni(_) => isa::AvxVnni::NAME,
            #[cfg(target_arch = "x86_64")]
            Set::Avx512Vl(_) => isa::Avx512Vl::NAME,
            #[cfg(target_arch = "x86_64")]
            Set::Avx512(_) => isa::Avx512::NAME,
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Set::Amx(..) => isa::Amx::NAME,
            #[cfg(target_arch = "aarch64")]
            Set::Neon(_) => isa::Neon::NAME,
            #[cfg(target_arch = "aarch64")]
            Set::NeonDotprod(_) => isa::NeonDotprod::NAME,
            #[cfg(target_arch = "aarch64")]
            Set::NeonI8mm(_) => isa::NeonI8mm::NAME,
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Set::WasmSimd128(_) => isa::WasmSimd128::NAME,
            #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
            Set::WasmRelaxed(_) => isa::WasmRelaxed::NAME,
            #[cfg(any(test, not(all(target_arch = "x86_64", target_os = "linux"))))]
            Set::Software(..) => "software tiles",
            #[cfg(all(test, target_arch = "x86_64", target_os = "linux"))]
            Set::ScalarAmx(..) => "scalar with amx",
        }
    }

    /// Runs plain loops compiled for this instruction set. The closure must be inlined for that:
    /// `cpu.vectorised(#[inline(always)] || ...)`.
    #[inline]
    pub fn vectorised<T>(self, loops: impl FnOnce() -> T) -> T {
        struct Loops<F>(F);
        impl<T, F: FnOnce() -> T> Kernel for Loops<F> {
            type Output = T;
            #[inline(always)]
            fn run<I: Isa>(self, _: I) -> T {
                (self.0)()
            }
        }
        self.run(Loops(loops))
    }

    /// Whether this set has tiles and takes them where they are `quicker`. The sets of tests always do.
    pub(crate) fn has_tiles(self, quicker: bool) -> bool {
        match self.0 {
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Set::Amx(..) => quicker,
            #[cfg(any(test, not(all(target_arch = "x86_64", target_os = "linux"))))]
            Set::Software(..) => quicker || cfg!(test),
            #[cfg(all(test, target_arch = "x86_64", target_os = "linux"))]
            Set::ScalarAmx(..) => true,
            _ => false,
        }
    }

    /// Runs a kernel of tiles inside this instruction set's frame.
    ///
    /// # Panics
    /// If the set has none.
    pub(crate) fn run_tiled<K: TileKernel>(self, kernel: K) {
        struct Within<K, T>(K, T);
        impl<K: TileKernel, T: Tiles> Kernel for Within<K, T> {
            type Output = ();
            #[inline(always)]
            fn run<I: Isa>(self, isa: I) {
                self.0.run(isa, self.1);
            }
        }
        let height = kernel.height();
        match self.0 {
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Set::Amx(isa, amx) => isa.frame(Within(kernel, amx.configure(height))),
            #[cfg(any(test, not(all(target_arch = "x86_64", target_os = "linux"))))]
            Set::Software(isa, _) => Within(kernel, crate::tiles::Software::new(height)).run(isa),
            #[cfg(all(test, target_arch = "x86_64", target_os = "linux"))]
            Set::ScalarAmx(isa, amx) => Within(kernel, amx.configure(height)).run(isa),
            _ => panic!("{} has no tiles", self.name()),
        }
    }

    /// Runs a kernel inside this instruction set's frame.
    #[inline]
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self.0 {
            Set::Scalar(isa) => isa.frame(kernel),
            #[cfg(target_arch = "x86_64")]
            Set::Avx2(isa) => isa.frame(kernel),
            #[cfg(target_arch = "x86_64")]
            Set::AvxVnni(isa) => isa.frame(kernel),
            #[cfg(target_arch = "x86_64")]
            Set::Avx512Vl(isa) => isa.frame(kernel),
            #[cfg(target_arch = "x86_64")]
            Set::Avx512(isa) => isa.frame(kernel),
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Set::Amx(isa, _) => isa.frame(kernel),
            #[cfg(target_arch = "aarch64")]
            Set::Neon(isa) => isa.frame(kernel),
            #[cfg(target_arch = "aarch64")]
            Set::NeonDotprod(isa) => isa.frame(kernel),
            #[cfg(target_arch = "aarch64")]
            Set::NeonI8mm(isa) => isa.frame(kernel),
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Set::WasmSimd128(isa) => isa.frame(kernel),
            #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
            Set::WasmRelaxed(isa) => isa.frame(kernel),
            #[cfg(any(test, not(all(target_arch = "x86_64", target_os = "linux"))))]
            Set::Software(isa, _) => isa.frame(kernel),
            #[cfg(all(test, target_arch = "x86_64", target_os = "linux"))]
            Set::ScalarAmx(isa, _) => isa.frame(kernel),
        }
    }

    /// The sets with tiles, for tests; hardware is emulated where there is none. All but `amx` itself take tiles for
    /// everything that is written for them, however small.
    #[cfg(test)]
    pub(crate) fn with_tiles() -> Vec<Cpu> {
        vec![
            Cpu(Set::Software(isa::Scalar, ())),
            #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
            Cpu(Set::ScalarAmx(isa::Scalar, isa::Amx::or_emulated())),
        ]
        .into_iter()
        .chain(Self::amx())
        .collect()
    }

    /// The set `amx`, emulated where there is none, beside AVX-512 if this machine has that.
    #[cfg(test)]
    pub(crate) fn amx() -> Option<Cpu> {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        return isa::Avx512::new().map(|isa| Cpu(Set::Amx(isa, isa::Amx::or_emulated())));
        #[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
        None
    }
}

/// Elsewhere the CPU decides; here a set that is missing would go untested.
#[cfg(all(test, target_arch = "wasm32"))]
mod tests {
    use super::*;

    #[test]
    fn the_best_set_is_the_one_compiled_for() {
        let best = if cfg!(target_feature = "relaxed-simd") {
            "wasm-relaxed"
        } else if cfg!(target_feature = "simd128") {
            "wasm-simd128"
        } else {
            "scalar"
        };
        assert_eq!(Cpu::best().name(), best);
    }
}
