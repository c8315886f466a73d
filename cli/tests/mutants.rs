//! Damaged files through the real binary: the readers are tested in the engine, this is about what is done with what they
//! let pass. Every one ends in success or in one line, never in a panic or a signal.

mod common;

use common::{Done, run, testdata};
use tern::Random;

fn ends_well(args: &[&str], done: &Done, what: &str) {
    let lines = done.stderr.lines().count();
    match done.code {
        Some(0) => {}
        Some(1 | 2) => {
            assert!(done.stderr.starts_with("error: "), "{what}: {}", done.stderr);
            assert!(lines <= 2 && done.stderr.len() < 2000, "{what}: {lines} lines: {}", done.stderr);
        }
        code => panic!("{what}: {args:?} ended with {code:?}: {}", done.stderr),
    }
}

/// Changes 1 to 3 bytes of the first `header` ones, to values that break things, or cuts the end off.
fn damage(file: &[u8], header: usize, random: &mut Random) -> Vec<u8> {
    let mut bytes = file.to_vec();
    if random.below(5) == 0 {
        bytes.truncate(random.below(file.len()));
        return bytes;
    }
    for _ in 0..=random.below(3) {
        let at = random.below(header);
        bytes[at] = match random.below(4) {
            0 => 0,
            1 => 0xff,
            2 => bytes[at] ^ 1 << random.below(8),
            _ => random.below(256) as u8,
        };
    }
    bytes
}

#[test]
fn damaged_ggufs_end_in_one_line_or_run() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.gguf");
    let path = path.to_str().unwrap();
    let mut random = Random(1);
    let mut refused = 0;
    for (name, header) in [("golden/gguf/bitnet_b158_i2s.gguf", 6000), ("golden/gguf/types_v3.gguf", 1500)] {
        let file = std::fs::read(testdata(name)).unwrap();
        for n in 0..60 {
            std::fs::write(path, damage(&file, header.min(file.len()), &mut random)).unwrap();
            for args in [&["inspect", path][..], &["run", path, "--ids", "1,2", "-n", "2", "-t", "1"]] {
                let done = run(args);
                ends_well(args, &done, &format!("{name}, mutant {n}"));
                refused += usize::from(done.code != Some(0));
            }
        }
    }
    assert!(refused > 100, "only {refused} were refused: is the header hit at all?");
}

#[test]
fn damaged_checkpoints_end_in_one_line_or_run() {
    let from = testdata("golden/llama_packed_bitlinear");
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();
    let mut random = Random(2);
    for damaged in ["config.json", "model.safetensors"] {
        for name in ["config.json", "model.safetensors"] {
            std::fs::copy(format!("{from}/{name}"), format!("{dir}/{name}")).unwrap();
        }
        let file = std::fs::read(format!("{from}/{damaged}")).unwrap();
        for n in 0..40 {
            std::fs::write(format!("{dir}/{damaged}"), damage(&file, file.len().min(2500), &mut random))
                .unwrap();
            for args in [&["inspect", dir][..], &["run", dir, "--ids", "1,2", "-n", "2", "-t", "1"]] {
                ends_well(args, &run(args), &format!("{damaged}, mutant {n}"));
            }
        }
    }
}
