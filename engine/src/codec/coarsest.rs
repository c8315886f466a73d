//! The coarsest scales that say the same: of a matrix, a row, or groups of columns.
//!
//! A file may hold a scale for every 64 weights of a model that was trained with one for 128, a row or a matrix. Fewer scales
//! are quicker, and the same model gives the same bits whatever file it comes from.

use tern_kernels::Scales;

/// In place of a scale: no weight asks for one.
pub(super) const ANY: f32 = -1.0;

/// Sizes of groups that models are trained with, the largest first.
pub(super) const SIZES: [usize; 4] = [256, 128, 64, 32];

/// The coarsest scales out of those of groups of `size` columns, row after row.
pub(super) fn scales(rows: usize, cols: usize, size: usize, values: Vec<f32>) -> Scales {
    if let Some(scale) = common(&values) {
        return Scales::One(scale);
    }
    let per_row = cols.div_ceil(size);
    let join = |count: usize| {
        let rows = values.chunks(per_row).take(rows);
        rows.flat_map(|row| row.chunks(count)).map(common).collect::<Option<Vec<f32>>>()
    };
    if let Some(values) = join(per_row) {
        return Scales::rows(cols, values);
    }
    for larger in SIZES.into_iter().filter(|larger| larger % size == 0 && *larger > size) {
        if let Some(values) = join(larger / size) {
            return Scales::Groups { size: larger, values };
        }
    }
    Scales::Groups {
        size,
        values: values.into_iter().map(|value| if value == ANY { 0.0 } else { value }).collect(),
    }
}

/// The one scale of all of these; 0 where no weight asks for one.
fn common(values: &[f32]) -> Option<f32> {
    let mut of_weights = values.iter().copied().filter(|value| *value != ANY);
    let first = of_weights.next().unwrap_or(0.0);
    of_weights.all(|value| value == first).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_joined_as_far_as_they_are_equal() {
        let groups = |size, values: &[f32]| Scales::Groups { size, values: values.to_vec() };
        assert_eq!(scales(1, 128, 64, vec![2.0, 2.0]), Scales::One(2.0));
        assert_eq!(scales(2, 128, 64, vec![ANY; 4]), Scales::One(0.0));
        assert_eq!(scales(2, 128, 64, vec![2.0, ANY, 3.0, 3.0]), groups(128, &[2.0, 3.0]));
        let four = [1.0, 1.0, 2.0, ANY, 3.0, 3.0, ANY, 4.0];
        assert_eq!(scales(2, 256, 64, four.to_vec()), groups(128, &[1.0, 2.0, 3.0, 4.0]));
        assert_eq!(
            scales(2, 256, 64, [&[1.0, 3.0], &four[2..]].concat()),
            groups(64, &[1.0, 3.0, 2.0, 0.0, 3.0, 3.0, 0.0, 4.0])
        );
        // The last group of a row may be shorter.
        assert_eq!(scales(1, 160, 32, vec![1.0, 1.0, 1.0, 1.0, 2.0]), groups(128, &[1.0, 2.0]));
    }
}
