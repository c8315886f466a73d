//! Masters made again from trits. A packed model has lost where each float lay within its trit; training needs floats that
//! the quantiser takes to the same trits and the same scale, to the bit, so that step 0 is the model as it was.
//!
//! The scale is the mean magnitude `m` of a matrix, and a weight is 0 up to `m/2`. Zeros get half of that, `m/4`, by a sign
//! drawn from their place: where the zeros of a bell curve lie on average. The others get what makes the mean `m` again,
//! which is more than `m`, as in trained masters. Rounding to f32 is made up for by moving a few of them to the next float.

use tern_kernels::Scales;

use crate::ops::quantiser::{Quantiser, to_f16};
use crate::random::scramble;

/// Masters of a matrix in whose rows `cols` weights lie, with these trits and these scales; where the quantiser has f16s, as these
/// hold the scales.
pub fn matrix(
    trits: &[i8],
    scales: &Scales,
    cols: usize,
    quantiser: Quantiser,
    out: &mut [f32],
) -> Result<(), String> {
    let size = match (quantiser, scales) {
        (Quantiser::Float | Quantiser::Matrix, Scales::One(scale)) => return masters(trits, *scale, out),
        (Quantiser::Float | Quantiser::Matrix, Scales::Groups { size, .. }) => {
            let how = if *size == cols { "`scales = \"row\"`" } else { "`scales = \"group\"`" };
            return Err(format!("has a scale for every {size} weights of a row, and {how} trains with such"));
        }
        (Quantiser::Row, _) => cols,
        (Quantiser::Group(size), _) => size,
    };
    if let Scales::Groups { size: theirs, .. } = scales
        && (!theirs.is_multiple_of(size) || size > *theirs)
    {
        return Err(format!(
            "has a scale for every {theirs} weights of a row, which one for every {size} cannot say; `group` sets that"
        ));
    }
    for (nth, (trits, out)) in trits.chunks(size).zip(out.chunks_mut(size)).enumerate() {
        let first = nth * size;
        masters(trits, to_f16(scales.at(first / cols, first % cols, cols)), out)?;
    }
    Ok(())
}

/// Masters of weights that share a scale.
fn masters(trits: &[i8], scale: f32, out: &mut [f32]) -> Result<(), String> {
    let kept = trits.iter().filter(|trit| **trit != 0).count();
    if kept == 0 {
        // Nothing is multiplied, so no scale matters.
        out.fill(0.0);
        return Ok(());
    }
    if !(1e-5..=1e30).contains(&scale) {
        return Err(format!("the scale {scale:e}: expected one from 1e-5 on, which training can come to"));
    }
    let (all, zeros) = (trits.len() as f64, (trits.len() - kept) as f64);
    let low = scale / 4.0;
    // What is left of the sum of all magnitudes for those that are not 0.
    let left = f64::from(scale) * all - f64::from(low) * zeros;
    let high = (left / kept as f64) as f32;
    // The next float beside `high`, on the side where the exact mean lies, and how many take it.
    let missing = left - f64::from(high) * kept as f64;
    let other = if missing < 0.0 { high.next_down() } else { high.next_up() };
    let mut others = (missing / (f64::from(other) - f64::from(high))).round() as usize;
    for (place, (master, &trit)) in out.iter_mut().zip(trits).enumerate() {
        *master = match trit {
            0 if scramble(place as u64) & 1 == 0 => low,
            0 => -low,
            _ => {
                let magnitude = if others > 0 { other } else { high };
                others = others.saturating_sub(1);
                magnitude * f32::from(trit)
            }
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tern_kernels::{Cpu, Pool};

    use super::*;
    use crate::ops::Machine;
    use crate::ops::quantiser::absmean;
    use crate::random::Random;

    #[test]
    fn the_quantiser_takes_them_to_the_same_trits_and_the_same_scale() {
        let pool = Pool::new(2);
        let on = Machine { cpu: Cpu::best(), pool: &pool };
        let mut random = Random::new(7, 7);
        for (nth, count) in [1usize, 2, 3, 7, 256, 5000, 100_000, 1 << 20].into_iter().enumerate() {
            for share in [0.0, 0.01, 0.3, 0.5, 0.69, 0.97, 1.0] {
                for scale in [1e-5f32, 0.0173, 0.021_484_375, 1.0, 3.3, 1234.567] {
                    let trit = |random: &mut Random| {
                        if random.unit() >= share {
                            0
                        } else if random.below(2) == 0 {
                            1i8
                        } else {
                            -1
                        }
                    };
                    let mut trits: Vec<i8> = (0..count).map(|_| trit(&mut random)).collect();
                    trits[nth % count] = 1;
                    let (mut w, mut again) = (vec![0f32; count], vec![0i8; count]);
                    masters(&trits, scale, &mut w).unwrap();
                    let found = absmean(on, &w);
                    assert_eq!(
                        found.to_bits(),
                        scale.to_bits(),
                        "{count} weights, {share}, {scale}: {found}"
                    );
                    Quantiser::Matrix.trits(on, &w, count, &mut again);
                    assert!(again == trits, "{count} weights, {share}, {scale}");
                }
            }
        }
    }

    #[test]
    fn matrices_without_weights_and_scales_that_cannot_be() {
        let mut w = [7.0; 3];
        masters(&[0, 0, 0], 0.5, &mut w).unwrap();
        assert_eq!(w, [0.0; 3]);
        for scale in [0.0, 1e-6, f32::INFINITY, f32::NAN] {
            assert!(masters(&[1, 0, 0], scale, &mut w).is_err(), "{scale}");
        }
    }
}
