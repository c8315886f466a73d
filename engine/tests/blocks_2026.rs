//! The block encodings of 2026 against their golden vectors: every byte value, written and read, and what is refused.

#[allow(dead_code, reason = "tensors alone are written here")]
mod gguf_bytes;

use gguf_bytes::Gguf;
use serde_json::{Value, json};
use std::path::Path;
use tern::codec::{self, Source, Trits};
use tern::file::{self, File, OpenOptions, hf};
use tern::{Encoding, Tensor};
use tern_kernels::{Scales, half};

fn golden(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/golden").join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn hex(text: &Value) -> Vec<u8> {
    let text = text.as_str().unwrap();
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}

fn encoding(name: &str) -> Encoding {
    let all = [
        (2, "Q4_0"),
        (8, "Q8_0"),
        (14, "Q6_K"),
        (34, "TQ1_0"),
        (3, "Q4_1"),
        (6, "Q5_0"),
        (7, "Q5_1"),
        (10, "Q2_K"),
        (11, "Q3_K"),
        (12, "Q4_K"),
        (13, "Q5_K"),
        (42, "Q2_0"),
        (142, "PQ2_0"),
        (143, "PTQ1_0"),
        (41, "Q1_0"),
        (43, "STQ1_0"),
    ];
    let (id, _) = all.into_iter().find(|entry| entry.1 == name).unwrap();
    let encoding = Encoding::from_gguf(id);
    assert_eq!((encoding.name(), encoding.gguf_type()), (name, Some(id)));
    encoding
}

fn tensor(encoding: Encoding, dims: &[usize], bytes: Vec<u8>) -> Tensor {
    assert_eq!(encoding.bytes(dims), Some(bytes.len() as u64), "{encoding} {dims:?}");
    Tensor::new("w", dims, encoding, bytes)
}

/// All numbers of a tensor, those of a ternary one checked against its trits and scales.
fn numbers(tensor: &Tensor) -> Vec<f32> {
    let (rows, cols) = (tensor.rows(), tensor.cols());
    let mut out = vec![f32::NAN; rows * cols];
    for (row, out) in out.chunks_exact_mut(cols).enumerate() {
        codec::floats(tensor, row, out).unwrap();
    }
    if tensor.encoding.is_ternary() {
        let trits = Trits::open(tensor).unwrap();
        let mut row = vec![0; cols];
        for r in 0..rows {
            trits.row(r, &mut row).unwrap();
            let product = |col: usize| f32::from(row[col]) * trits.scales().at(r, col, cols);
            assert!((0..cols).all(|col| out[r * cols + col] == product(col)), "row {r}");
        }
    }
    out
}

fn encode(encoding: Encoding, cols: usize, scales: &Scales, trits: &[i8]) -> Result<Vec<u8>, String> {
    let mut row = |row: usize, out: &mut [i8]| {
        out.copy_from_slice(&trits[row * cols..][..cols]);
        Ok(())
    };
    let mut out = Vec::new();
    let source = Source { rows: trits.len() / cols, cols, scales, row: &mut row };
    codec::encode_ternary(encoding, source, &mut out).map_err(|e| format!("{e:?}"))?;
    Ok(out)
}

#[test]
fn float_blocks_are_those_of_the_gguf_package_to_the_bit() {
    for case in golden("float_blocks.json")["cases"].as_array().unwrap() {
        let name = case["type"].as_str().unwrap();
        let cols = case["weights"].as_u64().unwrap() as usize;
        let bytes = hex(&case["bytes_hex"]);
        let every = bytes.iter().collect::<std::collections::HashSet<_>>().len();
        assert_eq!(every, 256, "{name}: every byte value occurs");
        let found = numbers(&tensor(encoding(name), &[1, cols], bytes));
        for (at, (found, expected)) in found.iter().zip(floats(&hex(&case["f32_hex"]))).enumerate() {
            assert_eq!(found.to_bits(), expected.to_bits(), "{name} at {at}: {found} for {expected}");
        }
    }
}

