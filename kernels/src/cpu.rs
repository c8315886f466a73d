//! The instruction sets of this machine: the one list of them, and the one `match` that enters a kernel.

use crate::isa::{self, Isa};

/// A piece of work written once for every instruction set.
pub(crate) trait Kernel {
    /// What it returns.
    type Output;
    /// The work; `#[inline(always)]`, so that it is compiled inside the frame of `I`.
    fn run<I: Isa>(self, isa: I) -> Self::Output;
}

/// An instruction set that this CPU has; a value of it is the proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu(Set);

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
}

impl Cpu {
    /// Every instruction set that this machine has, the scalar one first, the fastest last.
    pub fn available() -> Vec<Cpu> {
        let all = [
            Some(Set::Scalar(isa::Scalar)),
            #[cfg(target_arch = "x86_64")]
            isa::Avx2::new().map(Set::Avx2),
            #[cfg(target_arch = "x86_64")]
            isa::AvxVnni::new().map(Set::AvxVnni),
            #[cfg(target_arch = "x86_64")]
            isa::Avx512Vl::new().map(Set::Avx512Vl),
            #[cfg(target_arch = "x86_64")]
            isa::Avx512::new().map(Set::Avx512),
            #[cfg(target_arch = "aarch64")]
            isa::Neon::new().map(Set::Neon),
            #[cfg(target_arch = "aarch64")]
            isa::NeonDotprod::new().map(Set::NeonDotprod),
            #[cfg(target_arch = "aarch64")]
            isa::NeonI8mm::new().map(Set::NeonI8mm),
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            isa::WasmSimd128::new().map(Set::WasmSimd128),
            #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
            isa::WasmRelaxed::new().map(Set::WasmRelaxed),
        ];
        all.into_iter().flatten().map(Cpu).collect()
    }

    /// The fastest that this machine has.
    pub fn best() -> Cpu {
        *Self::available().last().expect("the scalar set is always there")
    }

    /// The one of this name, if this machine has it.
    pub fn by_name(name: &str) -> Option<Cpu> {
        Self::available().into_iter().find(|cpu| cpu.name() == name)
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

    /// Runs a kernel inside this instruction set's frame.
    #[inline]
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self.0 {
            Set::Scalar(isa) => kernel.run(isa),
            #[cfg(target_arch = "x86_64")]
            Set::Avx2(isa) => isa.frame(kernel),
            #[cfg(target_arch = "x86_64")]
            Set::AvxVnni(isa) => isa.frame(kernel),
            #[cfg(target_arch = "x86_64")]
            Set::Avx512Vl(isa) => isa.frame(kernel),
            #[cfg(target_arch = "x86_64")]
            Set::Avx512(isa) => isa.frame(kernel),
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
        }
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
