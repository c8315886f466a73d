//! A packed ternary matrix and its scales.

use crate::packing::{Packing, ROWS};
use crate::pool::Pool;
use crate::{Buffer, Bytes};

/// Most columns of a matrix, so that its products fit. A masked code counts up to 2 * 84, every fifth column has that
/// weight, and an activation is at most 128: 4300 a column, so that sums stay within an i32.
const MAX_COLS: usize = 1 << 18;

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

/// A matrix of trits, packed for the kernels, with its scales.
#[derive(Clone, Debug)]
pub struct Ternary {
    rows: usize,
    cols: usize,
    packing: Packing,
    scales: Scales,
    blocks: Bytes,
}

impl Ternary {
    /// Packs a matrix whose rows are produced one by one, on all threads of the pool: `row(r, trits)` fills `cols`
    /// trits of row `r`. The first error ends it.
    ///
    /// # Panics
    /// If the scales do not fit the shape ([`Scales::check`]).
    pub fn pack<E: Send>(
        packing: Packing,
        rows: usize,
        cols: usize,
        scales: Scales,
        pool: &Pool,
        row: impl Fn(usize, &mut [i8]) -> Result<(), E> + Sync,
    ) -> Result<Self, E> {
        if let Err(what) = scales.check(rows, cols) {
            panic!("{what}");
        }
        let len = packing.blocks_len(rows, cols).expect("a matrix that fits in memory");
        let mut blocks = Buffer::zeroed(len);
        let failure = std::sync::Mutex::new(None);
        let group = packing.group_len(cols);
        if group > 0 {
            pool.for_chunks(&mut blocks, group, |g, out| {
                let first = g * ROWS;
                let count = ROWS.min(rows - first);
                let mut trits = vec![0i8; count * cols];
                for (r, trits) in trits.chunks_exact_mut(cols).enumerate() {
                    if let Err(error) = row(first + r, trits) {
                        failure.lock().expect("no panic under this lock").get_or_insert(error);
                        return;
                    }
                }
                packing.pack_group(&trits, cols, out);
            });
        }
        match failure.into_inner().expect("no panic under this lock") {
            Some(error) => Err(error),
            None => Ok(Self { rows, cols, packing, scales, blocks: blocks.into() }),
        }
    }

    /// A matrix over blocks that are packed already, not copied. Says what is wrong if the length, a byte or a scale
    /// cannot be.
    pub fn from_blocks(
        packing: Packing,
        rows: usize,
        cols: usize,
        scales: Scales,
        blocks: Bytes,
    ) -> Result<Self, String> {
        scales.check(rows, cols)?;
        let expected = packing.blocks_len(rows, cols);
        if expected != Some(blocks.len()) {
            return Err(format!("{} bytes of blocks for {rows} rows of {cols}", blocks.len()));
        }
        Ok(Self { rows, cols, packing, scales, blocks })
    }

    /// Rows: the outputs of the product.
    pub fn rows(&self) -> usize {
        self.rows
    }
    /// Columns: the inputs of the product.
    pub fn cols(&self) -> usize {
        self.cols
    }
    /// How the trits lie in memory.
    pub fn packing(&self) -> Packing {
        self.packing
    }
    /// The scales.
    pub fn scales(&self) -> &Scales {
        &self.scales
    }
    /// The packed blocks: groups of 16 rows, one after another.
    pub fn blocks(&self) -> &Bytes {
        &self.blocks
    }

    /// The trits of one row.
    pub fn unpack_row(&self, row: usize, out: &mut [i8]) {
        assert!(row < self.rows && out.len() == self.cols, "row {row} of {} by {}", self.rows, self.cols);
        let len = self.packing.group_len(self.cols);
        let at = row / ROWS * len;
        self.packing.unpack_row(&self.blocks[at..at + len], row % ROWS, out);
    }
}