#[test]
fn trit_blocks_are_those_of_their_formulas() {
    let mut seen: std::collections::HashMap<String, std::collections::HashSet<u8>> = Default::default();
    for case in golden("trit_blocks.json")["cases"].as_array().unwrap() {
        let name = case["type"].as_str().unwrap();
        let (cols, bytes) = (case["cols"].as_u64().unwrap() as usize, hex(&case["bytes_hex"]));
        let trit = |sign: char| match sign {
            '-' => -1i8,
            '0' => 0,
            _ => 1,
        };
        let trits: Vec<i8> = case["trits"].as_str().unwrap().chars().map(trit).collect();
        let values: Vec<f32> =
            case["scales"].as_array().unwrap().iter().map(|scale| scale.as_f64().unwrap() as f32).collect();
        let size = cols / values.len();
        let expected: Vec<f32> = (0..cols).map(|at| f32::from(trits[at]) * values[at / size]).collect();
        let encoded = tensor(encoding(name), &[1, cols], bytes.clone());
        assert_eq!(numbers(&encoded), expected, "{name}");
        let opened = Trits::open(&encoded).unwrap();
        let mut found = vec![0; cols];
        opened.row(0, &mut found).unwrap();
        assert_eq!(found, trits, "{name}");
        assert_eq!(*opened.scales(), Scales::Groups { size, values }, "{name}");
        let written = encode(encoding(name), cols, opened.scales(), &trits);
        match case["written"].as_bool().unwrap() {
            true => assert_eq!(written.unwrap(), bytes, "{name}"),
            // PTQ1_0 is written, but not with bytes that no encoder makes.
            false => assert_eq!(written.is_ok(), name == "PTQ1_0"),
        }
        seen.entry(name.to_owned()).or_default().extend(bytes);
    }
    // In Q2_0 and PQ2_0 those with a 3 are codes of nothing ternary: see below.
    for name in ["PTQ1_0", "Q1_0", "STQ1_0"] {
        assert_eq!(seen[name].len(), 256, "{name}: every byte value occurs");
    }
}

#[test]
fn a_row_of_every_byte_value_is_read_or_refused_where_a_code_is_3() {
    for (encoding, head) in [(Encoding::Q2_0, 16), (Encoding::Pq2_0, 32)] {
        for byte in 0..=255u8 {
            let mut block = vec![0x00, 0x3c];
            block.resize(2 + head, 0x55);
            block[2 + 5] = byte;
            let tensor = tensor(encoding, &[1, 4 * head], block);
            let codes = [0, 2, 4, 6].map(|shift| byte >> shift & 3);
            let mut out = vec![0; 4 * head];
            let result = Trits::open(&tensor).unwrap().row(0, &mut out);
            match codes.iter().position(|code| *code == 3) {
                None => assert_eq!(out[20..24], codes.map(|code| code as i8 - 1), "{byte}"),
                Some(at) => assert_eq!(
                    result.unwrap_err(),
                    format!("expected codes of 0, 1 or 2, found a 3 in row 0 at element {}", 20 + at)
                ),
            }
        }
    }
}

