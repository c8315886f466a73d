//! Rotary positions: how far a position turns each pair of a head, and what is done to those turns so that a model
//! reads further than it was trained.
//!
//! The formulas are those of `transformers` (`modeling_rope_utils.py`), which llama.cpp shares; goldens recorded from
//! there hold them (testdata/golden/rope_scaling.json).

pub use tern_kernels::Pairing;

/// Rotary positions.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Base of the frequencies, `theta`.
    pub base: f32,
    /// Which elements rotate together.
    pub pairing: Pairing,
    /// What stretches the positions.
    pub scaling: Scaling,
}

/// How positions are stretched.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Scaling {
    /// Not at all.
    #[default]
    None,
    /// All alike: position interpolation.
    Linear {
        /// How many times further.
        factor: f32,
    },
    /// Llama 3.1's: slow turns are stretched, quick ones are not, those between in part.
    Llama3 {
        /// How many times further.
        factor: f32,
        /// Turns of fewer rounds than this over the original context are stretched by the whole factor.
        low: f32,
        /// Turns of more rounds than this are left alone.
        high: f32,
        /// The context that the model was first trained with.
        original: usize,
    },
    /// YaRN (Peng and others, 2023): a ramp over the pairs, and a sharper attention.
    Yarn(Yarn),
    /// What each pair's frequency is divided by, as a GGUF spells Llama 3.1's scaling out (`rope_freqs.weight`).
    Divisors(Vec<f32>),
    /// LongRoPE (Ding and others, 2024) within the context that the model was first trained with: the short factors.
    Long {
        /// What each pair's frequency is divided by.
        short: Vec<f32>,
        /// The same beyond that context, where no model is run; kept for those who write the file again. None if it has none.
        long: Vec<f32>,
        /// What cosines and sines are multiplied by.
        attention: f32,
    },
}

/// The numbers of YaRN.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Yarn {
    /// How many times further.
    pub factor: f32,
    /// The context that the model was first trained with.
    pub original: usize,
    /// Rounds over the original context above which a pair is left alone.
    pub fast: f32,
    /// Rounds below which a pair is stretched by the whole factor.
    pub slow: f32,
    /// Whether the ends of the ramp are whole pairs.
    pub truncate: bool,
    /// What cosines and sines are multiplied by.
    pub attention: f32,
}

impl Yarn {
    /// The paper's own sharpening of the attention for this factor, `mscale` times its slope.
    pub fn sharpening(factor: f32, mscale: f32) -> f32 {
        if factor <= 1.0 { 1.0 } else { (0.1 * f64::from(mscale) * f64::from(factor).ln() + 1.0) as f32 }
    }

    /// The first and the last pair of the ramp.
    fn ramp(&self, base: f64, head_dim: usize) -> (f64, f64) {
        let pair = |rounds: f32| {
            let rounds = f64::from(rounds) * std::f64::consts::TAU;
            head_dim as f64 * (self.original as f64 / rounds).ln() / (2.0 * base.ln())
        };
        let (first, last) = (pair(self.fast), pair(self.slow));
        let (first, last) = if self.truncate { (first.floor(), last.ceil()) } else { (first, last) };
        (first.max(0.0), last.min(head_dim as f64 - 1.0))
    }
}

impl Rope {
    /// Unstretched positions.
    pub fn new(base: f32, pairing: Pairing) -> Self {
        Self { base, pairing, scaling: Scaling::None }
    }

