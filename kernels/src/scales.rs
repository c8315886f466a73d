//! What turns trits into weights, and how the kernels want it.

use crate::half::{f16_to_f32, f32_to_f16};
use crate::isa::Isa;
use crate::packing::ROWS;

/// Most columns of a matrix, so that its products fit. A masked code counts up to 2 * 84, every fifth column has that
/// weight, and an activation is at most 128: 4300 a column, so that sums stay within an i32.
pub(crate) const MAX_COLS: usize = 1 << 18;

/// What turns a trit into a weight: `weight = trit * scale`.
#[derive(Clone, Debug, PartialEq)]
pub enum Scales {
    /// One for the whole matrix.
    One(f32),
    /// One for every `size` columns of a row, row after row; a row's last group may be shorter. With `size` = columns
    /// that is one scale a row. `size` is a multiple of 4, or covers the row.
    Groups {
        /// Columns that share a scale.
        size: usize,
        /// `rows * cols.div_ceil(size)` scales.
        values: Vec<f32>,
    },
}

impl Scales {
    /// One scale for each row.
    pub fn rows(cols: usize, values: Vec<f32>) -> Self {
        Scales::Groups { size: cols, values }
    }

    /// The scale of a weight.
    pub fn at(&self, row: usize, col: usize, cols: usize) -> f32 {
        match self {
            Scales::One(scale) => *scale,
            Scales::Groups { size, values } => values[row * cols.div_ceil(*size) + col / size],
        }
    }

    /// Says what is wrong with these scales for a matrix of this shape.
    pub fn check(&self, rows: usize, cols: usize) -> Result<(), String> {
        if cols > MAX_COLS {
            return Err(format!("{cols} columns: expected at most {MAX_COLS}"));
        }
        let values = match self {
            Scales::One(scale) => std::slice::from_ref(scale),
            Scales::Groups { size, values } => {
                if *size == 0 || (*size < cols && size % 4 != 0) {
                    return Err(format!("groups of {size} columns: expected a multiple of 4"));
                }
                let expected = rows.checked_mul(cols.div_ceil(*size));
                if expected != Some(values.len()) {
                    return Err(format!(
                        "{} scales for {rows} rows of {cols} in groups of {size}",
                        values.len()
                    ));
                }
                values
            }
        };
        match values.iter().find(|scale| !scale.is_finite() || scale.is_sign_negative()) {
            Some(scale) => Err(format!("scale {scale}: expected a finite number of at least 0")),
            None => Ok(()),
        }
    }
}

/// Scales as kernels read them: those of 16 rows side by side, group of columns after group of columns, then the next 16 rows;
/// rows that fill up the last 16 have 0. They are f16 where all of them are such numbers, as most files hold them: with
/// groups of 128 that is 1/8 bit a weight instead of 1/4.
#[derive(Clone, Debug)]
pub(crate) enum Lanes {
    One(f32),
    Halves { size: usize, values: Vec<[u8; 2 * ROWS]> },
    Floats { size: usize, values: Vec<[f32; ROWS]> },
}

impl Lanes {
    /// Of scales that fit the shape.
    pub(crate) fn of(scales: Scales, rows: usize, cols: usize) -> Self {
        let (size, values) = match scales {
            Scales::One(scale) => return Lanes::One(scale),
            Scales::Groups { size, values } => (size, values),
        };
        let per_row = cols.div_ceil(size).max(1);
        let count = rows.div_ceil(ROWS) * per_row;
        // For each row of the matrix and each of its groups: the place among the lanes, and the row in it.
        let places = || values.iter().enumerate().map(|(at, value)| (at / per_row, at % per_row, value));
        if values.iter().all(|value| f16_to_f32(f32_to_f16(*value)).to_bits() == value.to_bits()) {
            let mut lanes = vec![[0; 2 * ROWS]; count];
            for (row, group, value) in places() {
                let at = row % ROWS * 2;
                let lane = &mut lanes[row / ROWS * per_row + group];
                lane[at..at + 2].copy_from_slice(&f32_to_f16(*value).to_le_bytes());
            }
            return Lanes::Halves { size, values: lanes };
        }
        let mut lanes = vec![[0.0; ROWS]; count];
        for (row, group, value) in places() {
            lanes[row / ROWS * per_row + group][row % ROWS] = *value;
        }
        Lanes::Floats { size, values: lanes }
    }

    /// The scales again.
    pub(crate) fn scales(&self, rows: usize, cols: usize) -> Scales {
        let (size, value): (_, &dyn Fn(usize, usize) -> f32) = match self {
            Lanes::One(scale) => return Scales::One(*scale),
            Lanes::Halves { size, values } => (*size, &|lane, row| {
                f16_to_f32(u16::from_le_bytes([values[lane][2 * row], values[lane][2 * row + 1]]))
            }),
            Lanes::Floats { size, values } => (*size, &|lane, row| values[lane][row]),
        };
        let per_row = cols.div_ceil(size);
        let all = (0..rows).flat_map(|row| (0..per_row).map(move |group| (row, group)));
        let values = all.map(|(row, group)| value(row / ROWS * per_row + group, row % ROWS));
        Scales::Groups { size, values: values.collect() }
    }

    /// Columns that share a scale; as many as there can be where all do.
    #[inline(always)]
    pub(crate) fn size(&self) -> usize {
        match self {
            Lanes::One(_) => MAX_COLS,
            Lanes::Halves { size, .. } | Lanes::Floats { size, .. } => *size,
        }
    }

    /// Bytes that a product reads of them.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Lanes::One(_) => 4,
            Lanes::Halves { values, .. } => size_of_val(&values[..]),
            Lanes::Floats { values, .. } => size_of_val(&values[..]),
        }
    }

    /// Prefetches those of 16 rows, which may lie past the end.
    #[inline(always)]
    pub(crate) fn prefetch<I: Isa>(&self, isa: I, lane: usize) {
        match self {
            Lanes::One(_) => {}
            Lanes::Halves { values, .. } => isa.prefetch(values, lane),
            Lanes::Floats { values, .. } => isa.prefetch(values, lane),
        }
    }

    /// Those of 16 rows.
    #[inline(always)]
    pub(crate) fn at<I: Isa>(&self, isa: I, lane: usize) -> [f32; ROWS] {
        match self {
            Lanes::One(scale) => [*scale; ROWS],
            Lanes::Halves { values, .. } => isa.halves(&values[lane]),
            Lanes::Floats { values, .. } => values[lane],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_come_back_from_their_lanes() {
        for (rows, cols, size) in [(1, 1, 4), (16, 64, 64), (17, 65, 32), (40, 300, 128), (3, 8, 8)] {
            for step in [0.25f32, 0.1] {
                let values = (0..rows * usize::div_ceil(cols, size)).map(|i| i as f32 * step).collect();
                let scales = Scales::Groups { size, values };
                scales.check(rows, cols).unwrap();
                let lanes = Lanes::of(scales.clone(), rows, cols);
                assert_eq!(matches!(lanes, Lanes::Halves { .. }), step == 0.25 || rows * cols == 1);
                assert_eq!(lanes.scales(rows, cols), scales);
            }
        }
        assert_eq!(Lanes::of(Scales::One(0.1), 3, 4).scales(3, 4), Scales::One(0.1));
    }
}
