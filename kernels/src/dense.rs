//! Products of float matrices, for training: `out (rows, cols) = a (rows, depth) · b (depth, cols)`.
//!
//! `a` is read where it lies with any strides, so a transposed operand costs nothing; rows of `b` are contiguous. Every
//! output is summed in the order of `depth` by one thread, so the number of threads changes no bit. Instruction sets
//! that fuse multiplication and addition round differently from those that do not.

use std::cell::Cell;

use crate::cpu::Cpu;
use crate::isa::{Isa, Kernel, Strided};
use crate::pool::{Disjoint, Pool};

/// A matrix of floats where it lies: element `(i, j)` is `data[i * row_stride + j * col_stride]`. Every element lies inside of
/// `data`: what makes one sees to that.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    /// More numbers may lie around and between the elements.
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Rows of `cols` numbers, one after another.
    pub fn new(data: &'a [f32], cols: usize) -> Self {
        assert!(cols > 0, "a matrix of no columns");
        Self { data, rows: data.len() / cols, cols, row_stride: cols, col_stride: 1 }
    }
    /// `rows` rows of `cols` numbers, each `stride` numbers after the one before.
    pub fn strided(data: &'a [f32], rows: usize, cols: usize, stride: usize) -> Self {
        assert!(fits(rows, cols, stride, data.len()), "a matrix reaches beyond its numbers");
        Self { data, rows, cols, row_stride: stride, col_stride: 1 }
    }
    /// Columns become rows; nothing moves.
    pub fn transposed(self) -> Self {
        Self {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }
    /// `count` columns from `start` on.
    pub fn columns(self, start: usize, count: usize) -> Self {
        self.transposed().rows(start, count).transposed()
    }
    /// `count` rows from `start` on.
    pub fn rows(self, start: usize, count: usize) -> Self {
        assert!(
            start <= self.rows && count <= self.rows - start,
            "{count} rows or columns from {start} on, of {}",
            self.rows
        );
        // Nothing overflows: of two rows or more each stride lies inside of the data, and of one row `start` is 0 or the
        // stride counts once. Where no rows are left, there may be no numbers either.
        let skip = (start * self.row_stride).min(self.data.len());
        Self { data: &self.data[skip..], rows: count, ..self }
    }
    /// How many rows it has.
    pub fn row_count(&self) -> usize {
        self.rows
    }
    /// One row; the matrix must not be transposed.
    pub fn row(&self, index: usize) -> &'a [f32] {
        assert!(index < self.rows && self.col_stride == 1, "row {index} of {}", self.rows);
        &self.data[index * self.row_stride..][..self.cols]
    }
}

/// Whether `rows` rows of `cols` numbers, `stride` apart and not overlapping, lie in `len` numbers.
fn fits(rows: usize, cols: usize, stride: usize, len: usize) -> bool {
    let Some(before) = rows.checked_sub(1) else { return true };
    let end = before.checked_mul(stride).and_then(|start| start.checked_add(cols));
    cols <= stride && end.is_some_and(|end| end <= len)
}

/// Rows and vectors of 16 columns of a tile.
const TILE: (usize, usize) = (6, 4);
/// Steps of depth that are summed before they go to the output: 128 rows of 64 columns of `b` are 32 KB, and lie in the
/// first cache while the tiles go by.
const DEPTH: usize = 128;
/// Columns of a tile.
const WIDTH: usize = 16 * TILE.1;

/// Whole cache lines: a load of 64 bytes that crosses one counts twice.
#[repr(align(64))]
struct Copy([f32; DEPTH * WIDTH]);

thread_local! {
    /// The part of `b` that the tiles of a piece read.
    static COPY: Cell<Option<Box<Copy>>> = const { Cell::new(None) };
}

/// Tiles below each other that make a piece of work.
const TILES: usize = 16;

/// One product as the threads share it.
struct Task<'a> {
    a: Matrix<'a>,
    b: Matrix<'a>,
    out: &'a Disjoint<'a, f32>,
    stride: usize,
    add: bool,
}

/// The rows `rows.0..rows.1` of 64 columns from `col` on.
struct Piece<'a, 'b> {
    task: &'b Task<'a>,
    rows: (usize, usize),
    col: usize,
}