    /// What a position turns each pair of a head by: `base^(-2j / head_dim)`, `j` in `0..head_dim / 2`, stretched.
    pub fn frequencies(&self, head_dim: usize) -> Vec<f32> {
        let base = f64::from(self.base);
        let plain = (0..head_dim / 2).map(|j| base.powf(-(2.0 * j as f64) / head_dim as f64));
        match &self.scaling {
            Scaling::None => plain.map(|f| f as f32).collect(),
            Scaling::Linear { factor } => plain.map(|f| (f / f64::from(*factor)) as f32).collect(),
            Scaling::Llama3 { factor, low, high, original } => {
                let (factor, low, high) = (f64::from(*factor), f64::from(*low), f64::from(*high));
                let stretched = |f: f64| {
                    let rounds = *original as f64 * f / std::f64::consts::TAU;
                    let kept = ((rounds - low) / (high - low)).clamp(0.0, 1.0);
                    ((1.0 - kept) * f / factor + kept * f) as f32
                };
                plain.map(stretched).collect()
            }
            Scaling::Yarn(yarn) => {
                let (first, last) = yarn.ramp(base, head_dim);
                // A ramp of no length is a step; the reference makes it this steep.
                let length = if first == last { 0.001 } else { last - first };
                let stretched = |(j, f): (usize, f64)| {
                    let kept = 1.0 - ((j as f64 - first) / length).clamp(0.0, 1.0);
                    (f / f64::from(yarn.factor) * (1.0 - kept) + f * kept) as f32
                };
                plain.enumerate().map(stretched).collect()
            }
            Scaling::Divisors(by) | Scaling::Long { short: by, .. } => {
                plain.zip(by).map(|(f, by)| (f / f64::from(*by)) as f32).collect()
            }
        }
    }

    /// What cosines and sines are multiplied by.
    pub fn magnitude(&self) -> f32 {
        match &self.scaling {
            Scaling::Yarn(yarn) => yarn.attention,
            Scaling::Long { attention, .. } => *attention,
            _ => 1.0,
        }
    }

    /// Says which number cannot be, by Hugging Face's key.
    pub(crate) fn check(&self, head_dim: usize) -> Result<(), (&'static str, String)> {
        if !(self.base >= 1.0 && self.base.is_finite()) {
            return Err(("rope_theta", format!("{}: expected a number of at least 1", self.base)));
        }
        let (factor, original) = match &self.scaling {
            Scaling::None => return Ok(()),
            Scaling::Linear { factor } => (*factor, 1),
            Scaling::Llama3 { factor, low, high, original } => {
                if !(*low > 0.0 && low < high && high.is_finite()) {
                    let what = format!("{low} and {high}: expected low_freq_factor below high_freq_factor");
                    return Err(("rope_scaling.low_freq_factor", what));
                }
                (*factor, *original)
            }
            Scaling::Yarn(yarn) => {
                if !(yarn.slow > 0.0 && yarn.slow < yarn.fast && yarn.fast.is_finite()) {
                    let what = format!("{} and {}: expected beta_slow below beta_fast", yarn.slow, yarn.fast);
                    return Err(("rope_scaling.beta_slow", what));
                }
                if !(yarn.attention > 0.0 && yarn.attention <= 100.0) {
                    let what = format!("{}: expected a number above 0, up to 100", yarn.attention);
                    return Err(("rope_scaling.attention_factor", what));
                }
                if self.base <= 1.0 {
                    return Err(("rope_theta", format!("{}: YaRN needs a base above 1", self.base)));
                }
                (yarn.factor, yarn.original)
            }
            Scaling::Divisors(by) => return check_divisors("rope_freqs.weight", by, head_dim),
            Scaling::Long { short, long, attention } => {
                if !(*attention > 0.0 && *attention <= 100.0) {
                    let what = format!("{attention}: expected a number above 0, up to 100");
                    return Err(("rope_scaling.attention_factor", what));
                }
                if !long.is_empty() {
                    check_divisors("rope_scaling.long_factor", long, head_dim)?;
                }
                return check_divisors("rope_scaling.short_factor", short, head_dim);
            }
        };
        if !(1.0..=1e6).contains(&factor) {
            return Err(("rope_scaling.factor", format!("{factor}: expected a number from 1 to 1000000")));
        }
        if original == 0 || original > 1 << 24 {
            let what = format!("{original}: expected 1 to {}", 1 << 24);
            return Err(("rope_scaling.original_max_position_embeddings", what));
        }
        Ok(())
    }
}

/// What the frequencies of a head's pairs are divided by.
fn check_divisors(key: &'static str, by: &[f32], head_dim: usize) -> Result<(), (&'static str, String)> {
    match by.iter().find(|by| !(**by > 0.0 && by.is_finite())) {
        _ if by.len() != head_dim / 2 => {
            Err((key, format!("{} numbers: expected {}", by.len(), head_dim / 2)))
        }
        Some(bad) => Err((key, format!("{bad}: expected numbers above 0"))),
        None => Ok(()),
    }
}
