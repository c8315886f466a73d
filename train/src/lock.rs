//! One run at a time writes into a folder: whoever trains holds a lock of the system on `OUT/lock`. The system frees it
//! when the process ends, however it ends; the number in the file only says whose it is.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use crate::error::{Error, Result};

/// Held for as long as it lives.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "closing the file frees the lock")] File);

impl Lock {
    /// Takes the lock of a run's folder, which is made if there is none.
    pub fn take(out: &Path) -> Result<Self> {
        std::fs::create_dir_all(out).map_err(|e| Error::io(out, e))?;
        let path = out.join("lock");
        let io = |e| Error::io(&path, e);
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::file(out, taken(&mut file))),
            Err(TryLockError::Error(e)) => return Err(io(e)),
        }
        // A number that cannot be written (a full disk) is missing in a message, and nothing else.
        let _ = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| write!(file, "{}", std::process::id()));
        Ok(Self(file))
    }
}

fn taken(file: &mut File) -> String {
    let mut text = String::new();
    let pid = file.take(20).read_to_string(&mut text).ok().and_then(|_| text.trim().parse::<u32>().ok());
    let who = pid.map_or("another process".to_owned(), |pid| format!("process {pid}"));
    format!("{who} is training in this folder; wait for it, stop it, or choose another with `--out`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_holder_and_what_a_dead_one_left_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("a/b");
        let first = Lock::take(&out).unwrap();
        let error = Lock::take(&out).unwrap_err().to_string();
        assert!(error.contains(&format!("process {} is training", std::process::id())), "{error}");
        drop(first);
        std::fs::write(out.join("lock"), "4000000000").unwrap();
        let second = Lock::take(&out).unwrap();
        assert_eq!(std::fs::read_to_string(out.join("lock")).unwrap(), std::process::id().to_string());
        drop(second);
    }
}
