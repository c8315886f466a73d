//! The random part of screening: the two fixed dithers and how far an estimate can be off (docs/screened-head.md).

use crate::random::Random;

/// Columns are filled up to a multiple of this: three blocks of the screen.
pub(super) const PAD: usize = 32;

/// Codes of weights that fall into one cell of the screen. 8 cells hold -127..=127 and any dither: 254 + 36 < 8 * 37.
pub(super) const CELL: i32 = 37;
/// What the dither takes the code's upper byte apart by.
pub(super) const UPPER: i32 = 256;

/// Seeds of the dithers, the leading digits of the fractional parts of pi and of e in base 16.
pub(super) const WEIGHT_DITHER: u64 = 0x243f_6a88_85a3_08d3;
pub(super) const ACTIVATION_DITHER: u64 = 0xb7e1_5162_8aed_2a6a;

/// Most that the chance of a wrong answer may be for one hidden state: 2^-80. For 10^12 of them it is below 10^-12.
const CHANCE: f64 = 1.0 / (1u128 << 80) as f64;

/// Numbers that look like noise and are always the same.
pub(super) struct Dither(Random);

impl Dither {
    pub(super) fn new(seed: u64) -> Self {
        Self(Random(seed))
    }

    /// The upper half of the next number.
    fn next(&mut self) -> u32 {
        (self.0.bits() >> 32) as u32
    }

    /// `cols` numbers in 0..256.
    pub(super) fn take(mut self, cols: usize) -> Vec<u8> {
        (0..cols).map(|_| (self.next() >> 24) as u8).collect()
    }

    /// `cols` numbers in 0..CELL; `floor(37 u / 2^32)` is uniform up to 37 in 2^32.
    pub(super) fn cells(mut self, cols: usize) -> Vec<u8> {
        (0..cols).map(|_| ((u64::from(self.next()) * CELL as u64) >> 32) as u8).collect()
    }
}

/// A weight's code is `CELL * digit + guess` plus an error that is uniform on -18..=18: the guess for each column.
pub(super) fn guess(cols: usize) -> Vec<i16> {
    let dither = Dither::new(WEIGHT_DITHER).cells(cols);
    dither.iter().map(|&dither| (CELL / 2 - 127) as i16 - i16::from(dither)).collect()
}

/// How far the true sum can lie above the estimate: `weights * |x codes| + inputs * |estimated weight codes|`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reach {
    pub weights: f64,
    pub inputs: f64,
}

impl Reach {
    /// For the `k` best rows of one hidden state: each of `2 k` sums stays within its bound but for a chance of
    /// `CHANCE / 2 k`.
    pub(super) fn of(k: usize) -> Self {
        let z = (2.0 * (2.0 * k as f64 / CHANCE).ln()).sqrt();
        let cell = f64::from(CELL);
        // A uniform error of `n` values has variance (n² - 1) / 12 and tails no heavier than a Gaussian's; a rounded
        // input lies within 256 / 2 of its mean (Hoeffding). The last factor is for the rounding of f64.
        let slack = 1.0 + 1e-9;
        Self {
            weights: z * ((cell * cell - 1.0) / 12.0).sqrt() * slack,
            inputs: z * f64::from(UPPER / 2) * slack,
        }
    }
}
