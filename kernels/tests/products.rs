//! Every instruction set and packing against the definition of the product, on odd shapes and adversarial data.

use std::sync::LazyLock;
use tern_kernels::{
    Activations, Cpu, Packing, Pool, Product, Rounding, Scales, Ternary, check::definition, dot, products,
};

/// Starting threads for each product would take longer than all products.
static POOLS: LazyLock<[Pool; 3]> = LazyLock::new(|| [1, 2, 3].map(Pool::new));

fn pack(packing: Packing, rows: usize, cols: usize, scales: Scales, trits: &[i8]) -> Ternary {
    Ternary::pack(packing, rows, cols, scales, &POOLS[1], |row, out| {
        out.copy_from_slice(&trits[row * cols..][..cols]);
        Ok::<(), ()>(())
    })
    .unwrap()
}

fn check(rows: usize, cols: usize, tokens: usize, scales: Scales, trits: &[i8], values: &[f32]) {
    check_rounded(Rounding::Token, rows, cols, tokens, scales, trits, values);
}

fn check_rounded(
    rounding: Rounding,
    rows: usize,
    cols: usize,
    tokens: usize,
    scales: Scales,
    trits: &[i8],
    values: &[f32],
) {
    let mut x = Activations::default();
    x.set(rounding, Cpu::best(), &Pool::new(1), values, cols, None).unwrap();
    let want: Vec<u32> = definition(trits, rows, &scales, &x).iter().map(|v| v.to_bits()).collect();
    for cpu in Cpu::available() {
        let mut same = Activations::default();
        same.set(rounding, cpu, &Pool::new(2), values, cols, None).unwrap();
        for packing in Packing::ALL {
            let matrix = pack(packing, rows, cols, scales.clone(), trits);
            assert_eq!(matrix.scales(), scales);
            for pool in &*POOLS {
                let threads = pool.threads();
                let mut out = vec![f32::NAN; rows * tokens];
                matrix.matmul(cpu, pool, &mut same, &mut out);
                let got: Vec<u32> = out.iter().map(|v| if *v == 0.0 { 0 } else { v.to_bits() }).collect();
                let want: Vec<u32> = want.iter().map(|&v| if v << 1 == 0 { 0 } else { v }).collect();
                let what = format!("{rows}x{cols} {tokens} tokens {}", rounding.name());
                assert_eq!(got, want, "{} {} {threads} threads {what}", cpu.name(), packing.name());
            }
        }
    }
}

fn noise(len: usize, seed: usize) -> impl Iterator<Item = usize> {
    let mut state = seed as u64 * 2 + 1;
    (0..len).map(move |_| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize
    })
}

/// What `tern doctor` runs.
#[test]
fn every_set_passes_the_check_of_all_kernels() {
    for cpu in Cpu::available() {
        for check in tern_kernels::check::kernels(cpu, &POOLS[2]) {
            assert!(check.result.is_ok(), "{}: {}", check.name, check.result.unwrap_err());
        }
    }
}

#[test]
fn odd_shapes_equal_the_definition() {
    for rows in [1, 2, 15, 16, 17, 31, 64, 65, 80, 129] {
        for cols in [1, 3, 4, 15, 16, 17, 20, 21, 63, 64, 65, 100, 257, 640] {
            for tokens in [1, 2, 3, 4, 5, 7, 8, 9] {
                let trits: Vec<i8> = noise(rows * cols, rows).map(|v| (v % 3) as i8 - 1).collect();
                let values: Vec<f32> = noise(cols * tokens, cols).map(|v| v as f32 / 1e9 - 1.0).collect();
                check(rows, cols, tokens, Scales::One(0.37), &trits, &values);
            }
        }
    }
}

#[test]
fn extreme_sums_do_not_overflow() {
    for cols in [2176, 4096, 32768, 32771] {
        for (trit, value) in [(1, 1.0f32), (1, -1.0), (-1, 1.0), (-1, -1.0)] {
            check(17, cols, 5, Scales::One(1.0), &vec![trit; 17 * cols], &vec![value; 5 * cols]);
        }
    }
}

/// Scales that are f16, so that they are held as such, or not.
fn scales(count: usize, seed: usize, halves: bool) -> Vec<f32> {
    noise(count, seed).map(|v| if halves { (v % 1000) as f32 / 64.0 } else { v as f32 / 1e9 }).collect()
}

