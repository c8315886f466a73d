//! Every block vector of testdata/golden: bytes exactly when written, numbers exactly when read.

use serde_json::Value;
use std::path::{Path, PathBuf};
use tern::Encoding;
use tern::Tensor;
use tern::codec::{self, EncodeError, Source, Trits};
use tern_kernels::{Scales, half};

fn golden(name: &str) -> Value {
    let path = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/golden")).join(name);
    serde_json::from_slice(&std::fs::read(Path::new(&path)).unwrap()).unwrap()
}

fn hex(text: &Value) -> Vec<u8> {
    let text = text.as_str().unwrap();
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

fn numbers(list: &Value) -> Vec<f32> {
    list.as_array().unwrap().iter().map(|value| value.as_f64().unwrap() as f32).collect()
}

fn trits(list: &Value) -> Vec<i8> {
    list.as_array().unwrap().iter().map(|value| value.as_i64().unwrap() as i8).collect()
}

fn tensor(encoding: Encoding, dims: &[usize], bytes: Vec<u8>) -> Tensor {
    assert_eq!(encoding.bytes(dims), Some(bytes.len() as u64), "{encoding} {dims:?}");
    Tensor::new("w", dims, encoding, bytes)
}

fn all_floats(tensor: &Tensor) -> Vec<f32> {
    let mut out = vec![f32::NAN; tensor.rows() * tensor.cols()];
    for (row, out) in out.chunks_exact_mut(tensor.cols()).enumerate() {
        codec::floats(tensor, row, out).unwrap();
    }
    out
}

fn all_trits(tensor: &Tensor) -> (Scales, Vec<i8>) {
    let trits = Trits::open(tensor).unwrap();
    let mut out = vec![77; tensor.rows() * tensor.cols()];
    for (row, out) in out.chunks_exact_mut(tensor.cols()).enumerate() {
        trits.row(row, out).unwrap();
    }
    (trits.scales().clone(), out)
}

fn encode(encoding: Encoding, cols: usize, scales: &Scales, trits: &[i8]) -> Result<Vec<u8>, EncodeError> {
    let mut out = Vec::new();
    let mut row = |row: usize, out: &mut [i8]| {
        out.copy_from_slice(&trits[row * cols..][..cols]);
        Ok(())
    };
    codec::encode_ternary(
        encoding,
        Source { rows: trits.len() / cols, cols, scales, row: &mut row },
        &mut out,
    )?;
    Ok(out)
}

#[test]
fn i2_s_in_both_orders() {
    for case in golden("i2_s.json")["cases"].as_array().unwrap() {
        let (rows, cols) = (case["rows"].as_u64().unwrap() as usize, case["cols"].as_u64().unwrap() as usize);
        let scale = case["scale"].as_f64().unwrap() as f32;
        let expected = trits(&case["ternary"]);
        for (encoding, key) in [(Encoding::I2S, "x86_block128_hex"), (Encoding::I2SArm, "arm_block64_hex")] {
            let bytes = hex(&case[key]);
            assert_eq!(encode(encoding, cols, &Scales::One(scale), &expected).unwrap(), bytes);
            assert_eq!(
                all_trits(&tensor(encoding, &[rows, cols], bytes)),
                (Scales::One(scale), expected.clone())
            );
        }
    }
}

#[test]
fn i2_s_puts_each_weight_where_the_map_says() {
    let golden = golden("i2_s.json");
    for (encoding, key) in
        [(Encoding::I2S, "x86_block128_byte_shift"), (Encoding::I2SArm, "arm_block64_byte_shift")]
    {
        let map = golden[key].as_array().unwrap();
        for (e, place) in map.iter().enumerate() {
            let (byte, shift) = (place[0].as_u64().unwrap() as usize, place[1].as_u64().unwrap());
            let mut trits = vec![-1; map.len()]; // code 0
            trits[e] = 1;
            let bytes = encode(encoding, map.len(), &Scales::One(1.0), &trits).unwrap();
            let mut expected = vec![0; map.len() / 4];
            expected[byte] = 2 << shift;
            assert_eq!(bytes[..map.len() / 4], expected, "weight {e}");
        }
    }
}

/// Floats to trits as the encoders of llama.cpp do it, so that the golden inputs can be encoded.
fn block_trits(input: &[f32]) -> (Scales, Vec<i8>) {
    let (mut values, mut trits) = (Vec::new(), Vec::new());
    for block in input.chunks(256) {
        let d = block.iter().fold(0f32, |max, x| max.max(x.abs()));
        let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
        trits.extend(block.iter().map(|x| (x * inverse).round() as i8));
        values.push(half::f16_to_f32(half::f32_to_f16(d)));
    }
    (Scales::Groups { size: 256, values }, trits)
}

#[test]
fn tq1_0_and_tq2_0() {
    for (file, encoding) in [("tq1_0.json", Encoding::Tq1_0), ("tq2_0.json", Encoding::Tq2_0)] {
        for case in golden(file)["cases"].as_array().unwrap() {
            let input = numbers(&case["input"]);
            let (scales, expected) = block_trits(&input);
            let bytes = hex(&case["bytes_hex"]);
            assert_eq!(
                encode(encoding, input.len(), &scales, &expected).unwrap(),
                bytes,
                "{file} {}",
                case["name"]
            );
            let tensor = tensor(encoding, &[1, input.len()], bytes);
            assert_eq!(all_floats(&tensor), numbers(&case["dequantized"]), "{file} {}", case["name"]);
            assert_eq!(all_trits(&tensor).1, expected, "{file} {}", case["name"]);
        }
    }
}

#[test]
fn q8_0() {
    for case in golden("q8_0.json")["cases"].as_array().unwrap() {
        let (input, bytes) = (numbers(&case["input"]), hex(&case["bytes_hex"]));
        let mut encoded = Vec::new();
        codec::encode_floats(Encoding::Q8_0, &input, &mut encoded).unwrap();
        assert_eq!(encoded, bytes, "{}", case["name"]);
        let floats = all_floats(&tensor(Encoding::Q8_0, &[input.len()], bytes));
        assert_eq!(floats, numbers(&case["dequantized"]), "{}", case["name"]);
    }
}

#[test]
fn q4_0_and_q6_k() {
    for (file, encoding) in [("q4_0.json", Encoding::Q4_0), ("q6_k.json", Encoding::Q6K)] {
        for case in golden(file)["cases"].as_array().unwrap() {
            let expected = numbers(&case["dequantized"]);
            let floats = all_floats(&tensor(encoding, &[expected.len()], hex(&case["bytes_hex"])));
            assert_eq!(floats, expected, "{file}");
        }
    }
}

#[test]
fn ik_bn_rows() {
    let golden = golden("ik_bn.json");
    let rows: Vec<Vec<i8>> = golden["ternary"].as_array().unwrap().iter().map(trits).collect();
    let cols = rows[0].len();
    let expected = (Scales::rows(cols, numbers(&golden["row_scales"])), rows.concat());
    for (encoding, key) in [(Encoding::Iq1Bn, "iq1_bn_rows_hex"), (Encoding::Iq2Bn, "iq2_bn_rows_hex")] {
        let bytes: Vec<u8> = golden[key].as_array().unwrap().iter().flat_map(hex).collect();
        assert_eq!(all_trits(&tensor(encoding, &[rows.len(), cols], bytes)), expected, "{key}");
    }
    let four = tensor(Encoding::Iq2BnR4, &[rows.len(), cols], hex(&golden["iq2_bn_r4_hex"]));
    assert_eq!(all_trits(&four), expected);
    let floats: Vec<f32> =
        (0..4 * cols).map(|i| f32::from(expected.1[i]) * expected.0.at(i / cols, i % cols, cols)).collect();
    assert_eq!(all_floats(&four), floats);
}

#[test]
fn f16_and_bf16() {
    let golden = golden("f16_bf16.json");
    let words = |key: &str| -> Vec<u32> {
        let list = golden[key].as_array().unwrap();
        list.iter().map(|word| u32::from_str_radix(word.as_str().unwrap(), 16).unwrap()).collect()
    };
    let floats: Vec<f32> = words("f32_bits").into_iter().map(f32::from_bits).collect();
    for (bits, expected) in words("f32_bits").into_iter().zip(words("f16_bits")) {
        assert_eq!(u32::from(half::f32_to_f16(f32::from_bits(bits))), expected, "{bits:08x}");
    }
    for (encoding, key, reach) in
        [(Encoding::F16, "f16_bits", 65520.0), (Encoding::Bf16, "bf16_bits", f32::MAX)]
    {
        for (&float, word) in floats.iter().zip(words(key)) {
            let mut bytes = Vec::new();
            let result = codec::encode_floats(encoding, &[float], &mut bytes);
            if float < reach {
                assert_eq!(bytes, (word as u16).to_le_bytes(), "{key} {float}");
            } else {
                let expected = format!("expected numbers that F16 can hold, found {float}");
                assert_eq!(result.unwrap_err(), expected);
            }
        }
    }
}

#[test]
fn hf_packed_u8() {
    let golden = golden("hf_packed_u8.json");
    let (rows, cols) = (golden["rows"].as_u64().unwrap() as usize, golden["cols"].as_u64().unwrap() as usize);
    let expected = trits(&golden["ternary"]);
    let bytes: Vec<u8> =
        golden["packed"].as_array().unwrap().iter().map(|byte| byte.as_u64().unwrap() as u8).collect();
    assert_eq!(encode(Encoding::Packed, cols, &Scales::One(0.25), &expected).unwrap(), bytes);
    let mut tensor = tensor(Encoding::Packed, &[rows, cols], bytes);
    tensor.scale = Some(0.25);
    assert_eq!(all_trits(&tensor), (Scales::One(0.25), expected));
}
