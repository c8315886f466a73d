//! SHA-256 of files, so that a figure says what it was measured on.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use sha2::{Digest, Sha256};

fn digits(sum: Sha256) -> String {
    sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Of these bytes.
pub(super) fn hex(bytes: &[u8]) -> String {
    digits(Sha256::new().chain_update(bytes))
}

/// Of a file; `None` where it cannot be read as one (a directory, the built-in model).
pub(super) fn file(path: &Path) -> Option<String> {
    let (mut file, mut sum, mut piece) = (File::open(path).ok()?, Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut piece).ok()? {
            0 => return Some(digits(sum)),
            len => sum.update(&piece[..len]),
        }
    }
}

/// The hash of a model's file, computed while the model is loaded.
pub(super) struct Later(JoinHandle<Option<String>>);

impl Later {
    /// Of a file, or of the weights in a directory.
    pub(super) fn of(model: &Path) -> Self {
        let path: PathBuf = if model.is_dir() { model.join("model.safetensors") } else { model.to_owned() };
        Self(thread::spawn(move || file(&path)))
    }

    pub(super) fn get(self) -> Option<String> {
        self.0.join().ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::{file, hex};

    #[test]
    fn digests_are_those_of_the_standard() {
        assert_eq!(hex(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(hex(b""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        let two = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
        assert_eq!(hex(two), "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
        let million = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(million.path(), [b'a'; 1_000_000]).unwrap();
        let digest = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";
        assert_eq!(file(million.path()).as_deref(), Some(digest));
    }
}
