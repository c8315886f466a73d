//! What every bad file must survive, and a source of mutants.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tern::Random;
use tern::Result;
use tern::codec::{self, Trits};
use tern::file::File;

pub(crate) fn golden(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/golden")).join(name)
}

pub(crate) fn read(name: &str) -> Vec<u8> {
    std::fs::read(golden(name)).unwrap()
}

/// Reads the first and the last row of every tensor, as floats and as trits.
pub(crate) fn walk(file: &File) -> Result<()> {
    for tensor in file.tensors() {
        let wrong = |what: String| file.error(&tensor.name, what);
        let last = tensor.rows() - 1;
        let mut floats = vec![0.0; tensor.cols()];
        codec::floats(tensor, 0, &mut floats).map_err(wrong)?;
        codec::floats(tensor, last, &mut floats).map_err(wrong)?;
        let trits = Trits::open(tensor).map_err(wrong)?;
        let mut row = vec![0; tensor.cols()];
        trits.row(last, &mut row).map_err(wrong)?;
        assert!(row.iter().all(|trit| (-1..=1).contains(trit)), "{}: a trit that is none", tensor.name);
        if let Some(matrix) = codec::mapped(tensor).map_err(wrong)? {
            assert_eq!((matrix.rows(), matrix.cols()), (tensor.rows(), tensor.cols()));
        }
    }
    Ok(())
}

/// Runs one attempt; whether it gave an error, which must be one line with the name of the file.
pub(crate) fn survives(what: &str, name: &str, attempt: impl FnOnce() -> Result<File>) -> bool {
    let start = Instant::now();
    let result = catch_unwind(AssertUnwindSafe(attempt)).unwrap_or_else(|_| panic!("{what}: panicked"));
    assert!(start.elapsed() < Duration::from_secs(1), "{what}: took {:?}", start.elapsed());
    let Err(error) = result else { return false };
    let line = error.to_string();
    assert!(!line.contains(['\n', '\r']), "{what}: more than one line: {line}");
    assert!(line.starts_with(name), "{what}: does not begin with the file: {line}");
    assert!(line.len() < 1000, "{what}: {} bytes long", line.len());
    assert!(!line.ends_with('.'), "{what}: ends in a full stop: {line}");
    true
}

/// The most memory this process ever used, in MiB, where the system says.
pub(crate) fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

/// A number that parsers trip over, or any.
pub(crate) fn nasty(random: &mut Random, was: u64) -> u64 {
    let edges =
        [0, 1, 3, 7, 31, 33, 36, 39, 255, 256, 1 << 16, 1 << 31, u64::from(u32::MAX), 1 << 32, 1 << 47];
    match random.below(8) {
        0 => was.wrapping_add(1),
        1 => was.wrapping_sub(1),
        2 => was.wrapping_mul(2),
        3 => [1 << 60, 1 << 61, 1 << 62, 1 << 63, u64::MAX, u64::MAX - 31, i64::MAX as u64][random.below(7)],
        4 => random.bits(),
        _ => edges[random.below(edges.len())],
    }
}