#[test]
fn scales_that_nobody_writes_are_refused_and_blocks_under_a_scale_of_0_are_zeros() {
    let names = ["Q2_0", "PQ2_0", "PTQ1_0", "Q1_0", "STQ1_0"];
    for (encoding, scale_at) in names.map(encoding).into_iter().zip([0, 0, 26, 0, 40]) {
        let whole = encoding.bytes(&[1, 256]).unwrap() as usize;
        let with = |bits: u16| {
            let mut bytes = vec![0x15; whole]; // codes 0, 1, 1, 1
            for block in
                bytes.chunks_mut(encoding.bytes(&[1, 256]).unwrap() as usize / (256 / block_of(encoding)))
            {
                block[scale_at..scale_at + 2].copy_from_slice(&bits.to_le_bytes());
            }
            tensor(encoding, &[1, 256], bytes)
        };
        for (bits, word) in
            [(0x7e00, "NaN"), (0x7c00, "inf"), (0xfc00, "-inf"), (0xbc00, "-1.0"), (0x8000, "-0.0")]
        {
            let line = Trits::open(&with(bits)).unwrap_err();
            assert_eq!(line, format!("expected a finite scale of 0 or more, found {word}"), "{encoding}");
        }
        assert_eq!(*Trits::open(&with(0x3c00)).unwrap().scales(), Scales::One(1.0), "{encoding}");
        let zeros = with(0);
        assert!(numbers(&zeros).iter().all(|value| *value == 0.0), "{encoding}");
        let mut trits = vec![7; 256];
        Trits::open(&zeros).unwrap().row(0, &mut trits).unwrap();
        assert_eq!(trits, [0; 256], "{encoding}");
    }
}

fn block_of(encoding: Encoding) -> usize {
    (32..=256).find(|&cols| encoding.bytes(&[1, cols]).is_some()).unwrap()
}

#[test]
fn what_the_scales_do_not_allow_is_not_written() {
    let trits: Vec<i8> = (0..512).map(|i| (i % 3) as i8 - 1).collect();
    let groups = |size, values: &[f32]| Scales::Groups { size, values: values.to_vec() };
    let pairs = groups(64, &[1.0, 1.0, 2.0, 2.0, 0.5, 0.5, 3.0, 3.0]);
    let joined = encode(Encoding::Pq2_0, 256, &pairs, &trits).unwrap();
    let back = Trits::open(&tensor(Encoding::Pq2_0, &[2, 256], joined.clone())).unwrap().scales().clone();
    assert_eq!(back, groups(128, &[1.0, 2.0, 0.5, 3.0]));
    // The same matrix has the same scales in both encodings.
    let finer = encode(Encoding::Q2_0, 256, &pairs, &trits).unwrap();
    assert_eq!(*Trits::open(&tensor(Encoding::Q2_0, &[2, 256], finer)).unwrap().scales(), back);
    let odd = groups(64, &[1.0, 2.0, 2.0, 2.0, 0.5, 0.5, 3.0, 3.0]);
    let line = encode(Encoding::Pq2_0, 256, &odd, &trits).unwrap_err();
    assert!(line.contains("PQ2_0 holds a scale for 128 weights, found one for 64"), "{line}");
    let fine = groups(256, &[1.0, 1.0001]);
    let line = encode(Encoding::Q2_0, 256, &fine, &trits).unwrap_err();
    assert!(line.contains("Q2_0 holds scales as f16, found 1.0001"), "{line}");
    // One for the whole matrix is rounded: the exact one is kept beside it.
    let one = encode(Encoding::Q2_0, 256, &Scales::One(1.0001), &trits).unwrap();
    let mut tensor = tensor(Encoding::Q2_0, &[2, 256], one);
    assert_eq!(*Trits::open(&tensor).unwrap().scales(), Scales::One(1.0));
    tensor.scale = Some(1.0001);
    assert_eq!(*Trits::open(&tensor).unwrap().scales(), Scales::One(1.0001));
}

/// Matrices of type 42, each of so many rows of 256 zeros.
fn forty_two(bytes: u64, rows: &[u64]) -> File {
    let mut gguf = Gguf::default();
    for (nth, &rows) in rows.iter().enumerate() {
        gguf.tensor(&format!("w{nth}"), &[256, rows], 42, vec![0; (bytes * rows) as usize]);
    }
    gguf.tensor("last", &[4], 0, vec![0; 16]);
    file::from_bytes(Path::new("x.gguf"), gguf.bytes().into(), OpenOptions::default()).unwrap()
}

