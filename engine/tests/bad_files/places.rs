//! Paths that lead to something else than a file.

use std::path::Path;
use std::time::{Duration, Instant};
use tern::Error;
use tern::file::{self, OpenOptions};

#[test]
fn what_is_no_regular_file_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let refuses = |path: &Path, expected: &str| {
        let start = Instant::now();
        let line = file::open(path, OpenOptions::default()).unwrap_err().to_string();
        assert!(line.starts_with(&path.display().to_string()) && line.contains(expected), "{line}");
        assert!(start.elapsed() < Duration::from_secs(1));
    };
    refuses(&dir.path().join("none.gguf"), "No such file");
    refuses(dir.path(), "expected a directory with a config.json, found none");
    std::fs::write(dir.path().join("config.json"), "{}").unwrap();
    refuses(
        dir.path(),
        "expected model.safetensors or model.safetensors.index.json beside config.json, found neither",
    );
    std::fs::create_dir(dir.path().join("model.safetensors")).unwrap();
    assert!(matches!(file::open(dir.path(), OpenOptions::default()), Err(Error::File { .. })));
    let path = dir.path().join("a b é.gguf");
    std::fs::write(&path, "").unwrap();
    refuses(&path, "the file is empty");
    std::fs::write(&path, "PK\u{3}\u{4} rest of an archive").unwrap();
    refuses(&path, "expected a GGUF or .safetensors file, found a file that begins with bytes 504b0304");
    let sparse = std::fs::File::create(dir.path().join("sparse.safetensors")).unwrap();
    if sparse.set_len(1 << 40).is_ok() {
        refuses(&dir.path().join("sparse.safetensors"), "expected a safetensors header, found");
    }
    if cfg!(unix) {
        refuses(Path::new("/dev/zero"), "expected a regular file, found a device, pipe or socket");
        let fifo = dir.path().join("fifo.gguf");
        if std::process::Command::new("mkfifo").arg(&fifo).status().is_ok_and(|status| status.success()) {
            refuses(&fifo, "expected a regular file, found a device, pipe or socket");
        }
    }
    #[cfg(unix)]
    {
        let (a, b) = (dir.path().join("a.gguf"), dir.path().join("b.gguf"));
        std::os::unix::fs::symlink(&a, &b).unwrap();
        std::os::unix::fs::symlink(&b, &a).unwrap();
        refuses(&a, "symbolic links");
    }
}
