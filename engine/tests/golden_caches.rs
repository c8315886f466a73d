//! What the rotated caches make of keys and values, bit for bit as NumPy does it (`testdata/golden/gen/caches.py`).

use std::path::Path;

use serde_json::Value;
use tern::Kept;

fn floats(bits: &Value) -> Vec<f32> {
    let bits = bits.as_array().expect("bits of floats");
    bits.iter().map(|bits| f32::from_bits(u32::try_from(bits.as_u64().unwrap()).unwrap())).collect()
}

fn bits(row: &[f32]) -> Vec<u32> {
    // Of a zero the sign is nobody's concern.
    row.iter().map(|x| (x + 0.0).to_bits()).collect()
}

#[test]
fn rows_come_back_as_the_reference_has_them() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/golden/caches.json");
    let golden: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let cases = golden["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 30);
    for case in cases {
        for kept in [Kept::Q8, Kept::Q4, Kept::Q3] {
            let mut row = floats(&case["row"]);
            let (dim, want) = (row.len(), floats(&case[kept.name()]));
            kept.round_trip(false, &mut row).unwrap();
            assert!(bits(&row) == bits(&want), "{} of {dim}: {row:?}, expected {want:?}", kept.name());
            // The first token of a text is kept in 8 bits.
            let mut row = floats(&case["row"]);
            kept.round_trip(true, &mut row).unwrap();
            assert!(bits(&row) == bits(&floats(&case["q8"])), "{} of {dim}, first", kept.name());
        }
    }
}