impl Kernel for Piece<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let b = &self.task.b;
        let whole = (b.cols - self.col) / 16;
        // Copying pays where many tiles read the copy and the rows lie apart: in pages of their own, or in few sets of the
        // cache.
        let copies = whole >= TILE.1 && self.rows.1 - self.rows.0 >= 8 * TILE.0 && b.row_stride != WIDTH;
        for start in (0..b.rows).step_by(DEPTH) {
            let depth = DEPTH.min(b.rows - start);
            let at = |col: usize| Strided {
                data: &b.data[start * b.row_stride + col..],
                row: b.row_stride,
                col: 1,
            };
            if copies {
                // Taken out and put back: within a closure the tiles would be compiled without the frame's instructions.
                let mut copy = COPY.take().unwrap_or_else(|| Box::new(Copy([0.0; DEPTH * WIDTH])));
                let from = at(self.col);
                for (i, out) in copy.0.chunks_exact_mut(WIDTH).take(depth).enumerate() {
                    out.copy_from_slice(&from.data[i * from.row..][..WIDTH]);
                }
                let strided = Strided { data: &copy.0, row: WIDTH, col: 1 };
                self.down::<I, { TILE.1 }>(isa, self.col, start, strided);
                COPY.set(Some(copy));
            } else if whole >= TILE.1 {
                self.down::<I, { TILE.1 }>(isa, self.col, start, at(self.col));
            } else {
                for v in 0..whole {
                    self.down::<I, 1>(isa, self.col + 16 * v, start, at(self.col + 16 * v));
                }
            }
        }
        if whole < TILE.1 {
            self.rest(self.col + 16 * whole);
        }
    }
}

impl Piece<'_, '_> {
    #[inline(always)]
    fn down<I: Isa, const V: usize>(&self, isa: I, col: usize, start: usize, b: Strided) {
        let mut row = self.rows.0;
        while row + TILE.0 <= self.rows.1 {
            self.tile::<I, { TILE.0 }, V>(isa, row, col, start, b);
            row += TILE.0;
        }
        while row < self.rows.1 {
            self.tile::<I, 1, V>(isa, row, col, start, b);
            row += 1;
        }
    }

    #[inline(always)]
    fn tile<I: Isa, const M: usize, const V: usize>(
        &self,
        isa: I,
        row: usize,
        col: usize,
        start: usize,
        b: Strided,
    ) {
        let Task { a, out, stride, add, .. } = self.task;
        let at = row * a.row_stride + start * a.col_stride;
        let left = Strided { data: &a.data[at..], row: a.row_stride, col: a.col_stride };
        let add = *add || start > 0;
        let mut nth = 0;
        let rows = [(); M].map(
            #[inline(always)]
            |()| {
                let at = (row + nth) * stride + col;
                nth += 1;
                // SAFETY: the caller's piece of rows and columns is one thread's alone, and these rows lie apart.
                let (rows, _) = unsafe { out.slice(at..at + 16 * V) }.as_chunks_mut::<16>();
                <&mut [[f32; 16]; V]>::try_from(rows).expect("V rows of 16")
            },
        );
        isa.float_tile::<true, M, V>(DEPTH.min(a.cols - start), left, b, rows, add);
    }

    /// Fewer than 16 columns at the right edge, one number at a time.
    #[inline(always)]
    fn rest(&self, col: usize) {
        let Task { a, b, out, stride, add } = self.task;
        for row in self.rows.0..self.rows.1 {
            for col in col..b.cols {
                let mut sum = 0.0;
                for i in 0..a.cols {
                    sum += a.data[row * a.row_stride + i * a.col_stride] * b.data[i * b.row_stride + col];
                }
                let at = row * stride + col;
                // SAFETY: as in `tile`.
                let out = &mut unsafe { out.slice(at..at + 1) }[0];
                *out = if *add { *out + sum } else { sum };
            }
        }
    }
}

fn check(a: &Matrix, b: &Matrix, out: usize, stride: usize) {
    assert_eq!(a.cols, b.rows, "depth of a product");
    assert!(b.rows > 0, "a product of no depth");
    assert_eq!(b.col_stride, 1, "rows of the right operand are contiguous");
    assert!(fits(a.rows, b.cols, stride, out), "room for a product");
}

/// `out = a · b`, or `out += a · b` with `add`, on all threads; rows of `out` are `stride` numbers apart.
pub fn dense_product(cpu: Cpu, pool: &Pool, a: Matrix, b: Matrix, out: &mut [f32], stride: usize, add: bool) {
    check(&a, &b, out.len(), stride);
    let (height, width) = (TILES * TILE.0, 16 * TILE.1);
    let (down, across) = (a.rows.div_ceil(height), b.cols.div_ceil(width));
    let rows = a.rows;
    let out = Disjoint::new(out);
    let task = Task { a, b, out: &out, stride, add };
    pool.for_each(down * across, |index| {
        let (y, x) = (index / across * height, index % across * width);
        cpu.run(Piece { task: &task, rows: (y, (y + height).min(rows)), col: x });
    });
}

/// [`dense_product`] on the calling thread alone, for use inside of a job.
pub fn dense_product_here(cpu: Cpu, a: Matrix, b: Matrix, out: &mut [f32], stride: usize, add: bool) {
    check(&a, &b, out.len(), stride);
    let (rows, cols) = (a.rows, b.cols);
    let out = Disjoint::new(out);
    let task = Task { a, b, out: &out, stride, add };
    for col in (0..cols).step_by(16 * TILE.1) {
        cpu.run(Piece { task: &task, rows: (0, rows), col });
    }
}