#[test]
fn scale_groups_equal_the_definition() {
    let shapes = [
        (5, 100, 4),
        (16, 256, 64),
        (33, 300, 128),
        (20, 64, 64),
        (7, 130, 130),
        (3, 1000, 256),
        (65, 320, 32),
        (129, 640, 128),
        (80, 513, 256),
        (18, 1284, 640),
        (64, 1, 1),
    ];
    for (nth, (rows, cols, size)) in shapes.into_iter().enumerate() {
        let trits: Vec<i8> = noise(rows * cols, size).map(|v| (v % 3) as i8 - 1).collect();
        for tokens in [1, 2, 3, 5, 9] {
            let values: Vec<f32> = noise(cols * tokens, cols).map(|v| v as f32 / 1e9 - 1.0).collect();
            let values_of = scales(rows * cols.div_ceil(size), 9, (nth + tokens) % 2 == 0);
            for rounding in [Rounding::Token, Rounding::Group] {
                let groups = Scales::Groups { size, values: values_of.clone() };
                check_rounded(rounding, rows, cols, tokens, groups, &trits, &values);
            }
            check_rounded(Rounding::Group, rows, cols, tokens, Scales::One(0.37), &trits, &values);
        }
    }
}

/// More tokens than pass a panel at once.
#[test]
fn many_tokens_pass_groups() {
    let (rows, cols, tokens) = (70, 272, 131);
    let trits: Vec<i8> = noise(rows * cols, 5).map(|v| (v % 3) as i8 - 1).collect();
    let values: Vec<f32> = noise(cols * tokens, 6).map(|v| v as f32 / 1e9 - 1.0).collect();
    for (rounding, size) in [(Rounding::Token, 128), (Rounding::Group, 64), (Rounding::Group, cols)] {
        let groups = Scales::Groups { size, values: scales(rows * cols.div_ceil(size), 9, true) };
        check_rounded(rounding, rows, cols, tokens, groups, &trits, &values);
    }
}

#[test]
fn extreme_sums_of_groups_do_not_overflow() {
    for (size, cols) in [(32usize, 96usize), (128, 2176), (256, 4096), (2048, 4096)] {
        for (trit, value) in [(1, 1.0f32), (1, -1.0), (-1, 1.0), (-1, -1.0)] {
            for tokens in [1, 7] {
                let groups = Scales::Groups { size, values: vec![1.0; 17 * cols.div_ceil(size)] };
                let (trits, values) = (vec![trit; 17 * cols], vec![value; tokens * cols]);
                check_rounded(Rounding::Group, 17, cols, tokens, groups, &trits, &values);
            }
        }
    }
}

/// Each matrix of a pass has its own borders: sums for one size must not serve another.
#[test]
fn matrices_of_one_input_may_have_groups_of_several_sizes() {
    let cols = 512;
    let values: Vec<f32> = noise(2 * cols, 3).map(|v| v as f32 / 1e9 - 1.0).collect();
    let sizes = [32, 128, 512];
    let trits: Vec<Vec<i8>> =
        sizes.map(|size| noise(20 * cols, size).map(|v| (v % 3) as i8 - 1).collect()).into();
    for tokens in [1, 2] {
        for rounding in [Rounding::Token, Rounding::Group] {
            for packing in Packing::ALL {
                let mut x = Activations::default();
                let pool = &POOLS[1];
                x.set(rounding, Cpu::best(), pool, &values[..tokens * cols], cols, None).unwrap();
                let of = |nth: usize| Scales::Groups {
                    size: sizes[nth],
                    values: scales(20 * cols / sizes[nth], nth, true),
                };
                let matrices = [0, 1, 2].map(|nth| pack(packing, 20, cols, of(nth), &trits[nth]));
                let mut out = [(); 3].map(|()| vec![0.0; 20 * tokens]);
                let [a, b, c] = &mut out;
                let list = [(0, a), (1, b), (2, c)].map(|(nth, out)| Product { matrix: &matrices[nth], out });
                products(Cpu::best(), pool, &mut x, list);
                for (nth, out) in out.iter().enumerate() {
                    assert_eq!(*out, definition(&trits[nth], 20, &of(nth), &x), "{}", sizes[nth]);
                }
            }
        }
    }
}

#[test]
fn activations_that_are_not_rounded_meet_the_weights_as_floats() {
    let (rows, cols, tokens) = (19, 300, 3);
    let trits: Vec<i8> = noise(rows * cols, 1).map(|v| (v % 3) as i8 - 1).collect();
    let values: Vec<f32> = noise(cols * tokens, 2).map(|v| v as f32 / 1e9 - 1.0).collect();
    for given in [Scales::One(0.37), Scales::Groups { size: 128, values: scales(rows * 3, 9, false) }] {
        let mut want = Vec::new();
        for x in values.chunks(cols) {
            want.extend((0..rows).map(|row| {
                let weight = |col: usize| f32::from(trits[row * cols + col]) * given.at(row, col, cols);
                dot(Cpu::best(), &(0..cols).map(weight).collect::<Vec<_>>(), x)
            }));
        }
        for cpu in Cpu::available() {
            for packing in Packing::ALL {
                let matrix = pack(packing, rows, cols, given.clone(), &trits);
                let (mut x, mut out) = (Activations::default(), vec![f32::NAN; rows * tokens]);
                x.set(Rounding::None, cpu, &POOLS[1], &values, cols, None).unwrap();
                matrix.matmul(cpu, &POOLS[1], &mut x, &mut out);
                assert_eq!(out, want, "{} {}", cpu.name(), packing.name());
            }
        }
    }
    let mut x = Activations::default();
    let bad = x.set(Rounding::None, Cpu::best(), &POOLS[1], &[1.0, f32::NAN], 1, None);
    assert!(bad.is_err_and(|error| error.0 == 1));
}

