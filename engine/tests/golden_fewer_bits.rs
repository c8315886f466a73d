//! The quantisers of BitNet a4.8 and v2 and the Hadamard transform byte for byte against NumPy (testdata/golden/gen/
//! fewer_bits.py), on every instruction set.

use std::path::Path;

use serde_json::Value;
use tern_kernels::{Activations, Cpu, Intake, Norm, Pool, Rounding, hadamard, hadamard_block, rms_norm};

fn rows() -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/golden/fewer_bits.json");
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    golden["rows"].as_array().unwrap().clone()
}

/// Floats stand in the file as the integers of their bits.
fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|bits| f32::from_bits(bits.as_u64().unwrap() as u32)).collect()
}

#[test]
fn codes_steps_and_transforms_equal_numpy() {
    let rows = rows();
    assert!(rows.len() >= 20);
    for (nth, row) in rows.iter().enumerate() {
        let x = floats(&row["x"]);
        let block = row["hadamard"]["block"].as_u64().unwrap() as usize;
        assert_eq!(hadamard_block(x.len(), 1024), block);
        for cpu in Cpu::available() {
            let pool = Pool::new(2);
            let check = |intake: Intake, want: &Value| {
                let (mut codes, twice) = (Activations::default(), [&x[..], &x[..]].concat());
                codes.set(intake, cpu, &pool, &twice, x.len(), None).unwrap();
                for token in 0..2 {
                    let got: Vec<i64> = codes.codes(token).iter().map(|&code| i64::from(code)).collect();
                    let wanted: Vec<i64> =
                        want["codes"].as_array().unwrap().iter().map(|code| code.as_i64().unwrap()).collect();
                    assert_eq!(got, wanted, "row {nth}, {intake:?} on {}", cpu.name());
                    assert_eq!(i64::from(codes.sum(token)), wanted.iter().sum::<i64>());
                    assert_eq!(u64::from(codes.step(token).to_bits()), want["step"].as_u64().unwrap());
                }
            };
            for (name, rounding) in
                [("int8", Rounding::Token), ("int4", Rounding::Int4), ("top", Rounding::TopHalf)]
            {
                check(rounding.into(), &row[name]);
                if name != "top" {
                    check(Intake { rounding, block }, &row["hadamard"][name]);
                }
            }
            let mut turned = x.clone();
            hadamard(cpu, &pool, &mut turned, x.len(), block);
            let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
            assert!(bits(&turned) == bits(&floats(&row["hadamard"]["x"])), "row {nth} on {}", cpu.name());
        }
    }
}

#[test]
fn a_norm_comes_first() {
    let x: Vec<f32> = (0..96).map(|i| ((i * 37 % 101) as f32 - 50.0) * 0.03).collect();
    let weight: Vec<f32> = (0..48).map(|i| 0.5 + (i % 7) as f32 * 0.2).collect();
    for cpu in Cpu::available() {
        for rounding in Rounding::ALL {
            for block in [1, 16] {
                let (pool, intake) = (Pool::new(1), Intake { rounding, block });
                let (mut normed, mut codes, mut want) =
                    (vec![0.0; 96], Activations::default(), Activations::default());
                rms_norm(cpu, &x, &weight, 1e-5, &mut normed);
                want.set(intake, cpu, &pool, &normed, 48, None).unwrap();
                codes.set(intake, cpu, &pool, &x, 48, Some(Norm { weight: &weight, eps: 1e-5 })).unwrap();
                for row in 0..2 {
                    assert_eq!(codes.step(row), want.step(row), "{intake:?}");
                    if rounding != Rounding::None {
                        assert_eq!(codes.codes(row), want.codes(row), "{intake:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn a_row_that_is_no_number_is_refused_by_every_quantiser() {
    for rounding in Rounding::ALL {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for block in [1, 2] {
                let (mut codes, x) = (Activations::default(), [1.0, 2.0, 3.0, bad]);
                let found = codes.set(Intake { rounding, block }, Cpu::best(), &Pool::new(1), &x, 2, None);
                assert!(found.is_err_and(|error| error.0 == 1), "{rounding:?} {bad}");
            }
        }
    }
    // Sums of what is too large are infinite.
    let intake = Intake { rounding: Rounding::Int4, block: 4 };
    let found = Activations::default().set(intake, Cpu::best(), &Pool::new(1), &[f32::MAX; 4], 4, None);
    assert!(found.is_err());
}

#[test]
fn blocks_are_the_largest_power_of_two_that_divides() {
    for (width, block) in
        [(1, 1), (3, 1), (6, 2), (96, 32), (1536, 512), (2560, 512), (4096, 1024), (6912, 256)]
    {
        assert_eq!(hadamard_block(width, 1024), block, "{width}");
    }
    assert_eq!((hadamard_block(64, 1), hadamard_block(64, 0), hadamard_block(64, 48)), (1, 1, 32));
}
