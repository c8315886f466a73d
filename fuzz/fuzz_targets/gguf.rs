//! Any bytes as a GGUF: open it, then decode some rows of every tensor.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use tern::codec::{self, Trits};
use tern::file::{self, File, OpenOptions};

fn read(file: &File) {
    for tensor in file.tensors().iter().take(64).filter(|tensor| tensor.cols() < 1 << 16) {
        for row in [0, tensor.rows() / 2, tensor.rows() - 1] {
            let _ = codec::floats(tensor, row, &mut vec![0.0; tensor.cols()]);
        }
        let Ok(trits) = Trits::open(tensor) else { continue };
        let mut row = vec![0; tensor.cols()];
        if trits.row(tensor.rows() - 1, &mut row).is_ok() {
            assert!(row.iter().all(|trit| (-1..=1).contains(trit)));
        }
    }
}

fuzz_target!(|data: &[u8]| {
    match file::from_bytes(Path::new("fuzz"), data.to_vec().into(), OpenOptions::default()) {
        Ok(file) => read(&file),
        Err(error) => assert_eq!(error.to_string().lines().count(), 1, "{error}"),
    }
});