#[test]
fn type_42_means_what_most_of_its_tensors_have_room_for() {
    for (bytes, expected) in [(4 * 18, Encoding::Q2_0), (2 * 34, Encoding::Pq2_0), (42, Encoding::Stq1_0)] {
        let file = forty_two(bytes, &[16, 1, 40]);
        let found: Vec<Encoding> = file.tensors().iter().map(|tensor| tensor.encoding).collect();
        assert_eq!(found, [expected, expected, expected, Encoding::F32], "{bytes}");
    }
    // One row of 256 may be either of two: 72 and 68 bytes end at the same multiple of 32.
    assert_eq!(forty_two(68, &[1]).tensors()[0].encoding, Encoding::Q2_0);
    assert_eq!(forty_two(68, &[1, 8]).tensors()[0].encoding, Encoding::Pq2_0);
    // What the vote does not fit is refused by its name.
    let mut gguf = Gguf::default();
    gguf.tensor("a", &[256, 16], 42, vec![0; 16 * 72]).tensor("b", &[256, 16], 42, vec![0; 16 * 72]);
    gguf.tensor("odd", &[256, 16], 42, vec![0; 16 * 42]).tensor("last", &[4], 0, vec![0; 16]);
    let line =
        file::from_bytes(Path::new("x.gguf"), gguf.bytes().into(), OpenOptions::default()).unwrap_err();
    let expected =
        "x.gguf: tensor `odd`: expected 1152 bytes of Q2_0 for [16, 256], found 672 up to tensor `last`";
    assert_eq!(line.to_string(), expected);
}

fn f16_matrix(rows: usize, values: &[f32]) -> Tensor {
    let bytes = values.iter().flat_map(|value| half::f32_to_f16(*value).to_le_bytes()).collect();
    tensor(Encoding::F16, &[rows, values.len() / rows], bytes)
}

#[test]
fn floats_that_are_ternary_by_row_or_group_are_found() {
    let trit = |row: usize, col: usize| ((row * 31 + col * 7) % 3) as f32 - 1.0;
    for size in [512, 256, 128, 64, 32] {
        let scale = |row: usize, col: usize| 0.5 + (row * (512 / size) + col / size) as f32 / 64.0;
        let mut values: Vec<f32> =
            (0..4 * 512).map(|i| trit(i / 512, i % 512) * scale(i / 512, i % 512)).collect();
        let matrix = f16_matrix(4, &values);
        let opened = Trits::open(&matrix).unwrap();
        assert!(opened.is_exact() && codec::is_ternary(&matrix), "{size}");
        let expected = (0..4 * 512 / size).map(|nth| scale(nth * size / 512, nth * size % 512)).collect();
        assert_eq!(*opened.scales(), Scales::Groups { size, values: expected });
        let mut row = vec![0; 512];
        opened.row(3, &mut row).unwrap();
        assert!((0..512).all(|col| f32::from(row[col]) == trit(3, col)));
        // The last bit of one weight makes it an ordinary matrix.
        let at = values.iter().rposition(|value| *value != 0.0).unwrap();
        values[at] = half::f16_to_f32(half::f32_to_f16(values[at]) + 1);
        let matrix = f16_matrix(4, &values);
        assert!(!Trits::open(&matrix).unwrap().is_exact() && !codec::is_ternary(&matrix), "{size}");
    }
    // A few numbers alike are no proof: rows shorter than the smallest group count as a matrix only.
    assert!(!Trits::open(&f16_matrix(3, &[1.0, 2.0, 3.0])).unwrap().is_exact());
    assert!(Trits::open(&f16_matrix(3, &[1.0, -1.0, 0.0])).unwrap().is_exact());
}

