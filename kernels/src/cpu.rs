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
    /// 512-bit vectors with dot products of bytes (VNNI) and byte permutation (VBMI).
    #[cfg(target_arch = "x86_64")]
    Avx512(isa::Avx512),
}

impl Cpu {
    /// Every instruction set that this machine has, the scalar one first, the fastest last.
    pub fn available() -> Vec<Cpu> {
        let all = [
            Some(Set::Scalar(isa::Scalar)),
            #[cfg(target_arch = "x86_64")]
            isa::Avx2::new().map(Set::Avx2),
            #[cfg(target_arch = "x86_64")]
            isa::Avx512::new().map(Set::Avx512),
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
            Set::Avx512(_) => isa::Avx512::NAME,
        }
    }

    /// Runs a kernel inside this instruction set's frame.
    #[inline]
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self.0 {
            Set::Scalar(isa) => kernel.run(isa),
            #[cfg(target_arch = "x86_64")]
            Set::Avx2(isa) => isa.frame(kernel),
            #[cfg(target_arch = "x86_64")]
            Set::Avx512(isa) => isa.frame(kernel),
        }
    }
}
