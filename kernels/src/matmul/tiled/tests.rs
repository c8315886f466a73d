//! Products by tiles against the scalar set's and the best one's, bit for bit: every remainder of rows, columns and tokens.

use super::QUADS;
use crate::activations::Rounding;
use crate::tiles::{SIDE, TILES};
use crate::{Activations, Cpu, Packing, Pool, Random, Scales, Ternary};

/// The bits of a product of random trits and activations.
struct Case {
    rows: usize,
    cols: usize,
    tokens: usize,
    rounding: Rounding,
    /// Columns under one scale; 0 for one scale in all.
    size: usize,
}

impl Case {
    fn check(&self, pool: &Pool) {
        let &Case { rows, cols, tokens, rounding, size } = self;
        let mut random = Random((rows * 31 + cols) as u64 * 31 + tokens as u64);
        let trits: Vec<i8> = (0..rows * cols).map(|_| (random.bits() % 3) as i8 - 1).collect();
        let values: Vec<f32> = (0..tokens * cols).map(|_| random.unit() - 0.5).collect();
        let scales = match size {
            0 => Scales::One(0.37),
            size => Scales::Groups {
                size,
                values: (0..rows * cols.div_ceil(size)).map(|_| random.unit()).collect(),
            },
        };
        for packing in Packing::ALL {
            let matrix = Ternary::pack(packing, rows, cols, scales.clone(), pool, |row, out| {
                out.copy_from_slice(&trits[row * cols..][..cols]);
                Ok::<(), ()>(())
            });
            let matrix = matrix.unwrap();
            let product = |cpu: Cpu| {
                let mut x = Activations::default();
                x.set(rounding, Cpu::best(), pool, &values, cols, None).unwrap();
                let mut out = vec![f32::NAN; rows * tokens];
                matrix.matmul(cpu, pool, &mut x, &mut out);
                out.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            };
            let [scalar, best] = [Cpu::available()[0], Cpu::best()].map(product);
            assert_eq!(scalar, best);
            for cpu in Cpu::with_tiles() {
                let what = format!("{} {rows}x{cols}, {tokens} tokens", cpu.name());
                let what = format!("{what}, {} by {size}, {}", rounding.name(), packing.name());
                assert!(product(cpu) == scalar, "{what}");
            }
        }
    }
}

/// Other processors than the one at hand are emulated here, slowly: a third of the numbers of tokens will do.
const EMULATED: bool = !cfg!(target_arch = "x86_64");

fn check(rows: &[usize], cols: &[usize], tokens: &[usize], rounding: Rounding, sizes: &[usize]) {
    let pools = [1, 3].map(Pool::new);
    let mut nth = 0;
    for &rows in rows {
        for &cols in cols {
            for &tokens in tokens.iter().rev().step_by(if EMULATED { 3 } else { 1 }) {
                for &size in sizes.iter().filter(|size| **size < cols) {
                    Case { rows, cols, tokens, rounding, size }.check(&pools[nth % 2]);
                    nth += 1;
                }
            }
        }
    }
}

#[test]
fn rows_and_columns_that_fill_no_tile() {
    let rows = [1, 15, 16, 17, 31, 32, 33, 48, 65, 100];
    let cols = [1, 4, 15, 16, 20, 21, 63, 64, 65, 80, 81, 127, 128, 160, 200];
    check(&rows, &cols, &[3, 20, 33], Rounding::Token, &[0]);
}

#[test]
fn every_number_of_tokens() {
    let tokens: Vec<usize> = (1..=50).chain([63, 64, 65]).collect();
    check(&[33], &[84], &tokens, Rounding::Token, &[0]);
    check(&[17], &[200], &tokens, Rounding::Group, &[0, 64]);
}

/// One column, quad or tile more and less than whole panels, and tokens around a whole block of them.
#[test]
fn more_columns_than_a_panel_and_more_tokens_than_a_block() {
    let panel = 4 * QUADS;
    let cols =
        [panel - 1, panel, panel + 1, panel + 60, panel + 64, 2 * panel, 2 * panel + 79, 3 * panel + 4];
    check(&[32, 40], &cols, &[1, 17, 40], Rounding::Token, &[0]);
    let block = TILES * SIDE;
    check(&[40], &[72, panel + 4], &[block - 1, block, block + 1, 2 * block + 5], Rounding::Token, &[0]);
    check(&[20], &[256], &[block + 1, 2 * block + 17], Rounding::Group, &[0, 64]);
}

/// Borders on tiles, between them, inside blocks and closer than a tile is wide.
#[test]
fn scales_of_segments() {
    let sizes = [4, 12, 32, 40, 64, 100, 128, 256, 644, 800];
    for rounding in [Rounding::Token, Rounding::Group] {
        check(&[1, 33, 50], &[64, 65, 130, 300, 513], &[1, 16, 35], rounding, &sizes[..8]);
        check(&[40], &[1300, 2000], &[5, 50], rounding, &sizes[5..]);
    }
}

#[test]
fn activations_of_other_kinds_of_rounding() {
    for rounding in [Rounding::Int4, Rounding::TopHalf] {
        check(&[40], &[200], &[1, 20], rounding, &[0, 64]);
    }
}

/// The largest sums that there are: they stay within 32 bits.
#[test]
fn sums_at_the_end_of_their_range() {
    let (rows, cols, tokens, pool) = (17, 32771, 18, Pool::new(2));
    for (trit, value) in [(1i8, 1f32), (1, -1.0), (-1, 1.0), (-1, -1.0)] {
        let matrix = Ternary::pack(Packing::I2, rows, cols, Scales::One(1.0), &pool, |_, out| {
            out.fill(trit);
            Ok::<(), ()>(())
        });
        let (matrix, mut x) = (matrix.unwrap(), Activations::default());
        x.quantise(Cpu::best(), &pool, &vec![value; tokens * cols], cols, None).unwrap();
        let want = (127 * cols) as f32 * f32::from(trit) * value * x.step(0);
        for cpu in Cpu::with_tiles() {
            let mut out = vec![0.0; rows * tokens];
            matrix.matmul(cpu, &pool, &mut x, &mut out);
            assert!(out.iter().all(|sum| *sum == want), "{}: {} of {want}", cpu.name(), out[0]);
        }
    }
}

/// What `tern doctor` runs on a machine that has the set.
#[test]
fn amx_passes_the_check_of_all_kernels() {
    for check in
        Cpu::amx().into_iter().flat_map(|cpu| crate::check::kernels(cpu, &Pool::new(2)).collect::<Vec<_>>())
    {
        assert!(check.result.is_ok(), "{check:?}");
    }
}