/// The golden MLX matrix in a safetensors file with its configuration.
fn mlx(change: impl Fn(&mut Value, &mut Vec<u8>), config: Value) -> tern::Result<File> {
    let golden = golden("mlx_2bit.json");
    let (rows, cols) = (golden["rows"].as_u64().unwrap(), golden["cols"].as_u64().unwrap());
    let parts = ["words_hex", "scales_f16_hex", "biases_f16_hex"].map(|key| hex(&golden[key]));
    let ends = [parts[0].len(), parts[0].len() + parts[1].len(), parts.concat().len()];
    let mut header = json!({
        "a.weight": {"dtype": "U32", "shape": [rows, cols / 16], "data_offsets": [0, ends[0]]},
        "a.scales": {"dtype": "F16", "shape": [rows, cols / 128], "data_offsets": [ends[0], ends[1]]},
        "a.biases": {"dtype": "F16", "shape": [rows, cols / 128], "data_offsets": [ends[1], ends[2]]},
    });
    let mut data = parts.concat();
    change(&mut header, &mut data);
    let header = header.to_string();
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    hf::from_bytes(Path::new("x.safetensors"), bytes.into(), config)
}

#[test]
fn mlx_matrices_are_read_as_mlx_reads_them() {
    let config = json!({"quantization": {"bits": 2, "group_size": 128, "mode": "affine"}});
    let file = mlx(|_, _| (), config.clone()).unwrap();
    let matrix = file.tensor("a.weight").unwrap();
    assert_eq!((matrix.encoding, file.tensors().len()), (Encoding::Mlx2, 1));
    assert_eq!(numbers(matrix), floats(&hex(&golden("mlx_2bit.json")["f32_hex"])));
    let refuses = |change: &dyn Fn(&mut Value, &mut Vec<u8>), config: Value, expected: &str| {
        let result = mlx(change, config).map_err(|e| e.to_string()).and_then(|file| {
            let matrix = file.tensor("a.weight").unwrap();
            let trits = Trits::open(matrix)?;
            (0..3).try_for_each(|row| trits.row(row, &mut vec![0; 512]))
        });
        let line = result.unwrap_err();
        assert!(line.contains(expected), "{line}");
    };
    let last = |data: &[u8]| data.len() - 1;
    refuses(
        &|_, data| data[7] = 0xc0,
        config.clone(),
        "expected codes of 0, 1 or 2, found a 3 in row 0 at element 31",
    );
    refuses(
        &|_, data| {
            let at = last(data);
            data[at] ^= 1
        },
        config.clone(),
        "expected a bias of minus the scale",
    );
    refuses(
        &|_, data| {
            let at = last(data);
            data[at] = 0x7c
        },
        config.clone(),
        "expected a bias of minus the scale",
    );
    refuses(
        &|_, data| {
            let at = data.len() - 24 - 1;
            data[at] |= 0x80
        },
        config.clone(),
        "expected a finite scale of 0 or more",
    );
    refuses(
        &|header, _| header["a.scales"]["shape"] = json!([4, 3]),
        config.clone(),
        "tensor `a.scales`: expected floats [3, 4], found F16 [4, 3]",
    );
    refuses(
        &|header, _| header["a.biases"]["dtype"] = json!("I16"),
        config.clone(),
        "tensor `a.biases`: expected floats [3, 4], found I16 [3, 4]",
    );
    refuses(
        &|header, _| {
            let biases = header["a.biases"].take();
            header.as_object_mut().unwrap().remove("a.biases");
            header["b.biases"] = biases;
        },
        config.clone(),
        "tensor `a.weight`: expected `a.biases` beside it, found none",
    );
    for (settings, expected) in [
        (
            json!({"bits": 4, "group_size": 128}),
            "key `quantization.bits`: expected 2, which ternary models have, found 4",
        ),
        (
            json!({"bits": 2, "group_size": 96}),
            "key `quantization.group_size`: expected 32, 64 or 128, found 96",
        ),
        (
            json!({"bits": 2, "group_size": 128, "mode": "mxfp4"}),
            "key `quantization.mode`: expected \"affine\"",
        ),
        (
            json!({"bits": 2, "group_size": 128, "lm_head": {"bits": 4}}),
            "key `quantization.lm_head`: is not a key",
        ),
    ] {
        refuses(&|_, _| (), json!({ "quantization": settings }), expected);
    }
}