#[test]
fn every_128_activations_have_a_step() {
    let mut values = vec![0.5f32; 300];
    (values[127], values[128], values[299]) = (127.0, -254.0, 0.0);
    for cpu in Cpu::available() {
        let mut x = Activations::default();
        x.set(Rounding::Group, cpu, &POOLS[0], &values, 300, None).unwrap();
        assert_eq!([0, 127, 128, 255, 256, 298].map(|col| x.codes(0)[col]), [0, 127, -127, 0, 127, 127]);
        assert_eq!([0, 128].map(|col| x.step_at(0, col)), [1.0, 2.0]);
        let mut bad = values.clone();
        bad[299] = f32::INFINITY;
        assert!(x.set(Rounding::Group, cpu, &POOLS[0], &bad, 300, None).is_err_and(|error| error.0 == 0));
    }
}

#[test]
fn activations_round_half_to_even_and_survive_zero() {
    let pool = Pool::new(3);
    for cpu in Cpu::available() {
        let mut x = Activations::default();
        x.quantise(cpu, &pool, &[127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 126.5], 8, None).unwrap();
        assert_eq!(x.codes(0), [127, 0, 2, 2, 0, -2, -2, 126]);
        x.quantise(cpu, &pool, &[0.0; 5], 5, None).unwrap();
        assert_eq!((x.codes(0), x.sum(0)), (&[0i8; 5][..], 0));
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(x.quantise(cpu, &pool, &[1.0, 2.0, 3.0, bad], 2, None).is_err_and(|e| e.0 == 1));
        }
    }
}

/// Not in WebAssembly, where proptest finds no random numbers.
#[cfg(not(target_family = "wasm"))]
mod inverses {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn packing_and_unpacking_are_inverse(rows in 1usize..40, cols in 1usize..200, seed in 0usize..1000) {
            let trits: Vec<i8> = noise(rows * cols, seed).map(|v| (v % 3) as i8 - 1).collect();
            for packing in Packing::ALL {
                let matrix = pack(packing, rows, cols, Scales::One(1.0), &trits);
                prop_assert_eq!(packing.invalid_byte(matrix.blocks()), None);
                let again = Ternary::from_blocks(packing, rows, cols, Scales::One(1.0), matrix.blocks().clone()).unwrap();
                let mut row_out = vec![0; cols];
                for row in 0..rows {
                    again.unpack_row(row, &mut row_out);
                    prop_assert_eq!(&row_out, &trits[row * cols..][..cols]);
                }
            }
        }

        #[test]
        fn a_byte_is_valid_exactly_if_some_trits_pack_to_it(byte in 0u8..=255, at in 0usize..9000) {
            for packing in Packing::ALL {
                let mut blocks = vec![0u8; 9000];
                blocks[at] = byte;
                let valid = match packing {
                    Packing::I2 => (0..4).all(|p| byte >> (2 * p) & 3 != 3),
                    Packing::T5 => {
                        byte / 84 < 3 && byte % 84 / 28 < 3 && byte % 84 % 28 / 9 < 3
                    }
                };
                prop_assert_eq!(packing.invalid_byte(&blocks), (!valid).then_some(at));
            }
        }
    }
}

/// docs/formats.md, word for word: files depend on it.
#[test]
fn blocks_lie_as_the_documentation_says() {
    let (rows, cols) = (19, 45);
    let trits: Vec<i8> = noise(rows * cols, 3).map(|v| (v % 3) as i8 - 1).collect();
    for (packing, planes, weights) in
        [(Packing::I2, 4, [1, 4, 16, 64, 0]), (Packing::T5, 5, [1, 3, 9, 28, 84])]
    {
        let matrix = pack(packing, rows, cols, Scales::One(1.0), &trits);
        let pieces = cols.div_ceil(4 * planes);
        assert_eq!(matrix.blocks().len(), 2 * pieces * 64);
        for (at, &byte) in matrix.blocks().iter().enumerate() {
            let (group, piece, r, j) = (at / 64 / pieces, at / 64 % pieces, at % 64 / 4, at % 4);
            let code = |p: usize| {
                let (row, col) = (group * 16 + r, piece * 4 * planes + 4 * p + j);
                if row < rows && col < cols { (trits[row * cols + col] + 1) as usize } else { 1 }
            };
            assert_eq!(usize::from(byte), (0..planes).map(|p| code(p) * weights[p]).sum::<usize>());
        }
    }
}
