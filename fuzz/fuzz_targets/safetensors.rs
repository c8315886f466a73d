//! Any bytes as a configuration, a NUL, and a safetensors file: open it, then decode some rows of every tensor.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use tern::codec::{self, Trits};
use tern::file::hf;

fuzz_target!(|data: &[u8]| {
    let cut = data.iter().position(|&byte| byte == 0).unwrap_or(0);
    let config = serde_json::from_slice(&data[..cut]).unwrap_or_default();
    let bytes = data[(cut + 1).min(data.len())..].to_vec();
    match hf::from_bytes(Path::new("fuzz"), bytes.into(), config) {
        Ok(file) => {
            for tensor in file.tensors().iter().filter(|tensor| tensor.cols() < 1 << 16) {
                let _ = codec::floats(tensor, tensor.rows() - 1, &mut vec![0.0; tensor.cols()]);
                if let Ok(trits) = Trits::open(tensor) {
                    let _ = trits.row(0, &mut vec![0; tensor.cols()]);
                }
            }
        }
        Err(error) => assert_eq!(error.to_string().lines().count(), 1, "{error}"),
    }
});
