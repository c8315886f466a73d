//! What is written comes back: every trit and every scale, in every encoding and shape; and the rules for scales.

mod gguf_bytes;

use gguf_bytes::Gguf;
use proptest::prelude::*;
use std::path::Path;
use tern::Encoding;
use tern::Tensor;
use tern::codec::{self, EncodeError, Source, Trits};
use tern::file::{self, File, OpenOptions};
use tern_kernels::Scales;

/// A matrix of trits with its scales.
#[derive(Clone, Debug, PartialEq)]
struct Matrix {
    rows: usize,
    cols: usize,
    scales: Scales,
    trits: Vec<i8>,
}

fn encode(encoding: Encoding, matrix: &Matrix) -> Result<Tensor, EncodeError> {
    let Matrix { rows, cols, scales, trits } = matrix;
    let mut bytes = Vec::new();
    let mut row = |row: usize, out: &mut [i8]| {
        out.copy_from_slice(&trits[row * cols..][..*cols]);
        Ok(())
    };
    codec::encode_ternary(encoding, Source { rows: *rows, cols: *cols, scales, row: &mut row }, &mut bytes)?;
    let dims = vec![*rows, *cols];
    assert_eq!(encoding.bytes_with(&dims, scales), Some(bytes.len() as u64), "{encoding}");
    Ok(tensor(encoding, dims, bytes))
}

fn tensor(encoding: Encoding, dims: Vec<usize>, bytes: Vec<u8>) -> Tensor {
    Tensor::new("w", dims, encoding, bytes)
}

fn decode(tensor: &Tensor) -> Matrix {
    let (rows, cols) = (tensor.rows(), tensor.cols());
    let source = Trits::open(tensor).unwrap();
    let mut trits = vec![77; rows * cols];
    for (row, out) in trits.chunks_exact_mut(cols).enumerate() {
        source.row(row, out).unwrap();
        let mut floats = vec![f32::NAN; cols];
        codec::floats(tensor, row, &mut floats).unwrap();
        if tensor.encoding.is_ternary() {
            let product = |col: usize| f32::from(out[col]) * source.scales().at(row, col, cols);
            assert!((0..cols).all(|col| floats[col] == product(col)), "row {row} of {}", tensor.encoding);
        }
    }
    Matrix { rows, cols, scales: source.scales().clone(), trits }
}

/// Trits that look random.
fn some_trits(count: usize) -> Vec<i8> {
    (0..count as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as i8 % 3 % 2).collect()
}