/// `out (cols, rows)` = the transpose of `x (rows, cols)`, on the calling thread; rows of `out` are `stride` numbers apart.
pub fn transpose(cpu: Cpu, x: Matrix, out: &mut [f32], stride: usize) {
    assert!(fits(x.cols, x.rows, stride, out.len()), "room for a transposed matrix");
    cpu.vectorised(
        #[inline(always)]
        || {
            for start in (0..x.rows).step_by(16) {
                let end = (start + 16).min(x.rows);
                for col in 0..x.cols {
                    let out = &mut out[col * stride + start..col * stride + end];
                    for (row, out) in (start..end).zip(out) {
                        *out = x.data[row * x.row_stride + col * x.col_stride];
                    }
                }
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(i: usize) -> f32 {
        ((i * 7919 % 1013) as f32 - 506.0) / 512.0
    }

    #[test]
    fn every_shape_and_set_equals_the_plain_sum() {
        for (m, n, k) in
            [(1, 1, 1), (6, 64, 5), (7, 65, 33), (13, 79, 64), (97, 130, 17), (8, 80, 300), (3, 16, 1)]
        {
            let a: Vec<f32> = (0..m * k).map(value).collect();
            let b: Vec<f32> = (0..k * n).map(|i| value(i + 5)).collect();
            let mut at = vec![0.0; m * k];
            let view = Matrix::new(&a, k);
            transpose(Cpu::best(), view, &mut at, m);
            let flipped = Matrix::new(&at, m);
            let right = Matrix::new(&b, n);
            for cpu in Cpu::available() {
                for left in [view, flipped.transposed()] {
                    for threads in [1, 3] {
                        let mut out = vec![1f32; m * (n + 2)];
                        dense_product(cpu, &Pool::new(threads), left, right, &mut out, n + 2, true);
                        for (i, out) in out.iter().enumerate() {
                            let (row, col) = (i / (n + 2), i % (n + 2));
                            let want: f64 = match col < n {
                                true => (0..k)
                                    .map(|j| f64::from(a[row * k + j]) * f64::from(b[j * n + col]))
                                    .sum(),
                                false => 0.0,
                            };
                            assert!(
                                (f64::from(*out) - 1.0 - want).abs() < 1e-4,
                                "{m} {n} {k} {}",
                                cpu.name()
                            );
                        }
                    }
                }
            }
        }
    }

    /// What a call that must be refused says; it must not go through.
    #[cfg(not(target_family = "wasm"))]
    fn refused<T: std::fmt::Debug>(call: impl FnOnce() -> T) -> String {
        let panic =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)).expect_err("it went through");
        match panic.downcast::<String>() {
            Ok(text) => *text,
            Err(panic) => (*panic.downcast::<&str>().expect("a message")).to_owned(),
        }
    }

    /// Strides whose products wrap around to small numbers: 5 * STRIDE is 4, so that six rows seem to end at 4.
    #[cfg(not(target_family = "wasm"))]
    #[test]
    fn extents_that_wrap_around_are_refused() {
        const STRIDE: usize = usize::MAX / 5 + 1;
        assert_eq!(5usize.wrapping_mul(STRIDE), 4);
        let (data, half) = (vec![1f32; 64], 1 << (usize::BITS - 1));
        let beyond = "a matrix reaches beyond its numbers";
        assert_eq!(refused(|| Matrix::strided(&data, 6, 1, STRIDE)), beyond);
        assert_eq!(refused(|| Matrix::strided(&data, 3, 1, half)), beyond);
        assert_eq!(refused(|| Matrix::strided(&data, 2, usize::MAX, usize::MAX)), beyond);
        assert_eq!(refused(|| Matrix::strided(&data, 2, 3, 2)), beyond);
        assert!(refused(|| Matrix::new(&data, 8).rows(1, usize::MAX)).contains("of 8"));
        assert!(refused(|| Matrix::new(&data, 8).columns(usize::MAX, 2)).contains("of 8"));

        let (a, b, cpu) = (Matrix::new(&data[..3], 1), Matrix::new(&data[..16], 16), Cpu::best());
        let mut out = vec![0f32; 64];
        // Two rows of the product would be one: two threads would write it.
        for stride in [half, half + 8, usize::MAX, 15] {
            let room = "room for a product";
            assert_eq!(refused(|| dense_product(cpu, &Pool::new(2), a, b, &mut out, stride, false)), room);
            assert_eq!(refused(|| dense_product_here(cpu, a, b, &mut out, stride, false)), room);
        }
        let room = "room for a transposed matrix";
        assert_eq!(refused(|| transpose(cpu, Matrix::new(&data, 32), &mut out, half)), room);
    }

    #[test]
    fn matrices_of_nothing_are_of_nothing() {
        for (rows, cols, stride) in [(0, 5, usize::MAX), (0, 0, 0), (1, 0, usize::MAX)] {
            let empty = Matrix::strided(&[], rows, cols, stride);
            for view in [empty, empty.rows(rows, 0), empty.columns(cols, 0), empty.transposed().rows(cols, 0)]
            {
                transpose(Cpu::best(), view.transposed().transposed(), &mut [], view.rows);
            }
        }
    }
}
