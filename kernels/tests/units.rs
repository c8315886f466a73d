//! Products that leave out closed units against the whole ones, bit for bit.

use tern_kernels::{
    Activations, ByColumn, ByRow, Cpu, Packing, Pool, Random, Scales, Ternary, check::definition,
};

fn pack(packing: Packing, rows: usize, cols: usize, scales: &Scales, trits: &[i8]) -> Ternary {
    Ternary::pack(packing, rows, cols, scales.clone(), &Pool::new(1), |row, out| {
        out.copy_from_slice(&trits[row * cols..][..cols]);
        Ok::<(), ()>(())
    })
    .unwrap()
}

fn bits(values: &[f32]) -> Vec<u32> {
    // The sign of a zero is no part of a sum of whole numbers.
    values.iter().map(|v| if *v == 0.0 { 0 } else { v.to_bits() }).collect()
}

/// Both products, with these trits and activations, of every set, packing and number of threads.
fn compare(
    pools: &[Pool],
    rows: usize,
    cols: usize,
    scales: &Scales,
    trits: &[i8],
    values: &[f32],
    wanted: &[bool],
) {
    let mut x = Activations::default();
    x.quantise(Cpu::best(), &pools[0], values, cols, None).unwrap();
    let whole = bits(&definition(trits, rows, scales, &x));
    for packing in Packing::ALL {
        let matrix = pack(packing, rows, cols, scales, trits);
        for cpu in Cpu::available() {
            for pool in pools {
                let what =
                    format!("{} {} {} threads {rows}x{cols}", cpu.name(), packing.name(), pool.threads());
                let by_row = ByRow::of(pool, &matrix).unwrap();
                let mut out = vec![f32::NAN; rows];
                by_row.matmul(cpu, pool, &x, |row| wanted[row], &mut out);
                for row in 0..rows {
                    if wanted[row] {
                        assert_eq!(bits(&out[row..=row]), whole[row..=row], "row {row}, {what}");
                    } else {
                        assert!(out[row].is_nan(), "row {row} was not wanted, {what}");
                    }
                }
                let by_column = ByColumn::of(cpu, pool, &matrix).unwrap();
                let mut out = vec![f32::NAN; rows];
                by_column.matmul(cpu, pool, &x, &mut out);
                assert_eq!(bits(&out), whole, "by column, {what}");
            }
        }
    }
}

/// A share of closed units: none, all, and what real models have; and one open or closed alone.
#[test]
fn what_is_left_out_changes_no_bit() {
    let pools = [1, 3].map(Pool::new);
    let mut random = Random(7);
    let shapes = [
        (1, 1),
        (2, 3),
        (15, 16),
        (16, 20),
        (17, 21),
        (63, 65),
        (64, 64),
        (65, 130),
        (129, 257),
        (255, 80),
        (320, 400),
        (321, 641),
        (700, 97),
    ];
    for (nth, (rows, cols)) in shapes.into_iter().enumerate() {
        for closed in [0.0, 0.5, 0.7, 0.95, 1.0] {
            let trits: Vec<i8> = (0..rows * cols).map(|_| (random.bits() % 3) as i8 - 1).collect();
            let mut value = || if random.unit() < closed { 0.0 } else { random.unit() - 0.5 };
            let values: Vec<f32> = (0..cols).map(|_| value()).collect();
            let wanted: Vec<bool> = (0..rows).map(|_| value() != 0.0).collect();
            let scales = match nth % 3 {
                0 => Scales::One(0.37),
                1 => Scales::rows(cols, (0..rows).map(|row| row as f32 / 64.0).collect()),
                _ => Scales::rows(cols, (0..rows).map(|row| 0.1 + row as f32).collect()),
            };
            compare(&pools, rows, cols, &scales, &trits, &values, &wanted);
        }
    }
    for at in [0, 1, 63, 64, 99] {
        let trits: Vec<i8> = (0..100 * 100).map(|_| (random.bits() % 3) as i8 - 1).collect();
        let (mut values, mut wanted) = ([0.0; 100], [false; 100]);
        (values[at], wanted[at]) = (-3.0, true);
        compare(&pools, 100, 100, &Scales::One(1.0), &trits, &values, &wanted);
        let (values, wanted) = (values.map(|v| v + 3.0), wanted.map(|w| !w));
        compare(&pools, 100, 100, &Scales::One(1.0), &trits, &values, &wanted);
    }
}

#[test]
fn the_largest_sums_do_not_overflow() {
    let pools = [Pool::new(2)];
    for cols in [4096, 32771] {
        for (trit, value) in [(1, 1.0f32), (1, -1.0), (-1, 1.0), (-1, -1.0)] {
            let (trits, values) = (vec![trit; 17 * cols], vec![value; cols]);
            compare(&pools, 17, cols, &Scales::One(1.0), &trits, &values, &[true; 17]);
        }
    }
    // Each output lies in one plane here, so that a column's limit is the number of units.
    let (rows, cols) = (90, 1 << 16);
    for trit in [1, -1] {
        let trits = vec![trit; rows * cols];
        compare(&pools, rows, cols, &Scales::One(1.0), &trits, &vec![1.0; cols], &vec![true; rows]);
    }
}

#[test]
fn matrices_that_do_not_suit_are_refused() {
    let pool = Pool::new(1);
    let groups = Scales::Groups { size: 4, values: vec![1.0; 6] };
    let matrix = pack(Packing::I2, 2, 12, &groups, &[1; 24]);
    assert!(ByRow::of(&pool, &matrix).is_none());
    assert!(ByColumn::of(Cpu::best(), &pool, &matrix).is_none());
    let wide = (1 << 16) + 1;
    let matrix = pack(Packing::I2, 1, wide, &Scales::One(1.0), &vec![1; wide]);
    assert!(ByRow::of(&pool, &matrix).is_some());
    assert!(ByColumn::of(Cpu::best(), &pool, &matrix).is_none());
    let mut x = Activations::default();
    // A product that could be infinite is known as such.
    for (scale, value, is_finite) in [(1.0, 1.0, true), (1e30, 1.0, true), (1e30, 1e30, false)] {
        for scales in [Scales::One(scale), Scales::rows(3, vec![0.0, scale])] {
            let large = ByRow::of(&pool, &pack(Packing::T5, 2, 3, &scales, &[1; 6])).unwrap();
            x.quantise(Cpu::best(), &pool, &[value; 3], 3, None).unwrap();
            assert_eq!(large.is_finite(&x), is_finite, "{scale} {value}");
        }
    }
}

/// Not in WebAssembly, where a panic ends everything.
#[cfg(not(target_family = "wasm"))]
#[test]
fn activations_of_groups_do_not_enter() {
    let pool = Pool::new(1);
    let by_row = ByRow::of(&pool, &pack(Packing::I2, 1, 256, &Scales::One(1.0), &[1; 256])).unwrap();
    let mut x = Activations::default();
    x.set(tern_kernels::Rounding::Group, Cpu::best(), &pool, &[1.0; 256], 256, None).unwrap();
    let mut out = [0.0];
    let product = || by_row.matmul(Cpu::best(), &pool, &x, |_| true, &mut out);
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(product)).is_err());
}