fn matrix() -> impl Strategy<Value = Matrix> {
    let cols = prop::sample::select(vec![1usize, 3, 4, 20, 63, 64, 65, 192, 256, 320, 512, 640]);
    (1usize..40, cols, 0f32..100.0).prop_flat_map(|(rows, cols, scale)| {
        prop::collection::vec(-1i8..=1, rows * cols).prop_map(move |trits| Matrix {
            rows,
            cols,
            scales: Scales::One(scale),
            trits,
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_trit_and_the_exact_scale_come_back(matrix in matrix()) {
        for encoding in [Encoding::I2S, Encoding::I2SArm, Encoding::Tq1_0, Encoding::Tq2_0, Encoding::Packed,
                         Encoding::I2, Encoding::T5] {
            if encoding.bytes(&[matrix.rows, matrix.cols]).is_none() {
                prop_assert!(matches!(encode(encoding, &matrix), Err(EncodeError::Tensor(_))));
                continue;
            }
            let mut tensor = encode(encoding, &matrix).unwrap();
            // Where the file keeps it beside the tensor.
            tensor.scale = Some(matrix.scales.at(0, 0, 1));
            prop_assert_eq!(decode(&tensor), matrix.clone(), "{}", encoding);
            if let Some(mapped) = codec::mapped(&tensor).unwrap() {
                let mut row = vec![0; matrix.cols];
                for (r, expected) in matrix.trits.chunks_exact(matrix.cols).enumerate() {
                    mapped.unpack_row(r, &mut row);
                    prop_assert_eq!(&row[..], expected);
                }
                prop_assert_eq!(mapped.scales(), matrix.scales.clone());
            }
        }
    }

    #[test]
    fn floats_come_back_as_close_as_their_encoding(row in prop::collection::vec(-1000f32..1000.0, 32..=32)) {
        for (encoding, reach) in [(Encoding::F32, 0.0), (Encoding::F16, 0.5), (Encoding::Bf16, 4.0), (Encoding::Q8_0, 6.0)] {
            let mut bytes = Vec::new();
            codec::encode_floats(encoding, &row, &mut bytes).unwrap();
            let mut back = vec![f32::NAN; 32];
            codec::floats(&tensor(encoding, vec![1, 32], bytes), 0, &mut back).unwrap();
            prop_assert!(row.iter().zip(&back).all(|(a, b)| (a - b).abs() <= reach), "{} {:?}", encoding, back);
        }
    }
}

#[test]
fn a_scale_for_each_row_or_group_comes_back() {
    let trits = some_trits(20 * 512);
    for size in [512, 256, 64, 4] {
        let values = (0..20 * 512 / size).map(|i| 0.5 + i as f32).collect();
        let matrix =
            Matrix { rows: 20, cols: 512, scales: Scales::Groups { size, values }, trits: trits.clone() };
        for encoding in [Encoding::I2, Encoding::T5] {
            assert_eq!(decode(&encode(encoding, &matrix).unwrap()), matrix, "{encoding} {size}");
        }
        for encoding in [Encoding::I2S, Encoding::Packed] {
            let Err(EncodeError::Tensor(what)) = encode(encoding, &matrix) else {
                panic!("{encoding} {size}")
            };
            assert!(what.ends_with("holds one scale for a matrix, found several"), "{what}");
        }
        let tq = encode(Encoding::Tq2_0, &matrix);
        match size {
            512 | 256 => {
                let back = decode(&tq.unwrap());
                assert_eq!(back.trits, matrix.trits);
                let at = |row, col| (back.scales.at(row, col, 512), matrix.scales.at(row, col, 512));
                assert!((0..20).all(|row| at(row, 0).0 == at(row, 0).1 && at(row, 511).0 == at(row, 511).1));
            }
            _ => assert!(matches!(tq, Err(EncodeError::Tensor(_)))),
        }
    }
}

#[test]
fn rows_of_the_3b_model_straddle_blocks() {
    let matrix = Matrix { rows: 4, cols: 8640, scales: Scales::One(0.5), trits: some_trits(4 * 8640) };
    for encoding in [Encoding::I2S, Encoding::I2SArm] {
        assert_eq!(decode(&encode(encoding, &matrix).unwrap()), matrix);
    }
}

/// TQ2_0 blocks of one row: 256 times the same trit, and a scale as f16 bits.
fn tq2_0(blocks: &[(i8, u16)]) -> Tensor {
    let block = |&(trit, d): &(i8, u16)| [&[(trit + 1) as u8 * 0x55; 64][..], &d.to_le_bytes()].concat();
    tensor(Encoding::Tq2_0, vec![1, 256 * blocks.len()], blocks.iter().flat_map(block).collect())
}

const ONE: u16 = 0x3c00;
const TWO: u16 = 0x4000;

#[test]
fn tq_blocks_without_a_weight_do_not_count_for_the_scale() {
    assert_eq!(decode(&tq2_0(&[(0, TWO), (1, ONE), (0, 0), (-1, ONE)])).scales, Scales::One(1.0));
    assert_eq!(decode(&tq2_0(&[(0, 0), (0, TWO)])).scales, Scales::One(0.0));
    let two = decode(&tq2_0(&[(0, TWO), (1, ONE), (-1, TWO)]));
    assert_eq!(two.scales, Scales::Groups { size: 256, values: vec![0.0, 1.0, 2.0] });
    // Codes under a scale of 0 are zero weights, also where another block has a scale.
    let zeros = decode(&tq2_0(&[(1, 0), (1, ONE)]));
    assert_eq!((zeros.scales, zeros.trits[0], zeros.trits[256]), (Scales::One(1.0), 0, 1));
}

#[test]
fn the_exact_scale_beside_tq_blocks_counts_if_it_rounds_to_theirs() {
    let scale = |exact: f32, blocks: &[(i8, u16)]| {
        let mut tensor = tq2_0(blocks);
        tensor.scale = Some(exact);
        let back = decode(&tensor);
        (back.scales, back.trits[0])
    };
    assert_eq!(scale(1.0001, &[(1, ONE), (0, 0)]), (Scales::One(1.0001), 1));
    assert_eq!(scale(1.001, &[(1, ONE), (0, 0)]), (Scales::One(1.0), 1));
    // Too small for f16: the blocks say 0, but their codes count.
    assert_eq!(scale(1e-9, &[(1, 0), (0, 0)]), (Scales::One(1e-9), 1));
    // A matrix of zeros keeps the scale that it was given.
    assert_eq!(scale(1e-5, &[(0, 0)]), (Scales::One(1e-5), 0));
    let large = Matrix { rows: 1, cols: 256, scales: Scales::One(70000.0), trits: vec![1; 256] };
    let Err(EncodeError::Tensor(what)) = encode(Encoding::Tq1_0, &large) else { panic!("70000 is no f16") };
    assert_eq!(what, "TQ1_0 holds scales as f16, found 70000.0");
}

fn open(gguf: &Gguf) -> File {
    file::from_bytes(Path::new("x.gguf"), gguf.bytes().into(), OpenOptions::default()).unwrap()
}

#[test]
fn a_gguf_hands_over_the_scales_it_keeps_beside_tensors() {
    let tq = tq2_0(&[(1, ONE)]).bytes.to_vec();
    let mut gguf = Gguf::default();
    gguf.text("general.architecture", "test").u32("general.alignment", 64);
    gguf.strings("tern.scale.names", &["a.weight", "not.there"]);
    gguf.array("tern.scale.values", 6, 2, &[1.0001f32.to_le_bytes(), 9f32.to_le_bytes()].concat());
    gguf.tensor("a.weight", &[256], 35, tq.clone()).tensor("b.weight", &[256], 35, tq.clone());
    gguf.tensor("b.scale", &[1], 0, 0.5f32.to_le_bytes().to_vec());
    gguf.tensor("lone.scale", &[1], 0, 0.5f32.to_le_bytes().to_vec());
    let file = open(&gguf);
    let names: Vec<&str> = file.tensors().iter().map(|tensor| tensor.name.as_str()).collect();
    assert_eq!(names, ["a.weight", "b.weight", "lone.scale"]);
    assert_eq!(decode(&file.tensors()[0]).scales, Scales::One(1.0001));
    assert_eq!(decode(&file.tensors()[1]).scales, Scales::One(0.5));

    let mut short = Gguf::default();
    short.strings("tern.scale.names", &["a", "b"]).array("tern.scale.values", 6, 1, &[0; 4]);
    let error =
        file::from_bytes(Path::new("x.gguf"), short.bytes().into(), OpenOptions::default()).unwrap_err();
    let expected =
        "x.gguf: key `tern.scale.values`: expected 2 values, one for each of `tern.scale.names`, found 1";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn the_arm_order_is_an_option() {
    let matrix = Matrix { rows: 2, cols: 128, scales: Scales::One(0.5), trits: some_trits(256) };
    let bytes = encode(Encoding::I2SArm, &matrix).unwrap().bytes.to_vec();
    let gguf = Gguf::default().tensor("w", &[128, 2], 36, bytes).bytes();
    let open = |i2s_arm| {
        file::from_bytes(Path::new("x.gguf"), gguf.clone().into(), OpenOptions { i2s_arm, copy: false })
            .unwrap()
    };
    assert_eq!(decode(&open(true).tensors()[0]), matrix);
    let other = decode(&open(false).tensors()[0]);
    assert_eq!(other.scales, matrix.scales);
    assert_ne!(other.trits, matrix.trits);
}

fn floats(rows: usize, values: &[f32]) -> Tensor {
    let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    tensor(Encoding::F32, vec![rows, values.len() / rows], bytes)
}

#[test]
fn absmean_rounds_half_of_the_mean_to_zero() {
    // Mean 1: 0.5 is a tie, and goes to 0; 0.75 goes to 1; everything above 1.5 stays 1.
    let matrix = decode(&floats(2, &[0.5, -0.5, 0.75, -0.75, 2.5, -2.0, 0.0, 1.0]));
    assert_eq!((matrix.scales, &matrix.trits[..]), (Scales::One(1.0), &[0, 0, 1, -1, 1, -1, 0, 1][..]));
    let zeros = decode(&floats(1, &[0.0, -0.0]));
    assert_eq!((zeros.scales, &zeros.trits[..]), (Scales::One(1e-5), &[0, 0][..]));
}

#[test]
fn floats_that_are_ternary_already_keep_their_scale() {
    let matrix = decode(&floats(2, &[0.3, 0.0, -0.3, 0.0, 0.0, -0.0]));
    assert_eq!((matrix.scales, &matrix.trits[..]), (Scales::One(0.3), &[1, 0, -1, 0, 0, 0][..]));
}
