//! Random numbers that are the same everywhere: a counter scrambled by splitmix64, so that any draw can be made again from
//! its place alone and nothing need be saved.

pub use tern_kernels::scramble;

/// A stream of numbers.
#[derive(Clone, Debug)]
pub struct Random(tern_kernels::Random);

/// A number for these bytes after those that `before` stands for: the same on every machine and with every compiler.
pub fn hash(before: u64, bytes: &[u8]) -> u64 {
    let whole = bytes.chunks(8).fold(before, |hash, bytes| {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        scramble(hash ^ u64::from_le_bytes(word)).wrapping_add(0x9e37_79b9_7f4a_7c15)
    });
    scramble(whole ^ bytes.len() as u64)
}

impl Random {
    /// Stream number `stream` of a seed.
    pub fn new(seed: u64, stream: u64) -> Self {
        let start = scramble(scramble(seed.wrapping_add(0x9e37_79b9_7f4a_7c15)).wrapping_add(stream));
        Self(tern_kernels::Random(start))
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0.bits()
    }

    /// A number of `0..count`.
    pub fn below(&mut self, count: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(count)) >> 64) as u64
    }

    /// Uniform in `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Fills with normal numbers of mean 0 and deviation `std` (Box and Muller).
    pub fn normals(&mut self, std: f32, out: &mut [f32]) {
        for pair in out.chunks_mut(2) {
            let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt() * f64::from(std);
            let (sin, cos) = (std::f64::consts::TAU * self.unit()).sin_cos();
            for (out, part) in pair.iter_mut().zip([cos, sin]) {
                *out = (radius * part) as f32;
            }
        }
    }
}
