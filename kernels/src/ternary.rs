//! A packed ternary matrix and its scales.

use crate::packing::{Packing, ROWS};
use crate::pool::Pool;
use crate::scales::{Lanes, Scales};
use crate::{Buffer, Bytes};

/// A matrix of trits, packed for the kernels, with its scales.
#[derive(Clone, Debug)]
pub struct Ternary {
    rows: usize,
    cols: usize,
    packing: Packing,
    scales: Lanes,
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
        let mut blocks = Buffer::try_for_weights(len).unwrap_or_else(|| Buffer::zeroed(len));
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
            None => {
                let scales = Lanes::of(scales, rows, cols);
                Ok(Self { rows, cols, packing, scales, blocks: blocks.into() })
            }
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
        Ok(Self { rows, cols, packing, scales: Lanes::of(scales, rows, cols), blocks })
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
    /// The scales, as the matrix was given them.
    pub fn scales(&self) -> Scales {
        self.scales.scales(self.rows, self.cols)
    }
    /// Whether all weights share a scale.
    pub fn has_one_scale(&self) -> bool {
        matches!(self.scales, Lanes::One(_))
    }
    /// Bytes of the scales as they are held.
    pub fn scale_bytes(&self) -> usize {
        self.scales.bytes()
    }
    /// The scales as kernels read them.
    pub(crate) fn lanes(&self) -> &Lanes {
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
