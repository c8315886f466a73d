//! What a student learns of a teacher's attention: the relations of queries (or keys, or values) of a layer among each other.
//! The numbers of a row are cut into heads anew and each is brought to length 1; `R = softmax(A Aᵀ)` over the tokens of a
//! document, and the loss of a row is `KL(R of the teacher ‖ R of the student)`. Widths of the two may differ.

use std::cell::RefCell;

use tern_kernels::{Matrix, dense_product_here, exp, transpose};

use super::Machine;
use super::loss::NONE;
use super::loss::divergence::sums;
use super::norm::{dot, squares};

/// What is compared, and how much a row counts.
#[derive(Clone, Copy, Debug)]
pub struct Shape<'a> {
    /// Parts that a row is cut into.
    pub heads: usize,
    /// Positions of a sequence.
    pub positions: usize,
    /// `(rows)`: where in its sequence each token's document begins.
    pub starts: &'a [u32],
    /// `(rows)`: those without a target count nothing.
    pub targets: &'a [u32],
    /// What a row's loss counts.
    pub weight: f32,
}

/// A thread's room.
#[derive(Default)]
struct Room {
    units: Vec<f32>,  // (tokens, width), rows of length 1
    turned: Vec<f32>, // (width, stride)
    theirs: Vec<f32>, // (tokens, stride), relations of the teacher
    ours: Vec<f32>,   // (tokens, stride), of the student, then the gradient
    du: Vec<f32>,     // (tokens, width)
}

thread_local! {
    static ROOM: RefCell<Room> = RefCell::default();
}

fn sized(buffer: &mut Vec<f32>, len: usize) -> &mut [f32] {
    buffer.resize(len, 0.0);
    buffer
}

/// The sum over heads and rows of what the relations of `x (rows, width)` differ by from those of `teacher (rows, its width)`;
/// its gradient, `weight` times, is added to `dx`.
pub fn both(on: Machine, shape: Shape, x: &[f32], teacher: &[f32], dx: &mut [f32]) -> f64 {
    let Shape { heads, positions, starts, targets, weight } = shape;
    let rows = starts.len();
    let (wide, wide_t) = (x.len() / rows, teacher.len() / rows);
    assert!(
        wide.is_multiple_of(heads) && wide_t.is_multiple_of(heads),
        "{heads} parts of {wide} and {wide_t}"
    );
    assert!(
        x.len() == dx.len() && targets.len() == rows && rows.is_multiple_of(positions),
        "shapes of relations"
    );
    let mut losses = vec![0f32; rows];
    on.pool.for_rows([(dx, positions * wide), (&mut losses[..], positions)], |sequence, [dx, losses]| {
        let first = sequence * positions;
        let (starts, targets) = (&starts[first..][..positions], &targets[first..][..positions]);
        let mut begin = 0;
        while begin < positions {
            let same = |at: &usize| starts[*at] == starts[begin];
            let count = (begin..positions).take_while(same).count();
            let at = first + begin;
            for head in 0..heads {
                let piece = Piece {
                    x: Matrix::strided(&x[at * wide + head * (wide / heads)..], count, wide / heads, wide),
                    teacher: Matrix::strided(
                        &teacher[at * wide_t + head * (wide_t / heads)..],
                        count,
                        wide_t / heads,
                        wide_t,
                    ),
                    targets: &targets[begin..][..count],
                    weight,
                };
                let dx = &mut dx[begin * wide + head * (wide / heads)..];
                ROOM.with_borrow_mut(|room| piece.run(on, room, dx, wide, &mut losses[begin..][..count]));
            }
            begin += count;
        }
    });
    losses.iter().map(|loss| f64::from(*loss)).sum()
}

/// One head of one document in one sequence.
struct Piece<'a> {
    x: Matrix<'a>,
    teacher: Matrix<'a>,
    targets: &'a [u32],
    weight: f32,
}

/// Numbers from a row of relations to the next.
fn stride(count: usize) -> usize {
    count.next_multiple_of(16) + 16
}

/// Rows of length 1 in `units (count, width)`, and their products in `out (count, stride)`.
fn scores(
    on: Machine,
    x: Matrix,
    units: &mut Vec<f32>,
    turned: &mut Vec<f32>,
    out: &mut Vec<f32>,
    size: [usize; 2],
) {
    let ([count, width], stride) = (size, stride(size[0]));
    let units = sized(units, count * width);
    for (row, unit) in units.chunks_exact_mut(width).enumerate() {
        let x = x.row(row);
        let length = 1.0 / squares(x).sqrt().max(1e-12);
        unit.iter_mut().zip(x).for_each(|(unit, x)| *unit = x * length);
    }
    let units = Matrix::new(units, width);
    let turned = sized(turned, width * stride);
    transpose(on.cpu, units, turned, stride);
    let turned = Matrix::new(turned, stride).columns(0, count);
    dense_product_here(on.cpu, units, turned, sized(out, count * stride), stride, false);
}

impl Piece<'_> {
    fn run(&self, on: Machine, room: &mut Room, dx: &mut [f32], wide: usize, losses: &mut [f32]) {
        let count = self.targets.len();
        let Room { units, turned, theirs, ours, du } = room;
        let width_t = self.teacher.row(0).len();
        scores(on, self.teacher, units, turned, theirs, [count, width_t]);
        let width = self.x.row(0).len();
        scores(on, self.x, units, turned, ours, [count, width]);
        let stride = stride(count);
        on.cpu.vectorised(
            #[inline(always)]
            || {
                for (row, loss) in losses.iter_mut().enumerate() {
                    let (p, q) = (&mut theirs[row * stride..][..count], &mut ours[row * stride..][..count]);
                    if self.targets[row] == NONE {
                        q.fill(0.0);
                        continue;
                    }
                    // Products of rows of length 1 are at most 1: no exponential is too large, and no probability so small
                    // that its logarithm needs a bound.
                    let [sum_p, sum_q, cross] = sums(count, |i| {
                        let (mine, theirs) = (q[i], p[i]);
                        (q[i], p[i]) = (exp(mine), exp(theirs));
                        [p[i], q[i], p[i] * (theirs - mine)]
                    });
                    let (of_p, of_q) = (self.weight / sum_p, self.weight / sum_q);
                    q.iter_mut().zip(&*p).for_each(|(q, p)| *q = of_q * *q - of_p * p);
                    *loss += cross / sum_p - sum_p.ln() + sum_q.ln();
                }
            },
        );
        // dS = q - p, dA = (dS + dSᵀ) A, and through the length: dx = (dA - A (A · dA)) / |x|.
        let (g, units) = (Matrix::strided(ours, count, count, stride), Matrix::new(units, width));
        let du = sized(du, count * width);
        dense_product_here(on.cpu, g, units, du, width, false);
        dense_product_here(on.cpu, g.transposed(), units, du, width, true);
        on.cpu.vectorised(
            #[inline(always)]
            || {
                for (row, du) in du.chunks_exact(width).enumerate() {
                    let (unit, x) = (units.row(row), self.x.row(row));
                    let length = 1.0 / squares(x).sqrt().max(1e-12);
                    let along = dot(unit, du);
                    let dx = &mut dx[row * wide..][..width];
                    for i in 0..width {
                        dx[i] += (du[i] - unit[i] * along) * length;
                    }
                }
            },
        );
    }
}
