//! Quantisers and one ternary product against the recorded vectors (testdata/golden/gen/models.py), on every
//! instruction set and packing.

use std::path::Path;

use serde_json::Value;
use tern::Encoding;
use tern::Tensor;
use tern::codec::Trits;
use tern_kernels::{Activations, Cpu, Packing, Pool, Scales, Ternary};

fn golden(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/golden").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

fn integers(value: &Value) -> Vec<i64> {
    value.as_array().unwrap().iter().map(|v| v.as_i64().unwrap()).collect()
}

#[test]
fn activation_codes_equal_the_vectors() {
    let golden = golden("act_quant_int8.json");
    for (row, x) in golden["x"].as_array().unwrap().iter().enumerate() {
        let (x, want) = (floats(x), integers(&golden["q"][row]));
        for cpu in Cpu::available() {
            let mut codes = Activations::default();
            codes.quantise(cpu, &Pool::new(1), &x, x.len(), None).unwrap();
            let got: Vec<i64> = codes.codes(0).iter().map(|&code| i64::from(code)).collect();
            assert_eq!(got, want, "row {row} on {}", cpu.name());
            let scale = golden["scale"][row].as_f64().unwrap();
            assert!((f64::from(codes.step(0)) * scale - 1.0).abs() < 1e-6, "row {row}");
        }
    }
}

#[test]
fn one_layer_equals_the_vectors() {
    let golden = golden("bitlinear.json");
    let trits: Vec<Vec<i8>> = golden["ternary"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| integers(row).iter().map(|&t| t as i8).collect())
        .collect();
    let x: Vec<Vec<f32>> = golden["x"].as_array().unwrap().iter().map(floats).collect();
    let (rows, cols) = (trits.len(), trits[0].len());
    let scale = golden["weight_scale_mean_abs"].as_f64().unwrap() as f32;
    for cpu in Cpu::available() {
        let mut codes = Activations::default();
        codes.quantise(cpu, &Pool::new(2), &x.concat(), cols, None).unwrap();
        for (token, want) in golden["q"].as_array().unwrap().iter().enumerate() {
            let got: Vec<i64> = codes.codes(token).iter().map(|&code| i64::from(code)).collect();
            assert_eq!(got, integers(want));
        }
        for packing in Packing::ALL {
            let product = |scale| {
                let pool = Pool::new(2);
                let row = |row: usize, out: &mut [i8]| {
                    out.copy_from_slice(&trits[row]);
                    Ok::<(), ()>(())
                };
                let matrix = Ternary::pack(packing, rows, cols, Scales::One(scale), &pool, row).unwrap();
                let mut out = vec![0f32; x.len() * rows];
                matrix.matmul(cpu, &pool, &mut codes.clone(), &mut out);
                out
            };
            let (y, unscaled) = (product(scale), product(1.0));
            for token in 0..x.len() {
                let (sums, want) = (integers(&golden["acc_i32"][token]), floats(&golden["y"][token]));
                for row in 0..rows {
                    let sum = unscaled[token * rows + row] / codes.step(token);
                    assert_eq!(sum.round() as i64, sums[row], "{} {}", cpu.name(), packing.name());
                    let got = y[token * rows + row];
                    assert!((got - want[row]).abs() <= 1e-6 * want[row].abs(), "{got} {}", want[row]);
                }
            }
        }
    }
}

#[test]
fn masters_become_the_trits_of_the_vectors() {
    let golden = &golden("bitlinear.json")["absmean"];
    let w: Vec<Vec<f32>> = golden["w"].as_array().unwrap().iter().map(floats).collect();
    let cols = w[0].len();
    let bytes: Vec<u8> = w.concat().iter().flat_map(|w| w.to_le_bytes()).collect();
    let tensor = Tensor::new("w", [w.len(), cols], Encoding::F32, bytes);
    let trits = Trits::open(&tensor).unwrap();
    let mean = golden["mean_abs"].as_f64().unwrap() as f32;
    assert!((trits.scales().at(0, 0, cols) - mean).abs() <= mean * 1e-6);
    for (row, want) in golden["ternary"].as_array().unwrap().iter().enumerate() {
        let mut got = vec![0i8; cols];
        trits.row(row, &mut got).unwrap();
        assert_eq!(got.iter().map(|&t| i64::from(t)).collect::<Vec<_>>(), integers(want));
    }
}
